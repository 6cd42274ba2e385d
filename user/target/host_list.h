/*
 * The processes that a host's census knows, those among them that have ended: for target/host.c and
 * target/host_events.c alone.
 */
#ifndef ALLOCTRACE_HOST_LIST_H
#define ALLOCTRACE_HOST_LIST_H

#include "target/host.h"

/*
 * Events are read before memory is, so a process may be known to have ended before all that it did is told.
 * The one that an event at `time` is about: one that has the id, or had it until a tick ago.
 */
struct host_process *host_list_find_at(const struct host *host, pid_t pid, int64_t time);

/* A new one, which is the host's. 0 or -ENOMEM. */
int host_list_add(struct host *host, pid_t pid, struct host_process **out);

/* It has another program: nothing of its memory is known. */
void host_list_start_over(struct host_process *process);

void host_list_close_files(struct host_process *process);

/* It has ended, and nothing was seen of it that anybody wants to know. */
void host_list_drop(struct host_process *process);

/* It has ended. otherwise: when, if nobody has told. */
void host_list_end(struct host_process *process, int64_t otherwise);

/*
 * Counts them, frees those that are gone, and keeps in the index no others than events may be about. To be
 * called once in each tick. 0 or -ENOMEM.
 */
int host_list_tidy(struct host *host);

void host_list_release(struct host_process *process);

#endif
