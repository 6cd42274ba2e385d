/*
 * What the debug information of one image may cost. Files can be made to take minutes and gigabytes
 * where they are small: each step that a file can ask for again and again is paid for, before it is
 * done. When it is spent, what is known so far is used, and symbol tables for the rest.
 */
#ifndef ALLOCTRACE_BUDGET_H
#define ALLOCTRACE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A step takes about 10 ns, so all of them some 20 s: a hundred million DIEs. A browser with all its
 * units asked for needs less.
 */
#define BUDGET_STEPS (2000ull * 1000 * 1000)
/* Of memory beside the sections, which have a limit of their own. */
#define BUDGET_BYTES (2ull << 30)

struct budget {
	uint64_t steps, bytes; /* left */
	bool over;
};

static inline struct budget budget_new(void)
{
	return (struct budget){.steps = BUDGET_STEPS, .bytes = BUDGET_BYTES};
}

/* False, from then on always: it is spent. */
static inline bool budget_spend(struct budget *budget, uint64_t steps, uint64_t bytes)
{
	if (budget->over || steps > budget->steps || bytes > budget->bytes) {
		budget->over = true;
		return false;
	}
	budget->steps -= steps;
	budget->bytes -= bytes;
	return true;
}

#endif
