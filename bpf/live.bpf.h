/*
 * Begin, finish, free: a sampled call from its entry to its return, and the blocks that are live.
 *
 * At the entry the stack is walked (at the return it is too late) and the call is kept in `pending`
 * under thread and stack pointer. At the return the address is known: the block goes into `live`,
 * the allocation into `counts`. A free takes the block out at its entry, before the memory can be
 * used again; malloc's return comes before the caller has the pointer: so for one address the order
 * of events is right.
 */
#ifndef ALLOCTRACE_LIVE_BPF_H
#define ALLOCTRACE_LIVE_BPF_H

#include "maps.bpf.h"
#include "sample.bpf.h"
#include "stack.bpf.h"

/* The slot's target if it is being recorded and this is its process (a fork has its probes too). */
static __always_inline struct target *target_current(__u32 slot)
{
	struct target *target = bpf_map_lookup_elem(&targets, &slot);

	if (!target || !target->enabled || target->tgid != bpf_get_current_pid_tgid() >> 32)
		return NULL;
	return target;
}

/*
 * The cookie of a link that serves all processes, with the slot of the process at hand in it; of one that
 * is no target, a slot that nobody has. Should one file carry two such links, because it was not seen to be
 * the same, a process counts by one of them alone.
 */
static __always_inline __u64 member_cookie(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx), slot = COOKIE_TARGET_MASK;
	struct member_key key = {
		.tgid = bpf_get_current_pid_tgid() >> 32,
		.link = cookie & COOKIE_TARGET_MASK,
	};
	__u32 *found = bpf_map_lookup_elem(&members, &key);
	struct target *target = found ? bpf_map_lookup_elem(&targets, found) : NULL;

	if (target && target->tgid == key.tgid)
		slot = *found;
	return (cookie & ~(__u64)COOKIE_TARGET_MASK) | slot;
}

/*
 * What a program has to know about the place it was hit at. shared, which is known when it is compiled:
 * by a link that serves all processes.
 */
static __always_inline __u64 cookie_of(struct pt_regs *ctx, bool shared)
{
	return shared ? member_cookie(ctx) : bpf_get_attach_cookie(ctx);
}

/* Of a size: not on the stack, which is small. */
static const struct count no_count = {};

static __always_inline struct count *count_of(__u32 slot, __u64 stack, __u64 size, __u32 epoch)
{
	struct count_key key = {
		.stack = stack,
		.size_class = size_class(size),
		.target = slot,
		.epoch = epoch,
	};
	struct count *count = bpf_map_lookup_elem(&counts, &key);

	if (count)
		return count;
	/* -EEXIST: another CPU was first. */
	bpf_map_update_elem(&counts, &key, &no_count, BPF_NOEXIST);
	return bpf_map_lookup_elem(&counts, &key);
}

/* The place of an address in live_filter. Blocks are 16 bytes apart at least. */
static __always_inline __u32 *filter_of(__u64 address)
{
	__u64 hash = (address >> 4) * 0x9e3779b97f4a7c15ULL;

	return &live_filter[hash >> (64 - LIVE_FILTER_BITS) & ((1 << LIVE_FILTER_BITS) - 1)];
}

/* May there be a live block at address? The hot path of a free: false for nearly all. */
static __always_inline bool may_be_live(__u64 address)
{
	return *(volatile __u32 *)filter_of(address);
}

/* Attempts to be the earliest; each fails only where another CPU has just succeeded. */
#define FIRST_ATTEMPTS 8

/*
 * One that was allocated at `time` is freed now. A function of its own, called from many places, so
 * that there is one copy of it.
 */
static __noinline void lifetime_count(struct count *count, __u64 time)
{
	__u64 now = bpf_ktime_get_ns(), lifetime = now > time ? now - time : 0;
	__u32 class = lifetime_class(lifetime);

	lifetime += 1 << (LIFETIME_UNIT_SHIFT - 1);
	__sync_fetch_and_add(&count->lifetimes, lifetime >> LIFETIME_UNIT_SHIFT);
#pragma clang loop unroll(disable)
	for (int i = 0; i < FIRST_ATTEMPTS; i++) {
		__u64 first = *(volatile __u64 *)&count->first_freed;

		if ((first && first <= time) ||
		    __sync_val_compare_and_swap(&count->first_freed, first, time) == first)
			break;
	}
	barrier_var(class); /* or clang takes the check away, which the verifier wants to see */
	if (class < LIFETIMES && *(volatile __u32 *)&count->by_lifetime[class] != ~0U)
		__sync_fetch_and_add(&count->by_lifetime[class], 1);
}

/* A recorded block was freed. Its count is there: blocks are only recorded with one. */
static __always_inline void block_count_free(__u32 slot, const struct live_block *block)
{
	struct count *count = count_of(slot, block->stack, block->size, block->epoch);

	if (!count)
		return;
	__sync_fetch_and_add(&count->free_objects, 1);
	__sync_fetch_and_add(&count->free_bytes, block->size);
	lifetime_count(count, block->time);
}

/*
 * Takes the block at address out of the live set. True if it was there, and is this caller's: of
 * two that free it at once only one gets it. Blocks of a program from before an exec are dropped.
 */
static __always_inline bool block_take(__u32 slot, __u32 epoch, __u64 address,
				       struct live_block *out)
{
	struct live_key key = {.address = address, .target = slot};
	struct live_block *block = bpf_map_lookup_elem(&live, &key);

	if (!block)
		return false;
	*out = *block;
	if (bpf_map_delete_elem(&live, &key))
		return false;
	__sync_fetch_and_add(filter_of(address), -1);
	return out->epoch == (__u16)epoch;
}

/* Puts a block into the live set. 0, or the counter of the loss. */
static __always_inline enum counter block_put(struct cpu_state *cpu, __u32 slot, __u64 address,
					      const struct live_block *block)
{
	struct live_key key = {.address = address, .target = slot};
	struct live_block old;
	int err; /* before 6.4 only the lower half of the result is set */

	/* First, so that whoever finds nothing there can rely on it. */
	__sync_fetch_and_add(filter_of(address), 1);
	err = bpf_map_update_elem(&live, &key, block, BPF_NOEXIST);
	if (err == -EEXIST) {
		/* The allocator gave this address out again, so the old block was freed unseen. */
		if (block_take(slot, block->epoch, address, &old)) {
			count_up(cpu, COUNT_REPLACED);
			block_count_free(slot, &old);
		}
		err = bpf_map_update_elem(&live, &key, block, BPF_NOEXIST);
	}
	if (err)
		__sync_fetch_and_add(filter_of(address), -1);
	return err ? COUNT_LOST_LIVE : 0;
}

/* A sampled allocation has succeeded. 0, or the counter of the loss. */
static __always_inline enum counter block_record(struct cpu_state *cpu, __u32 slot, __u64 address,
						 const struct live_block *block)
{
	/* The count first, so that a block in the live set always has one to be freed from. */
	struct count *count = count_of(slot, block->stack, block->size, block->epoch);
	enum counter loss;

	if (!count)
		return COUNT_LOST_COUNTS;
	loss = block_put(cpu, slot, address, block);
	if (loss)
		return loss;
	__sync_fetch_and_add(&count->alloc_objects, 1);
	__sync_fetch_and_add(&count->alloc_bytes, block->size);
	return 0;
}

/*
 * What is in `pending` where a call begins was abandoned (longjmp, a thread that ended): a call
 * that is still going on has this place of the stack for itself.
 */
static __always_inline void pending_drop(struct cpu_state *cpu, const struct pending_key *key)
{
	struct pending_call *abandoned = bpf_map_lookup_elem(&pending, key);

	if (!abandoned)
		return;
	if (abandoned->sampled)
		count_up(cpu, COUNT_LOST_ABANDONED);
	if (abandoned->has_old)
		block_count_free(key->target, &abandoned->old);
	bpf_map_delete_elem(&pending, key);
}

/*
 * Has the thread as many pending return probes as the kernel allows? It leaves out the next one
 * without a word. Calls that were left by a jump may hold theirs for as long as the thread lives.
 */
static __always_inline bool returns_exhausted(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, utask, depth) >= RETURN_INSTANCES_MAX;
}

/* What a call does, as its entry sees it. */
struct call {
	__u64 size;
	__u64 pointer; /* realloc: the old block; posix_memalign: where the result goes */
	__u32 shape;   /* enum allocator_shape */
	__u32 site;    /* its number */
	bool hit;      /* to be sampled */
	bool reallocs; /* pointer is a block that may be in the live set */
};

/*
 * Samples a call that was hit, if it is not part of another. What is lost is kept in mind until it
 * returns: it may fail by itself, or hand over to another that is not lost.
 */
static __always_inline void call_sample(struct pt_regs *ctx, struct target *target, __u32 slot,
					struct cpu_state *cpu, __u32 site,
					struct pending_call *call)
{
	__u64 return_address = 0;
	enum counter outcome = COUNT_NESTED;

	bpf_probe_read_user(&return_address, sizeof(return_address), (void *)PT_REGS_SP(ctx));
	/* Most nested calls are made by the outer function itself: no walk for those. */
	if (!is_nested_in(shared_links ? SHARED_SITES : slot, NESTED_RELATIVE | site,
			  return_address - PT_REGS_IP(ctx)) &&
	    !is_nested_in(slot, target->epoch, return_address))
		outcome = stack_record(ctx, target, slot, return_address, false, &call->stack);
	call->sampled = outcome != COUNT_NESTED;
	count_up(cpu, call->sampled ? COUNT_SAMPLED : COUNT_NESTED);
	if (call->sampled)
		call->loss = outcome;
}

/*
 * The slow path of an entry: 0 if the return has to be seen, 1 if not.
 */
static __always_inline int call_begin(struct pt_regs *ctx, __u32 slot, struct cpu_state *cpu,
				      const struct call *call)
{
	struct target *target = target_current(slot);
	struct pending_key key = {
		.sp = PT_REGS_SP(ctx),
		.tid = (__u32)bpf_get_current_pid_tgid(),
		.target = slot,
	};
	struct pending_call pending_call = {
		.size = call->size,
		.pointer = call->pointer,
		.shape = call->shape,
	};
	enum counter loss;

	if (!target)
		return 1;
	/* Whatever becomes of this call, its return must not find what another one left. */
	pending_drop(cpu, &key);
	pending_call.epoch = target->epoch;
	if (call->hit)
		call_sample(ctx, target, slot, cpu, call->site, &pending_call);
	/* A realloc within a realloc finds the block taken out already. */
	if (call->reallocs)
		pending_call.has_old =
			block_take(slot, target->epoch, call->pointer, &pending_call.old);
	if (!pending_call.sampled && !pending_call.has_old)
		return 1;

	loss = returns_exhausted() ? COUNT_LOST_RETURNS : 0;
	if (!loss && bpf_map_update_elem(&pending, &key, &pending_call, BPF_ANY))
		loss = COUNT_LOST_PENDING;
	if (loss) {
		if (pending_call.sampled)
			count_up(cpu, pending_call.loss ?: loss);
		/* The return will not be seen; a realloc succeeds far more often than not. */
		if (pending_call.has_old)
			block_count_free(slot, &pending_call.old);
		return 1;
	}
	return 0;
}

/* A call whose return must not be probed. */
static __always_inline int call_decline(__u32 slot, struct cpu_state *cpu, const struct call *call)
{
	struct target *target = target_current(slot);
	struct live_block old;

	if (!target)
		return 1;
	if (call->hit) {
		count_up(cpu, COUNT_SAMPLED);
		count_up(cpu, COUNT_LOST_RISKY);
	}
	if (call->reallocs && block_take(slot, target->epoch, call->pointer, &old))
		block_count_free(slot, &old);
	return 1;
}

/* Puts a block back that realloc had been given, and that is still what it was. */
static __always_inline void block_put_back(struct cpu_state *cpu, __u32 slot, __u64 address,
					   const struct live_block *block)
{
	if (!block_put(cpu, slot, address, block))
		return;
	count_up(cpu, COUNT_UNTRACKED);
	block_count_free(slot, block);
}

/*
 * A call is about to end by jumping into another allocating function, with its own stack pointer
 * and return address: that one will count, so this one's entry is as if it had not been.
 */
static __always_inline void call_hand_over(struct pt_regs *ctx, __u32 slot, struct cpu_state *cpu)
{
	struct pending_key key = {
		.sp = PT_REGS_SP(ctx),
		.tid = (__u32)bpf_get_current_pid_tgid(),
		.target = slot,
	};
	struct pending_call *found = bpf_map_lookup_elem(&pending, &key);
	struct pending_call call;

	__sync_fetch_and_add(&cpu->counters[COUNT_CALLS], -1);
	if (!found)
		return;
	call = *found;
	bpf_map_delete_elem(&pending, &key);
	if (call.sampled) {
		__sync_fetch_and_add(&cpu->counters[COUNT_SAMPLED], -1);
		count_up(cpu, COUNT_NESTED);
	}
	if (call.has_old)
		block_put_back(cpu, slot, call.pointer, &call.old);
}

/* The return of realloc: what became of the block that was taken out? */
static __always_inline void realloc_settle(struct cpu_state *cpu, __u32 slot,
					   const struct pending_call *call, bool allocated)
{
	/* glibc's realloc(p, 0) frees p and returns NULL: that is not a failure. */
	if (allocated || call->size == 0)
		block_count_free(slot, &call->old);
	else
		block_put_back(cpu, slot, call->pointer, &call->old);
}

/*
 * The address that a call returned, 0 where it failed. posix_memalign returns an error number and
 * stores the address, xallocx a size, which is the old one where it could not grow. False: the
 * address cannot be read.
 */
static __always_inline bool call_result(struct pt_regs *ctx, const struct pending_call *call,
					__u64 *address)
{
	*address = PT_REGS_RC(ctx);
	if (call->shape == SHAPE_XALLOCX)
		*address = *address >= call->size ? call->pointer : 0;
	if (call->shape != SHAPE_POSIX_MEMALIGN)
		return true;
	if (*address & 0xffffffff) { /* an int: the upper half of the register is anything */
		*address = 0;
		return true;
	}
	return !bpf_probe_read_user(address, sizeof(*address), (void *)call->pointer);
}

/* The return of a call, if its entry is in `pending`. */
static __always_inline int call_finish(struct pt_regs *ctx, bool shared)
{
	__u32 slot = cookie_of(ctx, shared) & COOKIE_TARGET_MASK;
	struct pending_key key = {
		/* The return has popped its address: the entry's stack pointer was one word below.
		 */
		.sp = PT_REGS_SP(ctx) - sizeof(__u64),
		.tid = (__u32)bpf_get_current_pid_tgid(),
		.target = slot,
	};
	struct pending_call *found = bpf_map_lookup_elem(&pending, &key);
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &slot);
	struct pending_call call;
	struct target *target;
	enum counter outcome = COUNT_LOST_RESULT;
	__u64 address = 0;

	if (!found || !cpu)
		return 0;
	target = target_current(slot);
	/* Stopped in between: left in `pending`, where the end of the recording counts it. */
	if (!target || target->epoch != found->epoch)
		return 0;
	call = *found;
	bpf_map_delete_elem(&pending, &key);
	if (call_result(ctx, &call, &address)) {
		struct live_block block = {
			.stack = call.stack,
			.size = call.size < LIVE_SIZE_MAX ? call.size : LIVE_SIZE_MAX,
			.epoch = call.epoch,
		};

		if (call.has_old)
			realloc_settle(cpu, slot, &call, address != 0);
		if (!call.sampled)
			return 0;
		if (!address) {
			outcome = COUNT_FAILED;
		} else {
			block.time = bpf_ktime_get_ns();
			outcome = call.loss ?: block_record(cpu, slot, address, &block);
		}
		if (!outcome)
			outcome = COUNT_RECORDED;
	}
	count_up(cpu, outcome);
	return 0;
}

/* An unsampled call, where its return will be seen all the same: it must not find another's entry.
 */
static __always_inline void call_skip(struct pt_regs *ctx, __u32 slot, struct cpu_state *cpu)
{
	struct pending_key key = {
		.sp = PT_REGS_SP(ctx),
		.tid = (__u32)bpf_get_current_pid_tgid(),
		.target = slot,
	};

	pending_drop(cpu, &key);
}

#endif
