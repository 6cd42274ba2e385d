/*
 * Does this allocation get sampled?
 *
 * A Poisson process over allocated bytes: one countdown per CPU and target, refilled with gaps from
 * an exponential distribution. As that has no memory, it does not matter which thread's bytes count
 * it down, and an allocation that spans several gaps is one hit after which a fresh gap is drawn.
 *
 * The countdown is read and written without atomics. A thread preempted in between writes back an
 * old value; that too is a remaining gap of the same distribution, drawn independently of the bytes
 * to come, so every allocation keeps its probability. (The counters have no such excuse.)
 */
#ifndef ALLOCTRACE_SAMPLE_BPF_H
#define ALLOCTRACE_SAMPLE_BPF_H

/*
 * The hot path: true if a call of `size` bytes is passed by. Unsigned on purpose: a size of 2^64-1
 * is larger than any countdown and goes to the slow path, where the call fails by itself. 0 bytes
 * count as 1.
 */
static __always_inline bool sample_passes(struct cpu_state *cpu, __u64 size)
{
	size += !size;
	if (size >= cpu->countdown)
		return false;
	cpu->countdown -= size;
	return true;
}

/* After a hit: the distance to the next. */
static __always_inline void sample_refill(struct cpu_state *cpu)
{
	cpu->countdown = gaps[bpf_get_prandom_u32() % GAP_COUNT];
}

#endif
