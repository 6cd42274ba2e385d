/* Which bytes of a string from outside are characters, and which of those may be printed. */
#ifndef ALLOCTRACE_UTF8_H
#define ALLOCTRACE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The length of the UTF-8 character at `at`, its code point in *code; 0 if there is none (no
 * overlong forms, no surrogates, nothing above U+10FFFF). Reads no further than the NUL that ends
 * the string.
 */
static inline size_t utf8_decode(const char *string, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const uint8_t *at = (const uint8_t *)string;
	size_t length = at[0] < 0x80	       ? 1
			: (at[0] >> 5) == 0x6  ? 2
			: (at[0] >> 4) == 0xe  ? 3
			: (at[0] >> 3) == 0x1e ? 4
					       : 0;
	uint32_t value = length == 1 ? at[0] : at[0] & (0x7f >> length);

	for (size_t i = 1; i < length; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (at[i] & 0x3f);
	}
	if (!length || value < least[length] || value > 0x10ffff ||
	    (value >= 0xd800 && value < 0xe000))
		return 0;
	*code = value;
	return length;
}

/*
 * Could this character steer a terminal, forge a line, or show text in another order than it has?
 * C0, DEL and C1 controls, line and paragraph separators, and the marks that turn the direction of
 * writing.
 */
static inline bool utf8_is_unsafe(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x200e || code == 0x200f ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
	       code == 0x61c;
}

#endif
