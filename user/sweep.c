/*
 * No process carries a breakpoint unless it has grown: the census (target/host.h) costs a system call
 * per process and second. What grows is joined by a recording as any other target is, with the rest of
 * the window to be watched in; its heap's figures are of that part, how it grew is of all of it.
 */
#include "sweep.h"

#include "heap_all.h"
#include "report.h"
#include "session.h"
#include "sweep_intervals.h"
#include "sweep_result.h"
#include "targets.h"
#include "output/text.h"
#include "symbol/debug_search.h"
#include "target/host.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS 1000000000LL
/* Readings of a process before its growth means anything: libraries are loaded, caches are filled. */
#define READINGS_LEAST 3
/* Executable mappings of a target that is joined, and rows of unwind tables for all that come. */
#define ZOOM_MAPPINGS 512
#define ZOOM_ROWS     (4 * 1024 * 1024)

/* --- zoom --- */

static const char *reason_of(int err)
{
	switch (err) {
	case -ESRCH:
	case -ECHILD:
		return "it ended meanwhile";
	case -ENOTSUP:
		return "it has a shadow stack, which this kernel's probes would break";
	case -EPERM:
	case -EACCES:
		return "not permitted";
	case -ENOMEM:
		return "no memory";
	default:
		return "its probes could not be placed";
	}
}

/* Opens the process, and sees that it still is the one that has grown. */
static int open_process(const struct host_process *from, struct process **out)
{
	struct memory memory;
	int err = process_open(from->pid, out);

	if (err)
		return err;
	err = host_read_detail(from, &memory);
	if (err)
		process_free(*out);
	return err;
}

static int join(struct sweep *sweep, const struct host_process *from, uint32_t *slot)
{
	struct recording *recording = &sweep->recording;
	struct target_record target = {
		.slot = (uint32_t)recording->targets.count,
		.opened_at = clock_now(CLOCK_MONOTONIC),
	};
	int err = open_process(from, &target.process);

	if (err)
		return err;
	err = targets_join(recording, &target);
	if (err) {
		target_deinit(&target);
		return err;
	}
	*slot = target.slot;
	return 0;
}

int sweep_zoom_on(struct sweep *sweep, struct host_process *process)
{
	struct sweep_zoom zoom = {.process = process, .at = clock_now(CLOCK_MONOTONIC)};
	char growth[UNITS_TEXT_MAX];
	int err;

	err = join(sweep, process, &zoom.slot);
	if (err)
		zoom.reason = reason_of(err);
	log_verbose("process %d: grown by %s: %s", process->pid,
		    units_format_size((double)host_growth(process), growth),
		    zoom.reason ? zoom.reason : "probes placed");
	if (vec_push(&sweep->zooms, zoom))
		return -ENOMEM;
	process->kept++;
	process->zoom = (uint32_t)sweep->zooms.count;
	return 0;
}

/* Looks who has grown by now. 0 or -ENOMEM. */
static int zoom(struct sweep *sweep)
{
	const struct host_grown grown = sweep_grown(sweep->settings, false);
	struct host_process *found[SWEEP_TOP_MAX];
	size_t count = host_growers(sweep->host, &grown, found, sweep->settings->top_processes);
	int err = 0;

	for (size_t i = 0; i < count && !err && sweep_has_slot(sweep); i++) {
		if (found[i]->readings.count >= READINGS_LEAST && !sweep_find_zoom(sweep, found[i]))
			err = sweep_zoom_on(sweep, found[i]);
	}
	return err;
}

/* --- while it runs --- */

/* On a terminal the table is renewed in its place, else a line tells how it stands. */
static bool has_live_table(const struct sweep *sweep)
{
	const char *term = getenv("TERM");

	return !sweep->settings->json && sweep->settings->log_level == LOG_NORMAL &&
	       isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
}

static void clear_table(struct sweep *sweep)
{
	/* Up by its lines, and everything below is erased (ECMA-48: CUU, ED). */
	if (sweep->lines)
		printf("\033[%uA\033[J", sweep->lines);
	fflush(stdout);
	sweep->lines = 0;
}

static void show_table(struct sweep *sweep)
{
	struct sweep_result result = {
		.duration = clock_now(CLOCK_MONOTONIC) - sweep->recording.started,
	};
	CLEANUP(cleanup_free) char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (!to)
		return;
	if (!sweep_result_peek(sweep, &result))
		sweep_table_write_rows(&result, to);
	sweep_result_deinit(&result);
	if (fclose(to))
		return;
	clear_table(sweep);
	/* Lines that are too long are cut, not wrapped (DECAWM): they are counted to go up again. */
	printf("\033[?7l%s\033[?7h", text);
	fflush(stdout);
	for (const char *at = text; (at = strchr(at, '\n')); at++)
		sweep->lines++;
}

static void show_line(const struct sweep *sweep)
{
	const struct host_grown grown = sweep_grown(sweep->settings, false);
	char elapsed[UNITS_TEXT_MAX], growth[UNITS_TEXT_MAX];
	CLEANUP(cleanup_free) char *comm = NULL;
	struct host_process *largest;
	size_t any = host_growers(sweep->host, &grown, &largest, 1);

	units_format_duration(clock_now(CLOCK_MONOTONIC) - sweep->recording.started, elapsed);
	if (!any) {
		log_progress("sweeping: %s, %zu processes, none has grown (Ctrl-C ends it)",
			     elapsed, sweep->host->watched);
		return;
	}
	comm = text_escaped(largest->comm);
	log_progress("sweeping: %s, %zu processes, %zu with probes; most: %s (%d) +%s (Ctrl-C ends "
		     "it)",
		     elapsed, sweep->host->watched, sweep->recording.targets.count,
		     comm ? comm : "", largest->pid,
		     units_format_size((double)host_growth(largest), growth));
}

/* What has happened since the last call. 0 or -ENOMEM. */
static int take_events(struct sweep *sweep, struct watch *watch)
{
	const struct watch_event *events = NULL;
	size_t count = 0;
	int err = watch_read(watch, &events, &count);

	for (size_t i = 0; i < count && !err; i++)
		err = host_event(sweep->host, &events[i]);
	targets_apply(&sweep->recording, events, count);
	return err;
}

static void read_usage(struct sweep *sweep)
{
	if (sweep->settings->heap_all) {
		heap_all_read_usage(sweep);
		return;
	}
	vec_for_each(target, &sweep->recording.targets)
		targets_read_usage(&sweep->recording, target, false);
}

static int tick(struct sweep *sweep, struct watch *watch)
{
	int err = take_events(sweep, watch);

	if (!err)
		err = host_read(sweep->host, clock_now(CLOCK_MONOTONIC));
	if (!err)
		err = sweep->settings->heap_all ? heap_all_join(sweep, READINGS_LEAST, NULL)
						: zoom(sweep);
	sweep_note_kinds(sweep);
	read_usage(sweep);
	if (sweep->pages)
		sweep_pages_tick(sweep->pages);
	if (has_live_table(sweep))
		show_table(sweep);
	else
		show_line(sweep);
	return err;
}

enum {
	FD_SIGNALS,
	FD_WATCH,
	FD_REQUESTS,
	FD_PAGES,
	FD_TARGETS,
};

static void look_for_ends(struct recording *recording, const struct pollfd *fds, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (fds[FD_TARGETS + i].revents)
			targets_end(recording, &recording->targets.items[i]);
	}
}

static int64_t earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Until the window is over. *reason: what ended it. 0 or -errno. */
static int watch_host(struct sweep *sweep, struct watch *watch, int signals, const char **reason)
{
	struct recording *recording = &sweep->recording;
	CLEANUP(cleanup_free) struct pollfd *fds = calloc(FD_TARGETS + sweep->slots, sizeof(*fds));
	int64_t end = sweep->settings->duration, next = recording->started + TICK_NS, now, missed;
	int err = 0;

	if (!fds)
		return -ENOMEM;
	fds[FD_SIGNALS] = (struct pollfd){signals, POLLIN, 0};
	fds[FD_WATCH] = (struct pollfd){watch_fd(watch), POLLIN, 0};
	fds[FD_REQUESTS] = (struct pollfd){tracer_requests_fd(recording->tracer), POLLIN, 0};
	fds[FD_PAGES] = (struct pollfd){
		sweep->pages ? sweep_pages_fd(sweep->pages) : -1,
		POLLIN,
		0,
	};
	end = end ? recording->started + end : INT64_MAX;
	intervals_plan(&recording->intervals, sweep->settings->interval, recording->started);
	*reason = "duration over";
	while (!err && (now = clock_now(CLOCK_MONOTONIC)) < end) {
		int64_t write = sweep_intervals_next(sweep);
		int64_t left = earliest(earliest(next, write), end) - now;
		struct timespec timeout = {0};
		size_t count = recording->targets.count;

		for (size_t i = 0; i < count; i++) {
			const struct target_record *target = &recording->targets.items[i];

			fds[FD_TARGETS + i] = (struct pollfd){
				.fd = target->ended_at ? -1 : target->process->pidfd,
				.events = POLLIN,
			};
		}
		if (left > 0)
			timeout = (struct timespec){left / TICK_NS, left % TICK_NS};
		if (ppoll(fds, FD_TARGETS + count, &timeout, NULL) < 0 && errno != EINTR)
			return -errno;
		if (fds[FD_SIGNALS].revents) {
			*reason = "interrupted";
			break;
		}
		look_for_ends(recording, fds, count);
		if (fds[FD_PAGES].revents)
			err = sweep_pages_read(sweep->pages);
		if (!err && clock_now(CLOCK_MONOTONIC) >= next) {
			err = tick(sweep, watch);
			/* Those that placing probes has taken are left out: a reading is a second of growth. */
			missed = (clock_now(CLOCK_MONOTONIC) - next) / TICK_NS;
			sweep->missed += (unsigned int)missed;
			next += (missed + 1) * TICK_NS;
		} else if (!err &&
			   (fds[FD_WATCH].revents || fds[FD_REQUESTS].revents || now >= write)) {
			err = take_events(sweep, watch);
		}
		if (!err && clock_now(CLOCK_MONOTONIC) < end)
			err = sweep_intervals_go_on(sweep);
	}
	return err;
}

/* --- the result --- */

static int write_result(const struct sweep *sweep, const struct sweep_result *result)
{
	int err;

	if (sweep->settings->log_level == LOG_QUIET && !sweep->settings->json)
		return EXIT_OK;
	err = sweep->settings->json ? sweep_json_write(result, stdout)
				    : sweep_table_write(result, sweep->settings->top, stdout);
	if (!err)
		return EXIT_OK;
	log_error("cannot write the result to stdout: %s", strerror(-err));
	return EXIT_OUTPUT;
}

static int report(struct sweep *sweep)
{
	struct sweep_result result = {0};
	int ages_code = report_read_ages(&sweep->recording);
	int code = sweep_result_fill(sweep, &result), write_code = write_result(sweep, &result);

	sweep_result_deinit(&result);
	if (sweep->recording.intervals.code != EXIT_OK)
		return sweep->recording.intervals.code;
	if (ages_code != EXIT_OK)
		return ages_code;
	return code != EXIT_OK ? code : write_code;
}

static void say_faults(const struct sweep_pages *pages)
{
	struct faults_stats stats;

	sweep_pages_stats(pages, &stats);
	log_verbose("page faults: %llu, %llu samples, %llu more found no room",
		    (unsigned long long)stats.faults, (unsigned long long)stats.samples,
		    (unsigned long long)stats.unsampled);
}

/* --- all of it --- */

static void make_room(const struct settings *settings, struct session_room *room)
{
	uint32_t slots = settings->top_processes * SWEEP_ZOOMS_PER_TOP;

	if (settings->heap_all) {
		heap_all_make_room(room);
		return;
	}
	room->targets = slots < MAX_TARGETS ? slots : MAX_TARGETS;
	room->mappings = room->targets * ZOOM_MAPPINGS;
	room->more_rows = ZOOM_ROWS;
}

/* With --heap-all: probes into all that there are, before the window begins. 0 or -errno. */
static int join_all(struct sweep *sweep, struct watch *watch)
{
	bool more = sweep->settings->heap_all;
	int err = 0;

	while (more && !err) {
		log_progress("placing probes: %zu processes", sweep->recording.targets.count);
		err = heap_all_join(sweep, 1, &more);
		if (!err)
			err = take_events(sweep, watch);
	}
	return err;
}

static int start(struct sweep *sweep, struct watch *watch)
{
	struct session_room room = {.unknown_programs = true};
	int code, err;

	code = report_prepare_many(sweep->settings);
	if (code == EXIT_OK && sweep->settings->heap_all)
		code = heap_all_refuse(sweep->settings);
	if (code != EXIT_OK)
		return code;
	make_room(sweep->settings, &room);
	sweep->slots = room.targets;
	code = session_open_tracer(&sweep->recording, &room);
	if (code != EXIT_OK)
		return code;
	err = host_open(sweep->settings->filter, &sweep->host);
	if (err) {
		log_error("cannot read /proc: %s", strerror(-err));
		return EXIT_OTHER;
	}
	/* What it tries out before it attaches, it tries in children. */
	sweep->host->ignores_own = true;
	sweep_note_kinds(sweep);
	err = sweep_pages_new(sweep->host, &sweep->pages);
	if (err)
		log_warning(
			"page faults cannot be sampled, so growth outside of heaps has no sites: "
			"%s",
			strerror(-err));
	uname(&sweep->system);
	err = join_all(sweep, watch);
	if (err) {
		log_error("cannot place probes: %s", strerror(-err));
		return EXIT_OTHER;
	}
	sweep->started_realtime = clock_now(CLOCK_REALTIME);
	sweep->recording.started = clock_now(CLOCK_MONOTONIC);
	log_verbose("sweeping");
	return EXIT_OK;
}

static int run(struct sweep *sweep, struct watch *watch, int signals)
{
	struct recording *recording = &sweep->recording;
	int code = start(sweep, watch), err;

	if (code != EXIT_OK)
		return code;
	err = watch_host(sweep, watch, signals, &recording->end_reason);
	if (!err)
		err = take_events(sweep, watch);
	if (!err && sweep->pages)
		err = sweep_pages_read(sweep->pages);
	if (!err)
		err = host_read(sweep->host, clock_now(CLOCK_MONOTONIC));
	/* One by one: what a process allocates after its memory was read is not to be in its ledger. */
	vec_for_each(target, &recording->targets) {
		targets_read_usage(recording, target, true);
		tracer_enable(recording->tracer, target->slot, false);
	}
	session_stop(recording);
	log_progress_clear();
	clear_table(sweep);
	sweep_intervals_finish(sweep);
	if (sweep->pages)
		say_faults(sweep->pages);
	session_give_up_on_signal(signals);
	if (err)
		log_error("the sweep ended early: %s", strerror(-err));
	code = report(sweep);
	return err ? EXIT_OTHER : code;
}

int sweep_run(const struct settings *settings)
{
	struct sweep sweep = {
		.settings = settings,
		.recording =
			{
				.settings = settings,
				.checksum_bytes = DEBUG_SEARCH_CHECKSUM_MAX,
			},
	};
	CLEANUP(cleanup_fd) int signals = session_open_signals();
	struct watch *watch = NULL;
	int code;

	session_raise_file_limit();
	code = session_open_watch(&watch);
	if (code == EXIT_OK)
		code = run(&sweep, watch, signals);
	watch_free(watch);
	session_deinit(&sweep.recording);
	sweep_pages_free(sweep.pages);
	host_free(sweep.host);
	free(sweep.zooms.items);
	free(sweep.parts.items);
	sweep_totals_deinit(&sweep.totals);
	return code;
}
