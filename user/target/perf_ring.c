#include "target/perf_ring.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
	int fd;
	struct perf_event_mmap_page *page; /* NULL: not mapped */
};

struct perf_rings {
	int epoll;
	size_t page_size, size; /* of a page; of a ring's data */
	struct ring *items;
	size_t count;
	uint8_t *copy; /* what was taken last, in one piece; as large as a ring */
};

static int ring_open(struct perf_rings *rings, struct ring *ring,
		     const struct perf_event_attr *attr, int cpu)
{
	struct epoll_event interest = {.events = EPOLLIN};
	struct perf_event_attr own = *attr; /* the kernel writes its size there */
	void *page;

	ring->fd = (int)syscall(SYS_perf_event_open, &own, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (ring->fd < 0)
		return -errno;
	page = mmap(NULL, rings->page_size + rings->size, PROT_READ | PROT_WRITE, MAP_SHARED,
		    ring->fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	ring->page = page;
	return epoll_ctl(rings->epoll, EPOLL_CTL_ADD, ring->fd, &interest) ? -errno : 0;
}

static int open_all(struct perf_rings *rings, const struct perf_event_attr *attr)
{
	long cpus = sysconf(_SC_NPROCESSORS_CONF);

	rings->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (rings->epoll < 0)
		return -errno;
	rings->copy = malloc(rings->size);
	rings->items = calloc((size_t)cpus, sizeof(*rings->items));
	if (!rings->copy || !rings->items)
		return -ENOMEM;
	for (int cpu = 0; cpu < cpus; cpu++) {
		struct ring *ring = &rings->items[rings->count];
		int err = ring_open(rings, ring, attr, cpu);

		if (err == -ENODEV) /* configured, but offline */
			continue;
		rings->count++;
		if (err)
			return err;
	}
	return 0;
}

int perf_rings_open(const struct perf_event_attr *attr, size_t pages, struct perf_rings **out)
{
	struct perf_rings *rings = calloc(1, sizeof(*rings));
	int err;

	if (!rings)
		return -ENOMEM;
	rings->page_size = (size_t)sysconf(_SC_PAGESIZE);
	rings->size = pages * rings->page_size;
	err = open_all(rings, attr);
	if (err) {
		perf_rings_free(rings);
		return err;
	}
	*out = rings;
	return 0;
}

void perf_rings_free(struct perf_rings *rings)
{
	if (!rings)
		return;
	for (size_t i = 0; i < rings->count; i++) {
		struct ring *ring = &rings->items[i];

		if (ring->page)
			munmap(ring->page, rings->page_size + rings->size);
		if (ring->fd >= 0)
			close(ring->fd);
	}
	if (rings->epoll >= 0)
		close(rings->epoll);
	free(rings->items);
	free(rings->copy);
	free(rings);
}

int perf_rings_fd(const struct perf_rings *rings)
{
	return rings->epoll;
}

size_t perf_rings_count(const struct perf_rings *rings)
{
	return rings->count;
}

int perf_rings_event(const struct perf_rings *rings, size_t ring)
{
	return rings->items[ring].fd;
}

struct reader perf_rings_take(struct perf_rings *rings, size_t ring)
{
	struct perf_event_mmap_page *page = rings->items[ring].page;
	const uint8_t *data = (const uint8_t *)page + rings->page_size;
	/* The kernel writes data, then head; we read head, then data, then give it back by tail. */
	uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE), tail = page->data_tail;
	size_t size = head - tail < rings->size ? head - tail : rings->size;
	size_t at = tail % rings->size, first = rings->size - at < size ? rings->size - at : size;

	memcpy(rings->copy, data + at, first);
	memcpy(rings->copy + first, data, size - first);
	__atomic_store_n(&page->data_tail, head, __ATOMIC_RELEASE);
	return reader_new(rings->copy, size);
}

bool perf_record_next(struct reader *records, struct perf_event_header *header, struct reader *body)
{
	const uint8_t *at = reader_bytes(records, sizeof(*header));

	if (!at)
		return false;
	memcpy(header, at, sizeof(*header));
	if (header->size < sizeof(*header))
		return false;
	*body = reader_sub(records, header->size - sizeof(*header));
	return !body->failed;
}
