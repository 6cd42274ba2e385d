/*
 * Which functions of an image allocate, at which instruction each is to be probed, and how they
 * call each other: everything the tracer has to know of an allocator's code, as a plain table.
 */
#ifndef ALLOCTRACE_ALLOCATORS_H
#define ALLOCTRACE_ALLOCATORS_H

#include "alloctrace.h"
#include "binary/families.h"
#include "binary/image.h"
#include "binary/probe_site.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the user says beyond the table of families. All borrowed. */
struct allocator_extras {
	/* In the file at path, functions named by the C library's names behind a prefix. */
	struct allocator_prefix {
		const char *path, *prefix;
	} * prefixes;
	size_t prefix_count;
	/* Single functions, in whichever image defines them. */
	struct family_function *functions;
	size_t function_count;
	/* The functions by which a program maps memory, too, where they stand beside an allocator. */
	bool mappings;
};

struct allocator_function {
	char *name; /* owned; the first of its aliases in the table's order */
	enum allocator_shape shape;
	uint8_t arguments[OPERANDS_MAX]; /* as in struct family_function */
	bool throws;			 /* an exception may pass through it */
	bool custom;			 /* named by the user */
	uint64_t vaddr;			 /* entry, link-time address */
	uint64_t size;			 /* 0: unknown */
	uint64_t site;			 /* link-time address of the probe site, >= vaddr */
	uint64_t site_offset;		 /* file offset of the probe site */
	bool emulated; /* the kernel emulates the instruction; false: it is single-stepped */
	uint8_t registers[OPERANDS_MAX]; /* which register holds each operand at the site */
};

/* A function that belongs to the allocator and is not probed. */
struct allocator_left_out {
	char *name;	    /* owned */
	const char *reason; /* static */
};

/*
 * A jump by which an allocating function ends in another one that is probed: the inner one then
 * runs with the outer one's stack pointer and return address, and the outer one's sample has to be
 * taken back where it is taken.
 */
struct allocator_handover {
	uint64_t vaddr, offset; /* of the jump: link-time address, in the file */
	bool throws;		/* as below */
	uint8_t condition;	/* of a jcc: its opcode's low four bits; HANDOVER_ALWAYS: a jmp */
};

struct allocator_return {
	uint64_t vaddr;
	/*
	 * Of the probed function that is called; CALLEE_LEFT_OUT: one that may go on to one of them; 0:
	 * others, or it is not known.
	 */
	uint64_t callee;
#define CALLEE_LEFT_OUT UINT64_MAX
	bool allocates; /* false: what it is inside of only frees, or maps; see below */
	bool throws;	/* it belongs only to functions that may throw */
};

struct allocator {
	/* It throws by functions of other images, so that theirs are the ones that unwind. */
	bool throws_by_import;
	/* How its functions call each other was followed up to a limit only: calls may count twice. */
	bool is_partly_known;
	const char *family;		      /* static; whose names they are */
	const char *source;		      /* static; where the symbols were found */
	struct allocator_function *functions; /* owned; one per address: aliases are merged */
	size_t function_count;
	struct {
		struct allocator_left_out *items; /* owned */
		size_t count, capacity;
	} left_out;
	struct {
		struct allocator_handover *items; /* owned; sorted by address */
		size_t count, capacity;
	} handovers;
	/*
	 * Return addresses (link-time) of the calls inside the probed allocating functions: an
	 * allocation with one of these on its stack is part of an outer one. If mappings are looked
	 * for, also of those inside the other functions: a mapping with any of these on its stack is
	 * not the program's own.
	 */
	struct allocator_return *nested_returns; /* owned, sorted by address, unique */
	size_t nested_return_count;
	unsigned int shares; /* owners besides the first */
};

/*
 * Looks for an allocator in image. symbols: another file with the symbol table of the same code (a
 * separate debug file), or NULL. extras may be NULL. 0 with *out (to be freed), -ENOENT where there
 * is none, -ENOMEM, or -errno of reading.
 */
int allocator_find(const struct image *image, const struct image *symbols,
		   const struct allocator_extras *extras, struct allocator **out);
void allocator_free(struct allocator *allocator);

/* Another owner, who frees it as well: the same file in another process. NULL is passed on. */
struct allocator *allocator_share(struct allocator *allocator);

/* Is this the file that a prefix of the user's is for? */
bool allocator_is_prefixed(const struct image *image, const struct allocator_prefix *prefix);

/*
 * The functions by which the C++ runtime (libgcc, LLVM's libunwind, or what is linked statically)
 * begins to unwind for an exception, as functions of SHAPE_UNWIND. Results as above.
 */
int allocator_find_unwinder(const struct image *image, struct allocator **out);

#endif
