/*
 * The summary: for somebody who is on call, in the order of the questions that they have. What is
 * this about? Can I believe it? How much is it? Where does it come from?
 *
 * Whatever was estimated from samples carries its 95 % interval in parentheses, whatever was
 * counted carries none, and the line "sampling" says which of the two this is.
 */
#include "output/text.h"

#include "output/ages_text.h"
#include "output/counters_text.h"
#include "output/figure.h"
#include "output/growth.h"
#include "output/missing_names.h"
#include "output/site_table.h"
#include "util/cleanup.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LABEL_WIDTH "11"
/* Characters of a line behind the label. */
#define LINE_WIDTH 89
/* Functions that are named of those that are not probed for one reason. */
#define NAMES_SHOWN 4

static void label(FILE *to, const char *text)
{
	fprintf(to, "%-" LABEL_WIDTH "s", text);
}

static void write_count(FILE *to, uint64_t count)
{
	char text[UNITS_TEXT_MAX];

	fputs(units_format_count(count > INT64_MAX ? INT64_MAX : (int64_t)count, text), to);
}

static void write_size(FILE *to, double size)
{
	char text[UNITS_TEXT_MAX];

	fputs(units_format_size(size, text), to);
}

static void write_figure(FILE *to, const struct profile *profile, const struct estimate *values,
			 const int64_t *sums, enum profile_value which)
{
	char text[FIGURE_TEXT_MAX];

	fputs(figure_format(profile, values, sums, which, text), to);
}

static bool is_exact(const struct profile *profile)
{
	return profile->info.period <= 1;
}

/* --- what is this about? --- */

static void write_process(const struct profile *profile, FILE *to)
{
	const struct profile_info *info = &profile->info;
	const char *comm = info->comm && *info->comm ? info->comm : "(no name)";

	fputs("alloctrace ", to);
	text_escape(to, info->version ? info->version : "");
	fputs(": ", to);
	text_escape(to, comm);
	fprintf(to, ", pid %d, ", info->pid);
	text_escape(to, info->exe && *info->exe ? info->exe : "(executable unknown)");
	fputc('\n', to);
}

static void write_window(const struct profile *profile, FILE *to)
{
	const struct profile_info *info = &profile->info;
	time_t start = (time_t)(info->time_nanos / 1000000000);
	char text[UNITS_TEXT_MAX], when[64];
	struct tm tm;

	label(to, "window");
	fputs(units_format_duration(info->duration_nanos, text), to);
	if (gmtime_r(&start, &tm) && strftime(when, sizeof(when), "%F %T UTC", &tm))
		fprintf(to, " from %s", when);
	fprintf(to, ", ended: %s\n", info->end_reason ? info->end_reason : "unknown");
	if (info->origin) {
		label(to, "");
		fprintf(to, "followed from %s; what it allocated before is not known\n",
			info->origin);
	}
	if (info->children) {
		label(to, "children");
		fprintf(to, "%s\n", info->children);
	}
}

/* Words, in lines of a width that fits the rest of the summary. */
static void write_words(const char *words, FILE *to)
{
	size_t column = 0;

	while (*words) {
		size_t length = strcspn(words, " ");
		/* What stands in parentheses belongs to the word before. */
		while (words[length] == ' ' && words[length + 1] == '(')
			length += 1 + strcspn(words + length + 1, ")") + 1;
		char *word = strndup(words, length);

		if (column && column + 1 + length > LINE_WIDTH) {
			fputc('\n', to);
			column = 0;
		}
		if (column)
			fputc(' ', to);
		else
			label(to, "");
		text_escape(to, word ? word : "");
		free(word);
		column += length + 1;
		words += length;
		words += strspn(words, " ");
	}
	fputc('\n', to);
}

/* One of the lines "name: reason". */
struct left_out {
	const char *name, *reason;
	size_t name_length, reason_length;
};

static bool next_left_out(const char **lines, struct left_out *out)
{
	const char *line = *lines, *separator = strstr(line, ": ");
	size_t length = strcspn(line, "\n");

	if (!*line || !separator || separator > line + length)
		return false;
	out->name = line;
	out->name_length = (size_t)(separator - line);
	out->reason = separator + 2;
	out->reason_length = length - out->name_length - 2;
	*lines = line + length + (line[length] == '\n');
	return true;
}

static bool same_reason(const struct left_out *a, const struct left_out *b)
{
	return a->reason_length == b->reason_length &&
	       !memcmp(a->reason, b->reason, a->reason_length);
}

static void write_part(const char *text, size_t length, FILE *to)
{
	char *copy = strndup(text, length);

	text_escape(to, copy ? copy : "");
	free(copy);
}

/* "a, b and 3 more: reason", for one reason. */
static void write_reason(const char *lines, const struct left_out *first, FILE *to)
{
	struct left_out other;
	size_t count = 0;

	label(to, "not probed");
	while (next_left_out(&lines, &other)) {
		if (!same_reason(&other, first))
			continue;
		if (count++ >= NAMES_SHOWN)
			continue;
		if (count > 1)
			fputs(", ", to);
		write_part(other.name, other.name_length, to);
	}
	if (count > NAMES_SHOWN)
		fprintf(to, " and %zu more", count - NAMES_SHOWN);
	fputs(": ", to);
	write_part(first->reason, first->reason_length, to);
	fputc('\n', to);
}

static void write_left_out(const struct profile_probe *probe, FILE *to)
{
	const char *lines = probe->left_out;
	struct left_out item, earlier;

	while (next_left_out(&lines, &item)) {
		const char *before = probe->left_out;
		bool known = false;

		while (next_left_out(&before, &earlier) && earlier.name != item.name)
			known |= same_reason(&earlier, &item);
		if (!known)
			write_reason(probe->left_out, &item, to);
	}
}

static void write_probes(const struct profile *profile, FILE *to)
{
	vec_for_each(probe, &profile->probes) {
		label(to, "allocator");
		text_escape(to, probe->file);
		fputs(" (", to);
		text_escape(to, probe->origin);
		fputs("; attach: ", to);
		text_escape(to, profile->info.attach ? profile->info.attach : "unknown");
		fputs(")\n", to);
		write_words(probe->functions, to);
		write_left_out(probe, to);
	}
	if (!profile->probes.count) {
		label(to, "allocator");
		fputs("none probed\n", to);
	}
}

/* --- can I believe it? --- */

static void write_sampling(const struct profile *profile, FILE *to)
{
	label(to, "sampling");
	if (!is_exact(profile)) {
		fputs("one sample per ", to);
		write_size(to, (double)profile->info.period);
		fputs(" allocated, on average; figures are estimates (95 % interval)\n", to);
	} else if (profile_losses(profile)) {
		fputs("every allocation, but some were lost: figures are too low\n", to);
	} else {
		fputs("every allocation: figures are exact\n", to);
	}
}

/* The share in percent with one decimal, never rounded up to a "100.0" or down to a "0.0" it is
 * not. */
static double percent(uint64_t part, uint64_t whole)
{
	double share = whole ? 100.0 * (double)part / (double)whole : 0;

	if (part < whole && share > 99.9)
		return 99.9;
	return part && share < 0.1 ? 0.1 : share;
}

/* False: there is none of that kind. */
static bool write_counters(const struct profile *profile, enum profile_counter_kind kind,
			   const char *heading, FILE *to)
{
	CLEANUP(cleanup_free) char *text = NULL;

	if (counters_format(profile, kind, &text) || !text)
		return false;
	label(to, heading);
	fputs(text, to);
	return true;
}

/* Names what was lost, on a line of its own. Nothing where nothing was. */
static void write_losses(const struct profile *profile, FILE *to)
{
	if (!write_counters(profile, PROFILE_LOSS, "LOST", to))
		return;
	fputc('\n', to);
	label(to, "");
	fprintf(to, "%.1f %% of the samples are lost: figures are too low by about as much\n",
		percent(profile_losses(profile), profile->info.sampled));
}

static void write_other_counters(const struct profile *profile, FILE *to)
{
	if (write_counters(profile, PROFILE_SEEN, "also seen", to))
		fputc('\n', to);
}

static void write_completeness(const struct profile *profile, FILE *to)
{
	uint64_t complete = 0, all = 0;

	for (size_t i = 0; i < profile->buckets.count; i++) {
		const struct profile_bucket *bucket = &profile->buckets.items[i];

		all += bucket->alloc_hits;
		if (profile->sites.items[bucket->site].complete)
			complete += bucket->alloc_hits;
	}
	if (all)
		fprintf(to, "; stacks complete: %.*f %%", complete < all, percent(complete, all));
}

static void write_seen(const struct profile *profile, FILE *to)
{
	const struct profile_info *info = &profile->info;

	label(to, "seen");
	write_count(to, info->calls);
	fputs(" allocation calls, ", to);
	write_count(to, info->frees);
	fputs(" frees", to);
	if (info->mmap) {
		fputs("; ", to);
		write_count(to, info->maps);
		fputs(" mapping calls, ", to);
		write_count(to, info->unmaps);
		fputs(" unmappings, the allocator's among them", to);
	}
	fputc('\n', to);
	write_sampling(profile, to);
	label(to, "samples");
	write_count(to, info->sampled);
	fputs(" taken, ", to);
	write_count(to, info->recorded);
	fputs(" recorded, ", to);
	write_count(to, profile_losses(profile));
	fputs(" lost", to);
	write_completeness(profile, to);
	fputc('\n', to);
	write_losses(profile, to);
	write_other_counters(profile, to);
}

/* --- how much is it?
 * ------------------------------------------------------------------------------ */

static void write_rate(const struct profile *profile, FILE *to)
{
	double seconds = (double)profile->info.duration_nanos / 1e9;
	char bytes[FIGURE_TEXT_MAX], objects[FIGURE_TEXT_MAX];

	label(to, "allocated");
	if (seconds > 0)
		fprintf(to, "%s, %s; ",
			figure_format_rate(profile, PROFILE_ALLOC_SPACE, seconds, bytes),
			figure_format_rate(profile, PROFILE_ALLOC_OBJECTS, seconds, objects));
	write_figure(to, profile, profile->total, profile->total_values, PROFILE_ALLOC_SPACE);
	fputs(" in all\n", to);
}

static void write_rss(const struct profile_info *info, FILE *to)
{
	bool start_known = info->memory_start.known, end_known = info->memory_end.known;
	double start = (double)profile_memory_rss(&info->memory_start);
	double end = (double)profile_memory_rss(&info->memory_end), change = end - start;

	if (start_known)
		write_size(to, start);
	else
		fputs("unknown", to);
	if (!start_known && !end_known)
		return;
	fputs(" -> ", to);
	if (!end_known) {
		fputs("unknown", to);
		return;
	}
	write_size(to, end);
	if (!start_known)
		return;
	fputs(change < 0 ? " (-" : " (+", to);
	write_size(to, change < 0 ? -change : change);
	fputc(')', to);
}

/* What the program has mapped by itself: address space, which RSS may hold none or all of. */
static void write_mapped(const struct profile *profile, FILE *to)
{
	label(to, "mapped");
	write_figure(to, profile, profile->mapped, profile->mapped_values, PROFILE_INUSE_SPACE);
	fputs(" in ", to);
	write_figure(to, profile, profile->mapped, profile->mapped_values, PROFILE_INUSE_OBJECTS);
	fputs(" direct mappings, beside what is live; ", to);
	write_figure(to, profile, profile->mapped, profile->mapped_values, PROFILE_ALLOC_SPACE);
	fputs(" in all\n", to);
	label(to, "");
	fputs("\"mapped\" = address space that the program took by mmap, mremap or brk itself; RSS "
	      "holds what it touched of that\n",
	      to);
}

/* "3.00 MiB in 200 objects". */
static void write_young(const struct profile *profile, const struct profile_young *young,
			const char *what, FILE *to)
{
	const struct estimate values[PROFILE_VALUES] = {
		[PROFILE_ALLOC_OBJECTS] = young->objects,
		[PROFILE_ALLOC_SPACE] = young->space,
	};
	const int64_t sums[PROFILE_VALUES] = {
		[PROFILE_ALLOC_OBJECTS] = llround(fmin(young->objects.value, 0x1p62)),
		[PROFILE_ALLOC_SPACE] = llround(fmin(young->space.value, 0x1p62)),
	};

	write_figure(to, profile, values, sums, PROFILE_ALLOC_SPACE);
	fputs(" in ", to);
	write_figure(to, profile, values, sums, PROFILE_ALLOC_OBJECTS);
	fprintf(to, " %s", what);
}

static void write_ages(const struct profile *profile, FILE *to)
{
	const struct profile_info *info = &profile->info;
	char text[UNITS_TEXT_MAX];

	if (info->window.min_age) {
		label(to, "left out");
		fprintf(to, "what was younger than %s at the end (--min-age): ",
			units_format_duration(info->window.min_age, text));
		write_young(profile, &profile->young, "objects", to);
		if (info->mmap) {
			fputs("; ", to);
			write_young(profile, &profile->mapped_young, "direct mappings", to);
		}
		fputc('\n', to);
	}
	if (info->aged && ages_bytes(&profile->ages) > 0) {
		label(to, "ages");
		fputs("live bytes: ", to);
		ages_text_bands(&profile->ages, to);
		fputc('\n', to);
	}
}

static void write_amounts(const struct profile *profile, FILE *to)
{
	write_rate(profile, to);
	label(to, "live");
	write_figure(to, profile, profile->total, profile->total_values, PROFILE_INUSE_SPACE);
	fputs(" in ", to);
	write_figure(to, profile, profile->total, profile->total_values, PROFILE_INUSE_OBJECTS);
	fputs(" objects; RSS ", to);
	write_rss(&profile->info, to);
	fputc('\n', to);
	label(to, "");
	fputs("\"live\" = allocated since attach and not freed; what was allocated before is not "
	      "known\n",
	      to);
	if (profile->info.mmap)
		write_mapped(profile, to);
	write_ages(profile, to);
}

/* And is it the heap at all? */
static void write_growth(const struct profile *profile, FILE *to)
{
	const struct verdict *growth = &profile->info.growth;

	if (growth_has_account(profile)) {
		/* Where nothing was recorded, a line of that name stands above. */
		label(to, profile->sites.count ? "RSS" : "");
		growth_write_account(profile, to);
		fputc('\n', to);
	}
	if (growth->kind != VERDICT_TOO_SHORT) {
		label(to, "growth");
		growth_write_shape(growth, to);
		growth_write_evidence(profile, growth,
				      profile->info.mmap ? "" : " (--mmap names their sites)", to);
		fputc('\n', to);
	}
}

static void write_warnings(const struct profile *profile, FILE *to)
{
	for (size_t i = 0; i < profile->warnings.count; i++) {
		label(to, "WARNING");
		text_escape(to, profile->warnings.items[i]);
		fputc('\n', to);
	}
}

/* RSS at the start and the end says something even if nothing was recorded. */
static void write_rss_alone(const struct profile *profile, FILE *to)
{
	label(to, "RSS");
	write_rss(&profile->info, to);
	fputc('\n', to);
}

static void write_no_calls(const struct profile_info *info, FILE *to)
{
	bool busy = info->cpu_nanos >= PROFILE_BUSY_NANOS;
	char text[UNITS_TEXT_MAX];

	fputs("NOTHING RECORDED: no allocation call was seen.", to);
	if (info->cpu_nanos > 0)
		fprintf(to, " The process used %s of CPU time.",
			units_format_duration(info->cpu_nanos, text));
	else if (!info->cpu_nanos) /* less than the kernel's unit */
		fputs(" The process used hardly any CPU time.", to);
	fputs(" It may be that\n", to);
	if (!busy)
		fputs("  - the process was idle: try a longer window;\n", to);
	fputs("  - it has an allocator of its own (static, bundled, pools over mmap) that is not "
	      "among the probed ones;\n"
	      "  - its code was moved to anonymous (huge) pages, where probes do not fire "
	      "(a warning says so where that can be seen).\n",
	      to);
}

/* Why is there nothing? */
static void write_nothing(const struct profile *profile, FILE *to)
{
	const struct profile_info *info = &profile->info;

	fputc('\n', to);
	if (!info->calls) {
		write_no_calls(info, to);
	} else if (!info->sampled) {
		fputs("NOTHING RECORDED: calls were seen, but too few bytes for a sample. They "
		      "were "
		      "probably less than ",
		      to);
		write_size(to, estimate_upper_of_nothing(info->period));
		fputs(".\nSample more often (-s 4KiB; -s 1 records every call), or record for "
		      "longer.\n",
		      to);
	} else if (profile_losses(profile)) {
		fputs("NOTHING RECORDED: every sample was lost, for the reasons named above.\n",
		      to);
	} else {
		fputs("NOTHING RECORDED: there were samples, but none of them became an allocation "
		      "(the "
		      "call failed, or did not return).\n",
		      to);
	}
}

int text_write_summary(const struct profile *profile, unsigned int top, FILE *to)
{
	int err = 0;

	write_process(profile, to);
	write_window(profile, to);
	write_probes(profile, to);
	write_seen(profile, to);
	if (profile->sites.count)
		write_amounts(profile, to);
	else
		write_rss_alone(profile, to);
	write_growth(profile, to);
	err = missing_names_write(profile, "names", to);
	write_warnings(profile, to);
	if (!err && profile->sites.count)
		err = site_table_write(profile, top, to);
	else if (!err)
		write_nothing(profile, to);
	if (err)
		return err;
	if (fflush(to))
		return -errno;
	return ferror(to) ? -EIO : 0;
}
