/*
 * The unwind tables of a recording: one of each image however many processes map it, in the
 * kernel's arrays while a target maps it, and after that until the room is needed: programs that are
 * started again and again are read once. And each target's mappings, as a slice that is replaced as
 * a whole.
 *
 * Tables are built before the arrays exist, because their sizes decide those of the arrays; images
 * that come later go into the room that is left.
 */
#ifndef ALLOCTRACE_TABLES_H
#define ALLOCTRACE_TABLES_H

#include "alloctrace.h"
#include "binary/image.h"
#include "binary/unwind_table.h"
#include "target/process.h"
#include "util/extents.h"

#include <stddef.h>
#include <stdint.h>

struct tables_image {
	dev_t dev;
	ino_t inode;
	uint64_t size;
	struct unwind_table *table; /* owned; NULL once placed, or where the image has none */
	struct unwind_image placed; /* page_count 0: not in the arrays */
	uint32_t row_pairs;	    /* elements that it has there */
	uint32_t users;		    /* targets whose slice refers to it */
};

/* What one target has in the kernel's arrays. */
struct tables_slice {
	uint32_t first, count;
	struct {
		uint32_t *items; /* images with a use by this slice, each once */
		size_t count, capacity;
	} images;
};

struct tables {
	struct unwind_rules *rules; /* owned */
	struct {
		struct tables_image *items;
		size_t count, capacity;
	} images;
	struct tables_slice *slices; /* owned; by slot */
	uint32_t slice_count;
	uint64_t full;	   /* images or mappings that found no room */
	uint64_t unusable; /* images whose unwind information is too large or broken */

	/* The kernel's arrays, mapped; borrowed. NULL before tables_place(). */
	struct unwind_row_pair *rows;
	struct unwind_page *pages;
	struct unwind_rule *kernel_rules;
	struct unwind_mapping *mappings;
	struct extents free_rows, free_pages, free_mappings;
};

/* Elements that each array has to have. */
struct tables_sizes {
	uint32_t row_pairs, pages, mappings;
};

int tables_init(struct tables *tables, uint32_t slots);
void tables_deinit(struct tables *tables);

/*
 * Builds an image's table where there is none yet. 0 (also where the image has nothing to build
 * from: its code is passed by frame pointers) or -ENOMEM.
 */
int tables_add_image(struct tables *tables, const struct image *image);

/* Room for all that was added, and for `more_mappings` and more images besides. */
struct tables_sizes tables_sizes(const struct tables *tables, uint32_t more_rows,
				 uint32_t more_mappings);

/* The arrays are there: moves everything in that was built. 0 or -ENOMEM. */
int tables_place(struct tables *tables, const struct tables_sizes *sizes,
		 struct unwind_row_pair *rows, struct unwind_page *pages, struct unwind_rule *rules,
		 struct unwind_mapping *mappings);

/*
 * A target's mappings as they are now, in place of those it had; tables that no target uses any
 * more give way where there is no room. The new slice goes out through *word (struct target, mappings) as a single
 * store. 0 or -ENOMEM; what finds no room is counted in `full` and left out.
 */
int tables_update(struct tables *tables, uint32_t slot, const struct process *process,
		  uint64_t *word);

/* A target is gone: gives up its slice, and its uses of tables. */
void tables_drop(struct tables *tables, uint32_t slot, uint64_t *word);

/* Bytes of rows and page index in use. */
size_t tables_used(const struct tables *tables);

#endif
