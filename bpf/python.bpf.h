/*
 * The Python functions of a thread that runs CPython's interpreter (3.11 to 3.13).
 *
 * The interpreter runs a call of one Python function by another without a call of its own: one frame
 * of _PyEval_EvalFrameDefault on the stack may stand for many Python frames. Those are a list of their
 * own (_PyInterpreterFrame), innermost first. Where a C function was called that called back, the
 * list tells: from 3.12 on by a frame that lies in the C frame of the inner _PyEval_EvalFrameDefault,
 * in 3.11 by a flag, and by a list of _PyCFrame that lie there. So each part of the list has an
 * anchor: an address in the C frame that it belongs to. The list is read first, and its parts go into
 * the stack where the walk passes the frames that hold their anchors. No function needs to be known by
 * name for that.
 *
 * The list hangs on the thread's state, and that on the interpreter's list of threads, where the
 * thread is found by its pthread_self(), which on x86-64 is its thread pointer, in every C library.
 *
 * A Python frame takes one word of a stack: its code object, and the instruction in it. What these are
 * called is the user side's to find out, soon: they are freed when nothing refers to them any more.
 */
#ifndef ALLOCTRACE_PYTHON_BPF_H
#define ALLOCTRACE_PYTHON_BPF_H

/* Set where a target may run Python: elsewhere the walk is as if all this were not there. */
#ifndef WALKS_PYTHON
#define WALKS_PYTHON false
#endif
const volatile bool walks_python = WALKS_PYTHON;

/* Interpreters and threads of a process that are looked through for the one at hand. */
#define PYTHON_THREADS_MAX 512

/* From 3.12 on: the value of _PyInterpreterFrame.owner that says that the frame is C's. */
#define PYTHON_OWNED_BY_C 3

/* No address: an anchor that is not known, and that no frame holds. */
#define PYTHON_NO_ANCHOR (1ULL << 61)

struct python_search {
	const struct python_target *python;
	__u64 interpreter, thread;
	__u64 self;
	__u64 found;
};

static long python_search_step(__u64 index, struct python_search *search)
{
	const struct python_target *python = search->python;
	__u64 id;

	if (!search->thread) {
		__u64 interpreter = search->interpreter;

		return !interpreter ||
		       !read_word(interpreter + python->interpreter_threads, &search->thread) ||
		       !read_word(interpreter + python->interpreter_next, &search->interpreter);
	}
	if (!read_word(search->thread + python->thread_id, &id))
		return 1;
	if (id == search->self) {
		search->found = search->thread;
		return 1;
	}
	return !read_word(search->thread + python->thread_next, &search->thread);
}

/* The state of the thread at hand; 0: it has none. */
static __always_inline __u64 python_thread(const struct python_target *python)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct python_search search = {
		.python = python,
		.self = BPF_CORE_READ(task, thread.fsbase),
	};

	if (!read_word(python->runtime + python->interpreters, &search.interpreter))
		return 0;
	bpf_loop(PYTHON_THREADS_MAX, python_search_step, &search, 0);
	return search.found;
}

/*
 * Frames of Python that are gone through for the anchor of a part, of which no more are kept than fit:
 * as many as the interpreter's own limit allows by default, and twice that.
 */
#define PYTHON_FRAMES_MAX 2048

struct python_list {
	const struct python_target *python;
	struct scratch *scratch;
};

static __always_inline void python_push(struct python_chain *chain, __u64 item)
{
	if (chain->count >= PYTHON_ITEMS_MAX)
		return;
	chain->items[chain->count & (PYTHON_ITEMS_MAX - 1)] = item;
	chain->count++;
}

/* Begins a part of the list, in the C frame that holds the anchor. */
static __always_inline void python_begin_part(struct python_chain *chain, __u64 anchor)
{
	chain->part = chain->count;
	python_push(chain, anchor);
}

static __always_inline __u64 python_field(const struct python_chain *chain, __u32 offset)
{
	return chain->frame_words[offset / 8 & (PYTHON_FRAME_WORDS - 1)];
}

static __always_inline __u64 python_pack(const struct python_target *python, __u64 code,
					 __u64 instruction)
{
	__s64 unit = (__s64)(instruction - code - python->code_start) >> 1;

	if (unit < 0) /* it has not begun */
		unit = 0;
	if (unit > PYTHON_UNIT_MAX)
		unit = PYTHON_UNIT_MAX;
	return FRAME_PYTHON | (code >> 4) << PYTHON_UNIT_BITS | unit;
}

static long python_list_step(__u64 index, struct python_list *list)
{
	const struct python_target *python = list->python;
	struct python_chain *chain = &list->scratch->python;
	__u64 frame = chain->frame, kind;

	if (!frame)
		return 1;
	if (bpf_probe_read_user(chain->frame_words, sizeof(chain->frame_words), (void *)frame))
		return 1;
	chain->frame = python_field(chain, python->frame_previous);
	kind = python_field(chain, python->frame_owner) >> (python->frame_owner % 8 * 8) & 0xff;
	if (!python->c_frame_next && kind == PYTHON_OWNED_BY_C) {
		chain->items[chain->part & (PYTHON_ITEMS_MAX - 1)] = frame;
		python_begin_part(chain, PYTHON_NO_ANCHOR);
		return chain->count >= PYTHON_ITEMS_MAX;
	}
	python_push(chain, python_pack(python, python_field(chain, python->frame_code),
				       python_field(chain, python->frame_instruction)));
	if (python->c_frame_next && kind) {
		if (!read_word(chain->c_frame + python->c_frame_next, &chain->c_frame))
			return 1;
		python_begin_part(chain, chain->c_frame);
	}
	return python->c_frame_next && chain->count >= PYTHON_ITEMS_MAX;
}

/* Reads the list of the thread at hand. */
static __always_inline void python_read(__u32 slot, struct scratch *scratch)
{
	struct python_target *python = bpf_map_lookup_elem(&pythons, &slot);
	struct python_chain *chain = &scratch->python;
	struct python_list list = {.python = python, .scratch = scratch};
	__u64 thread;

	chain->count = chain->at = chain->emits = chain->met = 0;
	if (!python || !python->runtime)
		return;
	thread = python_thread(python);
	if (!thread || !read_word(thread + python->thread_frame, &chain->frame))
		return;
	chain->code_identity = python->code_identity;
	chain->c_frame = chain->frame;
	if (python->c_frames && !read_word(chain->c_frame + python->c_frame_current, &chain->frame))
		return;
	python_begin_part(chain, python->c_frame_next ? chain->c_frame : PYTHON_NO_ANCHOR);
	bpf_loop(PYTHON_FRAMES_MAX, python_list_step, &list, 0);
}

/* The walk has passed a C frame that began at `from`: does a part of the list belong to it? */
static __always_inline void python_pass(struct python_chain *chain, __u64 from, __u64 to)
{
	__u64 anchor;

	if (chain->at >= chain->count)
		return;
	anchor = chain->items[chain->at & (PYTHON_ITEMS_MAX - 1)];
	/* A part whose C frame the walk has not met: it is left out. */
	if (anchor & FRAME_PYTHON || anchor < from) {
		chain->at++;
	} else if (anchor < to) {
		chain->at++;
		chain->emits = chain->met = 1;
	}
}

/* The next frame of the part that goes into the stack now; 0: none. */
static __always_inline __u64 python_next(struct python_chain *chain)
{
	__u64 frame = 0;

	if (chain->at < chain->count)
		frame = chain->items[chain->at & (PYTHON_ITEMS_MAX - 1)];
	if (!(frame & FRAME_PYTHON)) {
		chain->emits = 0;
		return 0;
	}
	chain->at++;
	return frame;
}

/*
 * A frame has gone into the stack. The stack's key tells which code object it is, and not only where: the
 * user side, which reads it a little later, knows by that whether it is this one still.
 */
static __always_inline void python_identify(const struct python_chain *chain, struct walk *walk,
					    __u64 frame)
{
	__u64 code = (frame & ~FRAME_PYTHON) >> PYTHON_UNIT_BITS << 4;
	__u64 identity[2] = {};

	bpf_probe_read_user(identity, sizeof(identity), (void *)(code + chain->code_identity));
	walk->hash = stack_mix(stack_mix(walk->hash, identity[0]), identity[1]);
}

#endif
