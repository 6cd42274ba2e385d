/* What a target's stacks and direct mappings have of its resident memory. */
#ifndef ALLOCTRACE_DIRECT_H
#define ALLOCTRACE_DIRECT_H

#include "record.h"

/*
 * Direct mappings that are looked at: more than that many parts are not measured. A process has 65530 mappings
 * by default, but each may be of several calls.
 */
#define DIRECT_PARTS_MAX (256 * 1024)

/*
 * Reads both in one go, so that no page is in both, into `memory`. Of direct mappings the sampled ones are
 * looked at, and each stands for as many as its size says. What cannot be read stays as it was.
 */
void direct_measure(const struct recording *recording, const struct target_record *target,
		    struct profile_memory *memory);

#endif
