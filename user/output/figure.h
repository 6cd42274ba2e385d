/*
 * A figure as it is printed: the value, and the 95 % interval in parentheses if it is an estimate.
 * "112 MiB (104-121)", "14,336 (13,300-15,500)", "112 MiB".
 */
#ifndef ALLOCTRACE_FIGURE_H
#define ALLOCTRACE_FIGURE_H

#include "profile/ledger.h"
#include "profile/profile.h"

#define FIGURE_TEXT_MAX 128

/*
 * One of the four figures of a site or of the whole profile: values and sums are those of the site
 * or the profile. Of what was recorded without loss at a period of 1, just the value.
 */
const char *figure_format(const struct profile *profile, const struct estimate *values,
			  const int64_t *sums, enum profile_value which,
			  char text[FIGURE_TEXT_MAX]);

/* The profile's total of one figure, per second: "118 MiB/s (113-123)", "12,104 objects/s
 * (11,800-12,500)". */
const char *figure_format_rate(const struct profile *profile, enum profile_value which,
			       double seconds, char text[FIGURE_TEXT_MAX]);

/* A figure of the ledger, with its interval under the same condition. */
const char *figure_format_ledger(const struct profile *profile, const struct ledger_figure *figure,
				 char text[FIGURE_TEXT_MAX]);

#endif
