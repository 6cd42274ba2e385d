#include "output/figure.h"

#include "util/units.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_bytes(enum profile_value which)
{
	return which == PROFILE_ALLOC_SPACE || which == PROFILE_INUSE_SPACE;
}

/* Three digits say what an interval's end is good for. Rounded outwards, so that it covers no less.
 */
static int64_t round_outwards(double value, bool up)
{
	double unit = 1;

	while (value / unit >= 1000)
		unit *= 10;
	value = (up ? ceil(value / unit) : floor(value / unit)) * unit;
	return value >= 0x1p63 ? INT64_MAX : (int64_t)value;
}

/* Takes the unit off "104 MiB" if all three have the same, or off the lower end if the two ends
 * have. */
static void drop_units(const char *value, char *low, char *high)
{
	char *low_unit = strchr(low, ' '), *high_unit = strchr(high, ' ');
	const char *unit = strchr(value, ' ');

	if (!low_unit || !high_unit || !unit)
		return;
	if (!strcmp(low, "0 B"))
		*low_unit = '\0';
	else if (strcmp(low_unit, high_unit))
		return;
	if (!strcmp(high_unit, unit))
		*high_unit = '\0';
	*low_unit = '\0';
}

static void format_bytes(double value, double low, double high, bool estimated, const char *per,
			 char text[FIGURE_TEXT_MAX])
{
	char v[UNITS_TEXT_MAX], l[UNITS_TEXT_MAX], h[UNITS_TEXT_MAX];

	units_format_size(value, v);
	if (!estimated) {
		snprintf(text, FIGURE_TEXT_MAX, "%s%s", v, per);
		return;
	}
	units_format_size(low, l);
	units_format_size(high, h);
	drop_units(v, l, h);
	snprintf(text, FIGURE_TEXT_MAX, "%s%s (%s-%s)", v, per, l, h);
}

static void format_objects(double value, double low, double high, bool estimated, const char *per,
			   char text[FIGURE_TEXT_MAX])
{
	char v[UNITS_TEXT_MAX], l[UNITS_TEXT_MAX], h[UNITS_TEXT_MAX];

	units_format_count(value >= 0x1p63 ? INT64_MAX : llround(value), v);
	if (!estimated) {
		snprintf(text, FIGURE_TEXT_MAX, "%s%s", v, per);
		return;
	}
	units_format_count(round_outwards(low, false), l);
	units_format_count(round_outwards(high, true), h);
	snprintf(text, FIGURE_TEXT_MAX, "%s%s (%s-%s)", v, per, l, h);
}

/* sum: the value that is printed. Everything is divided by `by`. */
static const char *format(const struct profile *profile, const struct estimate *values, double sum,
			  enum profile_value which, double by, const char *per,
			  char text[FIGURE_TEXT_MAX])
{
	static const enum profile_value wholes[PROFILE_VALUES] = {
		[PROFILE_ALLOC_OBJECTS] = PROFILE_ALLOC_OBJECTS,
		[PROFILE_ALLOC_SPACE] = PROFILE_ALLOC_SPACE,
		[PROFILE_INUSE_OBJECTS] = PROFILE_ALLOC_OBJECTS,
		[PROFILE_INUSE_SPACE] = PROFILE_ALLOC_SPACE,
	};
	bool estimated = profile->info.period > 1;
	double low, high;

	estimate_interval(&values[which], &low, &high);
	if (!(values[which].value > 0))
		high = estimate_upper_of_none(&values[PROFILE_ALLOC_OBJECTS],
					      &values[wholes[which]]);
	if (!is_bytes(which) && *per)
		per = " objects/s";
	(is_bytes(which) ? format_bytes : format_objects)(sum / by, low / by, high / by, estimated,
							  per, text);
	return text;
}

const char *figure_format(const struct profile *profile, const struct estimate *values,
			  const int64_t *sums, enum profile_value which, char text[FIGURE_TEXT_MAX])
{
	return format(profile, values, (double)sums[which], which, 1, "", text);
}

const char *figure_format_rate(const struct profile *profile, enum profile_value which,
			       double seconds, char text[FIGURE_TEXT_MAX])
{
	return format(profile, profile->total, (double)profile->total_values[which], which, seconds,
		      "/s", text);
}

const char *figure_format_ledger(const struct profile *profile, const struct ledger_figure *figure,
				 char text[FIGURE_TEXT_MAX])
{
	format_bytes((double)figure->value, (double)figure->low, (double)figure->high,
		     profile->info.period > 1, "", text);
	return text;
}
