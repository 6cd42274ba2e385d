/*
 * The ABI between the BPF programs and the user side: map keys and values, settings, counters.
 * Fixed-width fields, explicit padding; both sides compile the same assertions. A user-space file
 * includes <linux/types.h> by this header; a BPF file includes vmlinux.h first.
 */
#ifndef ALLOCTRACE_ABI_H
#define ALLOCTRACE_ABI_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#include "unwind.h"

/* Targets of one recording. A target is a process in one slot of the `targets` map. */
#define MAX_TARGETS 256

/*
 * Frames kept of a stack, innermost first. An element of a map that is not allocated ahead takes a
 * power of two of bytes: 240 frames, the key and the kernel's own fields fill 2 KiB, as 128 would.
 */
#define MAX_FRAMES 240

/* Return addresses inside allocating functions, of all targets together. */
#define NESTED_MAX (1 << 20)

/*
 * Live blocks by a hash of their address: most addresses that are freed have no live block there,
 * and find it out in these 64 KiB, which stay in the cache, where the map of live blocks does not.
 */
#define LIVE_FILTER_BITS 14

/* Gaps between samples are drawn from this many quantiles of the exponential distribution. */
#define GAP_COUNT 4096

/* What a probed function does: its operands in this order, and its result. */
enum allocator_shape {
	SHAPE_MALLOC,	      /* (size) -> pointer */
	SHAPE_CALLOC,	      /* (count, size) -> pointer */
	SHAPE_REALLOC,	      /* (pointer, size) -> pointer */
	SHAPE_REALLOCARRAY,   /* (pointer, count, size) -> pointer */
	SHAPE_PVALLOC,	      /* (size) -> pointer to whole pages: their size is what counts */
	SHAPE_XALLOCX,	      /* (pointer, size) -> size it now has, in place */
	SHAPE_POSIX_MEMALIGN, /* (pointer to the result, size) -> 0 or errno */
	SHAPE_FREE,	      /* (pointer) */
	SHAPE_HANDOVER,	      /* no function: a jump from one of these into another */
	SHAPE_UNWIND,	      /* the C++ runtime begins to look for a handler of an exception */
	SHAPE_MMAP,	      /* (length, flags) -> address or MAP_FAILED */
	SHAPE_MREMAP,	      /* (old address, old length, length, flags) -> as above */
	SHAPE_BRK,	      /* (address); what became of the break, the kernel knows */
	SHAPE_MUNMAP,	      /* (address, length) */
	SHAPE_COUNT,
};

/* Operands of a shape, at most. */
#define OPERANDS_MAX 4

/*
 * A link's cookie: what a program has to know about the place it was hit at.
 * bits 0-15: slot of the target; 16-23: enum allocator_shape; 24, 25: flags, see below; from 32: for
 * each operand 5 bits, the register that holds it (a handover has its condition there); 48-63: the
 * site's number among those of the target (not if it maps or unmaps: operands reach up to there).
 * So a plain malloc or free is one comparison of the lower half.
 */
#define COOKIE_TARGET_MASK 0xffffU
/*
 * A link that serves all processes has a number of its own in place of the slot, with this bit set. Its
 * sites are numbered among those of all such links, and their entries in `nested` are of SHARED_SITES.
 */
#define COOKIE_SHARED	      0x8000U
#define SHARED_SITES	      0xffffU
#define COOKIE_SHAPE_SHIFT    16
#define COOKIE_SHAPE_MASK     0xffU
#define COOKIE_OPERANDS_SHIFT 32
#define COOKIE_OPERAND_BITS   5
#define COOKIE_OPERAND_MASK   31U
#define COOKIE_SITE_SHIFT     48
/* An operand is not the argument of its number, or not where the ABI has that. */
#define COOKIE_MOVED (1U << 24)
/*
 * An exception may pass through the function, and nothing guards its return address (see
 * tracer_guard()): the return of a call that might fail must not be probed.
 */
#define COOKIE_UNGUARDED (1U << 25)
/*
 * A jump that hands over is taken always, or as x86's condition code 0 to 15 says (the low four bits
 * of jcc's opcode).
 */
#define HANDOVER_ALWAYS 16

/*
 * Innermost frames among which a call of one allocating function within another is looked for: as
 * many helpers may stand between the two.
 */
#define NESTED_FRAMES_MAX 8

/* How a walk ended. The text is what -v and the profile's comments say. */
#define WALK_ENDS(X)                                                                               \
	X(WALK_COMPLETE, "complete")                                                               \
	X(WALK_NO_MAPPING, "no code known at the return address")                                  \
	X(WALK_NO_RULE, "no unwind rule, and no frame pointer")                                    \
	X(WALK_UNREADABLE, "stack memory unreadable")                                              \
	X(WALK_NOT_GROWING, "frame address not growing")                                           \
	X(WALK_TOO_DEEP, "deeper than the frame limit")                                            \
	X(WALK_MAPPINGS_CHANGED, "mappings changed during the walk")

enum walk_end {
#define X(id, text) id,
	WALK_ENDS(X)
#undef X
		WALK_END_COUNT,
};

/*
 * Counters, per CPU and target. The first group is what was seen. In the second, each counts calls
 * that were sampled and not recorded: sampled = recorded + failed + the sum of these.
 */
#define COUNTERS(X)                                                                                \
	X(COUNT_CALLS, "allocating calls seen", 0)                                                 \
	X(COUNT_FREES, "freeing calls seen", 0)                                                    \
	X(COUNT_MAPS, "calls seen that map memory", 0)                                             \
	X(COUNT_UNMAPS, "calls seen that unmap memory", 0)                                         \
	X(COUNT_SAMPLED, "calls sampled", 0)                                                       \
	X(COUNT_RECORDED, "allocations recorded", 0)                                               \
	X(COUNT_FAILED, "sampled calls that allocated nothing", 0)                                 \
	X(COUNT_NESTED, "sampled calls that were part of another", 0)                              \
	X(COUNT_REPLACED, "blocks seen again without their free", 0)                               \
	X(COUNT_UNTRACKED, "live blocks lost from view by a failing realloc", 0)                   \
	X(COUNT_UNMAPS_LOST, "unmappings that could not be reported", 0)                           \
	X(COUNT_UNMEASURED, "mappings that the account of the RSS lacks", 0)                       \
	X(COUNT_LOST_PENDING, "too many calls in progress", 1)                                     \
	X(COUNT_LOST_RETURNS, "no return probe left in the thread", 1)                             \
	X(COUNT_LOST_ABANDONED, "call left by a jump, never returned", 1)                          \
	X(COUNT_LOST_IN_FLIGHT, "call not finished at the end", 1)                                 \
	X(COUNT_LOST_SCRATCH, "no free stack buffer", 1)                                           \
	X(COUNT_LOST_STACKS, "stack map full", 1)                                                  \
	X(COUNT_LOST_LIVE, "live map full", 1)                                                     \
	X(COUNT_LOST_COUNTS, "count map full", 1)                                                  \
	X(COUNT_LOST_RESULT, "result unreadable", 1)                                               \
	X(COUNT_LOST_RISKY, "too large to watch a call that might throw", 1)                       \
	X(COUNT_LOST_ORIGIN, "mapping by code that was not known yet", 1)                          \
	X(COUNT_LOST_MAPPINGS, "mapping that could not be reported", 1)

enum counter {
#define X(id, text, loss) id,
	COUNTERS(X)
#undef X
		COUNTER_COUNT,
};

/* What a target has on each CPU. */
struct cpu_state {
	__u64 countdown; /* bytes until the next sample; a call of at least so many is sampled */
	__u64 counters[COUNTER_COUNT];
};

struct target {
	__u32 tgid;    /* in the initial pid namespace; 0: none (any more) */
	__u32 epoch;   /* programs executed by it since it was given: an exec forgets all blocks */
	__u32 enabled; /* 0: nothing is recorded, whatever links there are */
	__u32 remap;   /* a walk met code that `mappings` does not know; the user side clears it */
	/*
	 * Its slice of `mappings`: first << 32 | count, in one word so that it changes at once. 0:
	 * none known; an exec sets that.
	 */
	__u64 mappings;
};

/* A target whose calls come through a link that serves all processes: one for each such link. */
struct member_key {
	__u32 tgid;
	__u32 link; /* as in its cookie, with COOKIE_SHARED */
};

/*
 * What a mapping is of, as the kernel has it: breakpoints are put there. Where overlays show one file of a
 * layer below, each tells of it as one of its own.
 */
struct mapped_file {
	__u64 start;
	__u64 inode;
	__u32 dev; /* as the kernel writes it */
	__u32 pad;
};

/* An executable mapping of a target. A slice of these is sorted by start and without overlaps. */
struct unwind_mapping {
	__u64 start, end;
	__u64 bias; /* address - link-time address; without meaning where image.page_count is 0 */
	struct unwind_image image;
};

#define MAPPING_SEARCH_STEPS 16 /* log2 of the most mappings of a target */

/* Two rows to an element: an array rounds its elements up to 8 bytes. */
struct unwind_row_pair {
	struct unwind_row rows[2];
};

/* The rows of one 64 KiB page of an image: low <= number < high, within the image. */
struct unwind_page {
	__u32 low, high;
};

/*
 * Set in a frame's address where it was found without a rule for that place: by a frame pointer, or
 * out of code that a signal interrupted. It may be wrong, or the caller of the right one.
 */
#define FRAME_UNSURE (1ULL << 63)

/*
 * Set in a frame that is a Python function's, of the C frame before it: the address of its code object
 * without its last four bits, which are 0, then the instruction, as the number of 16-bit units before
 * it; of one with more the largest number. With FRAME_PYTHON_KNOWN, which the user side sets, there is
 * a number that it has given the code object instead of the address.
 */
#define FRAME_PYTHON	   (1ULL << 62)
#define FRAME_PYTHON_KNOWN (1ULL << 61)
#define PYTHON_UNIT_BITS   18
#define PYTHON_UNIT_MAX	   ((1 << PYTHON_UNIT_BITS) - 1)

/* Where CPython keeps what in the memory of a target. Offsets in bytes, of structures that its version has. */
struct python_target {
	__u64 runtime;	    /* address of _PyRuntime; 0: none */
	__u32 interpreters; /* of the first interpreter's address in there */
	__u32 interpreter_next, interpreter_threads;
	__u32 thread_next, thread_id;
	__u32 thread_frame;    /* of the innermost frame, or of the _PyCFrame that knows it: */
	__u32 c_frames;	       /* there are these (3.11, 3.12) */
	__u32 c_frame_current; /* its innermost frame */
	__u32 c_frame_next;    /* the one outside (3.11; else 0) */
	/* In a frame: below 8 * PYTHON_FRAME_WORDS, and those of addresses multiples of 8. */
	__u32 frame_code, frame_previous, frame_instruction;
	__u32 frame_owner; /* a byte: PYTHON_OWNED_BY_C; in 3.11 that which says where C begins */
	__u32 code_start;  /* of the first instruction in a code object */
	/*
	 * Two addresses in it, one behind the other: of its qualified name and of its line table. Code
	 * objects are freed, and others get their place, but hardly one with both of these.
	 */
	__u32 code_identity;
	__u32 pad;
};
#define PYTHON_FRAME_WORDS 16

/* The room for events that have not been read: a program that imports has thousands of new stacks. */
#define PYTHON_RING_BYTES (1U << 20)

/* A new stack with Python frames: its key in `stacks`. */
struct python_event {
	__u64 stack;
	__u32 target;
	__u32 epoch;
};

/*
 * One round of the hash that a stack's key is: a 64-bit multiply-xorshift. Order matters, every bit
 * spreads. Begun with 0, or with the target's slot + 1 where it runs Python, it goes over the frames,
 * and behind a Python frame over the code object's two addresses (python_target, code_identity).
 */
static inline __u64 stack_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

static inline __u64 stack_key(__u64 hash)
{
	return hash | !hash;
}

struct stack {
	__u32 frame_count;
	__u32 end;		  /* enum walk_end */
	__u64 frames[MAX_FRAMES]; /* return addresses, innermost first; FRAME_UNSURE may be set */
};

/* A call that was sampled (or that took a live block out), between its entry and its return. */
struct pending_key {
	__u64 sp; /* at the function's entry: nested calls and signal handlers have their own */
	__u32 tid;
	__u32 target;
};

/* A live block that was sampled. */
struct live_key {
	__u64 address;
	__u64 target;
};

/*
 * An element of `live` takes 96 bytes with this, and 128 with a word more: so the size has what an
 * address space has, and the epoch what struct count_key has of it.
 */
struct live_block {
	__u64 stack;	 /* key in `stacks` */
	__u64 size : 48; /* bytes asked for, LIVE_SIZE_MAX at most */
	__u64 epoch : 16;
	__u64 time; /* of its allocation, ns of CLOCK_MONOTONIC */
};
#define LIVE_SIZE_MAX ((1ULL << 48) - 1)

struct pending_call {
	__u64 stack;
	__u64 size;
	__u64 pointer;	       /* realloc: the old block; posix_memalign: where the result goes */
	struct live_block old; /* the block that realloc took out, if has_old */
	__u32 epoch;
	__u8 sampled;
	__u8 has_old;
	__u8 shape; /* enum allocator_shape */
	__u8 loss;  /* sampled, but it cannot be recorded: enum counter, 0 if it can */
};

/*
 * What a call has done to the mappings of its process. As parts of one may go, and one call may take
 * away several, the user side keeps the books, and needs the calls in their order: a mapping is
 * reported when it is there, and what is unmapped before it is gone, so that no other can have taken
 * its place.
 */
enum region_event_type {
	REGION_MAPPED,	 /* and what was there is gone; so is what was held for `id` */
	REGION_UNMAPPED, /* or about to be: the call may fail, but hardly one does */
	REGION_HELD,	 /* an mremap begins that takes this away, if it succeeds */
	REGION_KEPT,	 /* it has not */
};

struct region_event {
	__u64 start, end;
	__u64 stack; /* key in `stacks`; 0: it is not recorded, what it replaces counts */
	__u64 time;  /* ns of CLOCK_MONOTONIC */
	__u32 target;
	__u32 epoch;
	__u32 id;   /* of an mremap under way: its thread; else 0 */
	__u32 type; /* enum region_event_type */
};

/*
 * In place of a stack's key, of a mapping that is only measured: without --mmap, mappings are followed for
 * the account of the resident memory, and not recorded.
 */
#define REGION_MEASURED 1

/* The room for events that have not been read. */
#define REGION_RING_BYTES (4U << 20)

/* Where children are followed: a target that was given, or a process that it or such a one started. */
struct family_member {
	__u64 time; /* of its start, ns of CLOCK_MONOTONIC; 0: it was given */
	__u32 root; /* slot of the given one that it comes from */
	__u32 pad;
};

/* A member has started another one: with its id, the time names the child for ever. */
struct fork_event {
	__u64 time;
	__u32 parent, child;
	__u32 root;
	__u32 pad;
};

/* Allocations of one stack in one size class. */
struct count_key {
	__u64 stack;
	__u32 size_class;
	__u16 target;
	__u16 epoch;
};

/*
 * Lifetimes of freed objects by powers of four: up to 2^12 ns, below 2^14, and so on; the last is for
 * all from 2^44 ns (5 h) on. So the median of a site is known within such a step.
 */
#define LIFETIMES	    18
#define LIFETIME_SHIFT	    12
#define LIFETIME_UNIT_SHIFT 10

struct count {
	__u64 alloc_objects;
	__u64 alloc_bytes;
	__u64 free_objects;
	__u64 free_bytes;
	/* Of what was freed: */
	__u64 lifetimes;   /* the sum, in units of 2^10 ns: 64 bits of ns are 584 years */
	__u64 first_freed; /* when the earliest of them was allocated; 0: none was freed */
	__u32 by_lifetime[LIFETIMES]; /* objects; they stay at the highest value that fits */
};

/* Which of by_lifetime. */
static inline __u32 lifetime_class(__u64 nanos)
{
	__u32 shift = 0;

	nanos >>= LIFETIME_SHIFT - 2;
	for (__u32 step = 32; step >= 2; step >>= 1) {
		if (nanos >> (shift + step))
			shift += step;
	}
	return shift / 2 < LIFETIMES ? shift / 2 : LIFETIMES - 1;
}

/*
 * A return address inside an allocating function: what has it on its stack is part of that call.
 * Either where it is in the target's memory, or, for a call that leads straight to another function
 * of the same image, from that function's probe site: that is the same wherever the image is mapped,
 * so it holds from the first call after an exec on.
 */
struct nested_key {
	__u64 address; /* or return address - address of the probe site */
	__u32 target;  /* NESTED_FOR_MAPPINGS may be set */
	__u32 epoch;   /* or NESTED_RELATIVE | number of the site */
};
#define NESTED_RELATIVE (1U << 31)
/* For calls that map memory, these are theirs: inside functions that free, or map, too. */
#define NESTED_FOR_MAPPINGS (1U << 31)

/*
 * Places in a page where probe sites are. These stay what they are when the target executes another
 * program, while addresses change; it is one in many that another tracer's site has the place of one
 * of ours.
 */
#define GUARDED_PLACES 4096
struct guarded {
	__u64 places[GUARDED_PLACES / 64]; /* a bit each */
};

/*
 * Size classes: exact up to 127 bytes, then 64 to an octave, so that none is wider than 1/64 of its
 * sizes: weights may be taken at the class's mean size.
 */
static inline __u32 size_class(__u64 size)
{
	__u32 shift = 0;

	for (__u32 step = 32; step; step >>= 1) {
		if (size >> (shift + step) >= 64)
			shift += step;
	}
	return shift * 64 + (__u32)(size >> shift);
}

_Static_assert(sizeof(struct target) == 24, "ABI");
_Static_assert(sizeof(struct member_key) == 8, "ABI");
_Static_assert(sizeof(struct mapped_file) == 24, "ABI");
_Static_assert(sizeof(struct unwind_mapping) == 40, "ABI");
_Static_assert(sizeof(struct unwind_row_pair) == 8, "ABI");
_Static_assert(sizeof(struct unwind_page) == 8, "ABI");
_Static_assert(sizeof(struct python_target) == 72, "ABI");
_Static_assert(sizeof(struct python_event) == 16, "ABI");
_Static_assert(sizeof(struct stack) == 8 + 8 * MAX_FRAMES, "ABI");
_Static_assert(sizeof(struct family_member) == 16, "ABI");
_Static_assert(sizeof(struct fork_event) == 24, "ABI");
_Static_assert(sizeof(struct pending_key) == 16, "ABI");
_Static_assert(sizeof(struct live_key) == 16, "ABI");
_Static_assert(sizeof(struct live_block) == 24, "ABI");
_Static_assert(sizeof(struct pending_call) == 56, "ABI");
_Static_assert(sizeof(struct region_event) == 48, "ABI");
_Static_assert(sizeof(struct count_key) == 16, "ABI");
_Static_assert(sizeof(struct count) == 120, "ABI");
_Static_assert(sizeof(struct nested_key) == 16, "ABI");
_Static_assert(sizeof(struct guarded) == GUARDED_PLACES / 8, "ABI");

#endif
