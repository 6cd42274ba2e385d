#include "sweep_rows.h"

#include "output/ages_text.h"
#include "output/counters_text.h"
#include "output/frame.h"
#include "output/growth.h"
#include "output/text.h"
#include "util/cleanup.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is no anonymous memory has a line of its own, if it is of any size. */
static void write_shared(const struct sweep_row *row, FILE *to)
{
	char text[UNITS_TEXT_MAX];
	const char *what = "shared memory or file pages";

	if (row->shared_growth < SWEEP_SHARED_LEAST)
		return;
	if (row->kinds_known && row->shmem_growth > row->shared_growth / 2)
		what = "shared memory";
	else if (row->kinds_known)
		what = "file pages";
	fprintf(to, "; %s grew by %s", what, units_format_size((double)row->shared_growth, text));
}

/* profile: of its heap; NULL: none was recorded. */
static int add_verdict(struct sweep_row *row, const struct profile *profile)
{
	size_t size;
	FILE *to = open_memstream(&row->verdict_text, &size);

	if (!to)
		return -ENOMEM;
	/* The table has a growth for it that this is not of. */
	if (row->verdict.kind == VERDICT_FLAT && row->shared_growth >= SWEEP_SHARED_LEAST)
		fputs("anonymous memory ", to);
	growth_write_shape(&row->verdict, to);
	if (profile)
		row->verdict_named = growth_write_evidence(profile, &row->verdict, "", to);
	write_shared(row, to);
	return fclose(to) ? -ENOMEM : 0;
}

static bool has_grown(const struct sweep_row *row)
{
	return verdict_is_growth(row->verdict.kind) || row->shared_growth >= SWEEP_SHARED_LEAST;
}

int sweep_row_add_new_pages(struct sweep_row *row)
{
	CLEANUP(cleanup_free) char *name = NULL;
	char *text;

	if (!row->verdict_text || row->verdict_named || !row->growth_site.function ||
	    row->growth_site.share < GROWTH_SITE_SHARE || !has_grown(row))
		return 0;
	name = text_escaped(row->growth_site.function);
	if (!name || asprintf(&text, "%s; %.0f %% of the sampled new pages come from %s",
			      row->verdict_text, 100 * row->growth_site.share, name) < 0)
		return -ENOMEM;
	free(row->verdict_text);
	row->verdict_text = text;
	return 0;
}

int sweep_row_judge(struct sweep_row *row)
{
	return add_verdict(row, NULL);
}

static int add_account(struct sweep_row *row, const struct profile *profile)
{
	size_t size;
	FILE *to;

	if (!ledger_of(profile, &row->ledger))
		return 0;
	to = open_memstream(&row->account, &size);
	if (!to)
		return -ENOMEM;
	growth_write_account(profile, to);
	return fclose(to) ? -ENOMEM : 0;
}

static void add_ages(const struct profile *profile, const struct ages *from, struct sweep_ages *to)
{
	bool exact = profile->info.period <= 1;

	if (!profile->info.aged)
		return;
	to->known = true;
	for (unsigned int band = 0; band < AGE_BANDS; band++)
		to->older[band] = ages_older(from, band);
	to->freed = from->freed;
	to->freed_known = ages_tell_freed(from, exact);
	to->median = ages_median_lifetime(from);
	to->mean = ages_mean_lifetime(from);
	to->fate = ages_fate(from, &profile->info.window, exact);
}

/* As in the summary of a single process. */
static int add_ages_text(const struct profile *profile, const struct ages *from,
			 struct sweep_ages *to)
{
	size_t size;
	FILE *text;

	if (!ages_text_any(profile, from))
		return 0;
	text = open_memstream(&to->text, &size);
	if (!text)
		return -ENOMEM;
	ages_text_site(profile, from, text);
	return fclose(text) ? -ENOMEM : 0;
}

/* The site with most of what is live; of what was allocated, where nothing is. */
static int add_site(struct sweep_row *row, const struct profile *profile)
{
	enum profile_value value = row->live > 0 ? PROFILE_INUSE_SPACE : PROFILE_ALLOC_SPACE;
	double all = (double)profile->total_values[value];
	struct frame_cursor cursor = {.profile = profile};
	struct frame frame;
	int err;

	vec_for_each(site, &profile->sites) {
		if (site->mapped)
			continue;
		if (!cursor.site || site->sums[value] > cursor.site->sums[value])
			cursor.site = site;
	}
	if (!cursor.site || all <= 0 || !frame_find_allocating(&cursor, &frame))
		return 0;
	err = sweep_site_fill(&row->site, &cursor, &frame, (double)cursor.site->sums[value] / all);
	if (err)
		return err;
	add_ages(profile, &cursor.site->ages, &row->site_ages);
	return add_ages_text(profile, &cursor.site->ages, &row->site_ages);
}

void sweep_row_add_figures(struct sweep_row *row, const struct estimate *live,
			   const struct estimate *allocated, int64_t duration, uint64_t period)
{
	row->zoomed = true;
	row->live = live->value;
	estimate_interval(live, &row->live_low, &row->live_high);
	if (allocated->value <= 0)
		row->live_high = estimate_upper_of_nothing(period);
	if (duration > 0)
		row->alloc_per_second = allocated->value / ((double)duration / 1e9);
}

int sweep_row_add_heap(struct sweep_row *row, const struct profile *profile)
{
	double seconds = (double)profile->info.duration_nanos / 1e9;
	int err;

	row->zoomed = true;
	row->live = (double)profile->total_values[PROFILE_INUSE_SPACE];
	estimate_interval(&profile->total[PROFILE_INUSE_SPACE], &row->live_low, &row->live_high);
	if (!profile->sites.count)
		row->live_high = estimate_upper_of_nothing(profile->info.period);
	if (seconds > 0)
		row->alloc_per_second =
			(double)profile->total_values[PROFILE_ALLOC_SPACE] / seconds;
	add_ages(profile, &profile->ages, &row->ages);
	row->sampled = profile->info.sampled;
	row->lost = profile_losses(profile);
	err = counters_format(profile, PROFILE_LOSS, &row->losses);
	if (!err)
		err = add_account(row, profile);
	if (!err)
		err = add_verdict(row, profile);
	return err ? err : add_site(row, profile);
}
