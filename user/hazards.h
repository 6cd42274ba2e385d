/*
 * What a target may come to harm by, or its figures may mislead by: looked for before the first probe
 * goes in, and told with the figures.
 */
#ifndef ALLOCTRACE_HAZARDS_H
#define ALLOCTRACE_HAZARDS_H

#include "profile/profile.h"
#include "record.h"

/* An exit code; where it is not EXIT_OK, why the target must not be probed has been said. */
int hazards_refuse(const struct target_record *target);

/* There is no function to be probed in a target: says why. */
void hazards_say_nothing_to_probe(const struct target_record *target);

/* Adds what there is to warn of. 0 or -ENOMEM. */
int hazards_warn(const struct target_record *target, struct profile *profile);

#endif
