#include "sweep_growth.h"

#include "util/cleanup.h"
#include "util/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EXTENSION "pb.gz"

/* Beside the heap's profile of that process. To be freed; NULL: no memory. */
static char *final_path(const struct settings *settings, const struct host_process *process)
{
	CLEANUP(cleanup_free) char *heap = NULL;
	char *path;

	if (output_path(settings->output, process->comm, process->pid, EXTENSION, &heap) ||
	    output_path(settings->output, process->comm, process->pid, "growth." EXTENSION, &path))
		return NULL;
	if (strcmp(path, heap) != 0)
		return path;
	/* A pattern without an extension of ours. */
	free(path);
	return asprintf(&path, "%s.growth", heap) < 0 ? NULL : path;
}

static char *choose_path(const struct settings *settings, const struct host_process *process,
			 unsigned int number)
{
	CLEANUP(cleanup_free) char *path = final_path(settings, process);
	char *chosen = NULL;

	if (!path || (number && output_numbered(path, EXTENSION, number, &chosen)))
		return NULL;
	if (!number) {
		chosen = path;
		path = NULL;
	}
	return chosen;
}

static int write_data(const struct sweep *sweep, const struct host_process *process,
		      unsigned int number, const uint8_t *data, size_t size, char **path)
{
	const struct settings *settings = sweep->settings;
	char *chosen = choose_path(settings, process, number);
	int err = chosen ? output_write(chosen, &settings->owner, data, size) : -ENOMEM;

	if (!err) {
		*path = chosen;
		return EXIT_OK;
	}
	log_error("cannot write the growth of process %d: %s", process->pid, strerror(-err));
	free(chosen);
	return EXIT_OUTPUT;
}

int sweep_growth_write(struct sweep *sweep, const struct host_process *process, unsigned int number,
		       struct sweep_site *site, char **path)
{
	const struct settings *settings = sweep->settings;
	const struct recording *recording = &sweep->recording;
	const int64_t now = number ? clock_now(CLOCK_MONOTONIC) : recording->ended;
	const struct profile_info info = {
		.pid = process->pid,
		.comm = (char *)process->comm,
		.exe = (char *)"",
		.version = (char *)ALLOCTRACE_VERSION,
		.command_line = settings->command_line,
		.kernel = sweep->system.release,
		.attach = (char *)"",
		.time_nanos = sweep->started_realtime,
		.duration_nanos = now - recording->started,
		.end_reason = number ? "it goes on" : recording->end_reason,
	};
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	size_t size;
	int err = 0;

	if (!sweep->pages || process->state == HOST_ENDED)
		return EXIT_OK;
	if (!sweep->recording.names)
		err = names_new(settings, &sweep->recording.names);
	if (!err)
		err = sweep_pages_profile(sweep->pages, process, sweep->recording.names, &info,
					  site, &data, &size);
	if (err)
		return EXIT_OTHER;
	return data ? write_data(sweep, process, number, data, size, path) : EXIT_OK;
}
