/*
 * --heap-all: a sweep in which every process that is watched is a target, from the start of the window or
 * from when it has lived for a while, whether it grows or not. Its probes are in files, not in processes
 * (tracer_attach(), options.shared): all that map one carry its breakpoints, and the kernel side passes by
 * who is no target. So what could harm any process that may run on this machine is refused or left out,
 * not what could harm one that is looked at.
 */
#ifndef ALLOCTRACE_HEAP_ALL_H
#define ALLOCTRACE_HEAP_ALL_H

#include "session.h"
#include "sweep_result.h"

/* An exit code; where it is not EXIT_OK, why this machine must not have such probes has been said. */
int heap_all_refuse(const struct settings *settings);

/*
 * Room in the kernel and here: slots, which are not used again, so as many processes as there are in a
 * window, those that have ended among them. Each target also takes a file descriptor for each file that
 * it maps: raises the limit of these as far as it goes.
 */
void heap_all_make_room(struct session_room *room);

/*
 * Makes targets of those that are not yet and have been read so many times, up to a number of them that a
 * tick has time for. *more, if not NULL: there are others. 0 or -ENOMEM.
 */
int heap_all_join(struct sweep *sweep, unsigned int readings, bool *more);

/* Memory and CPU time of some targets, in turn. */
void heap_all_read_usage(struct sweep *sweep);

/* Why a process has no probes, of which nothing else is known. */
const char *heap_all_reason(const struct sweep *sweep);

/*
 * At the end. A profile takes its time: those that the table shows have one, and those that have grown, as
 * many as without this mode. rank: of its row; grown: has it?
 */
bool heap_all_gets_profile(struct sweep *sweep, size_t rank, bool grown);

#endif
