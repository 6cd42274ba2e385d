#include "target/stack_walk.h"

#include "binary/unwind_table.h"
#include "target/return_address.h"
#include "util/clock.h"
#include "util/hash_index.h"
#include "util/vec.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#if defined(__aarch64__)
#define SIGFRAME_SP UNWIND_SIGFRAME_AARCH64_SP
#define SIGFRAME_FP UNWIND_SIGFRAME_AARCH64_FP
#define SIGFRAME_PC UNWIND_SIGFRAME_AARCH64_PC
/* Pointer authentication lies above the bits of an address of user space. */
#define PC_MASK ((1ull << 48) - 1)
/* From the stack pointer at a function's entry to its CFA. */
#define ENTRY_SLOT 0
#else
#define SIGFRAME_SP UNWIND_SIGFRAME_X86_64_SP
#define SIGFRAME_FP UNWIND_SIGFRAME_X86_64_FP
#define SIGFRAME_PC UNWIND_SIGFRAME_X86_64_PC
#define PC_MASK	    (~0ull)
#define ENTRY_SLOT  8
#endif

/* Words of a stack that are looked through for a return address. */
#define SCAN_WORDS 64

/* What a step returns where there is another frame. */
#define WALK_CONTINUES STACK_WALK_END_COUNT

/* One file: the table, and the rules that it refers to by number. */
struct table {
	dev_t dev; /* the file's identity, as image_compare_files() has it */
	ino_t inode;
	uint64_t size;
	struct unwind_table *rows; /* owned; NULL: none to be had */
	struct unwind_rule *rules; /* owned */
	bool bare;		   /* there is no rule at all in it */
};

struct stack_walker {
	struct {
		struct table *items;
		size_t count, capacity;
	} tables;
	struct hash_index index;
	int64_t build_ns; /* of CPU time, used so far */
	struct stack_walker_stats stats;
};

const char *stack_walk_end_text(enum stack_walk_end end)
{
	static const char *const texts[] = {
#define X(id, text) [id] = text,
		STACK_WALK_ENDS(X)
#undef X
	};

	return (unsigned int)end < STACK_WALK_END_COUNT ? texts[end] : "?";
}

int stack_walker_new(struct stack_walker **out)
{
	struct stack_walker *walker = calloc(1, sizeof(*walker));

	if (!walker)
		return -ENOMEM;
	*out = walker;
	return 0;
}

void stack_walker_free(struct stack_walker *walker)
{
	if (!walker)
		return;
	vec_for_each(table, &walker->tables) {
		unwind_table_free(table->rows);
		free(table->rules);
	}
	free(walker->tables.items);
	hash_index_deinit(&walker->index);
	free(walker);
}

void stack_walker_stats(const struct stack_walker *walker, struct stack_walker_stats *out)
{
	*out = walker->stats;
}

/* --- tables --- */

static bool may_build(const struct stack_walker *walker)
{
	return walker->tables.count < STACK_WALK_IMAGES_MAX &&
	       walker->stats.table_bytes < STACK_WALK_TABLES_MAX &&
	       walker->build_ns < STACK_WALK_BUILD_NS_MAX;
}

/* The table of one image, with rules of its own. What cannot be read has none. 0 or -ENOMEM. */
static int build(const struct image *image, struct table *table)
{
	struct unwind_options options = {.prune = false};
	struct unwind_rules *rules;
	int err = unwind_rules_new(&rules);

	if (err)
		return err;
	err = unwind_table_build(image, &options, rules, &table->rows);
	if (!err) {
		table->rules = calloc(rules->count, sizeof(*table->rules));
		if (table->rules)
			memcpy(table->rules, rules->items, rules->count * sizeof(*table->rules));
		else
			err = -ENOMEM;
		table->bare = rules->count == 1;
	}
	unwind_rules_free(rules);
	return err == -ENOMEM ? err : 0;
}

static void build_within_limits(struct stack_walker *walker, const struct image *image,
				struct table *table)
{
	int64_t before = clock_now(CLOCK_THREAD_CPUTIME_ID);
	size_t size;

	if (!may_build(walker)) {
		walker->stats.left_out++;
		return;
	}
	if (build(image, table) || !table->rows)
		walker->stats.unreadable++;
	walker->build_ns += clock_now(CLOCK_THREAD_CPUTIME_ID) - before;
	if (!table->rows)
		return;
	size = unwind_table_size(table->rows);
	if (!table->rules || size > STACK_WALK_TABLES_MAX - walker->stats.table_bytes) {
		unwind_table_free(table->rows);
		table->rows = NULL;
		walker->stats.left_out++;
		return;
	}
	walker->stats.images++;
	walker->stats.table_bytes += size;
}

static bool is_table_of(const void *owner, uint32_t index, const void *key)
{
	const struct table *a = &((const struct stack_walker *)owner)->tables.items[index];
	const struct table *b = key;

	return a->dev == b->dev && a->inode == b->inode && a->size == b->size;
}

/* The table of an image, made where it is new. NULL: there is none. 0 or -ENOMEM. */
static int find_table(struct stack_walker *walker, const struct image *image,
		      const struct table **out)
{
	struct table key = {.dev = image->dev, .inode = image->file_inode, .size = image->size};
	uint64_t hash;
	uint32_t index;

	/* The vDSO has another file in each process, and is the same in all. */
	if (image->path[0] == '[')
		key.dev = key.inode = 0;
	hash = hash_bytes(HASH_START, &key.dev, sizeof(key.dev));
	hash = hash_bytes(hash, &key.inode, sizeof(key.inode));
	if (hash_index_find(&walker->index, hash, is_table_of, walker, &key, &index)) {
		*out = &walker->tables.items[index];
		return 0;
	}
	*out = NULL;
	if (walker->tables.count >= STACK_WALK_IMAGES_MAX) {
		walker->stats.left_out++;
		return 0;
	}
	build_within_limits(walker, image, &key);
	if (hash_index_reserve(&walker->index) || vec_push(&walker->tables, key)) {
		unwind_table_free(key.rows);
		free(key.rules);
		return -ENOMEM;
	}
	index = (uint32_t)(walker->tables.count - 1);
	hash_index_add(&walker->index, hash, index);
	*out = &walker->tables.items[index];
	return 0;
}

/* --- one frame --- */

struct walk {
	const struct process *process;
	const struct stack_state *start;
	uint64_t pc, sp, fp, lr;
	bool exact;    /* pc is no return address: the first, and what a signal has interrupted */
	bool has_lr;   /* lr is the frame's own */
	bool fp_known; /* rules have kept track of it */
	bool unsure;   /* found without a rule */
};

static bool read_word(const struct walk *walk, uint64_t address, uint64_t *word)
{
	uint64_t offset = address - walk->start->sp;

	if (address < walk->start->sp || offset > walk->start->stack_size ||
	    walk->start->stack_size - offset < sizeof(*word))
		return false;
	memcpy(word, walk->start->stack + offset, sizeof(*word));
	return true;
}

/*
 * The return address of a frame whose caller's stack begins at cfa: pc, or what a return probe has
 * replaced there.
 */
static uint64_t return_address(const struct walk *walk, uint64_t pc, uint64_t cfa)
{
	const struct replaced_returns *replaced = walk->start->replaced;

	if (!replaced || pc != replaced->trampoline)
		return pc;
	for (size_t i = 0; i < replaced->count; i++) {
		if (replaced->items[i].stack + ENTRY_SLOT == cfa)
			return replaced->items[i].original;
	}
	return pc;
}

/* The same, of a return address at `slot` with the caller's stack behind it. */
static bool read_return_address(const struct walk *walk, uint64_t slot, uint64_t *pc)
{
	if (!read_word(walk, slot, pc))
		return false;
	*pc = return_address(walk, *pc, slot + 8);
	return true;
}

/* To the caller whose return address is at `slot`, which has no rule to tell of more. */
static enum stack_walk_end leave(struct walk *walk, uint64_t pc, uint64_t slot)
{
	walk->pc = pc & PC_MASK;
	walk->sp = slot + 8;
	walk->exact = walk->has_lr = false;
	walk->unsure = true;
	return WALK_CONTINUES;
}

/* The outermost frame has 0 for a frame pointer, by the ABIs of both machines. */
static enum stack_walk_end step_by_pointer(struct walk *walk)
{
	uint64_t slot = walk->fp + 8, fp, pc;

	if (!walk->fp_known)
		return STACK_WALK_NO_RULE;
	if (!walk->fp)
		return STACK_WALK_COMPLETE;
	if (walk->fp < walk->sp || walk->fp & 7)
		return STACK_WALK_NO_RULE;
	if (!read_word(walk, walk->fp, &fp) || !read_return_address(walk, slot, &pc))
		return STACK_WALK_COPY_ENDS;
	walk->fp = fp;
	return leave(walk, pc, slot);
}

/* Does the frame pointer lead to a frame? Code that keeps none may have anything in that register. */
static bool has_frame_pointer(const struct walk *walk)
{
	uint64_t fp, pc;

	return walk->fp_known && walk->fp >= walk->sp && !(walk->fp & 7) &&
	       read_word(walk, walk->fp, &fp) && read_return_address(walk, walk->fp + 8, &pc) &&
	       (fp == 0 || fp > walk->fp) &&
	       return_address_check(walk->process, pc, walk->pc) != RETURN_ADDRESS_NONE;
}

/*
 * Takes the first return address among the words next to the stack pointer, at most `words`. That it
 * be of a call that led here is asked of a leaf only: functions jump to others, too.
 */
static bool step_by_scan(struct walk *walk, int words, enum return_address least)
{
	uint64_t slot = walk->sp, pc;

	if (walk->sp & 7)
		return false;
	for (int i = 0; i < words && read_return_address(walk, slot, &pc); i++, slot += 8) {
		if (return_address_check(walk->process, pc, walk->pc) >= least) {
			leave(walk, pc, slot);
			return true;
		}
	}
	return false;
}

/*
 * Goes out of code of a file for which there is no rule. A leaf's return address is where sp points
 * or, on aarch64, in lr. Code between code that has rules is written by hand, or made by compilers
 * that keep frame pointers; that of a file without any rule does not, as a rule.
 */
static enum stack_walk_end step_without_rule(struct walk *walk, bool bare)
{
	if (walk->has_lr) {
		leave(walk, return_address(walk, walk->lr, walk->sp), walk->sp - 8);
		return WALK_CONTINUES;
	}
	if (walk->exact && step_by_scan(walk, 1, RETURN_ADDRESS_MATCHES))
		return WALK_CONTINUES;
	if ((bare || !has_frame_pointer(walk)) &&
	    step_by_scan(walk, SCAN_WORDS, RETURN_ADDRESS_OTHER))
		return WALK_CONTINUES;
	return step_by_pointer(walk);
}

/*
 * The caller's frame pointer, by a rule of an ordinary kind. What is below sp has been popped already:
 * at a function's end rules go on to name the place where it was, and the register has it again.
 * False: beyond the copy of the stack.
 */
static bool restore_fp(struct walk *walk, const struct unwind_rule *rule, uint64_t from)
{
	uint64_t place = from + 8 * (uint64_t)(int64_t)rule->fp_slot;

	if (rule->fp_slot == UNWIND_SLOT_UNDEFINED)
		walk->fp_known = false;
	else if (rule->fp_slot != UNWIND_SLOT_SAME && place >= walk->sp) {
		walk->fp_known = true;
		return read_word(walk, place, &walk->fp);
	}
	return true;
}

/* Goes out by a rule that tells the CFA (include/unwind.h). */
static enum stack_walk_end step_by_rule(struct walk *walk, const struct unwind_rule *rule)
{
	uint32_t kind = unwind_rule_kind(rule);
	bool by_fp = kind == UNWIND_FP || kind == UNWIND_DEREF_FP;
	bool deref = kind == UNWIND_DEREF_SP || kind == UNWIND_DEREF_FP;
	uint64_t base = by_fp ? walk->fp : walk->sp;
	uint64_t cfa = base + (uint64_t)(int64_t)unwind_rule_cfa_off(rule);
	int64_t ra_slot = rule->ra_slot;

	if (by_fp && !walk->fp_known)
		return STACK_WALK_NO_RULE;
	if (deref) {
		if (!read_word(walk, cfa, &cfa))
			return STACK_WALK_COPY_ENDS;
		cfa += 8 + 8 * (uint64_t)ra_slot;
		ra_slot = -1;
	} else if (kind == UNWIND_PLT && (walk->pc & 15) >= (uint64_t)rule->fp_slot) {
		cfa += 8;
	}
	/* Where a leaf of aarch64 has no frame, the CFA is sp. */
	if (cfa < walk->sp || (cfa == walk->sp && !walk->has_lr))
		return STACK_WALK_NOT_GROWING;
	if (ra_slot == UNWIND_SLOT_SAME) {
		if (!walk->has_lr)
			return STACK_WALK_NO_RULE;
		walk->pc = walk->lr;
	} else if (!read_word(walk, cfa + 8 * (uint64_t)ra_slot, &walk->pc)) {
		return STACK_WALK_COPY_ENDS;
	}
	if (kind != UNWIND_PLT && !restore_fp(walk, rule, deref ? base : cfa))
		return STACK_WALK_COPY_ENDS;
	walk->pc = return_address(walk, walk->pc & PC_MASK, cfa) & PC_MASK;
	walk->sp = cfa;
	walk->exact = unwind_rule_exact_pc(rule);
	walk->has_lr = walk->unsure = false;
	return WALK_CONTINUES;
}

/*
 * Goes out of a signal handler, to the code it interrupted. A handler on a stack of its own comes
 * from one that has not been copied: the next read tells.
 */
static enum stack_walk_end step_by_signal(struct walk *walk)
{
	uint64_t sp, fp, pc;

	if (!read_word(walk, walk->sp + SIGFRAME_SP, &sp) ||
	    !read_word(walk, walk->sp + SIGFRAME_FP, &fp) ||
	    !read_word(walk, walk->sp + SIGFRAME_PC, &pc))
		return STACK_WALK_COPY_ENDS;
#if defined(__aarch64__)
	walk->has_lr = read_word(walk, walk->sp + UNWIND_SIGFRAME_AARCH64_LR, &walk->lr);
#endif
	walk->sp = sp;
	walk->fp = fp;
	walk->pc = pc;
	walk->fp_known = walk->exact = true;
	walk->unsure = false;
	return WALK_CONTINUES;
}

/* --- the walk --- */

/* musl's signal return trampoline has no call frame information: mov $15, %rax; syscall. */
static bool is_sigreturn(const struct image *image, uint64_t vaddr)
{
	static const uint8_t code[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
	uint8_t found[sizeof(code)];

	return image->machine == EM_X86_64 && !image_read(image, vaddr, found, sizeof(found)) &&
	       !memcmp(found, code, sizeof(code));
}

/*
 * The rule at an address. *rule: UNWIND_END where there is none; *bare: nor is there any in its file.
 * 0 or -ENOMEM.
 */
static int find_rule(struct stack_walker *walker, const struct mapping *mapping, uint64_t address,
		     bool exact, struct unwind_rule *rule, bool *bare)
{
	struct image *image = mapping->image;
	const struct table *table;
	uint64_t vaddr;
	int err;

	*rule = (struct unwind_rule){.cfa = UNWIND_END};
	*bare = false;
	if (!image ||
	    !image_offset_to_vaddr(image, address - mapping->start + mapping->offset, &vaddr))
		return 0;
	err = find_table(walker, image, &table);
	if (err || !table || !table->rows)
		return err;
	*bare = table->bare;
	*rule = table->rules[unwind_table_find(table->rows, vaddr)];
	if (unwind_rule_kind(rule) == UNWIND_END && !exact && is_sigreturn(image, vaddr + 1))
		rule->cfa = UNWIND_SIGNAL | UNWIND_EXACT_PC;
	return 0;
}

static enum stack_walk_end step(struct walk *walk, const struct mapping *mapping,
				const struct unwind_rule *rule, bool bare)
{
	switch (unwind_rule_kind(rule)) {
	case UNWIND_END:
		return mapping->image ? step_without_rule(walk, bare) : step_by_pointer(walk);
	case UNWIND_STOP:
		return STACK_WALK_COMPLETE;
	case UNWIND_SIGNAL:
		return step_by_signal(walk);
	default:
		return step_by_rule(walk, rule);
	}
}

/* Has a return probe put a trampoline in place of the return address? It returns to its first byte. */
static bool is_trampoline(const struct process *process, uint64_t pc)
{
	const struct mapping *mapping = process_find(process, pc);

	return mapping && !strcmp(mapping->path, "[uprobes]");
}

/*
 * Keeps the frame that the walk has come to, and finds its rule. WALK_CONTINUES, or how the walk
 * ends. 0 or -ENOMEM.
 */
static int visit_frame(struct stack_walker *walker, struct walk *walk, struct stack_walk *out)
{
	uint64_t at = walk->exact ? walk->pc : walk->pc - 1;
	const struct mapping *mapping = process_find(walk->process, at);
	struct unwind_rule rule;
	bool bare;
	int err;

	out->end =
		STACK_WALK_COMPLETE; /* some thread starts push a 0 where a return address would be */
	if (!walk->pc)
		return 0;
	out->end = STACK_WALK_RETURN_PROBE;
	if (is_trampoline(walk->process, walk->pc))
		return 0;
	out->end = STACK_WALK_TOO_DEEP;
	if (out->count == STACK_WALK_FRAMES)
		return 0;
	out->end = STACK_WALK_NO_MAPPING;
	if (!mapping && out->count)
		return 0;
	/* The first is where the thread was, whatever is known of it. */
	out->addresses[out->count++] = at;
	out->unsure += walk->unsure;
	if (!mapping)
		return 0;
	err = find_rule(walker, mapping, at, walk->exact, &rule, &bare);
	if (!err)
		out->end = step(walk, mapping, &rule, bare);
	return err;
}

int stack_walk(struct stack_walker *walker, const struct process *process,
	       const struct stack_state *state, struct stack_walk *out)
{
	struct walk walk = {
		.process = process,
		.start = state,
		.pc = state->pc,
		.sp = state->sp,
		.fp = state->fp,
		.lr = state->lr & PC_MASK,
		.exact = true,
#if defined(__aarch64__)
		.has_lr = true,
#endif
		.fp_known = true,
	};

	out->count = out->unsure = 0;
	do {
		int err = visit_frame(walker, &walk, out);

		if (err)
			return err;
	} while (out->end == WALK_CONTINUES);
	return 0;
}
