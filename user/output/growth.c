#include "output/growth.h"

#include "output/ages_text.h"
#include "output/figure.h"
#include "output/frame.h"
#include "output/text.h"
#include "profile/ledger.h"
#include "util/units.h"

#include <string.h>

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

bool growth_has_account(const struct profile *profile)
{
	struct ledger ledger;

	return ledger_of(profile, &ledger);
}

/* " + 12.3 MiB (10.1-14.6) live", the interval only where it is not exact. */
static void write_figure(const struct profile *profile, const struct ledger_figure *figure,
			 const char *what, FILE *to)
{
	char text[FIGURE_TEXT_MAX];

	fprintf(to, " + %s %s", figure_format_ledger(profile, figure, text), what);
}

void growth_write_account(const struct profile *profile, FILE *to)
{
	struct ledger ledger;

	if (!ledger_of(profile, &ledger))
		return;
	write_size((double)ledger.rss_end, to);
	fputs(" = ", to);
	write_size((double)ledger.rss_start, to);
	fputs(" before", to);
	write_figure(profile, &ledger.live, "live", to);
	if (ledger.direct_known)
		write_figure(profile, &ledger.direct, "direct mappings", to);
	write_term((double)ledger.stacks, "stacks", to);
	write_term((double)ledger.file, "files", to);
	write_term((double)ledger.shmem, "shared", to);
	if (ledger.swapped_out)
		write_term(-(double)ledger.swapped_out, "swapped out", to);
	write_term((double)ledger.not_explained, "not explained", to);
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

/* "; 93 % of what is live comes from session_new". False: no site has that much of it. */
static bool write_site(const struct profile *profile, FILE *to)
{
	double live = (double)profile->total_values[PROFILE_INUSE_SPACE], share;
	struct frame_cursor cursor = {.profile = profile};
	struct frame frame;

	if (!profile->sites.count || live <= 0)
		return false;
	cursor.site = &profile->sites.items[0];
	share = (double)cursor.site->sums[PROFILE_INUSE_SPACE] / live;
	if (cursor.site->mapped || share < GROWTH_SITE_SHARE ||
	    !frame_find_allocating(&cursor, &frame))
		return false;
	fprintf(to, "; %.0f %% of what is live comes from ", 100 * share);
	text_escape(to, frame.name);
	if (ages_text_keeps(profile, &cursor.site->ages))
		ages_text_clause(profile, &cursor.site->ages, to);
	return true;
}

/*
 * "; most of it is outside the heap: 58.0 MiB (50.1-66.0) in direct mappings", if these explain what has been
 * added; else that they do not, or what they have, where they may or may not.
 */
static void write_outside(const struct profile *profile, const struct ledger *ledger, double added,
			  const char *hint, FILE *to)
{
	char text[FIGURE_TEXT_MAX], live[UNITS_TEXT_MAX];

	fputs("; most of it is outside the heap", to);
	if (ledger->direct_known && (double)ledger->direct.value >= HEAP_SHARE * added) {
		fprintf(to, ": %s in direct mappings%s",
			figure_format_ledger(profile, &ledger->direct, text), hint);
		return;
	}
	fprintf(to, ", where %s are live", units_format_size((double)ledger->live.value, live));
	if (ledger->direct_known)
		fprintf(to, ", and %s, which have %s",
			(double)ledger->direct.high < HEAP_SHARE * added
				? "outside direct mappings"
				: "perhaps in direct mappings",
			figure_format_ledger(profile, &ledger->direct, text));
}

/*
 * Does the heap explain what has been added? Of little that has been added, no sample of the heap is no proof
 * that it does not. What came in one step may have come before the profile was begun: then what is live says
 * nothing of it. True: it has named a site.
 */
static bool write_heap(const struct profile *profile, const struct verdict *verdict,
		       const char *hint, FILE *to)
{
	const struct profile_memory *start = &profile->info.memory_start;
	const struct profile_memory *end = &profile->info.memory_end;
	double added = (double)(end->anon + end->swap) - (double)(start->anon + start->swap);
	const struct estimate live = ledger_live(profile);
	struct ledger ledger = {0};
	bool known = ledger_of(profile, &ledger);
	double low, high;

	estimate_interval(&live, &low, &high);
	if (known)
		high = (double)ledger.live.high;
	if (known && high < HEAP_SHARE * added)
		write_outside(profile, &ledger, added, hint, to);
	else if (known && !ledger.live.value && added > 0 && verdict->kind != VERDICT_STEP)
		fputs("; too little for the samples to tell whether it is the heap's", to);
	else if (verdict->kind != VERDICT_STEP || high >= HEAP_SHARE * (double)verdict->step)
		return write_site(profile, to);
	return false;
}

static void write_churn(const struct profile *profile, FILE *to)
{
	double seconds = (double)profile->info.duration_nanos / 1e9;
	double allocated = (double)profile->total_values[PROFILE_ALLOC_SPACE];
	double live = ledger_live(profile).value;
	char text[UNITS_TEXT_MAX];

	if (seconds > 0 && allocated / seconds >= CHURN_PER_SECOND &&
	    allocated >= CHURN_TIMES * live)
		fprintf(to, ", while %s/s were allocated and nearly all freed",
			units_format_size(allocated / seconds, text));
}

bool growth_write_evidence(const struct profile *profile, const struct verdict *verdict,
			   const char *hint, FILE *to)
{
	if (verdict_is_growth(verdict->kind))
		return write_heap(profile, verdict, hint, to);
	write_churn(profile, to);
	return false;
}
