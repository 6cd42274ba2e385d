#include "sweep_intervals.h"

#include "sweep_growth.h"
#include "targets.h"
#include "util/clock.h"
#include "util/units.h"
#include "util/vec.h"

#include <stdlib.h>

/*
 * Images of processes that have ended are held as long as names may lead to them. From so many processes
 * on, all names are let go.
 */
#define ENDED_MAX 16

/* --- the profiles of an interval --- */

static int add_part(struct sweep *sweep, struct host_process *process, bool heap)
{
	int err = vec_push(&sweep->parts, ((struct sweep_part){process, heap}));

	if (!err)
		process->kept++;
	return err;
}

static bool is_busy(const struct sweep *sweep)
{
	return sweep->parts.count > 0;
}

static void let_go(struct sweep *sweep)
{
	vec_for_each(part, &sweep->parts)
		part->process->kept--;
	sweep->parts.count = 0;
	sweep->next_part = 0;
}

static int find_parts(struct sweep *sweep)
{
	int err = 0;

	vec_for_each(item, &sweep->host->processes) {
		const struct sweep_zoom *zoom = sweep_find_zoom(sweep, *item);

		if ((*item)->state != HOST_WATCHED || !sweep_tells_of(sweep, *item))
			continue;
		if (!err && zoom && !zoom->reason)
			err = add_part(sweep, *item, true);
		if (!err && sweep->pages)
			err = add_part(sweep, *item, false);
	}
	return err;
}

/* Names as of a recording that goes on: a download would stop it. */
static int prepare_names(struct sweep *sweep)
{
	struct recording *recording = &sweep->recording;

	if (sweep->pages && sweep_pages_ended(sweep->pages) > ENDED_MAX) {
		log_verbose("names of %zu processes that have ended are let go",
			    sweep_pages_ended(sweep->pages));
		names_free(recording->names);
		recording->names = NULL;
		sweep_pages_forget_ended(sweep->pages);
	}
	if (recording->names)
		return 0;
	sweep->offline = *sweep->settings;
	sweep->offline.debuginfod = false;
	return names_new(&sweep->offline, &recording->names);
}

static int begin(struct sweep *sweep)
{
	int err;

	intervals_begin(&sweep->recording);
	err = prepare_names(sweep);
	return err ? err : find_parts(sweep);
}

/* --- one of them --- */

static void write_growth(struct sweep *sweep, const struct host_process *process)
{
	struct intervals *intervals = &sweep->recording.intervals;
	int64_t begun = clock_now(CLOCK_MONOTONIC);
	char *path = NULL;
	int code = sweep_growth_write(sweep, process, intervals->number, NULL, &path);

	intervals_note(intervals, begun, code);
	free(path);
}

static void write_part(struct sweep *sweep, const struct sweep_part *part)
{
	struct recording *recording = &sweep->recording;

	if (part->process->state != HOST_WATCHED)
		return;
	if (part->heap)
		intervals_write(
			recording,
			&recording->targets.items[sweep_find_zoom(sweep, part->process)->slot]);
	else
		write_growth(sweep, part->process);
}

/* --- all of them --- */

int64_t sweep_intervals_next(const struct sweep *sweep)
{
	return is_busy(sweep) ? 0 : sweep->recording.intervals.next;
}

int sweep_intervals_go_on(struct sweep *sweep)
{
	struct intervals *intervals = &sweep->recording.intervals;
	int err = 0;

	if (!is_busy(sweep)) {
		if (clock_now(CLOCK_MONOTONIC) < intervals->next)
			return 0;
		err = begin(sweep);
	} else {
		write_part(sweep, &sweep->parts.items[sweep->next_part++]);
	}
	if (err || sweep->next_part == sweep->parts.count) {
		let_go(sweep);
		intervals_end(intervals);
	}
	return err;
}

void sweep_intervals_finish(struct sweep *sweep)
{
	struct intervals *intervals = &sweep->recording.intervals;
	char text[UNITS_TEXT_MAX];

	if (!intervals->every)
		return;
	if (is_busy(sweep)) {
		let_go(sweep);
		intervals->missed++;
	}
	/* At the end there is time for downloads. */
	if (sweep->settings->debuginfod) {
		names_free(sweep->recording.names);
		sweep->recording.names = NULL;
	}
	log_verbose("%u intervals, the longest profile took %s to write", intervals->number,
		    units_format_duration(intervals->longest, text));
}
