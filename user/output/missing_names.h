/* Which files' debug information would tell most about a profile. */
#ifndef ALLOCTRACE_MISSING_NAMES_H
#define ALLOCTRACE_MISSING_NAMES_H

#include "profile/profile.h"

#include <stdio.h>

/*
 * One line for each of the few images without debug information in which a part worth telling of the
 * live bytes is allocated (where nothing is live: of the allocated bytes). `label` stands before
 * the first, in the summary's column. Needs the locations' lines. 0 or -ENOMEM.
 */
int missing_names_write(const struct profile *profile, const char *label, FILE *to);

#endif
