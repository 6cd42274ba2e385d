/* The command line -> one const struct, and the exit codes that README and man page list. */
#ifndef ALLOCTRACE_CLI_H
#define ALLOCTRACE_CLI_H

#include "output/file.h"
#include "target/host_filter.h"
#include "tracer/tracer.h"
#include "util/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum exit_code {
	EXIT_OK = 0,
	EXIT_OTHER = 1,
	EXIT_USAGE = 2,		/* the command line makes no sense */
	EXIT_PERMISSION = 3,	/* not permitted */
	EXIT_NO_PROCESS = 4,	/* no such process, or none that can be traced */
	EXIT_NOTHING = 5,	/* nothing in it that could be recorded */
	EXIT_OUTPUT = 6,	/* the result cannot be written */
	EXIT_KERNEL = 7,	/* the kernel lacks something */
	EXIT_NOT_RUN = 127,	/* the command cannot be started */
	EXIT_INTERRUPTED = 130, /* interrupted twice: nothing more was written */
};

enum output_format {
	FORMAT_PPROF,
	FORMAT_TEXT,
	FORMAT_FOLDED,
};

struct settings {
	struct {
		pid_t *items;
		size_t count, capacity;
	} pids;			    /* owned; each once */
	bool all;		    /* sweep the host */
	unsigned int top_processes; /* that get probes: those that have grown most */
	bool heap_all;		    /* probes into all of them, from the start */
	uint64_t min_growth;	    /* bytes; 0: SWEEP_MIN_BYTES, or SWEEP_MIN_SHARE of a process */
	bool json;
	struct host_filter *filter; /* owned; of the processes that are watched */
	char **command;		    /* borrowed from argv, NULL-terminated; NULL: none */
	bool follow;		    /* what the targets start, too */
	int64_t duration;	    /* ns; 0: until the target ends or a signal comes */
	int64_t interval;	    /* ns; a profile each, beside the one at the end; 0: none */
	int64_t min_age;	    /* ns; what is younger is not in use; 0: all is */
	uint64_t period;	    /* bytes between samples on average */
	const char *output;	    /* borrowed; NULL: the default name in the current folder */
	enum output_format format;
	unsigned int top;
	enum log_level log_level;
	enum tracer_kind attach;
	struct allocator_extras extras; /* owned; --allocator and --symbol */
	bool mmap;			/* direct mappings are recorded */
	bool probe_throwing;		/* also what an exception may pass without a guard */
	uint32_t max_live, max_stacks;	/* 0: by the sampling rate */
	bool no_demangle;
	struct {
		char **items; /* owned; absolute */
		size_t count, capacity;
	} debug_folders; /* of debug files, before the standard ones */
	bool debuginfod;
	struct output_owner owner; /* who called sudo */
	char *command_line;	   /* owned; ours, for the profile's comments */
};

/*
 * Returns true with the settings filled in; false with *exit_code where there is nothing more to do
 * (-h, -V, or an error, of which one line has been printed).
 */
bool cli_parse(int argc, char **argv, struct settings *settings, int *exit_code);
void settings_deinit(struct settings *settings);

#endif
