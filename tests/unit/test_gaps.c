/* The table of gaps against closed formulas. */
#include "profile/gaps.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define COUNT 4096

static uint64_t gaps[COUNT];

static double mean_of_table(void)
{
	double sum = 0;

	for (size_t i = 0; i < COUNT; i++)
		sum += (double)gaps[i];
	return sum / COUNT;
}

/*
 * Calls of one size: a gap g ends at call number ceil(g / size), so the rate of hits is 1 over the
 * mean of that; it has to be 1 - exp(-size / period).
 */
static double hit_rate(uint64_t size)
{
	double calls = 0;

	for (size_t i = 0; i < COUNT; i++)
		calls += ceil((double)gaps[i] / (double)size);
	return COUNT / calls;
}

static void mean_is_the_period(void **state)
{
	static const uint64_t periods[] = {64, 4096, 524288, 1 << 30};

	(void)state;
	for (size_t i = 0; i < sizeof(periods) / sizeof(*periods); i++) {
		gaps_fill(gaps, COUNT, periods[i]);
		/* Rounding up adds half a byte on average. */
		assert_true(fabs(mean_of_table() - (double)periods[i] - 0.5) <
			    0.05 + 1e-9 * (double)periods[i]);
	}
}

static void every_size_has_its_probability(void **state)
{
	static const uint64_t periods[] = {16, 512, 4096, 524288};
	static const double ratios[] = {0.001, 0.01, 0.1, 0.3, 1, 2, 4, 7};

	(void)state;
	for (size_t i = 0; i < sizeof(periods) / sizeof(*periods); i++) {
		gaps_fill(gaps, COUNT, periods[i]);
		for (size_t j = 0; j < sizeof(ratios) / sizeof(*ratios); j++) {
			uint64_t size = (uint64_t)(ratios[j] * (double)periods[i]) + 1;
			double p = 1 - exp(-(double)size / (double)periods[i]);

			assert_true(fabs(hit_rate(size) / p - 1) < 0.002);
		}
	}
}

static void period_of_one_takes_every_call(void **state)
{
	(void)state;
	gaps_fill(gaps, COUNT, 1);
	for (size_t i = 0; i < COUNT; i++)
		assert_int_equal(gaps[i], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mean_is_the_period),
		cmocka_unit_test(every_size_has_its_probability),
		cmocka_unit_test(period_of_one_takes_every_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
