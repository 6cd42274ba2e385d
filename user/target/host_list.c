#include "target/host_list.h"

#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Ticks after which no event is about one that has ended. */
#define TICKS_OF_ENDED 2

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

struct host_process *host_list_find_at(const struct host *host, pid_t pid, int64_t time)
{
	struct host_process *process = host_find(host, pid);
	uint32_t index;

	if ((!process || process->forked_at > time) &&
	    hash_index_find(&host->by_pid, hash_of_pid(pid), had_pid, host, &pid, &index))
		return host->processes.items[index];
	return process;
}

void host_list_close_files(struct host_process *process)
{
	if (process->statm >= 0)
		close(process->statm);
	if (process->thread >= 0)
		close(process->thread);
	process->statm = process->thread = -1;
}

void host_list_release(struct host_process *process)
{
	host_list_close_files(process);
	readings_deinit(&process->readings);
	free(process->cgroup);
	free(process);
}

int host_list_add(struct host *host, pid_t pid, struct host_process **out)
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

void host_list_drop(struct host_process *process)
{
	host_list_close_files(process);
	process->state = HOST_ENDED;
	process->gone = !process->kept;
}

void host_list_end(struct host_process *process, int64_t otherwise)
{
	process->ended_at = process->exit_at ? process->exit_at : otherwise;
	host_list_close_files(process);
	process->state = HOST_ENDED;
}

void host_list_start_over(struct host_process *process)
{
	process->read = false;
	process->first = process->latest = (struct host_memory){0};
	process->highest = 0;
	process->noted = false;
	readings_deinit(&process->readings);
	process->readings.limit = HOST_READINGS;
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
			host_list_release(*item);
		else
			host->processes.items[kept++] = *item;
	}
	host->processes.count = kept;
}

int host_list_tidy(struct host *host)
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
