/*
 * One process of a host at a glance, and how much memory it has, cheaply: what its folder in /proc says.
 * A descriptor of that folder, or of a file in it, is the process's: when it has ended, reads say ESRCH,
 * even if its id is another's by then.
 */
#ifndef ALLOCTRACE_HOST_LOOK_H
#define ALLOCTRACE_HOST_LOOK_H

#include "target/host_filter.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum host_kind {
	HOST_KIND_PROCESS,
	HOST_KIND_KERNEL, /* a thread of the kernel */
	HOST_KIND_ZOMBIE, /* has ended; its parent has yet to take note */
};

struct host_look {
	enum host_kind kind;
	pid_t parent;
	uint64_t start_time;	   /* clock ticks since boot: with the pid the process's identity */
	char comm[HOST_COMM_SIZE]; /* may hold any bytes */
	uid_t user;		   /* effective */
	char *cgroups;		   /* owned; cgroup_read()'s text */
	int statm; /* owned; /proc/PID/statm, for host_read_memory(); of processes only, else -1 */
};

/*
 * 0: *out is filled, all of it about one process (only the kind, the parent and what follows up to the name
 * unless it is HOST_KIND_PROCESS). -ESRCH: it has ended; -errno (-EMFILE, -EACCES with hidepid, ...).
 */
int host_look(pid_t pid, struct host_look *out);
void host_look_deinit(struct host_look *look);

/*
 * Bytes, of statm (proc(5)). Kernels from 6.2 on count per CPU, and until 6.15 (and stable ones of that
 * time) statm leaves out what a CPU has not yet handed in, up to 32 pages on each, or twice as many pages
 * as there are CPUs where that is more: each number may be that far off, up or down, so growth shows late
 * on a large machine, by some MiB on one with 32 CPUs, by 100 MiB and more on one with 256. Later ones
 * add the CPUs up for each read, which takes longer the more there are; those before 6.2 keep up to 64
 * pages per thread.
 */
struct host_memory {
	uint64_t rss;	 /* resident */
	uint64_t shared; /* of it: pages of files, and shared memory */
};

/* Anonymous memory that is resident: what is swapped out is not in it. */
static inline uint64_t host_memory_anon(const struct host_memory *memory)
{
	return memory->rss > memory->shared ? memory->rss - memory->shared : 0;
}

/*
 * One system call. 0; -ECHILD: the thread of statm has no memory any more (the process has ended, or it
 * goes on without its first thread); -ESRCH: that thread is gone; -errno.
 */
int host_read_memory(int statm, struct host_memory *out);

/*
 * The statm of another thread, when host_read_memory() has said -ECHILD: one that still has memory.
 * A descriptor; -ESRCH: no thread has, the process has ended. `statm` proves whose threads they are.
 */
int host_find_thread(pid_t pid, int statm);

#endif
