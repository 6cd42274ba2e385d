/*
 * The ledger of a program that uses mimalloc's own functions, from the default heap and from heaps
 * of its own.
 */
#include "ledger.h"

#include <mimalloc.h>

#define ALIGN	    64
#define OFFSET	    16 /* of the address that mi_..._aligned_at() aligns */
#define SMALL(size) ((size) % MI_SMALL_SIZE_MAX + 1)

/* mimalloc.h declares these for C++ only. */
void *mi_new(size_t size);
void *mi_new_aligned(size_t size, size_t alignment);
void *mi_new_nothrow(size_t size);
void *mi_new_aligned_nothrow(size_t size, size_t alignment);
void *mi_new_n(size_t count, size_t size);
void *mi_new_realloc(void *p, size_t newsize);
void *mi_new_reallocn(void *p, size_t newcount, size_t size);

/* A heap belongs to the thread that made it; its blocks may be freed by any. */
static __thread mi_heap_t *heap;

static void *call_posix_memalign(const struct ledger_request *q)
{
	void *block = NULL;

	return mi_posix_memalign(&block, ALIGN, q->size) ? NULL : block;
}

static void *call_reallocarr(const struct ledger_request *q)
{
	void *block = q->old;

	return mi_reallocarr(&block, q->count, q->size) ? NULL : block;
}

/* One block of q->size bytes. */
#define PLAIN_SITES(X)                                                                             \
	X(mi_malloc, mi_malloc(q->size), mi_free(block))                                           \
	X(mi_malloc_free_size, mi_malloc(q->size), mi_free_size(block, size))                      \
	X(mi_malloc_cfree, mi_malloc(q->size), mi_cfree(block))                                    \
	X(mi_zalloc, mi_zalloc(q->size), mi_free(block))                                           \
	X(mi_malloc_aligned, mi_malloc_aligned(q->size, ALIGN), mi_free(block))                    \
	X(mi_malloc_aligned_free, mi_malloc_aligned(q->size, ALIGN),                               \
	  mi_free_aligned(block, ALIGN))                                                           \
	X(mi_malloc_aligned_free_size, mi_malloc_aligned(q->size, ALIGN),                          \
	  mi_free_size_aligned(block, size, ALIGN))                                                \
	X(mi_malloc_aligned_at, mi_malloc_aligned_at(q->size, ALIGN, OFFSET), mi_free(block))      \
	X(mi_zalloc_aligned, mi_zalloc_aligned(q->size, ALIGN), mi_free(block))                    \
	X(mi_zalloc_aligned_at, mi_zalloc_aligned_at(q->size, ALIGN, OFFSET), mi_free(block))      \
	X(mi_posix_memalign, call_posix_memalign(q), mi_free(block))                               \
	X(mi_memalign, mi_memalign(ALIGN, q->size), mi_free(block))                                \
	X(mi_aligned_alloc, mi_aligned_alloc(ALIGN, q->size), mi_free(block))                      \
	X(mi_valloc, mi_valloc(q->size), mi_free(block))                                           \
	X(mi_pvalloc, mi_pvalloc(q->size), mi_free(block))                                         \
	X(mi_new, mi_new(q->size), mi_free(block))                                                 \
	X(mi_new_nothrow, mi_new_nothrow(q->size), mi_free(block))                                 \
	X(mi_new_aligned, mi_new_aligned(q->size, ALIGN), mi_free(block))                          \
	X(mi_new_aligned_nothrow, mi_new_aligned_nothrow(q->size, ALIGN), mi_free(block))          \
	X(mi_heap_malloc, mi_heap_malloc(heap, q->size), mi_free(block))                           \
	X(mi_heap_malloc_default, mi_heap_malloc(mi_heap_get_default(), q->size), mi_free(block))  \
	X(mi_heap_zalloc, mi_heap_zalloc(heap, q->size), mi_free(block))                           \
	X(mi_heap_malloc_aligned, mi_heap_malloc_aligned(heap, q->size, ALIGN), mi_free(block))    \
	X(mi_heap_malloc_aligned_at, mi_heap_malloc_aligned_at(heap, q->size, ALIGN, OFFSET),      \
	  mi_free(block))                                                                          \
	X(mi_heap_zalloc_aligned, mi_heap_zalloc_aligned(heap, q->size, ALIGN), mi_free(block))    \
	X(mi_heap_zalloc_aligned_at, mi_heap_zalloc_aligned_at(heap, q->size, ALIGN, OFFSET),      \
	  mi_free(block))

/* q->count times as much. */
#define ARRAY_SITES(X)                                                                             \
	X(mi_calloc, mi_calloc(q->count, q->size), mi_free(block))                                 \
	X(mi_mallocn, mi_mallocn(q->count, q->size), mi_free(block))                               \
	X(mi_calloc_aligned, mi_calloc_aligned(q->count, q->size, ALIGN), mi_free(block))          \
	X(mi_calloc_aligned_at, mi_calloc_aligned_at(q->count, q->size, ALIGN, OFFSET),            \
	  mi_free(block))                                                                          \
	X(mi_new_n, mi_new_n(q->count, q->size), mi_free(block))                                   \
	X(mi_heap_calloc, mi_heap_calloc(heap, q->count, q->size), mi_free(block))                 \
	X(mi_heap_mallocn, mi_heap_mallocn(heap, q->count, q->size), mi_free(block))               \
	X(mi_heap_calloc_aligned, mi_heap_calloc_aligned(heap, q->count, q->size, ALIGN),          \
	  mi_free(block))                                                                          \
	X(mi_heap_calloc_aligned_at,                                                               \
	  mi_heap_calloc_aligned_at(heap, q->count, q->size, ALIGN, OFFSET), mi_free(block))

/* Of at most MI_SMALL_SIZE_MAX bytes. */
#define SMALL_SITES(X)                                                                             \
	X(mi_malloc_small, mi_malloc_small(q->size), mi_free(block))                               \
	X(mi_zalloc_small, mi_zalloc_small(q->size), mi_free(block))                               \
	X(mi_heap_malloc_small, mi_heap_malloc_small(heap, q->size), mi_free(block))

/* They take over a block of zeros. */
#define REALLOC_SITES(X)                                                                           \
	X(mi_realloc, mi_realloc(q->old, q->size), mi_free(block))                                 \
	X(mi_expand, mi_expand(q->old, q->size), mi_free(block))                                   \
	X(mi_rezalloc, mi_rezalloc(q->old, q->size), mi_free(block))                               \
	X(mi_realloc_aligned, mi_realloc_aligned(q->old, q->size, ALIGN), mi_free(block))          \
	X(mi_realloc_aligned_at, mi_realloc_aligned_at(q->old, q->size, ALIGN, OFFSET),            \
	  mi_free(block))                                                                          \
	X(mi_rezalloc_aligned, mi_rezalloc_aligned(q->old, q->size, ALIGN), mi_free(block))        \
	X(mi_rezalloc_aligned_at, mi_rezalloc_aligned_at(q->old, q->size, ALIGN, OFFSET),          \
	  mi_free(block))                                                                          \
	X(mi_reallocf, mi_reallocf(q->old, q->size), mi_free(block))                               \
	X(mi_new_realloc, mi_new_realloc(q->old, q->size), mi_free(block))                         \
	X(mi_heap_realloc, mi_heap_realloc(heap, q->old, q->size), mi_free(block))                 \
	X(mi_heap_reallocf, mi_heap_reallocf(heap, q->old, q->size), mi_free(block))               \
	X(mi_heap_rezalloc, mi_heap_rezalloc(heap, q->old, q->size), mi_free(block))               \
	X(mi_heap_realloc_aligned, mi_heap_realloc_aligned(heap, q->old, q->size, ALIGN),          \
	  mi_free(block))                                                                          \
	X(mi_heap_rezalloc_aligned, mi_heap_rezalloc_aligned(heap, q->old, q->size, ALIGN),        \
	  mi_free(block))

#define REALLOC_ARRAY_SITES(X)                                                                     \
	X(mi_reallocn, mi_reallocn(q->old, q->count, q->size), mi_free(block))                     \
	X(mi_reallocarray, mi_reallocarray(q->old, q->count, q->size), mi_free(block))             \
	X(mi_reallocarr, call_reallocarr(q), mi_free(block))                                       \
	X(mi_recalloc, mi_recalloc(q->old, q->count, q->size), mi_free(block))                     \
	X(mi_recalloc_aligned, mi_recalloc_aligned(q->old, q->count, q->size, ALIGN),              \
	  mi_free(block))                                                                          \
	X(mi_recalloc_aligned_at,                                                                  \
	  mi_recalloc_aligned_at(q->old, q->count, q->size, ALIGN, OFFSET), mi_free(block))        \
	X(mi_new_reallocn, mi_new_reallocn(q->old, q->count, q->size), mi_free(block))             \
	X(mi_heap_reallocn, mi_heap_reallocn(heap, q->old, q->count, q->size), mi_free(block))     \
	X(mi_heap_recalloc, mi_heap_recalloc(heap, q->old, q->count, q->size), mi_free(block))     \
	X(mi_heap_recalloc_aligned,                                                                \
	  mi_heap_recalloc_aligned(heap, q->old, q->count, q->size, ALIGN), mi_free(block))

/* Copies of a text of q->size bytes with its end. */
#define TEXT_SITES(X)                                                                              \
	X(mi_strdup, mi_strdup(q->text), mi_free(block))                                           \
	X(mi_strndup, mi_strndup(q->text, q->size - 1), mi_free(block))                            \
	X(mi_heap_strdup, mi_heap_strdup(heap, q->text), mi_free(block))                           \
	X(mi_heap_strndup, mi_heap_strndup(heap, q->text, q->size - 1), mi_free(block))

#define OTHER_SITES(X)                                                                             \
	X(mi_old, mi_zalloc_aligned(q->size, ALIGN), mi_free(block))                               \
	X(mi_malloc_fail, mi_malloc(LEDGER_TOO_LARGE), mi_free(block))                             \
	X(mi_realloc_zero, mi_realloc(q->old, 0), mi_free(block))                                  \
	X(mi_realloc_fail, mi_realloc(q->old, LEDGER_TOO_LARGE), mi_free(block))                   \
	X(mi_reallocf_fail_old, mi_malloc(q->size), mi_free(block))                                \
	X(mi_reallocf_fail, mi_reallocf(q->old, LEDGER_TOO_LARGE), mi_free(block))

#define BULK_SITES(X)                                                                              \
	X(bulk_mi_96, mi_malloc(q->size), mi_free(block), 96, 4096)                                \
	X(bulk_mi_1k, mi_heap_zalloc(heap, q->size), mi_free(block), 1024, 1024)                   \
	X(bulk_mi_10k, mi_malloc_aligned(q->size, ALIGN), mi_free(block), 10240, 102)              \
	X(bulk_mi_100k, mi_calloc(4, q->size / 4), mi_free(block), 102400, 10)

#define ALL_EXACT_SITES(X)                                                                         \
	PLAIN_SITES(X)                                                                             \
	ARRAY_SITES(X)                                                                             \
	SMALL_SITES(X) REALLOC_SITES(X) REALLOC_ARRAY_SITES(X) TEXT_SITES(X) OTHER_SITES(X)

ALL_EXACT_SITES(LEDGER_DEFINE_SITE)
BULK_SITES(LEDGER_DEFINE_SITE)

enum { ALL_EXACT_SITES(LEDGER_SITE_ID) BULK_SITES(LEDGER_SITE_ID) SITES };
enum {
	PLAIN_END = 0 PLAIN_SITES(LEDGER_COUNT),
	ARRAY_END = PLAIN_END ARRAY_SITES(LEDGER_COUNT),
	SMALL_END = ARRAY_END SMALL_SITES(LEDGER_COUNT),
	REALLOC_END = SMALL_END REALLOC_SITES(LEDGER_COUNT),
	REALLOC_ARRAY_END = REALLOC_END REALLOC_ARRAY_SITES(LEDGER_COUNT),
	TEXT_END = REALLOC_ARRAY_END TEXT_SITES(LEDGER_COUNT),
};

static const struct ledger_site sites[SITES] = {ALL_EXACT_SITES(LEDGER_SITE_ROW)
							BULK_SITES(LEDGER_BULK_ROW)};

#define S(name) (&sites[SITE_##name])

static void prepare(struct ledger_worker *w)
{
	(void)w;
	heap = mi_heap_new();
}

static void reallocate(struct ledger_worker *w, size_t size, size_t new_size, size_t count)
{
	struct ledger_request q = {.size = size};
	struct ledger_block old;

	for (int i = SMALL_END; i < REALLOC_ARRAY_END; i++) {
		q.size = size;
		q.count = i < REALLOC_END ? 1 : count;
		old = ledger_allocate(w, S(mi_old), &q, size);
		q.old = old.start;
		q.size = new_size;
		ledger_take_over(w, old, &sites[i], &q, q.count * new_size);
	}

	q.size = size;
	old = ledger_allocate(w, S(mi_old), &q, size);
	q.old = old.start;
	ledger_must_fail(S(mi_realloc_fail), &q);
	ledger_take_over(w, old, S(mi_realloc_zero), &q, 0);

	/* The one that frees what it cannot make larger. */
	old = ledger_allocate(w, S(mi_reallocf_fail_old), &q, size);
	q.old = old.start;
	ledger_must_fail(S(mi_reallocf_fail), &q);
	ledger_freed(w, old);
}

static void mi_round(struct ledger_worker *w)
{
	size_t size = 2 + ledger_draw(w) % 2000;
	/* Now and then beyond what mimalloc has in its usual pages. */
	size_t new_size = 1 + ledger_draw(w) % (ledger_draw(w) % 8 ? 4000 : 200000);
	size_t count = 1 + ledger_draw(w) % 8;
	char text[2002];
	struct ledger_request q = {.size = size, .count = count, .text = text};

	for (int i = 0; i < ARRAY_END; i++) {
		size_t whole = i < PLAIN_END ? size : count * size;

		ledger_plain(w, &sites[i], &q, i == SITE_mi_pvalloc ? ledger_pages(size) : whole);
	}
	q.size = SMALL(size);
	for (int i = ARRAY_END; i < SMALL_END; i++)
		ledger_plain(w, &sites[i], &q, q.size);
	reallocate(w, size, new_size, count);
	memset(text, 'x', size - 1);
	text[size - 1] = '\0';
	q.size = size;
	for (int i = REALLOC_ARRAY_END; i < TEXT_END; i++)
		ledger_plain(w, &sites[i], &q, size);
	ledger_must_fail(S(mi_malloc_fail), &q);
}

static const struct ledger_group mimalloc = {sites, SITES, prepare, mi_round};

int main(int argc, char **argv)
{
	ledger_add(&ledger_c);
	ledger_add(&mimalloc);
	return ledger_main(argc, argv);
}
