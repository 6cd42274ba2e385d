/*
 * The ledger of a program that uses jemalloc's own functions. Linked with the library, whose names
 * have no prefix; or, with JEMALLOC_NO_RENAME, with an archive whose names begin with je_, beside
 * the C library's own malloc.
 */
#include "ledger.h"

/* je_... is what this file calls the functions, whatever they are called in the library. */
#define JEMALLOC_NO_DEMANGLE
#include <jemalloc/jemalloc.h>
#include <strings.h>

#define ALIGNED MALLOCX_ALIGN(64)

static void *call_posix_memalign(const struct ledger_request *q)
{
	void *block = NULL;

	return je_posix_memalign(&block, 64, q->size) ? NULL : block;
}

/* In place or not at all: it returns the size that the block has then. */
static void *call_xallocx(const struct ledger_request *q)
{
	return je_xallocx(q->old, q->size, 0, 0) >= q->size ? q->old : NULL;
}

/* One block of q->size bytes. */
#define PLAIN_SITES(X)                                                                             \
	X(je_malloc, je_malloc(q->size), je_free(block))                                           \
	X(je_malloc_dallocx, je_malloc(q->size), je_dallocx(block, 0))                             \
	X(je_calloc, je_calloc(1, q->size), je_free(block))                                        \
	X(je_posix_memalign, call_posix_memalign(q), je_free(block))                               \
	X(je_aligned_alloc, je_aligned_alloc(64, q->size), je_sdallocx(block, size, ALIGNED))      \
	X(je_memalign, je_memalign(64, q->size), je_free(block))                                   \
	X(je_valloc, je_valloc(q->size), je_free(block))                                           \
	X(je_mallocx, je_mallocx(q->size, 0), je_dallocx(block, 0))                                \
	X(je_mallocx_free, je_mallocx(q->size, 0), je_free(block))                                 \
	X(je_mallocx_sized, je_mallocx(q->size, 0), je_sdallocx(block, size, 0))                   \
	X(je_mallocx_zero, je_mallocx(q->size, MALLOCX_ZERO), je_sdallocx(block, size, 0))         \
	X(je_mallocx_aligned, je_mallocx(q->size, ALIGNED), je_dallocx(block, 0))                  \
	X(je_mallocx_aligned_sized, je_mallocx(q->size, ALIGNED),                                  \
	  je_sdallocx(block, size, ALIGNED))                                                       \
	X(je_mallocx_uncached, je_mallocx(q->size, MALLOCX_TCACHE_NONE),                           \
	  je_dallocx(block, MALLOCX_TCACHE_NONE))                                                  \
	X(je_mallocx_arena, je_mallocx(q->size, MALLOCX_ARENA(0) | MALLOCX_TCACHE_NONE),           \
	  je_sdallocx(block, size, MALLOCX_TCACHE_NONE))

/* Blocks for these to take over. */
#define REALLOC_SITES(X)                                                                           \
	X(je_realloc, je_realloc(q->old, q->size), je_free(block))                                 \
	X(je_rallocx, je_rallocx(q->old, q->size, 0), je_sdallocx(block, size, 0))                 \
	X(je_rallocx_zero, je_rallocx(q->old, q->size, MALLOCX_ZERO), je_dallocx(block, 0))        \
	X(je_rallocx_aligned, je_rallocx(q->old, q->size, ALIGNED), je_free(block))                \
	X(je_rallocx_uncached, je_rallocx(q->old, q->size, MALLOCX_TCACHE_NONE), je_free(block))   \
	X(je_xallocx, call_xallocx(q), je_free(block))

#define OTHER_SITES(X)                                                                             \
	X(je_old, je_mallocx(q->size, 0), je_dallocx(block, 0))                                    \
	X(je_mallocx_fail, je_mallocx(LEDGER_TOO_LARGE, 0), je_free(block))                        \
	X(je_rallocx_fail, je_rallocx(q->old, LEDGER_TOO_LARGE, 0), je_free(block))

#define BULK_SITES(X)                                                                              \
	X(bulk_je_96, je_mallocx(q->size, 0), je_sdallocx(block, size, 0), 96, 4096)               \
	X(bulk_je_1k, je_mallocx(q->size, ALIGNED), je_dallocx(block, 0), 1024, 1024)              \
	X(bulk_je_10k, je_malloc(q->size), je_free(block), 10240, 102)                             \
	X(bulk_je_100k, je_calloc(1, q->size), je_free(block), 102400, 10)

PLAIN_SITES(LEDGER_DEFINE_SITE)
REALLOC_SITES(LEDGER_DEFINE_SITE)
OTHER_SITES(LEDGER_DEFINE_SITE)
BULK_SITES(LEDGER_DEFINE_SITE)

enum {
	PLAIN_SITES(LEDGER_SITE_ID) REALLOC_SITES(LEDGER_SITE_ID) OTHER_SITES(LEDGER_SITE_ID)
		BULK_SITES(LEDGER_SITE_ID) SITES
};
enum { PLAIN_COUNT = 0 PLAIN_SITES(LEDGER_COUNT), REALLOC_COUNT = 0 REALLOC_SITES(LEDGER_COUNT) };

static const struct ledger_site sites[SITES] = {PLAIN_SITES(LEDGER_SITE_ROW) REALLOC_SITES(
	LEDGER_SITE_ROW) OTHER_SITES(LEDGER_SITE_ROW) BULK_SITES(LEDGER_BULK_ROW)};

#define S(name) (&sites[SITE_##name])

static void je_round(struct ledger_worker *w)
{
	size_t size = 1 + ledger_draw(w) % 2000;
	/* Now and then beyond what jemalloc keeps in slabs and thread caches. */
	size_t new_size = 1 + ledger_draw(w) % (ledger_draw(w) % 8 ? 4000 : 200000);
	struct ledger_request q = {.size = size};
	struct ledger_block old;

	for (int i = 0; i < PLAIN_COUNT; i++)
		ledger_plain(w, &sites[i], &q, size);
	for (int i = PLAIN_COUNT; i < PLAIN_COUNT + REALLOC_COUNT; i++) {
		q.size = size;
		old = ledger_allocate(w, S(je_old), &q, size);
		q.old = old.start;
		q.size = new_size;
		ledger_take_over(w, old, &sites[i], &q, new_size);
	}
	ledger_must_fail(S(je_mallocx_fail), &q);
	q.size = size;
	old = ledger_allocate(w, S(je_old), &q, size);
	q.old = old.start;
	ledger_must_fail(S(je_rallocx_fail), &q);
	ledger_dispose(w, old);
}

static const struct ledger_group jemalloc = {sites, SITES, NULL, je_round};

int main(int argc, char **argv)
{
	ledger_add(&ledger_c);
	ledger_add(&jemalloc);
	return ledger_main(argc, argv);
}
