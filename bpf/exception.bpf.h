/*
 * The guard: exceptions that leave calls whose returns are awaited.
 *
 * A return probe has replaced the call's return address by a trampoline. The C++ runtime, which looks
 * for handlers by return addresses, would find no code there and end the process. So when it begins
 * to look, each address is put back where it was, of our probes: who else awaits the return of some
 * function further out is to see it, and would not.
 *
 * What is put back returns without us. Most of these calls the exception leaves, and they allocated
 * nothing; but one may catch it inside of itself, go on and succeed: that too is counted as a failure.
 * The kernel's records of the returns go the way of those that a longjmp leaves behind.
 */
#ifndef ALLOCTRACE_EXCEPTION_BPF_H
#define ALLOCTRACE_EXCEPTION_BPF_H

#include "live.bpf.h"

struct exception {
	struct return_instance *instance;
	__u64 trampoline;
	__u32 slot, tid;
};

/* Was that awaited by us, as far as the place of its probe in the page can tell? */
static __always_inline bool is_guarded(__u32 slot, __u64 site)
{
	struct guarded *guarded = bpf_map_lookup_elem(&guards, &slot);
	__u32 place = site % GUARDED_PLACES;

	return guarded && guarded->places[place / 64] & 1ULL << place % 64;
}

/* The call at key is over, and has allocated nothing. */
static __always_inline void call_fail(struct cpu_state *cpu, struct pending_key *key)
{
	struct pending_call *found = bpf_map_lookup_elem(&pending, key);
	struct pending_call call;

	if (!found)
		return;
	call = *found;
	bpf_map_delete_elem(&pending, key);
	if (call.sampled)
		count_up(cpu, COUNT_FAILED);
	if (call.has_old)
		block_put_back(cpu, key->target, call.pointer, &call.old);
}

static long exception_step(__u64 index, struct exception *exception)
{
	struct return_instance *instance = exception->instance;
	struct pending_key key = {.tid = exception->tid, .target = exception->slot};
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &exception->slot);
	__u64 original, word;

	if (!instance || !cpu)
		return 1;
	key.sp = BPF_CORE_READ(instance, stack);
	original = BPF_CORE_READ(instance, orig_ret_vaddr);
	exception->instance = BPF_CORE_READ(instance, next);
	if (!is_guarded(exception->slot, BPF_CORE_READ(instance, func)) ||
	    !read_word(key.sp, &word))
		return 0;
	if (word == exception->trampoline)
		bpf_probe_write_user((void *)key.sp, &original, sizeof(original));
	else if (word != original) /* another guard may have been faster */
		return 0;
	call_fail(cpu, &key);
	return 0;
}

static __always_inline void exception_begin(__u32 slot)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct exception exception = {
		.instance = BPF_CORE_READ(task, utask, return_instances),
		.trampoline = BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr),
		.slot = slot,
		.tid = (__u32)bpf_get_current_pid_tgid(),
	};

	if (exception.instance && exception.trampoline)
		bpf_loop(RETURN_INSTANCES_MAX, exception_step, &exception, 0);
}

#endif
