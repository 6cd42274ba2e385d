#include "sweep_totals.h"

#include "sweep_result.h"
#include "sweep_rows.h"
#include "util/clock.h"

#include <errno.h>
#include <stdlib.h>

/* Times as long as the last look took: the next one is not due before. */
#define REST 100

void sweep_totals_deinit(struct sweep_totals *totals)
{
	free(totals->by_slot);
}

static bool is_due(const struct sweep *sweep, int64_t now)
{
	const struct sweep_totals *totals = &sweep->totals;

	if (sweep->recording.ended)
		return totals->read_at < sweep->recording.ended;
	return now >= totals->due;
}

int sweep_totals_read(struct sweep *sweep)
{
	struct tracer *tracer = sweep->recording.tracer;
	struct sweep_totals *totals = &sweep->totals;
	int64_t now = clock_now(CLOCK_MONOTONIC);
	struct tracer_total *by_slot;
	int err;

	if (!is_due(sweep, now))
		return 0;
	by_slot = calloc(tracer_slots(tracer), sizeof(*by_slot));
	if (!by_slot)
		return -ENOMEM;
	err = tracer_read_totals(tracer, by_slot);
	if (err) {
		free(by_slot);
		return err;
	}
	free(totals->by_slot);
	totals->by_slot = by_slot;
	totals->read_at = now;
	totals->due = now + REST * (clock_now(CLOCK_MONOTONIC) - now);
	return 0;
}

void sweep_totals_add(const struct sweep *sweep, const struct target_record *target,
		      struct sweep_row *row)
{
	const struct sweep_totals *totals = &sweep->totals;
	int64_t end = sweep->recording.ended ? sweep->recording.ended : totals->read_at;

	if (target->ended_at && target->ended_at < end)
		end = target->ended_at;
	/* One that has come since the last look has none yet. */
	if (!totals->by_slot || end <= target->begun)
		return;
	sweep_row_add_figures(row, &totals->by_slot[target->slot].live,
			      &totals->by_slot[target->slot].allocated, end - target->begun,
			      sweep->settings->period);
}
