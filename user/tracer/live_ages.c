#include "tracer/live_ages.h"

#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>

void live_ages_deinit(struct live_ages *ages)
{
	free(ages->items.items);
	free(ages->windows);
	hash_index_deinit(&ages->index);
	*ages = (struct live_ages){0};
}

static bool age_equal(const void *owner, uint32_t index, const void *key)
{
	const struct live_age *a = &((const struct live_ages *)owner)->items.items[index];
	const struct live_age *b = key;

	return a->key.stack == b->key.stack && a->key.size_class == b->key.size_class &&
	       a->key.target == b->key.target && a->key.epoch == b->key.epoch &&
	       a->mapped == b->mapped;
}

/* The stack is a hash already. */
static uint64_t age_hash(const struct live_age *age)
{
	uint64_t rest = (uint64_t)age->key.size_class << 33 | (uint64_t)age->key.target << 17 |
			(uint64_t)age->key.epoch << 1 | age->mapped;

	return age->key.stack ^ rest * UINT64_C(0x9e3779b97f4a7c15);
}

int live_ages_add(struct live_ages *ages, const struct count_key *key, bool mapped, uint64_t time,
		  unsigned int objects, uint64_t bytes)
{
	struct live_age age = {.key = *key, .mapped = mapped};
	uint64_t hash = age_hash(&age);
	uint32_t index;

	if (!hash_index_find(&ages->index, hash, age_equal, ages, &age, &index)) {
		if (hash_index_reserve(&ages->index) || vec_push(&ages->items, age))
			return -ENOMEM;
		index = (uint32_t)(ages->items.count - 1);
		hash_index_add(&ages->index, hash, index);
	}
	age_counts_add(&ages->items.items[index].ages, &ages->windows[key->target], (int64_t)time,
		       objects, bytes);
	return 0;
}

const struct age_counts *live_ages_find(const struct live_ages *ages, const struct count_key *key,
					bool mapped)
{
	static const struct age_counts none;
	struct live_age age = {.key = *key, .mapped = mapped};
	uint32_t index;

	if (!hash_index_find(&ages->index, age_hash(&age), age_equal, ages, &age, &index))
		return &none;
	return &ages->items.items[index].ages;
}
