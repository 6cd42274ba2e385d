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
 * The same where it is not known yet which processes there will be: can each have a file of its own,
 * and can one be written?
 */
int report_prepare_many(const struct settings *settings);

/*
 * While the recording runs: writes what is known of one target by now as a profile of that number,
 * without a summary. As report_target().
 */
int report_interval(struct recording *recording, struct target_record *target, unsigned int number);

/*
 * Before report_target() of each, and before report_interval() if there is a --min-age: reads how old
 * everything is that is live, of all targets. An exit code.
 */
int report_read_ages(struct recording *recording);

/*
 * Reads one target back, writes its profile and prints its summary. An exit code. What can be
 * written is, whatever else fails.
 */
int report_target(struct recording *recording, struct target_record *target);

struct profile;

/*
 * Reads one target back and writes its profile, without a summary: the profile, with names, is the
 * caller's then, even where it could not be written. An exit code; *profile is NULL where there is none.
 */
int report_profile(struct recording *recording, struct target_record *target,
		   struct profile **profile);

#endif
