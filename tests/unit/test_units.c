/* What people may type for a duration or a size, and how both are printed. */
#include "util/units.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define MS     INT64_C(1000000)
#define SECOND (1000 * MS)

static void test_durations_with_and_without_units(void **state)
{
	static const struct {
		const char *text;
		int64_t nanos;
	} cases[] = {
		{"60", 60 * SECOND},
		{"1.5s", 1500 * MS},
		{"250ms", 250 * MS},
		{"2m", 120 * SECOND},
		{"1h", 3600 * SECOND},
		{"0.5", 500 * MS},
		{".5s", 500 * MS},
		{"1.", SECOND},
		{"007s", 7 * SECOND},
		{"0.000001ms", 1},
		{"0.1s", 100 * MS},
		{"1.0000000000000000000000000001s", SECOND},
		{"0.12345678919999999999999990001s", 123456789},
		{"9223372036.854775807s", INT64_MAX},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int64_t nanos = -1;

		if (units_parse_duration(cases[i].text, &nanos) || nanos != cases[i].nanos)
			fail_msg("%s: %lld", cases[i].text, (long long)nanos);
	}
}

static void test_sizes_with_and_without_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"1", 1},
		{"4096", 4096},
		{"4096B", 4096},
		{"64k", 65536},
		{"64K", 65536},
		{"64KB", 65536},
		{"512KiB", 524288},
		{"1MiB", 1048576},
		{"1.5MiB", 1572864},
		{"2g", UINT64_C(2) << 30},
		{"1TiB", UINT64_C(1) << 40},
		{"0.5KiB", 512},
		{"1.9", 1},
		{"18446744073709551615", UINT64_MAX},
		{"16777215TiB", UINT64_C(16777215) << 40},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t bytes = 0;

		if (units_parse_size(cases[i].text, &bytes) || bytes != cases[i].bytes)
			fail_msg("%s: %llu", cases[i].text, (unsigned long long)bytes);
	}
}

static void test_nonsense_is_refused_and_leaves_the_result_alone(void **state)
{
	static const struct {
		const char *text;
		int duration, size;
	} cases[] = {
		{"", -EINVAL, -EINVAL},
		{" 1", -EINVAL, -EINVAL},
		{"1 ", -EINVAL, -EINVAL},
		{"-1", -EINVAL, -EINVAL},
		{"+1", -EINVAL, -EINVAL},
		{"s", -EINVAL, -EINVAL},
		{".", -EINVAL, -EINVAL},
		{".s", -EINVAL, -EINVAL},
		{"1e3", -EINVAL, -EINVAL},
		{"0x10", -EINVAL, -EINVAL},
		{"1.2.3", -EINVAL, -EINVAL},
		{"1,5", -EINVAL, -EINVAL},
		{"nan", -EINVAL, -EINVAL},
		{"inf", -EINVAL, -EINVAL},
		{"10sec", -EINVAL, -EINVAL},
		{"10S", -EINVAL, -EINVAL},
		{"10KiBs", -EINVAL, -EINVAL},
		{"99999999999999999999x", -EINVAL, -EINVAL},
		{"0", -ERANGE, -ERANGE},
		{"0.0", -ERANGE, -ERANGE},
		{"0.9", 0, -ERANGE},
		{"0.0000000001", -ERANGE, -ERANGE},
		{"9223372037", -ERANGE, 0},
		{"18446744073709551616", -ERANGE, -ERANGE},
		{"99999999999999999999", -ERANGE, -ERANGE},
		{"2562048h", -ERANGE, -EINVAL},
		{"16777216T", -EINVAL, -ERANGE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int64_t nanos = 42;
		uint64_t bytes = 42;
		int duration = units_parse_duration(cases[i].text, &nanos);
		int size = units_parse_size(cases[i].text, &bytes);

		if (duration != cases[i].duration || (duration && nanos != 42))
			fail_msg("duration \"%s\": %d", cases[i].text, duration);
		if (size != cases[i].size || (size && bytes != 42))
			fail_msg("size \"%s\": %d", cases[i].text, size);
	}
}

static void test_sizes_are_printed_with_three_digits(void **state)
{
	static const struct {
		double bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{1023.6, "1.00 KiB"},
		{1024, "1.00 KiB"},
		{1536, "1.50 KiB"},
		{10235, "10.0 KiB"},
		{10240, "10.0 KiB"},
		{102400, "100 KiB"},
		{524288, "512 KiB"},
		{1023 * 1024, "1023 KiB"},
		{1048575, "1.00 MiB"},
		{12.34 * 1048576, "12.3 MiB"},
		{1.21 * 1073741824, "1.21 GiB"},
		{0x1p63, "8.00 EiB"},
		{0x1p80, "1048576 EiB"},
	};
	char text[UNITS_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_string_equal(units_format_size(cases[i].bytes, text), cases[i].text);
}

static void test_counts_are_printed_in_groups(void **state)
{
	char text[UNITS_TEXT_MAX];

	(void)state;
	assert_string_equal(units_format_count(0, text), "0");
	assert_string_equal(units_format_count(999, text), "999");
	assert_string_equal(units_format_count(1000, text), "1,000");
	assert_string_equal(units_format_count(1234567, text), "1,234,567");
	assert_string_equal(units_format_count(-123456, text), "-123,456");
	assert_string_equal(units_format_count(-1234, text), "-1,234");
	assert_string_equal(units_format_count(INT64_MAX, text), "9,223,372,036,854,775,807");
	assert_string_equal(units_format_count(INT64_MIN, text), "-9,223,372,036,854,775,808");
}

static void test_durations_are_printed_in_their_unit(void **state)
{
	char text[UNITS_TEXT_MAX];

	(void)state;
	assert_string_equal(units_format_duration(0, text), "0.00 ms");
	assert_string_equal(units_format_duration(1500000, text), "1.50 ms");
	assert_string_equal(units_format_duration(250 * MS, text), "250 ms");
	assert_string_equal(units_format_duration(999600000, text), "1.00 s");
	assert_string_equal(units_format_duration(1500 * MS, text), "1.50 s");
	assert_string_equal(units_format_duration(10 * SECOND, text), "10.0 s");
	assert_string_equal(units_format_duration(59990 * MS, text), "1 min 00 s");
	assert_string_equal(units_format_duration(125 * SECOND, text), "2 min 05 s");
	assert_string_equal(units_format_duration(3600 * SECOND, text), "1 h 00 min");
	assert_string_equal(units_format_duration(INT64_MAX, text), "2562047 h 47 min");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations_with_and_without_units),
		cmocka_unit_test(test_sizes_with_and_without_units),
		cmocka_unit_test(test_nonsense_is_refused_and_leaves_the_result_alone),
		cmocka_unit_test(test_sizes_are_printed_with_three_digits),
		cmocka_unit_test(test_counts_are_printed_in_groups),
		cmocka_unit_test(test_durations_are_printed_in_their_unit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
