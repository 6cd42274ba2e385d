/*
 * Return addresses that return probes have replaced on a thread's stack, as the kernel side tells them
 * (bpf/faults.bpf.c). Includes as include/alloctrace.h has them.
 */
#ifndef ALLOCTRACE_REPLACED_RETURNS_H
#define ALLOCTRACE_REPLACED_RETURNS_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

/* The kernel allows 64 pending ones; the innermost are told. */
#define REPLACED_RETURNS_MAX 16

/* stack: the stack pointer at the function's entry, where x86-64 has the return address. */
struct replaced_return {
	__u64 stack;
	__u64 original;
};

/* Innermost first. */
struct replaced_returns {
	__u64 trampoline; /* the address in place of each */
	__u64 count;
	struct replaced_return items[REPLACED_RETURNS_MAX];
};

/* Those of a thread whose page fault is sampled. An event ends behind the last of them. */
struct fault_event {
	__u64 time; /* ns of CLOCK_MONOTONIC */
	__u64 address;
	__u64 tid;
	struct replaced_returns replaced;
};

_Static_assert(sizeof(struct fault_event) == 40 + 16 * REPLACED_RETURNS_MAX, "ABI");

#endif
