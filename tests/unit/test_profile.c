/* What a profile shares, how it scales, and that its sums are the sums of what is printed. */
#include "profile/profile.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PERIOD (512 * 1024)

static struct profile *new_profile(uint64_t period)
{
	struct profile *profile = NULL;

	assert_int_equal(profile_new(&profile), 0);
	profile->info.period = period;
	return profile;
}

static uint32_t add_site(struct profile *profile, uint64_t address)
{
	uint32_t site;

	assert_int_equal(profile_add_site(profile, &address, 1, true, &site), 0);
	return site;
}

static void test_locations_are_shared_by_address(void **state)
{
	struct profile *profile = new_profile(1);
	uint64_t first[] = {0x1000, 0x2000, 0x1000}, second[] = {0x3000, 0x2000};
	const struct profile_site *sites;
	uint32_t index;

	(void)state;
	assert_int_equal(profile_add_mapping(profile, 0x1000, 0x2000, 0, "/bin/a", "ab", NULL), 0);
	assert_int_equal(profile_add_mapping(profile, 0x2000, 0x3000, 0, "/bin/b", NULL, &index),
			 0);
	assert_int_equal(index, 1);
	assert_int_equal(profile_add_site(profile, first, 3, true, &index), 0);
	assert_int_equal(profile_add_site(profile, second, 2, false, &index), 0);
	assert_int_equal(index, 1);
	sites = profile->sites.items;
	assert_int_equal(profile->locations.count, 3);
	assert_int_equal(sites[0].frames[0], sites[0].frames[2]);
	assert_int_equal(sites[0].frames[1], sites[1].frames[1]);
	assert_true(sites[0].complete && !sites[1].complete);
	/* A mapping ends before its limit. */
	assert_int_equal(profile->locations.items[sites[0].frames[0]].mapping, 0);
	assert_int_equal(profile->locations.items[sites[0].frames[1]].mapping, 1);
	assert_int_equal(profile->locations.items[sites[1].frames[0]].mapping, -1);
	assert_string_equal(profile->mappings.items[1].build_id, "");
	profile_free(profile);
}

static void test_sharing_holds_for_many(void **state)
{
	struct profile *profile = new_profile(1);
	char name[32];

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < 20000; i++) {
			uint32_t index;

			add_site(profile, 0x400000 + (uint64_t)i * 16);
			snprintf(name, sizeof(name), "f%u", i);
			assert_int_equal(
				profile_add_function(profile, name, name, "a.c", i, &index), 0);
			assert_int_equal(index, i);
		}
	}
	assert_int_equal(profile->locations.count, 20000);
	assert_int_equal(profile->functions.count, 20000);
	assert_int_equal(profile->sites.count, 40000);
	for (uint32_t i = 0; i < 20000; i++)
		assert_int_equal(profile->locations.items[i].address, 0x400000 + (uint64_t)i * 16);
	profile_free(profile);
}

static void test_functions_are_shared_by_all_of_their_content(void **state)
{
	static const struct {
		const char *name, *system_name, *file;
		uint32_t line, expected;
	} cases[] = {
		{"f", "_Z1fv", "a.c", 1, 0}, {"f", "_Z1fi", "a.c", 1, 1},
		{"f", "_Z1fv", "b.c", 1, 2}, {"f", "_Z1fv", "a.c", 2, 3},
		{"g", "_Z1fv", "a.c", 1, 4}, {"f", "_Z1fv", "a.c", 1, 0},
		{"ab", "c", "", 0, 5},	     {"a", "bc", "", 0, 6},
		{"ab", "c", NULL, 0, 5},
	};
	struct profile *profile = new_profile(1);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint32_t index;

		assert_int_equal(profile_add_function(profile, cases[i].name, cases[i].system_name,
						      cases[i].file, cases[i].line, &index),
				 0);
		assert_int_equal(index, cases[i].expected);
	}
	profile_free(profile);
}

static void test_lines_are_replaced_and_checked(void **state)
{
	struct profile *profile = new_profile(1);
	struct profile_line lines[2] = {{.function = 0, .line = 7}, {.function = 1, .line = 9}};

	(void)state;
	add_site(profile, 0x1000);
	assert_int_equal(profile_set_lines(profile, 0, lines, 1), -EINVAL);
	assert_int_equal(profile_add_function(profile, "f", "f", "", 0, NULL), 0);
	assert_int_equal(profile_set_lines(profile, 0, lines, 1), 0);
	assert_int_equal(profile_set_lines(profile, 0, lines, 2), -EINVAL);
	assert_int_equal(profile->locations.items[0].line_count, 1);
	assert_int_equal(profile_add_function(profile, "g", "g", "", 0, NULL), 0);
	assert_int_equal(profile_set_lines(profile, 0, lines, 2), 0);
	assert_int_equal(profile_set_lines(profile, 1, lines, 2), -EINVAL);
	assert_int_equal(profile->locations.items[0].line_count, 2);
	assert_int_equal(profile->locations.items[0].lines[1].line, 9);
	profile_free(profile);
}

static void test_period_1_is_what_was_recorded(void **state)
{
	struct profile *profile = new_profile(1);
	uint32_t site = add_site(profile, 0x1000);
	const struct profile_bucket *bucket;

	(void)state;
	assert_int_equal(profile_add_bucket(profile, site, 10, 1005, 3, 301), 0);
	assert_int_equal(profile_add_bucket(profile, site, 2, 0, 2, 0), 0);
	assert_int_equal(profile_add_bucket(profile, site + 1, 1, 1, 0, 0), -EINVAL);
	assert_int_equal(profile_finish(profile), 0);
	bucket = &profile->buckets.items[1]; /* by size */
	assert_int_equal(bucket->object_bytes, 100);
	assert_int_equal(bucket->values[PROFILE_ALLOC_OBJECTS], 10);
	assert_int_equal(bucket->values[PROFILE_ALLOC_SPACE], 1005);
	assert_int_equal(bucket->values[PROFILE_INUSE_OBJECTS], 3);
	assert_int_equal(bucket->values[PROFILE_INUSE_SPACE], 301);
	assert_int_equal(profile->total_values[PROFILE_ALLOC_OBJECTS], 12);
	assert_int_equal(profile->total_values[PROFILE_ALLOC_SPACE], 1005);
	for (int v = 0; v < PROFILE_VALUES; v++) {
		assert_true(profile->total[v].variance == 0);
		assert_true(profile->total[v].value == (double)profile->total_values[v]);
	}
	profile_free(profile);
}

static void test_samples_are_scaled_by_their_own_size(void **state)
{
	struct profile *profile = new_profile(PERIOD);
	uint32_t site = add_site(profile, 0x1000);
	double p = 1 - exp(-1000.0 / PERIOD), q = 1 - exp(-2000000.0 / PERIOD);
	const struct profile_site *first;

	(void)state;
	assert_int_equal(profile_add_bucket(profile, site, 10, 10000, 4, 4000), 0);
	assert_int_equal(profile_add_bucket(profile, site, 5, 10000000, 2, 4000000), 0);
	assert_int_equal(profile_finish(profile), 0);
	first = profile->sites.items;
	assert_int_equal(profile->buckets.items[0].values[PROFILE_ALLOC_OBJECTS], llround(10 / p));
	assert_int_equal(profile->buckets.items[0].values[PROFILE_INUSE_SPACE], llround(4000 / p));
	assert_int_equal(profile->buckets.items[1].values[PROFILE_ALLOC_SPACE],
			 llround(10000000 / q));
	assert_int_equal(first->sums[PROFILE_ALLOC_OBJECTS], llround(10 / p) + llround(5 / q));
	/* What is live has the variance of its own hits. */
	assert_true(fabs(first->values[PROFILE_INUSE_OBJECTS].variance /
				 (4 * (1 - p) / (p * p) + 2 * (1 - q) / (q * q)) -
			 1) < 1e-9);
	assert_true(first->values[PROFILE_INUSE_OBJECTS].observed == 6);
	assert_true(first->values[PROFILE_INUSE_SPACE].observed == 4004000);
	profile_free(profile);
}

static void test_sums_are_the_sums_of_rounded_values(void **state)
{
	struct profile *profile = new_profile(PERIOD);
	int64_t sums[PROFILE_VALUES] = {0};

	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		uint32_t site = add_site(profile, 0x1000 + i);

		for (uint32_t size = 1; size < 3000; size += 61)
			assert_int_equal(profile_add_bucket(profile, site, i + 1,
							    (uint64_t)(i + 1) * size, i / 2,
							    (uint64_t)(i / 2) * size),
					 0);
	}
	assert_int_equal(profile_finish(profile), 0);
	for (int v = 0; v < PROFILE_VALUES; v++) {
		for (size_t i = 0; i < profile->buckets.count; i++)
			sums[v] += profile->buckets.items[i].values[v];
		assert_int_equal(sums[v], profile->total_values[v]);
		for (size_t i = 0; i < profile->sites.count; i++)
			sums[v] -= profile->sites.items[i].sums[v];
		assert_int_equal(sums[v], 0);
	}
	profile_free(profile);
}

static void test_live_is_never_more_than_allocated(void **state)
{
	struct profile *profile = new_profile(PERIOD);
	uint32_t site = add_site(profile, 0x1000);

	(void)state;
	/* One class, whose smaller objects are the ones that live: their mean weighs more. */
	for (uint64_t small = 1; small <= 50; small++)
		assert_int_equal(profile_add_bucket(profile, site, 2 * small,
						    small * 6400 + small * 6500, 2 * small - 1,
						    small * 6400 + (small - 1) * 6500),
				 0);
	assert_int_equal(profile_finish(profile), 0);
	for (size_t i = 0; i < profile->buckets.count; i++) {
		const int64_t *values = profile->buckets.items[i].values;

		assert_true(values[PROFILE_INUSE_OBJECTS] < values[PROFILE_ALLOC_OBJECTS]);
		assert_true(values[PROFILE_INUSE_SPACE] < values[PROFILE_ALLOC_SPACE]);
	}
	profile_free(profile);
}

/* A thousand sites of one hit that stands for 1.4 objects are 1400 objects, not 1000. */
static void test_rounding_does_not_add_up(void **state)
{
	struct profile *profile;
	const double weight = 1 / estimate_probability(5131, 4096);

	(void)state;
	assert_in_range((int)(weight * 1000), 1390, 1410);
	assert_int_equal(profile_new(&profile), 0);
	profile->info.period = 4096;
	for (uint64_t i = 0; i < 1000; i++) {
		uint32_t site;

		assert_int_equal(profile_add_site(profile, &i, 1, true, &site), 0);
		assert_int_equal(profile_add_bucket(profile, site, 1, 5131, i % 2, i % 2 * 5131),
				 0);
	}
	assert_int_equal(profile_finish(profile), 0);
	assert_true(fabs((double)profile->total_values[PROFILE_ALLOC_OBJECTS] - 1000 * weight) < 2);
	assert_true(fabs((double)profile->total_values[PROFILE_INUSE_OBJECTS] - 500 * weight) < 2);
	for (size_t i = 0; i < profile->buckets.count; i++) {
		const int64_t *values = profile->buckets.items[i].values;

		/* Each is one of the whole numbers around its estimate. */
		assert_in_range(values[PROFILE_ALLOC_OBJECTS], 1, 2);
		assert_true(values[PROFILE_INUSE_OBJECTS] <= values[PROFILE_ALLOC_OBJECTS]);
		assert_true(values[PROFILE_INUSE_SPACE] <= values[PROFILE_ALLOC_SPACE]);
	}
	profile_free(profile);
}

static void test_sites_are_sorted_by_live_then_allocated_bytes(void **state)
{
	struct profile *profile = new_profile(1);
	static const uint64_t expected[] = {0x4000, 0x2000, 0x3000, 0x1000, 0x5000};

	(void)state;
	for (uint64_t address = 0x1000; address <= 0x5000; address += 0x1000)
		add_site(profile, address);
	assert_int_equal(profile_add_bucket(profile, 4, 1, 10, 0, 0), 0);
	assert_int_equal(profile_add_bucket(profile, 0, 1, 10, 0, 0), 0);
	assert_int_equal(profile_add_bucket(profile, 1, 9, 900, 1, 100), 0);
	assert_int_equal(profile_add_bucket(profile, 2, 5, 500, 1, 100), 0);
	assert_int_equal(profile_add_bucket(profile, 3, 2, 20, 2, 20), 0);
	assert_int_equal(profile_add_bucket(profile, 3, 2, 400, 2, 400), 0);
	assert_int_equal(profile_finish(profile), 0);
	for (size_t i = 0; i < 5; i++) {
		const struct profile_site *site = &profile->sites.items[i];

		assert_int_equal(profile->locations.items[site->frames[0]].address, expected[i]);
	}
	/* The buckets moved along with their sites. */
	assert_int_equal(profile->buckets.items[0].site, 0);
	assert_int_equal(profile->buckets.items[0].alloc_bytes, 20);
	assert_int_equal(profile->buckets.items[1].site, 0);
	assert_int_equal(profile->buckets.items[1].alloc_bytes, 400);
	assert_int_equal(profile->buckets.items[2].site, 1);
	assert_int_equal(profile->buckets.items[2].alloc_bytes, 900);
	assert_int_equal(profile->buckets.items[5].site, 4);
	profile_free(profile);
}

/* What is left of a mapping was recorded with the probability of all of it. */
static void test_mappings_are_apart_and_scaled_by_their_whole_size(void **state)
{
	struct profile *profile = new_profile(PERIOD);
	uint32_t mapped = add_site(profile, 0x1000), heap = add_site(profile, 0x2000);
	double p = estimate_probability(PERIOD, PERIOD);

	(void)state;
	profile->sites.items[mapped].mapped = true;
	assert_int_equal(profile_add_bucket(profile, mapped, 2, 2 * PERIOD, 1, 4096), 0);
	assert_int_equal(profile_add_bucket(profile, heap, 1, 100, 1, 100), 0);
	assert_int_equal(profile_finish(profile), 0);
	assert_true(fabs(profile->mapped[PROFILE_INUSE_OBJECTS].value - 1 / p) < 1e-9);
	assert_true(fabs(profile->mapped[PROFILE_INUSE_SPACE].value - 4096 / p) < 1e-6);
	assert_true(fabs(profile->mapped[PROFILE_ALLOC_OBJECTS].value - 2 / p) < 1e-9);
	assert_int_equal(profile->mapped_values[PROFILE_INUSE_SPACE], llround(4096 / p));
	assert_int_equal(profile->total[PROFILE_ALLOC_OBJECTS].observed, 1);
	assert_int_equal(profile->total[PROFILE_INUSE_SPACE].observed, 100);
	/* However much it is, it comes behind. */
	assert_false(profile->sites.items[0].mapped);
	assert_true(profile->sites.items[1].mapped);
	assert_true(profile->sites.items[1].sums[PROFILE_ALLOC_SPACE] > 2 * PERIOD);
	profile_free(profile);
}

static void test_huge_values_saturate(void **state)
{
	struct profile *profile = new_profile(PERIOD);
	uint32_t site = add_site(profile, 0x1000);

	(void)state;
	assert_int_equal(profile_add_bucket(profile, site, UINT64_MAX, UINT64_MAX, 1, 1), 0);
	assert_int_equal(profile_add_bucket(profile, site, UINT64_MAX, UINT64_MAX, 1, 1), 0);
	assert_int_equal(profile_finish(profile), 0);
	assert_true(profile->buckets.items[0].values[PROFILE_ALLOC_SPACE] == INT64_MAX);
	assert_true(profile->total_values[PROFILE_ALLOC_SPACE] == INT64_MAX);
	profile_free(profile);
}

static void test_losses_are_the_counters_that_are_losses(void **state)
{
	struct profile *profile = new_profile(1);

	(void)state;
	assert_int_equal(profile_losses(profile), 0);
	assert_int_equal(profile_add_counter(profile, "live map full", 3, PROFILE_LOSS), 0);
	assert_int_equal(profile_add_counter(profile, "failed allocations", 100, PROFILE_SEEN), 0);
	assert_int_equal(profile_add_counter(profile, "stack map full", 4, PROFILE_LOSS), 0);
	assert_int_equal(profile_losses(profile), 7);
	assert_int_equal(profile_add_counter(profile, "wild", UINT64_MAX, PROFILE_LOSS), 0);
	assert_true(profile_losses(profile) == UINT64_MAX);
	profile_free(profile);
}

static void test_empty_half_built_and_absent_profiles_are_fine(void **state)
{
	struct profile *profile = new_profile(0);

	(void)state;
	assert_int_equal(profile_finish(profile), -EINVAL); /* nobody set the period */
	profile->info.period = 1;
	assert_int_equal(profile_add_site(profile, NULL, 0, false, NULL), 0);
	assert_int_equal(profile_finish(profile), 0);
	assert_int_equal(profile_add_warning(profile, "%s: %d", "map", 7), 0);
	assert_string_equal(profile->warnings.items[0], "map: 7");
	assert_int_equal(profile_add_probe(profile, "/lib/libc.so.6", "glibc", "malloc+0", ""), 0);
	assert_string_equal(profile->probes.items[0].functions, "malloc+0");
	profile->info.comm = strdup("owned");
	profile_free(profile);
	profile_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_locations_are_shared_by_address),
		cmocka_unit_test(test_sharing_holds_for_many),
		cmocka_unit_test(test_functions_are_shared_by_all_of_their_content),
		cmocka_unit_test(test_lines_are_replaced_and_checked),
		cmocka_unit_test(test_period_1_is_what_was_recorded),
		cmocka_unit_test(test_samples_are_scaled_by_their_own_size),
		cmocka_unit_test(test_sums_are_the_sums_of_rounded_values),
		cmocka_unit_test(test_live_is_never_more_than_allocated),
		cmocka_unit_test(test_rounding_does_not_add_up),
		cmocka_unit_test(test_sites_are_sorted_by_live_then_allocated_bytes),
		cmocka_unit_test(test_mappings_are_apart_and_scaled_by_their_whole_size),
		cmocka_unit_test(test_huge_values_saturate),
		cmocka_unit_test(test_losses_are_the_counters_that_are_losses),
		cmocka_unit_test(test_empty_half_built_and_absent_profiles_are_fine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
