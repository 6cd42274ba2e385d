/* What parts of a process's memory hold, and of one that has none any more. */
#include "target/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define SIZE (1024 * 1024)

/* A child that has touched as much at `at`, and waits. */
static pid_t start_child(char *at)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		memset(at, 1, SIZE);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void test_who_has_ended_holds_nothing_that_is_known(void **state)
{
	char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct memory_part part = {.start = (uintptr_t)at, .end = (uintptr_t)at + SIZE};
	uint64_t stacks = 0;
	siginfo_t info;
	pid_t pid;

	(void)state;
	assert_true(at != MAP_FAILED);
	pid = start_child(at);
	assert_int_equal(memory_read_parts(pid, &part, 1, &stacks), 0);
	assert_int_equal(part.resident, SIZE);
	assert_true(stacks > 0);
	/* Dead, but still there, as long as nobody has waited for it. */
	kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	part.resident = 0;
	stacks = 1;
	assert_int_equal(memory_read_parts(pid, &part, 1, &stacks), -ESRCH);
	assert_int_equal(stacks, 1);
	waitpid(pid, NULL, 0);
	assert_int_equal(memory_read_parts(pid, &part, 1, &stacks), -ESRCH);
	munmap(at, SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_has_ended_holds_nothing_that_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
