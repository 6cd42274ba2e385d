/*
 * stack_walk_dump: the walk of a thread that is stopped. Reads lines "PID PC SP FP", numbers but the
 * first in hex, and prints for each how the walk ended and its addresses:
 *	NUMBER-OF-UNSURE-FRAMES ADDRESS... REASON
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "target/process.h"
#include "target/stack_walk.h"
#include "util/cleanup.h"

/* More than is sampled: gdb sees all of the stack, too. */
#define STACK_MAX (1 << 20)

static size_t read_stack(int pid, uint64_t sp, uint8_t *to)
{
	CLEANUP(cleanup_fd) int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : pread(fd, to, STACK_MAX, (off_t)sp);
	return n < 0 ? 0 : (size_t)n;
}

static int walk_one(struct stack_walker *walker, int pid, struct stack_state *state, uint8_t *stack)
{
	struct process *process;
	struct stack_walk walk;
	int err = process_open(pid, &process);

	if (err)
		return err;
	state->stack = stack;
	state->stack_size = read_stack(pid, state->sp, stack);
	err = stack_walk(walker, process, state, &walk);
	if (!err) {
		printf("%zu", walk.unsure);
		for (size_t i = 0; i < walk.count; i++)
			printf(" %" PRIx64, walk.addresses[i]);
		printf(" %s\n", stack_walk_end_text(walk.end));
		fflush(stdout);
	}
	process_free(process);
	return err;
}

int main(void)
{
	uint8_t *stack = malloc(STACK_MAX);
	struct stack_walker *walker;
	char line[256];
	int err = stack_walker_new(&walker);

	while (!err && stack && fgets(line, sizeof(line), stdin)) {
		struct stack_state state = {0};
		int pid;

		if (sscanf(line, "%d %" SCNx64 " %" SCNx64 " %" SCNx64, &pid, &state.pc, &state.sp,
			   &state.fp) == 4)
			err = walk_one(walker, pid, &state, stack);
	}
	if (err)
		fprintf(stderr, "stack_walk_dump: %s\n", strerror(-err));
	stack_walker_free(walker);
	free(stack);
	return err != 0;
}
