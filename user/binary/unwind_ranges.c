#include "binary/unwind_ranges.h"

#include "util/vec.h"

#include <errno.h>

static int visit_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *context)
{
	struct unwind_ranges *ranges = context;
	struct eh_frame_range *last = ranges->count ? &ranges->items[ranges->count - 1] : NULL;

	(void)row;
	if (!last || last->end < start)
		return vec_push(ranges, (struct eh_frame_range){start, end});
	if (end > last->end)
		last->end = end;
	return 0;
}

int unwind_ranges_load(const struct image *image, struct unwind_ranges *out)
{
	struct unwind_ranges ranges = {0};
	struct eh_frame *frame;
	int err = eh_frame_open(image, &frame);

	if (err)
		return err == -ENOENT ? 0 : err;
	err = eh_frame_for_each_row(frame, visit_row, &ranges);
	eh_frame_free(frame);
	if (err) {
		unwind_ranges_deinit(&ranges);
		return err;
	}
	*out = ranges;
	return 0;
}

void unwind_ranges_deinit(struct unwind_ranges *ranges)
{
	free(ranges->items);
	*ranges = (struct unwind_ranges){0};
}

bool unwind_ranges_hold(const struct unwind_ranges *ranges, uint64_t vaddr)
{
	size_t low = 0, high = ranges->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ranges->items[middle].end <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < ranges->count && ranges->items[low].start <= vaddr;
}
