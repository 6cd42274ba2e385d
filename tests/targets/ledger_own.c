/*
 * The ledger of a program with allocators of its own, which no table knows:
 *
 *	own_malloc, own_calloc, own_realloc, own_free	over mmap; this realloc takes a new block for any
 *							size, and frees the old one without own_free
 *	pool_get, pool_resize, pool_put			each block within one of malloc's, which are no
 *							site's; what is wanted comes second
 *	jump_get, jump_resize				own_malloc's blocks again: of no block the second
 *							is a jump to the first, at its beginning
 */
#include "ledger.h"

#include <pthread.h>
#include <sys/mman.h>

/* --- over mmap ----------------------------------------------------------------------------------- */

#define CLASSES	   24
#define CHUNK_SIZE ((size_t)1 << 24)

/* What stands before a block, and within it while it is free. */
struct header {
	size_t size, class;
	struct header *next;
	size_t pad;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct header *bins[CLASSES];
static char *chunk, *chunk_end;

static size_t class_of(size_t size)
{
	size_t class = 0;

	while (size > (size_t)64 << class)
		class ++;
	return class;
}

static NAMED_SITE struct header *carve(size_t class)
{
	size_t size = sizeof(struct header) + ((size_t)64 << class);

	if ((size_t)(chunk_end - chunk) < size) {
		size_t wanted = size > CHUNK_SIZE ? size : CHUNK_SIZE;

		chunk = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
		if (chunk == MAP_FAILED)
			target_die("no memory\n");
		chunk_end = chunk + wanted;
	}
	chunk += size;
	return (struct header *)(chunk - size);
}

static NAMED_SITE void *take(size_t size)
{
	size_t class = class_of(size);
	struct header *header;

	pthread_mutex_lock(&lock);
	header = bins[class];
	if (header)
		bins[class] = header->next;
	else
		header = carve(class);
	pthread_mutex_unlock(&lock);
	header->size = size;
	header->class = class;
	return header + 1;
}

static NAMED_SITE void release(void *block)
{
	struct header *header = (struct header *)block - 1;

	pthread_mutex_lock(&lock);
	header->next = bins[header->class];
	bins[header->class] = header;
	pthread_mutex_unlock(&lock);
}

NAMED_SITE void *own_malloc(size_t size)
{
	return size >= LEDGER_TOO_LARGE ? NULL : take(size);
}

NAMED_SITE void *own_calloc(size_t count, size_t size)
{
	void *block = own_malloc(count * size);

	return block ? memset(block, 0, count * size) : NULL;
}

NAMED_SITE void own_free(void *block)
{
	if (block)
		release(block);
}

static NAMED_SITE void move(void *to, void *from)
{
	size_t old = ((struct header *)from)[-1].size, new = ((struct header *)to)[-1].size;

	memcpy(to, from, old < new ? old : new);
	release(from);
}

NAMED_SITE void *own_realloc(void *old, size_t size)
{
	void *block = own_malloc(size);

	if (block && old)
		move(block, old);
	return block;
}

/* --- within malloc's blocks ---------------------------------------------------------------------- */

#define POOL_HEADER 32

struct pool {
	size_t blocks;
};

static struct pool the_pool;

NAMED_SITE void *pool_get(struct pool *pool, size_t size)
{
	char *block = size >= LEDGER_TOO_LARGE ? NULL : malloc(POOL_HEADER + size);

	if (!block)
		return NULL;
	__atomic_add_fetch(&pool->blocks, 1, __ATOMIC_RELAXED);
	return block + POOL_HEADER;
}

NAMED_SITE void *pool_resize(struct pool *pool, void *old, size_t size)
{
	char *block = realloc((char *)old - POOL_HEADER, POOL_HEADER + size);

	return block ? block + POOL_HEADER : pool ? NULL : old;
}

NAMED_SITE void pool_put(struct pool *pool, void *block)
{
	__atomic_sub_fetch(&pool->blocks, 1, __ATOMIC_RELAXED);
	free((char *)block - POOL_HEADER);
}

/* --- with a jump --------------------------------------------------------------------------------- */

NAMED_SITE void *jump_get(void *unused, size_t size)
{
	(void)unused;
	return take(size);
}

__attribute__((used)) static NAMED_SITE void *jump_move(void *old, size_t size)
{
	void *block = take(size);

	move(block, old);
	return block;
}

void *jump_resize(void *old, size_t size);

asm(".text\n"
    ".type jump_resize, @function\n"
    ".globl jump_resize\n"
    "jump_resize:\n"
    "test %rdi, %rdi\n"
    "je jump_get\n"
    "jmp jump_move\n"
    ".size jump_resize, . - jump_resize\n");

/* --- sites --------------------------------------------------------------------------------------- */

#define PLAIN_SITES(X)                                                                             \
	X(own_malloc_site, own_malloc(q->size), own_free(block))                                   \
	X(own_calloc_site, own_calloc(1, q->size), own_free(block))                                \
	X(own_realloc_null, own_realloc(NULL, q->size), own_free(block))                           \
	X(pool_get_site, pool_get(&the_pool, q->size), pool_put(&the_pool, block))                 \
	X(jump_get_site, jump_get(&the_pool, q->size), own_free(block))                            \
	X(jump_resize_null, jump_resize(NULL, q->size), own_free(block))

#define OTHER_SITES(X)                                                                             \
	X(own_realloc_old, own_malloc(q->size), own_free(block))                                   \
	X(own_realloc_site, own_realloc(q->old, q->size), own_free(block))                         \
	X(pool_resize_old, pool_get(&the_pool, q->size), pool_put(&the_pool, block))               \
	X(pool_resize_site, pool_resize(&the_pool, q->old, q->size), pool_put(&the_pool, block))   \
	X(jump_resize_old, jump_get(NULL, q->size), own_free(block))                               \
	X(jump_resize_site, jump_resize(q->old, q->size), own_free(block))                         \
	X(own_malloc_fail, own_malloc(LEDGER_TOO_LARGE), own_free(block))                          \
	X(pool_get_fail, pool_get(&the_pool, LEDGER_TOO_LARGE), pool_put(&the_pool, block))

PLAIN_SITES(LEDGER_DEFINE_SITE)
OTHER_SITES(LEDGER_DEFINE_SITE)

enum { PLAIN_SITES(LEDGER_SITE_ID) OTHER_SITES(LEDGER_SITE_ID) SITES };
enum { PLAIN_COUNT = 0 PLAIN_SITES(LEDGER_COUNT) };

static const struct ledger_site sites[SITES] = {PLAIN_SITES(LEDGER_SITE_ROW)
							OTHER_SITES(LEDGER_SITE_ROW)};

#define S(name) (&sites[SITE_##name])

static void pool_round(struct ledger_worker *w)
{
	size_t size = 1 + ledger_draw(w) % 2000, new_size = 1 + ledger_draw(w) % 4000;
	const struct ledger_request q = {.size = size};

	for (int i = 0; i < PLAIN_COUNT; i++)
		ledger_plain(w, &sites[i], &q, size);
	ledger_reallocate(w, S(own_realloc_old), size, S(own_realloc_site), 1, new_size);
	ledger_reallocate(w, S(pool_resize_old), size, S(pool_resize_site), 1, new_size);
	ledger_reallocate(w, S(jump_resize_old), size, S(jump_resize_site), 1, new_size);
	ledger_must_fail(S(own_malloc_fail), &q);
	ledger_must_fail(S(pool_get_fail), &q);
}

static const struct ledger_group pools = {sites, SITES, NULL, pool_round};

int main(int argc, char **argv)
{
	ledger_add(&pools);
	return ledger_main(argc, argv);
}
