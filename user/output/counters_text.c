#include "output/counters_text.h"

#include "util/units.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void write_counter(const struct profile_counter *counter, FILE *to)
{
	uint64_t count = counter->count > INT64_MAX ? INT64_MAX : counter->count;
	char text[UNITS_TEXT_MAX];

	fprintf(to, "%s: %s", counter->name, units_format_count((int64_t)count, text));
}

int counters_format(const struct profile *profile, enum profile_counter_kind kind, char **text)
{
	size_t size;
	FILE *to = open_memstream(text, &size);
	int failed;

	if (!to) {
		*text = NULL;
		return -ENOMEM;
	}
	for (size_t i = 0; i < profile->counters.count; i++) {
		const struct profile_counter *counter = &profile->counters.items[i];

		if (counter->kind != kind || !counter->count)
			continue;
		if (ftell(to) > 0)
			fputs("; ", to);
		write_counter(counter, to);
	}
	failed = fclose(to);
	if (failed || !size) {
		free(*text);
		*text = NULL;
	}
	return failed ? -ENOMEM : 0;
}
