/* Room in an array of fixed size: first fit, and what is given back joins its neighbours. */
#ifndef ALLOCTRACE_EXTENTS_H
#define ALLOCTRACE_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

struct extent {
	uint32_t first, count;
};

struct extents {
	struct extent *items; /* owned; free ones, by first */
	size_t count, capacity;
};

/* All of [0, size) is free. 0 or -ENOMEM. */
int extents_init(struct extents *extents, uint32_t size);
void extents_deinit(struct extents *extents);

/* 0 with *first; -ENOSPC where no free extent is large enough. count 0 needs no room and gets first
 * 0. */
int extents_take(struct extents *extents, uint32_t count, uint32_t *first);

/* Gives back what extents_take() gave. 0; -ENOMEM: it stays taken. */
int extents_give(struct extents *extents, uint32_t first, uint32_t count);

#endif
