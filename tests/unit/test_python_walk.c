/* The kernel's walk of stacks that run Python, on the host: lists of frames that are known, and wild ones. */
#define WALKS_PYTHON true
#include "bpf_host.h"

#include "../../bpf/maps.bpf.h"
#include "../../bpf/stack.bpf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#define CODE  0x400000UL /* code without a table: it is passed by frame pointers */
#define STACK 0x7f0000000000UL
#define SELF  0x7f00aabbcc00UL /* what identifies the thread */

/* Where things are in the target's memory, from STACK on, in bytes. */
enum {
	RUNTIME = 0x2000,
	INTERPRETER = 0x2100,
	THREADS = 0x2200, /* 0x40 each */
	C_FRAMES = 0x2800,
	FRAMES = 0x3000, /* 0x40 each; those of C lie on the stack */
	CODES = 0x6000,	 /* 0x40 each; the first instruction at 0x20 */
};

#define FRAME(n)     (STACK + FRAMES + 0x40 * (n))
#define CODE_OF(n)   (STACK + CODES + 0x40 * (n))
#define UNSURE(pc)   ((pc) | FRAME_UNSURE)
#define PYTHON(n, u) (FRAME_PYTHON | CODE_OF(n) >> 4 << PYTHON_UNIT_BITS | (u))

static struct unwind_mapping maps[1];
static struct scratch buffers[SCRATCH_COUNT];
static struct python_target python;
static struct target target;
static struct scratch scratch;
#define stack scratch.stack
static __u64 key;

static void put(uint64_t address, uint64_t word)
{
	host_memory[(address - STACK) / 8] = word;
}

/* Layouts as those of 3.13, and of 3.11. */
static const struct python_target layout_new = {
	.runtime = STACK + RUNTIME,
	.interpreters = 8,
	.interpreter_next = 0,
	.interpreter_threads = 16,
	.thread_next = 8,
	.thread_id = 16,
	.thread_frame = 24,
	.frame_code = 0,
	.frame_previous = 8,
	.frame_instruction = 16,
	.frame_owner = 30,
	.code_start = 32,
	.code_identity = 8,
};

static int set_up(void **state)
{
	(void)state;
	maps[0] = (struct unwind_mapping){.start = CODE, .end = CODE + 0x10000};
	host_bind(&mappings, maps, 1, sizeof(*maps));
	host_bind(&scratches, buffers, SCRATCH_COUNT, sizeof(*buffers));
	host_bind(&pythons, &python, 1, sizeof(python));
	host_memory_at = STACK;
	memset(host_memory, 0, sizeof(host_memory));
	memset(&scratch, 0, sizeof(scratch));
	target = (struct target){.mappings = 1};
	host_mm.start_stack = ~0UL;
	host_task.thread.fsbase = SELF;
	python = layout_new;
	put(STACK + RUNTIME + 8, STACK + INTERPRETER);
	put(STACK + INTERPRETER + 16, STACK + THREADS);
	put(STACK + THREADS + 16, SELF);
	return 0;
}

/* The innermost frame of thread n. */
static void set_frame(unsigned int n, uint64_t frame)
{
	put(STACK + THREADS + 0x40 * n + 24, frame);
}

/* A frame of a code object, at an instruction. */
static void python_frame(uint64_t at, unsigned int code, unsigned int unit, uint64_t previous)
{
	put(at, CODE_OF(code));
	put(at + 8, previous);
	put(at + 16, CODE_OF(code) + 32 + 2 * unit);
	put(CODE_OF(code) + 8, 0x1000 + code);
	put(CODE_OF(code) + 16, 0x2000 + code);
}

/* A frame of C, on the stack. */
static void c_frame(uint64_t at, uint64_t previous)
{
	python_frame(at, 0, 0, previous);
	put(at + 24, (uint64_t)PYTHON_OWNED_BY_C << 48);
}

/*
 * A stack of C frames, 0x100 bytes each, whose return addresses are CODE + 1, CODE + 2 ...; the last one
 * returns to 0.
 */
static void walk(unsigned int frames)
{
	struct pt_regs regs = {.sp = STACK, .fp = STACK + 0x100};

	put(STACK, CODE + 1);
	for (unsigned int i = 1; i <= frames; i++) {
		put(STACK + 0x100 * i, i < frames ? STACK + 0x100 * (i + 1) : 0);
		put(STACK + 0x100 * i + 8, i < frames ? CODE + 1 + i : 0);
	}
	stack_walk(&regs, &target, 0, CODE + 1, &scratch, &key);
}

/* Every frame; and the key is what the user side makes of them. */
#define EXPECT(...)                                                                                \
	do {                                                                                       \
		const uint64_t frames_[] = {__VA_ARGS__};                                          \
		assert_int_equal(stack.end, WALK_COMPLETE);                                        \
		assert_int_equal(stack.frame_count, sizeof(frames_) / sizeof(*frames_));           \
		for (size_t i_ = 0; i_ < stack.frame_count; i_++)                                  \
			assert_int_equal(stack.frames[i_], frames_[i_]);                           \
		assert_int_equal(key, key_of_stack());                                             \
	} while (0)

static uint64_t key_of_stack(void)
{
	uint64_t hash = scratch.python.count ? 1 : 0; /* of slot 0 */

	for (size_t i = 0; i < stack.frame_count; i++) {
		uint64_t frame = stack.frames[i], words[2];

		hash = stack_mix(hash, frame);
		if (!(frame & FRAME_PYTHON))
			continue;
		bpf_probe_read_user(
			words, sizeof(words),
			(void *)(((frame & ~FRAME_PYTHON) >> PYTHON_UNIT_BITS << 4) + 8));
		hash = stack_mix(stack_mix(hash, words[0]), words[1]);
	}
	return stack_key(hash);
}

static void without_python_frames_nothing_is_added(void **state)
{
	(void)state;
	walk(3);
	EXPECT(CODE + 1, UNSURE(CODE + 2), UNSURE(CODE + 3));
	python.runtime = 0;
	walk(3);
	EXPECT(CODE + 1, UNSURE(CODE + 2), UNSURE(CODE + 3));
}

static void functions_follow_the_frame_that_runs_them(void **state)
{
	(void)state;
	/* The third C frame holds the frame of C. */
	set_frame(0, FRAME(1));
	python_frame(FRAME(1), 1, 5, FRAME(2));
	python_frame(FRAME(2), 2, 300, STACK + 0x248);
	c_frame(STACK + 0x248, 0);
	walk(4);
	EXPECT(CODE + 1, UNSURE(CODE + 2), UNSURE(CODE + 3), PYTHON(1, 5), PYTHON(2, 300),
	       UNSURE(CODE + 4));
}

static void each_part_has_its_place(void **state)
{
	(void)state;
	set_frame(0, FRAME(1));
	python_frame(FRAME(1), 1, 5, STACK + 0x148);
	c_frame(STACK + 0x148, FRAME(2));
	python_frame(FRAME(2), 2, 6, FRAME(3));
	python_frame(FRAME(3), 3, 7, STACK + 0x348);
	c_frame(STACK + 0x348, 0);
	walk(5);
	EXPECT(CODE + 1, UNSURE(CODE + 2), PYTHON(1, 5), UNSURE(CODE + 3), UNSURE(CODE + 4),
	       PYTHON(2, 6), PYTHON(3, 7), UNSURE(CODE + 5));
}

/* 3.11: the C frames hold a list of their own, and a flag says where a part ends. */
static void older_lists_are_read_by_their_flags(void **state)
{
	(void)state;
	python.thread_frame = 24;
	python.c_frames = 1;
	python.c_frame_current = 8;
	python.c_frame_next = 16;
	set_frame(0, STACK + 0x148);
	put(STACK + 0x148 + 8, FRAME(1));
	put(STACK + 0x148 + 16, STACK + 0x248);
	put(STACK + 0x248 + 16, STACK + C_FRAMES);
	python_frame(FRAME(1), 1, 5, FRAME(2));
	python_frame(FRAME(2), 2, 6, FRAME(3));
	put(FRAME(2) + 24, 1ULL << 48);
	python_frame(FRAME(3), 3, 7, 0);
	put(FRAME(3) + 24, 1ULL << 48);
	walk(4);
	EXPECT(CODE + 1, UNSURE(CODE + 2), PYTHON(1, 5), PYTHON(2, 6), UNSURE(CODE + 3),
	       PYTHON(3, 7), UNSURE(CODE + 4));
}

static void a_part_whose_frame_is_not_met_is_left_out(void **state)
{
	(void)state;
	set_frame(0, FRAME(1));
	python_frame(FRAME(1), 1, 5, STACK + 0x48);
	c_frame(STACK + 0x48, FRAME(2));
	python_frame(FRAME(2), 2, 6, STACK + 0x348);
	c_frame(STACK + 0x348, 0);
	walk(5);
	/* The first C frame ends at STACK + 0x110: it holds that of C. */
	EXPECT(CODE + 1, PYTHON(1, 5), UNSURE(CODE + 2), UNSURE(CODE + 3), UNSURE(CODE + 4),
	       PYTHON(2, 6), UNSURE(CODE + 5));
	/* Below the first frame. */
	put(FRAME(1) + 8, STACK);
	c_frame(STACK, FRAME(2));
	walk(5);
	EXPECT(CODE + 1, UNSURE(CODE + 2), UNSURE(CODE + 3), UNSURE(CODE + 4), PYTHON(2, 6),
	       UNSURE(CODE + 5));
}

static void the_thread_at_hand_is_found(void **state)
{
	(void)state;
	for (unsigned int n = 0; n < 8; n++) {
		put(STACK + THREADS + 0x40 * n + 8, n < 7 ? STACK + THREADS + 0x40 * (n + 1) : 0);
		put(STACK + THREADS + 0x40 * n + 16, SELF + n + 1);
	}
	set_frame(5, FRAME(1));
	set_frame(0, FRAME(2));
	python_frame(FRAME(1), 1, 5, STACK + 0x148);
	python_frame(FRAME(2), 2, 6, STACK + 0x148);
	c_frame(STACK + 0x148, 0);
	walk(2);
	EXPECT(CODE + 1, UNSURE(CODE + 2)); /* no state is ours */
	put(STACK + THREADS + 0x40 * 5 + 16, SELF);
	walk(2);
	assert_int_equal(stack.frames[2], PYTHON(1, 5));
	/* In a second interpreter. */
	put(STACK + RUNTIME + 8, STACK + INTERPRETER + 0x40);
	put(STACK + INTERPRETER + 0x40, STACK + INTERPRETER);
	walk(2);
	assert_int_equal(stack.frames[2], PYTHON(1, 5));
}

static void lists_in_a_circle_end(void **state)
{
	(void)state;
	set_frame(0, FRAME(1));
	python_frame(FRAME(1), 1, 5, FRAME(2));
	python_frame(FRAME(2), 2, 6, FRAME(1));
	walk(3);
	EXPECT(CODE + 1, UNSURE(CODE + 2), UNSURE(CODE + 3));
	put(STACK + THREADS + 16, 1);
	put(STACK + THREADS + 8, STACK + THREADS);
	walk(3);
	EXPECT(CODE + 1, UNSURE(CODE + 2), UNSURE(CODE + 3));
	put(STACK + INTERPRETER + 16, 0);
	put(STACK + INTERPRETER, STACK + INTERPRETER);
	walk(3);
	EXPECT(CODE + 1, UNSURE(CODE + 2), UNSURE(CODE + 3));
}

/* More functions than a stack has frames: the inner ones are kept, and their place is found. */
static void deep_recursion_keeps_its_inner_functions(void **state)
{
	(void)state;
	set_frame(0, FRAME(1));
	/* A circle goes round often enough; from its last frame it is left for the frame of C. */
	for (unsigned int i = 1; i < 150; i++)
		python_frame(FRAME(i), 1, i, FRAME(i + 1));
	python_frame(FRAME(150), 1, 150, STACK + 0x148);
	c_frame(STACK + 0x148, 0);
	walk(2);
	assert_int_equal(stack.end, WALK_COMPLETE);
	assert_int_equal(stack.frame_count, 152);
	assert_int_equal(stack.frames[151], PYTHON(1, 150));
}

static void instructions_out_of_range_are_kept_in_it(void **state)
{
	(void)state;
	set_frame(0, FRAME(1));
	python_frame(FRAME(1), 1, 0, FRAME(2));
	put(FRAME(1) + 16, CODE_OF(1) + 30); /* before the first */
	python_frame(FRAME(2), 2, 0, STACK + 0x148);
	put(FRAME(2) + 16, CODE_OF(2) + (1UL << 40));
	c_frame(STACK + 0x148, 0);
	walk(2);
	EXPECT(CODE + 1, UNSURE(CODE + 2), PYTHON(1, 0), PYTHON(2, PYTHON_UNIT_MAX));
}

static void another_code_object_at_the_place_makes_another_key(void **state)
{
	__u64 before;

	(void)state;
	set_frame(0, FRAME(1));
	python_frame(FRAME(1), 1, 5, STACK + 0x148);
	c_frame(STACK + 0x148, 0);
	walk(2);
	before = key;
	walk(2);
	assert_int_equal(key, before);
	put(CODE_OF(1) + 16, 0x3000);
	walk(2);
	assert_int_not_equal(key, before);
}

static void wild_memory_and_offsets_end_the_walk(void **state)
{
	uint64_t seed = 88172645463325252ULL;
	size_t met = 0;

	(void)state;
	for (unsigned int round = 0; round < 20000; round++) {
		set_up(state);
		for (size_t i = 0; i < 4096; i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			/* Most words are addresses in there: lists go on and on. */
			host_memory[i] =
				seed % 8 ? STACK + seed % sizeof(host_memory) / 8 * 8 : seed;
			if (seed >> 32 & 1)
				host_memory[i] = seed >> 33 & 1 ? SELF : 3ULL << 48;
		}
		if (round % 2) {
			uint32_t *words = (uint32_t *)&python;

			for (size_t i = 2; i < sizeof(python) / 4; i++) {
				seed ^= seed << 13;
				seed ^= seed >> 7;
				seed ^= seed << 17;
				words[i] = seed % 3 ? (uint32_t)(seed >> 8) % 64 : (uint32_t)seed;
			}
		}
		walk(1 + round % 20);
		met += scratch.python.met;
		assert_true(stack.frame_count <= MAX_FRAMES);
		assert_true(scratch.python.count <= PYTHON_ITEMS_MAX);
	}
	assert_true(met > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(without_python_frames_nothing_is_added, set_up),
		cmocka_unit_test_setup(functions_follow_the_frame_that_runs_them, set_up),
		cmocka_unit_test_setup(each_part_has_its_place, set_up),
		cmocka_unit_test_setup(older_lists_are_read_by_their_flags, set_up),
		cmocka_unit_test_setup(a_part_whose_frame_is_not_met_is_left_out, set_up),
		cmocka_unit_test_setup(the_thread_at_hand_is_found, set_up),
		cmocka_unit_test_setup(lists_in_a_circle_end, set_up),
		cmocka_unit_test_setup(deep_recursion_keeps_its_inner_functions, set_up),
		cmocka_unit_test_setup(instructions_out_of_range_are_kept_in_it, set_up),
		cmocka_unit_test_setup(another_code_object_at_the_place_makes_another_key, set_up),
		cmocka_unit_test_setup(wild_memory_and_offsets_end_the_walk, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
