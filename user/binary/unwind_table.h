/*
 * An image's compact unwind table (include/unwind.h), made from its call frame information, and the
 * rules that the tables of all images share.
 */
#ifndef ALLOCTRACE_UNWIND_TABLE_H
#define ALLOCTRACE_UNWIND_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "binary/eh_frame.h"
#include "binary/image.h"
#include "unwind.h"

#define UNWIND_RULE_SLOTS (2 * UNWIND_RULES_MAX)

/* The shared rules: append only, so a number once given stays good. */
struct unwind_rules {
	struct unwind_rule items[UNWIND_RULES_MAX]; /* [UNWIND_RULE_END] is UNWIND_END */
	uint32_t count;
	uint64_t overflow; /* rules that found no room, each time one was asked for */
	uint16_t slots[UNWIND_RULE_SLOTS]; /* hash table: number + 1, 0 where free */
};

/* About 50 KB: not for the stack. 0 or -ENOMEM. */
int unwind_rules_new(struct unwind_rules **out);
void unwind_rules_free(struct unwind_rules *rules);

/* The number of a rule, which is added where it is new; UNWIND_RULE_END when the table is full. */
uint16_t unwind_rules_intern(struct unwind_rules *rules, const struct unwind_rule *rule);

/* Why a row of call frame information has become UNWIND_END. */
#define UNWIND_LOSSES(X)                                                                           \
	X(UNWIND_LOST_CFA, "CFA by another register or expression")                                \
	X(UNWIND_LOST_RA, "return address kept elsewhere")                                         \
	X(UNWIND_LOST_SP, "stack pointer restored from memory")                                    \
	X(UNWIND_LOST_RANGE, "offset too large")                                                   \
	X(UNWIND_LOST_RULES, "rule table full")

enum unwind_loss {
#define X(id, text) id,
	UNWIND_LOSSES(X)
#undef X
		UNWIND_LOSS_COUNT,
};

/* The text above; never NULL. */
const char *unwind_loss_text(enum unwind_loss loss);

struct unwind_table_stats {
	uint64_t fdes;
	uint64_t rows_read;   /* in the call frame information */
	uint64_t rows_needed; /* of them, those that hold a call site (all where not pruned) */
	uint64_t gaps;	      /* between them, kept as UNWIND_END */
	uint64_t rows_cut;    /* beyond UNWIND_PAGES_MAX pages: not in the table */
	uint64_t lost[UNWIND_LOSS_COUNT]; /* of rows_needed */
	uint64_t skipped[EH_FRAME_SKIP_COUNT];
};

struct unwind_table {
	struct unwind_row *items; /* owned */
	size_t count, capacity;
	uint32_t *page_index; /* owned; page_count + 1 entries */
	uint32_t first_page;
	uint32_t page_count; /* 0: the image has no code */
	struct unwind_table_stats stats;
};

struct unwind_options {
	/*
	 * Keep only rules that a walk from a function's entry can ask for (include/unwind.h, WHAT
	 * TO LOOK UP). The table is 6 to 27 times smaller; code that a signal interrupted is then
	 * looked up right only at system calls.
	 */
	bool prune;
};

/*
 * Makes the table. Broken parts of the call frame information are left out and counted; an image
 * without any gets a table that says UNWIND_END throughout. 0, -ENOTSUP (machine), -ENOMEM, -E2BIG,
 * or the errno of a read.
 */
int unwind_table_build(const struct image *image, const struct unwind_options *options,
		       struct unwind_rules *rules, struct unwind_table **out);
void unwind_table_free(struct unwind_table *table);

/* Rule number in force at a link-time address: the search that include/unwind.h describes. */
uint16_t unwind_table_find(const struct unwind_table *table, uint64_t vaddr);

/* Bytes of rows and page index, as they go into the kernel. */
size_t unwind_table_size(const struct unwind_table *table);

/*
 * The rule that a row of call frame information comes to on a machine. Where it comes to
 * UNWIND_END, returns false and the reason.
 */
bool unwind_rule_from_row(uint16_t machine, const struct cfi_row *row, struct unwind_rule *out,
			  enum unwind_loss *loss);

#endif
