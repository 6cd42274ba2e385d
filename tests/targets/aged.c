/*
 * aged: objects of known ages and lifetimes. Each line on stdin is one step:
 *
 *   alloc SITE COUNT SIZE    COUNT blocks at path_zero (SITE 0) to path_three (3)
 *   free SITE COUNT          the oldest of them
 *   drop SITE COUNT          the youngest of them
 *   realloc SITE COUNT SIZE  the oldest of them become the youngest of site 3, by path_three_again
 *   fail SITE COUNT          a realloc of the oldest that fails
 *   reuse SITE COUNT SIZE    the oldest are freed, and others allocated until they have those addresses
 *   map PAGES                at path_map
 *   unmap FROM PAGES         pages of the first such mapping
 *
 * after which it says "did BEFORE AFTER", ns of CLOCK_MONOTONIC.
 */
#include "target.h"

#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#define SITES	   4
#define BLOCKS_MAX 65536
#define PAGE	   4096

static struct {
	void *blocks[BLOCKS_MAX];
	unsigned int first, end;
} sites[SITES];

static char *mapping;

NAMED_SITE static void *path_zero(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_one(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_two(size_t size)
{
	return calloc(1, size);
}

NAMED_SITE static void *path_three(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_three_again(void *block, size_t size)
{
	return realloc(block, size);
}

NAMED_SITE static void *path_map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *(*const allocate[SITES])(size_t size) = {path_zero, path_one, path_two, path_three};

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void add(unsigned int site, void *block)
{
	if (!block || sites[site].end == BLOCKS_MAX)
		target_die("no memory\n");
	sites[site].blocks[sites[site].end++] = block;
}

static void *take(unsigned int site)
{
	if (sites[site].first == sites[site].end)
		target_die("no such block\n");
	return sites[site].blocks[sites[site].first++];
}

static void *take_youngest(unsigned int site)
{
	if (sites[site].first == sites[site].end)
		target_die("no such block\n");
	return sites[site].blocks[--sites[site].end];
}

/* glibc gives the block that was freed last to who asks next for its size. */
static void reuse(unsigned int site, size_t size)
{
	void *block = take(site);
	uintptr_t address = (uintptr_t)block;

	free(block);
	block = allocate[site](size);
	if ((uintptr_t)block != address)
		target_die("the address was not used again\n");
	add(site, block);
}

static void step(const char *word, unsigned int a, unsigned int b, unsigned int c)
{
	volatile size_t impossible = SIZE_MAX / 2;

	if (a >= SITES && strcmp(word, "map") != 0 && strcmp(word, "unmap") != 0)
		target_die("no such site\n");
	if (!strcmp(word, "map")) {
		char *mapped = path_map((size_t)a * PAGE);

		mapping = mapping ? mapping : mapped;
	} else if (!strcmp(word, "unmap")) {
		munmap(mapping + (size_t)a * PAGE, (size_t)b * PAGE);
	} else if (!strcmp(word, "fail")) {
		for (unsigned int i = 0; i < b; i++) {
			if (realloc(sites[a].blocks[sites[a].first + i], impossible))
				target_die("there is so much memory\n");
		}
	} else {
		for (unsigned int i = 0; i < b; i++) {
			if (!strcmp(word, "alloc"))
				add(a, allocate[a](c));
			else if (!strcmp(word, "free"))
				free(take(a));
			else if (!strcmp(word, "drop"))
				free(take_youngest(a));
			else if (!strcmp(word, "realloc"))
				add(3, path_three_again(take(a), c));
			else if (!strcmp(word, "reuse"))
				reuse(a, c);
			else
				target_die("what?\n");
		}
	}
}

/* One line, without stdio, which would allocate. */
static bool read_line(char *line, size_t size)
{
	size_t length = 0;
	char byte;

	while (read(STDIN_FILENO, &byte, 1) == 1) {
		if (byte == '\n') {
			line[length] = '\0';
			return true;
		}
		if (length + 1 < size)
			line[length++] = byte;
	}
	return false;
}

int main(void)
{
	char line[128], word[16];

	target_ready();
	while (read_line(line, sizeof(line))) {
		unsigned int a = 0, b = 0, c = 0;
		uint64_t before;

		sscanf(line, "%15s %u %u %u", word, &a, &b, &c);
		before = now();
		step(word, a, b, c);
		target_say("did %llu %llu\n", (unsigned long long)before,
			   (unsigned long long)now());
	}
	return 0;
}
