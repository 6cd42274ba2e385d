/*
 * Where the functions of an image begin and end, as far as it tells: from its symbols, and from the
 * sorted table in .eh_frame_hdr, which also knows the functions of a stripped library.
 */
#ifndef ALLOCTRACE_CODE_RANGES_H
#define ALLOCTRACE_CODE_RANGES_H

#include "binary/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct code_range {
	uint64_t start;
	uint64_t size;	 /* from a symbol; 0: unknown */
	bool has_unwind; /* in .eh_frame_hdr: then the next start bounds it */
};

struct code_ranges {
	struct code_range *items; /* owned; sorted by start, unique */
	size_t count, capacity;
};

/* 0, -ENOMEM, -E2BIG, or -errno of reading the symbols. A missing or odd .eh_frame_hdr is no error.
 */
int code_ranges_load(const struct image *image, struct code_ranges *out);
void code_ranges_deinit(struct code_ranges *ranges);

/*
 * The extent [*start, *end) of the function that holds vaddr. It may take in what follows a
 * function up to the next one (padding, functions without unwind information), never less than the
 * function. false: not known.
 */
bool code_ranges_find(const struct code_ranges *ranges, uint64_t vaddr, uint64_t *start,
		      uint64_t *end);

/* Is there unwind information for a function that begins at vaddr? */
bool code_ranges_has_unwind(const struct code_ranges *ranges, uint64_t vaddr);

/* The first known start of a function behind vaddr, UINT64_MAX if there is none. */
uint64_t code_ranges_next(const struct code_ranges *ranges, uint64_t vaddr);

#endif
