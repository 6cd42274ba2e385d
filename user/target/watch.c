#include "target/watch.h"

#include "util/clock.h"
#include "util/reader.h"
#include "util/vec.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* Data pages of a ring: a power of two. A mapping's record is some 150 bytes. */
#define RING_PAGES 32

/* perf_event_open(2): what sample_id_all appends to each record, in this order for these two bits.
 */
#define SAMPLE_TYPE    (PERF_SAMPLE_TID | PERF_SAMPLE_TIME)
#define SAMPLE_ID_SIZE (2 * sizeof(uint32_t) + sizeof(uint64_t))

struct ring {
	int fd;
	struct perf_event_mmap_page *page; /* NULL: not mapped */
	uint8_t *copy;			   /* one record, in one piece */
};

struct watch {
	int epoll;
	size_t page_size;
	struct ring *rings;
	size_t ring_count;
	struct {
		struct watch_event *items;
		size_t count, capacity;
	} events;
	size_t returned; /* events at the front that the last watch_read() returned */
};

static size_t ring_size(const struct watch *watch)
{
	return RING_PAGES * watch->page_size;
}

static int ring_open(struct watch *watch, struct ring *ring, int cpu)
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
		.wakeup_watermark = (uint32_t)(ring_size(watch) / 4),
	};
	struct epoll_event interest = {.events = EPOLLIN};
	void *page;

	ring->fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (ring->fd < 0)
		return -errno;
	page = mmap(NULL, watch->page_size + ring_size(watch), PROT_READ | PROT_WRITE, MAP_SHARED,
		    ring->fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	ring->page = page;
	ring->copy = malloc(UINT16_MAX + 1); /* a record's size is 16 bits */
	if (!ring->copy)
		return -ENOMEM;
	return epoll_ctl(watch->epoll, EPOLL_CTL_ADD, ring->fd, &interest) ? -errno : 0;
}

int watch_open(struct watch **out)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	long cpus = sysconf(_SC_NPROCESSORS_CONF);
	int err = 0;

	if (!watch)
		return -ENOMEM;
	watch->page_size = (size_t)sysconf(_SC_PAGESIZE);
	watch->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (watch->epoll < 0)
		err = -errno;
	watch->rings = calloc((size_t)cpus, sizeof(*watch->rings));
	if (!watch->rings)
		err = -ENOMEM;
	for (int cpu = 0; !err && cpu < cpus; cpu++) {
		watch->rings[watch->ring_count].fd = -1;
		err = ring_open(watch, &watch->rings[watch->ring_count++], cpu);
		if (err == -ENODEV) /* configured, but offline */
			err = 0;
	}
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
	for (size_t i = 0; i < watch->ring_count; i++) {
		struct ring *ring = &watch->rings[i];

		if (ring->page)
			munmap(ring->page, watch->page_size + ring_size(watch));
		if (ring->fd >= 0)
			close(ring->fd);
		free(ring->copy);
	}
	events_drop(watch, watch->events.count);
	free(watch->events.items);
	free(watch->rings);
	if (watch->epoll >= 0)
		close(watch->epoll);
	free(watch);
}

int watch_fd(const struct watch *watch)
{
	return watch->epoll;
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
static int parse_record(const struct perf_event_header *header, const uint8_t *bytes,
			struct watch_event *event)
{
	struct reader record = reader_new(bytes + sizeof(*header), header->size - sizeof(*header));
	struct reader trailer = record;
	int err = 0;

	if (header->size >= sizeof(*header) + SAMPLE_ID_SIZE) {
		reader_seek(&trailer, header->size - sizeof(*header) - sizeof(uint64_t));
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

/* Copies size bytes at position `at` out of a ring, whose end they may go round. */
static void ring_copy(const struct watch *watch, const struct ring *ring, uint64_t at, size_t size)
{
	const uint8_t *data = (const uint8_t *)ring->page + watch->page_size;
	size_t offset = at % ring_size(watch);
	size_t first = ring_size(watch) - offset < size ? ring_size(watch) - offset : size;

	memcpy(ring->copy, data + offset, first);
	memcpy(ring->copy + first, data, size - first);
}

static int ring_read(struct watch *watch, struct ring *ring)
{
	uint64_t head, tail;
	int err = 0;

	if (!ring->page)
		return 0;
	/* The kernel writes data, then head; we read head, then data, then give it back by tail. */
	head = __atomic_load_n(&ring->page->data_head, __ATOMIC_ACQUIRE);
	tail = ring->page->data_tail;
	while (tail < head && err >= 0) {
		struct perf_event_header header;
		struct watch_event event = {0};

		ring_copy(watch, ring, tail, sizeof(header));
		memcpy(&header, ring->copy, sizeof(header));
		if (header.size < sizeof(header) || header.size > head - tail)
			break;
		ring_copy(watch, ring, tail, header.size);
		tail += header.size;
		err = parse_record(&header, ring->copy, &event);
		if (err == 0)
			err = vec_push(&watch->events, event);
		if (err)
			free(event.path);
	}
	__atomic_store_n(&ring->page->data_tail, err < 0 ? tail : head, __ATOMIC_RELEASE);
	return err < 0 ? err : 0;
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
	for (size_t i = 0; i < watch->ring_count; i++) {
		int err = ring_read(watch, &watch->rings[i]);

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
