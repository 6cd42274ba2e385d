/*
 * The compact table against the call frame information it is made of, against calls that objdump
 * finds, and as a walk that has to say what the C library's own unwinder says.
 */
#include "cfi_fixture.h"

#include <elf.h>
#include <inttypes.h>
#include <link.h>
#include <signal.h>

#include "binary/eh_frame.h"
#include "binary/unwind_table.h"

static void cleanup_table(struct unwind_table **table)
{
	unwind_table_free(*table);
}

static void cleanup_rules(struct unwind_rules **rules)
{
	unwind_rules_free(*rules);
}

#define RULES CLEANUP(cleanup_rules) struct unwind_rules
#define TABLE CLEANUP(cleanup_table) struct unwind_table
#define IMAGE CLEANUP(cleanup_image) struct image

static struct unwind_rules *new_rules(void)
{
	struct unwind_rules *rules;

	assert_int_equal(unwind_rules_new(&rules), 0);
	return rules;
}

static struct unwind_table *build(const struct image *image, bool prune, struct unwind_rules *rules)
{
	struct unwind_options options = {.prune = prune};
	struct unwind_table *table;

	assert_int_equal(unwind_table_build(image, &options, rules, &table), 0);
	return table;
}

static const struct unwind_rule *rule_at(const struct unwind_table *table,
					 const struct unwind_rules *rules, uint64_t vaddr)
{
	return &rules->items[unwind_table_find(table, vaddr)];
}

static enum unwind_kind kind_at(const struct unwind_table *table, const struct unwind_rules *rules,
				uint64_t vaddr)
{
	return (enum unwind_kind)unwind_rule_kind(rule_at(table, rules, vaddr));
}

/* --- against the rows --- */

struct check {
	const struct unwind_table *table, *pruned;
	const struct unwind_rules *rules;
	uint16_t machine;
	size_t rows, differences;
};

/* At both ends of each row the table says what the row says. */
static int check_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *user)
{
	struct check *c = user;
	struct unwind_rule want = {.cfa = UNWIND_END};
	enum unwind_loss loss;

	c->rows++;
	if (!unwind_rule_from_row(c->machine, row, &want, &loss))
		want = (struct unwind_rule){.cfa = UNWIND_END};
	c->differences += memcmp(rule_at(c->table, c->rules, start), &want, sizeof(want)) != 0;
	c->differences += memcmp(rule_at(c->table, c->rules, end - 1), &want, sizeof(want)) != 0;
	/* A signal's return lands here without any call. */
	if (row->signal)
		c->differences +=
			memcmp(rule_at(c->pruned, c->rules, start), &want, sizeof(want)) != 0;
	return 0;
}

/* Rows rise within pages, and each page begins at 0. */
static void check_form(const struct unwind_table *table)
{
	assert_int_equal(table->page_index[table->page_count], table->count);
	for (uint32_t page = 0; page < table->page_count; page++) {
		uint32_t first = table->page_index[page], end = table->page_index[page + 1];

		assert_true(first < end);
		assert_int_equal(table->items[first].pc_low, 0);
		for (uint32_t i = first + 1; i < end; i++)
			assert_true(table->items[i - 1].pc_low < table->items[i].pc_low);
	}
}

static void check_against_rows(const char *path)
{
	IMAGE *image = path ? open_path(path) : NULL;
	RULES *rules = new_rules();
	TABLE *table = NULL, *pruned = NULL;
	struct eh_frame *frame;
	struct check check;

	if (!image)
		skip();
	table = build(image, false, rules);
	pruned = build(image, true, rules);
	assert_int_equal(rules->overflow, 0);
	check_form(table);
	check_form(pruned);
	assert_true(pruned->count < table->count);
	check = (struct check){
		.table = table, .pruned = pruned, .rules = rules, .machine = image->machine};
	assert_int_equal(eh_frame_open(image, &frame), 0);
	assert_int_equal(eh_frame_for_each_row(frame, check_row, &check), 0);
	eh_frame_free(frame);
	assert_int_equal(check.differences, 0);
	assert_int_equal(check.rows, table->stats.rows_read);
	print_message("%s: %zu rows, table %zu, pruned %zu rows, %zu bytes, %u rules\n", path,
		      check.rows, table->count, pruned->count, unwind_table_size(pruned),
		      rules->count);
}

static void tables_say_what_the_rows_say(void **state)
{
	(void)state;
	check_against_rows(libc_path());
	check_against_rows(libstdcxx_path());
	check_against_rows(python_path());
}

static void an_aarch64_table_says_what_the_rows_say(void **state)
{
	(void)state;
	check_against_rows(aarch64_libc_path());
}

/* --- against the calls that a disassembler finds --- */

/* objdump's line of a call: address, bytes, mnemonic. Its last byte's address, or 0. */
static uint64_t call_end(char *line, bool aarch64)
{
	char *bytes = strchr(line, ':'), *mnemonic;
	uint64_t address = strtoull(line, NULL, 16);
	size_t length = 0;

	if (!bytes || bytes[1] != (aarch64 ? ' ' : '\t') || !address)
		return 0;
	mnemonic = strchr(bytes + 2, '\t');
	if (!mnemonic)
		return 0;
	if (aarch64) {
		bool is_call = !strncmp(mnemonic, "\tbl\t", 4) || !strncmp(mnemonic, "\tblr", 4);

		return is_call ? address + 3 : 0;
	}
	/* "call" or "data16 rex.W call": neither "syscall" nor a name with it */
	if (!strstr(mnemonic, "\tcall ") && !strstr(mnemonic, " call "))
		return 0;
	for (char *byte = strtok(bytes + 2, " \t"); byte && strlen(byte) == 2;
	     byte = strtok(NULL, " \t"))
		length++;
	return address + length - 1;
}

static void check_calls(const char *path, const char *disassembler)
{
	IMAGE *image = path ? open_path(path) : NULL;
	RULES *rules = new_rules();
	TABLE *table = NULL, *pruned = NULL;
	char command[512], line[1024];
	size_t calls = 0, differences = 0, without = 0;
	FILE *listing;

	if (!image)
		skip();
	table = build(image, false, rules);
	pruned = build(image, true, rules);
	snprintf(command, sizeof(command), "%s %s 2>/dev/null", disassembler, path);
	listing = popen(command, "r");
	assert_non_null(listing);
	while (fgets(line, sizeof(line), listing)) {
		uint64_t end = call_end(line, image->machine == EM_AARCH64);

		if (!end)
			continue;
		calls++;
		without += unwind_table_find(table, end) == UNWIND_RULE_END;
		if (unwind_table_find(table, end) != unwind_table_find(pruned, end) &&
		    differences++ < 5)
			print_error("%s: call ending at %" PRIx64 " differs\n", path, end);
	}
	pclose(listing);
	print_message("%s: %zu calls, %zu of them without a rule\n", path, calls, without);
	assert_true(calls > 1000);
	assert_int_equal(differences, 0);
}

static void pruning_keeps_the_rule_of_every_call(void **state)
{
	(void)state;
	check_calls(libc_path(), "objdump -dw");
	check_calls(libstdcxx_path(), "objdump -dw");
	check_calls(python_path(), "objdump -dw");
	if (getenv("CALLS_ALSO"))
		check_calls(getenv("CALLS_ALSO"), "objdump -dw");
}

static void pruning_keeps_the_rule_of_every_aarch64_call(void **state)
{
	(void)state;
	if (!run("command -v llvm-objdump >/dev/null"))
		skip();
	check_calls(aarch64_libc_path(), "llvm-objdump -d");
}

/* --- programs made for it
 * ------------------------------------------------------------------------- */

static void assembly_gets_the_rules_it_asks_for(void **state)
{
	RULES *rules = new_rules();
	TABLE *table = NULL, *pruned = NULL;
	const struct unwind_rule *rule;
	char path[128];

	(void)state;
	compile("asm.s", source_asm, "", path, sizeof(path));
	{
		IMAGE *image = open_path(path);

		table = build(image, false, rules);
		pruned = build(image, true, rules);
	}
	/* call rel32 is 5 bytes */
	assert_int_equal(kind_at(pruned, rules, label(path, "outermost") + 4), UNWIND_STOP);
	assert_int_equal(kind_at(pruned, rules, label(path, "no_cfi") + 5), UNWIND_END);
	/* CFA in rbx cannot be said */
	assert_int_equal(kind_at(pruned, rules, label(path, "lazy_frame") + 12), UNWIND_END);
	assert_int_equal(table->stats.lost[UNWIND_LOST_CFA], 1);
	/* behind restore_state: push 1, sub 4, test 2, jz 2, add 4, pop 1, ret 1, call *%rax 2 */
	rule = rule_at(pruned, rules, label(path, "branchy") + 16);
	assert_int_equal(unwind_rule_kind(rule), UNWIND_SP);
	assert_int_equal(unwind_rule_cfa_off(rule), 80);
	assert_int_equal(rule->fp_slot, -2);
	assert_int_equal(rule->ra_slot, -1);
	/* A handler returns to the trampoline's first byte: the lookup is one before. */
	rule = rule_at(pruned, rules, label(path, "handler_return") - 1);
	assert_int_equal(unwind_rule_kind(rule), UNWIND_SIGNAL);
	assert_true(unwind_rule_exact_pc(rule));
	assert_int_equal(kind_at(pruned, rules, label(path, "handler_return")), UNWIND_SIGNAL);
}

static void a_sigreturn_trampoline_without_cfi_is_found(void **state)
{
	RULES *rules = new_rules();
	TABLE *pruned = NULL;
	char path[128];

	(void)state;
	compile("asm.s", source_asm, "", path, sizeof(path));
	{
		IMAGE *image = open_path(path);

		pruned = build(image, true, rules);
	}
	assert_int_equal(kind_at(pruned, rules, label(path, "trampoline") - 1), UNWIND_SIGNAL);
	assert_int_equal(kind_at(pruned, rules, label(path, "trampoline")), UNWIND_SIGNAL);
}

static void a_thread_in_a_system_call_is_looked_up_rightly(void **state)
{
	RULES *rules = new_rules();
	TABLE *pruned = NULL;
	char path[128];
	uint64_t waits;

	(void)state;
	compile("asm.s", source_asm, "", path, sizeof(path));
	{
		IMAGE *image = open_path(path);

		pruned = build(image, true, rules);
	}
	waits = label(path, "waits");
	/* push 1, sub imm32 7, mov 5, then the syscall: at it when restarted, behind it when not */
	assert_int_equal(unwind_rule_cfa_off(rule_at(pruned, rules, waits + 13)), 176);
	assert_int_equal(unwind_rule_cfa_off(rule_at(pruned, rules, waits + 15)), 176);
}

static void realigned_frames_and_the_plt_get_their_kinds(void **state)
{
	RULES *rules = new_rules();
	char path[128];
	bool deref = false, plt = false, large = false;

	(void)state;
	compile("frames.c", source_frames, "-O2 -mavx2 -Wl,-z,lazy -fcf-protection=none", path,
		sizeof(path));
	{
		IMAGE *image = open_path(path);
		TABLE *table = build(image, false, rules);
		TABLE *pruned = build(image, true, rules);

		check_form(table);
		for (size_t i = 0; i < pruned->count; i++) {
			const struct unwind_rule *rule = &rules->items[pruned->items[i].rule];

			deref |= unwind_rule_kind(rule) == UNWIND_DEREF_FP;
			large |= unwind_rule_cfa_off(rule) > 3000000;
		}
		for (size_t i = 0; i < table->count; i++) {
			const struct unwind_rule *rule = &rules->items[table->items[i].rule];

			plt |= unwind_rule_kind(rule) == UNWIND_PLT &&
			       unwind_rule_cfa_off(rule) == 8 && rule->fp_slot == 11;
		}
	}
	assert_true(deref);
	assert_true(large);
#ifdef __x86_64__
	assert_true(plt);
#endif
}

static void an_image_without_cfi_ends_everywhere(void **state)
{
	RULES *rules = new_rules();
	char path[128];

	(void)state;
	compile("bare.s", ".globl _start\n_start: call _start\n hlt\n", "-nostdlib -static", path,
		sizeof(path));
	{
		IMAGE *image = open_path(path);
		TABLE *table = build(image, true, rules);

		check_form(table);
		assert_int_equal(unwind_table_find(table, label(path, "_start") + 4),
				 UNWIND_RULE_END);
	}
}

/* --- one by one
 * ------------------------------------------------------------------------------------- */

static void addresses_outside_the_pages_have_no_rule(void **state)
{
	struct unwind_row rows[] = {{0, 0}, {0x100, 1}, {0, 1}, {0x8000, 2}, {0xffff, 3}};
	uint32_t index[] = {0, 2, 5};
	struct unwind_table table = {.items = rows,
				     .count = 5,
				     .page_index = index,
				     .first_page = 0x10,
				     .page_count = 2};

	(void)state;
	assert_int_equal(unwind_table_find(&table, 0), UNWIND_RULE_END);
	assert_int_equal(unwind_table_find(&table, 0xfffff), UNWIND_RULE_END);
	assert_int_equal(unwind_table_find(&table, 0x100000), 0);
	assert_int_equal(unwind_table_find(&table, 0x1000ff), 0);
	assert_int_equal(unwind_table_find(&table, 0x100100), 1);
	assert_int_equal(unwind_table_find(&table, 0x10ffff), 1);
	assert_int_equal(unwind_table_find(&table, 0x110000), 1);
	assert_int_equal(unwind_table_find(&table, 0x117fff), 1);
	assert_int_equal(unwind_table_find(&table, 0x118000), 2);
	assert_int_equal(unwind_table_find(&table, 0x11fffe), 2);
	assert_int_equal(unwind_table_find(&table, 0x11ffff), 3);
	assert_int_equal(unwind_table_find(&table, 0x120000), UNWIND_RULE_END);
	assert_int_equal(unwind_table_find(&table, UINT64_MAX), UNWIND_RULE_END);
}

static void equal_rules_share_a_number_until_the_table_is_full(void **state)
{
	RULES *rules = new_rules();
	struct unwind_rule rule = {.fp_slot = 1};

	(void)state;
	for (int i = 1; i < UNWIND_RULES_MAX; i++) {
		rule.cfa = i << UNWIND_CFA_SHIFT | UNWIND_SP;
		assert_int_equal(unwind_rules_intern(rules, &rule), i);
		assert_int_equal(unwind_rules_intern(rules, &rule), i);
	}
	assert_int_equal(rules->overflow, 0);
	rule.cfa = UNWIND_FP;
	assert_int_equal(unwind_rules_intern(rules, &rule), UNWIND_RULE_END);
	assert_int_equal(rules->overflow, 1);
	rule.cfa = 77 << UNWIND_CFA_SHIFT | UNWIND_SP;
	assert_int_equal(unwind_rules_intern(rules, &rule), 77);
}

static struct cfi_row plain_row(int32_t cfa_off)
{
	return (struct cfi_row){.cfa_kind = CFI_CFA_REG,
				.cfa_reg = 7,
				.cfa_off = cfa_off,
				.ra = {.where = CFI_AT_CFA, .off = -8}};
}

static void rows_become_rules_or_say_why_not(void **state)
{
	struct unwind_rule rule;
	enum unwind_loss loss;
	struct cfi_row row = plain_row(-24);

	(void)state;
	assert_true(unwind_rule_from_row(EM_X86_64, &row, &rule, &loss));
	assert_int_equal(unwind_rule_cfa_off(&rule), -24);
	assert_int_equal(rule.fp_slot, UNWIND_SLOT_SAME);
	row.cfa_off = UNWIND_CFA_MAX + 1;
	assert_false(unwind_rule_from_row(EM_X86_64, &row, &rule, &loss));
	assert_int_equal(loss, UNWIND_LOST_RANGE);
	row = plain_row(16);
	row.sp_ruled = true;
	assert_false(unwind_rule_from_row(EM_X86_64, &row, &rule, &loss));
	assert_int_equal(loss, UNWIND_LOST_SP);
	row = plain_row(16);
	row.ra.off = -16;
	assert_false(unwind_rule_from_row(EM_X86_64, &row, &rule, &loss));
	assert_int_equal(loss, UNWIND_LOST_RA);
	row = plain_row(16);
	row.cfa_reg = 10;
	assert_false(unwind_rule_from_row(EM_X86_64, &row, &rule, &loss));
	assert_int_equal(loss, UNWIND_LOST_CFA);
	/* OpenSSL's assembly: CFA = *(rsp + 40) + 8 */
	row = plain_row(40);
	row.cfa_kind = CFI_CFA_DEREF;
	row.cfa_add = 8;
	assert_true(unwind_rule_from_row(EM_X86_64, &row, &rule, &loss));
	assert_int_equal(unwind_rule_kind(&rule), UNWIND_DEREF_SP);
	assert_int_equal(rule.ra_slot, 0);
	/* A frame pointer that is saved where no slot reaches: lost, and the frame still good. */
	row = plain_row(16);
	row.fp = (struct cfi_place){.where = CFI_AT_CFA, .off = -20};
	assert_true(unwind_rule_from_row(EM_X86_64, &row, &rule, &loss));
	assert_int_equal(rule.fp_slot, UNWIND_SLOT_UNDEFINED);
	/* aarch64: a leaf, and a large frame that saves lr at its bottom */
	row = (struct cfi_row){.cfa_kind = CFI_CFA_REG, .cfa_reg = 31};
	assert_true(unwind_rule_from_row(EM_AARCH64, &row, &rule, &loss));
	assert_int_equal(rule.ra_slot, UNWIND_SLOT_SAME);
	row.cfa_off = 65536;
	row.ra = (struct cfi_place){.where = CFI_AT_CFA, .off = -65536 + 8};
	row.fp = (struct cfi_place){.where = CFI_AT_CFA, .off = -65536};
	assert_true(unwind_rule_from_row(EM_AARCH64, &row, &rule, &loss));
	assert_int_equal(rule.ra_slot, -8191);
	assert_int_equal(rule.fp_slot, -8192);
}

/* --- a walk
 * ------------------------------------------------------------------------------------------- */

#ifdef __x86_64__

#define FRAMES 64

struct frame {
	uint64_t pc, sp, fp;
	bool exact;
};

struct walk {
	struct frame at;
	void *pcs[FRAMES];
	size_t count;
	enum unwind_kind last;
	struct unwind_rules *rules;
	bool prune; /* but for the first frame, whose pc follows no call */
};

static int find_object(struct dl_phdr_info *info, size_t size, void *user)
{
	uint64_t *wanted = user; /* [0] pc in, [1] load bias out, [2] name out */

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *phdr = &info->dlpi_phdr[i];
		uint64_t start = info->dlpi_addr + phdr->p_vaddr;

		if (phdr->p_type == PT_LOAD && wanted[0] >= start &&
		    wanted[0] - start < phdr->p_memsz) {
			wanted[1] = info->dlpi_addr;
			wanted[2] = (uint64_t)(uintptr_t)info->dlpi_name;
			return 1;
		}
	}
	return 0;
}

static uint64_t word_at(uint64_t address)
{
	return *(const uint64_t *)(uintptr_t)address;
}

/* One step by the rule's definition in include/unwind.h. False where the walk ends. */
static bool step(struct walk *w, const struct unwind_rule *rule, uint64_t pc)
{
	struct frame *at = &w->at;
	uint64_t off = (uint64_t)(int64_t)unwind_rule_cfa_off(rule), cfa, base = at->sp;
	bool deref = false;

	w->last = (enum unwind_kind)unwind_rule_kind(rule);
	switch (w->last) {
	case UNWIND_SIGNAL:
		at->pc = word_at(at->sp + UNWIND_SIGFRAME_X86_64_PC);
		at->fp = word_at(at->sp + UNWIND_SIGFRAME_X86_64_FP);
		at->sp = word_at(at->sp + UNWIND_SIGFRAME_X86_64_SP);
		at->exact = true;
		return true;
	case UNWIND_FP:
	case UNWIND_DEREF_FP:
		base = at->fp;
		break;
	case UNWIND_SP:
	case UNWIND_DEREF_SP:
	case UNWIND_PLT:
		break;
	default:
		return false;
	}
	cfa = base + off;
	if (w->last == UNWIND_DEREF_FP || w->last == UNWIND_DEREF_SP) {
		deref = true;
		cfa = word_at(cfa) + 8 + 8 * (uint64_t)(int64_t)rule->ra_slot;
	} else if (w->last == UNWIND_PLT) {
		cfa += (pc & 15) >= (uint64_t)rule->fp_slot ? 8 : 0;
	}
	if (w->last != UNWIND_PLT && rule->fp_slot != UNWIND_SLOT_SAME &&
	    rule->fp_slot != UNWIND_SLOT_UNDEFINED)
		at->fp = word_at((deref ? base : cfa) + 8 * (uint64_t)(int64_t)rule->fp_slot);
	at->pc = word_at(cfa - 8);
	at->sp = cfa;
	at->exact = unwind_rule_exact_pc(rule);
	return true;
}

static bool walk_step(struct walk *w)
{
	uint64_t pc = w->at.exact ? w->at.pc : w->at.pc - 1;
	uint64_t found[3] = {pc};
	const char *path;

	if (!dl_iterate_phdr(find_object, found))
		return false;
	path = (const char *)(uintptr_t)found[2];
	{
		IMAGE *image = open_path(*path ? path : "/proc/self/exe");
		TABLE *table = NULL;

		if (!image)
			return false; /* the vDSO */
		table = build(image, w->prune && w->count, w->rules);
		return step(w, rule_at(table, w->rules, pc - found[1]), pc);
	}
}

static void walk_from(struct walk *w)
{
	while (w->count < FRAMES && walk_step(w))
		w->pcs[w->count++] = (void *)(uintptr_t)w->at.pc;
}

/* Both walks from here; out of line, so that the caller's frame is an ordinary one. */
struct both {
	struct walk walk;
	void *reference[FRAMES];
	size_t reference_count;
};

static struct both both;

/* libgcc's unwinder (its header is called unwind.h, as include/unwind.h is). */
struct _Unwind_Context;
int _Unwind_Backtrace(int (*trace)(struct _Unwind_Context *, void *), void *user);
uintptr_t _Unwind_GetIP(struct _Unwind_Context *context);

static int note_reference(struct _Unwind_Context *context, void *user)
{
	void *pc = (void *)_Unwind_GetIP(context);

	(void)user;
	if (pc && both.reference_count < FRAMES)
		both.reference[both.reference_count++] = pc;
	return 0;
}

static __attribute__((noinline)) void walk_here(void)
{
	struct frame at = {.exact = true};

	__asm__ volatile("leaq 0(%%rip), %0\n\tmovq %%rsp, %1\n\tmovq %%rbp, %2"
			 : "=r"(at.pc), "=r"(at.sp), "=r"(at.fp));
	both.walk.at = at;
	both.walk.count = 0;
	walk_from(&both.walk);
	_Unwind_Backtrace(note_reference, NULL);
	__asm__ volatile(""); /* no tail call: this frame has to be there */
}

/* libgcc's begins in walk_here itself, the walk with its caller. */
static void assert_same_walk(size_t at_least)
{
	assert_int_equal(both.walk.last, UNWIND_STOP);
	assert_true(both.walk.count >= at_least);
	assert_int_equal(both.walk.count + 1, both.reference_count);
	for (size_t i = 0; i < both.walk.count; i++)
		assert_ptr_equal(both.walk.pcs[i], both.reference[i + 1]);
}

static int order(const void *left, const void *right)
{
	if (!both.walk.count)
		walk_here();
	return *(const int *)left - *(const int *)right;
}

static void sort_something(void)
{
	int numbers[] = {3, 1, 2, 5, 4, 7, 6};

	qsort(numbers, sizeof(numbers) / sizeof(*numbers), sizeof(*numbers), order);
}

static void start_walks(bool prune)
{
	unwind_rules_free(both.walk.rules);
	both = (struct both){.walk = {.rules = new_rules(), .prune = prune}};
}

static void a_walk_says_what_the_unwinder_says(void **state)
{
	(void)state;
	for (int prune = 0; prune < 2; prune++) {
		start_walks(prune);
		sort_something();
		assert_same_walk(6);
	}
	start_walks(false);
}

static void on_signal(int number)
{
	(void)number;
	sort_something();
}

/* raise() is interrupted behind its system call, where a pruned table is right too. */
static void a_walk_goes_through_a_signal_frame(void **state)
{
	(void)state;
	for (int prune = 0; prune < 2; prune++) {
		start_walks(prune);
		assert_true(signal(SIGUSR1, on_signal) != SIG_ERR);
		raise(SIGUSR1);
		assert_same_walk(10);
		signal(SIGUSR1, SIG_DFL);
	}
	start_walks(false);
}

/* A realigned frame with alloca keeps its CFA in memory: DEREF in a real walk. */
static __attribute__((noinline)) void realigned(int n)
{
	_Alignas(64) volatile char wide[64];
	volatile char *local = __builtin_alloca((size_t)n);

	wide[n] = local[0] = 1;
	sort_something();
	wide[0] = wide[n] + local[0];
}

static void a_walk_goes_through_a_realigned_frame(void **state)
{
	(void)state;
	start_walks(true);
	realigned(10);
	assert_same_walk(7);
	start_walks(false);
}

#else

static void a_walk_says_what_the_unwinder_says(void **state)
{
	(void)state;
	skip();
}

#define a_walk_goes_through_a_signal_frame    a_walk_says_what_the_unwinder_says
#define a_walk_goes_through_a_realigned_frame a_walk_says_what_the_unwinder_says

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_say_what_the_rows_say),
		cmocka_unit_test(an_aarch64_table_says_what_the_rows_say),
		cmocka_unit_test(pruning_keeps_the_rule_of_every_call),
		cmocka_unit_test(pruning_keeps_the_rule_of_every_aarch64_call),
		cmocka_unit_test(assembly_gets_the_rules_it_asks_for),
		cmocka_unit_test(a_sigreturn_trampoline_without_cfi_is_found),
		cmocka_unit_test(a_thread_in_a_system_call_is_looked_up_rightly),
		cmocka_unit_test(realigned_frames_and_the_plt_get_their_kinds),
		cmocka_unit_test(an_image_without_cfi_ends_everywhere),
		cmocka_unit_test(addresses_outside_the_pages_have_no_rule),
		cmocka_unit_test(equal_rules_share_a_number_until_the_table_is_full),
		cmocka_unit_test(rows_become_rules_or_say_why_not),
		cmocka_unit_test(a_walk_says_what_the_unwinder_says),
		cmocka_unit_test(a_walk_goes_through_a_signal_frame),
		cmocka_unit_test(a_walk_goes_through_a_realigned_frame),
	};

	return cmocka_run_group_tests_name("unwind_table", tests, scratch_make, scratch_remove);
}
