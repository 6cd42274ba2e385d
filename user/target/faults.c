#include "target/faults.h"

#include "target/perf_ring.h"
#include "util/clock.h"
#include "util/reader.h"

#include <asm/perf_regs.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* A sample is the copy of the stack and some 80 bytes: 31 fit in. */
#define RING_PAGES 128
#define READ_NS	   100000000LL
/*
 * Samples in that time that all CPUs may have together, so that the walks cost little, and that one
 * CPU may have: there is room for half as many again. When a storm begins, a ring is read as soon as
 * it is half full, to have the period made longer; it is judged by no less time than SHORTEST_NS.
 */
#define SAMPLES_MAX	60
#define SAMPLES_CPU_MAX 20
#define SHORTEST_NS	10000000LL
/* The period becomes shorter when all readings for so long would have done with it. */
#define QUIET_NS 500000000LL

/* perf_event_open(2): the parts of a sample follow each other in the order of these bits. */
#define SAMPLE_TYPE                                                                                \
	(PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR | PERF_SAMPLE_REGS_USER |           \
	 PERF_SAMPLE_STACK_USER)

/* Registers come by rising number. */
#if defined(__x86_64__)
#define USER_REGISTERS (1ull << PERF_REG_X86_BP | 1ull << PERF_REG_X86_SP | 1ull << PERF_REG_X86_IP)
#elif defined(__aarch64__)
#define USER_REGISTERS                                                                             \
	(1ull << PERF_REG_ARM64_X29 | 1ull << PERF_REG_ARM64_LR | 1ull << PERF_REG_ARM64_SP |      \
	 1ull << PERF_REG_ARM64_PC)
#else
#error "no registers known of this machine"
#endif

static const uint64_t periods[] = {FAULTS_PERIOD, 37,	79,   163,   331,   673,
				   1361,	  2729, 5471, 10949, 21911, 43853};
#define PERIOD_COUNT (sizeof(periods) / sizeof(*periods))

/* One CPU. */
struct counter {
	uint64_t count; /* of faults that samples stand for already */
	uint64_t last;	/* count of faults, when it was read last */
	int64_t read;	/* when that was */
	size_t period;	/* index */
	/* When the period was changed, and the count of faults then. 0: a sample has come since. */
	int64_t changed;
	uint64_t split;
	/* The longest period that a reading has asked for since then. */
	int64_t since;
	size_t wanted;
};

struct faults {
	struct perf_rings *rings; /* owned */
	struct counter *counters; /* owned; one for each ring */
	int timer, epoll;
	struct faults_stats stats;
};

static int open_timer(struct faults *faults)
{
	struct itimerspec every = {
		.it_interval.tv_nsec = READ_NS,
		.it_value.tv_nsec = READ_NS,
	};

	faults->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (faults->timer < 0 || timerfd_settime(faults->timer, 0, &every, NULL))
		return -errno;
	return 0;
}

/* One descriptor for both: it is time, and a ring is half full. */
static int open_epoll(struct faults *faults)
{
	struct epoll_event interest = {.events = EPOLLIN};

	faults->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (faults->epoll < 0 ||
	    epoll_ctl(faults->epoll, EPOLL_CTL_ADD, faults->timer, &interest) ||
	    epoll_ctl(faults->epoll, EPOLL_CTL_ADD, perf_rings_fd(faults->rings), &interest))
		return -errno;
	return 0;
}

static int open_all(struct faults *faults)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_period = periods[0],
		/* With PERF_SAMPLE_PERIOD the kernel would sample every fault, for 1 each. */
		.sample_type = SAMPLE_TYPE,
		.sample_regs_user = USER_REGISTERS,
		.sample_stack_user = FAULTS_STACK,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.watermark = 1,
		.wakeup_watermark = (uint32_t)(RING_PAGES * sysconf(_SC_PAGESIZE) / 2),
	};
	int err = open_timer(faults);

	if (!err)
		err = perf_rings_open(&attr, RING_PAGES, &faults->rings);
	if (!err)
		err = open_epoll(faults);
	if (err)
		return err;
	faults->counters = calloc(perf_rings_count(faults->rings) + 1, sizeof(*faults->counters));
	if (!faults->counters)
		return -ENOMEM;
	for (size_t i = 0; i < perf_rings_count(faults->rings); i++)
		faults->counters[i].read = faults->counters[i].since = clock_now(CLOCK_MONOTONIC);
	faults->stats.longest = periods[0];
	return 0;
}

int faults_open(struct faults **out)
{
	struct faults *faults = calloc(1, sizeof(*faults));
	int err;

	if (!faults)
		return -ENOMEM;
	faults->timer = faults->epoll = -1;
	err = open_all(faults);
	if (err) {
		faults_free(faults);
		return err;
	}
	*out = faults;
	return 0;
}

void faults_free(struct faults *faults)
{
	if (!faults)
		return;
	perf_rings_free(faults->rings);
	if (faults->timer >= 0)
		close(faults->timer);
	if (faults->epoll >= 0)
		close(faults->epoll);
	free(faults->counters);
	free(faults);
}

int faults_fd(const struct faults *faults)
{
	return faults->epoll;
}

size_t faults_events(const struct faults *faults)
{
	return perf_rings_count(faults->rings);
}

int faults_event(const struct faults *faults, size_t number)
{
	return perf_rings_event(faults->rings, number);
}

void faults_stats(const struct faults *faults, struct faults_stats *out)
{
	*out = faults->stats;
}

/* --- one sample --- */

static void read_registers(struct reader *record, struct stack_state *state)
{
#if defined(__x86_64__)
	state->fp = reader_u64(record);
	state->sp = reader_u64(record);
	state->pc = reader_u64(record);
#else
	state->fp = reader_u64(record);
	state->lr = reader_u64(record);
	state->sp = reader_u64(record);
	state->pc = reader_u64(record);
#endif
}

/* The size that was asked for, the bytes, and how many of them are good: all three or a size of 0. */
static void read_stack(struct reader *record, struct stack_state *state)
{
	uint64_t size = reader_u64(record), good;

	if (!size)
		return;
	state->stack = reader_bytes(record, size);
	good = reader_u64(record);
	state->stack_size = good < size ? good : size;
}

/* False: it has no registers, or is broken. */
static bool read_sample(struct reader record, struct fault *fault)
{
	memset(fault, 0, sizeof(*fault));
	fault->pid = (pid_t)reader_u32(&record);
	fault->tid = (pid_t)reader_u32(&record);
	fault->time = (int64_t)reader_u64(&record);
	fault->address = reader_u64(&record);
	if (reader_u64(&record) != PERF_SAMPLE_REGS_ABI_64)
		return false;
	read_registers(&record, &fault->state);
	read_stack(&record, &fault->state);
	return !record.failed;
}

/* --- one CPU --- */

/* The kernel's count of a CPU's faults, those of the samples that are in the ring among them. */
static int count_faults(const struct faults *faults, size_t ring, uint64_t *count)
{
	ssize_t n = read(perf_rings_event(faults->rings, ring), count, sizeof(*count));

	return n == sizeof(*count) ? 0 : n < 0 ? -errno : -EIO;
}

static void set_period(struct faults *faults, size_t ring, size_t period)
{
	struct counter *counter = &faults->counters[ring];
	int64_t now = clock_now(CLOCK_MONOTONIC);
	uint64_t count;

	if (count_faults(faults, ring, &count) ||
	    ioctl(perf_rings_event(faults->rings, ring), PERF_EVENT_IOC_PERIOD, &periods[period]))
		return;
	counter->period = period;
	counter->changed = now;
	counter->split = count;
	if (periods[period] > faults->stats.longest)
		faults->stats.longest = periods[period];
}

/* By how many faults there have been since the last reading: the index of the period. */
static size_t wanted_period(const struct faults *faults, const struct counter *counter,
			    uint64_t count, int64_t now)
{
	double share = (double)SAMPLES_MAX / (double)perf_rings_count(faults->rings), rate;
	int64_t time = now - counter->read;
	size_t wanted = 0;

	share = share < 1 ? 1 : share > SAMPLES_CPU_MAX ? SAMPLES_CPU_MAX : share;
	rate = (double)(count - counter->last) * (double)READ_NS /
	       (double)(time > SHORTEST_NS ? time : SHORTEST_NS);
	while (wanted + 1 < PERIOD_COUNT && rate / (double)periods[wanted] > share)
		wanted++;
	return wanted;
}

/*
 * Keeps a CPU to its share of samples: at once where that takes a longer period; later, but then all the
 * way, where a shorter one would do: a storm is to cost the others no more samples than it has to.
 */
static void adapt_period(struct faults *faults, size_t ring, uint64_t count)
{
	struct counter *counter = &faults->counters[ring];
	int64_t now = clock_now(CLOCK_MONOTONIC);
	size_t wanted = wanted_period(faults, counter, count, now);

	counter->read = now;
	counter->last = count;
	if (wanted > counter->wanted)
		counter->wanted = wanted;
	if (wanted <= counter->period && now - counter->since < QUIET_NS)
		return;
	if (counter->wanted != counter->period)
		set_period(faults, ring, counter->wanted);
	counter->since = now;
	counter->wanted = 0;
}

/*
 * What was sampled on a CPU since the last time: before its period was changed, and after it. What the
 * samples of one part stand for is not that of the other's: a storm is what changes a period.
 */
struct batch {
	int64_t changed; /* 0: it was not */
	struct part {
		uint64_t samples;
		double each; /* the faults that one stands for */
	} before, after;
	bool has_first; /* one more, which comes from the change: see visit_samples() */
	uint64_t unsampled;
};

static void survey(struct reader records, struct batch *batch)
{
	struct perf_event_header header;
	struct reader record;
	struct fault fault;

	while (perf_record_next(&records, &header, &record)) {
		if (header.type == PERF_RECORD_SAMPLE) {
			read_sample(record, &fault);
			if (fault.time < batch->changed)
				batch->before.samples++;
			else if (batch->changed && !batch->has_first)
				batch->has_first = true;
			else
				batch->after.samples++;
		} else if (header.type == PERF_RECORD_LOST) {
			reader_u64(&record); /* id */
			batch->unsampled += reader_u64(&record);
		} else if (header.type == PERF_RECORD_THROTTLE) {
			batch->unsampled++;
		}
	}
}

/* The samples of a part stand for all faults up to a count that none stands for yet, if there are any. */
static void weigh(struct faults *faults, struct counter *counter, struct part *part, uint64_t count)
{
	if (!part->samples || count < counter->count)
		return;
	part->each = (double)(count - counter->count) / (double)part->samples;
	faults->stats.faults += count - counter->count;
	counter->count = count;
}

/*
 * Visits the samples of one ring. With a new period the kernel samples the very next fault, whenever
 * that comes: in a quiet time that would be a choice by time and not by number, so it is left out.
 */
static int visit_samples(struct faults *faults, const struct batch *batch, struct reader records,
			 int (*visit)(const struct fault *fault, void *context), void *context)
{
	struct perf_event_header header;
	struct reader record;
	bool has_first = false;
	int err = 0;

	while (!err && perf_record_next(&records, &header, &record)) {
		struct fault fault;
		bool whole, before;

		if (header.type != PERF_RECORD_SAMPLE)
			continue;
		whole = read_sample(record, &fault);
		before = fault.time < batch->changed;
		if (batch->changed && !before && !has_first) {
			has_first = true;
			continue;
		}
		fault.faults = before ? batch->before.each : batch->after.each;
		if (whole)
			err = visit(&fault, context);
		else
			faults->stats.no_registers++;
	}
	return err;
}

static int read_ring(struct faults *faults, size_t ring,
		     int (*visit)(const struct fault *fault, void *context), void *context)
{
	struct counter *counter = &faults->counters[ring];
	struct batch batch = {.changed = counter->changed};
	struct reader records;
	uint64_t count;
	int err = count_faults(faults, ring, &count);

	if (err)
		return err;
	records = perf_rings_take(faults->rings, ring);
	survey(records, &batch);
	faults->stats.samples += batch.before.samples + batch.has_first + batch.after.samples;
	faults->stats.unsampled += batch.unsampled;
	weigh(faults, counter, &batch.before, counter->split);
	weigh(faults, counter, &batch.after, count);
	if (batch.has_first)
		counter->changed = 0;
	/* Before the samples are walked, which takes its time. */
	adapt_period(faults, ring, count);
	return visit_samples(faults, &batch, records, visit, context);
}

int faults_read(struct faults *faults, int (*visit)(const struct fault *fault, void *context),
		void *context)
{
	uint64_t expirations;
	int err = 0;

	if (read(faults->timer, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
		return -errno;
	for (size_t i = 0; i < perf_rings_count(faults->rings) && !err; i++)
		err = read_ring(faults, i, visit, context);
	return err;
}
