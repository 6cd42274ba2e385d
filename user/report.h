/* From a finished recording to profiles, files and the summary. */
#ifndef ALLOCTRACE_REPORT_H
#define ALLOCTRACE_REPORT_H

#include "record.h"

/*
 * Before the recording: finds each target's output path and sees that it can be written. An exit
 * code; what is wrong has been said.
 */
int report_prepare(struct recording *recording);

/*
 * While the recording runs: writes what is known of one target by now as a profile of that number,
 * without a summary. As report_target().
 */
int report_interval(struct recording *recording, struct target_record *target, unsigned int number);

/*
 * Reads one target back, writes its profile and prints its summary. An exit code. What can be
 * written is, whatever else fails.
 */
int report_target(struct recording *recording, struct target_record *target);

#endif
