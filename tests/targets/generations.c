/*
 * generations N [orphan]: a process, its child, its grandchild, ... N of them in all.
 *
 * Each says "ready PID", waits for a line, and allocates at sites of its own. A child first frees the
 * blocks that it has inherited from its parent, or makes others of them. Then each but the last forks
 * the next one and waits for its end, frees half of its own blocks, prints its books in ledger's
 * format, and waits for a last line. So there is always only one that reads stdin.
 *
 * With "orphan" no one waits for a child: whoever has forked prints its books and ends.
 */
#include "target.h"

#include <sys/wait.h>

#define GENERATIONS 3
#define BLOCKS	    100

static void *blocks[BLOCKS];

NAMED_SITE static void *path_first(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_second(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_third(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_taken_over(void *inherited, size_t size)
{
	return realloc(inherited, size);
}

static const struct {
	const char *name;
	void *(*allocate)(size_t size);
} sites[GENERATIONS] = {{"first", path_first}, {"second", path_second}, {"third", path_third}};

/* Half of what was inherited: the other half is freed. */
static void take_over(size_t size)
{
	for (int i = 0; i < BLOCKS; i++) {
		if (i % 2)
			blocks[i] = path_taken_over(blocks[i], size);
		else
			free(blocks[i]);
	}
}

static void print_books(int generation, long size)
{
	long taken = generation ? BLOCKS / 2 : 0;

	target_say("{\"%s\": {\"alloc_objects\": %d, \"alloc_bytes\": %ld, \"inuse_objects\": %d, "
		   "\"inuse_bytes\": %ld}, \"taken_over\": {\"alloc_objects\": %ld, "
		   "\"alloc_bytes\": %ld, \"inuse_objects\": %ld, \"inuse_bytes\": %ld}}\n",
		   sites[generation].name, BLOCKS, BLOCKS * size, BLOCKS / 2, BLOCKS / 2 * size,
		   taken, taken * 3 * size, taken, taken * 3 * size);
}

static void live(int generation, int generations, bool orphan)
{
	size_t size = 100 + (size_t)generation;
	pid_t child;
	int status;

	target_ready();
	target_wait_line();
	if (generation)
		take_over(3 * size);
	for (int i = 0; i < BLOCKS; i++)
		blocks[i] = sites[generation].allocate(size);
	if (generation + 1 < generations) {
		child = fork();
		if (child == 0) {
			live(generation + 1, generations, orphan);
			_exit(0);
		}
		if (child < 0 || (!orphan && (waitpid(child, &status, 0) != child || status)))
			target_die("a child ended badly\n");
	}
	for (int i = 0; i < BLOCKS; i += 2)
		free(blocks[i]);
	print_books(generation, (long)size);
	if (!orphan || generation + 1 == generations)
		target_wait_line();
}

int main(int argc, char **argv)
{
	int generations = argc > 1 ? atoi(argv[1]) : 0;

	if (generations < 1 || generations > GENERATIONS)
		target_die("generations 1|2|3 [orphan]\n");
	live(0, generations, argc > 2 && !strcmp(argv[2], "orphan"));
	return 0;
}
