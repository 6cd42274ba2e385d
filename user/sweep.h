/*
 * A sweep of the host: watches all processes at little cost, puts probes into those that grow, and tells
 * in the end which grew, how, and where.
 */
#ifndef ALLOCTRACE_SWEEP_H
#define ALLOCTRACE_SWEEP_H

#include "cli.h"

/*
 * Grown is what has so much more, or this share of what it had at first and VERDICT_LEAST_BYTES;
 * --min-growth takes the place of both.
 */
#define SWEEP_MIN_BYTES (1024 * 1024)
#define SWEEP_MIN_SHARE 0.01

/* --top-processes */
#define SWEEP_TOP     10
#define SWEEP_TOP_MAX 64

/* Of all that were zoomed on, to --top-processes: others may outgrow those, which keep their probes. */
#define SWEEP_ZOOMS_PER_TOP 4

/* Runs all of it. An exit code; everything there is to say has been said. */
int sweep_run(const struct settings *settings);

#endif
