#include "binary/code_ranges.h"
#include "util/cleanup.h"
#include "util/reader.h"
#include "util/vec.h"

#include <dwarf.h>
#include <string.h>

#define RANGES_MAX	 ((size_t)8 << 20)
#define EH_FRAME_HDR_MAX ((size_t)64 << 20)

/* Encodings of .eh_frame_hdr: the only ones that linkers write. */
#define ENC_FDE_COUNT DW_EH_PE_udata4
#define ENC_TABLE     (DW_EH_PE_datarel | DW_EH_PE_sdata4)

static int add_range(struct code_ranges *ranges, struct code_range range)
{
	if (ranges->count >= RANGES_MAX)
		return -E2BIG;
	return vec_push(ranges, range);
}

static int add_symbol(const struct image_symbol *symbol, void *context)
{
	return add_range(context, (struct code_range){symbol->vaddr, symbol->size, false});
}

/* The width of the pointer to .eh_frame, which is not needed here. 0: not one that linkers write.
 */
static size_t pointer_width(uint8_t encoding)
{
	switch (encoding & 0x0f) {
	case DW_EH_PE_udata4:
	case DW_EH_PE_sdata4:
		return 4;
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8:
		return 8;
	default:
		return 0;
	}
}

static int add_unwind_ranges(struct code_ranges *ranges, const uint8_t *data, size_t size,
			     uint64_t vaddr)
{
	struct reader r = reader_new(data, size);
	uint8_t version = reader_u8(&r);
	uint8_t frame_encoding = reader_u8(&r);
	uint8_t count_encoding = reader_u8(&r);
	uint8_t table_encoding = reader_u8(&r);
	size_t width = pointer_width(frame_encoding);
	uint32_t count;

	if (version != 1 || count_encoding != ENC_FDE_COUNT || table_encoding != ENC_TABLE ||
	    !width)
		return 0;
	reader_bytes(&r, width);
	count = reader_u32(&r);
	for (uint32_t i = 0; i < count; i++) {
		int32_t start = reader_s32(&r);
		int err;

		reader_s32(&r); /* its FDE */
		if (r.failed)
			return 0;
		err = add_range(ranges,
				(struct code_range){vaddr + (uint64_t)(int64_t)start, 0, true});
		if (err)
			return err;
	}
	return 0;
}

static int compare_ranges(const void *a, const void *b)
{
	const struct code_range *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

/* One entry per start: aliases, and a symbol that also has an FDE. */
static void sort_and_merge(struct code_ranges *ranges)
{
	size_t kept = 0;

	if (!ranges->count)
		return;
	qsort(ranges->items, ranges->count, sizeof(*ranges->items), compare_ranges);
	for (size_t i = 1; i < ranges->count; i++) {
		struct code_range *last = &ranges->items[kept];
		const struct code_range *range = &ranges->items[i];

		if (range->start != last->start) {
			ranges->items[++kept] = *range;
			continue;
		}
		last->has_unwind |= range->has_unwind;
		if (range->size > last->size)
			last->size = range->size;
	}
	ranges->count = kept + 1;
}

int code_ranges_load(const struct image *image, struct code_ranges *out)
{
	CLEANUP(code_ranges_deinit) struct code_ranges ranges = {0};
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	uint64_t vaddr;
	size_t size;
	int err;

	err = image_for_each_function(image, add_symbol, &ranges);
	if (err)
		return err;
	if (!image_section(image, ".eh_frame_hdr", EH_FRAME_HDR_MAX, &data, &size, &vaddr)) {
		err = add_unwind_ranges(&ranges, data, size, vaddr);
		if (err)
			return err;
	}
	sort_and_merge(&ranges);
	*out = ranges;
	ranges = (struct code_ranges){0};
	return 0;
}

void code_ranges_deinit(struct code_ranges *ranges)
{
	free(ranges->items);
	*ranges = (struct code_ranges){0};
}

/* The number of ranges that start at or before vaddr. */
static size_t count_up_to(const struct code_ranges *ranges, uint64_t vaddr)
{
	size_t low = 0, high = ranges->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ranges->items[middle].start <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool code_ranges_find(const struct code_ranges *ranges, uint64_t vaddr, uint64_t *start,
		      uint64_t *end)
{
	size_t count = count_up_to(ranges, vaddr);
	const struct code_range *range;
	uint64_t size;

	if (!count)
		return false;
	range = &ranges->items[count - 1];
	size = range->size;
	if (vaddr - range->start >= size) {
		if (!range->has_unwind || count == ranges->count)
			return false;
		size = ranges->items[count].start - range->start;
	}
	if (range->start + size < range->start)
		return false;
	*start = range->start;
	*end = range->start + size;
	return true;
}

bool code_ranges_has_unwind(const struct code_ranges *ranges, uint64_t vaddr)
{
	size_t count = count_up_to(ranges, vaddr);

	return count && ranges->items[count - 1].start == vaddr &&
	       ranges->items[count - 1].has_unwind;
}

uint64_t code_ranges_next(const struct code_ranges *ranges, uint64_t vaddr)
{
	size_t count = count_up_to(ranges, vaddr);

	return count < ranges->count ? ranges->items[count].start : UINT64_MAX;
}
