#include "follow.h"

#include "targets.h"
#include "util/clock.h"
#include "util/vec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Taken up in one go: a few ms each. Events must not wait for long. */
#define AT_ONCE 16

#define STRING(macro)	 STRING_OF(macro)
#define STRING_OF(value) #value

int follow_begin(struct recording *recording, const struct target_record *target)
{
	return tracer_follow(recording->tracer, target->slot);
}

/* The target of a process id, the last one if several have had it; or else one by its index. */
static const struct target_record *find_target(const struct recording *recording, pid_t pid,
					       uint32_t otherwise)
{
	for (size_t i = recording->targets.count; i--;) {
		if (recording->targets.items[i].process->pid == pid)
			return &recording->targets.items[i];
	}
	return &recording->targets.items[otherwise];
}

/*
 * A child is on its way to another program as a rule, whose libraries are mapped within a
 * millisecond, and then used: so its parent's allocators are probed in it before it maps them, and
 * what they may throw is guarded.
 */
static int expect_allocators(const struct recording *recording, const struct target_record *target)
{
	const struct target_record *parent = find_target(recording, target->parent, target->root);
	int err = 0;

	vec_for_each(item, &parent->images) {
		if ((item->allocator || item->unwinder) && !err)
			err = process_expect_image(target->process, item->image);
	}
	return err;
}

static int take_up(struct recording *recording, const struct fork_event *fork)
{
	struct target_record target = {
		.slot = (uint32_t)recording->targets.count,
		.followed = true,
		.parent = (pid_t)fork->parent,
		.root = fork->root,
		.forked_at = (int64_t)fork->time,
		.opened_at = clock_now(CLOCK_MONOTONIC),
	};
	struct target_record *added;
	int err = process_open((pid_t)fork->child, &target.process);

	if (err)
		return err;
	if (!tracer_child_runs(recording->tracer, fork))
		err = -ESRCH;
	if (!err)
		err = expect_allocators(recording, &target);
	if (!err)
		err = targets_join(recording, &target);
	if (err) {
		target_deinit(&target);
		return err;
	}
	added = &recording->targets.items[target.slot];
	log_verbose("process %d: followed, %.1f ms after its start; code at %zu places",
		    added->process->pid, (double)(added->started - added->forked_at) / 1e6,
		    added->process->mappings.count);
	return 0;
}

static enum follow_outcome outcome_of(int err)
{
	switch (err) {
	case 0:
		return FOLLOW_TRACED;
	case -ESRCH:
	case -ECHILD:
		return FOLLOW_ENDED;
	case -ENOTSUP:
		return FOLLOW_REFUSED;
	default:
		return FOLLOW_FAILED;
	}
}

static void count(struct recording *recording, const struct fork_event *fork,
		  enum follow_outcome outcome)
{
	recording->targets.items[fork->root].outcomes[outcome]++;
}

bool follow_some(struct recording *recording)
{
	for (int i = 0; i < AT_ONCE; i++) {
		struct fork_event fork;
		int err;

		if (!tracer_next_fork(recording->tracer, &fork))
			return false;
		if (recording->targets.count == MAX_TARGETS) {
			count(recording, &fork, FOLLOW_NO_ROOM);
			continue;
		}
		err = take_up(recording, &fork);
		count(recording, &fork, outcome_of(err));
		if (err)
			log_verbose("process %u: not followed: %s", fork.child, strerror(-err));
	}
	return true;
}

void follow_end(struct recording *recording)
{
	struct fork_event fork;

	while (tracer_next_fork(recording->tracer, &fork)) {
		if ((int64_t)fork.time < recording->ended)
			count(recording, &fork, FOLLOW_LATE);
	}
	/* Whether one has an allocator is known only now: it may have executed a program that has. */
	vec_for_each(target, &recording->targets) {
		unsigned int *outcomes = recording->targets.items[target->root].outcomes;

		if (!target->followed || targets_has_allocator(target))
			continue;
		outcomes[FOLLOW_TRACED]--;
		outcomes[FOLLOW_NO_ALLOCATOR]++;
	}
	recording->targets.items[0].outcomes[FOLLOW_MISSED] +=
		(unsigned int)tracer_missed_forks(recording->tracer);
}

int follow_describe(const struct target_record *target, char **out)
{
	static const char *const texts[FOLLOW_OUTCOMES] = {
		[FOLLOW_TRACED] = "traced",
		[FOLLOW_ENDED] = "ended too soon",
		[FOLLOW_NO_ALLOCATOR] = "without a known allocator",
		[FOLLOW_NO_ROOM] = "over the limit of " STRING(MAX_TARGETS),
		[FOLLOW_LATE] = "started at the very end",
		[FOLLOW_REFUSED] = "with a shadow stack, which this kernel's probes would break",
		[FOLLOW_FAILED] = "not to be attached to",
		[FOLLOW_MISSED] = "of which no more is known",
	};
	const char *separator = " started: ";
	unsigned int sum = 0;
	char *text = NULL;
	size_t size;
	FILE *to;

	*out = NULL;
	for (int i = 0; i < FOLLOW_OUTCOMES; i++)
		sum += target->outcomes[i];
	if (!sum)
		return 0;
	to = open_memstream(&text, &size);
	if (!to)
		return -ENOMEM;
	fprintf(to, "%u process%s", sum, sum == 1 ? "" : "es");
	for (int i = 0; i < FOLLOW_OUTCOMES; i++) {
		if (!target->outcomes[i])
			continue;
		fprintf(to, "%s%u %s", separator, target->outcomes[i], texts[i]);
		separator = ", ";
	}
	if (fclose(to))
		return -ENOMEM;
	*out = text;
	return 0;
}
