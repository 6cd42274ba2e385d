#include "output/ages_text.h"

#include "util/units.h"

#include <inttypes.h>

/* The mean is told too where so many times more than the median: some live much longer. */
#define MEAN_TIMES 4

static const char *const band_ends[AGE_BANDS] = {"1 s", "10 s", "1 min", "10 min", NULL};

static bool is_exact(const struct profile *profile)
{
	return profile->info.period <= 1;
}

static bool tells_live(const struct profile *profile, const struct ages *ages)
{
	return ages_tell_live(ages, is_exact(profile));
}

static bool tells_freed(const struct profile *profile, const struct ages *ages)
{
	return ages_tell_freed(ages, is_exact(profile));
}

bool ages_text_any(const struct profile *profile, const struct ages *ages)
{
	return profile->info.aged && (tells_live(profile, ages) || tells_freed(profile, ages));
}

bool ages_text_keeps(const struct profile *profile, const struct ages *ages)
{
	return profile->info.aged &&
	       ages_only_older(ages, &profile->info.window, is_exact(profile));
}

/* Down, so that 100 % are all. */
static int percent(double part, double whole)
{
	return part >= whole ? 100 : (int)(100 * part / whole);
}

/* "80 % older than 10 s, the oldest 58.0 s", of the oldest band that half of the bytes have reached. */
static void write_live(const struct ages *ages, FILE *to)
{
	double all = ages_bytes(ages);
	unsigned int band = AGE_BANDS - 1;
	char text[UNITS_TEXT_MAX];

	while (band && ages_older(ages, band) < all / 2)
		band--;
	if (band)
		fprintf(to, "%d %% older than %s", percent(ages_older(ages, band), all),
			band_ends[band - 1]);
	else
		fprintf(to, "%d %% younger than %s", percent(ages->bytes[0], all), band_ends[0]);
	fprintf(to, ", the oldest %s", units_format_duration(ages->oldest, text));
}

static void write_lifetimes(const struct ages *ages, FILE *to)
{
	double median = ages_median_lifetime(ages), mean = ages_mean_lifetime(ages);
	char text[UNITS_TEXT_MAX];

	/* Not below what the clock and the probes themselves take. */
	if (median < 10000)
		fputs("freed ones lived less than 0.01 ms (median)", to);
	else
		fprintf(to, "freed ones lived %s (median)",
			units_format_duration((int64_t)median, text));
	if (mean >= MEAN_TIMES * median && mean >= 10000)
		fprintf(to, ", %s (mean)", units_format_duration((int64_t)mean, text));
}

void ages_text_site(const struct profile *profile, const struct ages *ages, FILE *to)
{
	bool live = tells_live(profile, ages), freed = tells_freed(profile, ages);

	if (live)
		write_live(ages, to);
	if (live && !ages->freed)
		fputs(is_exact(profile) ? "; none was freed" : "; no sample of it was freed", to);
	if (live && freed)
		fputs("; ", to);
	if (freed)
		write_lifetimes(ages, to);
	if (ages->freed && ages_text_keeps(profile, ages))
		fputs(", none from the first third of the window", to);
}

void ages_text_bands(const struct ages *ages, FILE *to)
{
	double all = ages_bytes(ages);
	const char *separator = "";

	for (unsigned int band = 0; band < AGE_BANDS; band++) {
		if (!(ages->bytes[band] > 0))
			continue;
		fprintf(to, "%s%.0f %% ", separator, 100 * ages->bytes[band] / all);
		if (!band)
			fprintf(to, "up to %s", band_ends[band]);
		else if (band_ends[band])
			fprintf(to, "%s to %s", band_ends[band - 1], band_ends[band]);
		else
			fprintf(to, "older than %s", band_ends[band - 1]);
		separator = ", ";
	}
}

void ages_text_clause(const struct profile *profile, const struct ages *ages, FILE *to)
{
	if (is_exact(profile))
		fprintf(to, ", of which nothing from the first third of the window has been freed");
	else
		fprintf(to,
			", of which none of %" PRIu64
			" samples from the first third of the window has been freed",
			ages->born[0]);
}
