/*
 * Maps memory by itself, in every way that there is, and keeps books of it:
 *
 *	mapper [--threads N] [--rounds N] [--load N]
 *
 * Says "ready PID", waits for a line, works, prints the books as a ledger does (ledger.h), waits for
 * another line, and ends. --load: as many threads beside those that map, which use the allocator so
 * that it maps and unmaps all the time: large blocks, small ones by the thousand, arenas.
 *
 * What counts: a mapping is an object of its whole pages; what of it is unmapped, or replaced by one
 * at a fixed address, is taken off its bytes, and the object is gone with the last of them; a
 * successful mremap takes away what it was given and makes a new one; a call that fails changes
 * nothing. How large a thread's stack is, the kernel is asked.
 */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE	    4096ul
#define MAX_THREADS 16
#define LOAD_BLOCKS 64
#define LOAD_STEPS  200 /* of each thread, at least */
#define STACK_SIZE  (256ul << 10)
#define LARGE	    (256ul << 20)
#define LARGE_STACK (64ul << 20) /* more than glibc keeps for later threads */

#define SITES(X)                                                                                   \
	X(plain)                                                                                   \
	X(kept)                                                                                    \
	X(head)                                                                                    \
	X(tail)                                                                                    \
	X(middle)                                                                                  \
	X(crumbs)                                                                                  \
	X(reserve)                                                                                 \
	X(fixed)                                                                                   \
	X(across)                                                                                  \
	X(file)                                                                                    \
	X(grown)                                                                                   \
	X(moved)                                                                                   \
	X(shrunk)                                                                                  \
	X(taken)                                                                                   \
	X(placed)                                                                                  \
	X(doubled)                                                                                 \
	X(refused)                                                                                 \
	X(brk)                                                                                     \
	X(large)                                                                                   \
	X(small)                                                                                   \
	X(small_moved)                                                                             \
	X(stack)                                                                                   \
	X(large_stack)

enum {
#define X(name) SITE_##name,
	SITES(X)
#undef X
		SITE_COUNT,
};

static const char *const names[SITE_COUNT] = {
#define X(name) #name,
	SITES(X)
#undef X
};

struct figures {
	long long alloc_objects, alloc_bytes, inuse_objects, inuse_bytes;
};

static struct worker {
	pthread_t thread;
	uint64_t random;
	struct figures books[SITE_COUNT];
} workers[MAX_THREADS + 1]; /* the last one is main's */
#define MAIN (&workers[MAX_THREADS])

/* One mapping, and how much of it is left. */
struct object {
	char *at;
	size_t size, left;
	int site;
};

static int thread_count = 2, load_count, rounds = 50, file;
static pthread_barrier_t start_line, finish_line;
static volatile bool over;

static size_t draw(struct worker *w, size_t below)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return (size_t)(w->random >> 33) % below;
}

/* --- the calls: a function for each site, so that each has a name in its stack --- */

struct request {
	void *old, *at;
	size_t old_size, size;
	int flags, fd;
};

#define MAP_SITE(name)                                                                             \
	NAMED_SITE static void *site_##name(const struct request *q)                               \
	{                                                                                          \
		return mmap(q->at, q->size, PROT_READ | PROT_WRITE, q->flags, q->fd, 0);           \
	}
#define REMAP_SITE(name)                                                                           \
	NAMED_SITE static void *site_##name(const struct request *q)                               \
	{                                                                                          \
		return mremap(q->old, q->old_size, q->size, q->flags, q->at);                      \
	}

MAP_SITE(plain)
MAP_SITE(kept)
MAP_SITE(head)
MAP_SITE(tail)
MAP_SITE(middle)
MAP_SITE(crumbs)
MAP_SITE(reserve)
MAP_SITE(fixed)
MAP_SITE(across)
MAP_SITE(file)
MAP_SITE(refused)
MAP_SITE(large)
MAP_SITE(small)
REMAP_SITE(grown)
REMAP_SITE(moved)
REMAP_SITE(shrunk)
REMAP_SITE(taken)
REMAP_SITE(placed)
REMAP_SITE(doubled)
REMAP_SITE(small_moved)

NAMED_SITE static void *site_brk(const struct request *q)
{
	return sbrk((intptr_t)q->size);
}

static void *idle(void *unused)
{
	(void)unused;
	return NULL;
}

#define STACK_SITE(name)                                                                           \
	NAMED_SITE static void *site_##name(const struct request *q)                               \
	{                                                                                          \
		pthread_attr_t attributes;                                                         \
		pthread_t thread;                                                                  \
                                                                                                   \
		pthread_attr_init(&attributes);                                                    \
		pthread_attr_setstacksize(&attributes, q->size);                                   \
		if (pthread_create(&thread, &attributes, idle, NULL))                              \
			target_die("no thread\n");                                                 \
		return (void *)thread;                                                             \
	}
STACK_SITE(stack)
STACK_SITE(large_stack)

static void *(*const calls[SITE_COUNT])(const struct request *) = {
#define X(name) [SITE_##name] = site_##name,
	SITES(X)
#undef X
};

/* --- the books --- */

static struct object book(struct worker *w, int site, void *at, size_t size)
{
	w->books[site].alloc_objects++;
	w->books[site].alloc_bytes += (long long)size;
	w->books[site].inuse_objects++;
	w->books[site].inuse_bytes += (long long)size;
	return (struct object){at, size, size, site};
}

static void book_gone(struct worker *w, struct object *object, size_t size)
{
	w->books[object->site].inuse_bytes -= (long long)size;
	object->left -= size;
	if (!object->left)
		w->books[object->site].inuse_objects--;
}

static struct object map_with(struct worker *w, int site, size_t pages, struct request q)
{
	void *at;

	/* An odd length is rounded up. */
	q.size = pages * PAGE - (q.fd < 0 ? 17 : 0);
	at = calls[site](&q);
	if (at == MAP_FAILED)
		target_die("%s failed: %s\n", names[site], strerror(errno));
	*(volatile char *)at;
	return book(w, site, at, pages * PAGE);
}

static struct object map(struct worker *w, int site, size_t pages)
{
	return map_with(w, site, pages,
			(struct request){.flags = MAP_PRIVATE | MAP_ANONYMOUS, .fd = -1});
}

static void unmap(struct worker *w, struct object *object, size_t first, size_t pages)
{
	if (munmap(object->at + first * PAGE, pages * PAGE))
		target_die("munmap: %s\n", strerror(errno));
	book_gone(w, object, pages * PAGE);
}

static struct object remap(struct worker *w, int site, struct object *old, size_t first,
			   size_t old_pages, size_t pages, int flags, void *to)
{
	const struct request q = {
		.old = old->at + first * PAGE,
		.old_size = old_pages * PAGE,
		.size = pages * PAGE,
		.flags = flags,
		.at = to,
	};
	void *at = calls[site](&q);

	if (at == MAP_FAILED)
		target_die("%s failed: %s\n", names[site], strerror(errno));
	if (!(flags & MREMAP_DONTUNMAP))
		book_gone(w, old, old_pages * PAGE);
	return book(w, site, at, pages * PAGE);
}

/* --- what it does --- */

static void parts(struct worker *w)
{
	struct object object = map(w, SITE_plain, 1 + draw(w, 20));

	unmap(w, &object, 0, object.size / PAGE);
	map(w, SITE_kept, 1 + draw(w, 4));

	object = map(w, SITE_head, 8);
	unmap(w, &object, 0, 3);
	if (draw(w, 2))
		unmap(w, &object, 3, 5);
	object = map(w, SITE_tail, 8);
	unmap(w, &object, 6, 2);
	if (draw(w, 2))
		unmap(w, &object, 0, 6);
	object = map(w, SITE_middle, 9);
	unmap(w, &object, 3, 3);
	if (draw(w, 2)) {
		unmap(w, &object, 6, 3);
		unmap(w, &object, 0, 3);
	}
	/* Every other page first. */
	object = map(w, SITE_crumbs, 16);
	for (size_t page = 0; page < 16; page += 2)
		unmap(w, &object, page, 1);
	for (size_t page = 1; page < 16 - 4 * draw(w, 2); page += 2)
		unmap(w, &object, page, 1);
}

/* Within a range that is one's own, as other threads map too. */
static void fixed(struct worker *w)
{
	struct object reserve = map(w, SITE_reserve, 32), inner[3];
	const struct request at_fixed = {.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
					 .fd = -1};
	struct request q = at_fixed;

	for (size_t i = 0; i < 3; i++) {
		q.at = reserve.at + (2 + 8 * i) * PAGE;
		inner[i] = map_with(w, i < 2 ? SITE_fixed : SITE_across, 4, q);
		book_gone(w, &reserve, 4 * PAGE);
	}
	/* The end of the first, the beginning of the second, and what is between. */
	if (munmap(inner[0].at + 3 * PAGE, 7 * PAGE))
		target_die("munmap: %s\n", strerror(errno));
	book_gone(w, &inner[0], PAGE);
	book_gone(w, &reserve, 4 * PAGE);
	book_gone(w, &inner[1], 2 * PAGE);
	/* Over one whole, and what is on both sides of it. */
	q.at = inner[2].at - PAGE;
	map_with(w, SITE_fixed, 6, q);
	book_gone(w, &inner[2], 4 * PAGE);
	book_gone(w, &reserve, 2 * PAGE);
	if (draw(w, 2))
		return;
	/* Everything that is left in one call. */
	q.at = NULL;
	if (munmap(reserve.at, 2 * PAGE))
		target_die("munmap: %s\n", strerror(errno));
	book_gone(w, &reserve, 2 * PAGE);
}

static void remaps(struct worker *w)
{
	struct object object = map(w, SITE_plain, 4), other;

	object = remap(w, SITE_grown, &object, 0, 4, 40, MREMAP_MAYMOVE, NULL);
	object = remap(w, SITE_shrunk, &object, 0, 40, 10, 0, NULL);
	other = map(w, SITE_reserve, 12);
	object = remap(w, SITE_placed, &object, 0, 10, 10, MREMAP_MAYMOVE | MREMAP_FIXED,
		       other.at + PAGE);
	book_gone(w, &other, 10 * PAGE);
	/* The middle of it goes elsewhere, and may grow. */
	other = remap(w, SITE_taken, &object, 4, 2, 2 + draw(w, 3), MREMAP_MAYMOVE, NULL);
	if (draw(w, 2))
		unmap(w, &object, 0, 4);
	object = remap(w, SITE_doubled, &other, 0, other.size / PAGE, other.size / PAGE,
		       MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	unmap(w, &other, 0, draw(w, 2) ? other.size / PAGE : 1);
	object = remap(w, SITE_moved, &object, 0, object.size / PAGE, 64, MREMAP_MAYMOVE, NULL);
	if (draw(w, 2))
		unmap(w, &object, 10, 54);
}

/* Nothing of this is in the books. */
static void failures(struct worker *w)
{
	struct object object = map(w, SITE_kept, 4);
	struct request q = {.flags = MAP_PRIVATE | MAP_ANONYMOUS, .fd = -1};

	if (site_refused(&q) != MAP_FAILED) /* of no bytes */
		target_die("a mapping of nothing\n");
	q.size = 1ul << 62;
	if (site_refused(&q) != MAP_FAILED)
		target_die("a mapping of too much\n");
	q = (struct request){.size = PAGE, .flags = MAP_PRIVATE, .fd = 1 << 20};
	if (site_refused(&q) != MAP_FAILED)
		target_die("a mapping of no file\n");
	/* Part of a mapping cannot grow where it is. */
	q = (struct request){.old = object.at, .old_size = 2 * PAGE, .size = 8 * PAGE};
	if (site_moved(&q) != MAP_FAILED)
		target_die("an mremap without room\n");
	if (!munmap(object.at + 1, PAGE) || !munmap(object.at, 0))
		target_die("an munmap without sense\n");
}

static void files(struct worker *w)
{
	struct object object =
		map_with(w, SITE_file, 3, (struct request){.flags = MAP_PRIVATE, .fd = file});

	if (draw(w, 2))
		unmap(w, &object, 1, 2);
}

static void *work(void *argument)
{
	struct worker *w = argument;

	pthread_barrier_wait(&start_line);
	for (int i = 0; i < rounds; i++) {
		parts(w);
		fixed(w);
		remaps(w);
		failures(w);
		files(w);
	}
	pthread_barrier_wait(&finish_line);
	for (;;)
		pause();
	return NULL;
}

/* Of what is large enough to be sampled for certain, parts go by calls too small for that. */
static void large(void)
{
	struct object object = map(MAIN, SITE_large, LARGE / PAGE);
	struct request q = {.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, .fd = -1};

	for (size_t i = 0; i < 64; i++) {
		q.at = object.at + (100 + 3 * i) * PAGE;
		map_with(MAIN, SITE_small, 1, q);
		book_gone(MAIN, &object, PAGE);
		remap(MAIN, SITE_small_moved, &object, 1000 + 3 * i, 1, 2, MREMAP_MAYMOVE, NULL);
		unmap(MAIN, &object, 2000 + 3 * i, 1);
	}
}

/* --- what the allocator does beside it --- */

NAMED_SITE static void *site_load(void *old, size_t size)
{
	char *block = realloc(old, size);

	if (!block)
		target_die("no memory\n");
	block[0] = block[size - 1] = 1;
	return block;
}

static void *load(void *argument)
{
	struct worker w = {.random = (uintptr_t)argument};
	void *blocks[LOAD_BLOCKS] = {0};

	pthread_barrier_wait(&start_line);
	for (int steps = 0; !over || steps < LOAD_STEPS; steps++) {
		size_t i = draw(&w, LOAD_BLOCKS), kind = draw(&w, 8);

		if (kind < 2) {
			free(blocks[i]);
			blocks[i] = NULL;
		} else {
			/* On both sides of every allocator's idea of "large", now and then far. */
			blocks[i] =
				site_load(blocks[i], kind < 5	? 1 + draw(&w, 4000)
						     : kind < 7 ? (100 << 10) + draw(&w, 1 << 20)
								: (4 << 20) + draw(&w, 8 << 20));
		}
	}
	for (size_t i = 0; i < LOAD_BLOCKS; i++)
		free(blocks[i]);
	return NULL;
}

/* --- where nothing else happens: the break, and threads --- */

/* Pages of address space that the process has. */
static long mapped_pages(void)
{
	char text[64] = "";
	int fd = open("/proc/self/statm", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 1)
		target_die("no statm\n");
	close(fd);
	return atol(text);
}

static void breaks(void)
{
	struct request q = {.size = 20 * PAGE + 100};
	struct object object;
	void *at = site_brk(&q);

	if (at == (void *)-1) /* musl's never moves */
		return;
	object = book(MAIN, SITE_brk, at, q.size);
	q.size = -(8 * PAGE);
	site_brk(&q);
	book_gone(MAIN, &object, 8 * PAGE);
	q.size = 1ul << 60;
	if (site_brk(&q) != (void *)-1)
		target_die("a break beyond everything\n");
}

/* How much of the address space one thread's stack takes, while it runs and afterwards. */
static void stacks(int site, size_t size)
{
	const struct request q = {.size = size};
	long before = mapped_pages(), after;
	pthread_t thread = (pthread_t)calls[site](&q);
	struct object object;

	after = mapped_pages();
	if (after <= before)
		target_die("a thread without a stack\n");
	object = book(MAIN, site, NULL, (size_t)(after - before) * PAGE);
	pthread_join(thread, NULL);
	after = mapped_pages();
	if (after <= before) /* less: one that was kept went with it */
		book_gone(MAIN, &object, object.size);
}

/* So that the first thread's stack, which is address space too, does not grow later. */
__attribute__((noinline)) static void grow_stack(void)
{
	volatile char deep[256 << 10];

	for (size_t i = 0; i < sizeof(deep); i += PAGE)
		deep[i] = 0;
}

static void print_books(void)
{
	static char line[1 << 14];
	size_t at = 0;

	for (int site = 0; site < SITE_COUNT; site++) {
		struct figures sum = {0};

		for (int i = 0; i <= MAX_THREADS; i++) {
			const struct figures *f = &workers[i].books[site];

			sum.alloc_objects += f->alloc_objects;
			sum.alloc_bytes += f->alloc_bytes;
			sum.inuse_objects += f->inuse_objects;
			sum.inuse_bytes += f->inuse_bytes;
		}
		at += (size_t)snprintf(line + at, sizeof(line) - at,
				       "%s\"%s\": {\"alloc_objects\": %lld, \"alloc_bytes\": %lld, "
				       "\"inuse_objects\": %lld, \"inuse_bytes\": %lld}",
				       site ? ", " : "{", names[site], sum.alloc_objects,
				       sum.alloc_bytes, sum.inuse_objects, sum.inuse_bytes);
	}
	at += (size_t)snprintf(line + at, sizeof(line) - at, "}\n");
	target_write(STDOUT_FILENO, line, at);
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--threads"))
			thread_count = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--rounds"))
			rounds = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--load"))
			load_count = atoi(argv[i + 1]);
		else
			target_die("unknown: %s\n", argv[i]);
	}
	if (thread_count < 0 || thread_count > MAX_THREADS || load_count < 0 ||
	    load_count > MAX_THREADS)
		target_die("at most %d threads\n", MAX_THREADS);
}

int main(int argc, char **argv)
{
	pthread_t loads[MAX_THREADS], first;
	pthread_attr_t small;

	grow_stack();
	pthread_attr_init(&small);
	parse(argc, argv);
	file = open("/proc/self/exe", O_RDONLY);
	pthread_barrier_init(&start_line, NULL, (unsigned int)(thread_count + load_count) + 1);
	pthread_barrier_init(&finish_line, NULL, (unsigned int)thread_count + 1);
	for (int i = 0; i < thread_count; i++) {
		workers[i].random = (uint64_t)i + 1;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			target_die("no thread\n");
	}
	for (int i = 0; i < load_count; i++) {
		if (pthread_create(&loads[i], NULL, load, (void *)(uintptr_t)(i + 1)))
			target_die("no thread\n");
	}
	/* What the first thread makes the C library and the allocator map; its stack is too small for
	   others. */
	pthread_attr_setstacksize(&small, STACK_SIZE / 2);
	if (pthread_create(&first, &small, idle, NULL))
		target_die("no thread\n");
	pthread_join(first, NULL);
	target_ready();
	target_wait_line();
	/* Who is traced gets a page of the kernel's with the first of these. */
	map(MAIN, SITE_kept, 1);
	breaks();
	large();
	/* The large one first: where it goes, there go all that are kept. */
	stacks(SITE_large_stack, LARGE_STACK);
	for (int i = 0; i < 5; i++)
		stacks(SITE_stack, STACK_SIZE + (size_t)i * 4 * PAGE);
	pthread_barrier_wait(&start_line);
	pthread_barrier_wait(&finish_line);
	over = true;
	for (int i = 0; i < load_count; i++)
		pthread_join(loads[i], NULL);
	print_books();
	target_wait_line();
	return 0;
}
