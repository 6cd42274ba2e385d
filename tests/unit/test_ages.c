/* Ages and lifetimes beside closed formulas, and what is said about them. */
#include "alloctrace.h"
#include "output/ages_text.h"
#include "profile/ages.h"
#include "profile/estimate.h"
#include "profile/profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>

#define SECOND 1000000000LL

static const struct age_window window = {
	.start = 100 * SECOND,
	.end = 130 * SECOND,
	.min_age = 5 * SECOND,
};

static void test_bands_begin_where_they_say(void **state)
{
	static const struct {
		int64_t age;
		unsigned int band;
	} cases[] = {
		{-1, 0},
		{0, 0},
		{SECOND - 1, 0},
		{SECOND, 1},
		{10 * SECOND - 1, 1},
		{10 * SECOND, 2},
		{60 * SECOND - 1, 2},
		{60 * SECOND, 3},
		{600 * SECOND - 1, 3},
		{600 * SECOND, 4},
		{INT64_MAX / 2, 4},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct age_counts counts = {0};

		age_counts_add(&counts, &window, window.end - cases[i].age, 1, 77);
		for (unsigned int band = 0; band < AGE_BANDS; band++)
			assert_int_equal(counts.bytes[band], band == cases[i].band ? 77 : 0);
		assert_int_equal(counts.oldest, cases[i].age < 0 ? 0 : cases[i].age);
		assert_int_equal(counts.young_objects, cases[i].age < window.min_age);
		assert_int_equal(counts.young_bytes, cases[i].age < window.min_age ? 77 : 0);
	}
}

static void test_parts_of_the_window(void **state)
{
	struct age_counts counts = {0};

	(void)state;
	age_counts_add(&counts, &window, window.start - SECOND, 1, 1);
	age_counts_add(&counts, &window, window.start, 1, 1);
	age_counts_add(&counts, &window, window.start + 10 * SECOND - 1, 1, 1);
	age_counts_add(&counts, &window, window.start + 10 * SECOND, 1, 1);
	age_counts_add(&counts, &window, window.start + 20 * SECOND - 1, 1, 1);
	age_counts_add(&counts, &window, window.start + 20 * SECOND, 1, 1);
	age_counts_add(&counts, &window, window.end, 1, 1);
	age_counts_add(&counts, &window, window.end + SECOND, 1, 1);
	age_counts_add(&counts, &window, window.end, 0, 1); /* a further piece */
	assert_int_equal(counts.born[0], 3);
	assert_int_equal(counts.born[1], 2);
	assert_int_equal(counts.born[2], 3);
}

static void test_the_kernels_classes_are_powers_of_four(void **state)
{
	(void)state;
	assert_int_equal(LIFETIMES, LIFETIME_CLASSES);
	assert_int_equal(lifetime_class(0), 0);
	assert_int_equal(lifetime_class(UINT64_MAX), LIFETIMES - 1);
	for (unsigned int i = 1; i < LIFETIMES; i++) {
		uint64_t from = 1ULL << (10 + 2 * i);

		assert_int_equal(lifetime_class(from - 1), i - 1);
		assert_int_equal(lifetime_class(from), i);
		assert_int_equal(lifetime_class(4 * from - 1), i);
	}
}

/* What the kernel side would have counted of one that lived so long. */
static void free_one(struct lifetimes *freed, double lifetime, int64_t born)
{
	freed->objects++;
	freed->sum += lifetime;
	freed->by_class[lifetime_class((uint64_t)lifetime)]++;
	if (!freed->first_freed || born < freed->first_freed)
		freed->first_freed = born;
}

static void test_median_and_mean_of_lifetimes(void **state)
{
	const struct age_counts live = {0};
	struct lifetimes freed = {0};
	struct ages ages = {0};

	(void)state;
	assert_true(ages_median_lifetime(&ages) == 0);
	assert_true(ages_mean_lifetime(&ages) == 0);
	/* Evenly by their logarithm over two classes: the median is where they meet. */
	for (int i = 0; i < 1000; i++)
		free_one(&freed, exp2(20 + 4 * (i + 0.5) / 1000), 5);
	ages_add(&ages, &live, &freed, 1);
	assert_float_equal(ages_median_lifetime(&ages), exp2(22), exp2(22) * 0.01);
	/* The integral of 2^x over [20, 24], by 4. */
	assert_float_equal(ages_mean_lifetime(&ages), (exp2(24) - exp2(20)) / (4 * M_LN2),
			   exp2(24) * 0.001);
	/* Each of ten small ones stands for 200 objects: theirs is the median now. */
	memset(&freed, 0, sizeof(freed));
	for (int i = 0; i < 10; i++)
		free_one(&freed, exp2(13 + 0.1 * (i + 0.5)), 4);
	ages_add(&ages, &live, &freed, 200);
	assert_true(ages_median_lifetime(&ages) >= exp2(12));
	assert_true(ages_median_lifetime(&ages) < exp2(14));
	assert_int_equal(ages.freed, 1010);
	assert_float_equal(ages.freed_objects, 3000, 0.01);
	assert_int_equal(ages.first_freed, 4);
}

static void test_the_last_class_alone_has_a_median(void **state)
{
	const struct age_counts live = {0};
	struct lifetimes freed = {0};
	struct ages ages = {0};

	(void)state;
	free_one(&freed, 0x1p62, 1);
	ages_add(&ages, &live, &freed, 0.1);
	assert_float_equal(ages_median_lifetime(&ages), exp2(45), exp2(45) * 0.01);
}

static void test_only_older(void **state)
{
	struct ages ages = {.born = {AGE_EVIDENCE, 1, 1}};
	struct age_window brief = {.start = 1, .end = 3 * SECOND};

	(void)state;
	assert_true(ages_only_older(&ages, &window, false));
	assert_false(ages_only_older(&ages, &brief, false));
	/* Something was freed, but of what is younger. */
	ages.first_freed = window.start + 10 * SECOND;
	assert_true(ages_only_older(&ages, &window, false));
	ages.first_freed--;
	assert_false(ages_only_older(&ages, &window, false));
	ages.first_freed = 0;
	ages.born[0]--;
	assert_false(ages_only_older(&ages, &window, false));
	assert_true(ages_only_older(&ages, &window, true));
	/* It keeps what it has, and nothing comes to it. */
	ages.born[2] = 0;
	assert_false(ages_only_older(&ages, &window, true));
	ages = (struct ages){.born = {0, 100, 100}};
	assert_false(ages_only_older(&ages, &window, true));
}

/* --- of samples --- */

#define PERIOD 65536
#define SIZES  4
#define RUNS   400
#define COUNT  2000 /* of a size */

static const double sizes[SIZES] = {100, 5000, 60000, 400000};

/* Reproducible; as good as any where what matters is that p is hit. */
static double uniform(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (double)(*state >> 11) * 0x1p-53;
}

/* One in four of each size is old, and one in two was freed: large ones after 2^30 ns, others sooner. */
static void sample(struct ages *ages, struct profile_young *young, uint64_t *random)
{
	for (int i = 0; i < SIZES; i++) {
		double p = estimate_probability(sizes[i], PERIOD);
		struct age_counts live = {0};
		struct lifetimes freed = {0};

		for (int n = 0; n < COUNT; n++) {
			bool hit = uniform(random) < p;

			if (hit && n % 4 == 0)
				age_counts_add(&live, &window, window.end - 20 * SECOND, 1,
					       (uint64_t)sizes[i]);
			else if (hit && n % 4 == 1)
				age_counts_add(&live, &window, window.end - SECOND / 2, 1,
					       (uint64_t)sizes[i]);
			else if (hit)
				free_one(&freed, i == SIZES - 1 ? 0x1p30 : 0x1p20, window.start);
		}
		ages_add(ages, &live, &freed, 1 / p);
		estimate_add_rest(&young->objects, &young->space, live.young_objects,
				  live.young_bytes, sizes[i], PERIOD);
	}
}

/* The mean of many runs is the truth within five of its standard deviations. */
static void assert_unbiased(double sum, double square_sum, double truth)
{
	double mean = sum / RUNS, variance = square_sum / RUNS - mean * mean;

	assert_true(variance > 0);
	assert_float_equal(mean, truth, 5 * sqrt(variance / RUNS));
}

static void test_sampled_ages_are_unbiased(void **state)
{
	double sums[4] = {0}, squares[4] = {0}, bytes = 0;
	uint64_t random = 42;

	(void)state;
	for (int run = 0; run < RUNS; run++) {
		struct profile_young young = {0};
		struct ages ages = {0};

		sample(&ages, &young, &random);
		const double found[4] = {
			ages_older(&ages, 2),
			ages_bytes(&ages) - ages_older(&ages, 2),
			young.objects.value,
			ages.freed_objects,
		};

		for (int i = 0; i < 4; i++) {
			sums[i] += found[i];
			squares[i] += found[i] * found[i];
		}
		/* Three in four of what was freed are of the sizes that lived shortly. */
		assert_true(ages_median_lifetime(&ages) < 0x1p22);
	}
	for (int i = 0; i < SIZES; i++)
		bytes += sizes[i] * COUNT / 4;
	assert_unbiased(sums[0], squares[0], bytes);
	assert_unbiased(sums[1], squares[1], bytes);
	assert_unbiased(sums[2], squares[2], SIZES * COUNT / 4);
	assert_unbiased(sums[3], squares[3], SIZES * COUNT / 2);
}

/* --- in words --- */

static void assert_words(const struct profile *profile, const struct ages *ages,
			 const char *expected)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(to);
	ages_text_site(profile, ages, to);
	assert_int_equal(fclose(to), 0);
	assert_string_equal(text, expected);
	free(text);
}

static void test_a_site_in_words(void **state)
{
	struct profile profile = {
		.info = {.period = 1, .aged = true, .window = window},
	};
	struct ages ages = {
		.bytes = {10, 10, 80},
		.born = {8, 1, 1},
		.oldest = 28 * SECOND,
	};

	(void)state;
	assert_words(&profile, &ages, "80 % older than 10 s, the oldest 28.0 s; none was freed");
	ages.bytes[0] = 1000;
	assert_words(&profile, &ages, "91 % younger than 1 s, the oldest 28.0 s; none was freed");
	ages.bytes[0] = 10;
	ages.freed = 10;
	ages.freed_objects = 10;
	ages.by_class[6] = 10; /* from 4.19 ms on: 2^22 to 2^24 */
	ages.lifetime_sum = 10 * 0x1p23;
	ages.first_freed = window.start;
	assert_words(&profile, &ages,
		     "80 % older than 10 s, the oldest 28.0 s; freed ones lived 8.39 ms (median)");
	ages.lifetime_sum = 10e9;
	ages.first_freed = window.end;
	assert_words(&profile, &ages,
		     "80 % older than 10 s, the oldest 28.0 s; freed ones lived 8.39 ms (median), "
		     "1.00 s (mean), none from the first third of the window");
}

static void test_few_samples_say_nothing(void **state)
{
	struct profile profile = {
		.info = {.period = PERIOD, .aged = true, .window = window},
	};
	struct ages ages = {
		.bytes = {0, 0, 80},
		.born = {4, 0, 0},
		.oldest = 28 * SECOND,
		.freed = 4,
		.freed_objects = 4,
		.by_class = {4},
	};

	(void)state;
	assert_false(ages_text_any(&profile, &ages));
	ages.born[1] = 1;
	assert_true(ages_text_any(&profile, &ages));
	assert_words(&profile, &ages, "100 % older than 10 s, the oldest 28.0 s");
	ages.freed = 0;
	assert_words(&profile, &ages,
		     "100 % older than 10 s, the oldest 28.0 s; no sample of it was freed");
	profile.info.aged = false;
	assert_false(ages_text_any(&profile, &ages));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bands_begin_where_they_say),
		cmocka_unit_test(test_parts_of_the_window),
		cmocka_unit_test(test_the_kernels_classes_are_powers_of_four),
		cmocka_unit_test(test_median_and_mean_of_lifetimes),
		cmocka_unit_test(test_the_last_class_alone_has_a_median),
		cmocka_unit_test(test_only_older),
		cmocka_unit_test(test_sampled_ages_are_unbiased),
		cmocka_unit_test(test_a_site_in_words),
		cmocka_unit_test(test_few_samples_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
