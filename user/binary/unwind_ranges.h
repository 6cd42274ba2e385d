/* Which code of an image has unwind information, so that a walk can pass it. */
#ifndef ALLOCTRACE_UNWIND_RANGES_H
#define ALLOCTRACE_UNWIND_RANGES_H

#include "binary/eh_frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct unwind_ranges {
	struct eh_frame_range *items; /* owned; sorted, neither overlapping nor touching */
	size_t count, capacity;
};

/* 0 (none at all is no error), -ENOMEM, or what else eh_frame_open() returns. */
int unwind_ranges_load(const struct image *image, struct unwind_ranges *out);
void unwind_ranges_deinit(struct unwind_ranges *ranges);

bool unwind_ranges_hold(const struct unwind_ranges *ranges, uint64_t vaddr);

#endif
