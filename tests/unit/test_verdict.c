/* What a series of readings is called: made-up windows of which it is known what happened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "profile/verdict.h"

#include <stdlib.h>

#define SECOND 1000000000LL
#define MIB    (1024 * 1024)

/* A reading a second, as long as there are any. */
static struct verdict verdict_by(uint64_t (*bytes)(int second), int seconds)
{
	struct readings readings = {0};
	struct verdict verdict;

	for (int i = 0; i <= seconds; i++)
		assert_int_equal(readings_add(&readings, 7 * SECOND + i * SECOND, bytes(i)), 0);
	verdict = verdict_of(&readings);
	readings_deinit(&readings);
	return verdict;
}

static uint64_t fast_leak(int second)
{
	return 100 * MIB + (uint64_t)second * MIB;
}

/* 50 KiB a second, given by the kernel in pieces of 132 KiB. */
static uint64_t slow_leak(int second)
{
	return 5 * MIB + (uint64_t)second * 50 / 132 * 132 * 1024;
}

static uint64_t noise(int second)
{
	return 300 * MIB + (uint64_t)(second * 7919 % 13) * 4096 * 8;
}

static uint64_t one_step(int second)
{
	return noise(second) + (second >= 33 ? 64 * MIB : 0);
}

static uint64_t two_halves(int second)
{
	return noise(second) + (second >= 30 ? 32 * MIB : 0) + (second >= 31 ? 32 * MIB : 0);
}

static uint64_t teeth(int second)
{
	return 50 * MIB + (uint64_t)(second % 7) * 10 * MIB;
}

static uint64_t goes_down(int second)
{
	return 500 * MIB - (uint64_t)second * MIB;
}

static uint64_t some_parts(int second)
{
	return 100 * MIB + (second > 20 ? 20u : (uint64_t)second) * MIB +
	       (second > 50 ? (uint64_t)(second - 50) * MIB : 0);
}

static void ends_are_where_the_parts_end(void **state)
{
	struct reading ends[VERDICT_PARTS_MAX + 1];
	struct readings readings = {0};
	struct verdict verdict;
	unsigned int grown = 0;

	(void)state;
	assert_int_equal(verdict_ends(&readings, ends), 0);
	assert_int_equal(readings_add(&readings, 0, 1), 0);
	assert_int_equal(verdict_ends(&readings, ends), 0);
	readings_deinit(&readings);
	for (int i = 0; i <= 65; i++)
		assert_int_equal(readings_add(&readings, i * SECOND, some_parts(i)), 0);
	verdict = verdict_of(&readings);
	assert_int_equal(verdict_ends(&readings, ends), 12);
	assert_int_equal(ends[0].time, 0);
	assert_int_equal(ends[12].time, 65 * SECOND);
	for (int i = 0; i <= 12; i++)
		assert_int_equal(ends[i].bytes, some_parts((int)(ends[i].time / SECOND)));
	for (int i = 1; i <= 12; i++) {
		assert_true(ends[i].time - ends[i - 1].time >= 5 * SECOND);
		assert_true(ends[i].time - ends[i - 1].time <= 6 * SECOND);
		grown += ends[i].bytes > ends[i - 1].bytes;
	}
	assert_int_equal(grown, verdict.grown);
	assert_int_equal(ends[12].bytes - ends[0].bytes, verdict.change);
	readings_deinit(&readings);
}

static void growth_in_all_parts_is_steady(void **state)
{
	struct verdict verdict = verdict_by(fast_leak, 60);

	(void)state;
	assert_int_equal(verdict.kind, VERDICT_STEADY);
	assert_int_equal(verdict.grown, 12);
	assert_int_equal(verdict.parts, 12);
	assert_int_equal(verdict.change, 60 * MIB);
	assert_true(verdict.per_second > 0.999 * MIB && verdict.per_second < 1.001 * MIB);
	verdict = verdict_by(slow_leak, 120);
	assert_int_equal(verdict.kind, VERDICT_STEADY);
	assert_int_equal(verdict.grown, 12);
}

static void what_stays_is_flat(void **state)
{
	(void)state;
	assert_int_equal(verdict_by(noise, 60).kind, VERDICT_FLAT);
}

static void growth_at_once_is_a_step_with_its_time(void **state)
{
	struct verdict verdict = verdict_by(one_step, 60);

	(void)state;
	assert_int_equal(verdict.kind, VERDICT_STEP);
	assert_in_range(verdict.step_from, 28 * SECOND, 32 * SECOND);
	assert_in_range(verdict.step_to, 33 * SECOND, 38 * SECOND);
	assert_in_range(verdict.step, 63 * MIB, 65 * MIB);
	/* Half of it before the end of a part, half of it after. */
	verdict = verdict_by(two_halves, 60);
	assert_int_equal(verdict.kind, VERDICT_STEP);
	assert_int_equal(verdict.step_from, 25 * SECOND);
	assert_int_equal(verdict.step_to, 35 * SECOND);
	assert_in_range(verdict.step, 63 * MIB, 65 * MIB);
	/* Not so in a few parts: two of them are the half of it. */
	assert_int_not_equal(verdict_by(fast_leak, 4).kind, VERDICT_STEP);
}

static void up_and_down_is_a_sawtooth(void **state)
{
	struct verdict verdict = verdict_by(teeth, 60);

	(void)state;
	assert_int_equal(verdict.kind, VERDICT_SAWTOOTH);
	assert_int_equal(verdict.low, 50 * MIB);
	assert_int_equal(verdict.high, 110 * MIB);
}

static void the_rest_has_names_too(void **state)
{
	(void)state;
	assert_int_equal(verdict_by(goes_down, 60).kind, VERDICT_SHRANK);
	assert_int_equal(verdict_by(some_parts, 60).kind, VERDICT_UNEVEN);
}

static void too_few_readings_are_not_judged(void **state)
{
	struct readings none = {0};

	(void)state;
	assert_int_equal(verdict_of(&none).kind, VERDICT_TOO_SHORT);
	for (int i = 0; i < VERDICT_PARTS_MIN; i++)
		assert_int_equal(verdict_by(fast_leak, i).kind, VERDICT_TOO_SHORT);
	assert_int_equal(verdict_by(fast_leak, VERDICT_PARTS_MIN).kind, VERDICT_STEADY);
}

/* A week of readings is as good as a minute, in bounded memory. */
static void thin_out(size_t limit, size_t most)
{
	struct readings readings = {.limit = limit};
	const int seconds = 7 * 24 * 3600;

	for (int i = 0; i <= seconds; i++)
		assert_int_equal(readings_add(&readings, i * SECOND, (uint64_t)i * 1024), 0);
	assert_in_range(readings.count, most / 2, most);
	for (size_t i = 1; i < readings.count; i++)
		assert_int_equal(readings.items[i].time - readings.items[i - 1].time,
				 readings.step * SECOND);
	assert_int_equal(readings.items[0].time, 0);
	assert_int_equal(verdict_of(&readings).kind, VERDICT_STEADY);
	readings_deinit(&readings);
}

static void a_long_window_is_thinned_out(void **state)
{
	(void)state;
	thin_out(0, READINGS_MAX);
	thin_out(128, 128);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_are_where_the_parts_end),
		cmocka_unit_test(growth_in_all_parts_is_steady),
		cmocka_unit_test(what_stays_is_flat),
		cmocka_unit_test(growth_at_once_is_a_step_with_its_time),
		cmocka_unit_test(up_and_down_is_a_sawtooth),
		cmocka_unit_test(the_rest_has_names_too),
		cmocka_unit_test(too_few_readings_are_not_judged),
		cmocka_unit_test(a_long_window_is_thinned_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
