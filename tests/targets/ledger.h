/*
 * The books of a ledger: a target that allocates from sites with names and knows, at the end, what
 * each of them allocated and what of it is live.
 *
 * A program is one or more groups of sites, each for one way to allocate (C, C++, Rust, an
 * allocator's own functions), and a main() that calls ledger_add() for each group and then
 * ledger_main(). ledger_books.c keeps the books and runs the threads, ledger_c.c has the sites of
 * C, ledger.cc is the program that most tests use.
 *
 *	ledger [--threads N] [--rounds N] [--seed S] [--live N] [--sizes mixed] [--period R]
 *
 * Says "ready PID", waits for a line, works, prints the books as one line of JSON
 *	{"malloc": {"alloc_objects": 1, "alloc_bytes": 1, "inuse_objects": 1, "inuse_bytes": 1}, ...}
 * waits for another line, so that a tracer can leave while everything is still alive, and ends.
 * The end of stdin counts as a line.
 *
 * Between the first line and the last nothing allocates but the sites: the books are in static
 * memory, one set per thread, and are added up at the end. What counts:
 * - sizes are those asked for: calloc(3, 5) is one object of 15 bytes, malloc(0) one of 0 bytes; but
 *   pvalloc allocates whole pages;
 * - a successful realloc is a free of the old block and an allocation at the realloc's site;
 * - realloc(p, 0) frees p; if it returns a block, that is an allocation of 0 bytes;
 * - a call that fails changes nothing.
 * Where allocators differ, each call's own result is booked: there is no list of who does what.
 *
 * Without --sizes every round visits every site once, with sizes from a few bytes to beyond the
 * mmap threshold; --live limits how many blocks each thread's lists of live ones hold. With
 * --sizes mixed it is the "bulk" sites that work, and the books also hold the variance of each
 * figure's estimate when allocations are sampled every R bytes: a sum of (1-p)/p for objects and
 * s^2 (1-p)/p for bytes, p = 1 - exp(-s/R).
 */
#ifndef ALLOCTRACE_LEDGER_H
#define ALLOCTRACE_LEDGER_H

#include "target.h"

#include <stdint.h>

#ifdef __cplusplus
#define LEDGER_C extern "C"
extern "C" {
#else
#define LEDGER_C
#endif

#define LEDGER_THREADS	 16
#define LEDGER_TOO_LARGE (~0ul / 4) /* no allocator can have that */

struct ledger_worker; /* one thread's books and blocks */

/* What a site's call is to be called with; each reads what it needs. */
struct ledger_request {
	size_t size;
	size_t count;	  /* calloc, reallocarray */
	size_t alignment; /* posix_memalign, aligned_alloc, memalign */
	void *old;	  /* realloc */
	const char *text; /* strdup */
};

struct ledger_site {
	const char *name;
	void *(*call)(const struct ledger_request *q);
	void (*release)(void *block, size_t size); /* size: as it was asked for */
	size_t bulk_size;			   /* bulk sites: middle size in bytes */
	unsigned int bulk_count;		   /* and allocations a round; 0: not a bulk site */
};

struct ledger_group {
	const struct ledger_site *sites;
	size_t site_count;
	void (*prepare)(
		struct ledger_worker *w); /* before "ready", by each thread; NULL: nothing */
	void (*round)(struct ledger_worker *w);
};

struct ledger_block {
	void *start;
	size_t size;
	const struct ledger_site *site;
};

extern const struct ledger_group ledger_c; /* ledger_c.c */

void ledger_add(const struct ledger_group *group);
int ledger_main(int argc, char **argv);

static inline size_t ledger_pages(size_t size)
{
	return (size + 4095) & ~(size_t)4095;
}

/* --- for prepare() and round() ----------------------------------------------------------------- */

int ledger_thread(const struct ledger_worker *w); /* from 0 */
uint64_t ledger_draw(struct ledger_worker *w); /* a random number, the same in each run of a seed */
/* A size that may be on either side of an mmap threshold; seldom so, as that costs page faults. */
size_t ledger_draw_large(struct ledger_worker *w);

/* One call that allocates size bytes. It has to succeed, has to fail, or may do either. */
struct ledger_block ledger_allocate(struct ledger_worker *w, const struct ledger_site *site,
				    const struct ledger_request *q, size_t size);
void ledger_must_fail(const struct ledger_site *site, const struct ledger_request *q);
bool ledger_try(struct ledger_worker *w, const struct ledger_site *site,
		const struct ledger_request *q, size_t size, struct ledger_block *out);

void ledger_give_back(struct ledger_worker *w, struct ledger_block b);
/* Takes b out of the books: a call other than its site's release has freed it. */
void ledger_freed(struct ledger_worker *w, struct ledger_block b);
/* A block's further life: freed at once, by the next thread at the end, or never. */
void ledger_dispose(struct ledger_worker *w, struct ledger_block b);
void ledger_hand_over(struct ledger_worker *w, struct ledger_block b); /* the second of these */

/* Gives b to any thread, now, and takes what any thread has given. False: there was nothing yet. */
bool ledger_swap(struct ledger_worker *w, struct ledger_block b, struct ledger_block *out);

/* ledger_allocate() or ledger_try(), and ledger_dispose(). */
void ledger_plain(struct ledger_worker *w, const struct ledger_site *site,
		  const struct ledger_request *q, size_t size);
void ledger_maybe(struct ledger_worker *w, const struct ledger_site *site,
		  const struct ledger_request *q, size_t size);

/*
 * Calls a realloc that is to make a block of size bytes of old, which q->old must be. If it fails,
 * then old is disposed of; so is what it returns.
 */
void ledger_take_over(struct ledger_worker *w, struct ledger_block old,
		      const struct ledger_site *site, const struct ledger_request *q, size_t size);
/* Both calls: one of q->size bytes, then a realloc to new_size. */
void ledger_reallocate(struct ledger_worker *w, const struct ledger_site *from, size_t size,
		       const struct ledger_site *to, size_t count, size_t new_size);

#ifdef __cplusplus
}
#endif

/*
 * A site's functions, from a table of X(name, call, release[, bulk size, bulk count]): call sees q,
 * release sees block and size. Three functions each: a frame or two may be lost where a walk by
 * frame pointers passes a library that was built without them.
 */
#define LEDGER_DEFINE_SITE(name, call, release, ...)                                               \
	LEDGER_C NAMED_SITE void *site_##name(const struct ledger_request *q)                      \
	{                                                                                          \
		(void)q;                                                                           \
		return call;                                                                       \
	}                                                                                          \
	LEDGER_C NAMED_SITE void *mid_##name(const struct ledger_request *q)                       \
	{                                                                                          \
		return site_##name(q);                                                             \
	}                                                                                          \
	LEDGER_C NAMED_SITE void *path_##name(const struct ledger_request *q)                      \
	{                                                                                          \
		return mid_##name(q);                                                              \
	}                                                                                          \
	static void release_##name(void *block, size_t size)                                       \
	{                                                                                          \
		(void)size;                                                                        \
		release;                                                                           \
	}

/* The same tables as an enum, as a number of sites, and as rows of struct ledger_site. */
#define LEDGER_SITE_ID(name, ...)	     SITE_##name,
#define LEDGER_COUNT(...)		     +1
#define LEDGER_SITE_ROW(name, call, release) {#name, path_##name, release_##name, 0, 0},
#define LEDGER_BULK_ROW(name, call, release, size, count)                                          \
	{#name, path_##name, release_##name, size, count},

#endif
