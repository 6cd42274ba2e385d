/*
 * loop THREADS MILLISECONDS: malloc and free, as fast as they go, and what they took.
 *
 * Says "ready PID". Each line on stdin is one measurement, at the end of which it says
 * "pairs N ns N waited N": of all threads together, the pairs of calls, the nanoseconds they took,
 * and those that the threads spent waiting for a CPU meanwhile, which are not among the first. End
 * of file ends it. The sizes are few and fixed, so that every call takes the allocator's fastest
 * path: what a tracer adds is then the largest part that it can be.
 */
#include "target.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define MAX_THREADS 64

/* Between two looks at the clock: a small part of the time even where a pair takes only 10 ns. */
#define BATCH 512

static const size_t sizes[] = {64, 512, 128, 448, 192, 384, 256, 320};
#define SIZES (sizeof(sizes) / sizeof(*sizes))

static struct worker {
	pthread_t thread;
	uint64_t pairs, ns, waited;
} workers[MAX_THREADS];

static int threads;
static uint64_t duration;
static pthread_barrier_t barrier;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Nanoseconds that this thread has been ready to run without a CPU; 0 where nobody counts them. */
static uint64_t waited(void)
{
	char text[64] = "";
	int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	char *second = NULL;

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		second = strchr(text, ' ');
	close(fd);
	return second ? strtoull(second, NULL, 10) : 0;
}

static void batch(void)
{
	for (size_t i = 0; i < BATCH; i++) {
		void *block = malloc(sizes[i % SIZES]);

		/* As if somebody had used it: both calls have to be made. */
		__asm__ volatile("" : "+r"(block) : : "memory");
		free(block);
	}
}

static void measure(struct worker *worker)
{
	uint64_t start, time, waited_before;

	worker->pairs = 0;
	waited_before = waited();
	start = now();
	do {
		batch();
		worker->pairs += BATCH;
		time = now();
	} while (time - start < duration);
	worker->waited = waited() - waited_before;
	worker->ns = time - start - worker->waited;
}

static void *work(void *argument)
{
	for (;;) {
		pthread_barrier_wait(&barrier);
		measure(argument);
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void say_result(void)
{
	unsigned long long pairs = 0, ns = 0, waiting = 0;

	for (int i = 0; i < threads; i++) {
		pairs += workers[i].pairs;
		ns += workers[i].ns;
		waiting += workers[i].waited;
	}
	target_say("pairs %llu ns %llu waited %llu\n", pairs, ns, waiting);
}

int main(int argc, char **argv)
{
	if (argc == 3) {
		threads = atoi(argv[1]);
		duration = strtoull(argv[2], NULL, 10) * 1000000;
	}
	if (threads < 1 || threads > MAX_THREADS || !duration)
		target_die("usage: loop THREADS MILLISECONDS; 1 to %d threads\n", MAX_THREADS);
	pthread_barrier_init(&barrier, NULL, (unsigned int)threads);
	/* The main thread is the first worker: with one, the process has only one. */
	for (int i = 1; i < threads; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			target_die("no thread\n");
	target_ready();
	while (target_wait_line()) {
		pthread_barrier_wait(&barrier);
		measure(&workers[0]);
		pthread_barrier_wait(&barrier);
		say_result();
	}
	return 0;
}
