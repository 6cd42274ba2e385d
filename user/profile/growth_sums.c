/* The part of profile.h that is about growth by page faults. */
#include "profile/profile.h"

#include "util/vec.h"

#include <math.h>
#include <stdlib.h>

const char *const profile_kind_names[PROFILE_KINDS] = {
	[PROFILE_HEAP] = "heap", [PROFILE_ANON] = "anonymous", [PROFILE_STACK] = "stack",
	[PROFILE_FILE] = "file", [PROFILE_SHARED] = "shared",
};

int profile_add_growth(struct profile *profile, uint32_t site, enum profile_kind kind,
		       uint64_t hits, const struct estimate *space)
{
	struct profile_growth growth = {.site = site, .kind = kind, .hits = hits, .space = *space};

	return site < profile->sites.count ? vec_push(&profile->growths, growth) : -EINVAL;
}

static int by_value(const void *a, const void *b)
{
	const struct profile_growth *x = a, *y = b;

	if (x->value != y->value)
		return x->value < y->value ? 1 : -1;
	return (x->site > y->site) - (x->site < y->site);
}

void profile_finish_growth(struct profile *profile)
{
	vec_for_each(growth, &profile->growths) {
		growth->value = llround(growth->space.value);
		profile->growth_value += growth->value;
		estimate_sum(&profile->growth, &growth->space);
		estimate_sum(&profile->growth_by_kind[growth->kind], &growth->space);
	}
	if (profile->growths.count)
		qsort(profile->growths.items, profile->growths.count,
		      sizeof(*profile->growths.items), by_value);
}
