/*
 * Direct mappings: what a program maps by mmap, mremap and brk without its allocator having asked for
 * it, and what it unmaps. They are sampled as allocations are, by their size, and their calls wait in
 * `pending` as those do; but what becomes of them is the user side's to know (struct region_event).
 *
 * Without --mmap they are only measured, for the account of the resident memory: what of them is resident,
 * the user side can tell if it knows where they are. So none is a sampled call, and none is recorded; and
 * munmap is not probed, nor brk, whose first instructions have to be single-stepped. What is unmapped has
 * no pages, until something else is mapped there: so every call that maps is reported, whoever makes it,
 * once a target has a mapping that is measured.
 *
 * Events are sent in the order of what happens to an address: a mapping's when it has been made, an
 * unmapping's before it is. All these calls are rare beside malloc, and system calls: nothing here
 * has to be fast.
 */
#ifndef ALLOCTRACE_REGION_BPF_H
#define ALLOCTRACE_REGION_BPF_H

#include "live.bpf.h"
#include "registers.bpf.h"

/* linux/mman.h */
#define MAP_FIXED	  0x10
#define MREMAP_DONTUNMAP  4
#define ERROR_RESULT(got) ((got) > -4096ULL)

static __always_inline __u64 whole_pages(__u64 size)
{
	return size > ~0ULL - (PAGE_SIZE - 1) ? ~0ULL : (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
}

static __always_inline __u64 region_operand(struct pt_regs *ctx, __u64 cookie, __u32 number)
{
	return read_register(ctx, cookie >> (COOKIE_OPERANDS_SHIFT + number * COOKIE_OPERAND_BITS) &
					  COOKIE_OPERAND_MASK);
}

/* The break of the thread's process, up to which brk() has grown its data segment. */
static __always_inline __u64 current_brk(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, mm, brk);
}

/*
 * False: there is no room. The reader looks once a second by itself, and is only woken when a
 * quarter of the room is used: it is not to run for each call.
 */
static __always_inline bool region_send(const struct region_event *event)
{
	__u64 waiting = bpf_ringbuf_query(&region_events, BPF_RB_AVAIL_DATA);
	/* An int: before 6.4 only the lower half of the result is set. */
	int err = bpf_ringbuf_output(&region_events, (void *)event, sizeof(*event),
				     waiting < REGION_RING_BYTES / 4 ? BPF_RB_NO_WAKEUP
								     : BPF_RB_FORCE_WAKEUP);

	return !err;
}

/* What takes away is lost. */
static __always_inline void region_count_loss(struct cpu_state *cpu)
{
	count_up(cpu, records_mappings ? COUNT_UNMAPS_LOST : COUNT_UNMEASURED);
}

/* One that takes away, or may. */
static __always_inline void region_send_loss(struct cpu_state *cpu,
					     const struct region_event *event)
{
	if (!region_send(event))
		region_count_loss(cpu);
}

/* What a call is about to do. */
struct region_call {
	__u64 size;	     /* to be mapped; 0: nothing */
	__u64 old, old_size; /* mremap: what it takes away */
	bool replaces;	     /* what it does to others matters, sampled or not */
};

static __always_inline void region_read(struct pt_regs *ctx, __u64 cookie, __u32 shape,
					struct region_call *call)
{
	__u64 brk;

	switch (shape) {
	case SHAPE_MMAP:
		call->size = whole_pages(region_operand(ctx, cookie, 0));
		call->replaces = region_operand(ctx, cookie, 1) & MAP_FIXED;
		break;
	case SHAPE_MREMAP:
		call->size = whole_pages(region_operand(ctx, cookie, 2));
		call->replaces = true;
		if (region_operand(ctx, cookie, 3) & MREMAP_DONTUNMAP)
			break;
		call->old = region_operand(ctx, cookie, 0);
		call->old_size = whole_pages(region_operand(ctx, cookie, 1));
		break;
	default:
		brk = current_brk();
		call->old = region_operand(ctx, cookie, 0);
		call->size = call->old > brk ? call->old - brk : 0;
		call->replaces = call->old < brk;
		call->old = brk;
		break;
	}
}

/* As call_sample(), of a call that was hit. */
static __always_inline void region_sample(struct pt_regs *ctx, struct target *target, __u32 slot,
					  struct cpu_state *cpu, struct pending_call *call)
{
	__u64 return_address = 0;
	enum counter outcome;

	sample_refill(cpu);
	bpf_probe_read_user(&return_address, sizeof(return_address), (void *)PT_REGS_SP(ctx));
	outcome = stack_record(ctx, target, slot, return_address, true, &call->stack);
	if (records_mappings) {
		call->sampled = outcome != COUNT_NESTED;
		count_up(cpu, call->sampled ? COUNT_SAMPLED : COUNT_NESTED);
		if (call->sampled)
			call->loss = outcome;
		else
			call->stack = 0;
	} else if (!outcome) {
		has_measured[slot & (MAX_TARGETS - 1)] = 1;
		call->stack = REGION_MEASURED;
	} else {
		if (outcome != COUNT_NESTED)
			count_up(cpu, COUNT_UNMEASURED);
		call->stack = 0;
	}
}

/* Must this call be seen to return, if it is not sampled? */
static __always_inline bool region_replaces(__u32 slot, bool replaces)
{
	if (records_mappings)
		return replaces;
	return has_measured[slot & (MAX_TARGETS - 1)];
}

/* The entry of a call that maps. Returns 1 where its return does not matter. */
static __always_inline int region_begin(struct pt_regs *ctx, bool shared)
{
	__u64 cookie = cookie_of(ctx, shared);
	__u32 slot = cookie & COOKIE_TARGET_MASK;
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);
	struct target *target = target_current(slot);
	struct pending_key key = {
		.sp = PT_REGS_SP(ctx),
		.tid = (__u32)bpf_get_current_pid_tgid(),
		.target = slot,
	};
	struct pending_call pending_call = {
		.shape = cookie >> COOKIE_SHAPE_SHIFT & COOKIE_SHAPE_MASK,
	};
	struct region_call call = {};
	enum counter loss;

	if (!cpu || !target)
		return 1;
	count_up(cpu, COUNT_MAPS);
	pending_drop(cpu, &key);
	region_read(ctx, cookie, pending_call.shape, &call);
	pending_call.size = call.size;
	pending_call.pointer = call.old;
	pending_call.epoch = target->epoch;
	if (call.size && !sample_passes(cpu, call.size))
		region_sample(ctx, target, slot, cpu, &pending_call);
	call.replaces = region_replaces(slot, call.replaces);
	if (!pending_call.sampled && !call.replaces)
		return 1;

	loss = returns_exhausted() ? COUNT_LOST_RETURNS : 0;
	if (!loss && bpf_map_update_elem(&pending, &key, &pending_call, BPF_ANY))
		loss = COUNT_LOST_PENDING;
	if (loss) {
		if (pending_call.sampled)
			count_up(cpu, pending_call.loss ?: loss);
		if (call.replaces)
			region_count_loss(cpu);
		return 1;
	}
	if (call.old_size) {
		const struct region_event event = {
			.start = call.old,
			.end = call.old + call.old_size,
			.time = bpf_ktime_get_ns(),
			.target = slot,
			.epoch = target->epoch,
			.id = key.tid,
			.type = REGION_HELD,
		};

		region_send_loss(cpu, &event);
	}
	return 0;
}

/*
 * What a call that returned has mapped, or unmapped: *event gets its range and type, or keeps an
 * empty range if it has done nothing. True: it has mapped.
 */
static __always_inline bool region_result(struct pt_regs *ctx, const struct pending_call *call,
					  struct region_event *event)
{
	__u64 result = PT_REGS_RC(ctx);

	if (call->shape == SHAPE_BRK) {
		result = current_brk();
		event->type = result < call->pointer ? REGION_UNMAPPED : REGION_MAPPED;
		event->start = result < call->pointer ? result : call->pointer;
		event->end = result < call->pointer ? call->pointer : result;
		return result > call->pointer;
	}
	event->type = REGION_KEPT;
	if (ERROR_RESULT(result))
		return false;
	event->type = REGION_MAPPED;
	event->start = result;
	event->end = result + call->size;
	return true;
}

/* The return of a call, if its entry is in `pending`. */
static __always_inline int region_finish(struct pt_regs *ctx, bool shared)
{
	__u32 slot = cookie_of(ctx, shared) & COOKIE_TARGET_MASK;
	struct pending_key key = {
		.sp = PT_REGS_SP(ctx) - sizeof(__u64),
		.tid = (__u32)bpf_get_current_pid_tgid(),
		.target = slot,
	};
	struct pending_call *found = bpf_map_lookup_elem(&pending, &key);
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);
	struct target *target = target_current(slot);
	struct region_event event = {.target = slot};
	enum counter outcome = COUNT_RECORDED;
	struct pending_call call;
	bool mapped;

	/* As in call_finish(). */
	if (!found || !cpu || !target || target->epoch != found->epoch)
		return 0;
	call = *found;
	bpf_map_delete_elem(&pending, &key);
	mapped = region_result(ctx, &call, &event);
	event.time = bpf_ktime_get_ns();
	event.epoch = call.epoch;
	event.id = call.shape == SHAPE_MREMAP ? key.tid : 0;
	if (!mapped)
		outcome = COUNT_FAILED;
	else if (call.loss)
		outcome = call.loss;
	else
		event.stack = call.stack;
	/* Of a failure, only what mremap holds is of interest. */
	if ((event.start != event.end || event.id) && !region_send(&event)) {
		outcome = mapped ? COUNT_LOST_MAPPINGS : outcome;
		if (!event.stack || event.id || !records_mappings)
			region_count_loss(cpu);
	}
	if (call.sampled)
		count_up(cpu, outcome);
	return 0;
}

/* The entry of munmap. What the kernel will refuse for certain is passed by. */
static __always_inline int region_unmap(struct pt_regs *ctx, bool shared)
{
	__u64 cookie = cookie_of(ctx, shared);
	__u32 slot = cookie & COOKIE_TARGET_MASK;
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);
	struct target *target = target_current(slot);
	struct region_event event = {.target = slot, .type = REGION_UNMAPPED};

	if (!cpu || !target)
		return 0;
	count_up(cpu, COUNT_UNMAPS);
	event.start = region_operand(ctx, cookie, 0);
	event.end = event.start + whole_pages(region_operand(ctx, cookie, 1));
	event.epoch = target->epoch;
	event.time = bpf_ktime_get_ns();
	if (!(event.start & (PAGE_SIZE - 1)) && event.start < event.end)
		region_send_loss(cpu, &event);
	return 0;
}

#endif
