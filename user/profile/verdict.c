#include "profile/verdict.h"

#include "util/vec.h"

#include <stdlib.h>

/* Of all parts; what comes in bursts misses some. */
#define STEADY_SHARE 0.8
/* Of the growth; the rest is what everybody does. */
#define STEP_SHARE 0.8
/* From so many parts on, two together may be the step: its middle may be where one ends. */
#define STEP_PARTS 6

int readings_add(struct readings *readings, int64_t time, uint64_t bytes)
{
	size_t limit = readings->limit ? readings->limit : READINGS_MAX;

	if (!readings->step)
		readings->step = 1;
	if (readings->skip) {
		readings->skip--;
		return 0;
	}
	readings->skip = readings->step - 1;
	if (readings->count == limit) {
		for (size_t i = 0; i < limit / 2; i++)
			readings->items[i] = readings->items[2 * i];
		readings->count = limit / 2;
		readings->step *= 2;
		readings->skip = readings->step - 1;
	}
	return vec_push(readings, (struct reading){time, bytes});
}

void readings_deinit(struct readings *readings)
{
	free(readings->items);
	*readings = (struct readings){.limit = readings->limit};
}

/* Where the parts of the window end, in readings: ends[0] is its beginning. Their number. */
static unsigned int divide(const struct readings *readings, size_t ends[VERDICT_PARTS_MAX + 1])
{
	size_t intervals = readings->count ? readings->count - 1 : 0;
	unsigned int parts =
		intervals < VERDICT_PARTS_MAX ? (unsigned int)intervals : VERDICT_PARTS_MAX;

	for (unsigned int i = 0; i <= parts; i++)
		ends[i] = parts ? intervals * i / parts : 0;
	return parts;
}

static int64_t difference(const struct readings *readings, size_t from, size_t to)
{
	return (int64_t)readings->items[to].bytes - (int64_t)readings->items[from].bytes;
}

static void find_extremes(const struct readings *readings, struct verdict *verdict)
{
	verdict->low = verdict->high = readings->items[0].bytes;
	vec_for_each(reading, readings) {
		if (reading->bytes < verdict->low)
			verdict->low = reading->bytes;
		if (reading->bytes > verdict->high)
			verdict->high = reading->bytes;
	}
}

/* Up and down, by readings: what a part's ends show may be neither. */
static void sum_up(const struct readings *readings, int64_t *up, int64_t *down)
{
	*up = *down = 0;
	for (size_t i = 1; i < readings->count; i++) {
		int64_t change = difference(readings, i - 1, i);

		*up += change > 0 ? change : 0;
		*down -= change < 0 ? change : 0;
	}
}

static enum verdict_kind judge(const struct readings *readings, const struct verdict *verdict)
{
	double first = (double)readings->items[0].bytes, least = VERDICT_LEAST_SHARE * first;
	double span = (double)(verdict->high - verdict->low), change = (double)verdict->change;
	int64_t up, down;

	if (least < VERDICT_LEAST_BYTES)
		least = VERDICT_LEAST_BYTES;
	if (verdict->parts < VERDICT_PARTS_MIN)
		return VERDICT_TOO_SHORT;
	if (span <= least)
		return VERDICT_FLAT;
	sum_up(readings, &up, &down);
	/* It came back down by most of what it went up, again and again. */
	if ((double)down > 2 * least && (double)down > 0.5 * (double)up &&
	    (double)up + (double)down > 3 * (change > 0 ? change : -change))
		return VERDICT_SAWTOOTH;
	if (change < -least)
		return VERDICT_SHRANK;
	if (change <= least)
		return VERDICT_FLAT;
	if ((double)verdict->step >= STEP_SHARE * change)
		return VERDICT_STEP;
	if (verdict->grown >= STEADY_SHARE * verdict->parts)
		return VERDICT_STEADY;
	return VERDICT_UNEVEN;
}

/* The largest growth within `width` parts in a row. */
static void find_step(const struct readings *readings, const size_t *ends, unsigned int width,
		      struct verdict *verdict)
{
	const struct reading *items = readings->items;

	for (unsigned int i = 0; i + width <= verdict->parts; i++) {
		int64_t change = difference(readings, ends[i], ends[i + width]);

		if (change <= verdict->step)
			continue;
		verdict->step = change;
		verdict->step_from = items[ends[i]].time - items[0].time;
		verdict->step_to = items[ends[i + width]].time - items[0].time;
	}
}

struct verdict verdict_of(const struct readings *readings)
{
	size_t ends[VERDICT_PARTS_MAX + 1];
	struct verdict verdict = {.parts = divide(readings, ends)};
	const struct reading *items = readings->items;
	int64_t length;

	if (!verdict.parts)
		return verdict;
	for (unsigned int i = 0; i < verdict.parts; i++) {
		verdict.grown += difference(readings, ends[i], ends[i + 1]) > 0;
	}
	verdict.change = difference(readings, 0, readings->count - 1);
	find_step(readings, ends, 1, &verdict);
	if (verdict.parts >= STEP_PARTS &&
	    (double)verdict.step < STEP_SHARE * (double)verdict.change)
		find_step(readings, ends, 2, &verdict);
	length = items[readings->count - 1].time - items[0].time;
	if (length > 0)
		verdict.per_second = (double)verdict.change * 1e9 / (double)length;
	find_extremes(readings, &verdict);
	verdict.kind = judge(readings, &verdict);
	return verdict;
}

unsigned int verdict_ends(const struct readings *readings,
			  struct reading ends[VERDICT_PARTS_MAX + 1])
{
	size_t at[VERDICT_PARTS_MAX + 1];
	unsigned int parts = divide(readings, at);

	for (unsigned int i = 0; parts && i <= parts; i++)
		ends[i] = readings->items[at[i]];
	return parts;
}
