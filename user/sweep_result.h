/*
 * What a sweep knows while it runs, and its result in the end: rows, and the profiles of those that were
 * zoomed on.
 */
#ifndef ALLOCTRACE_SWEEP_RESULT_H
#define ALLOCTRACE_SWEEP_RESULT_H

#include "record.h"
#include "sweep_pages.h"
#include "sweep_totals.h"
#include "output/sweep.h"
#include "target/host.h"

#include <sys/utsname.h>

/* A process that was chosen. */
struct sweep_zoom {
	struct host_process *process; /* the host's; kept */
	uint32_t slot;		      /* of its target, if there is no reason against */
	int64_t at;		      /* ns, CLOCK_MONOTONIC */
	const char *reason;	      /* why it has no probes; static; NULL: it has */
};

/* A numbered profile of an interval. */
struct sweep_part {
	struct host_process *process; /* the host's; kept */
	bool heap;		      /* else it is of its growth */
};

struct sweep {
	const struct settings *settings;
	struct recording recording; /* of those that were zoomed on */
	struct host *host;	    /* owned */
	struct sweep_pages *pages;  /* owned; NULL: page faults cannot be sampled */
	struct {
		struct sweep_zoom *items; /* owned */
		size_t count, capacity;
	} zooms;
	unsigned int slots; /* that may be used */
	/* Of --heap-all: */
	bool files_full;       /* there are no descriptors for one more */
	size_t next_usage;     /* the target whose memory is read next */
	unsigned int profiles; /* written of what has grown, and is not in the table */
	struct sweep_totals totals;
	int64_t started_realtime;
	struct utsname system;
	struct {
		struct sweep_part *items; /* owned; of the interval at hand; empty: there is none */
		size_t count, capacity;
	} parts;
	size_t next_part;	 /* to be written */
	struct settings offline; /* the settings without downloads; its pointers are borrowed */
	unsigned int missed;	 /* seconds without a reading */
	unsigned int lines;	 /* of the table that stands on the terminal */
};

/* The choice of a process, NULL: it has not been chosen. */
struct sweep_zoom *sweep_find_zoom(const struct sweep *sweep, const struct host_process *process);

/* Is there room for one more with probes? */
bool sweep_has_slot(const struct sweep *sweep);

/* Makes a target of a process, or notes why it cannot be one. 0 or -ENOMEM. */
int sweep_zoom_on(struct sweep *sweep, struct host_process *process);

/* From when on a process has grown. */
struct host_grown sweep_grown(const struct settings *settings, bool ended);

/* Is more to be told of a process than its line, and its heap with --heap-all? */
bool sweep_tells_of(const struct sweep *sweep, const struct host_process *process);

/* Notes what a process has of files and of shared memory: of each once, right after its first reading. */
void sweep_note_kinds(struct sweep *sweep);

/*
 * Those that have grown most by now, with figures of their heaps but without names, for a look while it runs.
 * 0 or -ENOMEM.
 */
int sweep_result_peek(struct sweep *sweep, struct sweep_result *result);

/*
 * All of it, at the end: each profile is written. To be deinitialized whatever comes back, an exit code.
 */
int sweep_result_fill(struct sweep *sweep, struct sweep_result *result);

#endif
