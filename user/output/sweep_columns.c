#include "output/sweep_columns.h"

#include "output/short_name.h"
#include "output/text.h"
#include "util/units.h"
#include "util/utf8.h"

#include <stdlib.h>
#include <string.h>

#define COMM_WIDTH    15
#define PLACE_WIDTH   24
#define SITE_WIDTH    40
#define VERDICT_WIDTH 9
#define CONTAINER_ID  12 /* digits that people know a container by */
#define LEAST_GROWTH  4096
/* Of both: what is less comes and goes with libraries. */
#define LEAST_SHARED (64 * 1024)

/* "+1.2 MiB", or with a sign that it is not known of which kind it is */
#define CHANGE_MAX (UNITS_TEXT_MAX + 2)

/* Which columns there are. */
struct columns {
	bool files, shmem;
};

/* A size with its sign, "+1.2 MiB"; "-" for nothing worth telling. */
static const char *format_change(int64_t bytes, char text[CHANGE_MAX])
{
	char size[UNITS_TEXT_MAX];
	double magnitude = bytes < 0 ? -(double)bytes : (double)bytes;

	if (magnitude < LEAST_GROWTH)
		return "-";
	snprintf(text, CHANGE_MAX, "%c%s", bytes < 0 ? '-' : '+',
		 units_format_size(magnitude, size));
	return text;
}

/* Behind so many characters of what is UTF-8, or its end; *passed: how many there were. */
static const char *pass_characters(const char *string, size_t count, size_t *passed)
{
	uint32_t code;

	for (*passed = 0; *passed < count && *string; ++*passed) {
		size_t length = utf8_decode(string, &code);

		string += length ? length : 1;
	}
	return string;
}

/*
 * Escaped, cut and padded to a column. The end of a path says more than its beginning. A character is taken
 * to be as wide as any other.
 */
static void write_column(const char *string, int width, FILE *to)
{
	char *escaped = text_escaped(string);
	const char *start = escaped ? escaped : "", *end;
	size_t length, shown;

	pass_characters(start, SIZE_MAX, &length);
	if (length > (size_t)width && strchr(string, '/'))
		start = pass_characters(start, length - (size_t)width, &shown);
	end = pass_characters(start, (size_t)width, &shown);
	fprintf(to, "%.*s%*s", (int)(end - start), start, width - (int)shown, "");
	free(escaped);
}

static void write_place(const struct sweep_row *row, FILE *to)
{
	char id[CONTAINER_ID + 1];

	if (!row->container) {
		write_column(*row->cgroup ? row->cgroup : "-", PLACE_WIDTH, to);
		return;
	}
	snprintf(id, sizeof(id), "%s", row->container);
	write_column(id, PLACE_WIDTH, to);
}

/* Of what cannot be told apart, files have more than shared memory: "+1.2 MiB?". */
static void format_files(const struct sweep_row *row, char text[CHANGE_MAX])
{
	char change[CHANGE_MAX];

	if (row->kinds_known) {
		snprintf(text, CHANGE_MAX, "%s", format_change(row->file_growth, change));
		return;
	}
	if (llabs(row->shared_growth) < LEAST_SHARED)
		snprintf(text, CHANGE_MAX, "-");
	else
		snprintf(text, CHANGE_MAX, "%s?", format_change(row->shared_growth, change));
}

static void format_shmem(const struct sweep_row *row, char text[CHANGE_MAX])
{
	char change[CHANGE_MAX];

	snprintf(text, CHANGE_MAX, "%s",
		 format_change(row->kinds_known ? row->shmem_growth : 0, change));
}

static void find_columns(const struct sweep_result *result, size_t shown, struct columns *columns)
{
	*columns = (struct columns){0};
	for (size_t i = 0; i < shown; i++) {
		const struct sweep_row *row = &result->rows.items[i];
		int64_t files = row->kinds_known ? row->file_growth : row->shared_growth;

		columns->files |= llabs(files) >= LEAST_SHARED;
		columns->shmem |= row->kinds_known && llabs(row->shmem_growth) >= LEAST_SHARED;
	}
}

static void write_growth(const struct sweep_row *row, const struct columns *columns, FILE *to)
{
	char text[CHANGE_MAX];
	int64_t growth = (int64_t)row->rss_end - (int64_t)row->rss_start;

	fprintf(to, " %10s", format_change(growth, text));
	fprintf(to, " %10s", format_change(row->anon_growth, text));
	if (columns->files) {
		format_files(row, text);
		fprintf(to, " %11s", text);
	}
	if (columns->shmem) {
		format_shmem(row, text);
		fprintf(to, " %10s", text);
	}
}

static void write_heap(const struct sweep_row *row, FILE *to)
{
	char live[UNITS_TEXT_MAX] = "-", rate[UNITS_TEXT_MAX + 2] = "-", size[UNITS_TEXT_MAX];

	if (row->zoomed) {
		units_format_size(row->live, live);
		snprintf(rate, sizeof(rate), "%s/s",
			 units_format_size(row->alloc_per_second, size));
	}
	fprintf(to, " %9s %11s", live, rate);
}

/* Where most of what is live comes from; where nothing is, or nothing is known of it, most of the new pages. */
static const char *top_function(const struct sweep_row *row)
{
	bool by_pages = !row->site.function || row->live <= 0;

	return by_pages ? row->growth_site.function : row->site.function;
}

static void write_top_site(const char *function, FILE *to)
{
	char *name = short_name(function, SITE_WIDTH);

	fputs("  ", to);
	text_escape(to, name ? name : "");
	free(name);
}

/* How its anonymous memory grew: where it did not, but other memory did, that is what the line is about. */
static const char *verdict_word(const struct sweep_row *row)
{
	if (row->ended)
		return "ended";
	if (row->verdict.kind != VERDICT_FLAT || row->shared_growth < SWEEP_SHARED_LEAST)
		return sweep_verdict_name(row->verdict.kind);
	if (!row->kinds_known)
		return "files?";
	return row->shmem_growth > row->shared_growth / 2 ? "shared" : "files";
}

static void write_row(const struct sweep_row *row, const struct columns *columns, FILE *to)
{
	const char *function = top_function(row);
	char rss[UNITS_TEXT_MAX];

	fprintf(to, "%7d ", row->pid);
	write_column(row->comm, COMM_WIDTH, to);
	fputc(' ', to);
	write_place(row, to);
	fprintf(to, " %9s", units_format_size((double)row->rss_end, rss));
	write_growth(row, columns, to);
	write_heap(row, to);
	/* Nothing behind the last word of a line. */
	fprintf(to, "  %-*s", function ? VERDICT_WIDTH : 0, verdict_word(row));
	if (function)
		write_top_site(function, to);
	fputc('\n', to);
}

void sweep_columns_write(const struct sweep_result *result, size_t shown, FILE *to)
{
	struct columns columns;

	find_columns(result, shown, &columns);
	fprintf(to, "%7s %-*s %-*s %9s %10s %10s", "pid", COMM_WIDTH, "command", PLACE_WIDTH,
		"container or cgroup", "RSS", "growth", "anonymous");
	if (columns.files)
		fprintf(to, " %11s", "files");
	if (columns.shmem)
		fprintf(to, " %10s", "shared");
	fprintf(to, " %9s %11s  %-9s  %s\n", "live", "allocated", "verdict", "most of it");
	for (size_t i = 0; i < shown; i++)
		write_row(&result->rows.items[i], &columns, to);
}
