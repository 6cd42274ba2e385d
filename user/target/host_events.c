/* What the kernel tells of processes between two readings: forks, execs, exits. */
#include "target/host.h"
#include "target/host_list.h"
#include "target/host_short_lived.h"

#include <errno.h>
#include <string.h>

static void set_comm(struct host_process *process, const char *comm)
{
	memset(process->comm, 0, sizeof(process->comm));
	memcpy(process->comm, comm, strnlen(comm, sizeof(process->comm) - 1));
}

/* The id belongs to a new process: whoever is known to have it must have ended, or is that one already. */
static int make_way(struct host *host, struct host_process *known, int64_t now, bool *is_it)
{
	struct host_memory memory;
	int err = 0;

	*is_it = false;
	switch (known->state) {
	case HOST_NEW:
		err = host_count_short_lived(host, known);
		host_list_drop(known);
		break;
	case HOST_WATCHED:
		/* While it can be read, its id is its own: it was seen before this event was. */
		*is_it = host_read_memory(known->statm, &memory) != -ESRCH;
		if (!*is_it)
			host_list_end(known, now);
		break;
	default:
		host_list_drop(known);
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
	struct host_process *parent = host_list_find_at(host, event->pid, event->time);
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
	err = host_list_add(host, event->child, &child);
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
	struct host_process *process = host_list_find_at(host, event->pid, event->time);

	if (process && process->state == HOST_ENDED)
		return 0;
	if (!process) {
		/* A thread has taken over its id, and the end of the first one was all that was known. */
		int err = host_list_add(host, event->pid, &process);

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
		host_list_start_over(process);
		process->renew = true;
	} else {
		process->state = HOST_NEW;
	}
	return 0;
}

static void on_exit_of(struct host *host, const struct watch_event *event)
{
	struct host_process *process = host_list_find_at(host, event->pid, event->time);

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
