// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * Runs where a page fault is sampled, before the sample is written: tells what return addresses the
 * thread's pending return probes have replaced. Its stack shows their trampoline, and the kernel alone
 * knows what was there. Who has no such probe pending pays for two reads.
 *
 * An object of its own: where a kernel does not load it, all else works. It need not keep a thread's
 * own stack: perf events run their programs with preemption disabled.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "replaced_returns.h"

/* Read when a sample is met that may have one; each is 40 bytes and more. */
#define FAULT_RING_BYTES (64 * 1024)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* struct fault_event */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, FAULT_RING_BYTES);
} fault_events SEC(".maps");

/* Where one is put together: it is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fault_event);
} fault_scratch SEC(".maps");

static __always_inline void tell(struct bpf_perf_event_data *ctx, struct task_struct *task,
				 struct return_instance *instance)
{
	__u32 key = 0, count;
	struct fault_event *event = bpf_map_lookup_elem(&fault_scratch, &key);

	if (!event)
		return;
	for (count = 0; count < REPLACED_RETURNS_MAX && instance; count++) {
		struct replaced_return *item = &event->replaced.items[count];

		item->stack = BPF_CORE_READ(instance, stack);
		item->original = BPF_CORE_READ(instance, orig_ret_vaddr);
		instance = BPF_CORE_READ(instance, next);
	}
	event->time = bpf_ktime_get_ns();
	event->address = ctx->addr;
	event->tid = (__u32)bpf_get_current_pid_tgid();
	event->replaced.trampoline = BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr);
	event->replaced.count = count;
	/* Nobody waits for it: the sample is what tells. Without room that stack ends at the probe. */
	bpf_ringbuf_output(&fault_events, event,
			   sizeof(*event) -
				   (REPLACED_RETURNS_MAX - count) * sizeof(*event->replaced.items),
			   BPF_RB_NO_WAKEUP);
}

/* Returns 1: with 0 there would be no sample. */
SEC("perf_event")
int fault_returns(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct uprobe_task *utask = BPF_CORE_READ(task, utask);
	struct return_instance *instance = utask ? BPF_CORE_READ(utask, return_instances) : NULL;

	if (instance)
		tell(ctx, task, instance);
	return 1;
}
