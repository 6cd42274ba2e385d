/*
 * What happens to the processes of a host while they are traced: executable mappings, exec, fork,
 * exit. The kernel's perf records tell it, one ring buffer per CPU: mappings are thus known even of a
 * process that is gone before anybody could read its /proc.
 */
#ifndef ALLOCTRACE_WATCH_H
#define ALLOCTRACE_WATCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum watch_type {
	WATCH_MAPPED, /* an executable mapping was made */
	WATCH_EXEC,   /* the process executes another program */
	WATCH_FORK,   /* the process made another */
	/*
	 * The thread that has the process's id ends. The process does too as a rule, but others of its
	 * threads may run on, and one that executes a program takes over the id.
	 */
	WATCH_EXIT,
	WATCH_LOST, /* records were lost: read /proc again */
};

struct watch_event {
	enum watch_type type;
	int64_t time; /* ns of CLOCK_MONOTONIC; orders events of different CPUs */
	pid_t pid;
	pid_t child;			/* WATCH_FORK */
	uint64_t start, length, offset; /* WATCH_MAPPED */
	dev_t dev;
	ino_t inode;
	/* WATCH_MAPPED; WATCH_EXEC: the program's name, cut to 15 bytes. The watch's, until the next
	 * watch_read(). */
	char *path;
};

struct watch;

/* 0, -EACCES or -EPERM (not permitted), -ENOENT/-EOPNOTSUPP (no perf events), -ENOMEM. */
int watch_open(struct watch **out);
void watch_free(struct watch *watch);

/* Readable when there is much to read; a little may wait, so call watch_read() from time to time.
 */
int watch_fd(const struct watch *watch);

/*
 * All events up to this call that were not returned before, in order of time, which goes on from one
 * call to the next: *events is valid until then. 0 or -ENOMEM.
 */
int watch_read(struct watch *watch, const struct watch_event **events, size_t *count);

#endif
