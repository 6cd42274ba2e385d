#include "profile/ages.h"

#include <math.h>

#define SECOND 1000000000LL

const int64_t age_band_from[AGE_BANDS] = {
	0, SECOND, 10 * SECOND, 60 * SECOND, 600 * SECOND,
};

/* A window too short for its parts to mean anything. */
#define WINDOW_MIN (3 * SECOND)

/* Where the first class ends, and how much wider each one is, as powers of two of ns. */
#define FIRST_CLASS 12
#define CLASS_STEP  2

/* Which part of the window a time is in. What lies outside of it counts as its ends. */
static unsigned int part_of(const struct age_window *window, int64_t time)
{
	int64_t length = window->end - window->start, into = time - window->start;

	if (into <= 0 || length <= 0)
		return 0;
	for (unsigned int part = 0; part + 1 < AGE_PARTS; part++) {
		if (into < length / AGE_PARTS * (part + 1))
			return part;
	}
	return AGE_PARTS - 1;
}

void age_counts_add(struct age_counts *counts, const struct age_window *window, int64_t time,
		    unsigned int objects, uint64_t bytes)
{
	int64_t age = time < window->end ? window->end - time : 0;
	unsigned int band = AGE_BANDS - 1;

	while (age < age_band_from[band])
		band--;
	counts->bytes[band] += bytes;
	counts->born[part_of(window, time)] += objects;
	if (age > counts->oldest)
		counts->oldest = age;
	if (age < window->min_age) {
		counts->young_objects += objects;
		counts->young_bytes += bytes;
	}
}

void ages_add(struct ages *to, const struct age_counts *live, const struct lifetimes *freed,
	      double weight)
{
	for (int i = 0; i < AGE_BANDS; i++)
		to->bytes[i] += (double)live->bytes[i] * weight;
	for (int i = 0; i < AGE_PARTS; i++)
		to->born[i] += live->born[i];
	if (live->oldest > to->oldest)
		to->oldest = live->oldest;
	if (!freed->objects)
		return;
	to->freed += freed->objects;
	to->freed_objects += (double)freed->objects * weight;
	to->lifetime_sum += freed->sum * weight;
	for (int i = 0; i < LIFETIME_CLASSES; i++)
		to->by_class[i] += (double)freed->by_class[i] * weight;
	if (!to->first_freed || freed->first_freed < to->first_freed)
		to->first_freed = freed->first_freed;
}

uint64_t ages_live(const struct ages *ages)
{
	uint64_t sum = 0;

	for (int i = 0; i < AGE_PARTS; i++)
		sum += ages->born[i];
	return sum;
}

double ages_bytes(const struct ages *ages)
{
	return ages_older(ages, 0);
}

double ages_older(const struct ages *ages, unsigned int band)
{
	double sum = 0;

	for (; band < AGE_BANDS; band++)
		sum += ages->bytes[band];
	return sum;
}

double ages_mean_lifetime(const struct ages *ages)
{
	return ages->freed_objects > 0 ? ages->lifetime_sum / ages->freed_objects : 0;
}

double ages_median_lifetime(const struct ages *ages)
{
	double all = 0, before = 0, part = 0;
	int middle = -1;

	for (int i = 0; i < LIFETIME_CLASSES; i++)
		all += ages->by_class[i];
	for (int i = 0; i < LIFETIME_CLASSES && before + part < all / 2; i++) {
		if (!(ages->by_class[i] > 0))
			continue;
		before += part;
		part = ages->by_class[i];
		middle = i;
	}
	if (middle < 0)
		return 0;
	return exp2(FIRST_CLASS + CLASS_STEP * (middle - 1 + (all / 2 - before) / part));
}

enum ages_fate ages_fate(const struct ages *ages, const struct age_window *window, bool exact)
{
	if (window->end - window->start < WINDOW_MIN)
		return AGES_UNKNOWN;
	if (ages->first_freed && part_of(window, ages->first_freed) == 0)
		return AGES_FREED;
	if (!ages->born[AGE_PARTS - 1] || ages->born[0] < (exact ? 1 : AGE_EVIDENCE))
		return AGES_UNKNOWN;
	return AGES_KEPT;
}

bool ages_only_older(const struct ages *ages, const struct age_window *window, bool exact)
{
	return ages_fate(ages, window, exact) == AGES_KEPT;
}

bool ages_tell_live(const struct ages *ages, bool exact)
{
	return ages_bytes(ages) > 0 && (exact || ages_live(ages) >= AGE_SAMPLES);
}

bool ages_tell_freed(const struct ages *ages, bool exact)
{
	return ages->freed && (exact || ages->freed >= AGE_SAMPLES);
}
