/*
 * The names of a target's code that was made at run time, by its perf map, and what is to be said
 * where it has none. The map is read when the first name is asked for.
 */
#ifndef ALLOCTRACE_JIT_NAMES_H
#define ALLOCTRACE_JIT_NAMES_H

#include "profile/profile.h"
#include "symbol/perf_map.h"
#include "target/process.h"

#include <stdbool.h>

struct jit_names {
	const struct process *process; /* borrowed */
	bool looked;		       /* for the map */
	struct perf_map *map;	       /* owned; NULL: there is none, or it is not used: */
	const char *refusal;	       /* static: why; NULL: there is none */
};

void jit_names_init(struct jit_names *names, const struct process *process);
void jit_names_deinit(struct jit_names *names);

/* Names a location in no image, if its code has a name. 0 or -ENOMEM. */
int jit_names_set(struct jit_names *names, struct profile *profile, uint32_t location);

/* When all locations have been named: adds what there is to warn of. 0 or -ENOMEM. */
int jit_names_warn(const struct jit_names *names, struct profile *profile);

#endif
