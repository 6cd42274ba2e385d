/*
 * The processes of a recording: opened, probed, and kept up with. These say what is wrong
 * themselves.
 */
#ifndef ALLOCTRACE_TARGETS_H
#define ALLOCTRACE_TARGETS_H

#include "record.h"
#include "target/watch.h"

/* Opens the processes that the settings name. An exit code. */
int targets_open(struct recording *recording);

/*
 * Takes a process over as a target. opened_at: CLOCK_MONOTONIC before its mappings were read. 0 or
 * -ENOMEM, and then it is still the caller's.
 */
int targets_add(struct recording *recording, struct process *process, int64_t opened_at);

/* Looks at the images of a target that have not been looked at yet. 0 or -ENOMEM. */
int targets_find_allocators(struct recording *recording, struct target_record *target);

/* Puts probes into the images of a target from index `from` on that have an allocator. 0 or -errno.
 */
int targets_attach(struct recording *recording, struct target_record *target, size_t from);

/* Has it mapped a file with an allocator? */
bool targets_has_allocator(const struct target_record *target);

/* Calls seen so far, by which the counts of a recording differ from those of its probes. */
void targets_read_seen(const struct recording *recording, const struct target_record *target,
		       uint64_t *calls, uint64_t *frees);

/* With its probes in: from now on the target is recorded. */
void targets_start(struct recording *recording, struct target_record *target);

/* Looks whether the target runs Python, and tells the kernel side. 0 or -errno. */
int targets_find_python(struct recording *recording, struct target_record *target);

/* It has ended: notes what can be known of that, and gives back its place in the kernel. */
void targets_end(const struct recording *recording, struct target_record *target);

/*
 * A target of which only the process has been opened, and whose slot is the next one, joins a recording
 * that runs: everything up to its first recorded allocation. It is taken over; 0, -ENOTSUP (probes would
 * harm it), -ESRCH (it has ended) or another -errno, and then it is still the caller's, without probes.
 */
int targets_join(struct recording *recording, struct target_record *target);

/* The kernel side learns what a target maps now, and what brought an allocator gets probes. */
void targets_remap(struct recording *recording, struct target_record *target);

/* What has happened to the targets since the last call. */
void targets_follow(struct recording *recording, struct watch *watch);
/* The same where the events have been read already. */
void targets_apply(struct recording *recording, const struct watch_event *events, size_t count);

void target_deinit(struct target_record *target);

/* Says why a process cannot be a target (errors of process_open()). The exit code for it. */
int targets_say_error(pid_t pid, int err);

/*
 * Reads its memory and CPU time, as the latest; what cannot be read any more stays as it was. With
 * parts, stacks and direct mappings, which takes longer: at the start and the end.
 */
void targets_read_usage(const struct recording *recording, struct target_record *target,
			bool parts);

#endif
