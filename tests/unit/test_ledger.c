/* The ledger of the resident memory: whatever its terms are, they add up. */
#include "profile/ledger.h"
#include "sample_profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct ledger ledger(const struct profile *profile)
{
	struct ledger made;

	assert_true(ledger_of(profile, &made));
	assert_int_equal(made.rss_end, made.rss_start + made.live.value + made.direct.value +
					       made.stacks + made.file + made.shmem -
					       made.swapped_out + made.not_explained);
	return made;
}

static void set_direct(struct profile *profile, uint64_t bytes, uint64_t mapped)
{
	struct profile_memory *end = &profile->info.memory_end;

	end->direct_known = true;
	end->direct = (struct estimate){0};
	estimate_add_rest(NULL, &end->direct, 1, bytes, (double)mapped, profile->info.period);
}

static void test_exact_terms(void **state)
{
	struct profile *profile = sample_profile(1);
	struct ledger found = ledger(profile);

	(void)state;
	assert_int_equal(found.rss_start, 213 << 20);
	assert_int_equal(found.rss_end, 331 << 20);
	assert_int_equal(found.live.value, 4031712);
	assert_int_equal(found.live.low, 4031712);
	assert_int_equal(found.live.high, 4031712);
	assert_false(found.direct_known);
	assert_int_equal(found.direct.value, 0);
	assert_int_equal(found.stacks, 24 << 10);
	assert_int_equal(found.file, 1 << 20);
	assert_int_equal(found.shmem, 1 << 20);
	assert_int_equal(found.swapped_out, 1 << 20);
	assert_int_equal(found.not_explained, (117 << 20) - (24 << 10) - 4031712);

	/* What is measured is explained. */
	set_direct(profile, 100 << 20, 256 << 20);
	found = ledger(profile);
	assert_true(found.direct_known);
	assert_int_equal(found.direct.value, 100 << 20);
	assert_int_equal(found.direct.low, 100 << 20);
	assert_int_equal(found.direct.high, 100 << 20);
	assert_int_equal(found.not_explained, (17 << 20) - (24 << 10) - 4031712);
	profile_free(profile);
}

static void test_terms_may_be_less_than_before(void **state)
{
	struct profile *profile = sample_profile(1);
	struct ledger found;

	(void)state;
	profile->info.memory_end = (struct profile_memory){.known = true, .anon = 100 << 20};
	found = ledger(profile);
	assert_int_equal(found.stacks, -(136 << 10));
	assert_int_equal(found.file, -(12 << 20));
	assert_int_equal(found.shmem, -(1 << 20));
	assert_int_equal(found.swapped_out, -(4 << 20));
	profile_free(profile);
}

static void test_sampled_terms_have_their_interval(void **state)
{
	struct profile *profile = sample_profile(1 << 20);
	struct ledger found;

	(void)state;
	/* p = 1 - 1/e: a quarter MiB stands for 0.3955 MiB. */
	set_direct(profile, 256 << 10, 1 << 20);
	found = ledger(profile);
	assert_int_equal(found.direct.value, 414706);
	assert_int_equal(found.direct.low, 256 << 10);
	assert_true(found.direct.high > found.direct.value);
	assert_true(found.live.low < found.live.value && found.live.value < found.live.high);

	/* No sample, or none that is resident, is no proof of nothing: 1.96^2 samples' worth. */
	set_direct(profile, 0, 1 << 20);
	found = ledger(profile);
	assert_int_equal(found.direct.value, 0);
	assert_int_equal(found.direct.low, 0);
	assert_int_equal(found.direct.high, 4028062);
	profile_free(profile);
}

static void test_memory_that_was_not_read_has_no_ledger(void **state)
{
	struct profile *profile = sample_profile(1);
	struct ledger found;

	(void)state;
	profile->info.memory_end.known = false;
	assert_false(ledger_of(profile, &found));
	profile->info.memory_end.known = true;
	profile->info.memory_start.known = false;
	assert_false(ledger_of(profile, &found));
	profile_free(profile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_terms),
		cmocka_unit_test(test_terms_may_be_less_than_before),
		cmocka_unit_test(test_sampled_terms_have_their_interval),
		cmocka_unit_test(test_memory_that_was_not_read_has_no_ledger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
