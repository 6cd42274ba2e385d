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
 * For an allocator whose functions are complete:
 * - leaves out those that are thin: whatever way is taken through them, another function that is
 *   probed does the work (operator delete that jumps to free). The user's own only where they are
 *   nothing but a jump to such a one;
 * - fills in handovers and nested_returns (where there are functions that map memory, also those for
 *   which a mapping is the allocator's own);
 * - says in is_partly_known if there was more code than is followed;
 * - takes a probe site back to the entry where one call would be hit twice there: where code outside
 *   of the function, its cold part for one, jumps into the way from the entry to the site, where
 *   another function begins on that way, and where the site is a jump that hands over.
 *
 * Seen are direct calls and jumps, and those through plt. What a probed function jumps to is part of
 * it, and looked at too. x86-64 only. 0, -ENOMEM, or -errno of reading.
 */
int nesting_find(const struct image *image, const struct code_ranges *ranges, const struct plt *plt,
		 struct allocator *allocator);

#endif
