#include "targets.h"

#include "direct.h"
#include "binary/minidebug.h"
#include "output/text.h"
#include "symbol/debug_search.h"
#include "target/memory.h"
#include "target/python.h"
#include "target/shadow_stack.h"
#include "util/cleanup.h"
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

void target_deinit(struct target_record *target)
{
	vec_for_each(item, &target->images) {
		allocator_free(item->allocator);
		allocator_free(item->unwinder);
	}
	readings_deinit(&target->readings);
	free(target->images.items);
	free(target->output);
	process_free(target->process);
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

static int is_symtab(const struct image_section_info *section, void *context)
{
	(void)context;
	return section->header.sh_type == SHT_SYMTAB;
}

/*
 * An image's allocator: by its own symbols, or, where it is stripped of them, by those that it
 * carries compressed or that lie in a separate debug file.
 */
static int find_allocator(struct recording *recording, const struct image *image,
			  struct allocator **out)
{
	const struct allocator_extras *extras = &recording->settings->extras;
	/* No download: the target may be running away meanwhile. */
	const struct debug_search search = {
		.folders = (const char *const *)recording->settings->debug_folders.items,
		.folder_count = recording->settings->debug_folders.count,
		.checksum_bytes = &recording->checksum_bytes,
	};
	const char *source = ".gnu_debugdata";
	struct image *symbols = NULL;
	int err = allocator_find(image, NULL, extras, out);

	if (err != -ENOENT || image_for_each_section(image, is_symtab, NULL))
		return err;
	if (minidebug_open(image, &symbols)) {
		source = "separate debug file";
		symbols = debug_search_find(&search, image);
	}
	if (!symbols)
		return err;
	err = allocator_find(image, symbols, extras, out);
	if (!err)
		(*out)->source = source;
	image_free(symbols);
	return err;
}

/* The file as another target has it, in which it was looked at already; or NULL. */
static const struct probed_image *find_known(const struct recording *recording,
					     const struct image *image)
{
	vec_for_each(target, &recording->targets) {
		vec_for_each(item, &target->images) {
			if (!image_compare_files(item->image, image) &&
			    !strcmp(item->image->path, image->path))
				return item;
		}
	}
	return NULL;
}

static void say_not_searched(const struct probed_image *item)
{
	CLEANUP(cleanup_free) char *path = text_escaped(item->image->path);

	if (path)
		log_verbose("%s: not searched for an allocator: %s", path,
			    strerror(-item->search_error));
}

static void say_probed(const struct process *process, const struct image *image)
{
	CLEANUP(cleanup_free) char *path = text_escaped(image->path);

	if (path)
		log_verbose("process %d: probes in %s", process->pid, path);
}

/* Looks at one image, of which item says nothing yet. 0 or -ENOMEM. */
static int look_at(struct recording *recording, struct probed_image *item)
{
	const struct probed_image *known = find_known(recording, item->image);
	int err;

	if (known) {
		item->allocator = allocator_share(known->allocator);
		item->unwinder = allocator_share(known->unwinder);
		item->search_error = known->search_error;
		return 0;
	}
	err = find_allocator(recording, item->image, &item->allocator);
	item->search_error = err == -ENOENT ? 0 : err;
	if (item->search_error && err != -ENOMEM)
		say_not_searched(item);
	if (err == -ENOMEM || allocator_find_unwinder(item->image, &item->unwinder) == -ENOMEM)
		return -ENOMEM;
	return 0;
}

int targets_find_allocators(struct recording *recording, struct target_record *target)
{
	while (target->images.count < target->process->images.count) {
		struct probed_image item = {
			.image = target->process->images.items[target->images.count],
		};

		if (look_at(recording, &item) || vec_push(&target->images, item)) {
			allocator_free(item.allocator);
			allocator_free(item.unwinder);
			return -ENOMEM;
		}
	}
	return 0;
}

/* Has it functions through which exceptions may pass: the user's own, or any? */
static bool has_throwing(const struct allocator *allocator, bool custom)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		if (allocator->functions[i].throws && (allocator->functions[i].custom || !custom))
			return true;
	}
	return false;
}

/* Has it functions that the user named, and whose returns are probed? */
static bool has_custom(const struct allocator *allocator)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		if (allocator->functions[i].custom &&
		    shape_allocates(allocator->functions[i].shape))
			return true;
	}
	return false;
}

static bool has_unwinder(const struct target_record *target)
{
	vec_for_each(item, &target->images) {
		if (item->unwinder)
			return true;
	}
	return false;
}

/*
 * How the functions of an image that may throw are probed. A guard helps where it is known who will
 * unwind: the image itself, by a function with a name, or another one. Without it an allocator's own
 * functions are safe if they cannot fail; what the user's functions may throw is not known.
 */
static enum tracer_throwing choose_throwing(const struct recording *recording,
					    const struct target_record *target,
					    const struct probed_image *item)
{
	if (!has_throwing(item->allocator, false))
		return THROWING_LEFT_OUT;
	/* Such a probe is in processes of which nothing is known. */
	if (recording->settings->heap_all)
		return recording->settings->probe_throwing ? THROWING_ANYWAY : THROWING_LEFT_OUT;
	if (tracer_can_guard(recording->tracer) &&
	    (item->unwinder || (item->allocator->throws_by_import && has_unwinder(target))) &&
	    !shadow_stack_exists(target->process->pid))
		return THROWING_GUARDED;
	if (recording->settings->probe_throwing)
		return THROWING_ANYWAY;
	if (!has_throwing(item->allocator, true) &&
	    tracer_chosen_kind(recording->tracer) == TRACER_SESSION &&
	    !process_memory_is_limited(target->process))
		return THROWING_IF_SAFE;
	return THROWING_LEFT_OUT;
}

/*
 * Guards into all images that unwind, if there is anything to guard. That a function of the user's
 * lets no exception pass is a guess from its name: those are guarded, too, where they can be.
 */
static int guard(struct recording *recording, struct target_record *target)
{
	bool can = tracer_can_guard(recording->tracer), needed = false;
	int err = 0;

	if (recording->settings->heap_all)
		return 0;
	vec_for_each(item, &target->images)
		needed |= item->throwing == THROWING_GUARDED ||
			  (can && item->allocator && has_custom(item->allocator));
	vec_for_each(item, &target->images) {
		if (!needed || !item->unwinder || item->guarded || err)
			continue;
		err = tracer_guard(recording->tracer, target->slot, target->process, item->image,
				   item->unwinder);
		item->guarded = !err;
	}
	return err;
}

/*
 * The probes of images from a number on that have functions which may throw, or of those that have none. The
 * former come first: a tracer that is killed loses its links from the last one to the first, see enum closing_phase.
 */
static int attach_images(struct recording *recording, const struct target_record *target,
			 size_t from, bool throwing)
{
	int err = 0;

	for (size_t i = from; i < target->images.count && !err; i++) {
		const struct probed_image *item = &target->images.items[i];

		if (!item->allocator || has_throwing(item->allocator, false) != throwing)
			continue;
		err = tracer_attach(recording->tracer, target->slot, target->process, item->image,
				    item->allocator, item->throwing);
		if (!err)
			say_probed(target->process, item->image);
	}
	return err;
}

int targets_attach(struct recording *recording, struct target_record *target, size_t from)
{
	int err;

	for (size_t i = from; i < target->images.count; i++) {
		struct probed_image *item = &target->images.items[i];

		if (item->allocator)
			item->throwing = choose_throwing(recording, target, item);
	}
	err = guard(recording, target);
	if (!err)
		err = attach_images(recording, target, from, true);
	return err ? err : attach_images(recording, target, from, false);
}

bool targets_has_allocator(const struct target_record *target)
{
	vec_for_each(item, &target->images) {
		if (item->allocator && !item->image->expected)
			return true;
	}
	return false;
}

void targets_read_seen(const struct recording *recording, const struct target_record *target,
		       uint64_t *calls, uint64_t *frees)
{
	uint64_t counters[COUNTER_COUNT] = {0};

	tracer_counters(recording->tracer, target->slot, counters);
	*calls = counters[COUNT_CALLS];
	*frees = counters[COUNT_FREES];
}

void targets_read_usage(const struct recording *recording, struct target_record *target, bool parts)
{
	pid_t pid = target->process->pid;
	struct profile_memory *latest = &target->memory_end;
	struct memory memory;

	if (target->ended_at || memory_read(pid, &memory) || process_has_ended(target->process))
		return;
	latest->known = true;
	latest->anon = memory.anon;
	latest->file = memory.file;
	latest->shmem = memory.shmem;
	latest->swap = memory.swap;
	if (parts)
		direct_measure(recording, target, latest);
	readings_add(&target->readings, clock_now(CLOCK_MONOTONIC), memory.anon + memory.swap);
	target->cpu_end = process_cpu_time(target->process);
}

void targets_end(const struct recording *recording, struct target_record *target)
{
	int64_t cpu_time = process_cpu_time(target->process);

	target->ended_at = clock_now(CLOCK_MONOTONIC);
	if (cpu_time >= 0) /* nobody has waited for it yet */
		target->cpu_end = cpu_time;
	tracer_release(recording->tracer, target->slot);
	log_verbose("process %d: ended", target->process->pid);
}

void targets_start(struct recording *recording, struct target_record *target)
{
	targets_read_usage(recording, target, true);
	target->memory_start = target->memory_end;
	target->cpu_start = target->cpu_end;
	/* Of one that ends before it is looked at again, the end is not known. */
	target->memory_end.known = target->memory_end.direct_known = false;
	target->cpu_end = -1;
	targets_read_seen(recording, target, &target->calls, &target->frees);
	target->started_realtime = clock_now(CLOCK_REALTIME);
	target->started = target->begun = clock_now(CLOCK_MONOTONIC);
	tracer_enable(recording->tracer, target->slot, true);
}

int targets_find_python(struct recording *recording, struct target_record *target)
{
	int err = python_look(target->process, &target->process->python);

	if (err || !tracer_walks_python(recording->tracer))
		return err;
	return tracer_set_python(recording->tracer, target->slot,
				 python_target(target->process->python));
}

static int probe(struct recording *recording, struct target_record *target)
{
	struct tracer *tracer = recording->tracer;
	int err;

	if (shadow_stack_forbids_returns(target->process->pid))
		return -ENOTSUP;
	err = targets_find_allocators(recording, target);
	if (!err)
		err = tracer_set_target(tracer, target->slot, target->process->pid);
	if (!err)
		err = tracer_map(tracer, target->slot, target->process);
	if (!err)
		err = targets_find_python(recording, target);
	if (!err)
		err = targets_attach(recording, target, 0);
	/* Whatever was read under its id was of this process, if it has not ended by now. */
	if (!err && process_has_ended(target->process))
		err = -ESRCH;
	return err;
}

int targets_join(struct recording *recording, struct target_record *target)
{
	int err = probe(recording, target);

	if (!err)
		err = vec_push(&recording->targets, *target);
	if (err) {
		if (process_has_ended(target->process))
			tracer_release(recording->tracer, target->slot);
		else
			tracer_withdraw(recording->tracer, target->slot);
		return err;
	}
	targets_start(recording, &recording->targets.items[target->slot]);
	return 0;
}

/* The process of a target that runs, and that has Python; or NULL. */
static struct process *find_python_process(const struct recording *recording, uint32_t slot)
{
	vec_for_each(target, &recording->targets) {
		if (target->slot == slot && !target->ended_at && target->process->python)
			return target->process;
	}
	return NULL;
}

/* Code objects are freed: they are read when the first stack with them has come. */
static void learn_python(struct recording *recording)
{
	struct stack stack;
	uint64_t key;
	uint32_t slot;
	bool any = false;

	while (tracer_next_python(recording->tracer, &slot, &key, &stack)) {
		struct process *process = find_python_process(recording, slot);

		if (process &&
		    python_resolve(process->python, process, tracer_stack_seed(slot), key, &stack))
			tracer_replace_stack(recording->tracer, key, &stack);
		any = true;
	}
	vec_for_each(target, &recording->targets) {
		if (any && target->process->python)
			log_verbose("process %d: %zu Python functions", target->process->pid,
				    python_count(target->process->python));
	}
}

void targets_remap(struct recording *recording, struct target_record *target)
{
	size_t looked_at = target->images.count;
	int err = targets_find_allocators(recording, target);

	/* Before the walk is told of them: code that it knows, and that is not marked here, is no
	   allocator's. */
	vec_for_each(item, &target->images) {
		if (item->allocator && !err)
			err = tracer_nest(recording->tracer, target->slot, target->process,
					  item->image, item->allocator, item->throwing);
	}
	if (!err)
		err = tracer_map(recording->tracer, target->slot, target->process);
	if (!err)
		err = targets_find_python(recording, target);
	if (!err)
		err = targets_attach(recording, target, looked_at);
	if (err && err != -ESRCH)
		log_warning("process %d: what it has loaded since is not traced: %s",
			    target->process->pid, strerror(-err));
	log_verbose("process %d: code at %zu places", target->process->pid,
		    target->process->mappings.count);
}

/*
 * The target has forked since the last look. What it executes is not copied, and what a child executes
 * has nothing of the copies; most children do so at once, and for them this comes for nothing.
 */
static void let_children_go(struct recording *recording, const struct target_record *target)
{
	/* A link for all processes has a program for its children, too. */
	vec_for_each(item, &target->images) {
		if (item->allocator && item->throwing != THROWING_LEFT_OUT &&
		    !recording->settings->heap_all)
			tracer_let_children_go(recording->tracer, target->slot, target->process,
					       item->image, item->allocator);
	}
}

/* What came before a target was opened is known; after its end its id may be another's at once. */
static bool is_about(const struct target_record *target, const struct watch_event *event)
{
	if (event->type == WATCH_LOST)
		return !target->ended_at;
	return event->pid == target->process->pid && event->time >= target->opened_at &&
	       (!target->ended_at || event->time <= target->ended_at) &&
	       (!target->id_reused_at || event->time < target->id_reused_at);
}

/* Somebody makes a process with the id of the target, which so has ended. */
static bool is_of_another(const struct target_record *target, const struct watch_event *event)
{
	return event->type == WATCH_FORK && event->child == target->process->pid &&
	       event->time >= target->opened_at;
}

/*
 * It executes another program, which begins without memory: nothing that was read before is of this one,
 * and so its time does not count either.
 */
static void start_over(struct target_record *target, int64_t time)
{
	target->executions++;
	target->begun = time;
	target->memory_start = (struct profile_memory){.known = true};
	target->memory_end = (struct profile_memory){0};
	readings_deinit(&target->readings);
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
		if (target->started && event->time >= target->started)
			start_over(target, event->time);
		process_exec(target->process, event->path);
		return true;
	case WATCH_MAPPED:
		process_add_mapping(target->process, &mapping);
		return true;
	case WATCH_EXIT: /* it is seen by its pidfd */
		return false;
	default: /* lost events: what they said is in /proc, if the process still is */
		process_refresh(target->process);
		return true;
	}
}

void targets_apply(struct recording *recording, const struct watch_event *events, size_t count)
{
	tracer_read_requests(recording->tracer);
	learn_python(recording);
	vec_for_each(target, &recording->targets) {
		unsigned int children = target->children;
		bool changed = false, executed = false;

		for (size_t i = 0; i < count; i++) {
			const struct watch_event *event = &events[i];

			if (!target->id_reused_at && is_of_another(target, event))
				target->id_reused_at = event->time;
			if (!is_about(target, event))
				continue;
			changed |= apply_event(target, event);
			executed |= event->type == WATCH_EXEC;
		}
		if (tracer_take_request(recording->tracer, target->slot) && !target->ended_at)
			changed |= process_refresh(target->process) == 0;
		if (executed) {
			log_verbose("process %d: executes another program", target->process->pid);
			tracer_unnest(recording->tracer, target->slot);
		}
		if (target->ended_at || recording->ended)
			continue;
		if (changed)
			targets_remap(recording, target);
		if (target->children != children)
			let_children_go(recording, target);
	}
}

void targets_follow(struct recording *recording, struct watch *watch)
{
	const struct watch_event *events = NULL;
	size_t count = 0;

	watch_read(watch, &events, &count);
	targets_apply(recording, events, count);
}
