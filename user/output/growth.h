/* What became of a process's memory in the window: the account of its RSS, and how it grew. */
#ifndef ALLOCTRACE_GROWTH_H
#define ALLOCTRACE_GROWTH_H

#include "profile/profile.h"

#include <stdio.h>

/* Was its memory read at both ends, and often enough to say how it grew? */
bool growth_has_account(const struct profile *profile);
bool growth_is_judged(const struct profile *profile);

/*
 * The RSS at the end as a sum: what there was before, and each kind of change, measured on its own; what
 * remains is called not explained, so the terms add up. One line, if growth_has_account().
 */
void growth_write_account(const struct profile *profile, FILE *to);

/*
 * How anonymous memory (with what of it is swapped out) grew, with the evidence. One line, if
 * growth_is_judged().
 */
void growth_write_verdict(const struct profile *profile, FILE *to);

#endif
