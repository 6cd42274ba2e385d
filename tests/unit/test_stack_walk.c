/*
 * The walk in user space, of this process: held against backtrace(), which unwinds by libgcc; and
 * with registers and stacks that no program has.
 */
#include "target/return_address.h"
#include "target/stack_walk.h"

#include <errno.h>
#include <execinfo.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <cmocka.h>

#define STACK_COPY   65536
#define RANDOM_WALKS 20000

static struct process *process;
static struct stack_walker *walker;
static _Alignas(8) uint8_t copy[STACK_COPY];
static struct stack_walk walked;
static void *expected[256];
static int expected_count;

/* As a sample has it: from sp on, as far as there is a stack; what sanitizers forbid is there, too. */
__attribute__((no_sanitize("address"))) static void copy_stack(struct stack_state *state,
							       size_t size)
{
	const uint8_t *end = (const uint8_t *)__builtin_frame_address(0) + STACK_COPY;
	extern char **environ; /* lies above all frames */

	if ((uintptr_t)end > (uintptr_t)environ)
		end = (const uint8_t *)environ;
	state->stack_size = (size_t)(end - (const uint8_t *)state->sp);
	if (state->stack_size > size)
		state->stack_size = size;
	state->stack_size &= ~(size_t)7;
	for (size_t at = 0; at < state->stack_size; at += 8)
		*(volatile uint64_t *)(copy + at) = *(const volatile uint64_t *)(state->sp + at);
	state->stack = copy;
}

static void read_state(const ucontext_t *context, struct stack_state *state)
{
#if defined(__x86_64__)
	state->pc = (uint64_t)context->uc_mcontext.gregs[REG_RIP];
	state->sp = (uint64_t)context->uc_mcontext.gregs[REG_RSP];
	state->fp = (uint64_t)context->uc_mcontext.gregs[REG_RBP];
#else
	state->pc = context->uc_mcontext.pc;
	state->sp = context->uc_mcontext.sp;
	state->fp = context->uc_mcontext.regs[29];
	state->lr = context->uc_mcontext.regs[30];
#endif
}

/* What is done to the copy of the stack, and said of it, before the walk. NULL: nothing. */
static void (*change)(struct stack_state *state);

/* Both look from here. */
__attribute__((noinline)) static void look(size_t size)
{
	struct stack_state state = {0};
	ucontext_t context;

	assert_int_equal(getcontext(&context), 0);
	read_state(&context, &state);
	copy_stack(&state, size);
	expected_count = backtrace(expected, sizeof(expected) / sizeof(*expected));
	if (change)
		change(&state);
	assert_int_equal(stack_walk(walker, process, &state, &walked), 0);
}

/*
 * The callers of look(), from the innermost on. Frames that only one of both has at the end. backtrace() may have a
 * frame of its own before (a sanitizer's).
 */
static size_t assert_same_callers(bool handler)
{
	size_t own = 1, i = 1;

	assert_in_range(walked.count, 2, STACK_WALK_FRAMES);
	while (own < 4 && (uint64_t)expected[own] - 1 != walked.addresses[1])
		own++;
	for (; i < walked.count && own - 1 + i < (size_t)expected_count; i++) {
		uint64_t wanted = (uint64_t)expected[own - 1 + i];

		/* What a signal has interrupted has not called; look, handler, trampoline, that. */
		if (!(handler && i == 3))
			wanted--;
		assert_int_equal(walked.addresses[i], wanted);
	}
	return walked.count - i + (size_t)expected_count - (own - 1 + i);
}

__attribute__((noinline)) static int recurse(int depth, size_t size)
{
	volatile char frame[64];

	frame[0] = 1;
	if (depth)
		return recurse(depth - 1, size) + frame[0];
	look(size);
	return frame[0];
}

static void the_callers_are_those_of_backtrace(void **state)
{
	(void)state;
	recurse(20, STACK_COPY);
	assert_int_equal(walked.end, STACK_WALK_COMPLETE);
	assert_int_equal(walked.unsure, 0);
	assert_int_equal(assert_same_callers(false), 0);
}

static void handle(int signal)
{
	volatile int kept = signal; /* so that look() is called, and not jumped to */

	look(STACK_COPY);
	(void)kept;
}

static void a_signal_handler_was_called_by_what_it_interrupted(void **state)
{
	struct sigaction action = {.sa_handler = handle}, before;

	(void)state;
	sigaction(SIGUSR1, &action, &before);
	raise(SIGUSR1);
	sigaction(SIGUSR1, &before, NULL);
	assert_int_equal(walked.end, STACK_WALK_COMPLETE);
	assert_same_callers(true);
}

static void a_walk_has_a_limit_of_frames(void **state)
{
	(void)state;
	recurse(STACK_WALK_FRAMES + 20, STACK_COPY);
	assert_int_equal(walked.end, STACK_WALK_TOO_DEEP);
	assert_int_equal(walked.count, STACK_WALK_FRAMES);
	assert_same_callers(false);
}

static void a_walk_ends_where_the_copy_of_the_stack_does(void **state)
{
	(void)state;
	recurse(50, 3000);
	assert_int_equal(walked.end, STACK_WALK_COPY_ENDS);
	assert_in_range(walked.count, 3, 50);
	assert_same_callers(false);
}

/* --- return probes --- */

/* Code of nobody: where the kernel's own is not mapped, the pairs alone tell. */
#define TRAMPOLINE UINT64_C(0x7ffdffff0000)

static struct replaced_returns replaced;

/* As the kernel does it, to calls of recurse() by itself: to what looks like one of old, too. */
static void replace_returns(struct stack_state *state)
{
	uint64_t trampoline = TRAMPOLINE;

	replaced = (struct replaced_returns){.trampoline = TRAMPOLINE};
	state->replaced = &replaced;
	for (size_t at = 0; at < state->stack_size && replaced.count < REPLACED_RETURNS_MAX;
	     at += 8) {
		uint64_t word;

		memcpy(&word, copy + at, sizeof(word));
		if (word != (uint64_t)expected[3])
			continue;
		memcpy(copy + at, &trampoline, sizeof(trampoline));
		replaced.items[replaced.count++] = (struct replaced_return){
			.stack = state->sp + at,
			.original = word,
		};
	}
	assert_in_range(replaced.count, 5, REPLACED_RETURNS_MAX);
}

static void what_return_probes_have_replaced_is_looked_up(void **state)
{
	(void)state;
#if defined(__x86_64__)
	change = replace_returns;
	recurse(8, STACK_COPY);
	change = NULL;
	assert_int_equal(walked.end, STACK_WALK_COMPLETE);
	assert_int_equal(walked.unsure, 0);
	assert_int_equal(assert_same_callers(false), 0);
#else
	skip();
#endif
}

/* The same, but the pairs are of other places. */
static void replace_elsewhere(struct stack_state *state)
{
	replace_returns(state);
	for (size_t i = 0; i < replaced.count; i++)
		replaced.items[i].stack += i % 2 ? 8 : -UINT64_C(8);
}

static void replace_by_trampolines(struct stack_state *state)
{
	replace_returns(state);
	for (size_t i = 0; i < replaced.count; i++)
		replaced.items[i].original = TRAMPOLINE;
}

static void replace_nothing_known(struct stack_state *state)
{
	replace_returns(state);
	state->replaced = NULL;
}

static void a_walk_ends_where_the_return_address_is_not_known(void **state)
{
	void (*const changes[])(struct stack_state *) = {replace_elsewhere, replace_by_trampolines,
							 replace_nothing_known};

	(void)state;
#if defined(__x86_64__)
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		change = changes[i];
		recurse(8, STACK_COPY);
		change = NULL;
		/* look(), and recurse() that has called it. */
		assert_int_equal(walked.end, STACK_WALK_NO_MAPPING);
		assert_int_equal(walked.count, 2);
		assert_same_callers(false);
	}
#else
	(void)changes;
	skip();
#endif
}

/* --- what no program has --- */

static void code_of_nobody_ends_a_walk(void **state)
{
	struct stack_state nowhere = {.pc = 0x1234567, .sp = 0x7000000, .fp = 1};

	(void)state;
	assert_int_equal(stack_walk(walker, process, &nowhere, &walked), 0);
	assert_int_equal(walked.end, STACK_WALK_NO_MAPPING);
	assert_int_equal(walked.count, 1);
	assert_int_equal(walked.addresses[0], 0x1234567);
}

/* Any address in executable memory. */
static uint64_t random_code(void)
{
	const struct mapping *mapping =
		&process->mappings.items[(size_t)random() % process->mappings.count];

	return mapping->start + (uint64_t)random() % (mapping->end - mapping->start);
}

/* Words that lead somewhere: into code, into the stack itself, or anywhere. */
static void make_up_stack(struct stack_state *state)
{
	state->stack_size = (size_t)random() % sizeof(copy);
	state->stack = copy;
	for (size_t at = 0; at + 8 <= sizeof(copy); at += 8) {
		uint64_t word = random() % 8 == 0   ? TRAMPOLINE
				: random() % 3 == 0 ? random_code()
				: random() % 2 == 0 ? state->sp + (uint64_t)random() % sizeof(copy)
						    : (uint64_t)random() * (uint64_t)random();

		memcpy(copy + at, &word, sizeof(word));
	}
}

/* Pairs of one place, of many, of places next to each other, that lead to themselves or anywhere. */
static void make_up_returns(const struct stack_state *state)
{
	replaced.trampoline = TRAMPOLINE;
	replaced.count = (size_t)random() % (REPLACED_RETURNS_MAX + 1);
	for (size_t i = 0; i < replaced.count; i++) {
		replaced.items[i].stack = state->sp + 8 * ((uint64_t)random() % 256);
		replaced.items[i].original = random() % 4 ? random_code() : TRAMPOLINE;
	}
}

static void no_stack_is_walked_for_ever(void **state)
{
	uint64_t ends[STACK_WALK_END_COUNT] = {0};
	struct stack_state made_up = {.sp = UINT64_C(0x7ffc00000000)};

	(void)state;
	srandom(1);
	for (int i = 0; i < RANDOM_WALKS; i++) {
		if (i % 100 == 0)
			make_up_stack(&made_up);
		make_up_returns(&made_up);
		made_up.replaced = i % 2 ? &replaced : NULL;
		made_up.pc = random_code();
		made_up.fp = made_up.sp + 8 * ((uint64_t)random() % 8192);
		made_up.lr = random_code();
		assert_int_equal(stack_walk(walker, process, &made_up, &walked), 0);
		assert_in_range(walked.count, 1, STACK_WALK_FRAMES);
		assert_in_range(walked.end, 0, STACK_WALK_END_COUNT - 1);
		ends[walked.end]++;
	}
	assert_true(ends[STACK_WALK_COPY_ENDS] && ends[STACK_WALK_NO_MAPPING] &&
		    ends[STACK_WALK_NOT_GROWING]);
}

static void return_addresses_are_told_by_the_call_before_them(void **state)
{
	(void)state;
#if defined(__x86_64__)
	recurse(3, STACK_COPY);
	for (int i = 1; i + 1 < expected_count; i++)
		assert_int_not_equal(return_address_check(process, (uint64_t)expected[i],
							  (uint64_t)expected[i - 1]),
				     RETURN_ADDRESS_NONE);
	/* recurse() calls itself, and look(), from one function each. */
	assert_int_equal(
		return_address_check(process, (uint64_t)expected[3], (uint64_t)expected[2]),
		RETURN_ADDRESS_MATCHES);
	assert_int_equal(return_address_check(process, (uint64_t)&recurse, (uint64_t)&recurse),
			 RETURN_ADDRESS_NONE);
	assert_int_equal(return_address_check(process, 0, (uint64_t)&recurse), RETURN_ADDRESS_NONE);
	assert_int_equal(
		return_address_check(process, process->mappings.items[0].start, (uint64_t)&recurse),
		RETURN_ADDRESS_NONE);
#else
	skip();
#endif
}

/* libgcc is loaded with the first backtrace(). */
static int open_all(void **state)
{
	(void)state;
	backtrace(expected, 1);
	return process_open(getpid(), &process) || stack_walker_new(&walker) ? -1 : 0;
}

static int close_all(void **state)
{
	struct stack_walker_stats stats;

	(void)state;
	stack_walker_stats(walker, &stats);
	process_free(process);
	stack_walker_free(walker);
	return stats.images && stats.table_bytes && !stats.left_out ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_callers_are_those_of_backtrace),
		cmocka_unit_test(a_signal_handler_was_called_by_what_it_interrupted),
		cmocka_unit_test(a_walk_has_a_limit_of_frames),
		cmocka_unit_test(a_walk_ends_where_the_copy_of_the_stack_does),
		cmocka_unit_test(what_return_probes_have_replaced_is_looked_up),
		cmocka_unit_test(a_walk_ends_where_the_return_address_is_not_known),
		cmocka_unit_test(code_of_nobody_ends_a_walk),
		cmocka_unit_test(no_stack_is_walked_for_ever),
		cmocka_unit_test(return_addresses_are_told_by_the_call_before_them),
	};

	return cmocka_run_group_tests(tests, open_all, close_all);
}
