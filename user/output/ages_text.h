/*
 * Ages in words, of a site or of all: how old what is live is, how long what was freed had lived, and
 * whether a site only gets older. A window cannot tell more than that.
 */
#ifndef ALLOCTRACE_AGES_TEXT_H
#define ALLOCTRACE_AGES_TEXT_H

#include "profile/profile.h"

#include <stdbool.h>
#include <stdio.h>

/* Is there something to say of these? Of a few samples there is not. */
bool ages_text_any(const struct profile *profile, const struct ages *ages);

/*
 * "80 % older than 10 s, the oldest 58.0 s; freed ones lived 1.20 ms (median)", if there is
 * something to say.
 */
void ages_text_site(const struct profile *profile, const struct ages *ages, FILE *to);

/* "12 % up to 1 s, 8 % to 10 s, 80 % to 1 min": live bytes by age. */
void ages_text_bands(const struct ages *ages, FILE *to);

/* Does it only get older? And a relative clause that says so: ", of which ...". */
bool ages_text_keeps(const struct profile *profile, const struct ages *ages);
void ages_text_clause(const struct profile *profile, const struct ages *ages, FILE *to);

#endif
