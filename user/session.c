#include "session.h"

#include "names.h"
#include "targets.h"
#include "target/python.h"
#include "util/clock.h"
#include "util/vec.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* Below this many bytes a sample, live blocks are counted in millions. */
#define DENSE_PERIOD   (64 * 1024)
#define DEFAULT_LIVE   (256 * 1024)
#define DENSE_LIVE     (4 * 1024 * 1024)
#define DEFAULT_STACKS (64 * 1024)

/* The initial pid namespace's inode (linux/proc_ns.h). BPF sees its pids. */
#define INITIAL_PID_NAMESPACE 0xEFFFFFFCU

/* --- signals and limits --- */

/* Signals that have asked for the end so far. */
static volatile sig_atomic_t interruptions;

static void interrupted(int signal)
{
	(void)signal;
	if (++interruptions > 1)
		_exit(EXIT_INTERRUPTED);
}

void session_give_up_on_signal(int signals)
{
	struct sigaction action = {.sa_handler = interrupted};
	struct signalfd_siginfo info;
	sigset_t set;

	while (read(signals, &info, sizeof(info)) == sizeof(info))
		interruptions = 1;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

int session_open_signals(void)
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

void session_raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* --- the watch and the tracer --- */

static bool in_initial_pid_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) || st.st_ino == INITIAL_PID_NAMESPACE;
}

int session_open_watch(struct watch **watch)
{
	int err;

	if (!in_initial_pid_namespace()) {
		log_error("run this in the host's pid namespace: the kernel side knows no other");
		return EXIT_PERMISSION;
	}
	err = watch_open(watch);
	if (err == -EACCES || err == -EPERM) {
		log_error("not permitted to trace: run as root (sudo)");
		return EXIT_PERMISSION;
	}
	if (err) {
		log_error("cannot watch processes by perf events: %s", strerror(-err));
		return EXIT_KERNEL;
	}
	return EXIT_OK;
}

static int say_tracer_error(int err, const struct settings *settings)
{
	enum tracer_kind wanted = settings->attach;

	switch (err) {
	case -EPERM:
	case -EACCES:
		log_error("not permitted to trace: run as root (sudo)");
		return EXIT_PERMISSION;
	case -EOPNOTSUPP:
		if (settings->heap_all)
			log_error("--heap-all: this kernel has no links that serve all processes "
				  "and see every thread (uprobe_multi, Linux 6.10)");
		else if (wanted == TRACER_AUTO)
			log_error("this kernel has no way of attaching that is known here");
		else
			log_error("this kernel has no '%s' probes that see every thread",
				  tracer_kind_names[wanted]);
		return EXIT_KERNEL;
	case TRACER_KILLS_FILTERED:
		log_error("return probes of this kernel kill processes under seccomp (corrected in "
			  "Linux 6.12.14 and 6.13.3)");
		return EXIT_KERNEL;
	case -ENODATA:
		log_error("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)");
		return EXIT_KERNEL;
	case -ENOSYS:
	case -E2BIG: /* the verifier gave up */
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

/* Does a target run Python? 0 or -ENOMEM. */
static int look_for_python(struct recording *recording, bool *found)
{
	int err = 0;

	vec_for_each(target, &recording->targets) {
		if (!err)
			err = python_look(target->process, &target->process->python);
		*found |= !err && python_target(target->process->python)->runtime;
	}
	return err;
}

int session_open_tracer(struct recording *recording, const struct session_room *room)
{
	const struct settings *settings = recording->settings;
	struct tracer_options options = {
		.kind = settings->attach,
		.period = settings->period,
		.targets = room->targets,
		.shared = settings->heap_all,
		.follow = settings->follow,
		.mappings = room->mappings,
		.max_live = settings->max_live		      ? settings->max_live
			    : settings->period < DENSE_PERIOD ? DENSE_LIVE
							      : DEFAULT_LIVE,
		.max_stacks = settings->max_stacks ? settings->max_stacks : DEFAULT_STACKS,
		.more_rows = room->more_rows,
		.mmap = settings->mmap,
		.verbose = settings->log_level == LOG_VERBOSE,
	};
	struct tracer_tables tables;
	int err = look_for_python(recording, &options.python);

	options.python |= room->unknown_programs;
	if (!err)
		err = tracer_new(&options, &recording->tracer);
	if (!err)
		err = read_images(recording);
	if (!err)
		err = tracer_load(recording->tracer);
	if (err)
		return say_tracer_error(err, settings);
	tracer_tables(recording->tracer, &tables);
	log_verbose("unwind tables: %zu bytes, %u rules", tables.bytes, tables.rules);
	if (options.python && !tracer_walks_python(recording->tracer))
		log_verbose("the kernel does not load the walk of Python's frames");
	log_verbose("attaching by %s probes",
		    tracer_kind_names[tracer_chosen_kind(recording->tracer)]);
	return EXIT_OK;
}

/* --- the end --- */

void session_stop(struct recording *recording)
{
	vec_for_each(target, &recording->targets)
		tracer_enable(recording->tracer, target->slot, false);
	recording->ended = clock_now(CLOCK_MONOTONIC);
	vec_for_each(target, &recording->targets) {
		uint64_t calls, frees;

		targets_read_seen(recording, target, &calls, &frees);
		target->calls = calls - target->calls;
		target->frees = frees - target->frees;
	}
	tracer_detach(recording->tracer);
}

void session_deinit(struct recording *recording)
{
	tracer_free(recording->tracer);
	names_free(recording->names);
	vec_for_each(target, &recording->targets)
		target_deinit(target);
	free(recording->targets.items);
}
