/* What became of a process's memory in the window: the account of its RSS, and how it grew. */
#ifndef ALLOCTRACE_GROWTH_H
#define ALLOCTRACE_GROWTH_H

#include "profile/profile.h"

#include <stdio.h>

/* Was its memory read at both ends? */
bool growth_has_account(const struct profile *profile);

/*
 * The RSS at the end as a sum: what there was before, and each kind of change, measured on its own; what
 * remains is called not explained, so the terms add up. Without an end of line, if growth_has_account().
 */
void growth_write_account(const struct profile *profile, FILE *to);

/* How it went, in words; of a window that was too short, that it was. */
void growth_write_shape(const struct verdict *verdict, FILE *to);

/* A site is evidence if it has so much of what is live, or new. */
#define GROWTH_SITE_SHARE 0.2

/*
 * The evidence for that from a profile, which may have been begun later: where most of what is live
 * comes from, or that the growth is outside the heap, or how much was allocated meanwhile. Begins with
 * a sign, "; ...", and ends without an end of line; may be nothing. hint: behind an amount in direct
 * mappings, what tells more of them. True: it has named a site.
 */
bool growth_write_evidence(const struct profile *profile, const struct verdict *verdict,
			   const char *hint, FILE *to);

#endif
