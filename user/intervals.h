/*
 * Numbered profiles while a recording runs (--interval): when they are due, and what became of them. It
 * goes by the plan, however long writing takes; what was missed meanwhile is left out, and counted.
 */
#ifndef ALLOCTRACE_INTERVALS_H
#define ALLOCTRACE_INTERVALS_H

#include <stdint.h>

struct intervals {
	int64_t every;	     /* ns; 0: there are none */
	int64_t next;	     /* ns, CLOCK_MONOTONIC: when one is due; INT64_MAX: never */
	unsigned int number; /* of the one at hand, or the last one: 1, 2, ... */
	unsigned int missed; /* that have no number: the one before took too long */
	int64_t begun;	     /* the one at hand */
	int64_t longest;     /* ns that one profile took to write */
	int code;	     /* exit code: how writing went; what was wrong has been said */
};

struct recording;
struct target_record;

/* The first is due `every` after `from`. */
void intervals_plan(struct intervals *intervals, int64_t every, int64_t from);

/* The next one begins, which is due. With --min-age it takes a pass over all live blocks. */
void intervals_begin(struct recording *recording);

/* Writes the profile of a target, if it runs and has an allocator. */
void intervals_write(struct recording *recording, struct target_record *target);

/* A profile that was begun at a time (ns, CLOCK_MONOTONIC) is written, or could not be: an exit code. */
void intervals_note(struct intervals *intervals, int64_t begun, int code);

/* All of its profiles are written. */
void intervals_end(struct intervals *intervals);

#endif
