#include "cli.h"

#include "extras.h"
#include "sweep.h"
#include "util/units.h"
#include "util/vec.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_PERIOD (512 * 1024)
#define DEFAULT_TOP    10
#define INTERVAL_MIN   100000000 /* ns */

/* Options without a letter. */
enum {
	OPTION_ATTACH = 256,
	OPTION_MAX_LIVE,
	OPTION_MAX_STACKS,
	OPTION_NO_DEMANGLE,
	OPTION_DEBUG_DIR,
	OPTION_DEBUGINFOD,
	OPTION_TOP_PROCESSES,
	OPTION_MIN_GROWTH,
	OPTION_HEAP_ALL,
	OPTION_JSON,
	OPTION_COMM,
	OPTION_CGROUP,
	OPTION_UID,
	OPTION_ALLOCATOR,
	OPTION_SYMBOL,
	OPTION_PROBE_THROWING,
	OPTION_MMAP,
	OPTION_FOLLOW,
	OPTION_MIN_AGE,
};

static const struct argp_option options[] = {
	{NULL, 0, NULL, 0, "What to trace:", 1},
	{"pid", 'p', "PID[,PID...]", 0, "Trace these processes; may be repeated", 0},
	{"all", 'a', NULL, 0,
	 "Watch all processes of the host, and trace those that grow; each that is traced gets a "
	 "profile",
	 0},
	{"top-processes", OPTION_TOP_PROCESSES, "N", 0,
	 "With --all: trace the N that have grown most (default: 10)", 0},
	{"min-growth", OPTION_MIN_GROWTH, "SIZE", 0,
	 "With --all: what grows by less is not traced (default: 1 % of what it had at first, but "
	 "256KiB at least and 1MiB at most)",
	 0},
	{"heap-all", OPTION_HEAP_ALL, NULL, 0,
	 "With --all: the heap of every process that is watched, from the start, grown or not. One "
	 "link "
	 "per file: all processes of the host that map it carry its breakpoints, watched or not, "
	 "and pay "
	 "for each of their allocations",
	 0},
	{"comm", OPTION_COMM, "NAME", 0,
	 "With --all: only processes of this name; may be repeated, as the next two", 0},
	{"cgroup", OPTION_CGROUP, "PATH", 0,
	 "With --all: only what is in this control group, or below", 0},
	{"uid", OPTION_UID, "USER", 0, "With --all: only processes of this user, by number or name",
	 0},
	{"follow", OPTION_FOLLOW, NULL, 0,
	 "Trace what these start from now on too, as processes of their own", 0},
	{"duration", 'd', "TIME", 0,
	 "Stop after TIME: 60 or 60s, 500ms, 5m, 1h (default: when the process ends, or at Ctrl-C)",
	 0},
	{"interval", 'i', "TIME", 0,
	 "Also write a numbered profile every TIME (NAME.0001.pb.gz, ...), for pprof's -base", 0},
	{"sample-bytes", 's', "SIZE", 0,
	 "Mean number of bytes between samples: 64KiB, 1MiB (default: 512KiB). 1 records every "
	 "allocation: figures are exact, the target slows down",
	 0},
	{"allocator", OPTION_ALLOCATOR, "PATH:PREFIX", 0,
	 "In the file PATH, PREFIX malloc, PREFIX free and so on are an allocator; may be repeated",
	 0},
	{"symbol", OPTION_SYMBOL, "KIND:NAME[:argN...]", 0,
	 "The function NAME allocates or frees (alloc:pool_get:arg2, free:pool_put; the man page "
	 "lists "
	 "the kinds); may be repeated",
	 0},
	{"probe-throwing", OPTION_PROBE_THROWING, NULL, 0,
	 "Also probe functions through which a C++ exception may pass where nothing makes that "
	 "safe: "
	 "an allocation that throws then ends the process",
	 0},
	{"mmap", OPTION_MMAP, NULL, 0,
	 "Also record what the program maps by itself (mmap, mremap, brk), apart from its "
	 "allocator",
	 0},
	{NULL, 0, NULL, 0, "What to write:", 2},
	{"min-age", OPTION_MIN_AGE, "TIME", 0,
	 "Leave what is younger than TIME at the end out of inuse_objects and inuse_space", 0},
	{"output", 'o', "PATH", 0,
	 "File, folder, or - for stdout; %p stands for the pid, %c for the command's name "
	 "(default: "
	 "alloctrace.%c.%p.pb.gz)",
	 0},
	{"format", 'f', "FORMAT", 0, "pprof (default), text or folded", 0},
	{"json", OPTION_JSON, NULL, 0, "With --all: the result on stdout as JSON, not as a table",
	 0},
	{"top", 'T', "N", 0,
	 "Sites in the summary, or processes in the table of --all (default: 10)", 0},
	{"no-demangle", OPTION_NO_DEMANGLE, NULL, 0, "Leave C++ and Rust names as they are", 0},
	{"debug-dir", OPTION_DEBUG_DIR, "DIR", 0,
	 "Look for separate debug files in DIR first, as in /usr/lib/debug; may be repeated", 0},
	{"debuginfod", OPTION_DEBUGINFOD, NULL, 0,
	 "Fetch the debug files that are missing from the servers of DEBUGINFOD_URLS", 0},
	{"quiet", 'q', NULL, 0, "No summary, no progress, no warnings", 0},
	{"verbose", 'v', NULL, 0, "Tell what is done", 0},
	{NULL, 0, NULL, 0, "Limits and mechanism:", 3},
	{"max-live", OPTION_MAX_LIVE, "N", 0,
	 "Sampled blocks that can be live at one time (default: 256Ki; 4Mi below 64KiB a sample)",
	 0},
	{"max-stacks", OPTION_MAX_STACKS, "N", 0, "Different stacks (default: 64Ki)", 0},
	{"attach", OPTION_ATTACH, "KIND", 0,
	 "session, multi or perf (default: the first that the kernel has)", 0},
	{NULL, 0, NULL, 0, "About alloctrace:", -1},
	{"version", 'V', NULL, 0, "Print the version", 0},
	{"help", 'h', NULL, 0, "Print this", 0},
	{0},
};

static const char doc[] =
	"Heap profiles of running processes, by sampling their allocations in the kernel."
	"\v"
	"  sudo alloctrace -p 4321 -d 60s      a process that runs\n"
	"  sudo alloctrace -a -d 60s           which process of this host grows, and where\n"
	"  sudo alloctrace -- ./server         a command, from its first allocation on\n"
	"  go tool pprof -http=: alloctrace.server.4321.pb.gz\n"
	"\n"
	"Exit status: 0 recorded and written, 1 other failure, 2 usage, 3 not permitted, 4 no such "
	"process, 5 nothing to record, 6 result not written, 7 the kernel lacks something, 127 "
	"command not "
	"started, "
	"130 interrupted twice.";

/* One line, then the exit code: nothing of "Try --help", which argp would add. */
#define usage_error(...)                                                                           \
	({                                                                                         \
		log_error(__VA_ARGS__);                                                            \
		exit(EXIT_USAGE);                                                                  \
		EINVAL;                                                                            \
	})

/* A whole number in [low, high]; nothing before or after it. */
static bool parse_number(const char *text, unsigned long low, unsigned long high,
			 unsigned long *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &end, 10);
	return !errno && !*end && *out >= low && *out <= high;
}

static int add_pids(struct settings *settings, const char *list)
{
	char *copy = strdup(list), *rest = copy, *item;

	if (!copy)
		return ENOMEM;
	while ((item = strsep(&rest, ","))) {
		unsigned long pid;
		bool known = false;

		if (!parse_number(item, 1, INT_MAX, &pid))
			usage_error("not a process id: '%s'", item);
		vec_for_each(other, &settings->pids)
			known |= *other == (pid_t)pid;
		if (!known && vec_push(&settings->pids, (pid_t)pid))
			exit(EXIT_OTHER);
	}
	free(copy);
	if (settings->pids.count > MAX_TARGETS)
		usage_error("more than %d processes", MAX_TARGETS);
	return 0;
}

static int choose(const char *option, const char *text, const char *const *names, int count)
{
	for (int i = 0; i < count; i++) {
		if (strcmp(text, names[i]) == 0)
			return i;
	}
	return usage_error("%s: unknown: '%s'", option, text);
}

static int parse_limit(const char *option, const char *text, uint32_t *limit)
{
	unsigned long value;

	if (!parse_number(text, 1, 1UL << 28, &value))
		return usage_error("%s: not a number from 1 to %lu: '%s'", option, 1UL << 28, text);
	*limit = (uint32_t)value;
	return 0;
}

static error_t add_debug_folder(struct settings *settings, const char *path)
{
	char *absolute = realpath(path, NULL);
	struct stat st;

	if (!absolute || stat(absolute, &st))
		return usage_error("--debug-dir: %s: '%s'", strerror(errno), path);
	if (!S_ISDIR(st.st_mode))
		return usage_error("--debug-dir: not a folder: '%s'", path);
	return vec_push(&settings->debug_folders, absolute) ? ENOMEM : 0;
}

static error_t check_extra(int err, const char *message, const char *argument)
{
	if (err == -ENOMEM)
		return ENOMEM;
	return err ? usage_error(message, argument) : 0;
}

static error_t check_filter(const char *option, int err, const char *argument)
{
	if (err == -ENOMEM)
		return ENOMEM;
	if (err == -ENOENT)
		return usage_error("%s: no such user: '%s'", option, argument);
	return err ? usage_error("%s: makes no sense: '%s'", option, argument) : 0;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
	static const char *const formats[] = {"pprof", "text", "folded"};
	struct settings *settings = state->input;
	unsigned long value;

	switch (key) {
	case ARGP_KEY_INIT:
		/* getopt says what is wrong in one line; argp's "Try --help" after it goes nowhere.
		 */
		state->err_stream = fopen("/dev/null", "w");
		return 0;
	case 'p':
		return add_pids(settings, argument);
	case 'd':
		if (units_parse_duration(argument, &settings->duration))
			return usage_error("not a time (60, 60s, 500ms, 5m, 1h): '%s'", argument);
		return 0;
	case 'i':
		if (units_parse_duration(argument, &settings->interval) ||
		    settings->interval < INTERVAL_MIN)
			return usage_error("--interval: not a time from 100ms on: '%s'", argument);
		return 0;
	case 's':
		if (units_parse_size(argument, &settings->period) || settings->period > 1ULL << 40)
			return usage_error("not a size from 1 to 1TiB (512KiB, 1MiB): '%s'",
					   argument);
		return 0;
	case 'o':
		settings->output = argument;
		return *argument ? 0 : usage_error("--output: empty");
	case 'f':
		settings->format = (enum output_format)choose("--format", argument, formats, 3);
		return 0;
	case 'T':
		if (!parse_number(argument, 0, 1000000, &value))
			return usage_error("--top: not a number: '%s'", argument);
		settings->top = (unsigned int)value;
		return 0;
	case 'q':
		settings->log_level = LOG_QUIET;
		return 0;
	case 'v':
		settings->log_level = LOG_VERBOSE;
		return 0;
	case 'a':
		settings->all = true;
		return 0;
	case OPTION_TOP_PROCESSES:
		if (!parse_number(argument, 1, SWEEP_TOP_MAX, &value))
			return usage_error("--top-processes: not a number from 1 to %d: '%s'",
					   SWEEP_TOP_MAX, argument);
		settings->top_processes = (unsigned int)value;
		return 0;
	case OPTION_MIN_GROWTH:
		if (units_parse_size(argument, &settings->min_growth))
			return usage_error("--min-growth: not a size: '%s'", argument);
		return 0;
	case OPTION_HEAP_ALL:
		settings->heap_all = true;
		return 0;
	case OPTION_COMM:
		return check_filter("--comm", host_filter_add_comm(settings->filter, argument),
				    argument);
	case OPTION_CGROUP:
		return check_filter("--cgroup", host_filter_add_cgroup(settings->filter, argument),
				    argument);
	case OPTION_UID:
		return check_filter("--uid", host_filter_add_user(settings->filter, argument),
				    argument);
	case OPTION_JSON:
		settings->json = true;
		return 0;
	case OPTION_ATTACH:
		settings->attach = (enum tracer_kind)choose("--attach", argument, tracer_kind_names,
							    TRACER_KINDS);
		return 0;
	case OPTION_FOLLOW:
		settings->follow = true;
		return 0;
	case OPTION_MIN_AGE:
		if (units_parse_duration(argument, &settings->min_age))
			return usage_error("--min-age: not a time (60, 60s, 500ms, 5m, 1h): '%s'",
					   argument);
		return 0;
	case OPTION_MAX_LIVE:
		return parse_limit("--max-live", argument, &settings->max_live);
	case OPTION_MAX_STACKS:
		return parse_limit("--max-stacks", argument, &settings->max_stacks);
	case OPTION_ALLOCATOR:
		return check_extra(extras_add_prefix(&settings->extras, argument),
				   "--allocator: not PATH:PREFIX: '%s'", argument);
	case OPTION_SYMBOL:
		return check_extra(extras_add_symbol(&settings->extras, argument),
				   "--symbol: not KIND:NAME[:argN...] with a kind's number of "
				   "arguments: '%s'",
				   argument);
	case OPTION_PROBE_THROWING:
		settings->probe_throwing = true;
		return 0;
	case OPTION_MMAP:
		settings->mmap = true;
		return 0;
	case OPTION_NO_DEMANGLE:
		settings->no_demangle = true;
		return 0;
	case OPTION_DEBUG_DIR:
		return add_debug_folder(settings, argument);
	case OPTION_DEBUGINFOD:
		if (!getenv("DEBUGINFOD_URLS"))
			return usage_error(
				"--debuginfod: DEBUGINFOD_URLS is not set (sudo removes it "
				"without --preserve-env=DEBUGINFOD_URLS)");
		settings->debuginfod = true;
		return 0;
	case 'V':
		printf("alloctrace %s\n", ALLOCTRACE_VERSION);
		exit(EXIT_OK);
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		exit(EXIT_OK);
	case ARGP_KEY_ARG:
		if (!state->quoted || state->next - 1 < state->quoted)
			return usage_error("unexpected '%s' (processes are given by -p, a command "
					   "after --)",
					   argument);
		settings->command = &state->argv[state->next - 1];
		state->next = state->argc;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Who called sudo, and so owns what is written. */
static void find_owner(struct output_owner *owner)
{
	const char *uid = getenv("SUDO_UID"), *gid = getenv("SUDO_GID");
	unsigned long uid_value, gid_value;

	if (geteuid() != 0 || !uid || !gid || !parse_number(uid, 0, UINT_MAX - 1, &uid_value) ||
	    !parse_number(gid, 0, UINT_MAX - 1, &gid_value))
		return;
	*owner = (struct output_owner){
		.given = true, .uid = (uid_t)uid_value, .gid = (gid_t)gid_value};
}

static char *join(int argc, char **argv)
{
	char *line = NULL;
	size_t size;
	FILE *to = open_memstream(&line, &size);

	if (!to)
		return NULL;
	for (int i = 0; i < argc; i++)
		fprintf(to, "%s%s", i ? " " : "", argv[i]);
	return fclose(to) ? NULL : line;
}

static bool has_filter(const struct host_filter *filter)
{
	return filter->comms.count || filter->cgroups.count || filter->users.count;
}

static bool has_extras(const struct allocator_extras *extras)
{
	return extras->prefix_count || extras->function_count;
}

/* Exactly one thing to trace, and nothing that does not go with it. */
static bool check_what(const struct settings *settings)
{
	int given = (settings->pids.count > 0) + (settings->command != NULL) + settings->all;

	if (!given)
		log_error("nothing to trace: give -p PID, --all or -- COMMAND (--help tells more)");
	else if (given > 1)
		log_error("give either -p PID or --all or -- COMMAND");
	else if (settings->all && settings->follow)
		log_error("--follow does not go with --all");
	else if (settings->all && settings->format != FORMAT_PPROF)
		log_error("--format: --all writes pprof profiles");
	else if (!settings->all && settings->json)
		log_error("--json goes with --all");
	else if (!settings->all && settings->heap_all)
		log_error("--heap-all goes with --all");
	/* Whether an exception can pass them is not known, and who maps their file may be anybody. */
	else if (settings->heap_all && has_extras(&settings->extras) && !settings->probe_throwing)
		log_error("--heap-all: --allocator and --symbol also need --probe-throwing there");
	else if (!settings->all && has_filter(settings->filter))
		log_error("--comm, --cgroup and --uid go with --all");
	else if (settings->duration && settings->min_age >= settings->duration)
		log_error("--min-age: nothing gets that old within --duration");
	else
		return true;
	return false;
}

bool cli_parse(int argc, char **argv, struct settings *settings, int *exit_code)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "-p PID\n-a\n-- COMMAND [ARGUMENT...]",
		.doc = doc,
	};
	error_t err;

	*settings = (struct settings){
		.period = DEFAULT_PERIOD,
		.top = DEFAULT_TOP,
		.top_processes = SWEEP_TOP,
		.log_level = LOG_NORMAL,
		.attach = TRACER_AUTO,
		.extras = {.mappings = true},
	};
	settings->command_line = join(argc, argv);
	settings->filter = calloc(1, sizeof(*settings->filter));
	*exit_code = EXIT_OTHER;
	if (!settings->filter)
		return false;
	argp_err_exit_status = EXIT_USAGE;
	argv[0] = (char *)"alloctrace"; /* getopt's messages begin like ours */
	err = argp_parse(&argp, argc, argv, ARGP_IN_ORDER | ARGP_NO_HELP, NULL, settings);
	*exit_code = EXIT_USAGE;
	if (err) {
		log_error("%s", strerror(err));
		return false;
	}
	if (!check_what(settings))
		return false;
	find_owner(&settings->owner);
	*exit_code = EXIT_OTHER;
	return settings->command_line != NULL;
}

void settings_deinit(struct settings *settings)
{
	free(settings->pids.items);
	vec_for_each(folder, &settings->debug_folders)
		free(*folder);
	free(settings->debug_folders.items);
	free(settings->command_line);
	extras_deinit(&settings->extras);
	if (settings->filter)
		host_filter_deinit(settings->filter);
	free(settings->filter);
}
