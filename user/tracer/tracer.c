#include "tracer/internal.h"

#include "alloctrace.skel.h"
#include "profile/gaps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* A site allocates in some sizes: so many counts are kept for each stack that may be. */
#define COUNTS_PER_STACK 8

static bool libbpf_verbose;

static int print_libbpf(enum libbpf_print_level level, const char *format, va_list arguments)
{
	if (!libbpf_verbose || level == LIBBPF_DEBUG)
		return 0;
	return vfprintf(stderr, format, arguments);
}

/* Opens and sizes everything for tracer->kind, and loads it. */
static int load(struct tracer *tracer)
{
	const struct tracer_options *options = &tracer->options;
	struct alloctrace_bpf *bpf = alloctrace_bpf__open();
	uint32_t counts = options->max_stacks > UINT32_MAX / COUNTS_PER_STACK ?
				  UINT32_MAX :
				  options->max_stacks * COUNTS_PER_STACK;
	int err;

	if (!bpf)
		return -errno;
	tracer->bpf = bpf;
	gaps_fill((uint64_t *)bpf->rodata->gaps, GAP_COUNT, options->period);
	bpf->rodata->return_always = tracer->kind != TRACER_SESSION;
	attach_prepare(bpf, tracer->kind);
	err = bpf_map__set_max_entries(bpf->maps.cpus, options->targets);
	if (!err)
		err = bpf_map__set_max_entries(bpf->maps.targets, options->targets);
	if (!err)
		err = bpf_map__set_max_entries(bpf->maps.live, options->max_live);
	if (!err)
		err = bpf_map__set_max_entries(bpf->maps.stacks, options->max_stacks);
	if (!err)
		err = bpf_map__set_max_entries(bpf->maps.counts, counts);
	return err ? err : alloctrace_bpf__load(bpf);
}

static void unload(struct tracer *tracer)
{
	alloctrace_bpf__destroy(tracer->bpf);
	tracer->bpf = NULL;
}

/*
 * The first kind that works. uprobe_multi needs a look at what it does, not only at whether it is there:
 * up to 6.9 its pid filter let only the main thread's hits through.
 */
static int load_best(struct tracer *tracer)
{
	bool any = tracer->options.kind == TRACER_AUTO;
	int err = -EOPNOTSUPP;

	for (int kind = 0; kind < TRACER_KINDS; kind++) {
		if (!any && tracer->options.kind != (enum tracer_kind)kind)
			continue;
		if (!attach_kind_exists((enum tracer_kind)kind))
			continue;
		tracer->kind = (enum tracer_kind)kind;
		err = load(tracer);
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

static int map_targets(struct tracer *tracer)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *at;

	tracer->targets_size =
		(tracer->options.targets * sizeof(struct target) + page - 1) / page * page;
	at = mmap(NULL, tracer->targets_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		  bpf_map__fd(tracer->bpf->maps.targets), 0);
	if (at == MAP_FAILED)
		return -errno;
	tracer->targets = at;
	return 0;
}

int tracer_new(const struct tracer_options *options, struct tracer **out)
{
	struct tracer *tracer = calloc(1, sizeof(*tracer));
	struct bpf_link *exec;
	int err;

	if (!tracer)
		return -ENOMEM;
	libbpf_verbose = options->verbose;
	libbpf_set_print(print_libbpf);
	tracer->options = *options;
	err = load_best(tracer);
	if (!err)
		err = start_countdowns(tracer);
	if (!err)
		err = map_targets(tracer);
	if (!err) {
		exec = bpf_program__attach(tracer->bpf->progs.target_exec);
		if (exec)
			tracer->bpf->links.target_exec = exec;
		else
			err = -errno;
	}
	if (err) {
		tracer_free(tracer);
		return err;
	}
	*out = tracer;
	return 0;
}

void tracer_free(struct tracer *tracer)
{
	if (!tracer)
		return;
	tracer_detach(tracer);
	free(tracer->links.items);
	if (tracer->targets)
		munmap(tracer->targets, tracer->targets_size);
	unload(tracer);
	free(tracer);
}

enum tracer_kind tracer_chosen_kind(const struct tracer *tracer)
{
	return tracer->kind;
}

int tracer_set_target(struct tracer *tracer, uint32_t slot, pid_t tgid)
{
	uint32_t key = (uint32_t)tgid;

	if (slot >= tracer->options.targets)
		return -EINVAL;
	tracer->targets[slot] = (struct target){.tgid = key};
	return bpf_map__update_elem(tracer->bpf->maps.slots, &key, sizeof(key), &slot, sizeof(slot),
				    BPF_ANY);
}

int tracer_enable(struct tracer *tracer, uint32_t slot, bool enabled)
{
	if (slot >= tracer->options.targets)
		return -EINVAL;
	__atomic_store_n(&tracer->targets[slot].enabled, enabled, __ATOMIC_SEQ_CST);
	return 0;
}
