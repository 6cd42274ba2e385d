#include "output/growth.h"

#include "output/ages_text.h"
#include "output/figure.h"
#include "output/frame.h"
#include "output/text.h"
#include "util/units.h"

#include <math.h>
#include <string.h>

/* A site is evidence if it holds so much of the live bytes. */
#define SITE_SHARE 0.2
/* The heap does not explain a growth of which it holds less than this. */
#define HEAP_SHARE 0.5
/* Allocated, as a multiple of what is live, and per second: who churns. */
#define CHURN_TIMES	 10
#define CHURN_PER_SECOND (1024 * 1024)

static void write_size(double bytes, FILE *to)
{
	char text[UNITS_TEXT_MAX];

	fputs(units_format_size(bytes, text), to);
}

/* " + 12 KiB files" */
static void write_term(double bytes, const char *what, FILE *to)
{
	fputs(bytes < 0 ? " - " : " + ", to);
	write_size(bytes < 0 ? -bytes : bytes, to);
	fprintf(to, " %s", what);
}

static double change(uint64_t from, uint64_t to)
{
	return (double)to - (double)from;
}

bool growth_has_account(const struct profile *profile)
{
	return profile->info.memory_start.known && profile->info.memory_end.known;
}

/* All that is live, what is too young to be told elsewhere among it. */
struct all_live {
	struct estimate values[PROFILE_VALUES];
	int64_t sums[PROFILE_VALUES];
};

static struct all_live all_live(const struct profile *profile)
{
	struct all_live all;

	memcpy(all.values, profile->total, sizeof(all.values));
	memcpy(all.sums, profile->total_values, sizeof(all.sums));
	estimate_sum(&all.values[PROFILE_INUSE_SPACE], &profile->young.space);
	if (__builtin_add_overflow(all.sums[PROFILE_INUSE_SPACE],
				   (int64_t)fmin(profile->young.space.value, 0x1p62),
				   &all.sums[PROFILE_INUSE_SPACE]))
		all.sums[PROFILE_INUSE_SPACE] = INT64_MAX;
	return all;
}

static void write_live(const struct profile *profile, const struct all_live *all, FILE *to)
{
	char text[FIGURE_TEXT_MAX], most[UNITS_TEXT_MAX];

	/* Without any sample there may be some all the same. */
	if (!profile->sites.count && profile->info.period > 1)
		snprintf(text, sizeof(text), "0 B (0-%s)",
			 units_format_size(estimate_upper_of_nothing(profile->info.period), most));
	else
		figure_format(profile, all->values, all->sums, PROFILE_INUSE_SPACE, text);
	fprintf(to, "%s live", text);
}

void growth_write_account(const struct profile *profile, FILE *to)
{
	const struct profile_memory *start = &profile->info.memory_start;
	const struct profile_memory *end = &profile->info.memory_end;
	const struct all_live all = all_live(profile);
	double live = (double)all.sums[PROFILE_INUSE_SPACE];
	double stacks = change(start->stacks, end->stacks), file = change(start->file, end->file);
	double shmem = change(start->shmem, end->shmem), swapped = change(start->swap, end->swap);
	double before = (double)(start->anon + start->file + start->shmem);
	double now = (double)(end->anon + end->file + end->shmem);

	write_size(now, to);
	fputs(" = ", to);
	write_size(before, to);
	fputs(" before + ", to);
	write_live(profile, &all, to);
	write_term(stacks, "stacks", to);
	write_term(file, "files", to);
	write_term(shmem, "shared", to);
	if (swapped != 0)
		write_term(-swapped, "swapped out", to);
	write_term(now - before - live - stacks - file - shmem + swapped, "not explained", to);
}

/* --- the verdict --- */

void growth_write_shape(const struct verdict *verdict, FILE *to)
{
	char text[UNITS_TEXT_MAX], from[UNITS_TEXT_MAX], until[UNITS_TEXT_MAX];

	switch (verdict->kind) {
	case VERDICT_STEADY:
		fprintf(to, "grew in %u of %u parts of the window, %s/s", verdict->grown,
			verdict->parts, units_format_size(verdict->per_second, text));
		break;
	case VERDICT_STEP:
		fprintf(to, "grew once, by %s between %s and %s",
			units_format_size((double)verdict->step, text),
			units_format_duration(verdict->step_from, from),
			units_format_duration(verdict->step_to, until));
		break;
	case VERDICT_UNEVEN:
		fprintf(to, "grew by %s, in %u of %u parts of the window",
			units_format_size((double)verdict->change, text), verdict->grown,
			verdict->parts);
		break;
	case VERDICT_SAWTOOTH:
		fprintf(to, "grew and shrank in turn, between %s and %s",
			units_format_size((double)verdict->low, from),
			units_format_size((double)verdict->high, until));
		break;
	case VERDICT_TOO_SHORT:
		fputs("too few readings to tell how it grew", to);
		break;
	case VERDICT_SHRANK:
		fprintf(to, "shrank by %s", units_format_size(-(double)verdict->change, text));
		break;
	default:
		fprintf(to, "stayed within %s",
			units_format_size((double)(verdict->high - verdict->low), text));
		break;
	}
}

/* "; 93 % of what is live comes from session_new" */
static void write_site(const struct profile *profile, FILE *to)
{
	double live = (double)profile->total_values[PROFILE_INUSE_SPACE], share;
	struct frame_cursor cursor = {.profile = profile};
	struct frame frame;

	if (!profile->sites.count || live <= 0)
		return;
	cursor.site = &profile->sites.items[0];
	share = (double)cursor.site->sums[PROFILE_INUSE_SPACE] / live;
	if (cursor.site->mapped || share < SITE_SHARE || !frame_find_allocating(&cursor, &frame))
		return;
	fprintf(to, "; %.0f %% of what is live comes from ", 100 * share);
	text_escape(to, frame.name);
	if (ages_text_keeps(profile, &cursor.site->ages))
		ages_text_clause(profile, &cursor.site->ages, to);
}

/*
 * Does the heap explain what has been added? What came in one step may have come before the profile was
 * begun: then what is live says nothing of it.
 */
static void write_heap(const struct profile *profile, const struct verdict *verdict, FILE *to)
{
	const struct profile_memory *start = &profile->info.memory_start;
	const struct profile_memory *end = &profile->info.memory_end;
	double added = (double)(end->anon + end->swap) - (double)(start->anon + start->swap);
	const struct all_live all = all_live(profile);
	double low, high;
	char text[UNITS_TEXT_MAX];

	estimate_interval(&all.values[PROFILE_INUSE_SPACE], &low, &high);
	if (growth_has_account(profile) && high < HEAP_SHARE * added)
		fprintf(to, "; most of it is outside the heap, where %s are live%s",
			units_format_size((double)all.sums[PROFILE_INUSE_SPACE], text),
			profile->info.mmap ? "" : " (--mmap records direct mappings)");
	else if (verdict->kind != VERDICT_STEP || high >= HEAP_SHARE * (double)verdict->step)
		write_site(profile, to);
}

static void write_churn(const struct profile *profile, FILE *to)
{
	double seconds = (double)profile->info.duration_nanos / 1e9;
	double allocated = (double)profile->total_values[PROFILE_ALLOC_SPACE];
	double live = (double)all_live(profile).sums[PROFILE_INUSE_SPACE];
	char text[UNITS_TEXT_MAX];

	if (seconds > 0 && allocated / seconds >= CHURN_PER_SECOND &&
	    allocated >= CHURN_TIMES * live)
		fprintf(to, ", while %s/s were allocated and nearly all freed",
			units_format_size(allocated / seconds, text));
}

void growth_write_evidence(const struct profile *profile, const struct verdict *verdict, FILE *to)
{
	switch (verdict->kind) {
	case VERDICT_STEADY:
	case VERDICT_STEP:
	case VERDICT_UNEVEN:
		write_heap(profile, verdict, to);
		break;
	default:
		write_churn(profile, to);
		break;
	}
}
