/*
 * unwind_thread: allocates in threads. Built against glibc and musl, dynamic and static.
 *
 *	unwind_thread THREADS N
 *
 * Says "ready PID" once every thread runs, waits for a line, has each thread and main allocate N
 * times, says "done", waits for another line, ends.
 */
#include "target.h"

#include <pthread.h>

#define MAX_THREADS 16

static pthread_barrier_t start_line, finish_line;
static int count;

NAMED_SITE static void *path_site(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void path_middle(void)
{
	for (int i = 0; i < count; i++)
		free(path_site(100 + (size_t)i));
}

NAMED_SITE static void *path_thread(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&start_line);
	path_middle();
	pthread_barrier_wait(&finish_line);
	/* Ending would free what the C library keeps for a thread: stay. */
	for (;;)
		pause();
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc == 3 ? atoi(argv[1]) : 0;

	if (threads < 1 || threads > MAX_THREADS)
		target_die("unwind_thread 1..%d N\n", MAX_THREADS);
	count = atoi(argv[2]);
	pthread_barrier_init(&start_line, NULL, (unsigned int)threads + 1);
	pthread_barrier_init(&finish_line, NULL, (unsigned int)threads + 1);
	for (int i = 0; i < threads; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, path_thread, NULL))
			target_die("no thread\n");
	}
	target_ready();
	target_wait_line();
	pthread_barrier_wait(&start_line);
	path_middle();
	pthread_barrier_wait(&finish_line);
	target_say("done\n");
	target_wait_line();
	return 0;
}
