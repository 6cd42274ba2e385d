/* The events of a busy machine, of which there are several rings. */
#include "target/watch.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define EVENTS 5000

/* A process that starts others, which execute a program, for as long as it is let. */
static pid_t start_starter(void)
{
	pid_t starter = fork();

	assert_true(starter >= 0);
	while (starter == 0) {
		pid_t child = fork();

		if (child == 0) {
			execl("/bin/true", "true", NULL);
			_exit(1);
		}
		waitpid(child, NULL, 0);
	}
	return starter;
}

static void events_are_in_order_from_one_call_to_the_next(void **state)
{
	const struct watch_event *events;
	pid_t starters[4];
	struct watch *watch;
	int64_t last = 0;
	size_t count, seen = 0;
	int err = watch_open(&watch);

	(void)state;
	if (err == -EACCES || err == -EPERM)
		skip();
	assert_int_equal(err, 0);
	for (size_t i = 0; i < sizeof(starters) / sizeof(*starters); i++)
		starters[i] = start_starter();
	while (seen < EVENTS) {
		err = watch_read(watch, &events, &count);
		for (size_t i = 0; i < count; i++) {
			if (events[i].time < last)
				err = -ERANGE;
			last = events[i].time;
		}
		if (err)
			break;
		seen += count;
	}
	for (size_t i = 0; i < sizeof(starters) / sizeof(*starters); i++) {
		kill(starters[i], SIGKILL);
		waitpid(starters[i], NULL, 0);
	}
	watch_free(watch);
	assert_int_equal(err, 0);
}

static void *do_nothing(void *argument)
{
	return argument;
}

/* Starts a process that has a thread for a while, and waits for its end. */
static pid_t run_child(void)
{
	pid_t child = fork();
	pthread_t thread;

	assert_true(child >= 0);
	if (child == 0) {
		if (pthread_create(&thread, NULL, do_nothing, NULL))
			_exit(1);
		pthread_join(thread, NULL);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return child;
}

static void a_process_is_followed_from_fork_to_exit(void **state)
{
	const struct watch_event *events;
	unsigned int forks = 0, exits = 0;
	struct watch *watch;
	int64_t forked = 0, exited = 0;
	pid_t child;
	size_t count;
	int err = watch_open(&watch);

	(void)state;
	if (err == -EACCES || err == -EPERM)
		skip();
	assert_int_equal(err, 0);
	child = run_child();
	assert_int_equal(watch_read(watch, &events, &count), 0);
	for (size_t i = 0; i < count; i++) {
		if (events[i].type == WATCH_FORK && events[i].child == child) {
			assert_int_equal(events[i].pid, getpid());
			forked = events[i].time;
			forks++;
		}
		if (events[i].type == WATCH_EXIT && events[i].pid == child) {
			exited = events[i].time;
			exits++;
		}
	}
	watch_free(watch);
	/* Those of its thread are none. */
	assert_int_equal(forks, 1);
	assert_int_equal(exits, 1);
	assert_true(forked < exited);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_are_in_order_from_one_call_to_the_next),
		cmocka_unit_test(a_process_is_followed_from_fork_to_exit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
