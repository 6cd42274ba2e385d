/* Maps -> profile. */
#include "tracer/internal.h"

#include "alloctrace.skel.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Entries fetched by one system call. A bucket of the hash never comes near. */
#define BATCH 8192

static const struct {
	const char *text;
	enum profile_counter_kind kind;
} counter_texts[COUNTER_COUNT] = {
#define X(id, text_, loss_) [id] = {(text_), (loss_) ? PROFILE_LOSS : PROFILE_SEEN},
	COUNTERS(X)
#undef X
};

struct count_entry {
	struct count_key key;
	struct count count;
};

struct count_entries {
	struct count_entry *items;
	size_t count, capacity;
};

/* Calls that began and have not returned. */
static int count_in_flight(const struct tracer *tracer, uint32_t slot, uint64_t *in_flight)
{
	int fd = bpf_map__fd(tracer->bpf->maps.pending), err;
	struct pending_key key, *previous = NULL;
	struct pending_call call;

	*in_flight = 0;
	while (!(err = bpf_map_get_next_key(fd, previous, &key))) {
		if (key.target == slot && !bpf_map_lookup_elem(fd, &key, &call))
			*in_flight += call.sampled;
		previous = &key;
	}
	return err == -ENOENT ? 0 : err;
}

/* --- ages --- */

static bool has_window(const struct live_ages *ages, uint64_t slot)
{
	return slot < ages->slots && ages->windows[slot].end > ages->windows[slot].start;
}

static int add_block(struct live_ages *ages, uint64_t slot, const struct live_block *block)
{
	const struct count_key key = {
		.stack = block->stack,
		.size_class = size_class(block->size),
		.target = (uint16_t)slot,
		.epoch = block->epoch,
	};

	return has_window(ages, slot)
		       ? live_ages_add(ages, &key, false, block->time, 1, block->size)
		       : 0;
}

static int read_live(const struct tracer *tracer, struct live_ages *ages)
{
	CLEANUP(cleanup_free) struct live_key *keys = calloc(BATCH, sizeof(*keys));
	CLEANUP(cleanup_free) struct live_block *blocks = calloc(BATCH, sizeof(*blocks));
	int fd = bpf_map__fd(tracer->bpf->maps.live), err;
	uint32_t position = 0, *previous = NULL;

	if (!keys || !blocks)
		return -ENOMEM;
	do {
		uint32_t n = BATCH;

		err = bpf_map_lookup_batch(fd, previous, &position, keys, blocks, &n, NULL);
		if (err && err != -ENOENT)
			return err;
		for (uint32_t i = 0; i < n; i++) {
			if (add_block(ages, keys[i].target, &blocks[i]))
				return -ENOMEM;
		}
		previous = &position;
	} while (!err);
	return 0;
}

/* Blocks that a realloc under way has taken out: they are live until it succeeds. */
static int read_taken(const struct tracer *tracer, struct live_ages *ages)
{
	int fd = bpf_map__fd(tracer->bpf->maps.pending), err;
	struct pending_key key, *previous = NULL;
	struct pending_call call;

	while (!(err = bpf_map_get_next_key(fd, previous, &key))) {
		if (!bpf_map_lookup_elem(fd, &key, &call) && call.has_old &&
		    add_block(ages, key.target, &call.old))
			return -ENOMEM;
		previous = &key;
	}
	return err == -ENOENT ? 0 : err;
}

/* What regions_visit() needs to know. */
struct visit {
	struct live_ages *ages;
	const struct regions *regions;
	uint16_t slot;
	int err;
};

static void visit_region(void *context, uint32_t count, uint64_t time, uint64_t bytes, bool first)
{
	struct visit *visit = context;
	const struct region_count *counted = &visit->regions->counts.items[count];
	const struct count_key key = {
		.stack = counted->stack,
		.size_class = counted->size_class,
		.target = visit->slot,
		.epoch = (uint16_t)visit->regions->epoch,
	};

	if (!visit->err)
		visit->err = live_ages_add(visit->ages, &key, true, time, first, bytes);
}

static int read_mapped(const struct tracer *tracer, struct live_ages *ages)
{
	for (uint32_t slot = 0; tracer->options.mmap && slot < tracer->options.targets; slot++) {
		struct visit visit = {ages, &tracer->regions[slot], (uint16_t)slot, 0};

		if (has_window(ages, slot))
			regions_visit(&tracer->regions[slot], visit_region, &visit);
		if (visit.err)
			return visit.err;
	}
	return 0;
}

int tracer_read_ages(struct tracer *tracer, const struct age_window *windows)
{
	struct live_ages *ages = &tracer->ages;
	int err;

	live_ages_deinit(ages);
	ages->windows = calloc(tracer->options.targets, sizeof(*windows));
	if (!ages->windows)
		return -ENOMEM;
	ages->slots = tracer->options.targets;
	memcpy(ages->windows, windows, ages->slots * sizeof(*windows));
	err = read_live(tracer, ages);
	if (!err)
		err = read_taken(tracer, ages);
	if (!err)
		err = read_mapped(tracer, ages);
	if (err)
		live_ages_deinit(ages);
	ages->known = !err;
	return err;
}

/* --- counts --- */

int tracer_counters(const struct tracer *tracer, uint32_t slot, uint64_t counters[COUNTER_COUNT])
{
	int cpus = libbpf_num_possible_cpus(), err;
	CLEANUP(cleanup_free) struct cpu_state *states = NULL;

	if (cpus < 0)
		return cpus;
	states = calloc((size_t)cpus, sizeof(*states));
	if (!states)
		return -ENOMEM;
	err = bpf_map__lookup_elem(tracer->bpf->maps.cpus, &slot, sizeof(slot), states,
				   (size_t)cpus * sizeof(*states), 0);
	if (err)
		return err;
	memset(counters, 0, COUNTER_COUNT * sizeof(*counters));
	for (int cpu = 0; cpu < cpus; cpu++) {
		for (int i = 0; i < COUNTER_COUNT; i++)
			counters[i] += states[cpu].counters[i];
	}
	/* While probes are in, what is pending may yet return. */
	return tracer->links.count ? 0
				   : count_in_flight(tracer, slot, &counters[COUNT_LOST_IN_FLIGHT]);
}

int tracer_direct_mappings(const struct tracer *tracer, uint32_t slot, struct region_part **parts,
			   size_t *count, uint64_t *lost)
{
	const struct regions *regions = &tracer->regions[slot];
	uint64_t counters[COUNTER_COUNT];
	int err = tracer_counters(tracer, slot, counters);

	if (err)
		return err;
	*lost = counters[COUNT_UNMEASURED] + counters[COUNT_UNMAPS_LOST] +
		counters[COUNT_LOST_MAPPINGS] + counters[COUNT_LOST_ORIGIN];
	*parts = NULL;
	*count = 0;
	/* Else all is of the program before. */
	return regions->epoch == tracer_target(tracer, slot)->epoch
		       ? regions_list(regions, parts, count)
		       : 0;
}

/* All counts there are, one after the other, until one returns not 0. 0, that, or -errno. */
static int for_each_count(const struct tracer *tracer,
			  int (*visit)(void *context, const struct count_entry *entry),
			  void *context)
{
	CLEANUP(cleanup_free) struct count_key *keys = calloc(BATCH, sizeof(*keys));
	CLEANUP(cleanup_free) struct count *values = calloc(BATCH, sizeof(*values));
	int fd = bpf_map__fd(tracer->bpf->maps.counts), err;
	uint32_t position = 0, *previous = NULL;

	if (!keys || !values)
		return -ENOMEM;
	do {
		uint32_t n = BATCH;

		err = bpf_map_lookup_batch(fd, previous, &position, keys, values, &n, NULL);
		if (err && err != -ENOENT)
			return err;
		for (uint32_t i = 0; i < n; i++) {
			struct count_entry entry = {.key = keys[i], .count = values[i]};
			int stop = visit(context, &entry);

			if (stop)
				return stop;
		}
		previous = &position;
	} while (!err);
	return 0;
}

/* Those of a slot. */
struct slot_counts {
	uint32_t slot;
	struct count_entries *out;
};

static int keep_count(void *context, const struct count_entry *entry)
{
	const struct slot_counts *wanted = context;

	return entry->key.target == wanted->slot ? vec_push(wanted->out, *entry) : 0;
}

static int read_counts(const struct tracer *tracer, uint32_t slot, struct count_entries *out)
{
	struct slot_counts wanted = {slot, out};

	return for_each_count(tracer, keep_count, &wanted);
}

static int by_stack_and_size(const void *a, const void *b)
{
	const struct count_key *x = &((const struct count_entry *)a)->key;
	const struct count_key *y = &((const struct count_entry *)b)->key;

	if (x->stack != y->stack)
		return x->stack < y->stack ? -1 : 1;
	return x->size_class < y->size_class ? -1 : x->size_class > y->size_class;
}

/* A stack as it was read back. */
struct read_stack {
	uint32_t site;
	uint32_t end; /* enum walk_end */
	bool unsure;
};

/* One stack as a site. */
static int add_site(const struct tracer *tracer, uint64_t key, struct profile *profile,
		    struct read_stack *out)
{
	struct stack stack;
	uint64_t addresses[MAX_FRAMES];
	size_t count = 0, at = 0;
	int err = bpf_map__lookup_elem(tracer->bpf->maps.stacks, &key, sizeof(key), &stack,
				       sizeof(stack), 0);

	if (err)
		return err;
	*out = (struct read_stack){.end = stack.end % WALK_END_COUNT};
	while (at < stack.frame_count && at < MAX_FRAMES) {
		uint64_t frame = stack.frames[at++];

		out->unsure |= (frame & FRAME_UNSURE) != 0;
		/* Python's functions stand in place of the C frame that runs them. */
		if (frame & FRAME_PYTHON && count && !(addresses[count - 1] & FRAME_PYTHON))
			count--;
		addresses[count++] = frame & FRAME_PYTHON ? frame : (frame & ~FRAME_UNSURE) - 1;
	}
	return profile_add_site(profile, addresses, count, stack.end == WALK_COMPLETE, &out->site);
}

/* What was freed, as a profile has it. */
static struct lifetimes lifetimes_of(const struct count *count)
{
	struct lifetimes lifetimes = {
		.objects = count->free_objects,
		.sum = ldexp((double)count->lifetimes, LIFETIME_UNIT_SHIFT),
		.first_freed = (int64_t)count->first_freed,
	};

	_Static_assert(LIFETIME_CLASSES == LIFETIMES, "the kernel's classes are the profile's");
	for (int i = 0; i < LIFETIMES; i++)
		lifetimes.by_class[i] = count->by_lifetime[i];
	return lifetimes;
}

/* What is live of a count, without what is young. */
static void live_of(const struct count *count, const struct age_counts *ages, uint64_t *objects,
		    uint64_t *bytes)
{
	*objects = count->alloc_objects - count->free_objects;
	*bytes = count->alloc_bytes - count->free_bytes;
	/* While it runs, ages are older than the counts. */
	*objects -= ages->young_objects < *objects ? ages->young_objects : *objects;
	*bytes -= ages->young_bytes < *bytes ? ages->young_bytes : *bytes;
}

/* One count as a bucket, with its ages if they are known. */
static int add_bucket(const struct live_ages *ages, const struct count_entry *entry, bool mapped,
		      uint32_t site, struct profile *profile)
{
	static const struct age_counts none;
	const struct age_counts *live =
		ages->known ? live_ages_find(ages, &entry->key, mapped) : &none;
	const struct lifetimes freed = lifetimes_of(&entry->count);
	const struct count *count = &entry->count;
	uint64_t objects, bytes;
	int err;

	live_of(count, live, &objects, &bytes);
	err = profile_add_bucket(profile, site, count->alloc_objects, count->alloc_bytes, objects,
				 bytes);
	return err ? err
		   : profile_add_ages(profile, site,
				      (double)count->alloc_bytes / (double)count->alloc_objects,
				      live, &freed);
}

/*
 * Sites and buckets of counts; *recorded is what they hold, *forgotten what an exec has left behind.
 * mapped: of direct mappings.
 */
static int add_entries(const struct tracer *tracer, struct count_entries *entries, uint16_t epoch,
		       bool mapped, struct profile *profile, struct tracer_walks *walks,
		       uint64_t *recorded, uint64_t *forgotten)
{
	struct read_stack stack = {0};
	uint64_t key = 0;
	int err = 0;

	if (entries->count)
		qsort(entries->items, entries->count, sizeof(*entries->items), by_stack_and_size);
	for (size_t i = 0; i < entries->count && !err; i++) {
		const struct count_entry *entry = &entries->items[i];
		const struct count *count = &entry->count;

		if (entry->key.epoch != epoch) {
			*forgotten += count->alloc_objects;
			continue;
		}
		if (!count->alloc_objects) /* made for a block that could not be kept */
			continue;
		if (entry->key.stack != key)
			err = add_site(tracer, entry->key.stack, profile, &stack);
		if (err)
			break;
		key = entry->key.stack;
		profile->sites.items[stack.site].mapped = mapped;
		*recorded += count->alloc_objects;
		walks->samples[stack.end] += count->alloc_objects;
		walks->unsure += stack.unsure ? count->alloc_objects : 0;
		err = add_bucket(&tracer->ages, entry, mapped, stack.site, profile);
	}
	return err;
}

/* What the events of a slot add up to, in the form of the kernel's own counts. */
static int read_regions(const struct regions *regions, uint32_t slot, struct count_entries *out)
{
	vec_for_each(counted, &regions->counts) {
		struct count_entry entry = {
			.key = {.stack = counted->stack,
				.size_class = counted->size_class,
				.target = (uint16_t)slot,
				.epoch = (uint16_t)regions->epoch},
			.count = counted->count,
		};

		if (vec_push(out, entry))
			return -ENOMEM;
	}
	return regions->err;
}

static int add_counts(const struct tracer *tracer, uint32_t slot, struct profile *profile,
		      struct tracer_walks *walks, uint64_t *forgotten)
{
	struct count_entries blocks = {0}, regions = {0};
	uint16_t epoch =
		(uint16_t)__atomic_load_n(&tracer_target(tracer, slot)->epoch, __ATOMIC_RELAXED);
	int err = read_counts(tracer, slot, &blocks);

	*forgotten = 0;
	if (!err && tracer->options.mmap) {
		err = read_regions(&tracer->regions[slot], slot, &regions);
		*forgotten = tracer->regions[slot].forgotten;
	}
	if (!err)
		err = add_entries(tracer, &blocks, epoch, false, profile, walks,
				  &profile->info.recorded, forgotten);
	if (!err)
		err = add_entries(tracer, &regions, epoch, true, profile, walks,
				  &profile->info.recorded, forgotten);
	free(blocks.items);
	free(regions.items);
	return err;
}

int tracer_readback(const struct tracer *tracer, uint32_t slot, struct profile *profile,
		    struct tracer_walks *walks)
{
	uint64_t counters[COUNTER_COUNT], forgotten = 0;
	int err = tracer_counters(tracer, slot, counters);

	memset(walks, 0, sizeof(*walks));
	profile->info.recorded = 0;
	profile->info.aged = tracer->ages.known && has_window(&tracer->ages, slot);
	if (profile->info.aged)
		profile->info.window = tracer->ages.windows[slot];
	/* While it runs, this is as of now. */
	if (!err && tracer->links.count)
		err = count_in_flight(tracer, slot, &counters[COUNT_LOST_IN_FLIGHT]);
	if (!err)
		err = add_counts(tracer, slot, profile, walks, &forgotten);
	if (err)
		return err;
	profile->info.calls = counters[COUNT_CALLS];
	profile->info.frees = counters[COUNT_FREES];
	profile->info.maps = counters[COUNT_MAPS];
	profile->info.unmaps = counters[COUNT_UNMAPS];
	profile->info.sampled = counters[COUNT_SAMPLED];
	for (int i = COUNT_FAILED; i < COUNTER_COUNT && !err; i++)
		err = profile_add_counter(profile, counter_texts[i].text, counters[i],
					  counter_texts[i].kind);
	if (!err)
		err = profile_add_counter(profile, "recorded before another program was executed",
					  forgotten, PROFILE_LOSS);
	return err;
}

/* --- totals --- */

struct totals {
	const struct tracer *tracer;
	struct tracer_total *by_slot;
};

static int add_to_total(void *context, const struct count_entry *entry)
{
	static const struct age_counts none;
	const struct totals *totals = context;
	const struct tracer *tracer = totals->tracer;
	const struct count *count = &entry->count;
	uint32_t slot = entry->key.target;
	uint64_t objects, bytes;

	if (slot >= tracer->options.targets ||
	    entry->key.epoch != (uint16_t)tracer_target(tracer, slot)->epoch)
		return 0;
	live_of(count,
		tracer->ages.known ? live_ages_find(&tracer->ages, &entry->key, false) : &none,
		&objects, &bytes);
	estimate_add(NULL, &totals->by_slot[slot].live, objects, bytes, tracer->options.period);
	estimate_add(NULL, &totals->by_slot[slot].allocated, count->alloc_objects,
		     count->alloc_bytes, tracer->options.period);
	return 0;
}

int tracer_read_totals(const struct tracer *tracer, struct tracer_total *totals)
{
	struct totals all = {tracer, totals};

	return for_each_count(tracer, add_to_total, &all);
}
