// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * The entry points: one program per shape of function and way of attaching.
 *
 *   *_session   one link sees entry and return (6.13 and later); returning 1 at the entry means
 * that no return probe fires: all that an unsampled call costs is the entry
 *   *_entry     kernels without sessions: the entry only,
 *   *_return    and a return probe that fires for every call
 *   free_entry  a free needs no return
 *
 * The loader loads the ones that its way of attaching needs. Only data flow is here; sample.bpf.h,
 * stack.bpf.h and live.bpf.h do the work.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "alloctrace.h"

#define EEXIST 17

#include "live.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* In a session program the entry's ip is the probe's address, the return's is the caller's. */
static __always_inline bool is_return(struct pt_regs *ctx)
{
	return PT_REGS_IP(ctx) != bpf_get_func_ip(ctx);
}

/* An entry whose call allocates. Returns 1 where its return does not matter. */
static __always_inline int allocate(struct pt_regs *ctx, __u32 slot, struct call *call)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);

	if (!cpu)
		return 1;
	count_up(cpu, COUNT_CALLS);
	call->hit = sample_hit(cpu, call->size);
	if (!call->hit) {
		if (return_always)
			call_skip(ctx, slot, cpu);
		return 1;
	}
	return call_begin(ctx, slot, cpu, call);
}

static __always_inline int malloc_begin(struct pt_regs *ctx)
{
	__u32 slot = bpf_get_attach_cookie(ctx) & COOKIE_TARGET_MASK;
	struct call call = {.size = PT_REGS_PARM1(ctx)};

	return allocate(ctx, slot, &call);
}

static __always_inline int calloc_begin(struct pt_regs *ctx)
{
	__u32 slot = bpf_get_attach_cookie(ctx) & COOKIE_TARGET_MASK;
	__u64 count = PT_REGS_PARM1(ctx), size = PT_REGS_PARM2(ctx);
	struct call call = {.size = count * size};

	/*
	 * A product that does not fit makes calloc fail: let it be sampled, and counted as failed.
	 * Only where a factor has more than 32 bits is a division worth its time.
	 */
	barrier_var(call.size); /* or clang makes it a 128-bit multiplication, which BPF has not */
	if ((count | size) >> 32 && count && call.size / count != size)
		call.size = ~0ULL;
	return allocate(ctx, slot, &call);
}

/* memalign and aligned_alloc. */
static __always_inline int memalign_begin(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	struct call call = {.size = PT_REGS_PARM2(ctx)};

	if (cookie & COOKIE_TAIL_CALLS && PT_REGS_PARM1(ctx) <= MALLOC_ALIGNMENT)
		return 1;
	return allocate(ctx, cookie & COOKIE_TARGET_MASK, &call);
}

static __always_inline int posix_memalign_begin(struct pt_regs *ctx)
{
	__u32 slot = bpf_get_attach_cookie(ctx) & COOKIE_TARGET_MASK;
	struct call call = {.size = PT_REGS_PARM3(ctx), .pointer = PT_REGS_PARM1(ctx)};

	return allocate(ctx, slot, &call);
}

/* realloc frees what it is given and allocates: either may be of a sampled block. */
static __always_inline int realloc_begin(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	__u32 slot = cookie & COOKIE_TARGET_MASK;
	struct call call = {.pointer = PT_REGS_PARM1(ctx), .size = PT_REGS_PARM2(ctx)};
	struct live_key key = {.address = call.pointer, .target = slot};
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);

	if (!cpu || (!call.pointer && cookie & COOKIE_TAIL_CALLS))
		return 1;
	count_up(cpu, COUNT_CALLS);
	call.hit = sample_hit(cpu, call.size);
	call.reallocs = call.pointer && bpf_map_lookup_elem(&live, &key);
	if (!call.hit && !call.reallocs) {
		if (return_always)
			call_skip(ctx, slot, cpu);
		return 1;
	}
	return call_begin(ctx, slot, cpu, &call);
}

#define SESSION_AND_ENTRY(name, through_pointer)                                                   \
	SEC("kprobe")                                                                              \
	int name##_session(struct pt_regs *ctx)                                                    \
	{                                                                                          \
		return is_return(ctx) ? call_finish(ctx, through_pointer) : name##_begin(ctx);     \
	}                                                                                          \
	/* Returning 1 here would make some kernels remove the probe. */                           \
	SEC("kprobe")                                                                              \
	int name##_entry(struct pt_regs *ctx)                                                      \
	{                                                                                          \
		name##_begin(ctx);                                                                 \
		return 0;                                                                          \
	}

SESSION_AND_ENTRY(malloc, false)
SESSION_AND_ENTRY(calloc, false)
SESSION_AND_ENTRY(realloc, false)
SESSION_AND_ENTRY(memalign, false)
SESSION_AND_ENTRY(posix_memalign, true)

/* The result is in the return register. */
SEC("kprobe")
int pointer_return(struct pt_regs *ctx)
{
	return call_finish(ctx, false);
}

/* The result is an error number; the address is where an argument pointed. */
SEC("kprobe")
int stored_return(struct pt_regs *ctx)
{
	return call_finish(ctx, true);
}

SEC("kprobe")
int free_entry(struct pt_regs *ctx)
{
	__u32 slot = bpf_get_attach_cookie(ctx) & COOKIE_TARGET_MASK;
	struct live_key key = {.address = PT_REGS_PARM1(ctx), .target = slot};
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);
	struct live_block block;
	struct target *target;

	if (!cpu || !key.address)
		return 0;
	count_up(cpu, COUNT_FREES);
	if (!bpf_map_lookup_elem(&live, &key))
		return 0;
	target = target_current(slot);
	if (target && block_take(slot, target->epoch, key.address, &block))
		block_count_free(slot, &block);
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
	__sync_fetch_and_add(&target->epoch, 1);
	return 0;
}

/* The loader's own test of a way of attaching: is a hit in a second thread of this process seen? */
SEC("kprobe")
int count_hit(struct pt_regs *ctx)
{
	__sync_fetch_and_add(&self_test_hits, 1);
	return 0;
}
