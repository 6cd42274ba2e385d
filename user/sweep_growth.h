/* The files with the page growth of a sweep's processes. */
#ifndef ALLOCTRACE_SWEEP_GROWTH_H
#define ALLOCTRACE_SWEEP_GROWTH_H

#include "sweep_result.h"

/*
 * Writes what a process has grown by until now, from its page faults; nothing where nothing is known of
 * it, or it has ended. number: of a numbered profile; 0: it is the one at the end. *site is the first site,
 * *path the file, NULL where there is none: both are the caller's then. An exit code; what is wrong has
 * been said.
 */
int sweep_growth_write(struct sweep *sweep, const struct host_process *process, unsigned int number,
		       struct sweep_site *site, char **path);

#endif
