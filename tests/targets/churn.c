/*
 * churn [THREADS]: allocates, grows and frees as fast as it can, and checks every byte it wrote.
 *
 * Says "ready PID". SIGUSR1 prints "ops N", so that a test can see it make progress. SIGTERM prints
 * the last "ops N" and ends with 0. A block whose contents changed ends it at once, with 1.
 */
#include "target.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>

#define MAX_THREADS 64
#define SLOTS	    256

struct slot {
	unsigned char *start;
	size_t size;
	unsigned char fill;
};

struct worker {
	pthread_t thread;
	uint64_t random;
	uint64_t ops;
	struct slot slots[SLOTS];
};

static struct worker workers[MAX_THREADS];
static int threads = 4;
static bool stop;

static uint64_t draw(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static void check(const struct slot *s, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (s->start[i] != s->fill)
			target_die("broken: byte %zu of %zu at %p is %02x, not %02x\n", i, s->size,
				   (void *)s->start, s->start[i], s->fill);
}

static size_t any_size(struct worker *w)
{
	uint64_t r = draw(w);

	/* Mostly small; now and then beyond the mmap threshold. */
	return r % 1024 == 0 ? 1 + (r >> 20) % (300 << 10) : 1 + (r >> 20) % 512;
}

NAMED_SITE static void *churn_allocate(struct worker *w, size_t size)
{
	void *block;

	switch (draw(w) % 4) {
	case 0:
		return calloc(1, size);
	case 1:
		return posix_memalign(&block, 64, size) ? NULL : block;
	default:
		return malloc(size);
	}
}

NAMED_SITE static void *churn_grow(struct slot *s, size_t size)
{
	return realloc(s->start, size);
}

static void fill(struct worker *w, struct slot *s)
{
	s->fill = (unsigned char)draw(w);
	memset(s->start, s->fill, s->size);
}

static void step(struct worker *w)
{
	struct slot *s = &w->slots[draw(w) % SLOTS];
	size_t size = any_size(w);

	if (!s->start) {
		s->start = churn_allocate(w, size);
		if (!s->start)
			target_die("out of memory\n");
		s->size = size;
		fill(w, s);
		return;
	}
	check(s, s->size);
	if (draw(w) % 2) {
		free(s->start);
		s->start = NULL;
		return;
	}
	s->start = churn_grow(s, size);
	if (!s->start)
		target_die("out of memory\n");
	check(s, size < s->size ? size : s->size);
	s->size = size;
	fill(w, s);
}

static void *churn(void *argument)
{
	struct worker *w = argument;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		step(w);
		__atomic_store_n(&w->ops, w->ops + 1, __ATOMIC_RELAXED);
	}
	for (int i = 0; i < SLOTS; i++)
		if (w->slots[i].start)
			check(&w->slots[i], w->slots[i].size);
	return NULL;
}

static void say_ops(void)
{
	uint64_t ops = 0;

	for (int i = 0; i < threads; i++)
		ops += __atomic_load_n(&workers[i].ops, __ATOMIC_RELAXED);
	target_say("ops %llu\n", (unsigned long long)ops);
}

int main(int argc, char **argv)
{
	sigset_t signals;
	int signal;

	if (argc > 1)
		threads = atoi(argv[1]);
	if (threads < 1 || threads > MAX_THREADS)
		target_die("1 to %d threads\n", MAX_THREADS);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	for (int i = 0; i < threads; i++) {
		workers[i].random = 88172645463325252u + (uint64_t)i;
		if (pthread_create(&workers[i].thread, NULL, churn, &workers[i]))
			target_die("no thread\n");
	}
	target_ready();
	while (!sigwait(&signals, &signal) && signal == SIGUSR1)
		say_ops();
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	say_ops();
	return 0;
}
