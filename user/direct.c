#include "direct.h"

#include "target/memory.h"
#include "util/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is resident of a part. */
struct measured_part {
	uint64_t object, size; /* as in struct region_part */
	uint64_t resident;
};

static int by_address(const void *a, const void *b)
{
	const struct region_part *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static int by_object(const void *a, const void *b)
{
	const struct measured_part *x = a, *y = b;

	return (x->object > y->object) - (x->object < y->object);
}

/* Sorted by object: an object is in or out with all its parts, so they are one hit. */
static struct estimate sum_up(const struct measured_part *parts, size_t count, uint64_t period)
{
	struct estimate sum = {0};
	uint64_t resident = 0;

	for (size_t i = 0; i < count; i++) {
		resident += parts[i].resident;
		if (i + 1 < count && parts[i + 1].object == parts[i].object)
			continue;
		estimate_add_rest(NULL, &sum, 1, resident, (double)parts[i].size, period);
		resident = 0;
	}
	return sum;
}

/* 0; 1: too many; -errno. */
static int measure(pid_t pid, struct region_part *parts, size_t count, uint64_t period,
		   struct profile_memory *memory)
{
	CLEANUP(cleanup_free) struct memory_part *looked_at = calloc(count + 1, sizeof(*looked_at));
	CLEANUP(cleanup_free) struct measured_part *measured = calloc(count + 1, sizeof(*measured));
	int err;

	if (!looked_at || !measured)
		return -ENOMEM;
	if (count)
		qsort(parts, count, sizeof(*parts), by_address);
	for (size_t i = 0; i < count; i++)
		looked_at[i] = (struct memory_part){.start = parts[i].start, .end = parts[i].end};
	err = memory_read_parts(pid, looked_at, count, &memory->stacks);
	if (err)
		return err;
	for (size_t i = 0; i < count; i++)
		measured[i] = (struct measured_part){
			.object = parts[i].object,
			.size = parts[i].size,
			.resident = looked_at[i].resident,
		};
	if (count)
		qsort(measured, count, sizeof(*measured), by_object);
	memory->direct = sum_up(measured, count, period);
	return 0;
}

void direct_measure(const struct recording *recording, const struct target_record *target,
		    struct profile_memory *memory)
{
	CLEANUP(cleanup_free) struct region_part *parts = NULL;
	size_t count = 0;
	bool crowded;
	int err;

	tracer_read_requests(recording->tracer);
	err = tracer_direct_mappings(recording->tracer, target->slot, &parts, &count,
				     &memory->direct_lost);
	if (!err && count > DIRECT_PARTS_MAX)
		err = -E2BIG;
	crowded = err == -E2BIG;
	memory->direct_known = !err;
	err = measure(target->process->pid, parts, err ? 0 : count, recording->settings->period,
		      memory);
	memory->direct_known &= !err;
	memory->direct_crowded = crowded || err == 1;
	if (!memory->direct_known)
		log_verbose("process %d: direct mappings could not be measured",
			    target->process->pid);
}
