/*
 * exits_soon: says "ready PID", waits for a line, allocates 100 objects of 1000 bytes at
 * path_last_words, frees 40 of them and is gone, with status 7.
 */
#include "target.h"

NAMED_SITE static void *path_last_words(void)
{
	return malloc(1000);
}

int main(void)
{
	static void *blocks[100];

	target_ready();
	target_wait_line();
	for (int i = 0; i < 100; i++)
		blocks[i] = path_last_words();
	for (int i = 0; i < 40; i++)
		free(blocks[i]);
	_exit(7);
}
