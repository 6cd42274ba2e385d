#include "output/sweep.h"

#include "output/text.h"
#include "util/units.h"
#include "util/utf8.h"
#include "util/vec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COMM_WIDTH   15
#define PLACE_WIDTH  24
#define CONTAINER_ID 12 /* digits that people know a container by */
#define LEAST_GROWTH 4096
/* Of a PSS that is nearly all of the RSS, or lacks no more than libraries, nothing is told. */
#define SHARED_LEAST  (8 * 1024 * 1024)
#define SHARED_OF_RSS 0.25

static void site_deinit(struct sweep_site *site)
{
	free(site->function);
	free(site->file);
}

void sweep_row_deinit(struct sweep_row *row)
{
	free(row->comm);
	free(row->cgroup);
	free(row->container);
	free(row->verdict_text);
	free(row->account);
	free(row->profile);
	free(row->growth_profile);
	free(row->reason);
	free(row->site_ages.text);
	site_deinit(&row->site);
	site_deinit(&row->growth_site);
}

void sweep_result_deinit(struct sweep_result *result)
{
	vec_for_each(row, &result->rows)
		sweep_row_deinit(row);
	free(result->rows.items);
	vec_for_each(brief, &result->brief) {
		free(brief->comm);
		free(brief->parent);
	}
	free(result->brief.items);
	free(result->kernel);
}

/* A size with its sign, "+1.2 MiB"; "-" for nothing worth telling. */
static const char *format_change(int64_t bytes, char text[UNITS_TEXT_MAX + 1])
{
	char size[UNITS_TEXT_MAX];
	double magnitude = bytes < 0 ? -(double)bytes : (double)bytes;

	if (magnitude < LEAST_GROWTH)
		return "-";
	snprintf(text, UNITS_TEXT_MAX + 1, "%c%s", bytes < 0 ? '-' : '+',
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

static void write_row(const struct sweep_row *row, FILE *to)
{
	char rss[UNITS_TEXT_MAX], anon[UNITS_TEXT_MAX + 1], shared[UNITS_TEXT_MAX + 1];
	char live[UNITS_TEXT_MAX] = "-", rate[UNITS_TEXT_MAX + 2] = "-", size[UNITS_TEXT_MAX];

	if (row->zoomed) {
		units_format_size(row->live, live);
		snprintf(rate, sizeof(rate), "%s/s",
			 units_format_size(row->alloc_per_second, size));
	}
	fprintf(to, "%7d ", row->pid);
	write_column(row->comm, COMM_WIDTH, to);
	fputc(' ', to);
	write_place(row, to);
	fprintf(to, " %9s %10s %10s %9s %11s  %s\n", units_format_size((double)row->rss_end, rss),
		format_change(row->anon_growth, anon), format_change(row->shared_growth, shared),
		live, rate, row->ended ? "ended" : sweep_verdict_name(row->verdict.kind));
}

static void write_site(const char *what, const struct sweep_site *site, FILE *to)
{
	if (!site->function)
		return;
	fprintf(to, "        %3.0f %% of %s: ", 100 * site->share, what);
	text_escape(to, site->function);
	if (site->file && *site->file) {
		fputs("  ", to);
		text_escape(to, site->file);
		if (site->line)
			fprintf(to, ":%" PRIu32, site->line);
	}
	fputc('\n', to);
}

static void write_path(const char *what, const char *path, FILE *to)
{
	if (!path)
		return;
	fprintf(to, "        %s: ", what);
	text_escape(to, path);
	fputc('\n', to);
}

/* Is much of its resident memory that of others as well? */
static bool shares_much(const struct sweep_row *row)
{
	double rss = (double)row->rss_end, shared = rss - (double)row->pss;

	return row->share_known && shared >= SHARED_LEAST && shared >= SHARED_OF_RSS * rss;
}

static void write_share(const struct sweep_row *row, FILE *to)
{
	char pss[UNITS_TEXT_MAX], rss[UNITS_TEXT_MAX];

	if (shares_much(row))
		fprintf(to, "        PSS %s of %s RSS: it shares much of it with others\n",
			units_format_size((double)row->pss, pss),
			units_format_size((double)row->rss_end, rss));
}

static void write_evidence(const struct sweep_row *row, FILE *to)
{
	char after[UNITS_TEXT_MAX];

	fprintf(to, "\n%7d ", row->pid);
	text_escape(to, row->comm);
	fprintf(to, ": %s\n", row->verdict_text ? row->verdict_text : "");
	write_share(row, to);
	if (row->account)
		fprintf(to, "        RSS since probes were placed, after %s: %s\n",
			units_format_duration(row->zoomed_after, after), row->account);
	write_site(row->live > 0 ? "live bytes" : "allocated bytes", &row->site, to);
	if (row->site_ages.text)
		fprintf(to, "              ages: %s\n", row->site_ages.text);
	write_site("new pages", &row->growth_site, to);
	if (row->reason)
		fprintf(to, "        no probes: %s\n", row->reason);
	write_path("profile", row->profile, to);
	write_path("growth", row->growth_profile, to);
}

/* Who starts those that nobody can look at? Each adds nothing for long, but all of them may be the load. */
static void write_brief(const struct sweep_result *result, FILE *to)
{
	uint64_t others = result->short_lived;

	fputs("briefly lived: ", to);
	vec_for_each(brief, &result->brief) {
		fprintf(to, "%" PRIu64 " ", brief->count);
		text_escape(to, brief->comm);
		if (*brief->parent) {
			fputs(" (of ", to);
			text_escape(to, brief->parent);
			fputc(')', to);
		}
		others -= brief->count < others ? brief->count : others;
		if (brief + 1 < result->brief.items + result->brief.count)
			fputs(", ", to);
	}
	if (others)
		fprintf(to, " and %" PRIu64 " more", others);
	fputc('\n', to);
}

/* What the sweep itself did not get done. */
static void write_missed(const struct sweep_result *result, FILE *to)
{
	char text[UNITS_TEXT_MAX];

	if (result->readings_missed)
		fprintf(to, "; %u readings of all were missed", result->readings_missed);
	if (result->numbered.missed)
		fprintf(to,
			"; numbered profiles of %u intervals are missing: one took up to %s to "
			"write",
			result->numbered.missed,
			units_format_duration(result->numbered.longest, text));
}

static void write_heading(const struct sweep_result *result, FILE *to)
{
	time_t start = (time_t)(result->time_nanos / 1000000000);
	char text[UNITS_TEXT_MAX], when[64] = "";
	struct tm tm;

	if (gmtime_r(&start, &tm))
		strftime(when, sizeof(when), "%F %T UTC", &tm);
	fprintf(to,
		"alloctrace %s: %u processes watched for %s from %s; %u ended, %u more lived too "
		"briefly "
		"to be looked at",
		result->version, result->processes, units_format_duration(result->duration, text),
		when, result->ended, result->short_lived);
	if (result->not_read)
		fprintf(to, ", %u could not be read", result->not_read);
	write_missed(result, to);
	fputc('\n', to);
	if (result->brief.count)
		write_brief(result, to);
	fputc('\n', to);
}

static void write_rows(const struct sweep_result *result, size_t shown, FILE *to)
{
	fprintf(to, "%7s %-*s %-*s %9s %10s %10s %9s %11s  %s\n", "pid", COMM_WIDTH, "command",
		PLACE_WIDTH, "container or cgroup", "RSS", "anonymous", "shared", "live",
		"allocated", "growth");
	for (size_t i = 0; i < shown; i++)
		write_row(&result->rows.items[i], to);
}

void sweep_table_write_rows(const struct sweep_result *result, FILE *to)
{
	char text[UNITS_TEXT_MAX];

	fprintf(to, "%s, %u processes, %zu have grown; Ctrl-C ends it\n",
		units_format_duration(result->duration, text), result->processes,
		result->rows.count);
	if (result->rows.count)
		write_rows(result, result->rows.count, to);
}

int sweep_table_write(const struct sweep_result *result, unsigned int top, FILE *to)
{
	size_t shown = top < result->rows.count ? top : result->rows.count;

	write_heading(result, to);
	write_rows(result, shown, to);
	for (size_t i = 0; i < shown; i++) {
		const struct sweep_row *row = &result->rows.items[i];

		if (row->zoomed || row->reason || row->growth_site.function || shares_much(row))
			write_evidence(row, to);
	}
	if (fflush(to))
		return -errno;
	return ferror(to) ? -EIO : 0;
}
