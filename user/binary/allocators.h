/*
 * Which functions of an image allocate, at which instruction each is to be probed, and how they
 * call each other: everything the tracer has to know of an allocator's code, as a plain table.
 */
#ifndef ALLOCTRACE_ALLOCATORS_H
#define ALLOCTRACE_ALLOCATORS_H

#include "alloctrace.h"
#include "binary/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct allocator_function {
	const char *name; /* static; the first of its aliases in the table's order */
	enum allocator_shape shape;
	uint64_t vaddr;	      /* entry, link-time address */
	uint64_t size;	      /* 0: unknown */
	uint64_t site;	      /* link-time address of the probe site, >= vaddr */
	uint64_t site_offset; /* file offset of the probe site */
	bool emulated;	      /* the kernel emulates the instruction; false: it is single-stepped */
	/*
	 * This function ends in a tail jump (direct, or through functions that are not probed) to
	 * another probed allocating function, which then runs with this one's stack pointer and
	 * return address.
	 */
	bool tail_calls_allocator;
};

struct allocator {
	struct allocator_function *functions; /* owned; one per address: aliases are merged */
	size_t function_count;
	/*
	 * Return addresses (link-time) of the calls inside these functions, and inside the unprobed
	 * functions they call, that reach a probed allocating function: an allocation that returns
	 * to one of these is part of an outer one.
	 */
	uint64_t *nested_returns; /* owned, sorted, unique */
	size_t nested_return_count;
	bool own_operator_new; /* defines operator new itself: C++ allocations may bypass malloc */
};

/*
 * Looks for an allocator in image. 0 with *out (to be freed), -ENOENT where the image defines no
 * malloc and free, -ENOMEM, or -errno of reading.
 */
int allocator_find(const struct image *image, struct allocator **out);
void allocator_free(struct allocator *allocator);

#endif
