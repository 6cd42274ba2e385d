/* The ledger of a program that uses tcmalloc's own functions. */
#include "ledger.h"

/* As <gperftools/tcmalloc.h> has them, some for C++ only; its package holds much more than that. */
void *tc_malloc(size_t size);
void *tc_malloc_skip_new_handler(size_t size);
void tc_free(void *block);
void tc_free_sized(void *block, size_t size);
void *tc_realloc(void *block, size_t size);
void *tc_calloc(size_t count, size_t size);
void tc_cfree(void *block);
void *tc_memalign(size_t alignment, size_t size);
int tc_posix_memalign(void **block, size_t alignment, size_t size);
void *tc_valloc(size_t size);
void *tc_pvalloc(size_t size);
void *tc_new(size_t size);
void *tc_new_nothrow(size_t size, const void *nothrow);
void *tc_newarray(size_t size);
void *tc_newarray_nothrow(size_t size, const void *nothrow);
void *tc_new_aligned(size_t size, size_t alignment);
void *tc_new_aligned_nothrow(size_t size, size_t alignment, const void *nothrow);
void *tc_newarray_aligned(size_t size, size_t alignment);
void *tc_newarray_aligned_nothrow(size_t size, size_t alignment, const void *nothrow);
void tc_delete(void *block);
void tc_delete_nothrow(void *block, const void *nothrow);
void tc_delete_sized(void *block, size_t size);
void tc_delete_aligned(void *block, size_t alignment);
void tc_delete_aligned_nothrow(void *block, size_t alignment, const void *nothrow);
void tc_delete_sized_aligned(void *block, size_t size, size_t alignment);
void tc_deletearray(void *block);
void tc_deletearray_nothrow(void *block, const void *nothrow);
void tc_deletearray_sized(void *block, size_t size);
void tc_deletearray_aligned(void *block, size_t alignment);
void tc_deletearray_aligned_nothrow(void *block, size_t alignment, const void *nothrow);
void tc_deletearray_sized_aligned(void *block, size_t size, size_t alignment);

#define ALIGN 64

static const char nothrow;

static void *call_posix_memalign(const struct ledger_request *q)
{
	void *block = NULL;

	return tc_posix_memalign(&block, ALIGN, q->size) ? NULL : block;
}

/* One block of q->size bytes. */
#define PLAIN_SITES(X)                                                                             \
	X(tc_malloc, tc_malloc(q->size), tc_free(block))                                           \
	X(tc_malloc_sized, tc_malloc(q->size), tc_free_sized(block, size))                         \
	X(tc_malloc_cfree, tc_malloc(q->size), tc_cfree(block))                                    \
	X(tc_malloc_skip, tc_malloc_skip_new_handler(q->size), tc_free(block))                     \
	X(tc_calloc, tc_calloc(1, q->size), tc_free(block))                                        \
	X(tc_memalign, tc_memalign(ALIGN, q->size), tc_free(block))                                \
	X(tc_posix_memalign, call_posix_memalign(q), tc_free(block))                               \
	X(tc_valloc, tc_valloc(q->size), tc_free(block))                                           \
	X(tc_pvalloc, tc_pvalloc(q->size), tc_free(block))                                         \
	X(tc_new, tc_new(q->size), tc_delete(block))                                               \
	X(tc_new_sized, tc_new(q->size), tc_delete_sized(block, size))                             \
	X(tc_new_nothrow, tc_new_nothrow(q->size, &nothrow), tc_delete_nothrow(block, &nothrow))   \
	X(tc_newarray, tc_newarray(q->size), tc_deletearray(block))                                \
	X(tc_newarray_sized, tc_newarray(q->size), tc_deletearray_sized(block, size))              \
	X(tc_newarray_nothrow, tc_newarray_nothrow(q->size, &nothrow),                             \
	  tc_deletearray_nothrow(block, &nothrow))                                                 \
	X(tc_new_aligned, tc_new_aligned(q->size, ALIGN), tc_delete_aligned(block, ALIGN))         \
	X(tc_new_aligned_sized, tc_new_aligned(q->size, ALIGN),                                    \
	  tc_delete_sized_aligned(block, size, ALIGN))                                             \
	X(tc_new_aligned_nothrow, tc_new_aligned_nothrow(q->size, ALIGN, &nothrow),                \
	  tc_delete_aligned_nothrow(block, ALIGN, &nothrow))                                       \
	X(tc_newarray_aligned, tc_newarray_aligned(q->size, ALIGN),                                \
	  tc_deletearray_aligned(block, ALIGN))                                                    \
	X(tc_newarray_aligned_sized, tc_newarray_aligned(q->size, ALIGN),                          \
	  tc_deletearray_sized_aligned(block, size, ALIGN))                                        \
	X(tc_newarray_aligned_nothrow, tc_newarray_aligned_nothrow(q->size, ALIGN, &nothrow),      \
	  tc_deletearray_aligned_nothrow(block, ALIGN, &nothrow))

#define OTHER_SITES(X)                                                                             \
	X(tc_realloc_old, tc_malloc(q->size), tc_free(block))                                      \
	X(tc_realloc, tc_realloc(q->old, q->size), tc_free(block))                                 \
	X(tc_realloc_zero_old, tc_malloc(q->size), tc_free(block))                                 \
	X(tc_realloc_zero, tc_realloc(q->old, 0), tc_free(block))                                  \
	X(tc_new_nothrow_fail, tc_new_nothrow(LEDGER_TOO_LARGE, &nothrow), tc_delete(block))

#define BULK_SITES(X)                                                                              \
	X(bulk_tc_96, tc_new(q->size), tc_delete_sized(block, size), 96, 4096)                     \
	X(bulk_tc_1k, tc_newarray_aligned(q->size, ALIGN), tc_deletearray_aligned(block, ALIGN),   \
	  1024, 1024)                                                                              \
	X(bulk_tc_10k, tc_malloc(q->size), tc_free(block), 10240, 102)                             \
	X(bulk_tc_100k, tc_valloc(q->size), tc_free(block), 102400, 10)

PLAIN_SITES(LEDGER_DEFINE_SITE)
OTHER_SITES(LEDGER_DEFINE_SITE)
BULK_SITES(LEDGER_DEFINE_SITE)

enum { PLAIN_SITES(LEDGER_SITE_ID) OTHER_SITES(LEDGER_SITE_ID) BULK_SITES(LEDGER_SITE_ID) SITES };
enum { PLAIN_COUNT = 0 PLAIN_SITES(LEDGER_COUNT) };

static const struct ledger_site sites[SITES] = {
	PLAIN_SITES(LEDGER_SITE_ROW) OTHER_SITES(LEDGER_SITE_ROW) BULK_SITES(LEDGER_BULK_ROW)};

#define S(name) (&sites[SITE_##name])

static void tc_round(struct ledger_worker *w)
{
	size_t size = 1 + ledger_draw(w) % 2000;
	/* Now and then beyond what tcmalloc has size classes for. */
	size_t new_size = 1 + ledger_draw(w) % (ledger_draw(w) % 8 ? 4000 : 400000);
	struct ledger_request q = {.size = size};
	struct ledger_block old;

	for (int i = 0; i < PLAIN_COUNT; i++)
		ledger_plain(w, &sites[i], &q, i == SITE_tc_pvalloc ? ledger_pages(size) : size);
	ledger_reallocate(w, S(tc_realloc_old), size, S(tc_realloc), 1, new_size);
	old = ledger_allocate(w, S(tc_realloc_zero_old), &q, size);
	q.old = old.start;
	ledger_take_over(w, old, S(tc_realloc_zero), &q, 0);
	ledger_must_fail(S(tc_new_nothrow_fail), &q);
}

static const struct ledger_group tcmalloc = {sites, SITES, NULL, tc_round};

int main(int argc, char **argv)
{
	ledger_add(&ledger_c);
	ledger_add(&tcmalloc);
	return ledger_main(argc, argv);
}
