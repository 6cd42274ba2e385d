/* CPython in this process, as far as it looks so: what its code objects are called, and what is none. */
#include "scratch.h"

#include "target/process.h"
#include "target/python.h"

#include <dlfcn.h>
#include <sys/mman.h>

#define SEED 7

/* As Include/internal/pycore_runtime.h of 3.13 has it: what is not looked at is 0. */
#define DEBUG_OFFSETS(cookie, free_threaded)                                                       \
	"unsigned long _PyRuntime[100] = {" cookie ", 0x030d00f0, " free_threaded ", "             \
	"[5] = 632, [8] = 7264, [9] = 7344, [21] = 8, [23] = 72, [24] = 152, [29] = 8, 0, 56, "    \
	"[33] = 70, [35] = 112, 120, 128, 136, 68, [43] = 200, [45] = 8, [70] = 16, 32, "          \
	"[73] = 32, 16, 40};"
#define COOKIE "0x7970677562656478"

/* A library that has what an interpreter exports. */
static void *load(const char *name, const char *version, const char *runtime)
{
	void *library;

	write_text("python.c", runtime);
	run("{ echo 'const unsigned long Py_Version = %s; long PyCode_Type[50] = {1};'; cat "
	    "python.c; } "
	    ">library.c && gcc -shared -fPIC -o %s library.c",
	    version, name);
	library = dlopen(in_scratch(name), RTLD_NOW);
	assert_non_null(library);
	return library;
}

struct fixture {
	void *library;
	struct process *process;
	struct python *python;
	const struct python_target *target;
	uint64_t type; /* address of PyCode_Type */
};

static struct fixture open_fixture(const char *name, const char *version, const char *runtime)
{
	struct fixture f = {.library = load(name, version, runtime)};

	assert_int_equal(process_open(getpid(), &f.process), 0);
	assert_int_equal(python_look(f.process, &f.python), 0);
	f.target = python_target(f.python);
	f.type = (uintptr_t)dlsym(f.library, "PyCode_Type");
	return f;
}

static void close_fixture(struct fixture *f)
{
	python_free(f->python);
	process_free(f->process);
	dlclose(f->library);
}

#define RUNTIME_OF_OLD "long _PyRuntime[100] = {1};"

static struct fixture python_3_12(void)
{
	struct fixture f = open_fixture("python312.so", "0x030c01f0", RUNTIME_OF_OLD);

	assert_int_equal(f.target->runtime, (uintptr_t)dlsym(f.library, "_PyRuntime"));
	return f;
}

/* --- versions --- */

static void known_versions_have_their_offsets(void **state)
{
	struct fixture f;

	(void)state;
	f = open_fixture("python311.so", "0x030b07f0", RUNTIME_OF_OLD);
	assert_int_equal(f.target->runtime, (uintptr_t)dlsym(f.library, "_PyRuntime"));
	assert_int_equal(f.target->code_start, 184);
	close_fixture(&f);
	f = python_3_12();
	assert_int_equal(f.target->code_start, 192);
	close_fixture(&f);
	f = open_fixture("python313.so", "0x030d00f0", DEBUG_OFFSETS(COOKIE, "0"));
	assert_int_equal(f.target->runtime, (uintptr_t)dlsym(f.library, "_PyRuntime"));
	assert_int_equal(f.target->interpreters, 632);
	assert_int_equal(f.target->interpreter_next, 7264);
	assert_int_equal(f.target->interpreter_threads, 7344);
	assert_int_equal(f.target->thread_next, 8);
	assert_int_equal(f.target->thread_frame, 72);
	assert_int_equal(f.target->thread_id, 152);
	assert_int_equal(f.target->frame_previous, 8);
	assert_int_equal(f.target->frame_code, 0);
	assert_int_equal(f.target->frame_instruction, 56);
	assert_int_equal(f.target->frame_owner, 70);
	assert_int_equal(f.target->code_start, 200);
	assert_int_equal(f.target->code_identity, 128);
	assert_int_equal(f.target->c_frames, 0);
	close_fixture(&f);
}

static void other_versions_have_none(void **state)
{
	static const struct {
		const char *name, *version, *runtime;
	} cases[] = {
		{"python310.so", "0x030a00f0", RUNTIME_OF_OLD},
		{"python314.so", "0x030e00f0", RUNTIME_OF_OLD},
		{"cookie.so", "0x030d00f0", RUNTIME_OF_OLD},
		{"threaded.so", "0x030d00f0", DEBUG_OFFSETS(COOKIE, "1")},
		{"nothing.so", "0x030d00f0", "long _PyRuntime[100];"}, /* not in the file */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fixture f = open_fixture(cases[i].name, cases[i].version, cases[i].runtime);

		assert_int_equal(f.target->runtime, 0);
		close_fixture(&f);
	}
}

/* --- code objects --- */

/* A str of 3.12. */
struct text {
	uint64_t object[2], length, hash;
	uint32_t state;
	uint8_t data[64]; /* ASCII from here on, other texts 16 bytes further */
} __attribute__((packed));
_Static_assert(offsetof(struct text, data) == 36, "PyASCIIObject, but for 4 bytes");

struct bytes {
	uint64_t object[2], size, hash;
	uint8_t data[64];
};

struct code_object {
	uint64_t count, type;
	uint8_t unused[52];
	uint32_t first_line;
	uint64_t unused_too[5];
	const void *file, *name, *qualified_name;
	const struct bytes *lines;
	uint8_t rest[100];
};
_Static_assert(offsetof(struct code_object, first_line) == 68, "3.12");
_Static_assert(offsetof(struct code_object, file) == 112, "3.12");

static struct text file = {.length = 4, .state = 1 << 2 | 1 << 5 | 1 << 6, .data = "....a.py"};
static struct text name = {.length = 6, .state = 1 << 2 | 1 << 5 | 1 << 6, .data = "....Shop.f"};
static struct bytes lines;
static struct code_object *code;

static void make_code(const struct fixture *f)
{
	if (!code)
		code = aligned_alloc(16, (sizeof(*code) + 15) / 16 * 16);
	assert_non_null(code);
	memset(code, 0, sizeof(*code));
	code->type = f->type;
	code->first_line = 10;
	code->file = &file;
	code->qualified_name = &name;
	code->lines = &lines;
	lines.size = 0;
}

/* What a stack of a C frame and the code object resolves to; its frame, or 0. */
static uint64_t resolve(const struct fixture *f, const void *at, uint32_t unit, uint64_t wrong)
{
	struct stack stack = {
		.frame_count = 2,
		.frames = {0x400123, FRAME_PYTHON | (uintptr_t)at >> 4 << PYTHON_UNIT_BITS | unit},
	};
	const uint64_t packed = stack.frames[1];
	uint64_t hash = stack_mix(stack_mix(SEED, 0x400123), packed);

	hash = stack_mix(hash, (uintptr_t)code->qualified_name ^ wrong);
	hash = stack_mix(hash, (uintptr_t)code->lines);
	if (!python_resolve(f->python, f->process, SEED, stack_key(hash), &stack)) {
		assert_int_equal(stack.frames[1], packed);
		return 0;
	}
	assert_int_equal(stack.frames[0], 0x400123);
	return stack.frames[1];
}

static struct python_function function_of(const struct fixture *f, uint32_t unit)
{
	struct python_function function;
	uint64_t frame = resolve(f, code, unit, 0);

	assert_true(frame & FRAME_PYTHON_KNOWN);
	assert_true(python_name(f->python, frame, &function));
	assert_int_equal(python_address(f->python, frame), (uintptr_t)code + 192 + 2 * unit);
	return function;
}

static void a_code_object_has_its_name(void **state)
{
	struct fixture f = python_3_12();
	struct python_function function;

	(void)state;
	make_code(&f);
	function = function_of(&f, 0);
	assert_string_equal(function.name, "Shop.f");
	assert_string_equal(function.file, "a.py");
	assert_int_equal(function.first_line, 10);
	assert_int_equal(function.line, 0); /* there is no table */
	assert_int_equal(python_count(f.python), 1);
	function_of(&f, 5);
	assert_int_equal(python_count(f.python), 1);
	assert_false(python_name(f.python, FRAME_PYTHON | 5, &function));
	assert_false(python_name(
		f.python, FRAME_PYTHON | FRAME_PYTHON_KNOWN | 1 << PYTHON_UNIT_BITS, &function));
	close_fixture(&f);
}

static void one_that_has_become_another_has_none(void **state)
{
	struct fixture f = python_3_12();
	struct text other = {.length = 1, .state = 1 << 2 | 1 << 5 | 1 << 6, .data = "....g"};

	(void)state;
	make_code(&f);
	assert_int_equal(resolve(&f, code, 0, 8), 0); /* the kernel side saw something else */
	assert_int_equal(python_count(f.python), 0);
	assert_string_equal(function_of(&f, 0).name, "Shop.f");
	/* Its place is used again: the old name stays with the old stacks. */
	code->qualified_name = &other;
	assert_string_equal(function_of(&f, 0).name, "g");
	assert_int_equal(python_count(f.python), 2);
	close_fixture(&f);
}

static void what_is_no_code_object_has_none(void **state)
{
	struct fixture f = python_3_12();
	struct text text = name;

	(void)state;
	make_code(&f);
	code->type = f.type + 8;
	assert_int_equal(resolve(&f, code, 0, 0), 0);
	make_code(&f);
	code->file = (const void *)8;
	assert_int_equal(resolve(&f, code, 0, 0), 0);
	make_code(&f);
	code->qualified_name = (const void *)UINTPTR_MAX;
	assert_int_equal(resolve(&f, code, 0, 0), 0);
	make_code(&f);
	code->qualified_name = &text;
	text.length = 0;
	assert_int_equal(resolve(&f, code, 0, 0), 0);
	text.length = 6;
	text.state = 1 << 2; /* not compact */
	assert_int_equal(resolve(&f, code, 0, 0), 0);
	text.state = 3 << 2 | 1 << 5; /* three bytes a character */
	assert_int_equal(resolve(&f, code, 0, 0), 0);
	assert_int_equal(resolve(&f, (void *)0x10, 0, 0), 0);
	close_fixture(&f);
}

/* Three kinds of texts, of a snowman: "☃", and long ones. */
static void names_are_utf8_of_some_length(void **state)
{
	struct fixture f = python_3_12();
	struct text text = {.length = 2, .state = 2 << 2 | 1 << 5};
	struct {
		uint64_t object[2], length, hash;
		uint32_t state;
		uint8_t data[5000];
	} __attribute__((packed)) *large = calloc(1, sizeof(*large));

	(void)state;
	assert_non_null(large);
	make_code(&f);
	code->qualified_name = &text;
	memcpy(text.data + 20, (const uint16_t[]){'a', 0x2603}, 4);
	assert_string_equal(function_of(&f, 0).name, "a\xe2\x98\x83");
	close_fixture(&f);
	f = python_3_12();
	make_code(&f);
	code->qualified_name = &text;
	text.state = 4 << 2 | 1 << 5;
	memcpy(text.data + 20, (const uint32_t[]){0x1f40d, 0xe9}, 8);
	assert_string_equal(function_of(&f, 0).name, "\xf0\x9f\x90\x8d\xc3\xa9");
	large->length = UINT64_MAX;
	large->state = 1 << 2 | 1 << 5 | 1 << 6;
	memset(large->data, 'x', sizeof(large->data));
	code->qualified_name = large;
	assert_int_equal(strlen(function_of(&f, 0).name), 1024);
	free(large);
	close_fixture(&f);
}

/* By Objects/locations.md of CPython: a byte that says the form and for how many units, and more. */
static void lines_are_those_of_the_table(void **state)
{
	static const uint8_t table[] = {
		0x80 | 13 << 3 | 0, 0x02,		       /* unit 0: +1: line 11 */
		0x80 | 0 << 3 | 1,  0x12,		       /* 1, 2: the same */
		0x80 | 10 << 3 | 0, 1,	  2,		       /* 3: the same */
		0x80 | 12 << 3 | 7, 1,	  2,		       /* 4 to 11: +2: 13 */
		0x80 | 14 << 3 | 0, 0x05, 0x01, 0x41, 0x01, 3, /* 12: -2: 11 */
		0x80 | 15 << 3 | 0,			       /* 13: none */
		0x80 | 14 << 3 | 0, 0x50, 0x1f, 0x00, 1,    1, /* 14: +1000: 1011 */
		0x80 | 13 << 3 | 0, 0x42,		       /* 15: cut off */
	};
	static const uint32_t expected[] = {11, 11, 11, 11, 13, 13,   13, 13, 13,
					    13, 13, 13, 11, 0,	1011, 0,  0};
	struct fixture f = python_3_12();

	(void)state;
	make_code(&f);
	memcpy(lines.data, table, sizeof(table));
	lines.size = sizeof(table);
	for (uint32_t unit = 0; unit < sizeof(expected) / sizeof(*expected); unit++)
		assert_int_equal(function_of(&f, unit).line, expected[unit]);
	close_fixture(&f);
}

static void wild_tables_do_no_harm(void **state)
{
	uint64_t seed = 1;

	(void)state;
	for (unsigned int round = 0; round < 200; round++) {
		struct fixture f = {0};
		static struct fixture shared;

		if (!shared.python)
			shared = python_3_12();
		f = shared;
		make_code(&f);
		for (size_t i = 0; i < sizeof(lines.data); i++)
			lines.data[i] = (uint8_t)noise(&seed);
		lines.size = round % 5 ? sizeof(lines.data) : noise(&seed);
		/* Each a code object of its own. */
		code->qualified_name = &name;
		f.python = NULL;
		assert_int_equal(python_look(f.process, &f.python), 0);
		for (uint32_t unit = 0; unit < 100; unit++)
			function_of(&f, unit);
		python_free(f.python);
		if (round == 199)
			close_fixture(&shared);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_versions_have_their_offsets),
		cmocka_unit_test(other_versions_have_none),
		cmocka_unit_test(a_code_object_has_its_name),
		cmocka_unit_test(one_that_has_become_another_has_none),
		cmocka_unit_test(what_is_no_code_object_has_none),
		cmocka_unit_test(names_are_utf8_of_some_length),
		cmocka_unit_test(lines_are_those_of_the_table),
		cmocka_unit_test(wild_tables_do_no_harm),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
