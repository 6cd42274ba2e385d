#include "target/watch.h"

#include "target/perf_ring.h"
#include "util/clock.h"
#include "util/reader.h"
#include "util/vec.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* Data pages of a ring: a power of two. A mapping's record is some 150 bytes. */
#define RING_PAGES 32

/* perf_event_open(2): what sample_id_all appends to each record, in this order for these two bits.
 */
#define SAMPLE_TYPE    (PERF_SAMPLE_TID | PERF_SAMPLE_TIME)
#define SAMPLE_ID_SIZE (2 * sizeof(uint32_t) + sizeof(uint64_t))

struct watch {
	struct perf_rings *rings; /* owned */
	struct {
		struct watch_event *items;
		size_t count, capacity;
	} events;
	size_t returned; /* events at the front that the last watch_read() returned */
};

int watch_open(struct watch **out)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = SAMPLE_TYPE,
		.sample_id_all = 1,
		.mmap = 1,
		.mmap2 = 1,
		.comm = 1,
		.comm_exec = 1,
		.task = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.watermark = 1,
		.wakeup_watermark = (uint32_t)(RING_PAGES * sysconf(_SC_PAGESIZE) / 4),
	};
	struct watch *watch = calloc(1, sizeof(*watch));
	int err;

	if (!watch)
		return -ENOMEM;
	err = perf_rings_open(&attr, RING_PAGES, &watch->rings);
	if (err) {
		watch_free(watch);
		return err;
	}
	*out = watch;
	return 0;
}

static void events_drop(struct watch *watch, size_t count)
{
	struct watch_event *events = watch->events.items;

	for (size_t i = 0; i < count; i++)
		free(events[i].path);
	watch->events.count -= count;
	if (watch->events.count)
		memmove(events, events + count, watch->events.count * sizeof(*events));
}

void watch_free(struct watch *watch)
{
	if (!watch)
		return;
	events_drop(watch, watch->events.count);
	free(watch->events.items);
	perf_rings_free(watch->rings);
	free(watch);
}

int watch_fd(const struct watch *watch)
{
	return perf_rings_fd(watch->rings);
}

/* Layouts: perf_event_open(2), "MMAP layout"; `record` starts behind the header. */
static int parse_mmap2(struct reader *record, struct watch_event *event)
{
	uint32_t major, minor;
	const char *path;

	event->type = WATCH_MAPPED;
	event->pid = (pid_t)reader_u32(record);
	reader_u32(record); /* tid */
	event->start = reader_u64(record);
	event->length = reader_u64(record);
	event->offset = reader_u64(record);
	major = reader_u32(record);
	minor = reader_u32(record);
	event->dev = makedev(major, minor);
	event->inode = reader_u64(record);
	reader_u64(record); /* inode generation */
	reader_u64(record); /* protection and flags */
	path = reader_cstr(record);
	if (!path)
		return -EINVAL;
	/* perf says "//anon" for memory without a file; /proc/PID/maps says nothing. */
	event->path = strdup(strcmp(path, "//anon") == 0 ? "" : path);
	return event->path ? 0 : -ENOMEM;
}

static int parse_exec(struct reader *record, struct watch_event *event)
{
	const char *comm;

	event->type = WATCH_EXEC;
	event->pid = (pid_t)reader_u32(record);
	reader_u32(record); /* tid */
	comm = reader_cstr(record);
	if (!comm)
		return -EINVAL;
	event->path = strdup(comm);
	return event->path ? 0 : -ENOMEM;
}

/* 0: an event; 1: none; -ENOMEM. */
static int parse_record(const struct perf_event_header *header, struct reader record,
			struct watch_event *event)
{
	struct reader trailer = record;
	int err = 0;

	if (reader_left(&trailer) >= SAMPLE_ID_SIZE) {
		reader_seek(&trailer, reader_left(&trailer) - sizeof(uint64_t));
		event->time = (int64_t)reader_u64(&trailer);
	}
	switch (header->type) {
	case PERF_RECORD_MMAP2:
		err = parse_mmap2(&record, event);
		break;
	case PERF_RECORD_COMM:
		if (!(header->misc & PERF_RECORD_MISC_COMM_EXEC))
			return 1;
		err = parse_exec(&record, event);
		break;
	case PERF_RECORD_FORK:
		event->type = WATCH_FORK;
		event->child = (pid_t)reader_u32(&record);
		event->pid = (pid_t)reader_u32(&record);
		if (event->child == event->pid) /* a thread */
			return 1;
		break;
	case PERF_RECORD_EXIT:
		event->type = WATCH_EXIT;
		event->pid = (pid_t)reader_u32(&record);
		reader_u32(&record);			      /* the parent */
		if ((pid_t)reader_u32(&record) != event->pid) /* another thread */
			return 1;
		break;
	case PERF_RECORD_LOST:
		event->type = WATCH_LOST;
		break;
	default:
		return 1;
	}
	if (err == -ENOMEM)
		return err;
	return err || record.failed ? 1 : 0;
}

static int ring_read(struct watch *watch, size_t ring)
{
	struct reader records = perf_rings_take(watch->rings, ring), record;
	struct perf_event_header header;

	while (perf_record_next(&records, &header, &record)) {
		struct watch_event event = {0};
		int err = parse_record(&header, record, &event);

		if (err == 0)
			err = vec_push(&watch->events, event);
		if (err)
			free(event.path);
		if (err < 0)
			return err;
	}
	return 0;
}

static int by_time(const void *a, const void *b)
{
	const struct watch_event *x = a, *y = b;

	return x->time < y->time ? -1 : x->time > y->time;
}

int watch_read(struct watch *watch, const struct watch_event **events, size_t *count)
{
	/*
	 * The rings are read one after the other. What happened meanwhile may be in one while what led
	 * to it was not in the one before: it has to wait for the next call.
	 */
	int64_t horizon = clock_now(CLOCK_MONOTONIC);

	events_drop(watch, watch->returned);
	watch->returned = 0;
	for (size_t i = 0; i < perf_rings_count(watch->rings); i++) {
		int err = ring_read(watch, i);

		if (err)
			return err;
	}
	if (watch->events.count)
		qsort(watch->events.items, watch->events.count, sizeof(*watch->events.items),
		      by_time);
	while (watch->returned < watch->events.count &&
	       watch->events.items[watch->returned].time <= horizon)
		watch->returned++;
	*events = watch->events.items;
	*count = watch->returned;
	return 0;
}
