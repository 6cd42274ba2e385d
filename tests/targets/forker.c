/*
 * forker: a parent whose children inherit its blocks, free them, and allocate at the same
 * addresses.
 *
 * Says "ready PID", waits for a line, forks 50 times, prints its own books in ledger's format,
 * waits for another line and ends. What the children do is theirs: they are other processes.
 */
#include "target.h"

#include <sys/wait.h>

#define ROUNDS	  50
#define PER_ROUND 10

static void *blocks[ROUNDS * PER_ROUND];

NAMED_SITE static void *path_parent(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_child(size_t size)
{
	return malloc(size);
}

static void live_as_child(int count)
{
	for (int i = 0; i < count; i++)
		free(blocks[i]);
	for (int i = 0; i < count; i++)
		blocks[i] = path_child(100);
	_exit(0);
}

int main(void)
{
	long objects = 0, bytes = 0, live = 0, live_bytes = 0;
	int count = 0, status;

	target_ready();
	target_wait_line();
	for (int round = 0; round < ROUNDS; round++) {
		pid_t child;

		for (int i = 0; i < PER_ROUND; i++, objects++, bytes += 100)
			blocks[count++] = path_parent(100);
		child = fork();
		if (child == 0)
			live_as_child(count);
		if (child < 0 || waitpid(child, &status, 0) != child || status)
			target_die("a child ended badly: %x\n", status);
	}
	for (int i = 0; i < count / 2; i++)
		free(blocks[i]);
	live = count - count / 2;
	live_bytes = live * 100;
	target_say("{\"parent\": {\"alloc_objects\": %ld, \"alloc_bytes\": %ld, "
		   "\"inuse_objects\": %ld, \"inuse_bytes\": %ld}}\n",
		   objects, bytes, live, live_bytes);
	target_wait_line();
	return 0;
}
