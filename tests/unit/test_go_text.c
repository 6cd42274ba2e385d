/*
 * Which functions are Go's, in every shape that Go's linker and the system's give an executable, with
 * symbols and without: compared with what nm says of the one that has them.
 */
#include "scratch.h"

#include "binary/allocators.h"
#include "binary/code_ranges.h"
#include "binary/go_text.h"

#include <errno.h>

static const char pure[] = "package main\n"
			   "import _ \"unsafe\"\n"
			   "//go:linkname allocate malloc\n"
			   "//go:noinline\n"
			   "func allocate(n int) []byte { return make([]byte, n) }\n"
			   "//go:linkname release free\n"
			   "//go:noinline\n"
			   "func release(b []byte) int { return len(b) }\n"
			   "func main() { println(release(allocate(9))) }\n";

/* C code with an allocator of its own, linked into a Go program. */
static const char mixed[] = "package main\n"
			    "/*\n"
			    "#include <stddef.h>\n"
			    "static char arena[1 << 16];\n"
			    "static size_t used;\n"
			    "__attribute__((noipa)) void *malloc(size_t n)\n"
			    "{ used += (n + 15) & ~15; return arena + used - ((n + 15) & ~15); }\n"
			    "__attribute__((noipa)) void free(void *p) { (void)p; }\n"
			    "__attribute__((noipa)) void *in_c(size_t n) { return malloc(n); }\n"
			    "*/\n"
			    "import \"C\"\n"
			    "func main() { println(C.in_c(1) != nil) }\n";

static bool has_go;

/* The compiler's cache stays in the build folder, beside ours: what Go has to make anew takes time. */
static void go_build(const char *options, const char *source, const char *name)
{
	char here[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", here, sizeof(here) - 1);

	assert_true(n > 0);
	here[n] = '\0';
	*strrchr(here, '/') = '\0';
	run("GOCACHE=%s/../go-cache GOPATH=%s/../go GOFLAGS= GO111MODULE=off CGO_CFLAGS='-O2 "
	    "-fno-builtin' go build %s -o %s %s && strip -o %s.stripped %s",
	    here, here, options, name, source, name, name);
}

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	has_go = have("go");
	if (!has_go)
		return 0;
	write_text("pure.go", pure);
	write_text("mixed.go", mixed);
	go_build("", "pure.go", "pure");
	go_build("-buildmode=pie", "pure.go", "pure_pie");
	go_build("", "mixed.go", "mixed");
	go_build("-buildmode=pie", "mixed.go", "mixed_pie");
	write_text("plain.c", "int main(void) { return 0; }\n");
	run("gcc -o plain plain.c");
	return 0;
}

static const char *const programs[] = {"pure", "pure_pie", "mixed", "mixed_pie"};
#define PROGRAM_COUNT (sizeof(programs) / sizeof(*programs))

struct go_range {
	unsigned long start, end;
};

static FILE *list_functions(const char *program)
{
	FILE *f;

	run("nm -S --defined-only %s | grep -i ' t ' > functions", program);
	f = fopen(in_scratch("functions"), "r");
	assert_non_null(f);
	return f;
}

static struct go_range go_range(const char *program)
{
	FILE *f = list_functions(program);
	struct go_range range = {0};
	unsigned long address;
	char line[4096];

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx", &address) == 1 && strstr(line, " runtime.text\n"))
			range.start = address;
		else if (sscanf(line, "%lx", &address) == 1 && strstr(line, " runtime.etext\n"))
			range.end = address;
	}
	fclose(f);
	assert_true(range.start && range.end > range.start);
	return range;
}

/* Every function of the program that has a size, as found in `name`: the same, or stripped. */
static void check_functions(const char *program, const char *name)
{
	struct go_range range = go_range(program);
	struct image *image = open_image(name);
	struct code_ranges ranges = {0};
	struct go_text text;
	size_t go = 0, c = 0;
	char line[4096];
	FILE *f;

	assert_int_equal(code_ranges_load(image, &ranges), 0);
	assert_int_equal(go_text_load(image, &ranges, &text), 0);
	f = list_functions(program);
	while (fgets(line, sizeof(line), f)) {
		unsigned long address, size;
		bool expected;

		if (sscanf(line, "%lx %lx %*c %*s", &address, &size) != 2)
			continue;
		expected = address >= range.start && address < range.end;
		if (go_text_holds(&text, address) != expected)
			fail_msg("%s: %s", name, line);
		go += expected;
		c += !expected;
	}
	fclose(f);
	assert_true(go > 500);
	assert_true(strncmp(name, "mixed", 5) ? c == 0 : c > 5);
	code_ranges_deinit(&ranges);
	image_free(image);
}

static void functions_are_told_apart(void **state)
{
	(void)state;
	if (!has_go)
		skip();
	for (size_t i = 0; i < PROGRAM_COUNT; i++)
		check_functions(programs[i], programs[i]);
}

static void functions_are_told_apart_without_symbols(void **state)
{
	(void)state;
	if (!has_go)
		skip();
	for (size_t i = 0; i < PROGRAM_COUNT; i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s.stripped", programs[i]);
		check_functions(programs[i], name);
	}
}

static void go_functions_of_an_allocators_names_are_no_allocator(void **state)
{
	struct allocator *allocator = NULL;
	struct image *image;

	(void)state;
	if (!has_go)
		skip();
	image = open_image("pure");
	assert_int_equal(allocator_find(image, NULL, NULL, &allocator), -ENOENT);
	image_free(image);
}

static void c_allocator_in_a_go_program_is_one(void **state)
{
	static const char *const names[] = {"mixed", "mixed.stripped", "mixed_pie",
					    "mixed_pie.stripped"};

	(void)state;
	if (!has_go)
		skip();
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct allocator *allocator = NULL;
		struct image *image = open_image(names[i]);

		assert_int_equal(allocator_find(image, NULL, NULL, &allocator), 0);
		assert_int_equal(allocator->function_count, 2);
		allocator_free(allocator);
		image_free(image);
	}
}

static void program_without_go_has_none(void **state)
{
	struct code_ranges ranges = {0};
	struct image *image;
	struct go_text text;

	(void)state;
	if (!has_go)
		skip();
	image = open_image("plain");
	assert_false(go_text_exists(image));
	assert_int_equal(code_ranges_load(image, &ranges), 0);
	assert_int_equal(go_text_load(image, &ranges, &text), 0);
	assert_true(ranges.count > 0);
	for (size_t i = 0; i < ranges.count; i++)
		assert_false(go_text_holds(&text, ranges.items[i].start));
	assert_false(go_text_holds(&text, 0x123));
	code_ranges_deinit(&ranges);
	image_free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(functions_are_told_apart),
		cmocka_unit_test(functions_are_told_apart_without_symbols),
		cmocka_unit_test(go_functions_of_an_allocators_names_are_no_allocator),
		cmocka_unit_test(c_allocator_in_a_go_program_is_one),
		cmocka_unit_test(program_without_go_has_none),
	};

	return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
