/* Every map and every setting of the kernel side. Sizes marked 1 are set by the loader. */
#ifndef ALLOCTRACE_MAPS_BPF_H
#define ALLOCTRACE_MAPS_BPF_H

/*
 * Settings, constant once loaded.
 *
 * gaps: quantiles of the exponential distribution with mean R, whole bytes, >= 1; all 1 where every
 * allocation is to be sampled.
 */
const volatile __u64 gaps[GAP_COUNT] = {};

/* Up to so many bytes the kernel grants a process whatever it asks for (half of the memory). */
const volatile __u64 safe_size = 0;

/* Links serve all processes that map their file: member_cookie(). */
const volatile bool shared_links = false;

/* Set by count_hit, see there. */
__u64 self_test_hits;

/* By slot. The hot path's only lookup; the countdown and the counters share its cache lines. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

/* By slot. Mapped by the user side, which sets `enabled` while programs count `epoch`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

/* tgid -> slot, for programs that are not hit through a link of one target. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/*
 * To slots, where links serve all processes. One may outlive its target, whose tgid in `targets` then
 * is 0.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct member_key);
	__type(value, __u32);
} members SEC(".maps");

/* Calls between entry and return. As many as threads can be inside an allocator, and some
 * abandoned. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct pending_key);
	__type(value, struct pending_call);
} pending SEC(".maps");

/*
 * Live blocks, stacks and counts grow with what is recorded, so they are not allocated ahead: the
 * limits can then be generous. None is LRU: an evicted block would be a silent loss.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct live_key);
	__type(value, struct live_block);
} live SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct stack);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct count_key);
	__type(value, struct count);
} counts SEC(".maps");

/* How many blocks in `live`, or about to be, have an address with this hash; never too few. */
__u32 live_filter[1 << LIVE_FILTER_BITS];

/* Return addresses inside the allocating functions of all targets. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NESTED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct nested_key);
	__type(value, __u8);
} nested SEC(".maps");

/* By slot: the sites whose returns an exception may have to be guarded from. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guarded);
} guards SEC(".maps");

/*
 * Unwind tables of all images (include/unwind.h), and who has mapped them where. Written by the
 * user side, through mappings; arrays of small elements, because their lookups are inlined to a few
 * instructions.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_row_pair);
} unwind_rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_page);
} unwind_pages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, UNWIND_RULES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_rule);
} unwind_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_mapping);
} mappings SEC(".maps");

/*
 * What user space must do something about: slots of targets whose mappings have changed. One entry
 * per target at a time, so the smallest size will do.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16384);
} events SEC(".maps");

/* Are direct mappings recorded, with their stacks, or only measured? */
const volatile bool records_mappings = false;

/* By slot: it has, or is about to have, a mapping that is measured. Else there is none to be replaced. */
__u32 has_measured[MAX_TARGETS];

/* struct region_event */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, REGION_RING_BYTES);
} region_events SEC(".maps");

/* By slot: targets that run Python; and struct python_event, for their names, else as small as can be. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct python_target);
} pythons SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} python_events SEC(".maps");

/* By tgid; those that run. Only where children are followed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct family_member);
} family SEC(".maps");

/* What that grows by: struct fork_event, in order. Those that found no room are only counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} forks SEC(".maps");
__u64 forks_missed;

/* The state of a walk: the frame that is being left, and what is kept of the ones before. */
struct walk {
	__u64 pc; /* return address into this frame, or the exact pc if `exact` */
	__u64 sp; /* at that address: the CFA of the frame inside */
	__u64 fp;
	__u64 slot; /* where pc was read from the stack; 0: it was not */
	__u64 hash;
	__u64 slice;   /* the target's mappings as the walk began */
	__u32 mapping; /* index of the last one found */
	__u32 count;
	__u32 end;
	__u32 exact; /* pc was interrupted by a signal: it is not behind a call */
	__u64 mark;  /* FRAME_UNSURE if this frame was found without a rule for its place */
};

/*
 * The Python frames of a thread: for each C frame that runs some its anchor (see python.bpf.h), then
 * these, as a stack holds them. Frames below that are not kept.
 */
#define PYTHON_ITEMS_MAX 256
struct python_chain {
	__u64 frame;   /* the next to be read */
	__u64 c_frame; /* 3.11: its part's */
	__u32 count, part;
	__u32 at;    /* the next that goes into the stack */
	__u32 emits; /* it does so now */
	__u32 met;   /* something has gone into the stack */
	__u32 code_identity;
	__u64 frame_words[PYTHON_FRAME_WORDS];
	__u64 items[PYTHON_ITEMS_MAX];
};

/*
 * Where a walk builds its stack, and keeps its state: what is in a map the verifier takes for
 * unknown, while it would follow every combination of what it knows of the program's own stack
 * (6.19 gave up on that, after a million instructions). A uprobe program can be preempted by
 * another thread on the same CPU, which then finds the first buffer taken and claims the next.
 */
#define SCRATCH_COUNT 4
struct scratch {
	__u64 busy;
	struct walk walk;
	struct stack stack;
	struct python_chain python;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_COUNT);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/*
 * From 6.13 on kernels may give a program of this type a stack per CPU, taking it that such
 * programs do not nest. On uprobes they do: they run preemptible, and the next thread on the CPU
 * would write over the variables of the one that was preempted, pointers included: wrong figures,
 * or an oops. A program with a tail call keeps to the thread's own kernel stack. That is decided by
 * a look at the instructions before dead ones are removed, so a call that is never made is enough,
 * anywhere in the program: off the hot path. Every program on a uprobe has one.
 */
const volatile bool never = false;
struct no_programs {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
};
/* Programs with one such map must have one attach type, from 6.17 on. */
struct no_programs no_programs SEC(".maps");
struct no_programs no_session_programs SEC(".maps");

static __always_inline void keep_thread_stack(struct pt_regs *ctx, struct no_programs *none)
{
	if (never)
		bpf_tail_call(ctx, none, 0);
}

static __always_inline void count_up(struct cpu_state *cpu, enum counter counter)
{
	if (counter >= COUNTER_COUNT) /* it is not: for the verifier, where it comes from a map */
		return;
	/* Atomic: a thread that preempts this one on the same CPU counts in the same place. */
	__sync_fetch_and_add(&cpu->counters[counter], 1);
}

#endif
