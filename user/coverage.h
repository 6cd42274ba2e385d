/*
 * The coverage report: which allocators were found in a target, where and how; which of their
 * functions are probed at which instruction, and which are not, and why.
 */
#ifndef ALLOCTRACE_COVERAGE_H
#define ALLOCTRACE_COVERAGE_H

#include "profile/profile.h"
#include "record.h"

/* Adds what is to be said of a target to its profile. 0 or -ENOMEM. */
int coverage_report(const struct recording *recording, const struct target_record *target,
		    struct profile *profile);

#endif
