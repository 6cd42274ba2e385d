/*
 * Records of perf events (perf_event_open(2)) on all CPUs, each CPU's in a ring that is shared with
 * the kernel. Offline CPUs are left out.
 */
#ifndef ALLOCTRACE_PERF_RING_H
#define ALLOCTRACE_PERF_RING_H

#include "util/reader.h"

#include <linux/perf_event.h>
#include <stdbool.h>
#include <stddef.h>

struct perf_rings;

/*
 * One event as attr has it on each CPU, of all processes; `pages` of data each, a power of two. attr
 * is borrowed for the call. 0, -EACCES or -EPERM (not permitted), -ENOENT or -EOPNOTSUPP (no such
 * event here), -ENOMEM.
 */
int perf_rings_open(const struct perf_event_attr *attr, size_t pages, struct perf_rings **out);
void perf_rings_free(struct perf_rings *rings);

/* Readable when any ring has as much to read as the event's watermark says. */
int perf_rings_fd(const struct perf_rings *rings);

size_t perf_rings_count(const struct perf_rings *rings);
/* The descriptor of one ring's event. */
int perf_rings_event(const struct perf_rings *rings, size_t ring);

/* Takes all records out of one ring: valid until any ring of them is taken from. */
struct reader perf_rings_take(struct perf_rings *rings, size_t ring);

/* The next record: its header, and what is behind it. False at the end. */
bool perf_record_next(struct reader *records, struct perf_event_header *header,
		      struct reader *body);

#endif
