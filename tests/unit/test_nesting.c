/*
 * How the functions of an allocator call each other, in code of a few instructions each: what is left
 * to others, where one hands over, and where that must not be where a call is counted.
 */
#include "pieces.h"
#include "scratch.h"

#include "binary/allocators.h"
#include "binary/probe_site.h"
#include "util/vec.h"

#include <errno.h>

/* What is known of a library that is made of these; to be freed. */
static struct allocator *find_in(const struct piece *pieces, size_t count,
				 const struct allocator_extras *extras)
{
	struct allocator *allocator = NULL;
	struct image *image;

	write_text("code.s", pieces_text(pieces, count));
	run("gcc -shared -nostdlib code.s -o code.so");
	image = open_image("code.so");
	assert_int_equal(allocator_find(image, NULL, extras, &allocator), 0);
	image_free(image);
	return allocator;
}
#define FIND_WITH(extras, ...)                                                                     \
	find_in((const struct piece[]){__VA_ARGS__},                                               \
		sizeof((const struct piece[]){__VA_ARGS__}) / sizeof(struct piece), extras)
#define FIND(...) FIND_WITH(NULL, __VA_ARGS__)

/* NULL: it is not probed. */
static const struct allocator_function *probed(const struct allocator *allocator, const char *name)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		if (!strcmp(allocator->functions[i].name, name))
			return &allocator->functions[i];
	}
	return NULL;
}

static const char *reason_of(const struct allocator *allocator, const char *name)
{
	vec_for_each(left_out, &allocator->left_out) {
		if (!strcmp(left_out->name, name))
			return left_out->reason;
	}
	return "";
}

static void assert_left_to_another(const struct allocator *allocator, const char *name)
{
	assert_null(probed(allocator, name));
	assert_non_null(strstr(reason_of(allocator, name), "seen in the probed function"));
}

static uint64_t site_of(const struct allocator *allocator, const char *name)
{
	const struct allocator_function *function = probed(allocator, name);

	assert_non_null(function);
	return function->site - function->vaddr;
}

/* How it frees the old block is not seen in malloc. */
static void a_realloc_that_always_calls_malloc_is_probed(void **state)
{
	static const struct piece copies = {
		"realloc",
		"push %rbx; call malloc@PLT; push %rax; call .Lrelease; pop %rax; pop %rbx; ret",
		FUNCTION};
	struct allocator *allocator;

	(void)state;
	allocator = FIND(plain_malloc, plain_free, copies, {"release", "ret", LABEL},
			 {"rallocx", "xor %edx, %edx; jmp realloc@PLT", FUNCTION},
			 {"calloc", "push %rbx; call malloc@PLT; pop %rbx; ret", FUNCTION});
	assert_non_null(probed(allocator, "realloc"));
	assert_left_to_another(allocator, "rallocx");
	assert_left_to_another(allocator, "calloc");
	allocator_free(allocator);
}

/* The old block is put back where realloc hands over: so it must not be freed on that way. */
static void a_realloc_does_not_hand_over_to_what_only_allocates(void **state)
{
	struct allocator *allocator;

	(void)state;
	allocator = FIND(
		plain_malloc, plain_free,
		{"realloc", "test %rdi, %rdi; je malloc@PLT; js 1f; jmp .Lcopy; 1: ret", FUNCTION},
		{"valloc", "test %rdi, %rdi; js 1f; jmp .Lcopy; 1: ret", FUNCTION},
		{"copy", "push %rbx; call malloc@PLT; pop %rbx; ret", LABEL});
	/* What both jump to belongs to realloc: malloc is called from within it. */
	assert_int_equal(allocator->nested_return_count, 1);
	assert_int_equal(allocator->handovers.count, 2);
	assert_int_equal(allocator->handovers.items[0].condition, 4);
	assert_int_equal(allocator->handovers.items[0].vaddr,
			 probed(allocator, "realloc")->vaddr + 3);
	assert_true(allocator->handovers.items[1].vaddr > probed(allocator, "valloc")->vaddr);
	allocator_free(allocator);
}

/* Two probes at one instruction would run in an order that the kernel chooses. */
static void a_site_is_not_a_jump_that_hands_over(void **state)
{
	struct allocator *allocator;

	(void)state;
	allocator =
		FIND(plain_malloc, plain_free,
		     {"realloc", "mov %rdi, %rax; test %rax, %rax; je malloc@PLT; ret", FUNCTION},
		     {"calloc", "test %rdi, %rdi; js 1f; 1: ret", FUNCTION});
	assert_int_equal(allocator->handovers.count, 1);
	assert_int_equal(allocator->handovers.items[0].vaddr,
			 probed(allocator, "realloc")->vaddr + 6);
	assert_int_equal(site_of(allocator, "realloc"), 0);
	assert_false(probed(allocator, "realloc")->emulated);
	assert_int_equal(probed(allocator, "realloc")->registers[0], PROBE_X86_RDI);
	assert_int_equal(site_of(allocator, "calloc"), 3);
	allocator_free(allocator);
}

/* The user's own are probed whatever they call; but one that is a jump has no place for it. */
static void a_function_of_the_users_that_is_a_jump_is_left_to_where_it_leads(void **state)
{
	struct family_function functions[] = {
		{.name = "get", .shape = SHAPE_MALLOC, .arguments = {0}},
		{.name = "take", .shape = SHAPE_MALLOC, .arguments = {0}},
		{.name = "put", .shape = SHAPE_FREE, .arguments = {0}},
	};
	const struct allocator_extras extras = {.functions = functions, .function_count = 3};
	struct allocator *allocator;

	(void)state;
	allocator =
		FIND_WITH(&extras, plain_malloc, plain_free, {"get", "jmp malloc@PLT", FUNCTION},
			  {"put", "jmp free@PLT", FUNCTION},
			  {"take", "push %rbx; call malloc@PLT; pop %rbx; ret", FUNCTION});
	assert_left_to_another(allocator, "get");
	assert_non_null(probed(allocator, "put"));
	assert_non_null(probed(allocator, "take"));
	assert_int_equal(allocator->nested_return_count, 1);
	allocator_free(allocator);
}

static void a_function_that_runs_on_into_another_is_not_probed_there(void **state)
{
	struct family_function get = {.name = "get", .shape = SHAPE_MALLOC, .arguments = {0}};
	const struct allocator_extras extras = {.functions = &get, .function_count = 1};
	struct allocator *allocator;

	(void)state;
	/* calloc has no end of its own; valloc, whose size takes memalign in, has one. */
	allocator = FIND({"calloc", "imul %rsi, %rdi", FUNCTION}, {"malloc", "nop; ret", FUNCTION},
			 plain_free,
			 {NULL,
			  ".globl valloc, memalign\n"
			  ".type valloc, @function; .type memalign, @function\n"
			  "valloc: mov %rdi, %rsi; mov $4096, %edi\n"
			  "memalign: test %rdi, %rdi; js 1f; 1: ret\n"
			  ".size valloc, . - valloc; .size memalign, . - memalign",
			  TEXT});
	assert_left_to_another(allocator, "calloc");
	assert_left_to_another(allocator, "valloc");
	assert_int_equal(site_of(allocator, "memalign"), 3);
	allocator_free(allocator);

	/* One that is not left out: the place that they share counts for the other only. */
	allocator =
		FIND_WITH(&extras, plain_malloc, plain_free,
			  {NULL,
			   ".globl get, memalign; .type get, @function; .type memalign, @function\n"
			   "get: mov %rdi, %rsi; memalign: test %rdi, %rdi; js 1f; 1: ret\n"
			   ".size get, . - get; .size memalign, . - memalign",
			   TEXT});
	assert_int_equal(site_of(allocator, "get"), 0);
	assert_int_equal(site_of(allocator, "memalign"), 3);
	allocator_free(allocator);
}

/* What may throw is not probed in each process: what may not must not rely on it. */
static void what_may_not_throw_is_not_left_to_what_may(void **state)
{
	static const struct piece throwing = {
		"_Znwm", "test %rdi, %rdi; js 1f; call *.Lthrow(%rip); 1: ret; .Lthrow: .quad 0",
		FUNCTION};
	struct allocator *allocator;

	(void)state;
	allocator =
		FIND(plain_malloc, plain_free, throwing, {"_Znam", "jmp _Znwm@PLT", FUNCTION},
		     {"_ZnwmRKSt9nothrow_t", "push %rbx; call _Znwm@PLT; pop %rbx; ret", FUNCTION},
		     {"_ZnamRKSt9nothrow_t", "test %rdi, %rdi; js _Znwm@PLT; ret", FUNCTION});
	assert_left_to_another(allocator, "_Znam");
	assert_non_null(probed(allocator, "_ZnwmRKSt9nothrow_t"));
	/* Where it is probed the call is nested, and the jump hands over: only there. */
	assert_int_equal(allocator->handovers.count, 1);
	assert_true(allocator->handovers.items[0].throws);
	assert_true(probed(allocator, "_Znwm")->throws);
	allocator_free(allocator);

	/* malloc cannot throw: what leaves it all to that is as good. */
	allocator =
		FIND(plain_malloc, plain_free,
		     {"_Znwm", "push %rbx; call malloc@PLT; pop %rbx; ret", FUNCTION},
		     {"_ZnwmRKSt9nothrow_t", "push %rbx; call _Znwm@PLT; pop %rbx; ret", FUNCTION});
	assert_left_to_another(allocator, "_Znwm");
	assert_left_to_another(allocator, "_ZnwmRKSt9nothrow_t");
	allocator_free(allocator);
}

/* rpmalloc's operator new is malloc, by another name: so it cannot throw. */
static void what_is_malloc_by_another_name_does_not_throw(void **state)
{
	struct family_function get = {.name = "get", .shape = SHAPE_MALLOC, .arguments = {0}};
	const struct allocator_extras extras = {.functions = &get, .function_count = 1};
	const struct piece
		names = {NULL,
			 ".globl malloc, _Znwm, get\n"
			 ".type malloc, @function; .type _Znwm, @function; .type get, @function\n"
			 "malloc: _Znwm: get: test %rdi, %rdi; js 1f; 1: ret",
			 TEXT},
		except = {NULL, ".section .gcc_except_table, \"a\"; .byte 0", TEXT};
	struct allocator *allocator;

	(void)state;
	allocator = FIND(names, plain_free, except);
	assert_false(probed(allocator, "malloc")->throws);
	allocator_free(allocator);
	allocator = FIND_WITH(&extras, names, plain_free, except);
	assert_false(probed(allocator, "get")->throws);
	allocator_free(allocator);
}

static void a_call_is_known_by_what_it_calls(void **state)
{
	struct allocator *allocator;
	size_t of_malloc = 0, left_out = 0, unknown = 0;

	(void)state;
	allocator = FIND(plain_malloc, plain_free,
			 {"calloc",
			  "js 1f; push %rbx; call malloc@PLT; call _Znwm@PLT; call *(%rax); pop "
			  "%rbx; 1: ret",
			  FUNCTION},
			 {"_Znwm", "jmp malloc@PLT", FUNCTION});
	assert_left_to_another(allocator, "_Znwm");
	for (size_t i = 0; i < allocator->nested_return_count; i++) {
		uint64_t callee = allocator->nested_returns[i].callee;

		of_malloc += callee == probed(allocator, "malloc")->vaddr;
		left_out += callee == CALLEE_LEFT_OUT;
		unknown += callee == 0;
	}
	assert_int_equal(allocator->nested_return_count, 3);
	assert_true(of_malloc == 1 && left_out == 1 && unknown == 1);
	allocator_free(allocator);
}

/* Their names tell nothing; that the image has a way to throw does. */
static void functions_of_the_users_may_throw_where_there_are_exceptions(void **state)
{
	struct family_function functions[] = {
		{.name = "get", .shape = SHAPE_MALLOC, .arguments = {0}},
		{.name = "also_get", .shape = SHAPE_MALLOC, .arguments = {0}},
		{.name = "put", .shape = SHAPE_FREE, .arguments = {0}},
	};
	const struct allocator_extras extras = {.functions = functions, .function_count = 3};
	const struct piece get = {"get", "test %rdi, %rdi; js 1f; 1: ret", FUNCTION},
			   other = {NULL, ".globl also_get; .set also_get, get", TEXT},
			   put = {"put", "ret", FUNCTION};
	struct allocator *allocator;

	(void)state;
	allocator = FIND_WITH(&extras, get, other, put);
	assert_false(allocator->functions[0].throws);
	/* Either of the two names, and the other is told of. */
	assert_int_equal(allocator->function_count, 2);
	assert_int_equal(allocator->left_out.count, 1);
	assert_non_null(strstr(allocator->left_out.items[0].reason, "another name"));
	allocator_free(allocator);

	allocator = FIND_WITH(&extras, get, put, {"thrower", "jmp __cxa_throw@PLT", FUNCTION});
	assert_true(probed(allocator, "get")->throws);
	assert_false(probed(allocator, "put")->throws);
	allocator_free(allocator);

	allocator = FIND_WITH(&extras, get, put,
			      {NULL, ".section .gcc_except_table, \"a\"; .byte 0", TEXT});
	assert_true(probed(allocator, "get")->throws);
	allocator_free(allocator);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_realloc_that_always_calls_malloc_is_probed),
		cmocka_unit_test(a_realloc_does_not_hand_over_to_what_only_allocates),
		cmocka_unit_test(a_site_is_not_a_jump_that_hands_over),
		cmocka_unit_test(a_function_of_the_users_that_is_a_jump_is_left_to_where_it_leads),
		cmocka_unit_test(a_function_that_runs_on_into_another_is_not_probed_there),
		cmocka_unit_test(what_may_not_throw_is_not_left_to_what_may),
		cmocka_unit_test(what_is_malloc_by_another_name_does_not_throw),
		cmocka_unit_test(a_call_is_known_by_what_it_calls),
		cmocka_unit_test(functions_of_the_users_may_throw_where_there_are_exceptions),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
