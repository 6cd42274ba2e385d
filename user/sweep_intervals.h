/*
 * Numbered profiles while a sweep runs (--interval): of the heap of each process that has probes, and of
 * the growth of each of which that is told at the end. They are written one at a time, between which the
 * sweep goes on reading. The number is that of the interval, so who is found later begins with a later one.
 */
#ifndef ALLOCTRACE_SWEEP_INTERVALS_H
#define ALLOCTRACE_SWEEP_INTERVALS_H

#include "sweep_result.h"

/* When sweep_intervals_go_on() has something to do: ns, CLOCK_MONOTONIC. */
int64_t sweep_intervals_next(const struct sweep *sweep);

/*
 * Begins with the next interval, if it is due, or writes one more profile of the one at hand. What has
 * happened to the processes is to be known. 0 or -ENOMEM; what cannot be written has been said.
 */
int sweep_intervals_go_on(struct sweep *sweep);

/* The sweep is over: an interval that is not all written is one that was missed. Tells how it went. */
void sweep_intervals_finish(struct sweep *sweep);

#endif
