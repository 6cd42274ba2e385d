#include "output/text.h"

#include "util/utf8.h"

#include <stdint.h>
#include <stdlib.h>

void text_escape(FILE *to, const char *string)
{
	text_escape_also(to, string, '\0');
}

void text_escape_also(FILE *to, const char *string, char special)
{
	uint32_t code;

	while (*string) {
		size_t length = utf8_decode(string, &code);
		bool plain = length && !utf8_is_unsafe(code) && *string != special;

		if (!length)
			length = 1;
		if (*string == '\\')
			fputs("\\\\", to);
		else if (plain)
			fwrite(string, 1, length, to);
		for (size_t i = 0; !plain && i < length; i++)
			fprintf(to, "\\x%02X", (unsigned char)string[i]);
		string += length;
	}
}

char *text_escaped(const char *string)
{
	char *copy = NULL;
	size_t size;
	FILE *to = open_memstream(&copy, &size);

	if (!to)
		return NULL;
	text_escape(to, string);
	if (fclose(to)) {
		free(copy);
		return NULL;
	}
	return copy;
}
