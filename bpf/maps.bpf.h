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
	__uint(max_entries, MAX_TARGETS);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

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

/* Return addresses inside the allocators: a call that returns there is part of an outer one. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct nested_key);
	__type(value, __u8);
} nested SEC(".maps");

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

/*
 * Where a walk builds its stack. A uprobe program can be preempted by another thread on the same
 * CPU, which then finds the first buffer taken and claims the next.
 */
#define SCRATCH_COUNT 4
struct scratch {
	__u64 busy;
	struct stack stack;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_COUNT);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline void count_up(struct cpu_state *cpu, enum counter counter)
{
	/* Atomic: a thread that preempts this one on the same CPU counts in the same place. */
	__sync_fetch_and_add(&cpu->counters[counter], 1);
}

#endif
