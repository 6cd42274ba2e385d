/*
 * Maps memory by itself and touches parts of it, and gives some back whose place its allocator then gets: parts
 * [COUNT]
 *
 * Says "ready PID", waits for a line, works, and says "direct BYTES heap BYTES stack BYTES reused NUMBER": what of
 * COUNT (40) mappings is touched and mapped still, what of malloc's blocks, each of which is a mapping of its own, what
 * of a thread's stack; and how many blocks lie where a mapping was. Beside these it maps what is not to count: a
 * terabyte that nobody may access, memory that is only read, and shared memory. Waits for another line, and ends.
 */
#include "target.h"

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE	    4096ul
#define COUNT_MAX   4096
#define SIZES	    8
#define ROUNDS	    3  /* of blocks: the kernel has other places, too */
#define CHUNK	    16 /* before a block; and as much behind it */
#define STACK_BYTES (64ul << 10)
#define RESERVED    (1ul << 40)
#define ONLY_READ   (64 * PAGE)

struct mapping {
	char *at;
	size_t pages, touched; /* the first ones */
};

static struct mapping mappings[COUNT_MAX], gone[COUNT_MAX];
static size_t count = 40, gone_count, direct, heap, reused;
static pthread_barrier_t stack_is_touched;

static void touch(char *at, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		((volatile char *)at)[i * PAGE] = 1;
}

static char *map(size_t size, int access, int flags)
{
	char *at = mmap(NULL, size, access, flags | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		target_die("mmap failed\n");
	return at;
}

static struct mapping map_pages(size_t pages)
{
	struct mapping made = {
		.at = map(pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE),
		.pages = pages,
		.touched = pages / 2,
	};

	touch(made.at, made.touched);
	return made;
}

/* All of it, or the first page. */
static void unmap(struct mapping *mapping, size_t pages)
{
	if (munmap(mapping->at, pages * PAGE))
		target_die("munmap failed\n");
	gone[gone_count++] = (struct mapping){.at = mapping->at, .pages = pages};
	mapping->at += pages * PAGE;
	mapping->pages -= pages;
	mapping->touched -= pages < mapping->touched ? pages : mapping->touched;
}

/* Twice as large, perhaps elsewhere. */
static void enlarge(struct mapping *mapping)
{
	size_t pages = 2 * mapping->pages;

	mapping->at = mremap(mapping->at, mapping->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
	if (mapping->at == MAP_FAILED)
		target_die("mremap failed\n");
	mapping->pages = pages;
	mapping->touched = pages;
	touch(mapping->at, pages);
}

static bool lies_in_gone(const char *at)
{
	for (size_t i = 0; i < gone_count; i++) {
		if (at >= gone[i].at && at < gone[i].at + gone[i].pages * PAGE)
			return true;
	}
	return false;
}

/* As large as what is gone, so that the kernel gives it those places. */
static void allocate(size_t pages)
{
	char *block = malloc(pages * PAGE - 2 * CHUNK);

	if (!block)
		target_die("malloc failed\n");
	touch(block - CHUNK, pages);
	heap += pages * PAGE;
	reused += lies_in_gone(block);
}

static void *sleep_in_stack(void *unused)
{
	char memory[STACK_BYTES];

	memset(memory, 1, sizeof(memory));
	__asm__ volatile("" : : "r"(memory) : "memory");
	pthread_barrier_wait(&stack_is_touched);
	for (;;)
		pause();
	return unused;
}

static void work(void)
{
	pthread_t thread;
	char *read;

	for (size_t i = 0; i < count; i++)
		mappings[i] = map_pages(2 * (1 + i % SIZES));
	for (size_t i = 2; i < count; i += SIZES)
		enlarge(&mappings[i]);
	for (size_t i = 0; i < count; i++) {
		if (i % 4 == 1)
			unmap(&mappings[i], mappings[i].pages);
		else if (i % 4 == 3)
			unmap(&mappings[i], 1);
	}
	for (size_t i = 0; i < ROUNDS * gone_count; i++)
		allocate(gone[i % gone_count].pages);
	for (size_t i = 0; i < count; i++)
		direct += mappings[i].touched * PAGE;
	map(RESERVED, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
	read = map(ONLY_READ, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	for (size_t i = 0; i < ONLY_READ; i += PAGE)
		(void)((volatile char *)read)[i];
	touch(map(ONLY_READ, PROT_READ | PROT_WRITE, MAP_SHARED), ONLY_READ / PAGE);
	if (pthread_create(&thread, NULL, sleep_in_stack, NULL))
		target_die("no thread\n");
	pthread_barrier_wait(&stack_is_touched);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		count = strtoul(argv[1], NULL, 0);
	if (count > COUNT_MAX)
		target_die("at most %d\n", COUNT_MAX);
	mallopt(M_MMAP_THRESHOLD, PAGE / 2);
	mallopt(M_MMAP_MAX, 2 * COUNT_MAX);
	pthread_barrier_init(&stack_is_touched, NULL, 2);
	target_ready();
	target_wait_line();
	work();
	target_say("direct %zu heap %zu stack %lu reused %zu\n", direct, heap, STACK_BYTES, reused);
	target_wait_line();
}
