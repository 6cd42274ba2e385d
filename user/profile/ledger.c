#include "profile/ledger.h"

#include <math.h>
#include <string.h>

static int64_t to_bytes(double value)
{
	return llround(fmin(value, 0x1p62));
}

/* Without any sample there may be some all the same. value: rounded, as it is printed elsewhere. */
static struct ledger_figure figure_of(const struct estimate *estimate, int64_t value,
				      bool no_sample, uint64_t period)
{
	double low, high;

	estimate_interval(estimate, &low, &high);
	if (no_sample)
		high = estimate_upper_of_nothing(period);
	return (struct ledger_figure){
		.value = value,
		.low = to_bytes(fmin(low, (double)value)),
		.high = to_bytes(fmax(high, (double)value)),
	};
}

struct estimate ledger_live(const struct profile *profile)
{
	struct estimate live = profile->total[PROFILE_INUSE_SPACE];

	estimate_sum(&live, &profile->young.space);
	return live;
}

static int64_t live_bytes(const struct profile *profile)
{
	int64_t sum;

	if (__builtin_add_overflow(profile->total_values[PROFILE_INUSE_SPACE],
				   (int64_t)fmin(profile->young.space.value, 0x1p62), &sum))
		return INT64_MAX;
	return sum;
}

static bool has_blocks(const struct profile *profile)
{
	for (size_t i = 0; i < profile->sites.count; i++) {
		if (!profile->sites.items[i].mapped)
			return true;
	}
	return false;
}

bool ledger_of(const struct profile *profile, struct ledger *out)
{
	const struct profile_memory *start = &profile->info.memory_start;
	const struct profile_memory *end = &profile->info.memory_end;
	const uint64_t period = profile->info.period;
	const struct estimate live = ledger_live(profile);

	if (!start->known || !end->known)
		return false;
	*out = (struct ledger){
		.rss_start = (int64_t)profile_memory_rss(start),
		.rss_end = (int64_t)profile_memory_rss(end),
		.live = figure_of(&live, live_bytes(profile), !has_blocks(profile), period),
		.direct_known = end->direct_known,
		.direct_lost = end->direct_lost,
		.stacks = (int64_t)(end->stacks - start->stacks),
		.file = (int64_t)(end->file - start->file),
		.shmem = (int64_t)(end->shmem - start->shmem),
		.swapped_out = (int64_t)(end->swap - start->swap),
	};
	if (end->direct_known)
		out->direct = figure_of(&end->direct, to_bytes(end->direct.value),
					!(end->direct.value > 0), period);
	out->not_explained = out->rss_end - out->rss_start - out->live.value - out->direct.value -
			     out->stacks - out->file - out->shmem + out->swapped_out;
	return true;
}
