// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * The entry points: one program for all functions that allocate, which the link's cookie tells
 * apart, so that a target needs few links, and the verifier looks at the walk once.
 *
 *   allocate_session  one link sees entry and return (6.13 and later); returning 1 at the entry
 *                     means that no return probe fires: all that an unsampled call costs is the
 *                     entry
 *   allocate_entry    kernels without sessions: the entry only,
 *   allocate_return   and a return probe that fires for every call
 *   free_entry        a free needs no return
 *   unwind_entry      where exceptions may pass through a call whose return is awaited
 *   map_session, map_entry, map_return, unmap_entry: the same for mmap and its kind
 *   all_...           each of these but the guard, for links that serve all processes
 *   target_exec       a target executes another program
 *   target_exit       and ends
 *   list_files        what a process has mapped, for links that serve all processes
 *   family_fork       where children are followed: one more of them,
 *   family_exit       and one less
 *
 * The loader loads the ones that its way of attaching, and what is to be recorded, needs. Only data
 * flow is here; sample.bpf.h, stack.bpf.h, live.bpf.h, exception.bpf.h and region.bpf.h do the work.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "alloctrace.h"

#define EEXIST 17

#include "exception.bpf.h"
#include "live.bpf.h"
#include "registers.bpf.h"
#include "region.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* In a session program the entry's ip is the probe's address, the return's is the caller's. */
static __always_inline bool is_return(struct pt_regs *ctx)
{
	return PT_REGS_IP(ctx) != bpf_get_func_ip(ctx);
}

/* An operand of a call: the argument of its number, or what is in the register of the cookie. */
static __always_inline __u64 operand(struct pt_regs *ctx, __u64 cookie, __u32 number)
{
	if (cookie & COOKIE_MOVED)
		return read_register(
			ctx, cookie >> (COOKIE_OPERANDS_SHIFT + number * COOKIE_OPERAND_BITS) &
				     COOKIE_OPERAND_MASK);
	switch (number) {
	case 0:
		return PT_REGS_PARM1(ctx);
	case 1:
		return PT_REGS_PARM2(ctx);
	default:
		return PT_REGS_PARM3(ctx);
	}
}

/* Is this what nearly all hits are: a function of that shape, with everything in its place? */
static __always_inline bool is_plain(__u64 cookie, enum allocator_shape shape)
{
	return (__u32)cookie >> COOKIE_SHAPE_SHIFT == shape;
}

/* count * size; all ones where that does not fit: such a call fails, and is counted as failed. */
static __always_inline __u64 array_size(__u64 count, __u64 size)
{
	__u64 product = count * size;

	/* or clang makes it a 128-bit multiplication, which BPF has not */
	barrier_var(product);
	/* Only where a factor has more than 32 bits is a division worth its time. */
	if ((count | size) >> 32 && count && product / count != size)
		return ~0ULL;
	return product;
}

static __always_inline void read_operands(struct pt_regs *ctx, __u64 cookie, struct call *call)
{
	switch (call->shape) {
	case SHAPE_MALLOC:
		call->size = operand(ctx, cookie, 0);
		break;
	case SHAPE_CALLOC:
		call->size = array_size(operand(ctx, cookie, 0), operand(ctx, cookie, 1));
		break;
	case SHAPE_PVALLOC:
		call->size = whole_pages(operand(ctx, cookie, 0));
		break;
	case SHAPE_REALLOC:
	case SHAPE_XALLOCX:
	case SHAPE_POSIX_MEMALIGN:
		call->pointer = operand(ctx, cookie, 0);
		call->size = operand(ctx, cookie, 1);
		break;
	case SHAPE_REALLOCARRAY:
		call->pointer = operand(ctx, cookie, 0);
		call->size = array_size(operand(ctx, cookie, 1), operand(ctx, cookie, 2));
		break;
	}
}

/* Is the block that realloc was given one of ours? */
static __always_inline bool is_live(__u32 slot, __u64 address)
{
	struct live_key key = {.address = address, .target = slot};

	return address && may_be_live(address) && bpf_map_lookup_elem(&live, &key);
}

/* All but a plain malloc. False: the call is passed by. */
static __always_inline bool choose_other(struct pt_regs *ctx, __u64 cookie, __u32 slot,
					 struct cpu_state *cpu, struct call *call)
{
	read_operands(ctx, cookie, call);
	count_up(cpu, COUNT_CALLS);
	call->hit = !sample_passes(cpu, call->size);
	/* realloc frees what it is given and allocates: either may be of a sampled block. */
	if (call->shape == SHAPE_REALLOC || call->shape == SHAPE_REALLOCARRAY ||
	    call->shape == SHAPE_XALLOCX)
		call->reallocs = is_live(slot, call->pointer);
	return call->hit || call->reallocs;
}

/* A jump from one allocating function into another. */
static __always_inline void hand_over(struct pt_regs *ctx, __u64 cookie, __u32 slot,
				      struct cpu_state *cpu)
{
	__u32 condition = cookie >> COOKIE_OPERANDS_SHIFT & COOKIE_OPERAND_MASK;

	if (condition == HANDOVER_ALWAYS || condition_holds(ctx, condition))
		call_hand_over(ctx, slot, cpu);
}

/* A call that is passed by. */
static __always_inline int pass(struct pt_regs *ctx, __u32 slot, struct cpu_state *cpu,
				bool always_returns)
{
	if (always_returns)
		call_skip(ctx, slot, cpu);
	return 1;
}

/*
 * The entry of a call that allocates. Returns 1 where its return does not matter. malloc is by far
 * the most frequent, so it comes first and returns early: this is the hot path.
 */
static __always_inline int allocate_begin(struct pt_regs *ctx, bool shared, bool always_returns,
					  struct no_programs *none)
{
	__u64 cookie = cookie_of(ctx, shared);
	__u32 slot = cookie & COOKIE_TARGET_MASK;
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);

	if (!cpu)
		return 1;
	if (is_plain(cookie, SHAPE_MALLOC)) {
		count_up(cpu, COUNT_CALLS);
		if (sample_passes(cpu, PT_REGS_PARM1(ctx)))
			return pass(ctx, slot, cpu, always_returns);
	}

	struct call call = {
		.hit = true,
		.shape = cookie >> COOKIE_SHAPE_SHIFT & COOKIE_SHAPE_MASK,
		.site = cookie >> COOKIE_SITE_SHIFT,
	};

	if (call.shape == SHAPE_HANDOVER) {
		hand_over(ctx, cookie, slot, cpu);
		return 1;
	}
	if (is_plain(cookie, SHAPE_MALLOC))
		call.size = PT_REGS_PARM1(ctx);
	else if (!choose_other(ctx, cookie, slot, cpu, &call))
		return pass(ctx, slot, cpu, always_returns);
	keep_thread_stack(ctx, none);
	if (call.hit)
		sample_refill(cpu);
	if (cookie & COOKIE_UNGUARDED && call.size > safe_size)
		return call_decline(slot, cpu, &call);
	/* Read anew, and unknown to the verifier: or it checks the walk once for each shape. */
	barrier_var(cookie);
	call.shape = cookie >> COOKIE_SHAPE_SHIFT & COOKIE_SHAPE_MASK;
	return call_begin(ctx, slot, cpu, &call);
}

static __always_inline int allocate_both(struct pt_regs *ctx, bool shared)
{
	return is_return(ctx) ? call_finish(ctx, shared)
			      : allocate_begin(ctx, shared, false, &no_session_programs);
}

/*
 * The return probe fires for every call, sampled or not: an unsampled one has to clear what a
 * longjmp may have left at its place in `pending`. Returning 1 would make some kernels remove the
 * probe.
 */
static __always_inline int allocate_at_entry(struct pt_regs *ctx, bool shared)
{
	allocate_begin(ctx, shared, true, &no_programs);
	return 0;
}

static __always_inline int allocate_at_return(struct pt_regs *ctx, bool shared)
{
	keep_thread_stack(ctx, &no_programs);
	return call_finish(ctx, shared);
}

static __always_inline int free_at_entry(struct pt_regs *ctx, bool shared)
{
	__u64 cookie = cookie_of(ctx, shared);
	__u32 slot = cookie & COOKIE_TARGET_MASK;
	struct live_key key = {.address = PT_REGS_PARM1(ctx), .target = slot};
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);
	struct live_block block;
	struct target *target;

	if (!is_plain(cookie, SHAPE_FREE))
		key.address = operand(ctx, cookie, 0);
	if (!cpu || !key.address)
		return 0;
	count_up(cpu, COUNT_FREES);
	if (!may_be_live(key.address) || !bpf_map_lookup_elem(&live, &key))
		return 0;
	keep_thread_stack(ctx, &no_programs);
	target = target_current(slot);
	if (target && block_take(slot, target->epoch, key.address, &block))
		block_count_free(slot, &block);
	return 0;
}

static __always_inline int map_both(struct pt_regs *ctx, bool shared)
{
	keep_thread_stack(ctx, &no_session_programs);
	return is_return(ctx) ? region_finish(ctx, shared) : region_begin(ctx, shared);
}

static __always_inline int map_at_entry(struct pt_regs *ctx, bool shared)
{
	keep_thread_stack(ctx, &no_programs);
	region_begin(ctx, shared);
	return 0;
}

static __always_inline int map_at_return(struct pt_regs *ctx, bool shared)
{
	keep_thread_stack(ctx, &no_programs);
	return region_finish(ctx, shared);
}

static __always_inline int unmap_at_entry(struct pt_regs *ctx, bool shared)
{
	keep_thread_stack(ctx, &no_programs);
	return region_unmap(ctx, shared);
}

/*
 * Each twice: for links of one target, and for links that serve all processes. A switch that the loader
 * sets would cost the former the instructions that read it, as the verifier removes branches, not loads.
 */
#define PROGRAMS(one, all, body)                                                                   \
	SEC("kprobe")                                                                              \
	int one(struct pt_regs *ctx)                                                               \
	{                                                                                          \
		return body(ctx, false);                                                           \
	}                                                                                          \
	SEC("kprobe")                                                                              \
	int all(struct pt_regs *ctx)                                                               \
	{                                                                                          \
		return body(ctx, true);                                                            \
	}

PROGRAMS(allocate_session, all_session, allocate_both)
PROGRAMS(allocate_entry, all_entry, allocate_at_entry)
PROGRAMS(allocate_return, all_return, allocate_at_return)
PROGRAMS(free_entry, all_free, free_at_entry)
PROGRAMS(map_session, all_map_session, map_both)
PROGRAMS(map_entry, all_map_entry, map_at_entry)
PROGRAMS(map_return, all_map_return, map_at_return)
PROGRAMS(unmap_entry, all_unmap, unmap_at_entry)

/* An exception is thrown in a process whose allocating functions let exceptions pass. */
SEC("kprobe")
int unwind_entry(struct pt_regs *ctx)
{
	keep_thread_stack(ctx, &no_programs);
	exception_begin(bpf_get_attach_cookie(ctx) & COOKIE_TARGET_MASK);
	return 0;
}

/* A target executes another program: all its blocks are gone, and its stacks mean other code. */
SEC("raw_tp/sched_process_exec")
int target_exec(void *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u32 *slot = bpf_map_lookup_elem(&slots, &tgid);
	struct target *target = slot ? bpf_map_lookup_elem(&targets, slot) : NULL;

	if (!target)
		return 0;
	target->mappings = 0;
	if (walks_python) {
		struct python_target *python = bpf_map_lookup_elem(&pythons, slot);

		if (python)
			python->runtime = 0;
	}
	__sync_fetch_and_add(&target->epoch, 1);
	return 0;
}

/*
 * The last thread of a target ends: its id may be another process's at once, long before the user side
 * has heard of it. Links that serve all processes stay, and know targets by their ids.
 */
SEC("raw_tp/sched_process_exit")
int target_exit(void *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u32 *slot = bpf_map_lookup_elem(&slots, &tgid);
	struct target *target;

	if (!slot || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	target = shared_links ? bpf_map_lookup_elem(&targets, slot) : NULL;
	if (target)
		target->tgid = 0;
	bpf_map_delete_elem(&slots, &tgid);
	return 0;
}

/*
 * The child is one of the family from here on, so that what it starts itself is too, although the
 * user side may not have heard of it yet.
 */
SEC("raw_tp/sched_process_fork")
int family_fork(__u64 *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx[1];
	struct fork_event event = {.parent = bpf_get_current_pid_tgid() >> 32};
	struct family_member *parent = bpf_map_lookup_elem(&family, &event.parent), member = {};

	if (!parent)
		return 0;
	event.child = BPF_CORE_READ(child, tgid);
	if (event.child == event.parent) /* a thread */
		return 0;
	event.root = member.root = parent->root;
	event.time = member.time = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&family, &event.child, &member, BPF_ANY) ||
	    bpf_ringbuf_output(&forks, &event, sizeof(event), 0))
		__sync_fetch_and_add(&forks_missed, 1);
	return 0;
}

/* The last thread of a process ends, after which it can start nothing more. */
SEC("raw_tp/sched_process_exit")
int family_exit(void *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (bpf_map_lookup_elem(&family, &tgid) && !BPF_CORE_READ(task, signal, live.counter))
		bpf_map_delete_elem(&family, &tgid);
	return 0;
}

/* One mapping of a process, see struct mapped_file. */
SEC("iter/task_vma")
int list_files(struct bpf_iter__task_vma *ctx)
{
	struct vm_area_struct *vma = ctx->vma;
	struct inode *inode = vma ? BPF_CORE_READ(vma, vm_file, f_inode) : NULL;
	struct mapped_file file = {};

	if (!inode)
		return 0;
	file.start = BPF_CORE_READ(vma, vm_start);
	file.inode = BPF_CORE_READ(inode, i_ino);
	file.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	bpf_seq_write(ctx->meta->seq, &file, sizeof(file));
	return 0;
}

/* The loader's own test of a way of attaching: is a hit in a second thread of this process seen? */
SEC("kprobe")
int count_hit(struct pt_regs *ctx)
{
	__sync_fetch_and_add(&self_test_hits, 1);
	return 0;
}
