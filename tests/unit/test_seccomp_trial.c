/* What the trial says of system calls of which the answer is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tracer/seccomp_trial.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define URETPROBE 335

static void test_filters_are_asked_about_an_ordinary_call(void **state)
{
	(void)state;
	assert_int_equal(seccomp_trial_of(SYS_getppid), 1);
	assert_int_equal(seccomp_trial_of(SYS_ioctl), 1); /* it is there, though it fails */
}

static void test_a_call_that_the_kernel_lacks_is_no_danger(void **state)
{
	(void)state;
	assert_int_equal(seccomp_trial_of(100000), -ENOSYS);
	assert_int_equal(seccomp_trial_of(-1), 0);
}

/* Kernels by what their release says: from 6.11 on, until the correction of each branch. */
static int is_affected(void)
{
	unsigned int major, minor, patch = 0;
	struct utsname system;

	assert_int_equal(uname(&system), 0);
	assert_true(sscanf(system.release, "%u.%u.%u", &major, &minor, &patch) >= 2);
	if (major != 6)
		return 0;
	return minor == 11 || (minor == 12 && patch < 14) || (minor == 13 && patch < 3);
}

static void test_this_kernel_is_what_its_version_says(void **state)
{
	(void)state;
#ifdef __x86_64__
	assert_int_equal(seccomp_trial(), is_affected());
#else
	assert_int_equal(seccomp_trial(), 0);
#endif
}

/*
 * The trial, by somebody who is under a filter already: one that kills or gives a call that error.
 * What it says, plus 100.
 */
static int trial_under_filter(long number, unsigned int action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = {sizeof(code) / sizeof(*code), code};
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
			_exit(99);
		_exit(100 + (number == URETPROBE ? seccomp_trial() : seccomp_trial_of(number)));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status) - 100;
}

static void test_it_is_right_under_a_filter_of_ones_own(void **state)
{
	static const unsigned int actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_TRAP,
					       SECCOMP_RET_ERRNO | EPERM,
					       SECCOMP_RET_ERRNO | ENOSYS};

	(void)state;
	assert_int_equal(trial_under_filter(SYS_getppid, SECCOMP_RET_KILL_PROCESS), 1);
	assert_int_equal(trial_under_filter(SYS_getppid, SECCOMP_RET_ERRNO | EPERM), 1);
	assert_int_equal(trial_under_filter(SYS_getppid, SECCOMP_RET_ERRNO | ENOSYS), -ENOSYS);
#ifdef __x86_64__
	/* On a kernel that lacks the call, too, where such a filter is asked about it. */
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++)
		assert_int_equal(trial_under_filter(URETPROBE, actions[i]), is_affected());
#endif
}

static void test_no_child_is_left(void **state)
{
	(void)state;
	assert_true(seccomp_trial_of(SYS_getppid) >= 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filters_are_asked_about_an_ordinary_call),
		cmocka_unit_test(test_a_call_that_the_kernel_lacks_is_no_danger),
		cmocka_unit_test(test_this_kernel_is_what_its_version_says),
		cmocka_unit_test(test_it_is_right_under_a_filter_of_ones_own),
		cmocka_unit_test(test_no_child_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
