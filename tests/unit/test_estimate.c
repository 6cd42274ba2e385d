/*
 * Are the figures right on average, and do the intervals keep what they promise? The sampler is
 * simulated from its definition, a Poisson process over allocated bytes, and compared with what was
 * allocated.
 */
#include "profile/estimate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PERIOD	    (512 * 1024)
#define REPETITIONS 1000
#define ROUNDS	    20

/* --- a sequence that is the same every time
 * ------------------------------------------------------- */

static uint64_t random_state;

static uint64_t random_bits(void)
{
	uint64_t x = random_state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* Exponential with the given mean, > 0. */
static double random_gap(double mean)
{
	return -mean * log(((double)(random_bits() >> 11) + 0.5) * 0x1p-53);
}

/* --- the simulated program
 * ------------------------------------------------------------------------ */

enum site { TINY, SMALL, MIDDLE, LARGE, HUGE_, MIXED, RARE, SITES };
enum figure { ALLOC_OBJECTS, ALLOC_BYTES, LIVE_OBJECTS, LIVE_BYTES, FIGURES };

static const char *const site_names[SITES] = {"tiny", "small", "middle", "large",
					      "huge", "mixed", "rare"};

/*
 * What is allocated in each round: `count` objects of `size` bytes. Every keep-th stays live, the
 * others are freed. Runs with the same class are counted together, as the kernel side does: it
 * keeps no sizes, just their sum, in classes that are at most 1/64 wide.
 */
static const struct run {
	enum site site;
	unsigned int class;
	uint64_t size, count, keep;
} runs[] = {
	{TINY, 0, 1, 3000000, 2},     {SMALL, 1, 48, 60000, 3},	  {SMALL, 2, 200, 10000, 1},
	{MIDDLE, 3, 6400, 300, 4},    {MIDDLE, 3, 6500, 300, 1},  {MIDDLE, 4, 40000, 100, 2},
	{LARGE, 5, 600 * 1024, 3, 2}, {LARGE, 6, 1500000, 2, 1},  {HUGE_, 7, 8 << 20, 2, 2},
	{MIXED, 8, 8, 300000, 2},     {MIXED, 9, 1000, 2000, 10}, {MIXED, 10, 100000, 40, 2},
	{MIXED, 11, 2 << 20, 1, 3},   {RARE, 12, 1000, 130, 1},
};

#define RUNS	(sizeof(runs) / sizeof(*runs))
#define CLASSES 13

struct counts {
	uint64_t hits, bytes, live_hits, live_bytes;
};

static void run_truth(double truth[SITES][FIGURES])
{
	memset(truth, 0, sizeof(double[SITES][FIGURES]));
	for (size_t r = 0; r < RUNS; r++) {
		uint64_t objects = runs[r].count * ROUNDS;
		uint64_t live = (objects + runs[r].keep - 1) / runs[r].keep;
		double *site = truth[runs[r].site];

		site[ALLOC_OBJECTS] += (double)objects;
		site[ALLOC_BYTES] += (double)(objects * runs[r].size);
		site[LIVE_OBJECTS] += (double)live;
		site[LIVE_BYTES] += (double)(live * runs[r].size);
	}
}

/*
 * One recording. The process has no memory, so that one gap is drawn, the objects that it goes past
 * are skipped in one step, the object in which it ends is hit, and the next gap begins behind that
 * object.
 */
static void run_sampled(struct counts classes[CLASSES])
{
	double gap = random_gap(PERIOD);

	memset(classes, 0, sizeof(struct counts[CLASSES]));
	for (uint64_t round = 0; round < ROUNDS; round++) {
		for (size_t r = 0; r < RUNS; r++) {
			const struct run *run = &runs[r];
			struct counts *to = &classes[run->class];
			double size = (double)run->size;
			uint64_t at = 0;

			while (gap < (double)(run->count - at) * size) {
				at += (uint64_t)(gap / size);
				to->hits++;
				to->bytes += run->size;
				if ((round * run->count + at) % run->keep == 0) {
					to->live_hits++;
					to->live_bytes += run->size;
				}
				at++;
				gap = random_gap(PERIOD);
			}
			gap -= (double)(run->count - at) * size;
		}
	}
}

static void run_estimated(const struct counts classes[CLASSES],
			  struct estimate estimates[SITES][FIGURES])
{
	memset(estimates, 0, sizeof(struct estimate[SITES][FIGURES]));
	for (unsigned int c = 0; c < CLASSES; c++) {
		struct estimate *site = NULL;

		for (size_t r = 0; r < RUNS; r++) {
			if (runs[r].class == c)
				site = estimates[runs[r].site];
		}
		estimate_add(&site[ALLOC_OBJECTS], &site[ALLOC_BYTES], classes[c].hits,
			     classes[c].bytes, PERIOD);
		estimate_add(&site[LIVE_OBJECTS], &site[LIVE_BYTES], classes[c].live_hits,
			     classes[c].live_bytes, PERIOD);
	}
}

/* --- many recordings
 * ------------------------------------------------------------------------------ */

struct tally {
	double sum, sum_squares; /* of the differences from the truth */
	double variances;
	unsigned int covered, at_least_observed;
};

static struct tally tallies[SITES][FIGURES];
static double truth[SITES][FIGURES];

static int simulate(void **state)
{
	struct estimate estimates[SITES][FIGURES];
	struct counts classes[CLASSES];

	(void)state;
	random_state = 20240229;
	run_truth(truth);
	for (int i = 0; i < REPETITIONS; i++) {
		run_sampled(classes);
		run_estimated(classes, estimates);
		for (int s = 0; s < SITES; s++) {
			for (int f = 0; f < FIGURES; f++) {
				const struct estimate *e = &estimates[s][f];
				struct tally *to = &tallies[s][f];
				double low, high, off = e->value - truth[s][f];

				estimate_interval(e, &low, &high);
				to->sum += off;
				to->sum_squares += off * off;
				to->variances += e->variance;
				to->covered += low <= truth[s][f] && truth[s][f] <= high;
				to->at_least_observed += low >= e->observed && high >= low;
			}
		}
	}
	return 0;
}

static double mean_error(const struct tally *tally)
{
	return tally->sum / REPETITIONS;
}

static double deviation(const struct tally *tally)
{
	double mean = mean_error(tally);

	return sqrt(fmax(tally->sum_squares / REPETITIONS - mean * mean, 0));
}

static void test_the_mean_of_every_figure_of_every_site_is_the_truth(void **state)
{
	(void)state;
	for (int s = 0; s < SITES; s++) {
		for (int f = 0; f < FIGURES; f++) {
			double error = mean_error(&tallies[s][f]);
			double standard_error = deviation(&tallies[s][f]) / sqrt(REPETITIONS);

			/* Of 8 MiB objects all are hit in practice: no spread, and an error of
			 * 1e-7. */
			if (fabs(error) > 3 * standard_error + 1e-6 * truth[s][f])
				fail_msg("%s, figure %d: off by %g, standard error %g",
					 site_names[s], f, error, standard_error);
		}
	}
}

static void test_the_variance_is_the_spread_that_is_seen(void **state)
{
	(void)state;
	for (int s = 0; s < SITES; s++) {
		for (int f = 0; f < FIGURES; f++) {
			double expected = tallies[s][f].variances / REPETITIONS;
			double seen = deviation(&tallies[s][f]) * deviation(&tallies[s][f]);

			if (s == HUGE_)
				continue;
			/* The spread of a spread: sqrt(2/1000) = 4.5 %, more where few hits weigh a
			 * lot. */
			if (seen < 0.8 * expected || seen > 1.25 * expected)
				fail_msg("%s, figure %d: variance %g, seen %g", site_names[s], f,
					 expected, seen);
		}
	}
}

static void test_intervals_cover_the_truth_in_90_to_99_percent(void **state)
{
	unsigned int covered = 0, all = 0;

	(void)state;
	for (int s = 0; s < SITES; s++) {
		for (int f = 0; f < FIGURES; f++) {
			double share = (double)tallies[s][f].covered / REPETITIONS;

			if (getenv("VERBOSE"))
				print_message("%-8s%d  truth %14.0f  mean error %+9.4f %%  covered "
					      "%5.1f %%\n",
					      site_names[s], f, truth[s][f],
					      100 * mean_error(&tallies[s][f]) / truth[s][f],
					      100 * share);
			assert_int_equal(tallies[s][f].at_least_observed, REPETITIONS);
			if (s == HUGE_) {
				assert_true(share > 0.99);
				continue;
			}
			if (share < 0.9 || share > 0.99)
				fail_msg("%s, figure %d: %.1f %%", site_names[s], f, 100 * share);
			covered += tallies[s][f].covered;
			all += REPETITIONS;
		}
	}
	assert_in_range(100 * covered / all, 93, 97);
}

/* --- closed formulas
 * ------------------------------------------------------------------------------ */

static void assert_near(double value, double expected)
{
	if (fabs(value - expected) > 1e-9 * fmax(fabs(expected), 1))
		fail_msg("%.12g instead of %.12g", value, expected);
}

static void test_probability_is_one_minus_exp(void **state)
{
	(void)state;
	assert_near(estimate_probability(PERIOD, PERIOD), 1 - exp(-1));
	assert_near(estimate_probability(PERIOD * 2.0, PERIOD), 1 - exp(-2));
	assert_near(estimate_probability(100, 1000), 1 - exp(-0.1));
	/* A series where 1 - exp() has no digits left: x - x^2/2. */
	assert_true(fabs(estimate_probability(1, UINT64_C(1) << 40) / (0x1p-40 - 0x1p-81) - 1) <
		    1e-15);
	assert_near(estimate_probability(0x1p40, PERIOD), 1);
	/* No bytes: sampled as one byte, or never. */
	assert_true(estimate_probability(0, PERIOD) == estimate_probability(1, PERIOD));
}

static void test_period_1_is_exact(void **state)
{
	struct estimate objects = {0}, bytes = {0};
	double low, high;

	(void)state;
	estimate_add(&objects, &bytes, 7, 1000003, 1);
	estimate_add(&objects, &bytes, 2, 0, 1);
	assert_true(estimate_probability(1, 1) == 1);
	assert_true(objects.value == 9 && objects.variance == 0 && objects.observed == 9);
	assert_true(bytes.value == 1000003 && bytes.variance == 0 && bytes.observed == 1000003);
	estimate_interval(&bytes, &low, &high);
	assert_true(low == 1000003 && high == 1000003);
	assert_true(estimate_upper_of_none(&objects, &objects) == 0);
}

static void test_a_hit_stands_for_one_over_p(void **state)
{
	struct estimate objects = {0}, bytes = {0}, twice;
	double p = 1 - exp(-4096.0 / PERIOD);

	(void)state;
	estimate_add(&objects, &bytes, 10, 40960, PERIOD);
	assert_near(objects.value, 10 / p);
	assert_near(objects.variance, 10 * (1 - p) / (p * p));
	assert_near(objects.observed, 10);
	assert_near(bytes.value, 40960 / p);
	assert_near(bytes.variance / (4096.0 * 4096), objects.variance);
	assert_near(bytes.observed, 40960);
	twice = objects;
	estimate_sum(&twice, &objects);
	assert_near(twice.value, 20 / p);
	assert_near(twice.variance, 2 * objects.variance);
	assert_near(twice.observed, 20);
	/* Nothing adds nothing, and either sum may be left out. */
	estimate_add(&objects, &bytes, 0, 0, PERIOD);
	estimate_add(NULL, NULL, 1, 1, PERIOD);
	assert_near(objects.value, 10 / p);
	estimate_add(&twice, NULL, 1, 4096, PERIOD);
	assert_near(twice.observed, 21);
	/* Nobody knows how many empty objects a hit stands for, but they have no bytes. */
	bytes = (struct estimate){0};
	estimate_add(NULL, &bytes, 3, 0, PERIOD);
	assert_true(bytes.value == 0 && bytes.variance == 0);
}

/* One event in `each` is taken: the same arithmetic, with p = 1 / each. */
static void test_an_event_stands_for_those_that_were_passed(void **state)
{
	struct estimate bytes = {0};
	double low, high;

	(void)state;
	for (int i = 0; i < 10; i++)
		estimate_add_event(&bytes, 17, 4096);
	assert_near(bytes.value, 10 * 17 * 4096.0);
	assert_near(bytes.variance, 10 * 4096.0 * 4096 * 17 * 16);
	assert_near(bytes.observed, 10 * 4096.0);
	/* None was passed: it is all there is. */
	bytes = (struct estimate){0};
	estimate_add_event(&bytes, 1, 4096);
	estimate_add_event(&bytes, 0.5, 4096);
	estimate_interval(&bytes, &low, &high);
	assert_true(bytes.value == 8192 && low == 8192 && high == 8192);
}

/* The ends of the interval are where the truth is 1.96 standard deviations from what was seen. */
static void test_the_interval_solves_the_score_equation(void **state)
{
	static const struct {
		uint64_t hits, size;
	} cases[] = {{1, 16}, {4, 100}, {20, 4096}, {1000, 4096}, {30, PERIOD}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		double p = estimate_probability((double)cases[i].size, PERIOD);
		double k = (double)cases[i].hits, low, high;
		struct estimate objects = {0};

		estimate_add(&objects, NULL, cases[i].hits, cases[i].hits * cases[i].size, PERIOD);
		estimate_interval(&objects, &low, &high);
		assert_near((high * p - k) / sqrt(high * p * (1 - p)), 1.959963984540054);
		if (low > objects.observed)
			assert_near((low * p - k) / sqrt(low * p * (1 - p)), -1.959963984540054);
		assert_true(low < objects.value && objects.value < high);
	}
}

static void test_the_interval_never_ends_below_what_was_seen(void **state)
{
	struct estimate e = {.value = 10.5, .variance = 3, .observed = 10};
	double low, high;

	(void)state;
	estimate_interval(&e, &low, &high);
	assert_true(low == 10 && high > 10.5);
}

static void test_no_hit_is_no_proof_of_nothing(void **state)
{
	struct estimate objects = {0}, bytes = {0};
	double p = estimate_probability(4096, PERIOD), upper;

	(void)state;
	estimate_add(&objects, &bytes, 100, 409600, PERIOD);
	upper = estimate_upper_of_none(&objects, &objects);
	assert_near(pow(1 - p, upper), 0.025);
	assert_near(estimate_upper_of_none(&objects, &bytes), upper * 4096);
	/* A part is not more than the whole may be. */
	objects = (struct estimate){.value = 2, .variance = 0.1, .observed = 0.1};
	bytes = (struct estimate){.value = 2, .variance = 1e-9, .observed = 0.1};
	upper = estimate_upper_of_none(&objects, &bytes);
	assert_true(upper > 2 && upper < 2.001);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_mean_of_every_figure_of_every_site_is_the_truth),
		cmocka_unit_test(test_the_variance_is_the_spread_that_is_seen),
		cmocka_unit_test(test_intervals_cover_the_truth_in_90_to_99_percent),
		cmocka_unit_test(test_probability_is_one_minus_exp),
		cmocka_unit_test(test_period_1_is_exact),
		cmocka_unit_test(test_a_hit_stands_for_one_over_p),
		cmocka_unit_test(test_an_event_stands_for_those_that_were_passed),
		cmocka_unit_test(test_the_interval_solves_the_score_equation),
		cmocka_unit_test(test_the_interval_never_ends_below_what_was_seen),
		cmocka_unit_test(test_no_hit_is_no_proof_of_nothing),
	};

	return cmocka_run_group_tests(tests, simulate, NULL);
}
