#include "record.h"

#include "command.h"
#include "follow.h"
#include "hazards.h"
#include "report.h"
#include "session.h"
#include "targets.h"
#include "output/text.h"
#include "symbol/debug_search.h"
#include "target/launch.h"
#include "target/watch.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How often memory and CPU time are read and the progress line is renewed. */
#define TICK_NS 1000000000LL

/*
 * How often it is looked what followed processes have mapped: what one executes may bring another
 * allocator, of which the kernel's wakeup for many events would come too late.
 */
#define LOOK_NS 50000000LL

/*
 * Rows of unwind tables, 4 bytes each, for what is loaded later: four libraries as large as LLVM, or
 * four times that for the programs that followed children execute.
 */
#define MORE_ROWS	   (256 * 1024)
#define MORE_ROWS_FOLLOWED (1024 * 1024)

/* Executable mappings that a target may get while it is recorded; and what a followed child has. */
#define MORE_MAPPINGS	  512
#define FOLLOWED_MAPPINGS 96

static int open_tracer(struct recording *recording)
{
	const bool follow = recording->settings->follow;
	struct session_room room = {
		.targets = follow ? MAX_TARGETS : (uint32_t)recording->targets.count,
		.mappings = (MAX_TARGETS - (uint32_t)recording->targets.count) *
			    (follow ? FOLLOWED_MAPPINGS : 0),
		.more_rows = follow ? MORE_ROWS_FOLLOWED : MORE_ROWS,
		.unknown_programs = follow || recording->settings->command,
	};

	vec_for_each(target, &recording->targets)
		room.mappings += (uint32_t)target->process->mappings.count + MORE_MAPPINGS;
	return session_open_tracer(recording, &room);
}

/* Probes into one target, before it is recorded. */
static int prepare_target(struct recording *recording, struct target_record *target)
{
	pid_t pid = target->process->pid;
	int code = hazards_refuse(target), err;

	if (code != EXIT_OK)
		return code;
	err = targets_find_allocators(recording, target);
	if (!err)
		err = tracer_set_target(recording->tracer, target->slot, pid);
	if (!err && recording->settings->follow)
		err = follow_begin(recording, target);
	if (!err)
		err = tracer_map(recording->tracer, target->slot, target->process);
	if (!err)
		err = targets_find_python(recording, target);
	if (!err)
		err = targets_attach(recording, target, 0);
	if (err == -ESRCH) {
		log_error("process %d ended while it was attached to", pid);
		return EXIT_NO_PROCESS;
	}
	if (err) {
		log_error("cannot attach to process %d: %s", pid, strerror(-err));
		return err == -EPERM || err == -EACCES ? EXIT_PERMISSION : EXIT_OTHER;
	}
	if (!targets_has_allocator(target) && !recording->settings->follow) {
		hazards_say_nothing_to_probe(target);
		return EXIT_NOTHING;
	}
	return EXIT_OK;
}

static void start_recording(struct recording *recording)
{
	recording->started = clock_now(CLOCK_MONOTONIC);
	vec_for_each(target, &recording->targets)
		targets_start(recording, target);
}

/* --- while it runs --- */

static void read_usage(struct recording *recording, bool parts)
{
	vec_for_each(target, &recording->targets)
		targets_read_usage(recording, target, parts);
}

static void show_progress(const struct recording *recording)
{
	uint64_t calls = 0, samples = 0, rss = 0;
	char elapsed[UNITS_TEXT_MAX], calls_text[UNITS_TEXT_MAX], samples_text[UNITS_TEXT_MAX],
		rss_text[UNITS_TEXT_MAX];

	vec_for_each(target, &recording->targets) {
		uint64_t counters[COUNTER_COUNT];

		if (tracer_counters(recording->tracer, target->slot, counters))
			continue;
		calls += counters[COUNT_CALLS] - target->calls;
		samples += counters[COUNT_SAMPLED];
		rss += profile_memory_rss(&target->memory_end);
	}
	log_progress(
		"recording: %s, %s calls, %s sampled, RSS %s (Ctrl-C ends it)",
		units_format_duration(clock_now(CLOCK_MONOTONIC) - recording->started, elapsed),
		units_format_count((int64_t)calls, calls_text),
		units_format_count((int64_t)samples, samples_text),
		units_format_size((double)rss, rss_text));
}

/* What is waited for: the recording's own descriptors, and behind them one of each target. */
enum {
	FD_SIGNALS,
	FD_WATCH,
	FD_REQUESTS,
	FD_TARGETS,
};

/* Until a descriptor is ready, or a time. False: it cannot be waited for. */
static bool wait_until(const struct recording *recording, struct pollfd *fds, int64_t time)
{
	int64_t left = time - clock_now(CLOCK_MONOTONIC);
	struct timespec timeout = {0};
	size_t count = 0;

	vec_for_each(target, &recording->targets)
		fds[FD_TARGETS + count++] = (struct pollfd){
			.fd = target->ended_at ? -1 : target->process->pidfd, /* -1: passed over */
			.events = POLLIN,
		};
	if (left > 0)
		timeout = (struct timespec){left / 1000000000LL, left % 1000000000LL};
	return ppoll(fds, FD_TARGETS + count, &timeout, NULL) >= 0 || errno == EINTR;
}

/* Notes who has ended. */
static void look_for_ends(const struct recording *recording, const struct pollfd *fds)
{
	const struct pollfd *fd = fds + FD_TARGETS;

	vec_for_each(target, &recording->targets) {
		if (fd++->revents)
			targets_end(recording, target);
	}
}

static bool any_runs(const struct recording *recording)
{
	vec_for_each(target, &recording->targets) {
		if (!target->ended_at)
			return true;
	}
	return false;
}

static int64_t earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Profiles of all targets that run. What is wrong has been said, and ends nothing. */
static void write_interval(struct recording *recording)
{
	intervals_begin(recording);
	vec_for_each(target, &recording->targets)
		intervals_write(recording, target);
	intervals_end(&recording->intervals);
}

/* Waits until something ends the recording; says what did. */
static const char *wait_for_end(struct recording *recording, struct watch *watch, int signals)
{
	struct pollfd fds[FD_TARGETS + MAX_TARGETS] = {
		[FD_SIGNALS] = {signals, POLLIN, 0},
		[FD_WATCH] = {watch_fd(watch), POLLIN, 0},
		[FD_REQUESTS] = {tracer_requests_fd(recording->tracer), POLLIN, 0},
	};
	const bool follow = recording->settings->follow;
	int64_t tick = recording->started + TICK_NS, end = recording->settings->duration, time;
	bool more = false;

	end = end ? recording->started + end : INT64_MAX;
	intervals_plan(&recording->intervals, recording->settings->interval, recording->started);
	for (time = recording->started; time < end; time = clock_now(CLOCK_MONOTONIC)) {
		int64_t next = follow ? time + (more ? 0 : LOOK_NS) : tick;

		next = earliest(earliest(next, tick), recording->intervals.next);
		if (!wait_until(recording, fds, earliest(end, next)))
			return "poll failed";
		if (fds[FD_SIGNALS].revents)
			return "interrupted";
		look_for_ends(recording, fds);
		time = clock_now(CLOCK_MONOTONIC);
		if (follow || time >= tick || fds[FD_WATCH].revents || fds[FD_REQUESTS].revents)
			targets_follow(recording, watch);
		/* Who has ended may have started others just before. */
		more = follow && follow_some(recording);
		if (!more && !any_runs(recording))
			return "process ended";
		if (time >= tick) {
			tick = time + TICK_NS;
			read_usage(recording, false);
			show_progress(recording);
		}
		if (time >= recording->intervals.next && time < end) {
			targets_follow(recording, watch);
			write_interval(recording);
		}
	}
	return "duration over";
}

/* --- all of it --- */

/* Everything up to the first recorded allocation. *command is held until here, and let go. */
static int start(struct recording *recording, pid_t *command)
{
	int code = report_prepare(recording);

	vec_for_each(target, &recording->targets) {
		if (code == EXIT_OK)
			code = prepare_target(recording, target);
	}
	if (code != EXIT_OK)
		return code;
	start_recording(recording);
	if (*command && command_release(recording, *command)) {
		log_error("the command ended before it was recorded");
		return EXIT_NO_PROCESS;
	}
	*command = 0;
	log_verbose("recording");
	return EXIT_OK;
}

static int run(struct recording *recording, struct watch *watch, int signals)
{
	const struct settings *settings = recording->settings;
	pid_t command = 0;
	int code = EXIT_OK, ages_code;

	if (settings->command)
		code = command_start(recording, &command);
	session_raise_file_limit();
	if (!settings->command)
		code = targets_open(recording);
	if (code == EXIT_OK)
		code = open_tracer(recording);
	if (code == EXIT_OK)
		code = start(recording, &command);
	if (code != EXIT_OK) {
		if (command)
			launch_kill(command);
		return code;
	}
	recording->end_reason = wait_for_end(recording, watch, signals);
	read_usage(recording, true);
	session_stop(recording);
	log_progress_clear();
	log_verbose("detached");
	session_give_up_on_signal(signals);
	targets_follow(recording, watch);
	if (settings->follow)
		follow_end(recording);
	if (code == EXIT_OK)
		code = recording->intervals.code;
	ages_code = report_read_ages(recording);
	if (code == EXIT_OK)
		code = ages_code;
	vec_for_each(target, &recording->targets) {
		int target_code;

		if (target->followed && !targets_has_allocator(target))
			continue;
		if (!target->ended_at)
			process_refresh(target->process);
		target_code = report_target(recording, target);
		if (code == EXIT_OK)
			code = target_code;
	}
	return code;
}

int record_run(const struct settings *settings)
{
	struct recording recording = {
		.settings = settings,
		.checksum_bytes = DEBUG_SEARCH_CHECKSUM_MAX,
	};
	CLEANUP(cleanup_fd) int signals = session_open_signals();
	struct watch *watch = NULL;
	int code = session_open_watch(&watch);

	if (code == EXIT_OK)
		code = run(&recording, watch, signals);
	watch_free(watch);
	session_deinit(&recording);
	return code;
}
