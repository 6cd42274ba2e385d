/*
 * A bounded reader over bytes that came from outside (ELF sections, /proc texts, perf records).
 *
 * Every read is checked. The first one that does not fit sets `failed`, and that read and all that
 * follow return 0: a parser may read a whole record and check once. The position then stays where
 * the failing read began, for messages.
 */
#ifndef ALLOCTRACE_READER_H
#define ALLOCTRACE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
	const uint8_t *start; /* borrowed, for as long as the reader is used */
	const uint8_t *pos;
	const uint8_t *end;
	bool failed;
};

static inline struct reader reader_new(const void *data, size_t size)
{
	/* To NULL nothing may be added, not even 0. */
	return (struct reader){
		.start = data,
		.pos = data,
		.end = data ? (const uint8_t *)data + size : NULL,
	};
}

static inline size_t reader_left(const struct reader *r)
{
	return r->failed ? 0 : (size_t)(r->end - r->pos);
}

static inline size_t reader_offset(const struct reader *r)
{
	return (size_t)(r->pos - r->start);
}

/* The next n bytes, or NULL. */
static inline const uint8_t *reader_bytes(struct reader *r, size_t n)
{
	const uint8_t *at = r->pos;

	if (n > reader_left(r)) {
		r->failed = true;
		return NULL;
	}
	r->pos += n;
	return at;
}

static inline void reader_seek(struct reader *r, size_t offset)
{
	if (r->failed || offset > (size_t)(r->end - r->start)) {
		r->failed = true;
		return;
	}
	r->pos = r->start + offset;
}

/* A reader over the next n bytes, which are skipped in r. */
static inline struct reader reader_sub(struct reader *r, size_t n)
{
	const uint8_t *at = reader_bytes(r, n);
	struct reader sub = reader_new(at, at ? n : 0);

	sub.failed = !at;
	return sub;
}

#define READER_DEFINE(name, type)                                                                  \
	static inline type reader_##name(struct reader *r)                                         \
	{                                                                                          \
		const uint8_t *at = reader_bytes(r, sizeof(type));                                 \
		type value = 0;                                                                    \
		if (at)                                                                            \
			memcpy(&value, at, sizeof(value));                                         \
		return value;                                                                      \
	}

READER_DEFINE(u8, uint8_t)
READER_DEFINE(s8, int8_t)
READER_DEFINE(u16, uint16_t)
READER_DEFINE(s16, int16_t)
READER_DEFINE(u32, uint32_t)
READER_DEFINE(s32, int32_t)
READER_DEFINE(u64, uint64_t)
READER_DEFINE(s64, int64_t)
#undef READER_DEFINE

/* ULEB128 and SLEB128 (DWARF 5, 7.6). More than 64 significant bits fail. */
static inline uint64_t reader_uleb128(struct reader *r)
{
	uint64_t value = 0;

	for (unsigned int shift = 0;; shift += 7) {
		uint8_t byte = reader_u8(r);

		if (r->failed)
			return 0;
		if (shift >= 64 || (shift == 63 && (byte & 0x7e))) {
			if (byte & 0x7f) {
				r->failed = true;
				return 0;
			}
		} else {
			value |= (uint64_t)(byte & 0x7f) << shift;
		}
		if (!(byte & 0x80))
			return value;
	}
}

static inline int64_t reader_sleb128(struct reader *r)
{
	uint64_t value = 0;
	unsigned int shift = 0;
	uint8_t byte;

	do {
		byte = reader_u8(r);
		if (r->failed || shift >= 70) {
			r->failed = true;
			return 0;
		}
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80);
	if (shift < 64 && (byte & 0x40))
		value |= ~UINT64_C(0) << shift;
	return (int64_t)value;
}

/* A NUL-terminated string inside the bytes, or NULL. Borrowed like the bytes. */
static inline const char *reader_cstr(struct reader *r)
{
	const void *nul = reader_left(r) ? memchr(r->pos, 0, reader_left(r)) : NULL;
	const char *at = (const char *)r->pos;

	if (!nul) {
		r->failed = true;
		return NULL;
	}
	r->pos = (const uint8_t *)nul + 1;
	return at;
}

#endif
