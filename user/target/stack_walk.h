/*
 * The walk in user space: from a thread's registers at any instruction, and a copy of the top of its
 * stack, to the addresses of its calls. By the images' call frame information, not pruned to call
 * sites as the kernel's tables are (include/unwind.h); where there is none, by frame pointers or by
 * what looks like a return address.
 *
 * Images and stacks are hostile. Tables are made once per file, bounded in number, size and the CPU
 * time that making them takes; without a table, frame pointers have to do. A walk is bounded, its
 * frames have to grow, and only the copy of the stack is read.
 */
#ifndef ALLOCTRACE_STACK_WALK_H
#define ALLOCTRACE_STACK_WALK_H

#include "replaced_returns.h"
#include "target/process.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STACK_WALK_FRAMES 128

/* Of tables, of all images together. */
#define STACK_WALK_TABLES_MAX	(64u << 20)
#define STACK_WALK_IMAGES_MAX	16384
#define STACK_WALK_BUILD_NS_MAX 10000000000LL

struct stack_state {
	uint64_t pc, sp, fp;
	uint64_t lr;	      /* aarch64: the link register */
	const uint8_t *stack; /* borrowed; from sp on */
	size_t stack_size;
	/* Borrowed; NULL: not known, or none. What they are the process has made, as its stack. */
	const struct replaced_returns *replaced;
};

/* How a walk ends. */
#define STACK_WALK_ENDS(X)                                                                         \
	X(STACK_WALK_COMPLETE, "reached the thread's first frame")                                 \
	X(STACK_WALK_COPY_ENDS, "goes on beyond the copy of the stack")                            \
	X(STACK_WALK_NO_RULE, "no unwind information, and no frame pointer")                       \
	X(STACK_WALK_NO_MAPPING, "leads outside of the known code")                                \
	X(STACK_WALK_NOT_GROWING, "frame not above the one before")                                \
	X(STACK_WALK_RETURN_PROBE, "return address replaced by a return probe")                    \
	X(STACK_WALK_TOO_DEEP, "more than " STACK_WALK_FRAMES_TEXT " frames")
#define STACK_WALK_FRAMES_TEXT "128"

enum stack_walk_end {
#define X(id, text) id,
	STACK_WALK_ENDS(X)
#undef X
		STACK_WALK_END_COUNT,
};

/* The text above; never NULL. */
const char *stack_walk_end_text(enum stack_walk_end end);

struct stack_walk {
	/*
	 * Innermost first: the pc itself, then of each call the return address - 1. Behind a signal
	 * handler the pc that was interrupted.
	 */
	uint64_t addresses[STACK_WALK_FRAMES];
	size_t count;
	size_t unsure; /* of them: found without such information */
	enum stack_walk_end end;
};

struct stack_walker_stats {
	size_t images; /* that have a table */
	size_t table_bytes;
	uint64_t left_out; /* images that have none, for the limits above */
	uint64_t
		unreadable; /* images that have none because they are broken, or another machine's */
};

struct stack_walker;

int stack_walker_new(struct stack_walker **out);
void stack_walker_free(struct stack_walker *walker);

/* The process has to have the mappings that were there. 0 or -ENOMEM. */
int stack_walk(struct stack_walker *walker, const struct process *process,
	       const struct stack_state *state, struct stack_walk *out);

void stack_walker_stats(const struct stack_walker *walker, struct stack_walker_stats *out);

#endif
