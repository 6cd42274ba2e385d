#include "record.h"

#include "report.h"
#include "output/text.h"
#include "target/launch.h"
#include "target/watch.h"
#include "util/cleanup.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How often resident memory is read and the progress line is renewed. */
#define TICK_NS 1000000000LL

/* Below this many bytes a sample, live blocks are counted in millions. */
#define DENSE_PERIOD   (64 * 1024)
#define DEFAULT_LIVE   (256 * 1024)
#define DENSE_LIVE     (4 * 1024 * 1024)
#define DEFAULT_STACKS (64 * 1024)

/* Rows of unwind tables, 4 bytes each, for what is loaded later; a command has most of it to come.
 */
#define MORE_ROWS	  (64 * 1024)
#define COMMAND_MORE_ROWS (256 * 1024)

/* The initial pid namespace's inode (linux/proc_ns.h). BPF sees its pids. */
#define INITIAL_PID_NAMESPACE 0xEFFFFFFCU

static int64_t now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* --- opening the targets ------------------------------------------------------------------------
 */

static int say_process_error(pid_t pid, int err)
{
	switch (err) {
	case -ESRCH:
		log_error("no process %d", pid);
		return EXIT_NO_PROCESS;
	case -ECHILD:
		log_error("process %d is a zombie: it has ended already", pid);
		return EXIT_NO_PROCESS;
	case -ENXIO:
		log_error("process %d is a kernel thread: it has no heap", pid);
		return EXIT_NO_PROCESS;
	case -EPERM:
	case -EACCES:
		log_error("not permitted to trace process %d (try sudo)", pid);
		return EXIT_PERMISSION;
	default:
		log_error("process %d: %s", pid, strerror(-err));
		return EXIT_OTHER;
	}
}

static int add_target(struct recording *recording, struct process *process, int64_t opened_at)
{
	struct target_record target = {
		.process = process,
		.opened_at = opened_at,
		.slot = (uint32_t)recording->targets.count,
	};

	return vec_push(&recording->targets, target);
}

static int open_targets(struct recording *recording)
{
	vec_for_each(pid, &recording->settings->pids) {
		struct process *process;
		int64_t time = now(CLOCK_MONOTONIC);
		int err = process_open(*pid, &process);

		if (err)
			return say_process_error(*pid, err);
		if (process->pid == getpid()) {
			log_error("process %d is alloctrace itself", process->pid);
			process_free(process);
			return EXIT_NO_PROCESS;
		}
		if (add_target(recording, process, time)) {
			process_free(process);
			return EXIT_OTHER;
		}
	}
	return EXIT_OK;
}

/* The allocators of images that have not been looked at yet. 0 or -ENOMEM. */
static int find_allocators(struct target_record *target)
{
	while (target->images.count < target->process->images.count) {
		struct probed_image item = {
			.image = target->process->images.items[target->images.count],
		};
		int err = allocator_find(item.image, &item.allocator);

		if (err == -ENOMEM || vec_push(&target->images, item))
			return -ENOMEM;
		if (err && err != -ENOENT)
			log_verbose("%s: not searched for an allocator: %s", item.image->path,
				    strerror(-err));
	}
	return 0;
}

/* Attaches to the images from index `from` on. 0 or -errno. */
static int attach_images(struct recording *recording, struct target_record *target, size_t from)
{
	for (size_t i = from; i < target->images.count; i++) {
		const struct probed_image *item = &target->images.items[i];
		int err;

		if (!item->allocator)
			continue;
		err = tracer_attach(recording->tracer, target->slot, target->process->pid,
				    item->image, item->allocator);
		if (err)
			return err;
		target->probed++;
		log_verbose("process %d: probes in %s", target->process->pid, item->image->path);
	}
	return 0;
}

/* The kernel side learns what a target maps now, and what brought an allocator gets probes. */
static void remap(struct recording *recording, struct target_record *target)
{
	size_t looked_at = target->images.count;
	int err = tracer_map(recording->tracer, target->slot, target->process);

	if (!err)
		err = find_allocators(target);
	if (!err)
		err = attach_images(recording, target, looked_at);
	if (err && err != -ESRCH && !target->ended_at)
		log_warning("process %d: what it has loaded since is not traced: %s",
			    target->process->pid, strerror(-err));
}

/* --- a command ----------------------------------------------------------------------------------
 */

/* The dynamic loader, which is mapped beside a dynamic executable from the start; NULL: it is
 * static. */
static const struct image *find_loader(const struct process *process)
{
	vec_for_each(image, &process->images) {
		if ((*image)->path[0] == '/' && strcmp((*image)->path, process->exe) != 0)
			return *image;
	}
	return NULL;
}

/*
 * Has the loader done its work? Its own system calls come from its own code; the first from
 * elsewhere is a constructor's or main's. Before that, all libraries of the executable are mapped.
 */
static bool is_loaded(const struct recording *recording, uint64_t pc)
{
	const struct process *process = recording->targets.items[0].process;
	const struct mapping *mapping = pc ? process_find(process, pc) : NULL;

	return mapping && mapping->image != recording->loader;
}

/*
 * Asked while the command is started. It is held as soon as an allocator is mapped, before anything
 * could call it: with the libc, or at once if the executable is static.
 */
static int hold_for_allocator(pid_t pid, uint64_t pc, void *context)
{
	struct recording *recording = context;
	struct target_record *target;
	struct process *process;
	int64_t time = now(CLOCK_MONOTONIC);
	int err;

	if (!recording->targets.count) {
		err = process_open(pid, &process);
		if (err)
			return err;
		err = add_target(recording, process, time);
		if (err) {
			process_free(process);
			return err;
		}
		recording->loader = find_loader(process);
	}
	target = &recording->targets.items[0];
	err = process_refresh(target->process);
	if (!err)
		err = find_allocators(target);
	if (err)
		return err;
	vec_for_each(item, &target->images) {
		/* The executable's own is there from the start: wait for what the loader brings. */
		if (item->allocator && strcmp(item->image->path, target->process->exe) != 0)
			return 1;
	}
	return !recording->loader || is_loaded(recording, pc);
}

/*
 * Asked after the probes are in: the walk has to be told of the libraries that come after the libc,
 * up to the first code that may allocate. musl's loader is its libc: there, what is not known is
 * asked for later.
 */
static int hold_when_loaded(pid_t pid, uint64_t pc, void *context)
{
	struct recording *recording = context;
	struct target_record *target = &recording->targets.items[0];
	size_t before = target->process->mappings.count;
	int err;

	(void)pid;
	if (!recording->loader || is_loaded(recording, pc))
		return 1;
	vec_for_each(item, &target->images) {
		if (item->allocator && item->image == recording->loader)
			return 1;
	}
	err = process_refresh(target->process);
	if (!err && target->process->mappings.count != before)
		remap(recording, target);
	return err;
}

static int start_command(struct recording *recording, pid_t *pid)
{
	const struct settings *settings = recording->settings;
	struct launch_user user = {
		.given = settings->owner.given,
		.uid = settings->owner.uid,
		.gid = settings->owner.gid,
	};
	int err = launch_start(settings->command, &user, hold_for_allocator, recording, pid);

	if (!err)
		return EXIT_OK;
	if (err == -ECHILD)
		log_error("the command ended before it had an allocator");
	else
		log_error("cannot start '%s': %s", settings->command[0], strerror(-err));
	return err == -ECHILD ? EXIT_NOTHING : EXIT_NOT_RUN;
}

/* --- the tracer ---------------------------------------------------------------------------------
 */

static bool in_initial_pid_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) || st.st_ino == INITIAL_PID_NAMESPACE;
}

static int say_tracer_error(int err, enum tracer_kind wanted)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		log_error("not permitted to trace: run as root (sudo)");
		return EXIT_PERMISSION;
	case -EOPNOTSUPP:
		if (wanted == TRACER_AUTO)
			log_error("this kernel has no way of attaching that is known here");
		else
			log_error("this kernel has no '%s' probes that see every thread",
				  tracer_kind_names[wanted]);
		return EXIT_KERNEL;
	case -ENODATA:
		log_error("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)");
		return EXIT_KERNEL;
	case -ENOSYS:
	case -EINVAL:
	case -ENOENT:
		log_error("this kernel lacks BPF, uprobes or a helper that is needed (6.1 or later "
			  "has "
			  "them): %s",
			  strerror(-err));
		return EXIT_KERNEL;
	default:
		log_error("cannot load the BPF programs: %s", strerror(-err));
		return EXIT_OTHER;
	}
}

/* Everything that the targets map has its unwind table before the first probe opens. */
static int read_images(struct recording *recording)
{
	vec_for_each(target, &recording->targets) {
		vec_for_each(image, &target->process->images) {
			log_progress("reading unwind tables, process %d: %zu of %zu files",
				     target->process->pid,
				     (size_t)(image - target->process->images.items),
				     target->process->images.count);
			if (tracer_add_image(recording->tracer, *image))
				return -ENOMEM;
		}
	}
	return 0;
}

static int open_tracer(struct recording *recording)
{
	const struct settings *settings = recording->settings;
	struct tracer_options options = {
		.kind = settings->attach,
		.period = settings->period,
		.targets = (uint32_t)(settings->command ? 1 : settings->pids.count),
		.max_live = settings->max_live		      ? settings->max_live
			    : settings->period < DENSE_PERIOD ? DENSE_LIVE
							      : DEFAULT_LIVE,
		.max_stacks = settings->max_stacks ? settings->max_stacks : DEFAULT_STACKS,
		.more_rows = settings->command ? COMMAND_MORE_ROWS : MORE_ROWS,
		.verbose = settings->log_level == LOG_VERBOSE,
	};
	struct tracer_tables tables;
	int err;

	vec_for_each(target, &recording->targets)
		options.mappings += (uint32_t)target->process->mappings.count;
	err = tracer_new(&options, &recording->tracer);
	if (!err)
		err = read_images(recording);
	if (!err)
		err = tracer_load(recording->tracer);
	if (err)
		return say_tracer_error(err, settings->attach);
	tracer_tables(recording->tracer, &tables);
	log_verbose("unwind tables: %zu bytes, %u rules", tables.bytes, tables.rules);
	log_verbose("attaching by %s probes",
		    tracer_kind_names[tracer_chosen_kind(recording->tracer)]);
	return EXIT_OK;
}

/* Probes into one target, before it is recorded. */
static int prepare_target(struct recording *recording, struct target_record *target)
{
	pid_t pid = target->process->pid;
	int err = find_allocators(target);

	if (!err)
		err = tracer_set_target(recording->tracer, target->slot, pid);
	if (!err)
		err = tracer_map(recording->tracer, target->slot, target->process);
	if (!err)
		err = attach_images(recording, target, 0);
	if (err == -ESRCH) {
		log_error("process %d ended while it was attached to", pid);
		return EXIT_NO_PROCESS;
	}
	if (err) {
		log_error("cannot attach to process %d: %s", pid, strerror(-err));
		return err == -EPERM || err == -EACCES ? EXIT_PERMISSION : EXIT_OTHER;
	}
	if (!target->probed) {
		log_error("process %d has no allocator that is known (no mapped file defines "
			  "malloc and "
			  "free)",
			  pid);
		return EXIT_NOTHING;
	}
	return EXIT_OK;
}

static void start_recording(struct recording *recording)
{
	uint64_t counters[COUNTER_COUNT];

	vec_for_each(target, &recording->targets) {
		target->rss_start = process_rss(target->process);
		if (!tracer_counters(recording->tracer, target->slot, counters)) {
			target->calls_before = counters[COUNT_CALLS];
			target->frees_before = counters[COUNT_FREES];
		}
	}
	recording->started_realtime = now(CLOCK_REALTIME);
	recording->started = now(CLOCK_MONOTONIC);
	vec_for_each(target, &recording->targets)
		tracer_enable(recording->tracer, target->slot, true);
}

static void stop_recording(struct recording *recording)
{
	vec_for_each(target, &recording->targets)
		tracer_enable(recording->tracer, target->slot, false);
	recording->ended = now(CLOCK_MONOTONIC);
	tracer_detach(recording->tracer);
}

/* --- while it runs ------------------------------------------------------------------------------
 */

/* One event of a target. True if its mappings are others now. */
static bool apply_event(struct target_record *target, const struct watch_event *event)
{
	struct mapping mapping = {
		.start = event->start,
		.end = event->start + event->length,
		.offset = event->offset,
		.dev = event->dev,
		.inode = event->inode,
		.path = event->path,
	};

	switch (event->type) {
	case WATCH_FORK:
		target->children++;
		return false;
	case WATCH_EXEC:
		target->executions++;
		process_exec(target->process);
		return true;
	case WATCH_MAPPED:
		process_add_mapping(target->process, &mapping);
		return true;
	default: /* lost events: what they said is in /proc, if the process still is */
		process_refresh(target->process);
		return true;
	}
}

/* What has happened to the targets since the last call. */
static void follow(struct recording *recording, struct watch *watch)
{
	const struct watch_event *events;
	size_t count;

	if (watch_read(watch, &events, &count))
		return;
	tracer_read_requests(recording->tracer);
	vec_for_each(target, &recording->targets) {
		bool changed = false;

		for (size_t i = 0; i < count; i++) {
			const struct watch_event *event = &events[i];

			if (event->type == WATCH_LOST || (event->pid == target->process->pid &&
							  event->time >= target->opened_at))
				changed |= apply_event(target, event);
		}
		if (tracer_take_request(recording->tracer, target->slot) && !target->ended_at)
			changed |= process_refresh(target->process) == 0;
		if (changed)
			remap(recording, target);
	}
}

static void read_rss(struct recording *recording)
{
	vec_for_each(target, &recording->targets) {
		uint64_t rss = target->ended_at ? 0 : process_rss(target->process);

		if (rss)
			target->rss_end = rss;
	}
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
		calls += counters[COUNT_CALLS] - target->calls_before;
		samples += counters[COUNT_SAMPLED];
		rss += target->rss_end;
	}
	log_progress("recording: %s, %s calls, %s sampled, RSS %s (Ctrl-C ends it)",
		     units_format_duration(now(CLOCK_MONOTONIC) - recording->started, elapsed),
		     units_format_count((int64_t)calls, calls_text),
		     units_format_count((int64_t)samples, samples_text),
		     units_format_size((double)rss, rss_text));
}

/* Waits until something ends the recording; says what did. */
static const char *wait_for_end(struct recording *recording, struct watch *watch, int signals)
{
	size_t count = recording->targets.count, running = count;
	CLEANUP(cleanup_free) struct pollfd *fds = calloc(count + 3, sizeof(*fds));
	int64_t tick = recording->started + TICK_NS, end = recording->settings->duration;

	if (!fds)
		return "out of memory";
	end = end ? recording->started + end : INT64_MAX;
	for (size_t i = 0; i < count; i++)
		fds[i] = (struct pollfd){recording->targets.items[i].process->pidfd, POLLIN, 0};
	fds[count] = (struct pollfd){signals, POLLIN, 0};
	fds[count + 1] = (struct pollfd){watch_fd(watch), POLLIN, 0};
	fds[count + 2] = (struct pollfd){tracer_requests_fd(recording->tracer), POLLIN, 0};
	for (;;) {
		int64_t time = now(CLOCK_MONOTONIC), next = end < tick ? end : tick;
		struct timespec timeout = {0};

		if (time >= end)
			return "duration over";
		if (next > time)
			timeout = (struct timespec){(next - time) / 1000000000LL,
						    (next - time) % 1000000000LL};
		if (ppoll(fds, count + 3, &timeout, NULL) < 0 && errno != EINTR)
			return "poll failed";
		if (fds[count].revents)
			return "interrupted";
		if (fds[count + 1].revents || fds[count + 2].revents)
			follow(recording, watch);
		for (size_t i = 0; i < count; i++) {
			if (!fds[i].revents)
				continue;
			recording->targets.items[i].ended_at = now(CLOCK_MONOTONIC);
			fds[i].fd = -1; /* poll passes over it */
			fds[i].revents = 0;
			if (--running == 0)
				return "process ended";
		}
		time = now(CLOCK_MONOTONIC);
		if (time >= tick) {
			tick = time + TICK_NS;
			follow(recording, watch);
			read_rss(recording);
			show_progress(recording);
		}
	}
}

/* --- all of it ----------------------------------------------------------------------------------
 */

static void interrupted_again(int signal)
{
	(void)signal;
	_exit(EXIT_INTERRUPTED);
}

/* From the second signal on there is no patience: what is not written yet is given up. */
static void give_up_on_signal(int signals)
{
	struct sigaction action = {.sa_handler = interrupted_again};
	struct signalfd_siginfo info;
	sigset_t set;

	/* The one that ended the recording is taken, so that it does not count twice. */
	while (read(signals, &info, sizeof(info)) == sizeof(info))
		;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

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
	if (*command &&
	    (launch_continue(*command, hold_when_loaded, recording) || launch_release(*command))) {
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
	int code = settings->command ? start_command(recording, &command) : open_targets(recording);

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
	read_rss(recording);
	stop_recording(recording);
	log_progress_clear();
	log_verbose("detached");
	give_up_on_signal(signals);
	follow(recording, watch);
	vec_for_each(target, &recording->targets) {
		int target_code;

		process_refresh(target->process);
		target_code = report_target(recording, target);
		if (code == EXIT_OK)
			code = target_code;
	}
	return code;
}

static void recording_deinit(struct recording *recording)
{
	tracer_free(recording->tracer);
	vec_for_each(target, &recording->targets) {
		vec_for_each(item, &target->images)
			allocator_free(item->allocator);
		free(target->images.items);
		free(target->output);
		process_free(target->process);
	}
	free(recording->targets.items);
}

int record_run(const struct settings *settings)
{
	struct recording recording = {.settings = settings};
	CLEANUP(cleanup_fd) int signals = open_signals();
	struct watch *watch = NULL;
	int code, err;

	if (!in_initial_pid_namespace()) {
		log_error("run this in the host's pid namespace: the kernel side knows no other");
		return EXIT_PERMISSION;
	}
	err = watch_open(&watch);
	if (!err) {
		code = run(&recording, watch, signals);
	} else if (err == -EACCES || err == -EPERM) {
		log_error("not permitted to trace: run as root (sudo)");
		code = EXIT_PERMISSION;
	} else {
		log_error("cannot watch processes by perf events: %s", strerror(-err));
		code = EXIT_KERNEL;
	}
	watch_free(watch);
	recording_deinit(&recording);
	return code;
}
