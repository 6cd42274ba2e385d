/*
 * Half-open intervals of addresses that may nest or overlap, flattened once into spans that do not:
 * at each address the interval of the highest priority wins. A lookup is one binary search.
 */
#ifndef ALLOCTRACE_INTERVAL_MAP_H
#define ALLOCTRACE_INTERVAL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct interval {
	uint64_t low, high;
	uint64_t priority; /* of two equal ones, either may win: make them differ */
	uint32_t value;	   /* < UINT32_MAX */
};

struct interval_span {
	uint64_t low;	/* up to the next span's */
	uint32_t value; /* UINT32_MAX: nothing here */
};

struct interval_map {
	struct interval_span *items; /* owned */
	size_t count, capacity;
};

/* Sorts the items in place; empty ones are ignored. 0 or -ENOMEM, and then the map is empty. */
int interval_map_init(struct interval_map *map, struct interval *items, size_t count);
void interval_map_deinit(struct interval_map *map);

bool interval_map_find(const struct interval_map *map, uint64_t address, uint32_t *value);

#endif
