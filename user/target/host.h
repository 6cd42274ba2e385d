/*
 * Every process of the host, watched at little cost: who they are, how much memory each has from tick to
 * tick, which of them grow. A reading is one system call on a descriptor that is held open, and so cannot
 * be of another process that has come to have the same id.
 *
 * Processes start, execute programs and end as target/watch.h tells; what it loses is made up for by
 * reading /proc again. The order is: watch_open(), host_open(), then at each tick watch_read(),
 * host_event() for all of the events, host_read(). Each process takes a file descriptor: raise
 * RLIMIT_NOFILE. A reading takes half a microsecond, some five where a second has emptied the caches; a
 * process takes 0.8 KiB, and 2.5 KiB once it has been read 128 times.
 */
#ifndef ALLOCTRACE_HOST_H
#define ALLOCTRACE_HOST_H

#include "profile/verdict.h"
#include "target/host_filter.h"
#include "target/host_look.h"
#include "target/memory.h"
#include "target/watch.h"
#include "util/hash_index.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Readings kept of a process; and processes that have ended: more of them, and those that grew least are forgotten. */
#define HOST_READINGS  128
#define HOST_ENDED_MAX 4096
/* Names of short-lived processes that are told apart, and bytes kept of the path of a group. */
#define HOST_SHORT_MAX	1024
#define HOST_CGROUP_MAX 1024

enum host_state {
	HOST_NEW, /* forked since the last tick: to be looked at in the next one */
	HOST_WATCHED,
	HOST_LEFT_OUT, /* by the filter, as ourselves, or because it could not be looked at */
	HOST_ENDED,    /* was watched */
};

struct host_process {
	pid_t pid;
	uint64_t start_time; /* clock ticks since boot; the process is pid and start_time */
	pid_t parent;	     /* when it was last looked at */
	enum host_state state;
	char comm[HOST_COMM_SIZE]; /* any bytes: escape it */
	char parent_comm
		[HOST_COMM_SIZE]; /* its parent's when it was forked; "": before we looked */
	char *cgroup;		  /* owned; cgroup_best_path(); "" where there is none; escape it */
	uid_t user;		  /* effective */
	int64_t seen_at;	  /* ns of CLOCK_MONOTONIC: looked at first; */
	int64_t forked_at;	  /* forked in the window, or 0; */
	int64_t executed_at;	  /* its last exec in the window, or 0; */
	int64_t ended_at;	  /* when we learned of it where no event told it */
	unsigned int executions;  /* since it was first seen */
	unsigned int children;	  /* forked since then */
	/*
	 * Of the program that it runs: an exec lets go of all memory, and starts these over with the next
	 * reading. What it has after a fork is its parent's as well, until one of them writes to it.
	 */
	bool read; /* is there any reading? */
	struct host_memory first, latest;
	uint64_t highest;	  /* anonymous */
	struct readings readings; /* of the anonymous memory */
	/* The caller's: */
	bool noted; /* noted_memory is something; of the program that it runs, so an exec undoes it */
	struct memory noted_memory;
	uint32_t zoom;	   /* its choice: an index, plus 1; 0: none */
	unsigned int kept; /* while not 0, it is not freed, whatever becomes of it */
	bool renew; /* its name, user and group, which may change, are read anew in the next tick */
	/* The host's: */
	int statm;	 /* owned; its identity, see host_look.h */
	int thread;	 /* owned; statm of a thread, once its first one has ended before it; -1 */
	int64_t exit_at; /* an event said that its first thread ends */
	bool in_scope;	 /* the filter takes its user and group, or those of its parent */
	bool failed, gone;
	unsigned int ended_ticks; /* so many since it ended, at most as many as count */
};

/* Forked and ended within a tick: too short to be looked at. */
struct host_short_lived {
	char parent[HOST_COMM_SIZE]; /* "": unknown */
	char comm[HOST_COMM_SIZE];   /* the program that it executed last, or its parent's name */
	uint64_t count;
};

struct host {
	struct host_filter filter; /* owned */
	struct {
		struct host_process **items; /* owned */
		size_t count, capacity;
	} processes;
	struct hash_index by_pid; /* of those that have not ended */
	struct {
		struct host_short_lived *items; /* owned */
		size_t count, capacity;
	} short_lived;
	struct hash_index by_names;
	uint64_t short_lived_total,
		short_lived_unnamed; /* of it those that items has no room for */
	size_t watched, left_out;
	size_t failed; /* of those left out: could not be looked at; tried again now and then */
	int failure;   /* -errno of the last one */
	size_t kernel_threads, zombies; /* not among the processes; when /proc was last read */
	uint64_t forgotten;		/* have ended, and are not among the processes any more */
	bool rescan;			/* /proc is read again in the next tick */
	unsigned int ticks;
	pid_t kernel_parent; /* of threads of the kernel; 0: not seen */
	bool ignores_own;    /* the caller's: its own children are not counted as short-lived */
};

/*
 * Looks at all processes and reads their memory a first time. The filter is taken over, and emptied.
 * 0, -ENOMEM, or -errno of opening /proc.
 */
int host_open(struct host_filter *filter, struct host **out);
void host_free(struct host *host);

/*
 * Something has happened. Where no watch can be opened, a WATCH_LOST before each tick takes its place, at
 * the cost of reading /proc each time. 0 or -ENOMEM.
 */
int host_event(struct host *host, const struct watch_event *event);

/*
 * One tick: a reading of all, at `now` (ns of CLOCK_MONOTONIC). Processes that have ended may be freed,
 * unless they are `kept`. 0 or -ENOMEM; what goes wrong with one process concerns that one alone.
 */
int host_read(struct host *host, int64_t now);

/* The one that has the id now, as far as is known: of any state but HOST_ENDED; NULL. */
struct host_process *host_find(const struct host *host, pid_t pid);

/* Bytes of anonymous memory since the first reading. */
static inline int64_t host_growth(const struct host_process *process)
{
	return (int64_t)host_memory_anon(&process->latest) -
	       (int64_t)host_memory_anon(&process->first);
}

/*
 * Grown is what has `bytes` more than at first, or `share` of that (0.01: 1 %) and VERDICT_LEAST_BYTES,
 * below which nothing is growth. A share of 0 counts for nothing.
 */
struct host_grown {
	uint64_t bytes;
	double share;
	bool ended; /* those too that have ended */
};

/*
 * The first `room` of those that have grown, the largest growth first, into found[]. Their number. They
 * are valid until the next host_read(), or as long as they are `kept`.
 */
size_t host_growers(const struct host *host, const struct host_grown *grown,
		    struct host_process **found, size_t room);

/*
 * Its memory in detail (target/memory.h), which takes some ten times as long as a reading. 0; -ESRCH: it
 * has ended, or has no memory; -errno.
 */
int host_read_detail(const struct host_process *process, struct memory *out);

/* Its share of what it has in memory (memory_read_share()), which takes longer the more it has. As above. */
int host_read_share(const struct host_process *process, struct memory_share *out);

#endif
