/* At each address the interval of the highest priority wins: compared with asking all of them. */
#include "scratch.h"

#include "symbol/interval_map.h"

#define MAX_ITEMS 60
#define ADDRESSES 200

static bool ask_all(const struct interval *items, size_t count, uint64_t address, uint32_t *value)
{
	const struct interval *best = NULL;

	for (size_t i = 0; i < count; i++) {
		if (address >= items[i].low && address < items[i].high &&
		    (!best || items[i].priority > best->priority))
			best = &items[i];
	}
	if (best)
		*value = best->value;
	return best;
}

static void the_highest_priority_wins_everywhere(void **state)
{
	uint64_t seed = 7, hits = 0, misses = 0;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct interval items[MAX_ITEMS], sorted[MAX_ITEMS];
		size_t count = 1 + noise(&seed) % MAX_ITEMS;
		struct interval_map map;

		for (size_t i = 0; i < count; i++) {
			uint64_t low = noise(&seed) % ADDRESSES;

			/* Some are empty, and some end before they begin. */
			items[i] = (struct interval){
				.low = low,
				.high = low + noise(&seed) % (round % 2 ? 8 : ADDRESSES) -
					(i % 9 == 0),
				.priority = (noise(&seed) % 8) << 32 | i,
				.value = (uint32_t)(noise(&seed) % 5),
			};
		}
		memcpy(sorted, items, sizeof(items));
		assert_int_equal(interval_map_init(&map, sorted, count), 0);
		for (uint64_t at = 0; at < 2 * ADDRESSES; at++) {
			uint32_t expected = 0, value = 0;
			bool found = ask_all(items, count, at, &expected);

			assert_int_equal(interval_map_find(&map, at, &value), found);
			assert_int_equal(value, expected);
			hits += found;
			misses += !found;
		}
		interval_map_deinit(&map);
	}
	assert_true(hits > 10000 && misses > 10000);
}

static void the_ends_of_the_address_space_are_addresses_too(void **state)
{
	struct interval items[] = {{UINT64_MAX - 1, UINT64_MAX, 1, 3}, {0, 1, 1, 4}};
	struct interval_map map, empty;
	uint32_t value;

	(void)state;
	assert_int_equal(interval_map_init(&map, items, 2), 0);
	assert_true(interval_map_find(&map, 0, &value) && value == 4);
	assert_false(interval_map_find(&map, 1, &value));
	assert_true(interval_map_find(&map, UINT64_MAX - 1, &value) && value == 3);
	assert_false(interval_map_find(&map, UINT64_MAX, &value));
	assert_int_equal(interval_map_init(&empty, NULL, 0), 0);
	assert_false(interval_map_find(&empty, 0, &value));
	interval_map_deinit(&map);
	interval_map_deinit(&empty);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_highest_priority_wins_everywhere),
		cmocka_unit_test(the_ends_of_the_address_space_are_addresses_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
