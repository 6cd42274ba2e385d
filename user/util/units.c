#include "util/units.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)

#define NANOS_PER_MS	 INT64_C(1000000)
#define NANOS_PER_SECOND (1000 * NANOS_PER_MS)

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit duration_units[] = {
	{"", NANOS_PER_SECOND},	      {"ms", NANOS_PER_MS},	      {"s", NANOS_PER_SECOND},
	{"m", 60 * NANOS_PER_SECOND}, {"h", 3600 * NANOS_PER_SECOND},
};

static const struct unit size_units[] = {
	{"", 1},      {"B", 1},	   {"K", KIB},	 {"KB", KIB},  {"KiB", KIB},
	{"M", MIB},   {"MB", MIB}, {"MiB", MIB}, {"G", GIB},   {"GB", GIB},
	{"GiB", GIB}, {"T", TIB},  {"TB", TIB},	 {"TiB", TIB},
};

/* A decimal number as digits / 10^decimals, so that nothing is rounded before it is multiplied. */
struct decimal {
	uint64_t digits;
	uint64_t scale; /* 10^decimals */
};

/* What a fraction has beyond 18 digits, or beyond 64 bits, is read and dropped. */
#define MAX_SCALE UINT64_C(1000000000000000000)

static int parse_decimal(const char **text, struct decimal *out)
{
	struct decimal number = {.scale = 1};
	const char *at = *text;
	unsigned int seen = 0;

	for (; *at >= '0' && *at <= '9'; at++, seen++) {
		if (__builtin_mul_overflow(number.digits, 10, &number.digits) ||
		    __builtin_add_overflow(number.digits, *at - '0', &number.digits))
			return -ERANGE;
	}
	if (*at == '.') {
		bool dropped = false;

		for (at++; *at >= '0' && *at <= '9'; at++, seen++) {
			uint64_t longer;

			dropped = dropped || number.scale == MAX_SCALE ||
				  __builtin_mul_overflow(number.digits, 10, &longer) ||
				  __builtin_add_overflow(longer, *at - '0', &longer);
			if (dropped)
				continue;
			number.digits = longer;
			number.scale *= 10;
		}
	}
	if (!seen)
		return -EINVAL;
	*text = at;
	*out = number;
	return 0;
}

static int parse(const char *text, const struct unit *units, size_t count,
		 int (*compare)(const char *, const char *), uint64_t max, uint64_t *out)
{
	struct decimal number;
	unsigned __int128 value;
	int err = parse_decimal(&text, &number);

	/* A number that is too long, and garbage behind it: the garbage is the better complaint. */
	if (err == -ERANGE)
		text += strspn(text, "0123456789.");
	else if (err)
		return err;
	for (size_t i = 0; i < count; i++) {
		if (compare(text, units[i].name))
			continue;
		if (err)
			return err;
		value = (unsigned __int128)number.digits * units[i].factor / number.scale;
		if (!value || value > max)
			return -ERANGE;
		*out = (uint64_t)value;
		return 0;
	}
	return -EINVAL;
}

int units_parse_duration(const char *text, int64_t *nanos)
{
	uint64_t value;
	int err = parse(text, duration_units, sizeof(duration_units) / sizeof(*duration_units),
			strcmp, INT64_MAX, &value);

	if (!err)
		*nanos = (int64_t)value;
	return err;
}

int units_parse_size(const char *text, uint64_t *bytes)
{
	return parse(text, size_units, sizeof(size_units) / sizeof(*size_units), strcasecmp,
		     UINT64_MAX, bytes);
}

const char *units_format_size(double bytes, char text[UNITS_TEXT_MAX])
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	const size_t last = sizeof(names) / sizeof(*names) - 1;
	size_t unit = 0;
	int decimals = 0;

	/* From 1023.5 on "%.0f" would print 1024 of the smaller unit. */
	for (; bytes >= 1023.5 && unit < last; unit++)
		bytes /= 1024;
	if (unit)
		decimals = bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0;
	snprintf(text, UNITS_TEXT_MAX, "%.*f %s", decimals, bytes, names[unit]);
	return text;
}

const char *units_format_count(int64_t count, char text[UNITS_TEXT_MAX])
{
	char digits[UNITS_TEXT_MAX];
	int length = snprintf(digits, sizeof(digits), "%lld", (long long)count);
	int sign = count < 0;
	char *to = text;

	for (int i = 0; i < length; i++) {
		if (i > sign && (length - i) % 3 == 0)
			*to++ = ',';
		*to++ = digits[i];
	}
	*to = '\0';
	return text;
}

const char *units_format_duration(int64_t nanos, char text[UNITS_TEXT_MAX])
{
	int64_t seconds =
		nanos / NANOS_PER_SECOND + (nanos % NANOS_PER_SECOND >= NANOS_PER_SECOND / 2);

	if (nanos < 999500000)
		snprintf(text, UNITS_TEXT_MAX, "%.*f ms", nanos < 10 * NANOS_PER_MS ? 2 : 0,
			 (double)nanos / NANOS_PER_MS);
	else if (nanos < 59950000000)
		snprintf(text, UNITS_TEXT_MAX, "%.*f s", nanos < 9995000000 ? 2 : 1,
			 (double)nanos / NANOS_PER_SECOND);
	else if (seconds < 3600)
		snprintf(text, UNITS_TEXT_MAX, "%lld min %02lld s", (long long)(seconds / 60),
			 (long long)(seconds % 60));
	else
		snprintf(text, UNITS_TEXT_MAX, "%lld h %02lld min", (long long)(seconds / 3600),
			 (long long)(seconds % 3600 / 60));
	return text;
}
