/*
 * A sweep over the addresses, with a heap of the intervals that have begun. The one on top is what
 * holds at the current address; those that have ended are dropped when they come to the top, so
 * each interval enters and leaves the heap once.
 */
#include "symbol/interval_map.h"

#include "util/cleanup.h"
#include "util/vec.h"

#include <stdlib.h>

#define NOTHING UINT32_MAX

static int compare_low(const void *a, const void *b)
{
	const struct interval *x = a, *y = b;

	return (x->low > y->low) - (x->low < y->low);
}

struct heap {
	const struct interval **items;
	size_t count;
};

static void heap_push(struct heap *heap, const struct interval *item)
{
	size_t at = heap->count++;

	while (at) {
		size_t parent = (at - 1) / 2;

		if (heap->items[parent]->priority >= item->priority)
			break;
		heap->items[at] = heap->items[parent];
		at = parent;
	}
	heap->items[at] = item;
}

static void heap_pop(struct heap *heap)
{
	const struct interval *last = heap->items[--heap->count];
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= heap->count)
			break;
		if (child + 1 < heap->count &&
		    heap->items[child + 1]->priority > heap->items[child]->priority)
			child++;
		if (last->priority >= heap->items[child]->priority)
			break;
		heap->items[at] = heap->items[child];
		at = child;
	}
	heap->items[at] = last;
}

static int emit(struct interval_map *map, uint64_t low, uint32_t value)
{
	if (map->count ? map->items[map->count - 1].value == value : value == NOTHING)
		return 0;
	return vec_push(map, (struct interval_span){.low = low, .value = value});
}

static int sweep(struct interval_map *map, struct heap *heap, const struct interval *items,
		 size_t count)
{
	uint64_t position = 0;
	size_t next = 0;
	int err = 0;

	while (!err && (next < count || heap->count)) {
		if (!heap->count)
			position = items[next].low;
		for (; next < count && items[next].low <= position; next++)
			heap_push(heap, &items[next]);
		while (heap->count && heap->items[0]->high <= position)
			heap_pop(heap);
		if (!heap->count) {
			err = emit(map, position, NOTHING);
			continue;
		}
		err = emit(map, position, heap->items[0]->value);
		position = heap->items[0]->high;
		if (next < count && items[next].low < position)
			position = items[next].low;
	}
	return err;
}

int interval_map_init(struct interval_map *map, struct interval *items, size_t count)
{
	CLEANUP(cleanup_free) void *room = NULL;
	struct heap heap = {0};

	*map = (struct interval_map){0};
	if (!count)
		return 0;
	room = calloc(count, sizeof(*heap.items));
	if (!room)
		return -ENOMEM;
	heap.items = room;
	qsort(items, count, sizeof(*items), compare_low);
	if (sweep(map, &heap, items, count)) {
		interval_map_deinit(map);
		return -ENOMEM;
	}
	return 0;
}

void interval_map_deinit(struct interval_map *map)
{
	free(map->items);
	*map = (struct interval_map){0};
}

bool interval_map_find(const struct interval_map *map, uint64_t address, uint32_t *value)
{
	size_t low = 0, high = map->count;

	/* The last span that begins at or before the address. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (map->items[middle].low <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || map->items[low - 1].value == NOTHING)
		return false;
	*value = map->items[low - 1].value;
	return true;
}
