#include "tracer/tables.h"

#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A page of code has so many rows at least, on average: room for more rows is room for more pages. */
#define ROWS_PER_PAGE 64

int tables_init(struct tables *tables, uint32_t slots)
{
	*tables = (struct tables){.slice_count = slots};
	tables->slices = calloc(slots, sizeof(*tables->slices));
	if (!tables->slices)
		return -ENOMEM;
	return unwind_rules_new(&tables->rules);
}

void tables_deinit(struct tables *tables)
{
	vec_for_each(image, &tables->images)
		unwind_table_free(image->table);
	free(tables->images.items);
	for (uint32_t i = 0; tables->slices && i < tables->slice_count; i++)
		free(tables->slices[i].images.items);
	free(tables->slices);
	unwind_rules_free(tables->rules);
	extents_deinit(&tables->free_rows);
	extents_deinit(&tables->free_pages);
	extents_deinit(&tables->free_mappings);
}

/* --- images --- */

static struct tables_image *find_image(const struct tables *tables, const struct image *image)
{
	vec_for_each(known, &tables->images) {
		if (known->dev == image->dev && known->inode == image->inode &&
		    known->size == image->size)
			return known;
	}
	return NULL;
}

static uint32_t row_pairs_of(const struct unwind_table *table)
{
	return (uint32_t)((table->count + 1) / 2);
}

/* Takes an image out of the arrays; it is built again should it come back. */
static void evict(struct tables *tables, struct tables_image *image)
{
	extents_give(&tables->free_rows, image->placed.first_row / 2, image->row_pairs);
	extents_give(&tables->free_pages, image->placed.first_index, image->placed.page_count);
	image->placed = (struct unwind_image){0};
	image->row_pairs = 0;
	/* An entry that matches nothing, so that indices stay good. */
	image->inode = 0;
	image->size = 0;
}

/* Room for a table in both arrays. 0 or -ENOSPC. */
static int take_room(struct tables *tables, const struct unwind_table *table, uint32_t *rows,
		     uint32_t *pages)
{
	uint32_t pairs = row_pairs_of(table);

	if (extents_take(&tables->free_rows, pairs, rows))
		return -ENOSPC;
	if (!extents_take(&tables->free_pages, table->page_count, pages))
		return 0;
	extents_give(&tables->free_rows, *rows, pairs);
	return -ENOSPC;
}

/* As above; what no target uses has to give way. */
static int make_room(struct tables *tables, const struct unwind_table *table, uint32_t *rows,
		     uint32_t *pages)
{
	int err = take_room(tables, table, rows, pages);

	vec_for_each(image, &tables->images) {
		if (!err)
			break;
		if (image->users || !image->placed.page_count)
			continue;
		evict(tables, image);
		err = take_room(tables, table, rows, pages);
	}
	return err;
}

/* Moves a built table into the arrays. Where there is no room it is left out, and counted. */
static void place(struct tables *tables, struct tables_image *image)
{
	struct unwind_table *table = image->table;
	uint32_t rows, pages;

	image->table = NULL;
	if (make_room(tables, table, &rows, &pages)) {
		tables->full++;
		unwind_table_free(table);
		return;
	}
	for (size_t i = 0; i < table->count; i++)
		tables->rows[rows + i / 2].rows[i % 2] = table->items[i];
	for (uint32_t i = 0; i < table->page_count; i++)
		tables->pages[pages + i] = (struct unwind_page){
			.low = table->page_index[i],
			.high = table->page_index[i + 1],
		};
	memcpy(tables->kernel_rules, tables->rules->items,
	       tables->rules->count * sizeof(*tables->kernel_rules));
	image->row_pairs = row_pairs_of(table);
	image->placed = (struct unwind_image){
		.first_row = 2 * rows,
		.first_index = pages,
		.first_page = table->first_page,
		.page_count = table->page_count,
	};
	unwind_table_free(table);
}

int tables_add_image(struct tables *tables, const struct image *image)
{
	const struct unwind_options options = {.prune = true};
	struct tables_image added = {
		.dev = image->dev,
		.inode = image->inode,
		.size = image->size,
	};
	int err;

	if (find_image(tables, image))
		return 0;
	err = unwind_table_build(image, &options, tables->rules, &added.table);
	if (err == -ENOMEM)
		return err;
	tables->unusable += err != 0;
	if (vec_push(&tables->images, added)) {
		unwind_table_free(added.table);
		return -ENOMEM;
	}
	if (tables->rows && added.table)
		place(tables, &tables->images.items[tables->images.count - 1]);
	return 0;
}

/* --- arrays --- */

static uint32_t clamp(uint64_t value)
{
	return value > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)value;
}

struct tables_sizes tables_sizes(const struct tables *tables, uint32_t more_rows,
				 uint32_t more_mappings)
{
	uint64_t pairs = more_rows / 2, pages = more_rows / ROWS_PER_PAGE + 1;

	vec_for_each(image, &tables->images) {
		pairs += image->table ? row_pairs_of(image->table) : 0;
		pages += image->table ? image->table->page_count : 0;
	}
	return (struct tables_sizes){
		.row_pairs = clamp(pairs),
		.pages = clamp(pages),
		.mappings = clamp(more_mappings),
	};
}

int tables_place(struct tables *tables, const struct tables_sizes *sizes,
		 struct unwind_row_pair *rows, struct unwind_page *pages, struct unwind_rule *rules,
		 struct unwind_mapping *mappings)
{
	tables->rows = rows;
	tables->pages = pages;
	tables->kernel_rules = rules;
	tables->mappings = mappings;
	if (extents_init(&tables->free_rows, sizes->row_pairs) ||
	    extents_init(&tables->free_pages, sizes->pages) ||
	    extents_init(&tables->free_mappings, sizes->mappings))
		return -ENOMEM;
	vec_for_each(image, &tables->images) {
		if (image->table)
			place(tables, image);
	}
	return 0;
}

size_t tables_used(const struct tables *tables)
{
	size_t bytes = 0;

	vec_for_each(image, &tables->images)
		bytes += image->row_pairs * sizeof(struct unwind_row_pair) +
			 image->placed.page_count * sizeof(struct unwind_page);
	return bytes;
}

/* --- slices --- */

/*
 * Memory with code, but none that a call returns to: a return probe's trampoline in [uprobes]
 * stands for another address, and the walk has to find that. [vsyscall] lies in the kernel's half
 * of the addresses, which the walk's searches rely on not to see.
 */
static bool can_return_to(const struct mapping *mapping)
{
	return strcmp(mapping->path, "[uprobes]") != 0 && !(mapping->end >> 63);
}

/* A slice uses an image, which then stays in the arrays. 0 or -ENOMEM. */
static int note_use(struct tables *tables, struct tables_slice *slice, uint32_t index)
{
	vec_for_each(known, &slice->images) {
		if (*known == index)
			return 0;
	}
	if (vec_push(&slice->images, index))
		return -ENOMEM;
	tables->images.items[index].users++;
	return 0;
}

static void drop_slice(struct tables *tables, struct tables_slice *slice)
{
	extents_give(&tables->free_mappings, slice->first, slice->count);
	vec_for_each(index, &slice->images)
		tables->images.items[*index].users--;
	free(slice->images.items);
	*slice = (struct tables_slice){0};
}

/* All tables that a process needs, none of which has to give way to the next. 0 or -ENOMEM. */
static int use_images(struct tables *tables, struct tables_slice *slice,
		      const struct process *process)
{
	int err = 0;

	vec_for_each(mapping, &process->mappings) {
		const struct tables_image *image;

		if (!mapping->image || err)
			continue;
		err = tables_add_image(tables, mapping->image);
		image = find_image(tables, mapping->image);
		if (!err && image && image->placed.page_count)
			err = note_use(tables, slice, (uint32_t)(image - tables->images.items));
	}
	return err;
}

/* How the kernel side sees one mapping. */
static struct unwind_mapping describe(const struct tables *tables, const struct mapping *mapping)
{
	struct unwind_mapping described = {.start = mapping->start, .end = mapping->end};
	const struct tables_image *image =
		mapping->image ? find_image(tables, mapping->image) : NULL;
	uint64_t bias;

	if (!image || !image->placed.page_count ||
	    !image_bias(mapping->image, mapping->start, mapping->offset, &bias))
		return described;
	described.bias = bias;
	described.image = image->placed;
	return described;
}

int tables_update(struct tables *tables, uint32_t slot, const struct process *process,
		  uint64_t *word)
{
	struct tables_slice *old = &tables->slices[slot], slice = {0};
	size_t count = process->mappings.count;
	uint32_t written = 0;

	if (use_images(tables, &slice, process)) {
		drop_slice(tables, &slice);
		return -ENOMEM;
	}
	if (count > UINT32_MAX ||
	    extents_take(&tables->free_mappings, (uint32_t)count, &slice.first)) {
		drop_slice(tables, &slice);
		tables->full++;
		return 0;
	}
	slice.count = (uint32_t)count;
	vec_for_each(mapping, &process->mappings) {
		if (can_return_to(mapping))
			tables->mappings[slice.first + written++] = describe(tables, mapping);
	}
	__atomic_store_n(word, (uint64_t)slice.first << 32 | written, __ATOMIC_RELEASE);
	drop_slice(tables, old);
	*old = slice;
	return 0;
}

void tables_drop(struct tables *tables, uint32_t slot, uint64_t *word)
{
	__atomic_store_n(word, 0, __ATOMIC_RELEASE);
	drop_slice(tables, &tables->slices[slot]);
}
