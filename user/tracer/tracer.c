#include "tracer/internal.h"

#include "alloctrace.skel.h"
#include "profile/gaps.h"
#include "tracer/seccomp_trial.h"
#include "util/vec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* A site allocates in some sizes: so many counts are kept for each stack that may be. */
#define COUNTS_PER_STACK 8

/* Files with an allocator that a process maps, on average at the most: most have one. */
#define LINKS_PER_TARGET 8

/*
 * Parts of direct mappings of a target that is only measured, whose unmappings nobody tells of: of one that
 * maps at ever other addresses they are ever more. A process has 65530 mappings by default.
 */
#define MEASURED_MAX 65536

/* The most executable mappings for all targets together. */
#define MAPPINGS_MAX (1 << 22)

/* CO-RE finds the kernel's structures in it. */
#define KERNEL_BTF "/sys/kernel/btf/vmlinux"

static bool libbpf_verbose;

static int print_libbpf(enum libbpf_print_level level, const char *format, va_list arguments)
{
	if (!libbpf_verbose || level == LIBBPF_DEBUG)
		return 0;
	return vfprintf(stderr, format, arguments);
}

/*
 * A target's mappings are replaced as a whole, so there is room for the old ones beside the new.
 */
static uint32_t room_for_mappings(const struct tracer_options *options)
{
	uint64_t room = 2 * (uint64_t)options->mappings;

	return room > MAPPINGS_MAX ? MAPPINGS_MAX : (uint32_t)room;
}

static int size_maps(struct tracer *tracer, const struct tables_sizes *sizes)
{
	const struct tracer_options *options = &tracer->options;
	uint64_t counts = (uint64_t)options->max_stacks * COUNTS_PER_STACK;
	const struct {
		struct bpf_map *map;
		uint64_t entries;
	} wanted[] = {
		{tracer->bpf->maps.cpus, options->targets},
		{tracer->bpf->maps.targets, options->targets},
		{tracer->bpf->maps.slots, options->targets},
		{tracer->bpf->maps.members,
		 options->shared ? (uint64_t)options->targets * LINKS_PER_TARGET : 1},
		{tracer->bpf->maps.guards, options->shared ? 1 : options->targets},
		{tracer->bpf->maps.pythons, options->targets},
		{tracer->bpf->maps.live, options->max_live},
		{tracer->bpf->maps.stacks, options->max_stacks},
		{tracer->bpf->maps.counts, counts > UINT32_MAX ? UINT32_MAX : counts},
		{tracer->bpf->maps.unwind_rows, sizes->row_pairs},
		{tracer->bpf->maps.unwind_pages, sizes->pages},
		{tracer->bpf->maps.mappings, sizes->mappings},
		{tracer->bpf->maps.python_events,
		 options->python ? PYTHON_RING_BYTES : (uint64_t)sysconf(_SC_PAGESIZE)},
	};
	int err = 0;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted) && !err; i++)
		err = bpf_map__set_max_entries(wanted[i].map, (uint32_t)wanted[i].entries);
	return err;
}

/*
 * Without limits of its own (process_memory_is_limited()) a process is refused memory only if it
 * asks for more than there is (mm/util.c, __vm_enough_memory): half of that is on the safe side.
 */
static uint64_t safe_size(void)
{
	struct sysinfo info;

	return sysinfo(&info) ? 0 : (uint64_t)info.totalram * info.mem_unit / 2;
}

/* Opens and sizes everything for tracer->kind, and loads it. */
static int load(struct tracer *tracer, const struct tables_sizes *sizes)
{
	struct alloctrace_bpf *bpf = alloctrace_bpf__open();
	int err;

	if (!bpf)
		return -errno;
	tracer->bpf = bpf;
	bpf->rodata->safe_size = safe_size();
	bpf->rodata->walks_python = tracer->options.python;
	bpf->rodata->shared_links = tracer->options.shared;
	gaps_fill((uint64_t *)bpf->rodata->gaps, GAP_COUNT, tracer->options.period);
	bpf->rodata->records_mappings = tracer->options.mmap;
	attach_prepare(bpf, tracer->kind, tracer->can_guard, &tracer->options);
	bpf_program__set_autoload(bpf->progs.family_fork, tracer->options.follow);
	bpf_program__set_autoload(bpf->progs.family_exit, tracer->options.follow);
	bpf_map__set_autocreate(bpf->maps.family, tracer->options.follow);
	bpf_map__set_autocreate(bpf->maps.forks, tracer->options.follow);
	err = size_maps(tracer, sizes);
	return err ? err : alloctrace_bpf__load(bpf);
}

static void unload(struct tracer *tracer)
{
	alloctrace_bpf__destroy(tracer->bpf);
	tracer->bpf = NULL;
}

/*
 * With the guard, if this kernel lets it be; and if it knows what the guard goes by, which is none of
 * its interfaces: CO-RE finds the fields, or the program does not load.
 */
static int load_guarded(struct tracer *tracer, const struct tables_sizes *sizes)
{
	int err;

	tracer->can_guard = attach_can_guard();
	err = load(tracer, sizes);
	if (!err || !tracer->can_guard)
		return err;
	unload(tracer);
	tracer->can_guard = false;
	return load(tracer, sizes);
}

/* With the walk of Python's frames, if it is wanted, and if this kernel's verifier takes it. */
static int load_walking(struct tracer *tracer, const struct tables_sizes *sizes)
{
	int err = load_guarded(tracer, sizes);

	if (!err || err == -EPERM || err == -EACCES || !tracer->options.python)
		return err;
	unload(tracer);
	tracer->options.python = false;
	return load_guarded(tracer, sizes);
}

/*
 * The first kind that works. uprobe_multi needs a look at what it does, not only at whether it is
 * there: up to 6.9 its pid filter let only the main thread's hits through.
 */
static int load_best(struct tracer *tracer, const struct tables_sizes *sizes)
{
	bool any = tracer->options.kind == TRACER_AUTO;
	int err = -EOPNOTSUPP;

	for (int kind = 0; kind < TRACER_KINDS; kind++) {
		if (!any && tracer->options.kind != (enum tracer_kind)kind)
			continue;
		if (tracer->options.shared && kind == TRACER_PERF)
			continue;
		if (!attach_kind_exists((enum tracer_kind)kind))
			continue;
		tracer->kind = (enum tracer_kind)kind;
		err = load_walking(tracer, sizes);
		if (!err && kind == TRACER_MULTI && attach_sees_threads(tracer) != 1)
			err = -EOPNOTSUPP;
		if (!err || err == -EPERM || err == -EACCES)
			return err;
		unload(tracer);
	}
	return err;
}

/* Countdowns start where a process that has been running for ever would be: at a fresh gap. */
static int start_countdowns(struct tracer *tracer)
{
	int cpus = libbpf_num_possible_cpus(), err = 0;
	struct cpu_state *states;

	if (cpus < 0)
		return cpus;
	states = calloc((size_t)cpus, sizeof(*states));
	if (!states)
		return -ENOMEM;
	for (uint32_t slot = 0; slot < tracer->options.targets && !err; slot++) {
		for (int cpu = 0; cpu < cpus; cpu++) {
			uint32_t random;

			if (getrandom(&random, sizeof(random), 0) != sizeof(random))
				random = slot * 2654435761U + (uint32_t)cpu * 40503U;
			states[cpu].countdown = tracer->bpf->rodata->gaps[random % GAP_COUNT];
		}
		err = bpf_map__update_elem(tracer->bpf->maps.cpus, &slot, sizeof(slot), states,
					   (size_t)cpus * sizeof(*states), BPF_ANY);
	}
	free(states);
	return err;
}

static int map_array(struct bpf_map *map, struct array_map *out)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = (size_t)bpf_map__max_entries(map) * bpf_map__value_size(map);
	void *at;

	size = (size + page - 1) / page * page;
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
	if (at == MAP_FAILED)
		return -errno;
	*out = (struct array_map){.at = at, .size = size};
	return 0;
}

static void unmap_array(struct array_map *array)
{
	if (array->at)
		munmap(array->at, array->size);
}

static int map_arrays(struct tracer *tracer)
{
	struct alloctrace_bpf *bpf = tracer->bpf;
	int err = map_array(bpf->maps.targets, &tracer->targets);

	if (!err)
		err = map_array(bpf->maps.unwind_rows, &tracer->rows);
	if (!err)
		err = map_array(bpf->maps.unwind_pages, &tracer->pages);
	if (!err)
		err = map_array(bpf->maps.unwind_rules, &tracer->rules);
	if (!err)
		err = map_array(bpf->maps.mappings, &tracer->mappings);
	return err;
}

/* The ring only wakes us: the flag that says which target it was is in struct target. */
static int pass_request(void *context, void *data, size_t size)
{
	(void)context;
	(void)data;
	(void)size;
	return 0;
}

/* Negative: all that had been there before tracer_read_requests() is taken. */
static int take_region_event(void *context, void *data, size_t size)
{
	struct tracer *tracer = context;
	const struct region_event *event = data;

	if (size >= sizeof(*event) && event->target < tracer->options.targets)
		regions_apply(&tracer->regions[event->target], event);
	return ++tracer->region_events < REGION_RING_BYTES / sizeof(*event) ? 0 : -EAGAIN;
}

static int keep_fork(void *context, void *data, size_t size)
{
	struct tracer *tracer = context;

	if (size != sizeof(struct fork_event) ||
	    vec_push(&tracer->forks, *(const struct fork_event *)data))
		tracer->missed_forks++;
	return 0;
}

/* One that is not kept has its names read at the end. */
static int keep_python_event(void *context, void *data, size_t size)
{
	struct tracer *tracer = context;

	if (size == sizeof(struct python_event))
		(void)!vec_push(&tracer->python_events, *(const struct python_event *)data);
	return 0;
}

/* The link is destroyed with the rest. */
static int attach_tracepoint(const struct bpf_program *program, struct bpf_link **link)
{
	*link = bpf_program__attach(program);
	return *link ? 0 : -errno;
}

static int open_events(struct tracer *tracer)
{
	struct alloctrace_bpf *bpf = tracer->bpf;
	int err = attach_tracepoint(bpf->progs.target_exec, &bpf->links.target_exec);

	if (!err)
		err = attach_tracepoint(bpf->progs.target_exit, &bpf->links.target_exit);
	if (!err) {
		tracer->requests =
			ring_buffer__new(bpf_map__fd(bpf->maps.events), pass_request, NULL, NULL);
		err = tracer->requests ? 0 : -errno;
	}
	if (!err)
		err = ring_buffer__add(tracer->requests, bpf_map__fd(bpf->maps.python_events),
				       keep_python_event, tracer);
	if (!err && tracer->options.follow)
		err = ring_buffer__add(tracer->requests, bpf_map__fd(bpf->maps.forks), keep_fork,
				       tracer);
	/* The last, as it may be left before its end: take_region_event(). */
	if (!err)
		err = ring_buffer__add(tracer->requests, bpf_map__fd(bpf->maps.region_events),
				       take_region_event, tracer);
	if (err || !tracer->options.follow)
		return err;
	err = attach_tracepoint(bpf->progs.family_exit, &bpf->links.family_exit);
	return err ? err : attach_tracepoint(bpf->progs.family_fork, &bpf->links.family_fork);
}

int tracer_new(const struct tracer_options *options, struct tracer **out)
{
	struct tracer *tracer = calloc(1, sizeof(*tracer));

	if (!tracer)
		return -ENOMEM;
	tracer->options = *options;
	closing_init(&tracer->closing);
	tracer->site_numbers = calloc(options->targets, sizeof(*tracer->site_numbers));
	tracer->regions = calloc(options->targets, sizeof(*tracer->regions));
	for (uint32_t slot = 0; tracer->regions && !options->mmap && slot < options->targets;
	     slot++)
		tracer->regions[slot].most = MEASURED_MAX;
	if (!tracer->site_numbers || !tracer->regions ||
	    tables_init(&tracer->tables, options->targets)) {
		tracer_free(tracer);
		return -ENOMEM;
	}
	*out = tracer;
	return 0;
}

int tracer_add_image(struct tracer *tracer, const struct image *image)
{
	return tables_add_image(&tracer->tables, image);
}

int tracer_load(struct tracer *tracer)
{
	const struct tables_sizes sizes = tables_sizes(&tracer->tables, tracer->options.more_rows,
						       room_for_mappings(&tracer->options));
	int err;

	if (access(KERNEL_BTF, R_OK) && errno == ENOENT)
		return -ENODATA;
	libbpf_verbose = tracer->options.verbose;
	libbpf_set_print(print_libbpf);
	err = load_best(tracer, &sizes);
	if (!err)
		err = seccomp_trial();
	if (err > 0)
		err = TRACER_KILLS_FILTERED;
	if (!err)
		err = start_countdowns(tracer);
	if (!err)
		err = map_arrays(tracer);
	if (!err)
		err = tables_place(&tracer->tables, &sizes, tracer->rows.at, tracer->pages.at,
				   tracer->rules.at, tracer->mappings.at);
	return err ? err : open_events(tracer);
}

void tracer_free(struct tracer *tracer)
{
	if (!tracer)
		return;
	tracer_detach(tracer);
	closing_deinit(&tracer->closing);
	free(tracer->links.items);
	free(tracer->forks.items);
	free(tracer->python_events.items);
	free(tracer->site_numbers);
	free(tracer->shared.items);
	for (uint32_t slot = 0; tracer->regions && slot < tracer->options.targets; slot++)
		regions_deinit(&tracer->regions[slot]);
	free(tracer->regions);
	live_ages_deinit(&tracer->ages);
	ring_buffer__free(tracer->requests);
	unmap_array(&tracer->targets);
	unmap_array(&tracer->rows);
	unmap_array(&tracer->pages);
	unmap_array(&tracer->rules);
	unmap_array(&tracer->mappings);
	tables_deinit(&tracer->tables);
	unload(tracer);
	free(tracer);
}

enum tracer_kind tracer_chosen_kind(const struct tracer *tracer)
{
	return tracer->kind;
}

uint32_t tracer_slots(const struct tracer *tracer)
{
	return tracer->options.targets;
}

uint32_t tracer_slots_for(size_t bytes)
{
	int cpus = libbpf_num_possible_cpus();
	size_t slots = bytes / sizeof(struct cpu_state) / (size_t)(cpus > 0 ? cpus : 1);

	return slots < TRACER_SLOTS_MAX ? (uint32_t)slots : TRACER_SLOTS_MAX;
}

int tracer_set_target(struct tracer *tracer, uint32_t slot, pid_t tgid)
{
	uint32_t key = (uint32_t)tgid;

	if (slot >= tracer->options.targets)
		return -EINVAL;
	*tracer_target(tracer, slot) = (struct target){.tgid = key};
	return bpf_map__update_elem(tracer->bpf->maps.slots, &key, sizeof(key), &slot, sizeof(slot),
				    BPF_ANY);
}

int tracer_map(struct tracer *tracer, uint32_t slot, const struct process *process)
{
	uint64_t *word = (uint64_t *)&tracer_target(tracer, slot)->mappings;

	return tables_update(&tracer->tables, slot, process, word);
}

int tracer_requests_fd(const struct tracer *tracer)
{
	return ring_buffer__epoll_fd(tracer->requests);
}

void tracer_read_requests(struct tracer *tracer)
{
	/* Targets may fill the ring as fast as it is read, and faster: it is read once. */
	tracer->region_events = 0;
	ring_buffer__consume(tracer->requests);
}

bool tracer_take_request(struct tracer *tracer, uint32_t slot)
{
	return __atomic_exchange_n(&tracer_target(tracer, slot)->remap, 0, __ATOMIC_ACQ_REL);
}

bool tracer_walks_python(const struct tracer *tracer)
{
	return tracer->options.python;
}

int tracer_set_python(struct tracer *tracer, uint32_t slot, const struct python_target *python)
{
	return bpf_map__update_elem(tracer->bpf->maps.pythons, &slot, sizeof(slot), python,
				    sizeof(*python), BPF_ANY);
}

uint64_t tracer_stack_seed(uint32_t slot)
{
	return slot + 1ULL;
}

/* The kernel's programs only add stacks. */
void tracer_replace_stack(struct tracer *tracer, uint64_t key, const struct stack *stack)
{
	bpf_map__update_elem(tracer->bpf->maps.stacks, &key, sizeof(key), stack, sizeof(*stack),
			     BPF_EXIST);
}

bool tracer_next_python(struct tracer *tracer, uint32_t *slot, uint64_t *key, struct stack *stack)
{
	while (tracer->next_python < tracer->python_events.count) {
		const struct python_event *event =
			&tracer->python_events.items[tracer->next_python++];

		*slot = event->target;
		*key = event->stack;
		if (*slot < tracer->options.targets &&
		    event->epoch == (uint32_t)tracer_target(tracer, *slot)->epoch &&
		    !bpf_map__lookup_elem(tracer->bpf->maps.stacks, &event->stack,
					  sizeof(event->stack), stack, sizeof(*stack), 0))
			return true;
	}
	tracer->next_python = tracer->python_events.count = 0;
	return false;
}

int tracer_follow(struct tracer *tracer, uint32_t slot)
{
	const struct target *target = tracer_target(tracer, slot);
	struct family_member member = {.root = slot};

	return bpf_map__update_elem(tracer->bpf->maps.family, &target->tgid, sizeof(target->tgid),
				    &member, sizeof(member), BPF_ANY);
}

bool tracer_child_runs(const struct tracer *tracer, const struct fork_event *fork)
{
	struct family_member member;

	return !bpf_map__lookup_elem(tracer->bpf->maps.family, &fork->child, sizeof(fork->child),
				     &member, sizeof(member), 0) &&
	       member.time == fork->time;
}

bool tracer_next_fork(struct tracer *tracer, struct fork_event *out)
{
	if (tracer->next_fork == tracer->forks.count) {
		tracer->next_fork = tracer->forks.count = 0;
		return false;
	}
	*out = tracer->forks.items[tracer->next_fork++];
	return true;
}

uint64_t tracer_missed_forks(const struct tracer *tracer)
{
	return tracer->missed_forks + tracer->bpf->bss->forks_missed;
}

void tracer_tables(const struct tracer *tracer, struct tracer_tables *out)
{
	*out = (struct tracer_tables){
		.bytes = tables_used(&tracer->tables),
		.rules = tracer->tables.rules->count,
		.full = tracer->tables.full,
		.unusable = tracer->tables.unusable,
	};
}

int tracer_enable(struct tracer *tracer, uint32_t slot, bool enabled)
{
	if (slot >= tracer->options.targets)
		return -EINVAL;
	__atomic_store_n(&tracer_target(tracer, slot)->enabled, enabled, __ATOMIC_SEQ_CST);
	return 0;
}
