/* When numbered profiles are due, and how many of them are left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cli.h"
#include "intervals.h"
#include "util/clock.h"

#define HOUR 3600000000000LL

static void those_that_writing_takes_are_missed(void **state)
{
	int64_t from = clock_now(CLOCK_MONOTONIC) - 10 * HOUR - HOUR / 2;
	struct intervals intervals = {.number = 1};

	(void)state;
	intervals_plan(&intervals, HOUR, from);
	assert_int_equal(intervals.next, from + HOUR);
	/* The first is written half an hour after the tenth was due, and so 2 to 10 are left out. */
	intervals_end(&intervals);
	assert_int_equal(intervals.missed, 9);
	assert_int_equal(intervals.next, from + 11 * HOUR);
}

static void none_is_missed_in_time(void **state)
{
	int64_t from = clock_now(CLOCK_MONOTONIC) - HOUR - HOUR / 2;
	struct intervals intervals = {0};

	(void)state;
	intervals_plan(&intervals, HOUR, from);
	intervals_end(&intervals);
	assert_int_equal(intervals.missed, 0);
	assert_int_equal(intervals.next, from + 2 * HOUR);
}

static void without_an_interval_none_is_due(void **state)
{
	struct intervals intervals = {0};

	(void)state;
	intervals_plan(&intervals, 0, clock_now(CLOCK_MONOTONIC));
	assert_int_equal(intervals.next, INT64_MAX);
}

static void the_longest_and_the_first_failure_are_kept(void **state)
{
	int64_t now = clock_now(CLOCK_MONOTONIC);
	struct intervals intervals = {0};

	(void)state;
	intervals_note(&intervals, now - HOUR, EXIT_OK);
	assert_true(intervals.longest >= HOUR && intervals.longest < 2 * HOUR);
	assert_int_equal(intervals.code, EXIT_OK);
	intervals_note(&intervals, now, EXIT_OUTPUT);
	intervals_note(&intervals, now, EXIT_OTHER);
	intervals_note(&intervals, now, EXIT_OK);
	assert_true(intervals.longest >= HOUR);
	assert_int_equal(intervals.code, EXIT_OUTPUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(those_that_writing_takes_are_missed),
		cmocka_unit_test(none_is_missed_in_time),
		cmocka_unit_test(without_an_interval_none_is_due),
		cmocka_unit_test(the_longest_and_the_first_failure_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
