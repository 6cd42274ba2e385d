/*
 * throws [SIZE]: asks operator new for SIZE bytes, more than there is or than it may have, over and
 * over, and catches what it throws. An exception that meets a hijacked return address ends a process:
 * this one must live.
 *
 * Says "ready PID". SIGUSR1 prints "caught N"; SIGTERM prints the last one and ends with 0. SIGUSR2 makes
 * it fork: the child says "child PID", stops, and when it is continued does the same as its parent.
 */
#include "target.h"

#include <csignal>
#include <new>

static volatile sig_atomic_t asked, forks, stop;

static void on_signal(int signal)
{
	if (signal == SIGTERM)
		stop = 1;
	else if (signal == SIGUSR1)
		asked = 1;
	else
		forks = 1;
}

/* Two functions each: operator new hides its caller from a walk by frame pointers. */
#define DEFINE_SITE(name, call)                                                                    \
	extern "C" NAMED_SITE void *site_##name(size_t size)                                       \
	{                                                                                          \
		return call(size);                                                                 \
	}                                                                                          \
	extern "C" NAMED_SITE void *path_##name(size_t size)                                       \
	{                                                                                          \
		return site_##name(size);                                                          \
	}

DEFINE_SITE(throw, operator new)
DEFINE_SITE(throw_array, operator new[])
DEFINE_SITE(calm, operator new)

int main(int argc, char **argv)
{
	unsigned long caught = 0, expected = 0;
	size_t huge = argc > 1 ? strtoul(argv[1], nullptr, 10) : ~0ul / 4;

	signal(SIGTERM, on_signal);
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);
	target_ready();
	while (!stop) {
		void *calm = path_calm(100);

		expected++;
		try {
			expected % 2 ? path_throw(huge) : path_throw_array(huge);
		} catch (const std::bad_alloc &) {
			caught++;
		}
		operator delete(calm);
		if (caught != expected)
			target_die("an exception was lost\n");
		if (asked) {
			asked = 0;
			target_say("caught %lu\n", caught);
		}
		if (forks) {
			forks = 0;
			if (fork() == 0) {
				target_say("child %d\n", (int)getpid());
				raise(SIGSTOP);
			}
		}
	}
	target_say("caught %lu\n", caught);
	return 0;
}
