#include "targets.h"

#include "util/clock.h"
#include "util/vec.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int targets_say_error(pid_t pid, int err)
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

int targets_add(struct recording *recording, struct process *process, int64_t opened_at)
{
	struct target_record target = {
		.process = process,
		.opened_at = opened_at,
		.slot = (uint32_t)recording->targets.count,
	};

	return vec_push(&recording->targets, target);
}

int targets_open(struct recording *recording)
{
	vec_for_each(pid, &recording->settings->pids) {
		struct process *process;
		int64_t time = clock_now(CLOCK_MONOTONIC);
		int err = process_open(*pid, &process);

		if (err)
			return targets_say_error(*pid, err);
		if (process->pid == getpid()) {
			log_error("process %d is alloctrace itself", process->pid);
			process_free(process);
			return EXIT_NO_PROCESS;
		}
		if (targets_add(recording, process, time)) {
			process_free(process);
			return EXIT_OTHER;
		}
	}
	return EXIT_OK;
}

/* An image's allocator, by its own symbols. */
static int find_allocator(const struct recording *recording, const struct image *image,
			  struct allocator **out)
{
	return allocator_find(image, NULL, &recording->settings->extras, out);
}

int targets_find_allocators(const struct recording *recording, struct target_record *target)
{
	while (target->images.count < target->process->images.count) {
		struct probed_image item = {
			.image = target->process->images.items[target->images.count],
		};
		int err = find_allocator(recording, item.image, &item.allocator);

		if (err == -ENOMEM ||
		    allocator_find_unwinder(item.image, &item.unwinder) == -ENOMEM ||
		    vec_push(&target->images, item)) {
			allocator_free(item.allocator);
			allocator_free(item.unwinder);
			return -ENOMEM;
		}
		if (err && err != -ENOENT)
			log_verbose("%s: not searched for an allocator: %s", item.image->path,
				    strerror(-err));
	}
	return 0;
}

static bool has_throwing(const struct target_record *target)
{
	vec_for_each(item, &target->images) {
		for (size_t i = 0; item->allocator && i < item->allocator->function_count; i++) {
			if (item->allocator->functions[i].throws)
				return true;
		}
	}
	return false;
}

/*
 * Decides how functions through which exceptions pass are probed, where there are such: with a guard
 * in every image from index `from` on that unwinds, or else if they cannot fail.
 */
static int protect_throwing(struct recording *recording, struct target_record *target, size_t from)
{
	int err = -EOPNOTSUPP;

	if (!has_throwing(target))
		return 0;
	for (size_t i = target->throwing ? from : 0; i < target->images.count; i++) {
		const struct probed_image *item = &target->images.items[i];

		if (!item->unwinder)
			continue;
		err = tracer_guard(recording->tracer, target->slot, target->process, item->image,
				   item->unwinder);
		if (err && err != -EOPNOTSUPP)
			return err;
		if (!err)
			target->throwing = THROWING_GUARDED;
	}
	if (target->throwing == THROWING_LEFT_OUT &&
	    tracer_chosen_kind(recording->tracer) == TRACER_SESSION &&
	    !process_memory_is_limited(target->process))
		target->throwing = THROWING_IF_SAFE;
	return 0;
}

int targets_attach(struct recording *recording, struct target_record *target, size_t from)
{
	int err = protect_throwing(recording, target, from);

	for (size_t i = from; i < target->images.count && !err; i++) {
		const struct probed_image *item = &target->images.items[i];

		if (!item->allocator)
			continue;
		err = tracer_attach(recording->tracer, target->slot, target->process, item->image,
				    item->allocator, target->throwing);
		if (err)
			break;
		target->probed++;
		log_verbose("process %d: probes in %s", target->process->pid, item->image->path);
	}
	return err;
}

void targets_remap(struct recording *recording, struct target_record *target)
{
	size_t looked_at = target->images.count;
	int err = tracer_map(recording->tracer, target->slot, target->process);

	for (size_t i = 0; i < looked_at && !err; i++) {
		const struct probed_image *item = &target->images.items[i];

		if (item->allocator)
			err = tracer_nest(recording->tracer, target->slot, target->process,
					  item->image, item->allocator, target->throwing);
	}
	if (!err)
		err = targets_find_allocators(recording, target);
	if (!err)
		err = targets_attach(recording, target, looked_at);
	if (err && err != -ESRCH)
		log_warning("process %d: what it has loaded since is not traced: %s",
			    target->process->pid, strerror(-err));
}

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

void targets_follow(struct recording *recording, struct watch *watch)
{
	const struct watch_event *events;
	size_t count;

	if (watch_read(watch, &events, &count))
		return;
	tracer_read_requests(recording->tracer);
	vec_for_each(target, &recording->targets) {
		unsigned int executions = target->executions;
		bool changed = false;

		for (size_t i = 0; i < count; i++) {
			const struct watch_event *event = &events[i];

			if (event->type == WATCH_LOST || (event->pid == target->process->pid &&
							  event->time >= target->opened_at))
				changed |= apply_event(target, event);
		}
		if (tracer_take_request(recording->tracer, target->slot) && !target->ended_at)
			changed |= process_refresh(target->process) == 0;
		if (target->executions != executions)
			tracer_unnest(recording->tracer, target->slot);
		if (changed && !target->ended_at)
			targets_remap(recording, target);
	}
}
