/*
 * An image's call frame information: the FDEs of .eh_frame and .debug_frame, found, sorted and run
 * into rows. Formats: LSB 5.0 (.eh_frame, .eh_frame_hdr), DWARF 5 6.4 (.debug_frame).
 *
 * The bytes are hostile. Each read is bounded, each FDE stands alone: one that is broken is skipped
 * and counted by reason. Limits on the section's size and the number of records and instructions
 * bound the time and memory that any file can cost.
 */
#ifndef ALLOCTRACE_EH_FRAME_H
#define ALLOCTRACE_EH_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "binary/cfi.h"
#include "binary/image.h"

/* Of each section; a 110 MB library has 5 MB. */
#define EH_FRAME_SIZE_MAX (256U << 20)
#define EH_FRAME_FDES_MAX (1U << 21)
/* Run in one pass over all FDEs; a 110 MB library has 2.5 million. */
#define EH_FRAME_INSTRUCTIONS_MAX (1U << 26)
/* Linkers merge equal CIEs: a few per image is what there is. */
#define EH_FRAME_CIES_MAX (1U << 17)

/* Why an FDE gives no rows, or fewer than it should. */
#define EH_FRAME_SKIPS(X)                                                                          \
	X(EH_FRAME_BAD_RECORD, "record past the end of its section")                               \
	X(EH_FRAME_BAD_CIE, "no usable CIE")                                                       \
	X(EH_FRAME_BAD_RANGE, "unreadable address range")                                          \
	X(EH_FRAME_BAD_INSTRUCTION, "broken or unknown instruction")                               \
	X(EH_FRAME_NO_CODE, "not in executable code")                                              \
	X(EH_FRAME_OVERLAPPED, "hidden by another FDE at the same address")                        \
	X(EH_FRAME_TOO_MANY, "over the limit of records or instructions")

enum eh_frame_skip {
#define X(id, text) id,
	EH_FRAME_SKIPS(X)
#undef X
		EH_FRAME_SKIP_COUNT,
};

/* The text above; never NULL. */
const char *eh_frame_skip_text(enum eh_frame_skip reason);

struct eh_frame_stats {
	uint64_t fdes; /* that can be run */
	uint64_t skipped[EH_FRAME_SKIP_COUNT];
};

/* One section's bytes and what they are. */
struct eh_frame_section {
	const uint8_t *data; /* borrowed while the eh_frame lives, or: */
	uint8_t *owned;	     /* what eh_frame_free() frees; NULL where data is borrowed */
	size_t size;
	uint64_t vaddr;
	uint64_t data_rel; /* for DW_EH_PE_datarel; 0: not known */
	bool debug_frame;
};

/* A range of link-time addresses, [start, end). */
struct eh_frame_range {
	uint64_t start, end;
};

struct eh_frame;

/*
 * Reads an image's call frame information: .eh_frame, by its section, or by PT_GNU_EH_FRAME where
 * the sections are stripped, and .debug_frame, which says what the former leaves out. Each may be
 * missing. 0, -ENOENT (neither exists), -ENOTSUP (machine), -E2BIG (a section over the limit),
 * -ENOMEM, or the errno of a read.
 */
int eh_frame_open(const struct image *image, struct eh_frame **out);

/* The same of the executable ranges alone, without any FDE. 0, -ENOTSUP, -ENOMEM. */
int eh_frame_of_text(const struct image *image, struct eh_frame **out);

/*
 * The same from sections in memory. Of FDEs at the same address the first section's prevails. text:
 * the executable ranges, sorted, not overlapping; copied. Sections that are owned are taken over,
 * also on failure. 0, -ENOTSUP, -ENOMEM, -E2BIG (a section over the limit).
 */
int eh_frame_new(const struct eh_frame_section *sections, size_t section_count, uint16_t machine,
		 const struct eh_frame_range *text, size_t text_count, struct eh_frame **out);
void eh_frame_free(struct eh_frame *frame);

/* The executable ranges, sorted. Borrowed. */
const struct eh_frame_range *eh_frame_text(const struct eh_frame *frame, size_t *count);
const struct eh_frame_stats *eh_frame_stats(const struct eh_frame *frame);

/*
 * Visits every row of every FDE by rising address; rows never overlap. Between the end of one and
 * the start of the next lies code without information. Of FDEs that overlap, the one that starts
 * last at or before an address says what holds there (as a search in .eh_frame_hdr would find), up
 * to its end; of those that start at the same address, .eh_frame's before .debug_frame's, then the
 * longest, of equal ones the first in the file.
 *
 * Returns 0, or what visit returned (anything but -EINVAL, which means a broken instruction here;
 * these are counted in the stats).
 */
int eh_frame_for_each_row(struct eh_frame *frame, cfi_visit *visit, void *user);

#endif
