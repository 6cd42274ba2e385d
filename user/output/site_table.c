/*
 * Three lines for a site, or four: its figures; the function that allocates, with file and line; its
 * callers; ages, where they say something.
 *
 * "The function that allocates" is that of frame_find_allocating(). Nameless frames inside of it are told ("through
 * [libssl.so.3]"), because there it may be that code's memory.
 */
#include "output/site_table.h"

#include "output/ages_text.h"
#include "output/callers.h"
#include "output/figure.h"
#include "output/frame.h"
#include "output/short_name.h"
#include "output/text.h"
#include "util/cleanup.h"
#include "util/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINE_WIDTH 110
#define INDENT	   "        "
#define NAME_WIDTH 160 /* of the function that allocates */

static const enum profile_value columns[PROFILE_VALUES] = {
	PROFILE_INUSE_SPACE,
	PROFILE_INUSE_OBJECTS,
	PROFILE_ALLOC_SPACE,
	PROFILE_ALLOC_OBJECTS,
};

/* The sites of the heap, and those of direct mappings, each with a table of their own. */
struct section {
	const struct profile *profile;	  /* borrowed */
	const struct profile_site *sites; /* borrowed; `count` */
	size_t count, shown;
	int64_t live; /* bytes, of all */
	bool mapped;
};

static const char *const headings[2][PROFILE_VALUES] = {
	{"live bytes", "live objects", "allocated bytes", "allocated objects"},
	{"mapped bytes", "mappings", "bytes in all", "mappings in all"},
};

struct row {
	char figures[PROFILE_VALUES][FIGURE_TEXT_MAX];
};

/* --- a site's lines --- */

static void write_nameless(const struct frame *innermost, FILE *to)
{
	text_escape(to, innermost->name);
	if (innermost->offset)
		fprintf(to, "+0x%" PRIx64, innermost->offset);
	fputs("  (no symbols)\n", to);
}

/* The second line. *cursor is left behind the frame that was named. */
static int write_name(struct frame_cursor *cursor, FILE *to)
{
	CLEANUP(cleanup_free) char *name = NULL;
	struct frame_cursor start = *cursor;
	struct frame innermost, frame;

	fputs(INDENT, to);
	if (!frame_next_outward(&start, &innermost)) {
		fputs("[no stack]\n", to);
		return 0;
	}
	if (!frame_find_allocating(cursor, &frame)) {
		*cursor = start;
		/* Plumbing alone is better than no name. */
		if (!innermost.named) {
			write_nameless(&innermost, to);
			return 0;
		}
		frame = innermost;
	}
	name = short_name(frame.name, NAME_WIDTH);
	if (!name)
		return -ENOMEM;
	text_escape(to, name);
	if (*frame.file) {
		fputs("  ", to);
		text_escape(to, frame.file);
		if (frame.line)
			fprintf(to, ":%" PRIu32, frame.line);
	}
	if (!innermost.named) {
		fputs("  (through ", to);
		text_escape(to, innermost.name);
		fputc(')', to);
	}
	fputc('\n', to);
	return 0;
}

/* The third line. */
static int write_callers(struct frame_cursor *cursor, FILE *to)
{
	CLEANUP(cleanup_free) char *callers = NULL;
	int err = callers_format(cursor, LINE_WIDTH - strlen(INDENT), &callers);

	if (callers)
		fprintf(to, INDENT "%s\n", callers);
	return err;
}

/* The fourth line. */
static void write_ages(const struct profile *profile, const struct ages *ages, FILE *to)
{
	if (!ages_text_any(profile, ages))
		return;
	fputs(INDENT "ages: ", to);
	ages_text_site(profile, ages, to);
	fputc('\n', to);
}

/* --- the table --- */

static void format_rows(const struct section *section, struct row *rows, int widths[PROFILE_VALUES])
{
	for (size_t c = 0; c < PROFILE_VALUES; c++)
		widths[c] = (int)strlen(headings[section->mapped][c]);
	for (size_t i = 0; i < section->shown; i++) {
		const struct profile_site *site = &section->sites[i];

		for (size_t c = 0; c < PROFILE_VALUES; c++) {
			int width;

			figure_format(section->profile, site->values, site->sums, columns[c],
				      rows[i].figures[c]);
			width = (int)strlen(rows[i].figures[c]);
			if (width > widths[c])
				widths[c] = width;
		}
	}
}

static void write_row(const struct section *section, size_t index, const struct row *row,
		      const int widths[PROFILE_VALUES], FILE *to)
{
	double live = (double)section->sites[index].sums[PROFILE_INUSE_SPACE];
	double all = (double)section->live;

	fprintf(to, "%3zu %3.0f%%", index + 1, all > 0 ? 100 * live / all : 0);
	for (size_t c = 0; c < PROFILE_VALUES; c++) {
		int width = c + 1 < PROFILE_VALUES ? widths[c] : 0;

		fprintf(to, "%s%-*s", c ? "  " : " ", width, row->figures[c]);
	}
	fputc('\n', to);
}

static void write_heading(const struct section *section, const int widths[PROFILE_VALUES], FILE *to)
{
	char all[UNITS_TEXT_MAX];

	fprintf(to, "\nTOP %zu OF %s SITES BY %s BYTES (%s)\n", section->shown,
		units_format_count((int64_t)section->count, all),
		section->mapped ? "DIRECTLY MAPPED" : "LIVE",
		section->profile->info.period > 1 ? "estimates, 95 % interval in parentheses"
		: section->mapped		  ? "every mapping counted"
						  : "every allocation counted");
	fputs(section->mapped ? "  # mmap" : "  # live", to);
	for (size_t c = 0; c < PROFILE_VALUES; c++) {
		int width = c + 1 < PROFILE_VALUES ? widths[c] : 0;

		fprintf(to, "%s%-*s", c ? "  " : " ", width, headings[section->mapped][c]);
	}
	fputc('\n', to);
}

static void write_rest(const struct section *section, FILE *to)
{
	char count[UNITS_TEXT_MAX], size[UNITS_TEXT_MAX];
	int64_t live = section->live;

	for (size_t i = 0; i < section->shown; i++)
		live -= section->sites[i].sums[PROFILE_INUSE_SPACE];
	units_format_count((int64_t)(section->count - section->shown), count);
	if (section->count == section->shown)
		fputs("no more sites\n", to);
	else
		fprintf(to, "%s more site%s with %s %s\n", count,
			section->count - section->shown == 1 ? "" : "s",
			units_format_size((double)live, size), section->mapped ? "mapped" : "live");
}

static int write_section(const struct section *section, FILE *to)
{
	CLEANUP(cleanup_free) struct row *rows = calloc(section->shown + 1, sizeof(*rows));
	int widths[PROFILE_VALUES];
	int err = 0;

	if (!rows)
		return -ENOMEM;
	format_rows(section, rows, widths);
	if (section->shown)
		write_heading(section, widths, to);
	for (size_t i = 0; i < section->shown && !err; i++) {
		struct frame_cursor cursor = {
			.profile = section->profile,
			.site = &section->sites[i],
		};

		write_row(section, i, &rows[i], widths, to);
		err = write_name(&cursor, to);
		if (!err)
			err = write_callers(&cursor, to);
		if (!err)
			write_ages(section->profile, &section->sites[i].ages, to);
	}
	if (!err)
		write_rest(section, to);
	return err;
}

int site_table_write(const struct profile *profile, unsigned int top, FILE *to)
{
	struct section heap = {
		.profile = profile,
		.sites = profile->sites.items,
		.live = profile->total_values[PROFILE_INUSE_SPACE],
	};
	struct section mapped = {
		.profile = profile,
		.live = profile->mapped_values[PROFILE_INUSE_SPACE],
		.mapped = true,
	};
	int err = 0;

	while (heap.count < profile->sites.count && !heap.sites[heap.count].mapped)
		heap.count++;
	mapped.sites = heap.sites + heap.count;
	mapped.count = profile->sites.count - heap.count;
	heap.shown = top < heap.count ? top : heap.count;
	mapped.shown = top < mapped.count ? top : mapped.count;
	if (heap.count || !mapped.count)
		err = write_section(&heap, to);
	if (!err && mapped.count)
		err = write_section(&mapped, to);
	return err;
}
