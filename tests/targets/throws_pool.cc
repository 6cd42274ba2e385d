/*
 * throws_pool: a pool whose pool_get, a function with a C name, throws every other time it is asked.
 *
 * Says "ready PID" and, at SIGUSR1, "caught N": the exceptions that were thrown so far, each of which
 * was caught. Ends at SIGTERM.
 */
#include <csignal>
#include <new>

#include "target.h"

static volatile sig_atomic_t stop, asked;

static void on_signal(int number)
{
	if (number == SIGTERM)
		stop = 1;
	else
		asked = 1;
}

extern "C" NAMED_SITE void *pool_get(size_t size)
{
	if (size > 1000)
		throw std::bad_alloc();
	return malloc(size);
}

extern "C" NAMED_SITE void pool_put(void *block)
{
	free(block);
}

int main()
{
	unsigned long caught = 0, expected = 0;

	signal(SIGTERM, on_signal);
	signal(SIGUSR1, on_signal);
	target_ready();
	while (!stop) {
		pool_put(pool_get(100));
		expected++;
		try {
			pool_put(pool_get(2000));
		} catch (const std::bad_alloc &) {
			caught++;
		}
		if (caught != expected)
			target_die("an exception was lost\n");
		if (asked) {
			asked = 0;
			target_say("caught %lu\n", caught);
		}
	}
	return 0;
}
