#include "target/host.h"

#include "target/cgroup.h"
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
/* Ticks after which no event is about one that has ended. */
#define TICKS_OF_ENDED 2

/* --- the list --- */

static uint64_t hash_of_pid(pid_t pid)
{
	return hash_bytes(HASH_START, &pid, sizeof(pid));
}

static bool has_pid(const void *owner, uint32_t index, const void *key)
{
	const struct host *host = owner;
	const struct host_process *process = host->processes.items[index];

	return process->pid == *(const pid_t *)key && process->state != HOST_ENDED;
}

struct host_process *host_find(const struct host *host, pid_t pid)
{
	uint32_t index;

	if (!hash_index_find(&host->by_pid, hash_of_pid(pid), has_pid, host, &pid, &index))
		return NULL;
	return host->processes.items[index];
}

static bool had_pid(const void *owner, uint32_t index, const void *key)
{
	const struct host *host = owner;
	const struct host_process *process = host->processes.items[index];

	return process->pid == *(const pid_t *)key && process->state == HOST_ENDED;
}

/*
 * Events are read before memory is, so a process may be known to have ended before all that it did is told.
 * The one that an event at `time` is about: one that has the id, or had it until a tick ago.
 */
static struct host_process *find_at(const struct host *host, pid_t pid, int64_t time)
{
	struct host_process *process = host_find(host, pid);
	uint32_t index;

	if ((!process || process->forked_at > time) &&
	    hash_index_find(&host->by_pid, hash_of_pid(pid), had_pid, host, &pid, &index))
		return host->processes.items[index];
	return process;
}

static void close_files(struct host_process *process)
{
	if (process->statm >= 0)
		close(process->statm);
	if (process->thread >= 0)
		close(process->thread);
	process->statm = process->thread = -1;
}

static void process_release(struct host_process *process)
{
	close_files(process);
	readings_deinit(&process->readings);
	free(process->cgroup);
	free(process);
}

static int add_process(struct host *host, pid_t pid, struct host_process **out)
{
	struct host_process *process = calloc(1, sizeof(*process));
	int err;

	if (!process)
		return -ENOMEM;
	process->pid = pid;
	process->state = HOST_NEW;
	process->statm = process->thread = -1;
	process->readings.limit = HOST_READINGS;
	process->in_scope = !host_filter_has_rest(&host->filter);
	err = hash_index_reserve(&host->by_pid);
	if (!err)
		err = vec_push(&host->processes, process);
	if (err) {
		free(process);
		return err;
	}
	hash_index_add(&host->by_pid, hash_of_pid(pid), (uint32_t)(host->processes.count - 1));
	*out = process;
	return 0;
}

/* It has ended, and nothing was seen of it that anybody wants to know. */
static void drop(struct host_process *process)
{
	close_files(process);
	process->state = HOST_ENDED;
	process->gone = !process->kept;
}

static void end(struct host_process *process, int64_t otherwise)
{
	process->ended_at = process->exit_at ? process->exit_at : otherwise;
	close_files(process);
	process->state = HOST_ENDED;
}

/* --- those that lived too short --- */

struct names {
	const char *parent, *comm;
};

static bool has_names(const void *owner, uint32_t index, const void *key)
{
	const struct host *host = owner;
	const struct host_short_lived *item = &host->short_lived.items[index];
	const struct names *names = key;

	return strcmp(item->parent, names->parent) == 0 && strcmp(item->comm, names->comm) == 0;
}

static int count_names(struct host *host, const struct names *names)
{
	uint64_t hash = hash_bytes(HASH_START, names->parent, strlen(names->parent) + 1);
	struct host_short_lived item = {.count = 1};
	uint32_t index;
	int err;

	hash = hash_bytes(hash, names->comm, strlen(names->comm));
	if (hash_index_find(&host->by_names, hash, has_names, host, names, &index)) {
		host->short_lived.items[index].count++;
		return 0;
	}
	if (host->short_lived.count == HOST_SHORT_MAX) {
		host->short_lived_unnamed++;
		return 0;
	}
	memcpy(item.parent, names->parent, strlen(names->parent));
	memcpy(item.comm, names->comm, strlen(names->comm));
	err = hash_index_reserve(&host->by_names);
	if (!err)
		err = vec_push(&host->short_lived, item);
	if (!err)
		hash_index_add(&host->by_names, hash, (uint32_t)(host->short_lived.count - 1));
	return err;
}

/*
 * One that was new has ended. An exec alone may be the late news of one that has ended before: it is no
 * proof of another.
 */
static int count_short_lived(struct host *host, const struct host_process *process)
{
	struct names names = {process->parent_comm, process->comm};

	if (!process->forked_at || !process->in_scope ||
	    !host_filter_takes_comm(&host->filter, process->comm))
		return 0;
	host->short_lived_total++;
	return count_names(host, &names);
}

/* --- events --- */

static void set_comm(struct host_process *process, const char *comm)
{
	memset(process->comm, 0, sizeof(process->comm));
	memcpy(process->comm, comm, strnlen(comm, sizeof(process->comm) - 1));
}

static void start_over(struct host_process *process)
{
	process->read = false;
	process->first = process->latest = (struct host_memory){0};
	process->highest = 0;
	process->noted = false;
	readings_deinit(&process->readings);
	process->readings.limit = HOST_READINGS;
}

/* The id belongs to a new process: whoever is known to have it must have ended, or is that one already. */
static int make_way(struct host *host, struct host_process *known, int64_t now, bool *is_it)
{
	struct host_memory memory;
	int err = 0;

	*is_it = false;
	switch (known->state) {
	case HOST_NEW:
		err = count_short_lived(host, known);
		drop(known);
		break;
	case HOST_WATCHED:
		/* While it can be read, its id is its own: it was seen before this event was. */
		*is_it = host_read_memory(known->statm, &memory) != -ESRCH;
		if (!*is_it)
			end(known, now);
		break;
	default:
		drop(known);
		break;
	}
	return err;
}

static void set_origin(struct host_process *child, const struct host_process *parent,
		       const struct watch_event *event)
{
	child->parent = event->pid;
	child->forked_at = event->time;
	if (parent)
		memcpy(child->parent_comm, parent->comm, sizeof(child->parent_comm));
}

static int on_fork(struct host *host, const struct watch_event *event)
{
	struct host_process *parent = find_at(host, event->pid, event->time);
	struct host_process *known = host_find(host, event->child), *child;
	bool is_it = false;
	int err;

	if (host->kernel_parent && event->pid == host->kernel_parent)
		return 0;
	if (parent)
		parent->children++;
	err = known ? make_way(host, known, event->time, &is_it) : 0;
	if (err)
		return err;
	if (is_it) {
		set_origin(known, parent, event);
		return 0;
	}
	err = add_process(host, event->child, &child);
	if (err)
		return err;
	set_origin(child, parent, event);
	if (parent) {
		memcpy(child->comm, parent->comm, sizeof(child->comm));
		child->in_scope = parent->in_scope;
	}
	return 0;
}

static int on_exec(struct host *host, const struct watch_event *event)
{
	struct host_process *process = find_at(host, event->pid, event->time);

	if (process && process->state == HOST_ENDED)
		return 0;
	if (!process) {
		/* A thread has taken over its id, and the end of the first one was all that was known. */
		int err = add_process(host, event->pid, &process);

		if (err)
			return err;
	}
	/* What was before it was looked at is what it was then. */
	if (process->state != HOST_NEW && event->time < process->seen_at)
		return 0;
	process->exit_at = 0;
	process->executed_at = event->time;
	process->executions++;
	set_comm(process, event->path);
	if (process->state == HOST_WATCHED) {
		start_over(process);
		process->renew = true;
	} else {
		process->state = HOST_NEW;
	}
	return 0;
}

static void on_exit_of(struct host *host, const struct watch_event *event)
{
	struct host_process *process = find_at(host, event->pid, event->time);

	if (!process || (process->state != HOST_NEW && event->time < process->seen_at))
		return;
	process->exit_at = event->time;
	if (process->state == HOST_ENDED)
		process->ended_at = event->time;
}

int host_event(struct host *host, const struct watch_event *event)
{
	/* Those of other pid namespaces have no id here. */
	if (event->type != WATCH_LOST && event->pid <= 0)
		return 0;
	switch (event->type) {
	case WATCH_FORK:
		return event->child > 0 ? on_fork(host, event) : 0;
	case WATCH_EXEC:
		return on_exec(host, event);
	case WATCH_EXIT:
		on_exit_of(host, event);
		return 0;
	case WATCH_LOST:
		host->rescan = true;
		return 0;
	default:
		return 0;
	}
}

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
	close_files(process);
	start_over(process);
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
		end(process, now);
		return 0;
	}
	err = count_short_lived(host, process);
	drop(process);
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
			      ? count_short_lived(host, process)
			      : 0;
		drop(process);
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
		int err = count_short_lived(host, process);

		drop(process);
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
			drop(process);
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
		err = add_process(host, pid, &process);
		if (!err)
			err = consider(host, process, now);
	}
	closedir(proc);
	return err;
}

static int by_growth(const void *a, const void *b)
{
	int64_t x = host_growth(*(struct host_process *const *)a);
	int64_t y = host_growth(*(struct host_process *const *)b);

	return (x < y) - (x > y);
}

/* Of those that have ended no more are kept than the limit: half of it, those that grew most. */
static int forget_some(struct host *host, size_t ended)
{
	struct host_process **all = malloc(ended * sizeof(*all));
	size_t count = 0;

	if (!all)
		return -ENOMEM;
	vec_for_each(item, &host->processes) {
		if ((*item)->state == HOST_ENDED && !(*item)->gone && !(*item)->kept)
			all[count++] = *item;
	}
	if (count)
		qsort(all, count, sizeof(*all), by_growth);
	for (size_t i = HOST_ENDED_MAX / 2; i < count; i++) {
		all[i]->gone = true;
		host->forgotten++;
	}
	free(all);
	return 0;
}

static int index_anew(struct host *host)
{
	hash_index_deinit(&host->by_pid);
	for (size_t i = 0; i < host->processes.count; i++) {
		const struct host_process *process = host->processes.items[i];
		int err;

		if (process->ended_ticks >= TICKS_OF_ENDED)
			continue;
		err = hash_index_reserve(&host->by_pid);
		if (err)
			return err;
		hash_index_add(&host->by_pid, hash_of_pid(process->pid), (uint32_t)i);
	}
	return 0;
}

static void free_gone(struct host *host)
{
	size_t kept = 0;

	vec_for_each(item, &host->processes) {
		if ((*item)->gone && (*item)->ended_ticks >= TICKS_OF_ENDED)
			process_release(*item);
		else
			host->processes.items[kept++] = *item;
	}
	host->processes.count = kept;
}

/* Counts them, frees those that are gone, and keeps in the index no others than events may be about. */
static int tidy(struct host *host)
{
	size_t ended = 0, changed = 0;
	int err = 0;

	host->watched = host->left_out = host->failed = 0;
	vec_for_each(item, &host->processes) {
		struct host_process *process = *item;

		ended += process->state == HOST_ENDED && !process->gone;
		host->watched += process->state == HOST_WATCHED;
		host->left_out += process->state == HOST_LEFT_OUT;
		host->failed += process->state == HOST_LEFT_OUT && process->failed;
		if (process->state == HOST_ENDED && process->ended_ticks < TICKS_OF_ENDED) {
			process->ended_ticks++;
			changed++;
		}
	}
	if (ended > HOST_ENDED_MAX)
		err = forget_some(host, ended);
	else if (!changed)
		return 0;
	free_gone(host);
	return err ? err : index_anew(host);
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
	tidied = tidy(host);
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
		process_release(*item);
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
