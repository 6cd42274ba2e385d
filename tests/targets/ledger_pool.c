/*
 * The ledger of a program that has allocators of its own, which no table knows: a pool that hands out
 * pieces of chunks that it gets from malloc, functions named like the C library's behind a prefix that
 * put a header before each block, and a wrapper that does nothing but to call malloc.
 */
#include "ledger.h"

#include <pthread.h>
#include <stdint.h>

/* --- the pool: pieces by powers of two, from chunks that are never given back --- */

#define CLASSES	   18
#define CHUNK_SIZE ((size_t)1 << 18)

struct pool {
	pthread_mutex_t lock;
	void *unused[CLASSES]; /* lists of pieces */
	char *chunk;
	size_t left;
};

static struct pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Each piece has its class before it. */
#define HEADER 16

/* Helpers between pool_get and malloc, as a real one might have. */
NAMED_SITE static void *chunk_new(size_t size)
{
	void *chunk = malloc(size);

	return chunk ? memset(chunk, 0, 64) : NULL;
}

NAMED_SITE static bool pool_grow(struct pool *from)
{
	from->chunk = chunk_new(CHUNK_SIZE);
	from->left = from->chunk ? CHUNK_SIZE : 0;
	return from->chunk;
}

static unsigned int class_of(size_t size)
{
	unsigned int class = 5;

	while ((size_t)1 << class < size + HEADER)
		class ++;
	return class;
}

NAMED_SITE void *pool_get(struct pool *from, size_t size)
{
	unsigned int class = class_of(size);
	char *piece;

	if (class >= CLASSES)
		return NULL;
	pthread_mutex_lock(&from->lock);
	piece = from->unused[class];
	if (piece) {
		memcpy(&from->unused[class], piece + HEADER, sizeof(void *));
	} else if (from->left >= (size_t)1 << class || pool_grow(from)) {
		piece = from->chunk;
		from->chunk += (size_t)1 << class;
		from->left -= (size_t)1 << class;
	}
	pthread_mutex_unlock(&from->lock);
	if (!piece)
		return NULL;
	*(unsigned int *)piece = class;
	return piece + HEADER;
}

NAMED_SITE void pool_put(struct pool *to, void *block)
{
	char *piece = (char *)block - HEADER;
	unsigned int class = *(unsigned int *)piece;

	pthread_mutex_lock(&to->lock);
	memcpy(block, &to->unused[class], sizeof(void *));
	to->unused[class] = piece;
	pthread_mutex_unlock(&to->lock);
}

/* --- behind a prefix --- */

NAMED_SITE void *my_malloc(size_t size)
{
	char *block = malloc(size + HEADER);

	return block ? block + HEADER : NULL;
}

NAMED_SITE void my_free(void *block)
{
	if (block)
		free((char *)block - HEADER);
}

NAMED_SITE void *my_realloc(void *old, size_t size)
{
	char *block = realloc(old ? (char *)old - HEADER : NULL, size + HEADER);

	return block ? block + HEADER : NULL;
}

/* --- a wrapper: built with sibling calls, a jump and no more --- */

__attribute__((noipa, optimize("optimize-sibling-calls"))) void *wrap_get(int unused, size_t size)
{
	(void)unused;
	return malloc(size);
}

/* --- snmalloc's functions for Rust, as its rust.cc declares them, over the pool --- */

NAMED_SITE void *sn_rust_alloc(size_t alignment, size_t size)
{
	return alignment <= HEADER ? pool_get(&pool, size) : NULL;
}

NAMED_SITE void sn_rust_dealloc(void *block, size_t alignment, size_t size)
{
	(void)alignment;
	(void)size;
	pool_put(&pool, block);
}

NAMED_SITE void *sn_rust_realloc(void *old, size_t alignment, size_t old_size, size_t size)
{
	void *block = sn_rust_alloc(alignment, size);

	if (!block)
		return NULL;
	memcpy(block, old, old_size < size ? old_size : size);
	sn_rust_dealloc(old, alignment, old_size);
	return block;
}

/* --- the sites --- */

#define SITES_OF_POOL(X)                                                                           \
	X(pool, pool_get(&pool, q->size), pool_put(&pool, block))                                  \
	X(prefixed, my_malloc(q->size), my_free(block))                                            \
	X(prefixed_old, my_malloc(q->size), my_free(block))                                        \
	X(prefixed_realloc, my_realloc(q->old, q->size), my_free(block))                           \
	X(wrapped, wrap_get(0, q->size), free(block))                                              \
	X(sn, sn_rust_alloc(8, q->size), sn_rust_dealloc(block, 8, size))                          \
	X(sn_old, sn_rust_alloc(8, q->size), sn_rust_dealloc(block, 8, size))                      \
	X(sn_realloc, sn_rust_realloc(q->old, 8, 16, q->size), sn_rust_dealloc(block, 8, size))

SITES_OF_POOL(LEDGER_DEFINE_SITE)

enum { SITES_OF_POOL(LEDGER_SITE_ID) SITES };

static const struct ledger_site sites[SITES] = {SITES_OF_POOL(LEDGER_SITE_ROW)};

#define S(name) (&sites[SITE_##name])

static void pool_round(struct ledger_worker *w)
{
	size_t size = 16 + ledger_draw(w) % 4000;
	struct ledger_request q = {.size = size};

	ledger_plain(w, S(pool), &q, size);
	ledger_plain(w, S(prefixed), &q, size);
	ledger_plain(w, S(wrapped), &q, size);
	ledger_reallocate(w, S(prefixed_old), size, S(prefixed_realloc), 1,
			  1 + ledger_draw(w) % 9000);
	ledger_plain(w, S(sn), &q, size);
	ledger_reallocate(w, S(sn_old), size, S(sn_realloc), 1, 16 + ledger_draw(w) % 9000);
}

static const struct ledger_group group = {sites, SITES, NULL, pool_round};

int main(int argc, char **argv)
{
	ledger_add(&ledger_c);
	ledger_add(&group);
	return ledger_main(argc, argv);
}
