/*
 * The ages of what is live, of all targets, by what the kernel side counts it under: as many of them as
 * it has counts of which something is live, whatever the number of blocks.
 */
#ifndef ALLOCTRACE_LIVE_AGES_H
#define ALLOCTRACE_LIVE_AGES_H

#include "alloctrace.h"
#include "profile/ages.h"
#include "util/hash_index.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct live_age {
	struct count_key key;
	bool mapped; /* of direct mappings */
	struct age_counts ages;
};

/* All zero is an empty one. */
struct live_ages {
	struct age_window *windows; /* owned; by slot, */
	uint32_t slots;		    /* so many */
	struct {
		struct live_age *items; /* owned */
		size_t count, capacity;
	} items;
	struct hash_index index;
	bool known;
};

void live_ages_deinit(struct live_ages *ages);

/* objects and bytes of one block, or of a piece of a mapping. 0 or -ENOMEM. */
int live_ages_add(struct live_ages *ages, const struct count_key *key, bool mapped, uint64_t time,
		  unsigned int objects, uint64_t bytes);

/* Of one count; of nothing where nothing is live. */
const struct age_counts *live_ages_find(const struct live_ages *ages, const struct count_key *key,
					bool mapped);

#endif
