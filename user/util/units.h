/* Durations and sizes as people write and read them: "1.5s", "512KiB", "1,234,567". */
#ifndef ALLOCTRACE_UNITS_H
#define ALLOCTRACE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Room enough for every format function below. */
#define UNITS_TEXT_MAX 32

/*
 * "60", "1.5s", "250ms", "2m", "1h": a bare number is seconds, units are lower case. The result is
 * > 0. 0; -EINVAL: not a number and a unit, or something behind it; -ERANGE: not above 0, or too
 * large.
 */
int units_parse_duration(const char *text, int64_t *nanos);

/*
 * "4096", "4096B", "64k", "512KiB", "1.5MiB", "2g": a bare number is bytes. K, KB and KiB are all
 * 1024 bytes, and so on up to T; case does not matter. Fractions of a byte are cut off. The result
 * is >= 1. Errors as above.
 */
int units_parse_size(const char *text, uint64_t *bytes);

/* "0 B", "1023 B", "1.50 KiB", "12.3 MiB", "1.21 GiB": three digits, four just below the next unit.
 */
const char *units_format_size(double bytes, char text[UNITS_TEXT_MAX]);

/* "1,234,567". */
const char *units_format_count(int64_t count, char text[UNITS_TEXT_MAX]);

/* "250 ms", "10.0 s", "2 min 05 s", "1 h 00 min". */
const char *units_format_duration(int64_t nanos, char text[UNITS_TEXT_MAX]);

#endif
