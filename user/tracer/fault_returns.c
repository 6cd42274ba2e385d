#include "tracer/fault_returns.h"

#include "faults.skel.h"
#include "util/vec.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/*
 * The program runs just before its sample is written, but a virtual CPU can stand still between the
 * two. An event without a sample (its ring was full) is not to be taken for that of a later fault.
 */
#define APART_NS 100000000LL
/* Samples are read ten times a second at least; what is older has none. */
#define KEPT_NS	 1000000000LL
#define KEPT_MAX 4096

struct fault_returns {
	struct faults_bpf *bpf;	  /* owned */
	struct ring_buffer *ring; /* owned */
	struct {
		struct fault_event *items; /* owned; in order of time, but for CPUs that overtake */
		size_t count, capacity;
	} events;
};

static int keep(void *context, void *data, size_t size)
{
	struct fault_returns *returns = context;
	struct fault_event event = {0};

	if (returns->events.count == KEPT_MAX || size > sizeof(event))
		return 0;
	memcpy(&event, data, size);
	/* Without memory that stack ends at the probe. */
	(void)vec_push(&returns->events, event);
	return 0;
}

int fault_returns_open(struct fault_returns **out)
{
	struct fault_returns *returns = calloc(1, sizeof(*returns));
	int err = 0;

	if (!returns)
		return -ENOMEM;
	returns->bpf = faults_bpf__open_and_load();
	if (!returns->bpf)
		err = -errno;
	if (!err) {
		returns->ring = ring_buffer__new(bpf_map__fd(returns->bpf->maps.fault_events), keep,
						 returns, NULL);
		err = returns->ring ? 0 : -errno;
	}
	if (err) {
		fault_returns_free(returns);
		return err;
	}
	*out = returns;
	return 0;
}

void fault_returns_free(struct fault_returns *returns)
{
	if (!returns)
		return;
	ring_buffer__free(returns->ring);
	faults_bpf__destroy(returns->bpf);
	free(returns->events.items);
	free(returns);
}

/* Not by a link: libbpf's would close the event. */
int fault_returns_watch(struct fault_returns *returns, int event)
{
	int program = bpf_program__fd(returns->bpf->progs.fault_returns);

	return ioctl(event, PERF_EVENT_IOC_SET_BPF, program) ? -errno : 0;
}

static void forget_old(struct fault_returns *returns, int64_t time)
{
	size_t kept = 0;

	vec_for_each(event, &returns->events) {
		if (time - (int64_t)event->time < KEPT_NS)
			returns->events.items[kept++] = *event;
	}
	returns->events.count = kept;
}

/* The last that fits, as the same page may fault again soon. */
static const struct fault_event *find(const struct fault_returns *returns, pid_t tid,
				      uint64_t address, int64_t time)
{
	for (size_t i = returns->events.count; i-- > 0;) {
		const struct fault_event *event = &returns->events.items[i];

		if (event->tid == (uint64_t)tid && event->address == address &&
		    llabs(time - (int64_t)event->time) < APART_NS)
			return event;
	}
	return NULL;
}

const struct replaced_returns *fault_returns_find(struct fault_returns *returns, pid_t tid,
						  uint64_t address, int64_t time)
{
	const struct fault_event *event = find(returns, tid, address, time);

	if (!event) {
		forget_old(returns, time);
		ring_buffer__consume(returns->ring);
		event = find(returns, tid, address, time);
	}
	return event ? &event->replaced : NULL;
}
