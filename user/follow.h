/*
 * The processes that targets start, and what those start (--follow): each becomes a target of its own
 * while it runs. It is never stopped for that, so what it does before the probes are in is not seen.
 */
#ifndef ALLOCTRACE_FOLLOW_H
#define ALLOCTRACE_FOLLOW_H

#include "record.h"

/* From now on what the target starts is followed. 0 or -errno. */
int follow_begin(struct recording *recording, const struct target_record *target);

/*
 * Takes up some of those that have been started; `targets` may move. False: there are no more for
 * now.
 */
bool follow_some(struct recording *recording);

/* The recording has ended: those that were not taken up yet are counted. */
void follow_end(struct recording *recording);

/*
 * "12 processes started: 9 traced, 3 ended too soon": what became of all that a given target and its
 * descendants have started. *text is the caller's to free; NULL where they have started none. 0 or
 * -ENOMEM.
 */
int follow_describe(const struct target_record *target, char **text);

#endif
