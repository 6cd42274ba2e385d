/*
 * recurse: has an allocator of its own, which calls itself: 100 calls deep where it is asked to, by a
 * pointer and many frames, so that each is a call of its own that wants a block of its own.
 *
 *	recurse deep	ten times 100 nested calls; then single ones, at every place of the stack that
 *			the nested ones had.
 *	recurse jump	100 nested calls that the innermost leaves all at once by longjmp; then calls
 *			in the same thread, and in another.
 *	recurse inner	calls that jump out of the allocator, one at each place of the stack where
 *			then calloc's inner malloc comes by.
 *
 * Says "ready PID", waits for a line, prints the books in ledger's format, waits for another line
 * and ends. In the books of `deep` only the outer 64 calls count: there are no more return probes.
 */
#include "target.h"

#include <alloca.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>

#define LEVELS	     100
#define RETURN_LIMIT 64 /* pending return probes of a thread: the kernel's */
#define ROUNDS	     10
#define DEEP_SIZE    1000 /* and one more for each level */
#define JUMP_SIZE    777
#define PLACES	     512
#define PLACE_STEP   16

void *(*volatile malloc_pointer)(size_t);
static __thread unsigned int levels;
static __thread sigjmp_buf back;
static __thread int jump_at_end;

/* Never given back: 64 MiB do for all of this. */
static void *take(size_t size)
{
	static char arena[64 << 20];
	static size_t used;
	size_t rounded = (size + 31) & ~(size_t)15;
	size_t at = __atomic_fetch_add(&used, rounded, __ATOMIC_RELAXED);

	if (at + rounded > sizeof(arena))
		target_die("out of memory\n");
	return arena + at + 16;
}

/*
 * The way from one call of malloc to the next: longer than the frames among which alloctrace looks
 * for an outer call, of which the inner one would be a part.
 */
#define STEP(from, to)                                                                             \
	NAMED_SITE static void *call_##from(size_t size)                                           \
	{                                                                                          \
		return call_##to(size);                                                            \
	}
NAMED_SITE static void *mid_deep(size_t size)
{
	return malloc_pointer(size);
}
NAMED_SITE static void *call_8(size_t size)
{
	return mid_deep(size);
}
STEP(7, 8)
STEP(6, 7)
STEP(5, 6)
STEP(4, 5)
STEP(3, 4)
STEP(2, 3)
STEP(1, 2)

NAMED_SITE void *malloc(size_t size)
{
	void **block = take(size);

	*(size_t *)((char *)block - 16) = size;
	if (size == JUMP_SIZE || (jump_at_end && levels == 1))
		siglongjmp(back, 1);
	if (levels > 1) {
		levels--;
		*block = call_1(size + 1);
	} else if (size >= sizeof(*block)) {
		*block = NULL;
	}
	return block;
}

NAMED_SITE void free(void *block)
{
	__asm__ volatile("" : : "r"(block) : "memory");
}

NAMED_SITE void *calloc(size_t count, size_t size)
{
	void *block = count ? malloc(count * size) : NULL;

	return block ? memset(block, 0, count * size) : NULL;
}

NAMED_SITE void *realloc(void *old, size_t size)
{
	void *block = malloc(size);
	size_t before = old ? *(size_t *)((char *)old - 16) : 0;

	if (old)
		memcpy(block, old, before < size ? before : size);
	return block;
}

NAMED_SITE static void *path_deep(void)
{
	levels = LEVELS;
	return malloc(DEEP_SIZE);
}

NAMED_SITE static void *path_after(void)
{
	levels = 1;
	return malloc(500);
}

NAMED_SITE static void *path_thread(void)
{
	levels = 1;
	return malloc(300);
}

NAMED_SITE static void *path_jump(void)
{
	levels = 1;
	return malloc(JUMP_SIZE);
}

NAMED_SITE static void *path_calloc(void)
{
	levels = 1;
	return calloc(10, 60);
}

/* Calls it with the stack that much deeper. */
NAMED_SITE static void *at_place(size_t place, void *(*call)(void))
{
	char *room = alloca(place * PLACE_STEP + 1);
	void *block;

	__asm__ volatile("" : : "r"(room) : "memory");
	block = call();
	__asm__ volatile("" : : "r"(room) : "memory");
	return block;
}

static void say_book(const char *before, const char *name, int objects, int bytes, int live,
		     int live_bytes)
{
	target_say("%s\"%s\": {\"alloc_objects\": %d, \"alloc_bytes\": %d, \"inuse_objects\": %d, "
		   "\"inuse_bytes\": %d}",
		   before, name, objects, bytes, live, live_bytes);
}

/* Every second block of a chain is freed. */
static void deep(void)
{
	int bytes = 0, live_bytes = 0;

	for (int round = 0; round < ROUNDS; round++) {
		void **block = path_deep();

		for (int i = 0; block; i++, block = *block) {
			if (i % 2)
				free(block);
			bytes += i < RETURN_LIMIT ? DEEP_SIZE + i : 0;
			live_bytes += i < RETURN_LIMIT && i % 2 == 0 ? DEEP_SIZE + i : 0;
		}
	}
	for (size_t i = 0; i < PLACES; i++)
		at_place(i, path_after);
	say_book("{", "deep", ROUNDS * RETURN_LIMIT, bytes, ROUNDS * RETURN_LIMIT / 2, live_bytes);
	say_book(", ", "after", PLACES, PLACES * 500, PLACES, PLACES * 500);
	target_say("}\n");
}

static void *thread(void *unused)
{
	for (int i = 0; i < 100; i++)
		path_thread();
	return unused;
}

static void jump(void)
{
	pthread_t other;

	jump_at_end = 1;
	if (!sigsetjmp(back, 1))
		path_deep();
	jump_at_end = 0;
	for (int i = 0; i < 100; i++)
		path_after();
	if (pthread_create(&other, NULL, thread, NULL) || pthread_join(other, NULL))
		target_die("no thread\n");
	say_book("{", "thread", 100, 100 * 300, 100, 100 * 300);
	target_say("}\n");
}

static void inner(void)
{
	volatile size_t place;

	/* From the deepest on: the kernel forgets the calls below a new one that never returned. */
	for (place = PLACES; place > 0; place--) {
		if (!sigsetjmp(back, 1))
			at_place(place - 1, path_jump);
	}
	for (place = 0; place < PLACES; place++)
		at_place(place, path_calloc);
	say_book("{", "calloc", PLACES, PLACES * 600, PLACES, PLACES * 600);
	target_say("}\n");
}

int main(int argc, char **argv)
{
	malloc_pointer = malloc;
	if (argc != 2)
		target_die("recurse deep|jump|inner\n");
	target_ready();
	target_wait_line();
	if (!strcmp(argv[1], "deep"))
		deep();
	else if (!strcmp(argv[1], "jump"))
		jump();
	else
		inner();
	target_wait_line();
	return 0;
}
