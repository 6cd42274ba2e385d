/*
 * The kernel's walk, on the host: synthetic stacks and tables whose answers are known, damaged
 * ones, and the search over a real image's table against the one of user/binary/.
 */
#include "bpf_host.h"

#include "../../bpf/maps.bpf.h"
#include "../../bpf/stack.bpf.h"

#include "binary/image.h"
#include "binary/unwind_table.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#define CODE	0x400000UL /* an image with a table, link-time address 0x1000 */
#define JIT	0x500000UL /* code without a table */
#define NOWHERE 0x600000UL
#define STACK	0x7f0000000000UL

/* Rules by number, and the address in CODE from where each is in force. */
enum {
	NONE,	  /* UNWIND_END */
	STOP,	  /* 0x100 */
	SP_16,	  /* 0x200: CFA = sp + 16 */
	SP_32_FP, /* 0x300: CFA = sp + 32, fp saved at CFA - 16 */
	FP_16,	  /* 0x400: CFA = fp + 16, fp saved at CFA - 16 */
	DEREF,	  /* 0x500: CFA = *(fp - 8) + 0, as a stack-realigning function has it */
	PLT,	  /* 0x600: CFA = sp + 8, + 8 from byte 11 of an entry on */
	SIGNAL,	  /* 0x700 */
	LOST_FP,  /* 0x800: CFA = sp + 16, fp undefined */
	RULES,
};

#define AT(rule) (CODE + 0x100 * (rule) + 0x20) /* a return address into that code */

static struct unwind_rule rules[UNWIND_RULES_MAX];
static struct unwind_row_pair rows[RULES];
static struct unwind_page pages[1];
static struct unwind_mapping maps[3];
static struct scratch buffers[SCRATCH_COUNT];
static struct target target;
static struct scratch scratch;
#define stack scratch.stack
static __u64 key;

static struct unwind_rule rule(int kind, int cfa_off, int fp_slot)
{
	return (struct unwind_rule){
		.cfa = cfa_off * (1 << UNWIND_CFA_SHIFT) | kind,
		.fp_slot = (int16_t)fp_slot,
		.ra_slot = -1,
	};
}

static int set_up(void **state)
{
	(void)state;
	rules[STOP] = rule(UNWIND_STOP, 0, UNWIND_SLOT_SAME);
	rules[SP_16] = rule(UNWIND_SP, 16, UNWIND_SLOT_SAME);
	rules[SP_32_FP] = rule(UNWIND_SP, 32, -2);
	rules[FP_16] = rule(UNWIND_FP, 16, -2);
	rules[DEREF] = rule(UNWIND_DEREF_FP, -8, 0);
	rules[PLT] = rule(UNWIND_PLT, 8, 11);
	rules[SIGNAL] = rule(UNWIND_SIGNAL | UNWIND_EXACT_PC, 0, UNWIND_SLOT_SAME);
	rules[LOST_FP] = rule(UNWIND_SP, 16, UNWIND_SLOT_UNDEFINED);
	for (uint32_t i = 0; i < RULES; i++)
		rows[i / 2].rows[i % 2] = (struct unwind_row){
			.pc_low = (uint16_t)(i ? 0x1000 + 0x100 * i : 0),
			.rule = (uint16_t)i,
		};
	pages[0] = (struct unwind_page){.low = 0, .high = RULES};
	maps[0] = (struct unwind_mapping){
		.start = CODE,
		.end = CODE + 0x10000,
		.bias = CODE - 0x1000,
		.image = {.page_count = 1},
	};
	maps[1] = (struct unwind_mapping){.start = JIT, .end = JIT + 0x1000};
	host_bind(&unwind_rules, rules, UNWIND_RULES_MAX, sizeof(*rules));
	host_bind(&unwind_rows, rows, RULES, sizeof(*rows));
	host_bind(&unwind_pages, pages, 1, sizeof(*pages));
	host_bind(&mappings, maps, 2, sizeof(*maps));
	host_bind(&scratches, buffers, SCRATCH_COUNT, sizeof(*buffers));
	host_memory_at = STACK;
	memset(host_memory, 0, sizeof(host_memory));
	target = (struct target){.mappings = 2};
	host_utask.return_instances = NULL;
	host_mm.start_stack = ~0UL;
	host_events = 0;
	return 0;
}

/* The walk from a function's entry: the words of the stack are given from the return address on. */
static void walk_from(uint64_t fp, const uint64_t *words, size_t count)
{
	struct pt_regs regs = {.sp = STACK, .fp = fp};

	memcpy(host_memory, words, count * sizeof(*words));
	stack_walk(&regs, &target, 0, host_memory[0], &scratch, &key);
}

#define WALK(fp, ...)                                                                              \
	walk_from(fp, (const uint64_t[]){__VA_ARGS__},                                             \
		  sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* How it ended, and every frame. */
#define EXPECT(how, ...)                                                                           \
	do {                                                                                       \
		const uint64_t frames_[] = {__VA_ARGS__};                                          \
		assert_int_equal(stack.end, how);                                                  \
		assert_int_equal(stack.frame_count, sizeof(frames_) / sizeof(*frames_));           \
		for (size_t i_ = 0; i_ < stack.frame_count; i_++)                                  \
			assert_int_equal(stack.frames[i_], frames_[i_]);                           \
	} while (0)

static void frames_are_as_large_as_their_rules(void **state)
{
	(void)state;
	WALK(0, AT(SP_16), 1, AT(SP_32_FP), 1, 2, 3, AT(STOP));
	EXPECT(WALK_COMPLETE, AT(SP_16), AT(SP_32_FP), AT(STOP));
}

static void saved_frame_pointer_leads_on(void **state)
{
	(void)state;
	/* The inner frame saved fp, 8 words up; the outer one is found by it. */
	WALK(7, AT(SP_32_FP), 1, 2, STACK + 64, AT(FP_16), 5, 6, 7, 0x77, AT(STOP));
	EXPECT(WALK_COMPLETE, AT(SP_32_FP), AT(FP_16), AT(STOP));
}

static void realigned_frame_keeps_its_address_in_itself(void **state)
{
	(void)state;
	/*
	 * fp = STACK + 32: the word below it is the CFA, it itself the caller's fp; the return
	 * address is below the CFA.
	 */
	WALK(STACK + 32, AT(DEREF), 1, 2, STACK + 64, STACK + 80, 5, 6, AT(FP_16), 8, 9, 10,
	     AT(STOP));
	EXPECT(WALK_COMPLETE, AT(DEREF), AT(FP_16), AT(STOP));
}

static void procedure_linkage_entry_has_pushed_or_not(void **state)
{
	const uint64_t entry = CODE + 0x100 * PLT;

	(void)state;
	/* The expression's operand is the pc itself, not the byte before it. */
	WALK(0, entry + 0x2a, AT(STOP), 0);
	EXPECT(WALK_COMPLETE, entry + 0x2a, AT(STOP));
	WALK(0, entry + 0x2b, 0, AT(STOP));
	EXPECT(WALK_COMPLETE, entry + 0x2b, AT(STOP));
}

static void signal_frame_leads_to_what_it_interrupted(void **state)
{
	uint64_t words[64] = {AT(SIGNAL)};

	(void)state;
	/* The handler's return address is popped: the signal frame begins at word 1. */
	words[1 + UNWIND_SIGFRAME_X86_64_SP / 8] = STACK + 8 * 40;
	words[1 + UNWIND_SIGFRAME_X86_64_FP / 8] = 0;
	/* The first byte of this code: one less would be that of the rule before. */
	words[1 + UNWIND_SIGFRAME_X86_64_PC / 8] = CODE + 0x100 * SP_16;
	words[41] = AT(STOP);
	walk_from(0, words, 64);
	/* Frames hold what user space takes 1 from; what a signal interrupted has no call site's
	 * rule. */
	EXPECT(WALK_COMPLETE, AT(SIGNAL), CODE + 0x100 * SP_16 + 1, AT(STOP) | FRAME_UNSURE);
}

static void code_without_rules_is_passed_by_frame_pointer_and_marked(void **state)
{
	(void)state;
	WALK(STACK + 16, JIT + 0x10, 1, STACK + 32, JIT + 0x20, 0, AT(STOP));
	EXPECT(WALK_COMPLETE, JIT + 0x10, (JIT + 0x20) | FRAME_UNSURE, AT(STOP) | FRAME_UNSURE);
}

static void frame_pointer_below_the_stack_is_none(void **state)
{
	(void)state;
	WALK(STACK - 64, JIT + 0x10, 1, 2);
	EXPECT(WALK_NO_RULE, JIT + 0x10);
	WALK(STACK + 17, JIT + 0x10, 1, 2, 3, 4);
	EXPECT(WALK_NO_RULE, JIT + 0x10);
}

static void undefined_frame_pointer_ends_where_it_is_needed(void **state)
{
	(void)state;
	WALK(STACK + 64, AT(LOST_FP), 1, AT(FP_16), 2, 3, 4, 5, 6, 7, AT(STOP));
	EXPECT(WALK_NOT_GROWING, AT(LOST_FP), AT(FP_16));
}

static void frames_that_do_not_grow_end_the_walk(void **state)
{
	(void)state;
	rules[SP_16] = rule(UNWIND_SP, 0, UNWIND_SLOT_SAME);
	WALK(0, AT(SP_16), AT(SP_16), AT(STOP));
	EXPECT(WALK_NOT_GROWING, AT(SP_16));
	WALK(STACK - 8, AT(FP_16), AT(STOP), AT(STOP));
	EXPECT(WALK_NOT_GROWING, AT(FP_16));
}

static void first_frame_of_the_program_is_complete(void **state)
{
	(void)state;
	host_mm.start_stack = STACK + 24;
	WALK(0, AT(SP_16), 1, JIT + 0x10, 1 /* argc */);
	EXPECT(WALK_COMPLETE, AT(SP_16), JIT + 0x10);
}

static void null_return_address_is_the_end(void **state)
{
	(void)state;
	WALK(0, AT(SP_16), 1, 0);
	EXPECT(WALK_COMPLETE, AT(SP_16));
}

static void unknown_code_is_asked_for_once(void **state)
{
	(void)state;
	WALK(0, AT(SP_16), 1, NOWHERE);
	EXPECT(WALK_NO_MAPPING, AT(SP_16));
	WALK(0, NOWHERE);
	EXPECT(WALK_NO_MAPPING, NOWHERE);
	assert_int_equal(host_events, 1);
	assert_int_equal(target.remap, 1);
}

static void target_without_mappings_gets_nobody_elses(void **state)
{
	(void)state;
	target.mappings = 0;
	WALK(0, AT(SP_16), 1, AT(STOP));
	EXPECT(WALK_NO_MAPPING, AT(SP_16));
}

static void return_probes_trampoline_is_replaced(void **state)
{
	struct return_instance outer = {STACK + 16, AT(STOP), NULL},
			       inner = {STACK, 0x1234, &outer};

	(void)state;
	host_utask.return_instances = &inner;
	WALK(0, AT(SP_16), 1, NOWHERE);
	EXPECT(WALK_COMPLETE, AT(SP_16), AT(STOP));
}

static void stack_memory_may_end_anywhere(void **state)
{
	struct pt_regs regs = {.sp = STACK + sizeof(host_memory) - 16};

	(void)state;
	stack_walk(&regs, &target, 0, AT(SP_32_FP), &scratch, &key);
	EXPECT(WALK_UNREADABLE, AT(SP_32_FP));
}

static void deep_stack_keeps_its_inner_frames(void **state)
{
	uint64_t words[2 * 500];

	(void)state;
	for (int i = 0; i < 500; i++) {
		words[2 * i] = AT(SP_16);
		words[2 * i + 1] = 0;
	}
	words[2 * MAX_FRAMES] = AT(STOP);
	walk_from(0, words, 1000);
	assert_int_equal(stack.end, WALK_TOO_DEEP);
	assert_int_equal(stack.frame_count, MAX_FRAMES);
	/* As many frames as there is room for are complete. */
	words[2 * (MAX_FRAMES - 1)] = AT(STOP);
	walk_from(0, words, 1000);
	assert_int_equal(stack.end, WALK_COMPLETE);
	assert_int_equal(stack.frame_count, MAX_FRAMES);
}

static void key_depends_on_every_frame_and_their_order(void **state)
{
	__u64 first;

	(void)state;
	WALK(0, AT(SP_16), 1, AT(SP_16) + 1, 1, AT(STOP));
	first = key;
	WALK(0, AT(SP_16) + 1, 1, AT(SP_16), 1, AT(STOP));
	assert_int_not_equal(key, first);
	WALK(0, AT(SP_16), 2, AT(SP_16) + 1, 3, AT(STOP));
	assert_int_equal(key, first);
}

/* Random words for a stack, and random rules: each walk ends, with a reason, and all frames are
 * code. */
static void wild_stacks_and_tables_end_the_walk(void **state)
{
	(void)state;
	srandom(20261120);
	for (int round = 0; round < 20000; round++) {
		static uint64_t words[512];

		for (size_t i = 0; i < 512; i++) {
			switch (random() % 3) {
			case 0:
				words[i] = CODE + (uint64_t)random() % 0x1000;
				break;
			case 1:
				words[i] = STACK + (uint64_t)random() % 0x1000;
				break;
			default:
				words[i] = (uint64_t)random() << 33 ^ (uint64_t)random();
			}
		}
		for (int i = 1; i < RULES; i++)
			rules[i] = (struct unwind_rule){
				.cfa = (int32_t)random(),
				.fp_slot = (int16_t)random(),
				.ra_slot = random() % 2 ? -1 : (int16_t)random(),
			};
		walk_from(STACK + (uint64_t)random() % 0x1000, words, 512);
		assert_true(stack.end < WALK_END_COUNT);
		assert_true(stack.frame_count <= MAX_FRAMES);
	}
}

static void mapping_search_finds_what_a_scan_finds(void **state)
{
	static struct unwind_mapping many[1000];

	(void)state;
	srandom(1);
	for (uint32_t count = 1; count <= 1000; count = count * 3 / 2 + 1) {
		uint64_t at = 0x1000;

		for (uint32_t i = 0; i < count; i++) {
			at += (uint64_t)random() % 3 * 0x1000;
			many[i] = (struct unwind_mapping){.start = at, .end = at + 0x1000};
			at += 0x1000;
		}
		host_bind(&mappings, many, 1000, sizeof(*many));
		for (int i = 0; i < 2000; i++) {
			struct walk walk = {.slice = count, .mapping = (uint32_t)random() % count};
			uint64_t pc = (uint64_t)random() % (at + 0x2000);
			const struct unwind_mapping *scanned = NULL;

			for (uint32_t j = 0; j < count; j++) {
				if (mapping_holds(&many[j], pc))
					scanned = &many[j];
			}
			assert_ptr_equal(mapping_find(&walk, pc), scanned);
		}
	}
}

/* The libc this test runs with. */
static struct image *open_libc(void)
{
	char path[4096] = "", line[4096];
	FILE *file = fopen("/proc/self/maps", "r");
	struct image *image = NULL;

	while (file && fgets(line, sizeof(line), file)) {
		if (strstr(line, "/libc.so.6") || strstr(line, "/libc-2."))
			sscanf(line, "%*s %*s %*s %*s %*s %4095s", path);
	}
	if (file)
		fclose(file);
	if (*path && image_open(open(path, O_RDONLY), path, &image))
		image = NULL;
	return image;
}

static void rule_search_agrees_with_the_table_it_was_made_from(void **state)
{
	const struct unwind_options options = {.prune = true};
	struct image *image = open_libc();
	struct unwind_rules *shared;
	struct unwind_table *table;
	struct unwind_mapping mapping = {0};
	struct unwind_row_pair *pairs;
	struct unwind_page *index;

	(void)state;
	if (!image)
		skip();
	assert_int_equal(unwind_rules_new(&shared), 0);
	assert_int_equal(unwind_table_build(image, &options, shared, &table), 0);
	pairs = calloc(table->count / 2 + 1, sizeof(*pairs));
	index = calloc(table->page_count, sizeof(*index));
	for (size_t i = 0; i < table->count; i++)
		pairs[i / 2].rows[i % 2] = table->items[i];
	for (uint32_t i = 0; i < table->page_count; i++)
		index[i] = (struct unwind_page){table->page_index[i], table->page_index[i + 1]};
	host_bind(&unwind_rows, pairs, table->count / 2 + 1, sizeof(*pairs));
	host_bind(&unwind_pages, index, table->page_count, sizeof(*index));
	host_bind(&unwind_rules, shared->items, UNWIND_RULES_MAX, sizeof(*shared->items));
	mapping.bias = 0x7f1234560000;
	mapping.image.first_page = table->first_page;
	mapping.image.page_count = table->page_count;
	for (uint64_t vaddr = (uint64_t)table->first_page << UNWIND_PAGE_SHIFT;
	     vaddr < (uint64_t)(table->first_page + table->page_count) << UNWIND_PAGE_SHIFT;
	     vaddr++)
		assert_ptr_equal(rule_find(&mapping, mapping.bias + vaddr),
				 &shared->items[unwind_table_find(table, vaddr)]);
	assert_null(rule_find(&mapping, mapping.bias - 1));
	free(pairs);
	free(index);
	unwind_table_free(table);
	unwind_rules_free(shared);
	image_free(image);
}

static void scratch_buffers_are_claimed_one_by_one(void **state)
{
	struct scratch *claimed[SCRATCH_COUNT];

	(void)state;
	for (int i = 0; i < SCRATCH_COUNT; i++) {
		claimed[i] = scratch_claim();
		assert_non_null(claimed[i]);
		for (int j = 0; j < i; j++)
			assert_ptr_not_equal(claimed[i], claimed[j]);
	}
	assert_null(scratch_claim());
	scratch_release(claimed[2]);
	assert_ptr_equal(scratch_claim(), claimed[2]);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(frames_are_as_large_as_their_rules),
		TEST(saved_frame_pointer_leads_on),
		TEST(realigned_frame_keeps_its_address_in_itself),
		TEST(procedure_linkage_entry_has_pushed_or_not),
		TEST(signal_frame_leads_to_what_it_interrupted),
		TEST(code_without_rules_is_passed_by_frame_pointer_and_marked),
		TEST(frame_pointer_below_the_stack_is_none),
		TEST(undefined_frame_pointer_ends_where_it_is_needed),
		TEST(frames_that_do_not_grow_end_the_walk),
		TEST(first_frame_of_the_program_is_complete),
		TEST(null_return_address_is_the_end),
		TEST(unknown_code_is_asked_for_once),
		TEST(target_without_mappings_gets_nobody_elses),
		TEST(return_probes_trampoline_is_replaced),
		TEST(stack_memory_may_end_anywhere),
		TEST(deep_stack_keeps_its_inner_frames),
		TEST(key_depends_on_every_frame_and_their_order),
		TEST(wild_stacks_and_tables_end_the_walk),
		TEST(mapping_search_finds_what_a_scan_finds),
		TEST(rule_search_agrees_with_the_table_it_was_made_from),
		TEST(scratch_buffers_are_claimed_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
