/*
 * What the walk's code needs to be compiled on the host: BPF's helpers over arrays and a stack in
 * this process. Include before bpf/stack.bpf.h.
 */
#ifndef ALLOCTRACE_TEST_BPF_HOST_H
#define ALLOCTRACE_TEST_BPF_HOST_H

#include <errno.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "alloctrace.h"

#define __TARGET_ARCH_x86
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define SEC(name)
#pragma GCC diagnostic ignored                                                                     \
	"-Wunused-parameter" /* as bpf/ is compiled: callbacks have an index */

/* As libbpf's bpf_helpers.h has them: a map's definition is a type. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) __typeof__(value) *name

#undef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)

/* The registers that the walk begins with. */
struct pt_regs {
	uint64_t sp, fp;
};
#define PT_REGS_SP(regs) ((regs)->sp)
#define PT_REGS_FP(regs) ((regs)->fp)

/* The fields of the kernel's structures that the walk reads. */
struct return_instance {
	unsigned long stack, orig_ret_vaddr;
	struct return_instance *next;
};
struct uprobe_task {
	struct return_instance *return_instances;
};
struct mm_struct {
	unsigned long start_stack;
};
struct thread_struct {
	unsigned long fsbase;
};
struct task_struct {
	struct uprobe_task *utask;
	struct mm_struct *mm;
	struct thread_struct thread;
};
#define HOST_READ_1(from, a)		 ((from)->a)
#define HOST_READ_2(from, a, b)		 ((from)->a->b)
#define HOST_READ_N(_1, _2, chosen, ...) chosen
#define BPF_CORE_READ(from, ...)                                                                   \
	HOST_READ_N(__VA_ARGS__, HOST_READ_2, HOST_READ_1)(from, __VA_ARGS__)

static struct uprobe_task host_utask;
static struct mm_struct host_mm;
static struct task_struct host_task = {.utask = &host_utask, .mm = &host_mm};

static inline uint64_t bpf_get_current_task(void)
{
	return (uintptr_t)&host_task;
}

/* The target's memory: one area, at an address of its own. */
static uint64_t host_memory[4096];
static uint64_t host_memory_at;

static inline long bpf_probe_read_user(void *to, uint32_t size, const void *from)
{
	uint64_t offset = (uintptr_t)from - host_memory_at;

	if (offset > sizeof(host_memory) || sizeof(host_memory) - offset < size)
		return -EFAULT;
	memcpy(to, (const uint8_t *)host_memory + offset, size);
	return 0;
}

static inline long host_loop(uint32_t count, long (*step)(uint64_t, void *), void *context)
{
	for (uint32_t i = 0; i < count; i++) {
		if (step(i, context))
			return i + 1;
	}
	return count;
}
#define bpf_loop(count, step, context, flags)                                                      \
	host_loop(count, (long (*)(uint64_t, void *))(void (*)(void))(step), context)

/* Arrays behind the maps, by the map's address. */
struct host_array {
	const void *map;
	void *items;
	size_t count, size;
};
static struct host_array host_arrays[8];

static inline void host_bind(const void *map, void *items, size_t count, size_t size)
{
	size_t i = 0;

	while (host_arrays[i].map && host_arrays[i].map != map)
		i++;
	host_arrays[i] = (struct host_array){map, items, count, size};
}

static inline void *bpf_map_lookup_elem(const void *map, const void *key)
{
	uint32_t index = *(const uint32_t *)key;

	for (size_t i = 0; i < sizeof(host_arrays) / sizeof(*host_arrays); i++) {
		if (host_arrays[i].map == map && index < host_arrays[i].count)
			return (uint8_t *)host_arrays[i].items + index * host_arrays[i].size;
	}
	return NULL;
}

static inline long bpf_map_update_elem(const void *map, const void *key, const void *value,
				       uint64_t flags)
{
	(void)map;
	(void)key;
	(void)value;
	(void)flags;
	return 0;
}

static inline long bpf_tail_call(void *context, const void *map, uint32_t index)
{
	(void)context;
	(void)map;
	(void)index;
	return -ENOENT;
}

static unsigned int host_events;

static inline long bpf_ringbuf_output(const void *map, const void *data, uint64_t size,
				      uint64_t flags)
{
	(void)map;
	(void)data;
	(void)size;
	(void)flags;
	host_events++;
	return 0;
}

static inline uint32_t bpf_get_prandom_u32(void)
{
	return (uint32_t)random();
}

#endif
