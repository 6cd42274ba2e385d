/*
 * Finds items of a growing array by content: a table from hashes to indices. The items stay where
 * they are and may move; the owner supplies the hash and the comparison.
 */
#ifndef ALLOCTRACE_HASH_INDEX_H
#define ALLOCTRACE_HASH_INDEX_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct hash_index_slot {
	uint64_t hash;
	uint32_t number; /* index + 1; 0: free */
};

/* All zero is an empty one. */
struct hash_index {
	struct hash_index_slot *slots; /* owned; linear probing */
	size_t capacity;	       /* a power of two, or 0 */
	size_t count;
};

static inline void hash_index_deinit(struct hash_index *table)
{
	free(table->slots);
	*table = (struct hash_index){0};
}

/* FNV-1a, to be chained over the parts of a key; start with HASH_START. */
#define HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
	const uint8_t *at = data;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
	return hash;
}

/* FNV's low bits depend on the low bits of the input only: fold the high ones in. */
static inline size_t hash_index_home(const struct hash_index *table, uint64_t hash)
{
	hash ^= hash >> 32;
	hash *= UINT64_C(0x9e3779b97f4a7c15);
	return (size_t)(hash >> 32) & (table->capacity - 1);
}

/* Is there an item with this hash for which equal(owner, index, key) holds? Its index in *index. */
static inline bool hash_index_find(const struct hash_index *table, uint64_t hash,
				   bool (*equal)(const void *owner, uint32_t index,
						 const void *key),
				   const void *owner, const void *key, uint32_t *index)
{
	if (!table->capacity)
		return false;
	for (size_t at = hash_index_home(table, hash);; at = (at + 1) & (table->capacity - 1)) {
		const struct hash_index_slot *slot = &table->slots[at];

		if (!slot->number)
			return false;
		if (slot->hash == hash && equal(owner, slot->number - 1, key)) {
			*index = slot->number - 1;
			return true;
		}
	}
}

static inline void hash_index_place(struct hash_index *table, struct hash_index_slot slot)
{
	size_t at = hash_index_home(table, slot.hash);

	while (table->slots[at].number)
		at = (at + 1) & (table->capacity - 1);
	table->slots[at] = slot;
}

/*
 * Makes room for one item more, so that hash_index_add() cannot fail. 0 or -ENOMEM; nothing changes
 * on failure.
 */
static inline int hash_index_reserve(struct hash_index *table)
{
	struct hash_index grown = {.capacity = table->capacity ? table->capacity * 2 : 64};

	if (table->count < table->capacity / 2)
		return 0;
	if (table->count >= UINT32_MAX - 1 || grown.capacity < table->capacity)
		return -ENOMEM;
	grown.slots = calloc(grown.capacity, sizeof(*grown.slots));
	if (!grown.slots)
		return -ENOMEM;
	for (size_t i = 0; i < table->capacity; i++) {
		if (table->slots[i].number)
			hash_index_place(&grown, table->slots[i]);
	}
	grown.count = table->count;
	free(table->slots);
	*table = grown;
	return 0;
}

/* Adds an item that is not there yet. Only after hash_index_reserve(). */
static inline void hash_index_add(struct hash_index *table, uint64_t hash, uint32_t index)
{
	hash_index_place(table, (struct hash_index_slot){.hash = hash, .number = index + 1});
	table->count++;
}

#endif
