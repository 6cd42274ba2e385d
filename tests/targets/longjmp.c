/*
 * longjmp: leaves allocator calls half-way, by siglongjmp out of a signal handler.
 *
 *	longjmp crash N	  says "ready PID", waits for a line, then N times makes realloc fault on a
 *			  pointer that never was one, and jumps out of the handler; each time one more
 *			  object of 200 bytes is allocated at path_between. Then 100 objects at
 *			  path_after, the books in ledger's format, another line, the end.
 *	longjmp timer	  says "ready PID", allocates and frees under a timer signal whose handler
 *			  jumps away whenever it finds malloc interrupted in its first instructions,
 *			  where no state of the heap has been touched. SIGUSR1 prints "abandoned N
 *			  ops M", SIGTERM too, and ends it with 0.
 */
#include "target.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <ucontext.h>

#define BETWEEN_MAX 10000

static sigjmp_buf back;
static volatile sig_atomic_t stop, asked, may_jump;
static unsigned long abandoned, ops;
static uintptr_t malloc_start;

NAMED_SITE static void *path_wild(void *wild)
{
	return realloc(wild, 100);
}

NAMED_SITE static void *path_between(void)
{
	return malloc(200);
}

NAMED_SITE static void *path_after(void)
{
	return malloc(300);
}

NAMED_SITE static void *path_interrupted(void)
{
	return malloc(64);
}

static void on_fault(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

static int crash(int count)
{
	static void *blocks[BETWEEN_MAX + 100];
	struct sigaction action = {.sa_handler = on_fault};
	volatile int i;

	if (count < 1 || count > BETWEEN_MAX)
		target_die("1 to %d\n", BETWEEN_MAX);
	sigaction(SIGSEGV, &action, NULL);
	target_ready();
	target_wait_line();
	for (i = 0; i < count; i++) {
		if (!sigsetjmp(back, 1))
			path_wild((void *)0x10); /* reads the chunk's size at 8: never mapped */
		blocks[i] = path_between();
	}
	for (i = 0; i < 100; i++)
		blocks[count + i] = path_after();
	for (i = 0; i < 50; i++)
		free(blocks[count + i]);
	target_say("{\"between\": {\"alloc_objects\": %d, \"alloc_bytes\": %d, "
		   "\"inuse_objects\": %d, \"inuse_bytes\": %d}, "
		   "\"after\": {\"alloc_objects\": 100, \"alloc_bytes\": 30000, "
		   "\"inuse_objects\": 50, \"inuse_bytes\": 15000}}\n",
		   count, count * 200, count, count * 200);
	target_wait_line();
	return 0;
}

static void on_timer(int signal, siginfo_t *info, void *context)
{
#ifdef __x86_64__
	const ucontext_t *interrupted = context;
	uintptr_t pc = (uintptr_t)interrupted->uc_mcontext.gregs[REG_RIP];

	/* Pushes of saved registers and moves between them, in every glibc there is. */
	if (may_jump && pc - malloc_start < 12) {
		may_jump = 0;
		siglongjmp(back, 1);
	}
#endif
	(void)signal;
	(void)info;
	(void)context;
}

static void on_request(int signal)
{
	if (signal == SIGTERM)
		stop = 1;
	else
		asked = 1;
}

static void say_counts(void)
{
	target_say("abandoned %lu ops %lu\n", abandoned, ops);
}

static int timer(void)
{
	struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
	struct itimerval interval = {.it_interval = {.tv_usec = 500}, .it_value = {.tv_usec = 500}};

	malloc_start = (uintptr_t)dlsym(RTLD_DEFAULT, "malloc");
	signal(SIGTERM, on_request);
	signal(SIGUSR1, on_request);
	sigaction(SIGALRM, &action, NULL);
	target_ready();
	setitimer(ITIMER_REAL, &interval, NULL);
	while (!stop) {
		unsigned char *block;

		if (sigsetjmp(back, 1)) {
			abandoned++;
			continue;
		}
		may_jump = 1;
		block = path_interrupted();
		may_jump = 0;
		if (!block)
			target_die("out of memory\n");
		memset(block, 0x5a, 64);
		free(block);
		ops++;
		if (asked) {
			asked = 0;
			say_counts();
		}
	}
	say_counts();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "crash"))
		return crash(atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "timer"))
		return timer();
	target_die("longjmp crash N | longjmp timer\n");
}
