/* --allocator and --symbol: what the texts mean, and which mean nothing. */
#include "extras.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void a_prefix_is_what_follows_the_last_colon(void **state)
{
	struct allocator_extras extras = {0};

	(void)state;
	assert_int_equal(extras_add_prefix(&extras, "/opt/lib/libpool.so:pool_"), 0);
	assert_int_equal(extras_add_prefix(&extras, "a:b:c"), 0);
	assert_int_equal(extras.prefix_count, 2);
	assert_string_equal(extras.prefixes[0].path, "/opt/lib/libpool.so");
	assert_string_equal(extras.prefixes[0].prefix, "pool_");
	assert_string_equal(extras.prefixes[1].path, "a:b");
	assert_string_equal(extras.prefixes[1].prefix, "c");
	extras_deinit(&extras);
}

static void a_symbol_has_a_kind_and_its_arguments(void **state)
{
	static const struct {
		const char *text, *name;
		enum allocator_shape shape;
		uint8_t arguments[OPERANDS_MAX];
		bool throws;
	} expected[] = {
		{"alloc:get", "get", SHAPE_MALLOC, {0}, false},
		{"alloc:get:arg2", "get", SHAPE_MALLOC, {1}, false},
		{"calloc:f", "f", SHAPE_CALLOC, {0, 1}, false},
		{"calloc:f:arg3:arg1", "f", SHAPE_CALLOC, {2, 0}, false},
		{"realloc:f:arg2:arg6", "f", SHAPE_REALLOC, {1, 5}, false},
		{"reallocarray:f", "f", SHAPE_REALLOCARRAY, {0, 1, 2}, false},
		{"reallocarray:f:arg4:arg3:arg2", "f", SHAPE_REALLOCARRAY, {3, 2, 1}, false},
		{"posix_memalign:f:arg1:arg3", "f", SHAPE_POSIX_MEMALIGN, {0, 2}, false},
		{"free:put", "put", SHAPE_FREE, {0}, false},
		/* C++ and Rust may throw where they allocate. */
		{"alloc:_ZN4Pool3getEm:arg2", "_ZN4Pool3getEm", SHAPE_MALLOC, {1}, true},
		{"alloc:_RNvC2v08pool_get", "_RNvC2v08pool_get", SHAPE_MALLOC, {0}, true},
		{"free:_ZN4Pool3putEPv:arg2", "_ZN4Pool3putEPv", SHAPE_FREE, {1}, false},
		/* Whatever else is in it belongs to the name. */
		{"alloc:a:b", "a:b", SHAPE_MALLOC, {0}, false},
		{"alloc:\n", "\n", SHAPE_MALLOC, {0}, false},
	};
	struct allocator_extras extras = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
		const struct family_function *function;

		assert_int_equal(extras_add_symbol(&extras, expected[i].text), 0);
		function = &extras.functions[i];
		assert_string_equal(function->name, expected[i].name);
		assert_int_equal(function->shape, expected[i].shape);
		assert_int_equal(function->throws, expected[i].throws);
		assert_memory_equal(function->arguments, expected[i].arguments, OPERANDS_MAX);
	}
	extras_deinit(&extras);
}

static void what_means_nothing_is_refused(void **state)
{
	static const char *const prefixes[] = {"", ":", "a", "a:", ":a"};
	static const char *const symbols[] = {"",
					      ":",
					      "alloc",
					      "alloc:",
					      ":f",
					      "malloc:f",
					      "alloc:f:arg0",
					      "alloc:f:arg7",
					      "alloc:f:arg1x",
					      "alloc:f:arg",
					      "alloc::arg1",
					      "calloc:f:arg1",
					      "alloc:f:argh",
					      "alloc:f:arg1:arg2",
					      "free:f:arg1:arg2",
					      "calloc:f:arg9:arg1"};
	struct allocator_extras extras = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
		assert_int_equal(extras_add_prefix(&extras, prefixes[i]), -EINVAL);
	for (size_t i = 0; i < sizeof(symbols) / sizeof(*symbols); i++)
		assert_int_equal(extras_add_symbol(&extras, symbols[i]), -EINVAL);
	assert_int_equal(extras.prefix_count, 0);
	assert_int_equal(extras.function_count, 0);
	extras_deinit(&extras);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prefix_is_what_follows_the_last_colon),
		cmocka_unit_test(a_symbol_has_a_kind_and_its_arguments),
		cmocka_unit_test(what_means_nothing_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
