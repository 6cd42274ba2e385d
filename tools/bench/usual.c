/*
 * usual PID: alloctrace's own programs, attached as uprobe tracers usually are: by perf events, at
 * the first instruction of each function, with a return probe on all that allocate.
 *
 * So it shows what the choice of the probe site and of the way of attaching is worth, and nothing
 * else: counting, sampling and recording are those of alloctrace at its default rate. Says
 * "attached N", holds the probes until the end of its input, and then says
 * "calls N frees N recorded N".
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "binary/allocators.h"
#include "target/process.h"
#include "tracer/tracer.h"
#include "util/cleanup.h"

#define PERIOD (512 * 1024)

/* Room enough for any target of the benchmark, as alloctrace itself would give it. */
#define MAX_LIVE   (256 * 1024)
#define MAX_STACKS (64 * 1024)
#define MORE_ROWS  (256 * 1024)

/* The arguments are in their own registers there: that is what a function's first instruction is.
 */
static void probe_at_entry(struct allocator_function *function)
{
	function->site_offset -= function->site - function->vaddr;
	function->site = function->vaddr;
	for (size_t i = 0; i < shape_operands(function->shape); i++)
		function->registers[i] = probe_argument_register(function->arguments[i]);
}

/* Probes into one image, if it is one of an allocator; adds their number to *probes. */
static int attach_image(struct tracer *tracer, const struct process *process,
			const struct image *image, size_t *probes)
{
	struct allocator *allocator;
	int err = allocator_find(image, NULL, NULL, &allocator);

	if (err)
		return err == -ENOENT ? 0 : err;
	for (size_t i = 0; i < allocator->function_count; i++)
		probe_at_entry(&allocator->functions[i]);
	err = tracer_attach(tracer, 0, process, image, allocator, THROWING_LEFT_OUT);
	*probes += allocator->function_count;
	allocator_free(allocator);
	return err;
}

static int attach(struct tracer *tracer, const struct process *process, size_t *probes)
{
	int err = 0;

	for (size_t i = 0; i < process->images.count && !err; i++)
		err = tracer_add_image(tracer, process->images.items[i]);
	if (!err)
		err = tracer_load(tracer);
	if (!err)
		err = tracer_set_target(tracer, 0, process->pid);
	if (!err)
		err = tracer_map(tracer, 0, process);
	for (size_t i = 0; i < process->images.count && !err; i++)
		err = attach_image(tracer, process, process->images.items[i], probes);
	return err ? err : tracer_enable(tracer, 0, true);
}

static int trace(struct tracer *tracer, const struct process *process)
{
	uint64_t counters[COUNTER_COUNT];
	size_t probes = 0;
	char byte;
	int err = attach(tracer, process, &probes);

	if (err)
		return err;
	printf("attached %zu\n", probes);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	tracer_enable(tracer, 0, false);
	tracer_detach(tracer);
	err = tracer_counters(tracer, 0, counters);
	if (!err)
		printf("calls %" PRIu64 " frees %" PRIu64 " recorded %" PRIu64 "\n",
		       (uint64_t)counters[COUNT_CALLS], (uint64_t)counters[COUNT_FREES],
		       (uint64_t)counters[COUNT_RECORDED]);
	return err;
}

int main(int argc, char **argv)
{
	struct process *process;
	struct tracer *tracer;
	int err;

	if (argc != 2) {
		fprintf(stderr, "usage: usual PID\n");
		return 2;
	}
	err = process_open(atoi(argv[1]), &process);
	if (!err) {
		struct tracer_options options = {
			.kind = TRACER_PERF,
			.period = PERIOD,
			.targets = 1,
			.max_live = MAX_LIVE,
			.max_stacks = MAX_STACKS,
			.mappings = (uint32_t)process->mappings.count,
			.more_rows = MORE_ROWS,
		};

		err = tracer_new(&options, &tracer);
		if (!err) {
			err = trace(tracer, process);
			tracer_free(tracer);
		}
		process_free(process);
	}
	if (err)
		fprintf(stderr, "usual: %s\n", strerror(-err));
	return err ? 1 : 0;
}
