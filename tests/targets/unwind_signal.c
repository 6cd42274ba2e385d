/*
 * unwind_signal: allocates in a signal handler.
 *
 *	unwind_signal raise|altstack|timer N
 *
 * Says "ready PID", waits for a line, takes N signals, says "done", waits for another line, ends.
 * raise: from a function that raises them, so what is interrupted has just made a system call.
 * altstack: the same, with the handler on a stack of its own. timer: whatever instruction of a
 * function without a frame of its own, or of one that calls others, is at hand.
 */
#include "target.h"

#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t handled;
static volatile unsigned long steps;
static char stack[64 * 1024];

NAMED_SITE static void *path_handler(size_t size)
{
	return malloc(size);
}

static void on_signal(int signal)
{
	(void)signal;
	free(path_handler(100));
	handled++;
}

NAMED_SITE static void path_raiser(int count)
{
	for (int i = 0; i < count; i++)
		raise(SIGUSR1);
}

NAMED_SITE static void path_leaf(int until)
{
	while (handled < until)
		steps++;
}

NAMED_SITE static void path_step(unsigned long by)
{
	volatile unsigned long sum[8] = {by};

	steps += sum[by % 8];
}

NAMED_SITE static void path_framed(int until)
{
	while (handled < until)
		path_step(steps);
}

NAMED_SITE static void path_outer(const char *how, int count)
{
	if (strcmp(how, "timer") != 0) {
		path_raiser(count);
		return;
	}
	path_leaf(count / 2);
	path_framed(count);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	stack_t other = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct itimerval interval = {.it_interval = {.tv_usec = 1000},
				     .it_value = {.tv_usec = 1000}};

	if (argc != 3)
		target_die("unwind_signal raise|altstack|timer N\n");
	if (!strcmp(argv[1], "altstack")) {
		sigaltstack(&other, NULL);
		action.sa_flags = SA_ONSTACK;
	}
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	target_ready();
	target_wait_line();
	if (!strcmp(argv[1], "timer"))
		setitimer(ITIMER_REAL, &interval, NULL);
	path_outer(argv[1], atoi(argv[2]));
	memset(&interval, 0, sizeof(interval));
	setitimer(ITIMER_REAL, &interval, NULL);
	target_say("done\n");
	target_wait_line();
	return 0;
}
