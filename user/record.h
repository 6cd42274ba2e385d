/*
 * One recording, from attaching to the files that are left: the order of things, and what is said
 * when something goes wrong.
 */
#ifndef ALLOCTRACE_RECORD_H
#define ALLOCTRACE_RECORD_H

#include "cli.h"
#include "intervals.h"
#include "target/process.h"
#include "tracer/tracer.h"

#include <stdbool.h>
#include <stdint.h>

/* An image of a target that has an allocator, with probes in it. */
struct probed_image {
	const struct image *image;     /* borrowed from the process */
	struct allocator *allocator;   /* owned; NULL: looked at, has none */
	int search_error;	       /* -errno: it could not be looked at */
	struct allocator *unwinder;    /* owned; NULL: it does not unwind for exceptions */
	enum tracer_throwing throwing; /* what is done about its functions that may throw */
	bool guarded;		       /* unwinder has its guard */
};

/* What becomes of a process that a target starts (--follow). */
enum follow_outcome {
	FOLLOW_TRACED,
	FOLLOW_ENDED,	     /* before it could be attached to */
	FOLLOW_NO_ALLOCATOR, /* to its end */
	FOLLOW_NO_ROOM,	     /* there are MAX_TARGETS */
	FOLLOW_LATE,	     /* the recording ended before it could be attached to */
	FOLLOW_REFUSED,	     /* probes would harm it */
	FOLLOW_FAILED,
	FOLLOW_MISSED, /* the kernel side had no room to tell of it */
	FOLLOW_OUTCOMES,
};

/* One process of a recording. */
struct target_record {
	struct process *process; /* owned */
	uint32_t slot;
	char *output; /* owned; where its profile goes */
	struct {
		struct probed_image *items; /* every image that was looked at */
		size_t count, capacity;
	} images;
	/* It was not given, but started by a target, or by one that such a target has started. */
	bool followed;
	pid_t parent;	   /* if followed: who started it, */
	int64_t forked_at; /* when (ns, CLOCK_MONOTONIC), */
	uint32_t root;	   /* and the index of the target that was given */
	/* If given, and there is --follow: of all that it and its descendants have started. */
	unsigned int outcomes[FOLLOW_OUTCOMES];
	int64_t opened_at; /* ns, CLOCK_MONOTONIC: what is older is in `process` already */
	int64_t started;   /* ns, CLOCK_MONOTONIC: since when it is recorded; 0: not yet */
	int64_t started_realtime;
	int64_t begun;	      /* since when its figures are: started, or its last exec since then */
	int64_t ended_at;     /* when that was noticed; 0: still running when the recording ended */
	int64_t id_reused_at; /* another process has got its id; 0: none */
	unsigned int children, executions;
	struct profile_memory memory_start, memory_end;
	struct readings readings;   /* of its anonymous memory, with what is swapped out */
	int64_t cpu_start, cpu_end; /* ns of CPU time that it had used; -1: not known */
	uint64_t calls, frees; /* seen between the recording's start and its end, not while probes
				  came and went */
};

struct recording {
	const struct settings *settings; /* borrowed */
	struct tracer *tracer;		 /* owned */
	struct {
		struct target_record *items;
		size_t count, capacity;
	} targets;
	const struct image *loader; /* of the command, borrowed from its process; NULL: static */
	int64_t started, ended;	    /* ns, CLOCK_MONOTONIC */
	const char *end_reason;
	struct intervals intervals;
	uint64_t checksum_bytes; /* that may be read in the search for allocators' symbols */
	struct names *names;	 /* owned; of all targets' images; made when it is needed */
};

/* Runs all of it. An exit code; everything there is to say has been said. */
int record_run(const struct settings *settings);

#endif
