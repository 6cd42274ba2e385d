/*
 * What is live of each target of a sweep, and what it has allocated: sums by one look at all counts, without a
 * profile and without names.
 */
#ifndef ALLOCTRACE_SWEEP_TOTALS_H
#define ALLOCTRACE_SWEEP_TOTALS_H

#include "tracer/tracer.h"

struct sweep;
struct sweep_row;
struct target_record;

struct sweep_totals {
	struct tracer_total *by_slot; /* owned; NULL: not read yet */
	int64_t read_at, due;	      /* ns, CLOCK_MONOTONIC */
};

void sweep_totals_deinit(struct sweep_totals *totals);

/*
 * Reads them, once after the end of the recording. While it runs not at every call: looking takes a hundredth
 * of the time at most, and until then what was seen last stands. 0 or -errno.
 */
int sweep_totals_read(struct sweep *sweep);

/* The figures of a target's heap, as they were read last; nothing before that. */
void sweep_totals_add(const struct sweep *sweep, const struct target_record *target,
		      struct sweep_row *row);

#endif
