/*
 * The walk: from the entry of an allocating function to the thread's first frame.
 *
 * Distribution binaries have no frame pointers, so each frame's size is looked up in compact tables
 * that were made from the images' call frame information (include/unwind.h says what they hold, and
 * how they are searched). The walk starts where everything is known: at a function's entry the
 * return address is at [sp], and the caller's frame begins above it. From there on only return
 * addresses are looked up: in the target's mappings, then in the page of the image's rows. What has
 * no rule (code made at run time, hand-written assembly) is passed by the frame pointer, and the
 * frame found so is marked.
 *
 * The stack is hostile memory: every read can fail, and each frame must lie above the last, so that
 * a walk ends. Each ends with a reason.
 */
#ifndef ALLOCTRACE_STACK_BPF_H
#define ALLOCTRACE_STACK_BPF_H

#include "unwind_arch.bpf.h"

/* Pending return probes that are looked through for a return address; the kernel allows 64. */
#define RETURN_INSTANCES_MAX 64

/* Bytes that the first frame has below argc: alignment, and a word pushed for it. */
#define FIRST_FRAME_MAX 64

/* What a step returns where there is another frame. */
#define WALK_CONTINUES WALK_END_COUNT

/* Returns a claimed buffer or NULL; to be released with scratch_release(). */
static __always_inline struct scratch *scratch_claim(void)
{
	for (__u32 i = 0; i < SCRATCH_COUNT; i++) {
		__u32 key = i;
		struct scratch *scratch = bpf_map_lookup_elem(&scratches, &key);

		if (scratch && !__sync_val_compare_and_swap(&scratch->busy, 0, 1))
			return scratch;
	}
	return NULL;
}

static __always_inline void scratch_release(struct scratch *scratch)
{
	__sync_lock_test_and_set(&scratch->busy, 0);
}

static __always_inline void walk_add(struct scratch *scratch, __u64 frame)
{
	struct walk *walk = &scratch->walk;
	__u32 at = walk->count;

	if (at >= MAX_FRAMES) /* it is not: for the verifier */
		return;
	scratch->stack.frames[at] = frame;
	walk->count = at + 1;
	walk->hash = stack_mix(walk->hash, frame);
}

static __always_inline bool mapping_holds(const struct unwind_mapping *mapping, __u64 pc)
{
	return pc >= mapping->start && pc < mapping->end;
}

/*
 * Binary searches choose their half by a mask and not by a branch: no branch to mispredict, and one
 * path for the verifier where there would be 2^16.
 */
static __always_inline void narrow(__u32 *low, __u32 *high, __u32 middle, __u32 below)
{
	*high ^= (*high ^ middle) & below;
	*low ^= (*low ^ middle) & ~below;
}

/* The mapping that holds pc: that of the frame before, or the last that starts at or below it. */
static __always_inline struct unwind_mapping *mapping_find(struct walk *walk, __u64 pc)
{
	__u32 low = walk->slice >> 32, high = low + (__u32)walk->slice, key = walk->mapping;
	struct unwind_mapping *mapping = bpf_map_lookup_elem(&mappings, &key);

	if (low == high) /* nothing known: what is at `key` is another target's */
		return NULL;
	if (mapping && mapping_holds(mapping, pc))
		return mapping;
	for (int i = 0; i < MAPPING_SEARCH_STEPS && high - low > 1; i++) {
		key = low + (high - low) / 2;
		mapping = bpf_map_lookup_elem(&mappings, &key);
		if (!mapping)
			return NULL;
		/* Addresses of user space are positive: the sign of the difference tells. */
		narrow(&low, &high, key, (__s64)(pc - mapping->start) >> 63);
	}
	key = low;
	mapping = bpf_map_lookup_elem(&mappings, &key);
	if (!mapping || !mapping_holds(mapping, pc))
		return NULL;
	walk->mapping = key;
	return mapping;
}

static __always_inline struct unwind_row *row_at(__u32 number)
{
	__u32 element = number / 2;
	struct unwind_row_pair *pair = bpf_map_lookup_elem(&unwind_rows, &element);

	return pair ? &pair->rows[number % 2] : NULL;
}

/* The rule in force at pc, by the search of include/unwind.h. NULL: none. */
static __always_inline struct unwind_rule *rule_find(const struct unwind_mapping *mapping, __u64 pc)
{
	const struct unwind_image *image = &mapping->image;
	__u64 vaddr = pc - mapping->bias;
	__u32 key = (vaddr >> UNWIND_PAGE_SHIFT) - image->first_page, low, high, rule;
	struct unwind_page *page;
	struct unwind_row *row;

	if (vaddr >> UNWIND_PAGE_SHIFT > ~0U || key >= image->page_count)
		return NULL;
	key += image->first_index;
	page = bpf_map_lookup_elem(&unwind_pages, &key);
	if (!page)
		return NULL;
	low = image->first_row + page->low;
	high = image->first_row + page->high;
	for (int i = 0; i < UNWIND_SEARCH_STEPS && high - low > 1; i++) {
		__u32 middle = low + (high - low) / 2;

		row = row_at(middle);
		if (!row)
			return NULL;
		narrow(&low, &high, middle,
		       (__s32)((vaddr & (UNWIND_PAGE_SIZE - 1)) - row->pc_low) >> 31);
	}
	row = row_at(low);
	if (!row)
		return NULL;
	rule = row->rule;
	return bpf_map_lookup_elem(&unwind_rules, &rule);
}

struct trampoline {
	struct return_instance *instance;
	__u64 slot;
	__u64 pc; /* 0: not found */
};

static long trampoline_step(__u64 index, struct trampoline *search)
{
	struct return_instance *instance = search->instance;

	if (!instance)
		return 1;
	if (BPF_CORE_READ(instance, stack) == search->slot) {
		search->pc = BPF_CORE_READ(instance, orig_ret_vaddr);
		return 1;
	}
	search->instance = BPF_CORE_READ(instance, next);
	return 0;
}

/*
 * A pending return probe has put a trampoline where the return address was. The kernel keeps the
 * original, with the place it was at. 0: the address at that place is what it seems.
 */
static __always_inline __u64 trampoline_original(__u64 slot)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct trampoline search = {
		.instance = BPF_CORE_READ(task, utask, return_instances),
		.slot = slot,
	};

	if (search.instance)
		bpf_loop(RETURN_INSTANCES_MAX, trampoline_step, &search, 0);
	return search.pc;
}

static __always_inline bool read_word(__u64 address, __u64 *word)
{
	return !bpf_probe_read_user(word, sizeof(*word), (void *)address);
}

/*
 * Is this the frame of a program's first instruction? The kernel has put argc where its stack
 * begins. glibc's dynamic linker runs all constructors from there (_dl_start_user), by code that
 * has no rules.
 */
static __always_inline bool is_first_frame(const struct walk *walk)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 first = BPF_CORE_READ(task, mm, start_stack);

	return walk->sp <= first && first - walk->sp < FIRST_FRAME_MAX;
}

/* Goes out by the frame pointer. WALK_CONTINUES, or how the walk ends. */
static __always_inline __u32 step_by_pointer(struct walk *walk)
{
	__u64 frame[2]; /* saved frame pointer, return address */

	if (is_first_frame(walk))
		return WALK_COMPLETE;
	if (walk->fp < walk->sp || walk->fp & 7)
		return WALK_NO_RULE;
	if (bpf_probe_read_user(frame, sizeof(frame), (void *)walk->fp))
		return WALK_UNREADABLE;
	walk->slot = walk->fp + 8;
	walk->sp = walk->fp + 16;
	walk->fp = frame[0];
	walk->pc = frame[1];
	walk->mark = FRAME_UNSURE;
	return WALK_CONTINUES;
}

/* Goes out by a rule that tells the CFA. WALK_CONTINUES, or how the walk ends. */
static __always_inline __u32 step_by_rule(struct walk *walk, const struct unwind_rule *rule,
					  bool exact)
{
	__u32 kind = unwind_rule_kind(rule);
	bool by_fp = kind == UNWIND_FP || kind == UNWIND_DEREF_FP;
	bool deref = kind == UNWIND_DEREF_SP || kind == UNWIND_DEREF_FP;
	__u64 base = by_fp ? walk->fp : walk->sp;
	__u64 cfa = base + unwind_rule_cfa_off(rule), frame[2];
	__s64 fp_slot = rule->fp_slot, ra_slot = rule->ra_slot;

	if (deref) {
		if (!read_word(cfa, &cfa))
			return WALK_UNREADABLE;
		cfa += 8 + 8 * ra_slot;
		ra_slot = -1;
	} else if (kind == UNWIND_PLT) {
		if ((walk->pc & 15) >= (__u64)fp_slot)
			cfa += 8;
		fp_slot = UNWIND_SLOT_SAME;
	}
	if (cfa <= walk->sp)
		return WALK_NOT_GROWING;
	if (!deref && fp_slot == ra_slot - 1) {
		/* As `push rbp` at a function's start leaves them: both in one read. */
		if (bpf_probe_read_user(frame, sizeof(frame), (void *)(cfa + 8 * fp_slot)))
			return WALK_UNREADABLE;
		walk->fp = frame[0];
		walk->pc = frame[1];
	} else {
		if (!read_word(cfa + 8 * ra_slot, &walk->pc))
			return WALK_UNREADABLE;
		if (fp_slot == UNWIND_SLOT_UNDEFINED)
			walk->fp = 0; /* what needs it will find it below the stack pointer */
		else if (fp_slot != UNWIND_SLOT_SAME &&
			 !read_word((deref ? base : cfa) + 8 * fp_slot, &walk->fp))
			return WALK_UNREADABLE;
	}
	walk->slot = cfa + 8 * ra_slot;
	walk->sp = cfa;
	walk->exact = unwind_rule_exact_pc(rule);
	/* Tables are pruned to call sites: where a signal interrupted, the rule may be another's.
	 */
	walk->mark = exact ? FRAME_UNSURE : 0;
	return WALK_CONTINUES;
}

/* Goes out of a signal handler, to the code it interrupted. WALK_CONTINUES, or how the walk ends.
 */
static __always_inline __u32 step_by_signal(struct walk *walk)
{
	__u64 sp, fp, pc;

	if (!read_word(walk->sp + SIGFRAME_SP, &sp) || !read_word(walk->sp + SIGFRAME_FP, &fp) ||
	    !read_word(walk->sp + SIGFRAME_PC, &pc))
		return WALK_UNREADABLE;
	/*
	 * No test that sp grows: a handler may run on a stack of its own. As signal frames cost two
	 * frames each and frames are limited, the walk ends all the same.
	 */
	walk->sp = sp;
	walk->fp = fp;
	walk->pc = pc;
	walk->slot = 0;
	walk->exact = 1;
	walk->mark = 0;
	return WALK_CONTINUES;
}

#include "python.bpf.h"

/* One frame: keeps its pc, then goes out to its caller. Returns 1 at the end. */
static long walk_step(__u64 index, struct scratch **context)
{
	struct scratch *scratch = *context;
	struct walk *walk = &scratch->walk;
	struct unwind_mapping *mapping;
	struct unwind_rule *rule;
	__u32 end, exact = walk->exact;
	__u64 at = walk->pc - 1 + exact, sp = walk->sp;

	if (walks_python && scratch->python.emits) {
		__u64 frame = python_next(&scratch->python);

		if (walk->count >= MAX_FRAMES)
			return 1;
		if (frame) {
			walk_add(scratch, frame);
			python_identify(&scratch->python, walk, frame);
		}
		return 0;
	}

	if (walk->pc == 0) { /* some thread starts push a 0 where a return address would be */
		walk->end = WALK_COMPLETE;
		return 1;
	}
	mapping = mapping_find(walk, at);
	if (!mapping && walk->slot) {
		walk->pc = trampoline_original(walk->slot) ?: walk->pc;
		walk->slot = 0; /* what that is, the next round finds out */
		return 0;
	}
	if (!mapping) {
		/* The first is what called the allocator, whatever is known of it. */
		if (!walk->count)
			walk_add(scratch, (walk->pc + walk->exact) | walk->mark);
		walk->end = WALK_NO_MAPPING;
		return 1;
	}
	if (walk->count >= MAX_FRAMES)
		return 1;
	walk_add(scratch, (walk->pc + walk->exact) | walk->mark);
	walk->exact = 0;
	rule = rule_find(mapping, at);
	if (!rule || unwind_rule_kind(rule) == UNWIND_END) {
		end = step_by_pointer(walk);
	} else if (unwind_rule_kind(rule) == UNWIND_STOP) {
		end = WALK_COMPLETE;
	} else if (unwind_rule_kind(rule) == UNWIND_SIGNAL) {
		end = step_by_signal(walk);
	} else {
		end = step_by_rule(walk, rule, exact);
	}
	if (end == WALK_CONTINUES) {
		if (walks_python)
			python_pass(&scratch->python, sp, walk->sp);
		return 0;
	}
	walk->end = end;
	return 1;
}

/*
 * Code that is not known may have been mapped a moment ago: have it looked for, once until that is
 * done.
 */
static __always_inline void ask_for_mappings(struct target *target, __u32 slot)
{
	if (target->remap)
		return;
	target->remap = 1;
	bpf_ringbuf_output(&events, &slot, sizeof(slot), 0);
}

/* Fills scratch's stack; *key is the hash of its frames, never 0. */
static __always_inline void stack_walk(struct pt_regs *ctx, struct target *target, __u32 slot,
				       __u64 return_address, struct scratch *scratch, __u64 *key)
{
	struct walk *walk = &scratch->walk;

	*walk = (struct walk){
		.pc = return_address,
		.sp = PT_REGS_SP(ctx) + 8,
		.slot = PT_REGS_SP(ctx),
		.fp = PT_REGS_FP(ctx),
		.slice = *(volatile const __u64 *)&target->mappings,
		.end = WALK_TOO_DEEP,
	};

	walk->mapping = walk->slice >> 32;
	if (walks_python) {
		python_read(slot, scratch);
		/* Code objects may have the same addresses in two targets, as after a fork. */
		if (scratch->python.count)
			walk->hash = slot + 1;
	}
	/* A frame may take a second round, after a trampoline, or at the end of a part of Python's. */
	bpf_loop(2 * MAX_FRAMES, walk_step, &scratch, 0);
	/* The tables of a slice that is not in use any more may have been written over. */
	if (walk->slice != *(volatile const __u64 *)&target->mappings)
		walk->end = WALK_MAPPINGS_CHANGED;
	if (walk->end == WALK_NO_MAPPING)
		ask_for_mappings(target, slot);
	scratch->stack.frame_count = walk->count;
	scratch->stack.end = walk->end;
	*key = stack_key(walk->hash);
}

/* Is this a place inside an allocating function? */
static __always_inline bool is_nested_in(__u32 slot, __u32 epoch, __u64 return_address)
{
	struct nested_key key = {.address = return_address, .target = slot, .epoch = epoch};

	return bpf_map_lookup_elem(&nested, &key);
}

/* Is one of the innermost callers an allocating function? */
static __always_inline bool stack_is_nested(__u32 slot, __u32 epoch, const struct stack *stack)
{
	for (__u32 i = 0; i < NESTED_FRAMES_MAX; i++) {
		if (i >= stack->frame_count)
			break;
		if (is_nested_in(slot, epoch, stack->frames[i] & ~FRAME_UNSURE))
			return true;
	}
	return false;
}

/* A stack is new: the user side is to find out the names of its Python functions. */
static __always_inline void python_tell(const struct target *target, __u32 slot, __u64 key)
{
	struct python_event event = {.stack = key, .target = slot, .epoch = target->epoch};

	bpf_ringbuf_output(&python_events, &event, sizeof(event), 0);
}

struct nested_search {
	const struct stack *stack;
	__u32 slot, epoch;
	__u32 found;
};

static long nested_step(__u64 index, struct nested_search *search)
{
	if (index >= search->stack->frame_count || index >= MAX_FRAMES)
		return 1;
	search->found = is_nested_in(search->slot, search->epoch,
				     search->stack->frames[index] & ~FRAME_UNSURE);
	return search->found;
}

/*
 * Has an allocator asked for this mapping? 0 if not, COUNT_NESTED if so, or the counter of the loss
 * where that cannot be told. jemalloc stacks a dozen functions on top of each other for it, and no
 * program runs inside of an allocator: so all frames are looked at.
 */
static __always_inline enum counter mapping_is_nested(struct target *target, __u32 slot,
						      const struct scratch *scratch)
{
	struct nested_search search = {
		.stack = &scratch->stack,
		.slot = slot | NESTED_FOR_MAPPINGS,
		.epoch = target->epoch,
	};

	bpf_loop(MAX_FRAMES, nested_step, &search, 0);
	if (search.found)
		return COUNT_NESTED;
	/*
	 * Code that the user side has not looked at yet may be an allocator's: of a library, or, after
	 * an exec, all there is. Between it and the call stands one function of the libc at most.
	 */
	if (scratch->walk.end == WALK_NO_MAPPING && scratch->stack.frame_count <= 2)
		return COUNT_LOST_ORIGIN;
	return scratch->walk.end == WALK_MAPPINGS_CHANGED ? COUNT_LOST_ORIGIN : 0;
}

/*
 * Walks and keeps the stack of a call. 0, COUNT_NESTED where it is part of another, which counts
 * instead, or the counter of the loss. maps: it is one that maps memory; the stack is kept only if
 * those are recorded.
 */
static __always_inline enum counter stack_record(struct pt_regs *ctx, struct target *target,
						 __u32 slot, __u64 return_address, bool maps,
						 __u64 *key)
{
	enum counter outcome = 0;
	struct scratch *scratch = scratch_claim();
	int err; /* before 6.4 only the lower half of the result is set */

	if (!scratch)
		return COUNT_LOST_SCRATCH;
	stack_walk(ctx, target, slot, return_address, scratch, key);
	if (maps)
		outcome = mapping_is_nested(target, slot, scratch);
	else if (stack_is_nested(slot, target->epoch, &scratch->stack))
		outcome = COUNT_NESTED;
	if (outcome || (maps && !records_mappings)) {
		scratch_release(scratch);
		return outcome;
	}
	/* -EEXIST: known already. Two stacks with one key: with n stacks the odds are n^2 / 2^65.
	 */
	err = bpf_map_update_elem(&stacks, key, &scratch->stack, BPF_NOEXIST);
	if (walks_python && !err && scratch->python.met)
		python_tell(target, slot, *key);
	scratch_release(scratch);
	return err && err != -EEXIST ? COUNT_LOST_STACKS : 0;
}

#endif
