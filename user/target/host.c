#include "target/host.h"

#include "target/cgroup.h"
#include "target/host_list.h"
#include "target/host_short_lived.h"
#include "util/clock.h"
#include "util/vec.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What was left out may be another program, another user's, in another group, by now: looked at every so many ticks. */
#define TICKS_OF_LEFT_OUT 16

/* --- a tick --- */

/* What a look has shown; cgroups are the look's. */
static int take_look(struct host_process *process, const struct host_look *look)
{
	const char *path = "";
	size_t length = cgroup_best_path(look->cgroups, &path);
	char *cgroup = strndup(path, length < HOST_CGROUP_MAX ? length : HOST_CGROUP_MAX);

	if (!cgroup)
		return -ENOMEM;
	free(process->cgroup);
	process->cgroup = cgroup;
	process->start_time = look->start_time;
	process->parent = look->parent;
	process->user = look->user;
	memcpy(process->comm, look->comm, sizeof(process->comm));
	return 0;
}

static bool is_wanted(const struct host *host, const struct host_process *process)
{
	return process->in_scope && host_filter_takes_comm(&host->filter, process->comm) &&
	       process->pid != getpid();
}

static void leave_out(struct host *host, struct host_process *process, int failure)
{
	process->state = HOST_LEFT_OUT;
	process->failed = failure != 0;
	if (failure)
		host->failure = failure;
	host_list_close_files(process);
	host_list_start_over(process);
}

static int take_reading(struct host_process *process, const struct host_memory *memory, int64_t now)
{
	uint64_t anon = host_memory_anon(memory);

	process->exit_at = 0;
	process->latest = *memory;
	if (!process->read)
		process->first = *memory;
	process->read = true;
	if (anon > process->highest)
		process->highest = anon;
	return readings_add(&process->readings, now, anon);
}

/* Reads the memory of one that is watched, which ends it if there is none. 0 or -ENOMEM. */
static int read_one(struct host *host, struct host_process *process, int64_t now)
{
	struct host_memory memory;
	int err =
		host_read_memory(process->thread >= 0 ? process->thread : process->statm, &memory);

	if (err == -ECHILD || (err && process->thread >= 0)) {
		if (process->thread >= 0)
			close(process->thread);
		process->thread = host_find_thread(process->pid, process->statm);
		err = process->thread >= 0 ? host_read_memory(process->thread, &memory) : -ESRCH;
	}
	if (!err)
		return take_reading(process, &memory, now);
	if (process->readings.count || process->executions) {
		host_list_end(process, now);
		return 0;
	}
	err = host_count_short_lived(host, process);
	host_list_drop(process);
	return err;
}

/* No process, but something that has its place in /proc. */
static void count_other(struct host *host, pid_t pid, const struct host_look *look)
{
	host->zombies += look->kind == HOST_KIND_ZOMBIE;
	host->kernel_threads += look->kind == HOST_KIND_KERNEL;
	if (look->kind == HOST_KIND_KERNEL && !look->parent)
		host->kernel_parent = pid;
}

/* One that has not been looked at, or is to be looked at again after it was left out. */
static int consider(struct host *host, struct host_process *process, int64_t now)
{
	bool was_new = process->state == HOST_NEW;
	struct host_look look = {.statm = -1};
	int err;

	process->seen_at = clock_now(CLOCK_MONOTONIC);
	err = host_look(process->pid, &look);
	if (err == -ENOMEM)
		return err;
	if (err == -ESRCH || (!err && look.kind != HOST_KIND_PROCESS)) {
		/* What /proc was read for, and not an event. */
		if (!err && was_new && !process->forked_at && !process->executions)
			count_other(host, process->pid, &look);
		err = was_new && (err || look.kind == HOST_KIND_ZOMBIE)
			      ? host_count_short_lived(host, process)
			      : 0;
		host_list_drop(process);
		return err;
	}
	if (err) {
		leave_out(host, process, err);
		return 0;
	}
	process->exit_at = 0;
	process->in_scope = host_filter_takes_rest(&host->filter, look.user, look.cgroups);
	err = take_look(process, &look);
	if (err || !is_wanted(host, process)) {
		host_look_deinit(&look);
		if (!err)
			leave_out(host, process, 0);
		return err;
	}
	process->state = HOST_WATCHED;
	process->failed = false;
	process->statm = look.statm;
	look.statm = -1;
	host_look_deinit(&look);
	return read_one(host, process, now);
}

static int consider_new(struct host *host, struct host_process *process, int64_t now)
{
	/* The usual case of the many: an end was reported, and nobody has the id. */
	if (process->exit_at && kill(process->pid, 0) && errno == ESRCH) {
		int err = host_count_short_lived(host, process);

		host_list_drop(process);
		return err;
	}
	return consider(host, process, now);
}

/* One that is watched: is it still wanted, by what it is called now? */
static int look_again(struct host *host, struct host_process *process)
{
	struct host_look look = {.statm = -1};
	struct host_memory memory;
	int err = host_look(process->pid, &look);

	process->renew = false;
	if (err)
		return err == -ENOMEM ? err : 0;
	/* The look was at this one, if its id is still its own; else the next reading says what it is. */
	if (look.kind == HOST_KIND_PROCESS && host_read_memory(process->statm, &memory) != -ESRCH) {
		process->in_scope = host_filter_takes_rest(&host->filter, look.user, look.cgroups);
		err = take_look(process, &look);
		if (!err && !is_wanted(host, process))
			leave_out(host, process, 0);
	}
	host_look_deinit(&look);
	return err;
}

static int tick_one(struct host *host, struct host_process *process, int64_t now)
{
	int err = 0;

	switch (process->state) {
	case HOST_NEW:
		return consider_new(host, process, now);
	case HOST_WATCHED:
		if (process->renew)
			err = look_again(host, process);
		if (!err && process->state == HOST_WATCHED)
			err = read_one(host, process, now);
		return err;
	case HOST_LEFT_OUT:
		if (process->exit_at)
			host_list_drop(process);
		else if (host->rescan || (unsigned int)process->pid % TICKS_OF_LEFT_OUT ==
						 host->ticks % TICKS_OF_LEFT_OUT)
			return consider(host, process, now);
		return 0;
	default:
		return 0;
	}
}

/* Those of /proc that are not known. */
static int find_new(struct host *host, int64_t now)
{
	const struct dirent *entry;
	DIR *proc = opendir("/proc");
	int err = 0;

	if (!proc)
		return -errno;
	host->kernel_threads = host->zombies = 0;
	while (!err && (entry = readdir(proc))) {
		struct host_process *process;
		pid_t pid = (pid_t)atoi(entry->d_name);

		if (pid <= 0 || host_find(host, pid))
			continue;
		err = host_list_add(host, pid, &process);
		if (!err)
			err = consider(host, process, now);
	}
	closedir(proc);
	return err;
}

int host_read(struct host *host, int64_t now)
{
	size_t count = host->processes.count;
	int err = 0, tidied;

	for (size_t i = 0; !err && i < count; i++)
		err = tick_one(host, host->processes.items[i], now);
	if (!err && host->rescan) {
		err = find_new(host, now);
		host->rescan = err != 0;
	}
	host->ticks++;
	tidied = host_list_tidy(host);
	return err ? err : tidied;
}

int host_open(struct host_filter *filter, struct host **out)
{
	struct host *host = calloc(1, sizeof(*host));
	int err;

	if (!host)
		return -ENOMEM;
	host->filter = *filter;
	*filter = (struct host_filter){0};
	host->rescan = true;
	err = host_read(host, clock_now(CLOCK_MONOTONIC));
	if (err) {
		host_free(host);
		return err;
	}
	*out = host;
	return 0;
}

void host_free(struct host *host)
{
	if (!host)
		return;
	vec_for_each(item, &host->processes)
		host_list_release(*item);
	free(host->processes.items);
	hash_index_deinit(&host->by_pid);
	free(host->short_lived.items);
	hash_index_deinit(&host->by_names);
	host_filter_deinit(&host->filter);
	free(host);
}

/* --- what grows --- */

static bool has_grown(const struct host_process *process, const struct host_grown *grown)
{
	int64_t growth = host_growth(process);

	if (process->gone || !process->read ||
	    (process->state != HOST_WATCHED && !(grown->ended && process->state == HOST_ENDED)))
		return false;
	if (growth <= 0)
		return false;
	return (uint64_t)growth >= grown->bytes ||
	       (grown->share > 0 && growth >= VERDICT_LEAST_BYTES &&
		(double)growth >= grown->share * (double)host_memory_anon(&process->first));
}

size_t host_growers(const struct host *host, const struct host_grown *grown,
		    struct host_process **found, size_t room)
{
	size_t count = 0;

	vec_for_each(item, &host->processes) {
		size_t at;

		if (!has_grown(*item, grown))
			continue;
		/* Into its place; what falls out at the end grew least. */
		for (at = count; at && host_growth(found[at - 1]) < host_growth(*item); at--) {
			if (at < room)
				found[at] = found[at - 1];
		}
		if (at < room)
			found[at] = *item;
		if (count < room)
			count++;
	}
	return count;
}

/* Whatever was read under its id was its own, if it still is. */
static int confirm(const struct host_process *process)
{
	struct host_memory memory;

	return host_read_memory(process->statm, &memory) == -ESRCH ? -ESRCH : 0;
}

int host_read_detail(const struct host_process *process, struct memory *out)
{
	struct memory detail;
	int err;

	if (process->state != HOST_WATCHED)
		return -ESRCH;
	err = memory_read(process->pid, &detail);
	if (!err)
		err = confirm(process);
	if (!err)
		*out = detail;
	return err;
}

int host_read_share(const struct host_process *process, struct memory_share *out)
{
	struct memory_share share;
	int err;

	if (process->state != HOST_WATCHED)
		return -ESRCH;
	err = memory_read_share(process->pid, &share);
	if (!err)
		err = confirm(process);
	if (!err)
		*out = share;
	return err;
}
