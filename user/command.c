#include "command.h"

#include "targets.h"
#include "target/launch.h"
#include "util/clock.h"
#include "util/vec.h"

#include <errno.h>
#include <string.h>

/* The dynamic loader, which is mapped beside a dynamic executable from the start; NULL: it
 * is static. */
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
	int64_t time = clock_now(CLOCK_MONOTONIC);
	int err;

	if (!recording->targets.count) {
		err = process_open(pid, &process);
		if (err)
			return err;
		err = targets_add(recording, process, time);
		if (err) {
			process_free(process);
			return err;
		}
		recording->loader = find_loader(process);
	}
	target = &recording->targets.items[0];
	err = process_refresh(target->process);
	if (!err)
		err = targets_find_allocators(recording, target);
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
		targets_remap(recording, target);
	return err;
}

int command_start(struct recording *recording, pid_t *pid)
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

int command_release(struct recording *recording, pid_t pid)
{
	int err = launch_continue(pid, hold_when_loaded, recording);

	return err ? err : launch_release(pid);
}
