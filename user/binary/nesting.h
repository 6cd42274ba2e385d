/*
 * How the functions of an allocator call each other: calloc may call malloc, realloc may end in a
 * jump to it. Without this an allocation that is made by two probed functions would be counted
 * twice.
 */
#ifndef ALLOCTRACE_NESTING_H
#define ALLOCTRACE_NESTING_H

#include "binary/allocators.h"
#include "binary/code_ranges.h"
#include "binary/plt.h"

/*
 * Fills in nested_returns and tail_calls_allocator of an allocator whose functions are complete.
 * Also takes a probe site back to the entry where code outside of the function, its cold part for
 * one, jumps into the way from the entry to the site. x86-64 only.
 *
 * Seen: direct calls and jumps, and those through plt, from the probed functions and up to two
 * levels of other functions below them. Not seen: calls through pointers. 0, -ENOMEM, or -errno of
 * reading.
 */
int nesting_find(const struct image *image, const struct code_ranges *ranges, const struct plt *plt,
		 struct allocator *allocator);

#endif
