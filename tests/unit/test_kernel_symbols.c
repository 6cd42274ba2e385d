/* The kernel's functions: in texts as kernels write them, and in the kernel that runs this. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "util/kernel_symbols.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NAME "shstk_update_last_frame"

static void test_functions_are_found_by_their_whole_name(void **state)
{
	static const struct {
		const char *text;
		bool found;
	} cases[] = {
		{"ffffffff810a3550 T shstk_update_last_frame\n", true},
		{"ffffffff810a3550 t shstk_update_last_frame", true},
		/* Addresses are hidden from some readers. */
		{"0000000000000000 T startup_64\n0000000000000000 A __per_cpu_start\n"
		 "0000000000000000 T shstk_update_last_frame\n0000000000000000 T shstk_free\n",
		 true},
		{"0000000000000000 T shstk_update_last_frame\t[module]\n", true},
		{"0000000000000000 T shstk_alloc_thread_stack\n0000000000000000 T shstk_free\n"
		 "0000000000000000 t arch_uretprobe_hijack_return_addr\n",
		 false},
		{"ffffffff810a3540 T __pfx_shstk_update_last_frame\n", false},
		{"ffffffff810a3540 T shstk_update_last_frame_of\n", false},
		{"ffffffff810a3540 d shstk_update_last_frame\n", false},
		{"shstk_update_last_frame\n", false},
		{"", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		FILE *kallsyms = fmemopen((void *)cases[i].text, strlen(cases[i].text) + 1, "r");

		assert_non_null(kallsyms);
		if (kernel_symbols_have(kallsyms, NAME) != cases[i].found)
			fail_msg("case %zu: %s", i, cases[i].text);
		fclose(kallsyms);
	}
}

static void test_functions_of_this_kernel(void **state)
{
	(void)state;
	if (access("/proc/kallsyms", R_OK))
		skip();
	assert_true(kernel_has_function("vfs_read"));
	assert_false(kernel_has_function("vfs_read_no_such"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_functions_are_found_by_their_whole_name),
		cmocka_unit_test(test_functions_of_this_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
