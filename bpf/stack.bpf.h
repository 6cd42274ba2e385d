/*
 * The walk: from the entry of an allocating function to the thread's first frame, by frame pointers.
 *
 * The edge that a better unwinder takes over is stack_walk(): registers in, a filled struct stack and
 * its key out. The first frame needs no frame pointer: at the entry the return address is at [sp].
 */
#ifndef ALLOCTRACE_STACK_BPF_H
#define ALLOCTRACE_STACK_BPF_H

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

struct walk {
	struct stack *stack;
	__u64 frame_pointer;
	__u64 hash;
	__u32 count;
	__u32 end;
};

static __always_inline void walk_add(struct walk *walk, __u64 return_address)
{
	walk->stack->frames[walk->count % MAX_FRAMES] = return_address;
	walk->count++;
	/* One round of a 64-bit multiply-xorshift: order matters, every bit spreads. */
	walk->hash = (walk->hash ^ return_address) * 0x9e3779b97f4a7c15ULL;
	walk->hash ^= walk->hash >> 29;
}

/* One frame: {saved frame pointer, return address} at the frame pointer. 1 ends bpf_loop. */
static long walk_step(__u64 index, struct walk *walk)
{
	__u64 frame[2];

	if (walk->frame_pointer == 0) {
		walk->end = WALK_COMPLETE;
		return 1;
	}
	if (walk->count >= MAX_FRAMES)
		return 1;
	if (bpf_probe_read_user(frame, sizeof(frame), (void *)walk->frame_pointer)) {
		walk->end = WALK_UNREADABLE;
		return 1;
	}
	/* The System V ABI marks the deepest frame with a frame pointer of 0; some code ends with address 0. */
	if (frame[1] == 0) {
		walk->end = WALK_COMPLETE;
		return 1;
	}
	walk_add(walk, frame[1]);
	if (frame[0] && frame[0] <= walk->frame_pointer) {
		walk->end = WALK_NOT_GROWING;
		return 1;
	}
	walk->frame_pointer = frame[0];
	return 0;
}

/* Fills stack; *key is the hash of its frames, never 0. */
static __always_inline void stack_walk(struct pt_regs *ctx, __u64 return_address,
				       struct stack *stack, __u64 *key)
{
	struct walk walk = {
		.stack = stack,
		.frame_pointer = PT_REGS_FP(ctx),
		.end = WALK_TOO_DEEP,
	};

	walk_add(&walk, return_address);
	bpf_loop(MAX_FRAMES, walk_step, &walk, 0);
	stack->frame_count = walk.count;
	stack->end = walk.end;
	*key = walk.hash | !walk.hash;
}

/* Walks and keeps the stack of a call. 0, or the counter of the loss. */
static __always_inline enum counter stack_record(struct pt_regs *ctx, __u64 return_address, __u64 *key)
{
	struct scratch *scratch = scratch_claim();
	long err;

	if (!scratch)
		return COUNT_LOST_SCRATCH;
	stack_walk(ctx, return_address, &scratch->stack, key);
	/* -EEXIST: known already. Two stacks with one key: with n stacks the odds are n^2 / 2^65. */
	err = bpf_map_update_elem(&stacks, key, &scratch->stack, BPF_NOEXIST);
	scratch_release(scratch);
	return err && err != -EEXIST ? COUNT_LOST_STACKS : 0;
}

#endif
