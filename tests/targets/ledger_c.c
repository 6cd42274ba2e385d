/*
 * A ledger's sites in C: every function of the C library that allocates, each way that realloc can
 * go, and blocks that pass from thread to thread while their addresses are given out again.
 */
#include "ledger.h"

#include <dlfcn.h>
#include <malloc.h>

#define BEFORE	    64 /* blocks of each thread from before "ready" */
#define BEFORE_SIZE 300
#define EXCHANGES   4 /* a round */

/* Not everywhere: musl has no pvalloc. */
extern __typeof__(valloc) pvalloc __attribute__((weak));

static void *call_posix_memalign(const struct ledger_request *q)
{
	void *block = NULL;

	return posix_memalign(&block, q->alignment, q->size) ? NULL : block;
}

/* A program may use all that it got; what it asked for is what counts. */
static void *call_usable(const struct ledger_request *q)
{
	void *block = malloc(q->size);

	if (block)
		memset(block, 0x5a, malloc_usable_size(block));
	return block;
}

#define EXACT_SITES(X)                                                                             \
	X(malloc, malloc(q->size), free(block))                                                    \
	X(malloc_zero, malloc(0), free(block))                                                     \
	X(malloc_fail, malloc(LEDGER_TOO_LARGE), free(block))                                      \
	X(malloc_large, malloc(q->size), free(block))                                              \
	X(usable, call_usable(q), free(block))                                                     \
	X(calloc, calloc(q->count, q->size), free(block))                                          \
	X(calloc_zero, calloc(q->count, 0), free(block))                                           \
	X(calloc_large, calloc(1, q->size), free(block))                                           \
	X(calloc_overflow, calloc(LEDGER_TOO_LARGE, 16), free(block))                              \
	X(realloc_null, realloc(NULL, q->size), free(block))                                       \
	X(realloc_grow_old, malloc(q->size), free(block))                                          \
	X(realloc_grow, realloc(q->old, q->size), free(block))                                     \
	X(realloc_shrink_old, malloc(q->size), free(block))                                        \
	X(realloc_shrink, realloc(q->old, q->size), free(block))                                   \
	X(realloc_same_old, malloc(q->size), free(block))                                          \
	X(realloc_same, realloc(q->old, q->size), free(block))                                     \
	X(realloc_large_old, malloc(q->size), free(block))                                         \
	X(realloc_large, realloc(q->old, q->size), free(block))                                    \
	X(realloc_aligned_old, aligned_alloc(q->alignment, q->size), free(block))                  \
	X(realloc_aligned, realloc(q->old, q->size), free(block))                                  \
	X(realloc_zero_old, malloc(q->size), free(block))                                          \
	X(realloc_zero, realloc(q->old, 0), free(block))                                           \
	X(realloc_fail_old, malloc(q->size), free(block))                                          \
	X(realloc_fail, realloc(q->old, LEDGER_TOO_LARGE), free(block))                            \
	X(realloc_before, realloc(q->old, q->size), free(block))                                   \
	X(posix_memalign, call_posix_memalign(q), free(block))                                     \
	X(posix_memalign_16, call_posix_memalign(q), free(block))                                  \
	X(posix_memalign_einval, call_posix_memalign(q), free(block))                              \
	X(aligned_alloc, aligned_alloc(q->alignment, q->size), free(block))                        \
	X(aligned_alloc_16, aligned_alloc(q->alignment, q->size), free(block))                     \
	X(aligned_alloc_uneven, aligned_alloc(q->alignment, q->size), free(block))                 \
	X(memalign, memalign(q->alignment, q->size), free(block))                                  \
	X(memalign_odd, memalign(48, q->size), free(block))                                        \
	X(valloc, valloc(q->size), free(block))                                                    \
	X(pvalloc, pvalloc(q->size), free(block))                                                  \
	X(reallocarray_null, reallocarray(NULL, q->count, q->size), free(block))                   \
	X(reallocarray, reallocarray(q->old, q->count, q->size), free(block))                      \
	X(reallocarray_overflow, reallocarray(q->old, LEDGER_TOO_LARGE, 16), free(block))          \
	X(strdup, strdup(q->text), free(block))                                                    \
	X(remote, malloc(q->size), free(block))                                                    \
	X(exchange, malloc(q->size), free(block))                                                  \
	X(exchange_grow, realloc(q->old, q->size), free(block))

#define BULK_SITES(X)                                                                              \
	X(bulk_24, malloc(q->size), free(block), 24, 8192)                                         \
	X(bulk_128, malloc(q->size), free(block), 128, 3000)                                       \
	X(bulk_256, calloc(1, q->size), free(block), 256, 4096)                                    \
	X(bulk_384, malloc(q->size), free(block), 384, 2730)                                       \
	X(bulk_512, realloc(NULL, q->size), free(block), 512, 2048)                                \
	X(bulk_768, malloc(q->size), free(block), 768, 1365)                                       \
	X(bulk_1k5, malloc(q->size), free(block), 1536, 683)                                       \
	X(bulk_2k, call_posix_memalign(q), free(block), 2048, 512)                                 \
	X(bulk_3k, malloc(q->size), free(block), 3072, 341)                                        \
	X(bulk_4k, malloc(q->size), free(block), 4096, 256)                                        \
	X(bulk_6k, aligned_alloc(q->alignment, q->size), free(block), 6144, 170)                   \
	X(bulk_8k, malloc(q->size), free(block), 8192, 128)                                        \
	X(bulk_12k, calloc(4, q->size / 4), free(block), 12288, 85)                                \
	X(bulk_16k, malloc(q->size), free(block), 16384, 64)                                       \
	X(bulk_24k, malloc(q->size), free(block), 24576, 42)                                       \
	X(bulk_32k, realloc(NULL, q->size), free(block), 32768, 32)                                \
	X(bulk_48k, malloc(q->size), free(block), 49152, 21)                                       \
	X(bulk_64k, malloc(q->size), free(block), 65536, 16)                                       \
	X(bulk_128k, malloc(q->size), free(block), 131072, 8)                                      \
	X(bulk_256k, malloc(q->size), free(block), 262144, 4)                                      \
	X(bulk_512k, malloc(q->size), free(block), 524288, 2)                                      \
	X(bulk_1m, malloc(q->size), free(block), 1048576, 1)

EXACT_SITES(LEDGER_DEFINE_SITE)
BULK_SITES(LEDGER_DEFINE_SITE)

enum { EXACT_SITES(LEDGER_SITE_ID) BULK_SITES(LEDGER_SITE_ID) SITES };

static const struct ledger_site sites[SITES] = {EXACT_SITES(LEDGER_SITE_ROW)
							BULK_SITES(LEDGER_BULK_ROW)};

#define S(name) (&sites[SITE_##name])

/* What each thread has from before "ready". */
static struct before {
	void *blocks[BEFORE];
	size_t used;
	bool pvalloc_fits;
} before[LEDGER_THREADS];

/* A preloaded allocator without pvalloc: its free cannot take what glibc's pvalloc returns. */
static bool same_library(void *a, void *b)
{
	Dl_info of_a = {0}, of_b = {0};

	return !dladdr(a, &of_a) || !dladdr(b, &of_b) || of_a.dli_fbase == of_b.dli_fbase;
}

static void prepare(struct ledger_worker *w)
{
	struct before *mine = &before[ledger_thread(w)];

	for (int i = 0; i < BEFORE; i++)
		mine->blocks[i] = malloc(BEFORE_SIZE);
	mine->pvalloc_fits = pvalloc && same_library((void *)pvalloc, (void *)malloc);
}

static void allocate_plainly(struct ledger_worker *w, size_t size, size_t count, size_t large)
{
	struct ledger_request q = {.size = size, .count = count};

	ledger_plain(w, S(malloc), &q, size);
	ledger_plain(w, S(malloc_zero), &q, 0);
	ledger_must_fail(S(malloc_fail), &q);
	ledger_plain(w, S(usable), &q, size);
	ledger_plain(w, S(calloc), &q, count * size);
	ledger_plain(w, S(calloc_zero), &q, 0);
	ledger_must_fail(S(calloc_overflow), &q);
	q.size = large;
	ledger_plain(w, S(malloc_large), &q, large);
	ledger_plain(w, S(calloc_large), &q, large);
}

static void reallocate(struct ledger_worker *w, size_t size, size_t count, size_t large)
{
	struct ledger_request q = {.size = size, .count = count, .alignment = 64};
	struct ledger_block old;

	ledger_plain(w, S(realloc_null), &q, size);
	ledger_reallocate(w, S(realloc_grow_old), size, S(realloc_grow), 1, size * 3 + 1);
	ledger_reallocate(w, S(realloc_shrink_old), size, S(realloc_shrink), 1, size / 2 + 1);
	ledger_reallocate(w, S(realloc_same_old), size, S(realloc_same), 1, size);
	if (ledger_draw(w) % 2)
		ledger_reallocate(w, S(realloc_large_old), size, S(realloc_large), 1, large);
	else
		ledger_reallocate(w, S(realloc_large_old), large, S(realloc_large), 1, size);

	q.size = (size + 63) & ~63ul;
	old = ledger_allocate(w, S(realloc_aligned_old), &q, q.size);
	q.old = old.start;
	q.size *= 2;
	ledger_take_over(w, old, S(realloc_aligned), &q, q.size);

	q.size = size;
	old = ledger_allocate(w, S(realloc_zero_old), &q, size);
	q.old = old.start;
	ledger_take_over(w, old, S(realloc_zero), &q, 0);

	old = ledger_allocate(w, S(realloc_fail_old), &q, size);
	q.old = old.start;
	ledger_must_fail(S(realloc_fail), &q);
	ledger_must_fail(S(reallocarray_overflow), &q);
	ledger_dispose(w, old);

	ledger_plain(w, S(reallocarray_null), &q, count * size);
	ledger_reallocate(w, S(realloc_grow_old), size, S(reallocarray), count + 1, size);
}

static void allocate_aligned(struct ledger_worker *w, size_t size)
{
	struct ledger_request q = {.size = size, .alignment = 32u << ledger_draw(w) % 8};

	ledger_plain(w, S(posix_memalign), &q, size);
	ledger_plain(w, S(memalign), &q, size);
	ledger_maybe(w, S(memalign_odd), &q, size);
	q.alignment = 16;
	ledger_plain(w, S(posix_memalign_16), &q, size);
	q.alignment = 3;
	ledger_must_fail(S(posix_memalign_einval), &q);
	q.alignment = 64;
	q.size = size | 1;
	ledger_maybe(w, S(aligned_alloc_uneven), &q, q.size);
	q.size = (size + 63) & ~63ul;
	ledger_plain(w, S(aligned_alloc), &q, q.size);
	q.alignment = 16;
	ledger_plain(w, S(aligned_alloc_16), &q, q.size);
	q.size = size;
	ledger_plain(w, S(valloc), &q, size);
	if (before[ledger_thread(w)].pvalloc_fits)
		ledger_plain(w, S(pvalloc), &q, ledger_pages(size));
}

/* Blocks that no recording knows: their end is nobody's, a realloc makes a new one of them. */
static void use_up_before(struct ledger_worker *w, size_t size)
{
	struct before *mine = &before[ledger_thread(w)];
	struct ledger_request q = {.size = size};

	if (mine->used + 2 > BEFORE)
		return;
	free(mine->blocks[mine->used++]);
	q.old = mine->blocks[mine->used++];
	ledger_plain(w, S(realloc_before), &q, size);
}

/*
 * One thread frees, or reallocates, what another one allocated, while a third allocates such blocks:
 * the address is given out again at once. Few sizes, so that it is the same blocks that go round.
 */
static void exchange(struct ledger_worker *w)
{
	for (int i = 0; i < EXCHANGES; i++) {
		struct ledger_request q = {.size = 32u << ledger_draw(w) % 2 * 5};
		bool grow = ledger_draw(w) % 2;
		struct ledger_block b = ledger_allocate(w, S(exchange), &q, q.size), old;

		if (!ledger_swap(w, b, &b))
			continue;
		if (grow) {
			old = b;
			q.old = old.start;
			b = ledger_allocate(w, S(exchange_grow), &q, q.size);
			ledger_freed(w, old);
		}
		ledger_give_back(w, b);
	}
}

static void c_round(struct ledger_worker *w)
{
	size_t size = 1 + ledger_draw(w) % 2000;
	size_t count = 1 + ledger_draw(w) % 8;
	size_t large = ledger_draw_large(w);
	char text[2001];
	struct ledger_request q = {.size = size, .text = text};

	allocate_plainly(w, size, count, large);
	reallocate(w, size, count, large);
	allocate_aligned(w, size);
	memset(text, 'x', size);
	text[size] = '\0';
	ledger_plain(w, S(strdup), &q, size + 1);
	use_up_before(w, size);
	exchange(w);
	free(NULL);
	ledger_hand_over(w, ledger_allocate(w, S(remote), &q, size));
}

const struct ledger_group ledger_c = {sites, SITES, prepare, c_round};
