#include "intervals.h"

#include "record.h"
#include "report.h"
#include "targets.h"
#include "util/clock.h"
#include "util/units.h"

void intervals_plan(struct intervals *intervals, int64_t every, int64_t from)
{
	intervals->every = every;
	intervals->next = every ? from + every : INT64_MAX;
}

void intervals_begin(struct recording *recording)
{
	struct intervals *intervals = &recording->intervals;

	intervals->number++;
	intervals->begun = clock_now(CLOCK_MONOTONIC);
	if (recording->settings->min_age && intervals->code == EXIT_OK)
		intervals->code = report_read_ages(recording);
}

void intervals_note(struct intervals *intervals, int64_t begun, int code)
{
	int64_t took = clock_now(CLOCK_MONOTONIC) - begun;

	if (took > intervals->longest)
		intervals->longest = took;
	if (intervals->code == EXIT_OK)
		intervals->code = code;
}

void intervals_write(struct recording *recording, struct target_record *target)
{
	int64_t begun = clock_now(CLOCK_MONOTONIC);

	if (target->ended_at || !targets_has_allocator(target))
		return;
	intervals_note(&recording->intervals, begun,
		       report_interval(recording, target, recording->intervals.number));
}

void intervals_end(struct intervals *intervals)
{
	int64_t now = clock_now(CLOCK_MONOTONIC);
	int64_t missed = (now - intervals->next) / intervals->every;
	char text[UNITS_TEXT_MAX];

	intervals->missed += (unsigned int)missed;
	intervals->next += (missed + 1) * intervals->every;
	log_verbose("interval %u: profiles written in %s", intervals->number,
		    units_format_duration(now - intervals->begun, text));
}
