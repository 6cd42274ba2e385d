/* Counters of a profile, in words. */
#ifndef ALLOCTRACE_OUTPUT_COUNTERS_TEXT_H
#define ALLOCTRACE_OUTPUT_COUNTERS_TEXT_H

#include "profile/profile.h"

/*
 * "live map full: 12; stack map full: 3": the counters of one kind that are not 0. NULL where there is none;
 * the caller frees it. 0 or -ENOMEM.
 */
int counters_format(const struct profile *profile, enum profile_counter_kind kind, char **text);

#endif
