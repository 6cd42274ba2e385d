#include "util/extents.h"

#include "util/vec.h"

#include <string.h>

int extents_init(struct extents *extents, uint32_t size)
{
	*extents = (struct extents){0};
	return size ? vec_push(extents, (struct extent){.first = 0, .count = size}) : 0;
}

void extents_deinit(struct extents *extents)
{
	free(extents->items);
	*extents = (struct extents){0};
}

static void remove_at(struct extents *extents, size_t i)
{
	extents->count--;
	memmove(&extents->items[i], &extents->items[i + 1],
		(extents->count - i) * sizeof(*extents->items));
}

int extents_take(struct extents *extents, uint32_t count, uint32_t *first)
{
	for (size_t i = 0; count && i < extents->count; i++) {
		struct extent *extent = &extents->items[i];

		if (extent->count < count)
			continue;
		*first = extent->first;
		extent->first += count;
		extent->count -= count;
		if (!extent->count)
			remove_at(extents, i);
		return 0;
	}
	if (count)
		return -ENOSPC;
	*first = 0;
	return 0;
}

int extents_give(struct extents *extents, uint32_t first, uint32_t count)
{
	size_t i = 0;
	struct extent *items;

	if (!count)
		return 0;
	while (i < extents->count && extents->items[i].first < first)
		i++;
	if (vec_push(extents, (struct extent){0}))
		return -ENOMEM;
	items = extents->items;
	memmove(&items[i + 1], &items[i], (extents->count - 1 - i) * sizeof(*items));
	items[i] = (struct extent){.first = first, .count = count};
	if (i + 1 < extents->count && items[i].first + items[i].count == items[i + 1].first) {
		items[i].count += items[i + 1].count;
		remove_at(extents, i + 1);
	}
	if (i > 0 && items[i - 1].first + items[i - 1].count == items[i].first) {
		items[i - 1].count += items[i].count;
		remove_at(extents, i);
	}
	return 0;
}
