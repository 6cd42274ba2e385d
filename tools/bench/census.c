/*
 * census [PROCESSES [TICKS]]: what it costs to watch a host on which so many more processes sleep, once a
 * second: CPU time of a tick (events and readings), the median and the most; memory of the one that
 * watches; then the same with 10 000 processes that come and go.
 */
#include "target/host.h"
#include "target/watch.h"
#include "util/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHORT_LIVED 10000

static pid_t *pids;
static size_t pid_count;

static void kill_all(void)
{
	for (size_t i = 0; i < pid_count; i++)
		kill(pids[i], SIGKILL);
	for (size_t i = 0; i < pid_count; i++)
		waitpid(pids[i], NULL, 0);
}

static _Noreturn void fail(const char *what, int err)
{
	fprintf(stderr, "census: %s: %s\n", what, strerror(-err));
	kill_all();
	exit(1);
}

static void start_sleepers(size_t count)
{
	pids = calloc(count, sizeof(*pids));
	if (!pids)
		fail("sleepers", -ENOMEM);
	for (size_t i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork", -errno);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		pids[pid_count++] = pid;
	}
}

static uint64_t own_memory(void)
{
	struct memory memory = {0};

	memory_read(getpid(), &memory);
	return memory.anon;
}

/* One tick; ns on the CPU. */
static int64_t tick(struct host *host, struct watch *watch)
{
	int64_t started = clock_now(CLOCK_PROCESS_CPUTIME_ID);
	const struct watch_event *events;
	size_t count;
	int err = watch_read(watch, &events, &count);

	for (size_t i = 0; !err && i < count; i++)
		err = host_event(host, &events[i]);
	if (!err)
		err = host_read(host, clock_now(CLOCK_MONOTONIC));
	if (err)
		fail("a tick", err);
	return clock_now(CLOCK_PROCESS_CPUTIME_ID) - started;
}

static int by_size(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void measure(struct host *host, struct watch *watch, const char *what, int ticks)
{
	int64_t *times = calloc((size_t)ticks, sizeof(*times));

	if (!times)
		fail(what, -ENOMEM);
	for (int i = 0; i < ticks; i++) {
		nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
		times[i] = tick(host, watch);
	}
	qsort(times, (size_t)ticks, sizeof(*times), by_size);
	printf("%s: %zu processes, a tick takes %.2f ms of a CPU (median of %d; at most %.2f), "
	       "%.3f %% of one; anonymous memory %.1f MiB\n",
	       what, host->watched, (double)times[ticks / 2] / 1e6, ticks,
	       (double)times[ticks - 1] / 1e6, (double)times[ticks / 2] / 1e7,
	       (double)own_memory() / (1 << 20));
	free(times);
}

/* A process that starts others for ten seconds, 1000 in each. */
static pid_t start_storm(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < SHORT_LIVED; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		waitpid(child, NULL, 0);
		nanosleep(&(struct timespec){.tv_nsec = 800000}, NULL);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	size_t processes = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
	int ticks = argc > 2 ? atoi(argv[2]) : 20;
	struct rlimit limit;
	struct host_filter filter = {0};
	struct watch *watch;
	struct host *host;
	uint64_t before;
	int64_t started;
	int err;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	setvbuf(stdout, NULL, _IOLBF, 0);
	start_sleepers(processes);
	err = watch_open(&watch);
	if (err)
		fail("watch", err);
	before = own_memory();
	started = clock_now(CLOCK_PROCESS_CPUTIME_ID);
	err = host_open(&filter, &host);
	if (err)
		fail("host", err);
	printf("opened in %.1f ms; %zu processes, %zu threads of the kernel; %.1f MiB before, %.0f "
	       "bytes "
	       "each\n",
	       (double)(clock_now(CLOCK_PROCESS_CPUTIME_ID) - started) / 1e6, host->watched,
	       host->kernel_threads, (double)before / (1 << 20),
	       (double)(own_memory() - before) / (double)host->watched);
	measure(host, watch, "idle", ticks);
	pids = realloc(pids, (pid_count + 1) * sizeof(*pids));
	if (!pids)
		fail("storm", -ENOMEM);
	pids[pid_count++] = start_storm();
	measure(host, watch, "with short-lived ones", ticks);
	printf("short-lived: %llu; ended: %zu\n", (unsigned long long)host->short_lived_total,
	       host->processes.count - host->watched - host->left_out);
	kill_all();
	host_free(host);
	watch_free(watch);
	free(pids);
	return 0;
}
