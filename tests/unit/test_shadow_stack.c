/* Shadow stacks, by what /proc says of a process: texts as kernels write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "target/shadow_stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BEFORE                                                                                     \
	"Name:\tserver\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4321\n"                         \
	"Seccomp:\t0\nSpeculation_Store_Bypass:\tthread vulnerable\n"
#define AFTER "voluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t0\n"

static void test_status_tells_of_a_shadow_stack(void **state)
{
	static const struct {
		const char *text;
		bool has;
	} cases[] = {
		{BEFORE AFTER, false}, /* no such processor, or before 6.6 */
		{BEFORE "x86_Thread_features:\t\nx86_Thread_features_locked:\t\n" AFTER, false},
		{BEFORE "x86_Thread_features:\tshstk \nx86_Thread_features_locked:\t\n" AFTER,
		 true},
		{BEFORE
		 "x86_Thread_features:\tshstk wrss \nx86_Thread_features_locked:\tshstk wrss "
		 "\n" AFTER,
		 true},
		{BEFORE "x86_Thread_features:\twrss shstk\n" AFTER, true},
		{BEFORE "x86_Thread_features:\tshstk", true},
		/* Locked is not enabled: a process may be barred from ever having one. */
		{BEFORE "x86_Thread_features:\t\nx86_Thread_features_locked:\tshstk wrss \n" AFTER,
		 false},
		{BEFORE "x86_Thread_features:\tshstk_other\n" AFTER, false},
		{BEFORE "x86_Thread_features:\twrss\nshstk\n" AFTER, false},
		/* A name is whatever a process likes; a newline in it is written as \n. */
		{"Name:\tx86_Thread_features:\tshstk\n" AFTER, false},
		{"Name:\t\\nx86_Thread_features:\tshstk\n" AFTER, false},
		{"", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		if (shadow_stack_in_status(cases[i].text) != cases[i].has)
			fail_msg("case %zu: %s", i, cases[i].text);
	}
}

/* A process in all the groups that there may be: they come before its features. */
static void test_groups_hide_no_shadow_stack(void **state)
{
	char path[] = "/tmp/alloctrace_status.XXXXXX";
	int fd = mkstemp(path);
	FILE *status = fd < 0 ? NULL : fdopen(fd, "w");

	(void)state;
	assert_non_null(status);
	fputs("Name:\tserver\nGroups:\t", status);
	for (unsigned int i = 0; i < 65536; i++)
		fprintf(status, "%u ", 4294901760U + i);
	fputs("\nx86_Thread_features:\tshstk \n" AFTER, status);
	assert_int_equal(fclose(status), 0);
	assert_true(shadow_stack_in_status_file(path));
	unlink(path);
	assert_false(shadow_stack_in_status_file(path));
}

static void test_cpuinfo_tells_that_there_may_be_one(void **state)
{
	(void)state;
	assert_true(shadow_stack_in_cpuinfo(
		"processor\t: 0\nflags\t\t: fpu vme user_shstk avx_vnni\nbugs\t\t: spectre_v1\n"));
	assert_true(shadow_stack_in_cpuinfo("flags\t\t: user_shstk\n"));
	/* The processor has them, and the kernel does not give them out. */
	assert_false(shadow_stack_in_cpuinfo("processor\t: 0\nflags\t\t: fpu shstk vme\n"));
	assert_false(
		shadow_stack_in_cpuinfo("processor\t: 0\nflags\t\t: fpu\nbugs\t\t: user_shstk\n"));
	assert_false(shadow_stack_in_cpuinfo(""));
}

static void test_process_without_one_is_no_danger(void **state)
{
	FILE *status = fopen("/proc/self/status", "re");
	char text[16384];

	(void)state;
	assert_non_null(status);
	text[fread(text, 1, sizeof(text) - 1, status)] = '\0';
	fclose(status);
	if (strstr(text, "\nx86_Thread_features:\tshstk"))
		skip();
	assert_false(shadow_stack_forbids_returns(getpid()));
	/* One that is gone is somebody else's to refuse. */
	assert_false(shadow_stack_forbids_returns(0x7ffffff0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status_tells_of_a_shadow_stack),
		cmocka_unit_test(test_groups_hide_no_shadow_stack),
		cmocka_unit_test(test_cpuinfo_tells_that_there_may_be_one),
		cmocka_unit_test(test_process_without_one_is_no_danger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
