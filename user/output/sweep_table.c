#include "output/sweep.h"

#include "output/sweep_columns.h"
#include "output/text.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of a PSS that is nearly all of the RSS, or lacks no more than libraries, nothing is told. */
#define SHARED_LEAST  (8 * 1024 * 1024)
#define SHARED_OF_RSS 0.25

void sweep_row_deinit(struct sweep_row *row)
{
	free(row->comm);
	free(row->cgroup);
	free(row->container);
	free(row->verdict_text);
	free(row->account);
	free(row->profile);
	free(row->losses);
	free(row->growth_profile);
	free(row->reason);
	free(row->site_ages.text);
	sweep_site_deinit(&row->site);
	sweep_site_deinit(&row->growth_site);
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
	if (site->callers)
		fprintf(to, "\n              %s", site->callers);
	fputc('\n', to);
}

static void write_losses(const struct sweep_row *row, FILE *to)
{
	if (row->losses)
		fprintf(to,
			"        LOST %" PRIu64 " of %" PRIu64
			" samples (%s): figures of its heap are too low by about as much\n",
			row->lost, row->sampled, row->losses);
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
	if (row->account && row->zoomed_after > 0)
		fprintf(to, "        RSS since probes were placed, after %s: %s\n",
			units_format_duration(row->zoomed_after, after), row->account);
	else if (row->account)
		fprintf(to, "        RSS: %s\n", row->account);
	write_site(row->live > 0 ? "live bytes" : "allocated bytes", &row->site, to);
	if (row->site_ages.text)
		fprintf(to, "              ages: %s\n", row->site_ages.text);
	write_site("new pages", &row->growth_site, to);
	write_losses(row, to);
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

void sweep_table_write_rows(const struct sweep_result *result, FILE *to)
{
	char text[UNITS_TEXT_MAX];

	fprintf(to, "%s, %u processes, %zu of those that have grown; Ctrl-C ends it\n",
		units_format_duration(result->duration, text), result->processes,
		result->rows.count);
	if (result->rows.count)
		sweep_columns_write(result, result->rows.count, to);
}

int sweep_table_write(const struct sweep_result *result, unsigned int top, FILE *to)
{
	size_t shown = top < result->rows.count ? top : result->rows.count;

	write_heading(result, to);
	sweep_columns_write(result, shown, to);
	for (size_t i = 0; i < shown; i++) {
		const struct sweep_row *row = &result->rows.items[i];

		if (row->zoomed || row->reason || row->growth_site.function || shares_much(row))
			write_evidence(row, to);
	}
	if (fflush(to))
		return -errno;
	return ferror(to) ? -EIO : 0;
}
