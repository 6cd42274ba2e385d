/*
 * The kernel side from the outside: the only room that touches BPF.
 *
 * Stages: tracer_new(); tracer_add_image() for what the targets map, so that the kernel's arrays
 * get the right sizes; tracer_load() chooses a way of attaching by trying what the kernel has,
 * loads the programs and makes the maps; tracer_set_target() gives a process a slot, tracer_map()
 * its mappings, which it may do again whenever they change; tracer_attach() puts probes into its
 * images, one by one, also while recording; tracer_enable() starts and stops the recording of a
 * slot, at once; tracer_detach() takes the probes out; tracer_readback() may be called at any time.
 */
#ifndef ALLOCTRACE_TRACER_H
#define ALLOCTRACE_TRACER_H

#include "alloctrace.h"
#include "binary/allocators.h"
#include "binary/image.h"
#include "profile/profile.h"
#include "target/process.h"
#include "tracer/regions.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How probes are attached; from the best to the one that every kernel has. */
enum tracer_kind {
	TRACER_SESSION, /* uprobe_multi sessions: returns only where wanted (6.13) */
	TRACER_MULTI,	/* uprobe_multi, entry and return (6.6; its pid filter works since 6.10) */
	TRACER_PERF,	/* perf events, entry and return */
	TRACER_KINDS,
	TRACER_AUTO = TRACER_KINDS,
};

extern const char *const tracer_kind_names[TRACER_KINDS];

/* Cookies have no room for more. Each takes 0.2 KiB for each CPU, see tracer_slots_for(). */
#define TRACER_SLOTS_MAX COOKIE_SHARED

struct tracer_options {
	enum tracer_kind kind; /* or TRACER_AUTO */
	uint64_t period;       /* R, bytes; 1: every allocation */
	uint32_t targets;      /* slots, 1 to TRACER_SLOTS_MAX */
	bool shared;	       /* links serve all processes, not each a target: tracer_attach() */
	bool follow;	       /* tell of what targets start: tracer_follow() */
	uint32_t max_live;     /* live blocks recorded at one time, all targets together */
	uint32_t max_stacks;   /* different stacks */
	uint32_t mappings;     /* room for executable ones of all targets together */
	uint32_t more_rows;    /* room for unwind tables of images that are mapped later, in rows */
	bool mmap;	       /* direct mappings are recorded, not only measured */
	bool python;	       /* targets may run Python: tracer_set_python() */
	bool verbose;	       /* libbpf's own messages on stderr */
};

/* The kernel's return probes kill processes whose system calls are filtered by seccomp. */
#define TRACER_KILLS_FILTERED (-ENOTRECOVERABLE)

struct tracer;

/* How many slots so many bytes are enough for. */
uint32_t tracer_slots_for(size_t bytes);

/* Nothing of the kernel is touched yet. 0 or -ENOMEM. */
int tracer_new(const struct tracer_options *options, struct tracer **out);
void tracer_free(struct tracer *tracer);

/*
 * Builds the unwind table of an image that targets map: up to half a second for 100 MB of code. 0
 * or -ENOMEM; an image that has nothing to build from is walked by frame pointers.
 */
int tracer_add_image(struct tracer *tracer, const struct image *image);

/*
 * 0; -EPERM, -EACCES (not permitted); -EOPNOTSUPP (the kernel has no such way of attaching; or no
 * BPF, no uprobes at all); TRACER_KILLS_FILTERED; -ENOMEM; or libbpf's -errno.
 */
int tracer_load(struct tracer *tracer);

enum tracer_kind tracer_chosen_kind(const struct tracer *tracer);

int tracer_set_target(struct tracer *tracer, uint32_t slot, pid_t tgid);

/* Tells the walk what a target has mapped, now. 0 or -ENOMEM. */
int tracer_map(struct tracer *tracer, uint32_t slot, const struct process *process);

/*
 * Readable when a target was followed to a process, and when a walk met code that its target's mappings do not tell: tracer_read_requests()
 * takes that back; tracer_take_request() says whether this target asked, and lets it ask again.
 * Whoever is asked reads the process's mappings again and calls tracer_map(). Also readable when
 * many direct mappings are to be taken note of, which tracer_read_requests() does: it is to be called
 * once a second at least, and before tracer_readback().
 */
int tracer_requests_fd(const struct tracer *tracer);
void tracer_read_requests(struct tracer *tracer);
bool tracer_take_request(struct tracer *tracer, uint32_t slot);

/* After the load: are Python's frames walked? Not where the kernel's verifier refuses that. */
bool tracer_walks_python(const struct tracer *tracer);

/* Where a target's Python keeps what, from now on; runtime 0: it has none. 0 or -errno. */
int tracer_set_python(struct tracer *tracer, uint32_t slot, const struct python_target *python);

/*
 * The next new stack with Python functions, as far as tracer_read_requests() has brought them;
 * tracer_requests_fd() is readable when there are more. False: none.
 */
bool tracer_next_python(struct tracer *tracer, uint32_t *slot, uint64_t *key, struct stack *stack);

/* What the hash of such a stack began with. */
uint64_t tracer_stack_seed(uint32_t slot);

/* Puts a stack that is known better in place of what the kernel side has recorded. */
void tracer_replace_stack(struct tracer *tracer, uint64_t key, const struct stack *stack);

/* From now on the processes that the target in a slot starts are told of, and what they start. */
int tracer_follow(struct tracer *tracer, uint32_t slot);

/*
 * The next of them, in the order of their start, as far as tracer_read_requests() has brought them;
 * tracer_requests_fd() is readable when there are more. False: none.
 */
bool tracer_next_fork(struct tracer *tracer, struct fork_event *out);

/* Does the child run still? Its id may be another's by now. */
bool tracer_child_runs(const struct tracer *tracer, const struct fork_event *fork);

/* How many were started that nothing is known of. */
uint64_t tracer_missed_forks(const struct tracer *tracer);

/* The unwind tables as they are in the kernel. */
struct tracer_tables {
	size_t bytes;	/* of rows and their index */
	uint32_t rules; /* of UNWIND_RULES_MAX */
	/* Images and lists of mappings that are walked by frame pointers: for want of room, and
	 * because */
	uint64_t full;
	uint64_t unusable; /* their unwind information is too large or broken */
};
void tracer_tables(const struct tracer *tracer, struct tracer_tables *out);

/*
 * What is done about functions through which an exception may pass. A return probe replaces a
 * return address, and a C++ exception that meets that ends the process.
 */
enum tracer_throwing {
	THROWING_LEFT_OUT, /* they are not probed */
	/*
	 * The process gets whatever memory it asks for, up to a size (process_memory_is_limited()):
	 * the returns of calls below that are probed. By sessions only: the other kinds probe the
	 * return of every call.
	 */
	THROWING_IF_SAFE,
	THROWING_GUARDED, /* a guard is in place: tracer_guard() */
	THROWING_ANYWAY,  /* the user takes the risk */
};

/* Does a function of this shape get a probe? Without options.mmap brk and munmap do not. */
bool tracer_probes(const struct tracer *tracer, enum allocator_shape shape);

/*
 * Puts probes into an image of a target. With options.shared they are in all processes that map the file,
 * and go in with the first target that does; of no others anything is recorded. They stay until
 * tracer_detach(). 0; -ESRCH (the process has ended); or -errno of the kernel.
 * Nothing stays attached after a failure.
 */
int tracer_attach(struct tracer *tracer, uint32_t slot, const struct process *process,
		  const struct image *image, const struct allocator *allocator,
		  enum tracer_throwing throwing);

/*
 * The guard sits where the runtime begins to unwind (allocator_find_unwinder()), and puts the return
 * addresses back first. There is none where the kernel does not let BPF write to a process
 * (lockdown). Results as above.
 */
bool tracer_can_guard(const struct tracer *tracer);
int tracer_guard(struct tracer *tracer, uint32_t slot, const struct process *process,
		 const struct image *image, const struct allocator *unwinder);

/*
 * The process has forked, and its child has a copy of the breakpoints. No program of ours runs there,
 * so the kernel awaits the return of each call, and an exception would end it. But whenever a link is
 * closed, the kernel takes its breakpoints out of all processes that no other link is for: one is
 * opened and closed here, for the functions that may throw. 0 or -errno.
 */
int tracer_let_children_go(struct tracer *tracer, uint32_t slot, const struct process *process,
			   const struct image *image, const struct allocator *allocator);

/*
 * The process has mapped the image of an attached allocator somewhere else (after an exec, say):
 * tells the kernel side where its code is now, by which calls within calls are known. 0 or -errno.
 */
int tracer_nest(struct tracer *tracer, uint32_t slot, const struct process *process,
		const struct image *image, const struct allocator *allocator,
		enum tracer_throwing throwing);

/* Forgets what tracer_nest() said of the programs that the target executed before. */
void tracer_unnest(struct tracer *tracer, uint32_t slot);

/* Recording of a slot on or off. 0 or -errno. */
int tracer_enable(struct tracer *tracer, uint32_t slot, bool enabled);

/*
 * The target has ended: closes its links, which may go on after the return, and gives up what the
 * kernel side knew of it and of its code. What was recorded stays, unless the slot is given to another
 * one, which it may be if it was never enabled.
 */
void tracer_release(struct tracer *tracer, uint32_t slot);

/* The same for one that may run on: guards stay until its probes are out, which is waited for. */
void tracer_withdraw(struct tracer *tracer, uint32_t slot);

/* Takes all probes out of all targets; when it returns, none of the programs runs any more. */
void tracer_detach(struct tracer *tracer);

/*
 * What the counters of a slot say, summed over CPUs. COUNT_LOST_IN_FLIGHT is only known after
 * tracer_detach(): what is pending then never returns. 0 or -errno.
 */
int tracer_counters(const struct tracer *tracer, uint32_t slot, uint64_t counters[COUNTER_COUNT]);

/*
 * Reads how old everything is that is live now: of each slot (all of tracer_slots()) in its window, whose end is when recording
 * stopped, or is now; one without a length is passed over. From then on tracer_readback() tells ages,
 * and leaves out what is young. One pass over all live blocks, of CPU time 0.3 us each, and 30 ns for
 * each there is room for: 1.3 s where 4 Mi are live, a millisecond with the usual limits. 0 or -errno.
 */
int tracer_read_ages(struct tracer *tracer, const struct age_window *windows);

/* options.targets */
uint32_t tracer_slots(const struct tracer *tracer);

/* What is live of a slot, and what was allocated, in bytes; direct mappings are not among it. */
struct tracer_total {
	struct estimate live, allocated;
};

/* Adds what there is of each slot (all of tracer_slots()), by one look at all counts. 0 or -errno. */
int tracer_read_totals(const struct tracer *tracer, struct tracer_total *totals);

/*
 * Where the direct mappings of a slot are that were sampled, as far as tracer_read_requests() has brought
 * what became of them: their parts, in no order, to be freed. Without options.mmap what was unmapped is
 * there too, as long as nothing else was mapped in its place. *lost: calls that are missing, so that a
 * mapping may be missing here, or be there no more. 0, -ENOMEM or -errno.
 */
int tracer_direct_mappings(const struct tracer *tracer, uint32_t slot, struct region_part **parts,
			   size_t *count, uint64_t *lost);

/* Stacks by how their walk ended, weighted by the samples recorded of them. */
struct tracer_walks {
	uint64_t samples[WALK_END_COUNT];
	uint64_t unsure; /* samples with a frame that was found without a rule (FRAME_UNSURE) */
};

/*
 * Adds sites, buckets and counters of a slot to a profile that has its mappings; sets info.calls,
 * frees, sampled, recorded. 0 or -errno.
 */
int tracer_readback(const struct tracer *tracer, uint32_t slot, struct profile *profile,
		    struct tracer_walks *walks);

#endif
