/*
 * The families of allocators that are known, as one table: what their functions are called, which
 * argument says what, and what comes back. To add a family is to add rows.
 */
#ifndef ALLOCTRACE_FAMILIES_H
#define ALLOCTRACE_FAMILIES_H

#include "alloctrace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct family_function {
	const char *name; /* without the family's prefix */
	enum allocator_shape shape;
	/* Which integer arguments (0 = the first) are the operands of `shape`, in its order. */
	uint8_t arguments[OPERANDS_MAX];
	bool throws;	      /* an exception may pass through it */
	const char *unprobed; /* why such a function is only reported; NULL: it is probed */
};

struct family {
	const char *name;   /* for the report: "jemalloc" */
	const char *prefix; /* what its functions' names begin with, "" for the C library's own */
	const struct family_function *functions; /* ends with a NULL name */
	/*
	 * These functions do not make an allocator by themselves: they count where an image has
	 * another family too. Any C++ program may define an operator new.
	 */
	bool companion;
};

#define FAMILY_COUNT	9
#define FAMILY_MAPPINGS 8 /* no allocator's: mmap and its kind */
extern const struct family families[FAMILY_COUNT];

/* Operands that a shape has. */
size_t shape_operands(enum allocator_shape shape);

/* Does a function of this shape allocate? */
bool shape_allocates(enum allocator_shape shape);

/* Does it map or unmap memory by itself? The return of one that maps is probed. */
bool shape_maps(enum allocator_shape shape);
bool shape_unmaps(enum allocator_shape shape);

/*
 * Looks a symbol's name up in the functions of a family, which may stand under a prefix of the
 * user's instead of its own. NULL: not one of them.
 */
const struct family_function *family_find(const struct family *family, const char *prefix,
					  const char *name);

#endif
