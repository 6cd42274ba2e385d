/*
 * Grows in one way, until it is killed: grower heap|step|mmap|stack|churn|flat
 *
 * Prints "ready PID", and on SIGUSR1 "grown BYTES", what has been added and touched so far; bytes of
 * whole pages, but for the heap. Blocks are small, so that the C library never gives any back.
 */
#include "target.h"

#include <alloca.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define TICK_NS	    20000000
#define HEAP_BLOCK  1000
#define HEAP_BLOCKS 20
#define STEP_BYTES  (32 << 20)
#define STEP_TICKS  150
#define PAGE	    4096
#define MMAP_BYTES  (16 * PAGE)
#define STACK_BYTES PAGE
#define CHURN_TIMES 200

static atomic_ulong grown;

static void tell(int signal)
{
	(void)signal;
	target_say("grown %lu\n", atomic_load(&grown));
}

static void wait_a_tick(void)
{
	struct timespec left = {.tv_nsec = TICK_NS};

	while (nanosleep(&left, &left)) /* questions interrupt it */
		;
}

NAMED_SITE static void *site_heap(size_t size)
{
	return memset(malloc(size), 1, size);
}

static void grow_heap(void)
{
	for (;;) {
		for (int i = 0; i < HEAP_BLOCKS; i++) {
			site_heap(HEAP_BLOCK);
			grown += HEAP_BLOCK;
		}
		wait_a_tick();
	}
}

static void grow_once(void)
{
	for (int i = 0;; i++) {
		if (i == STEP_TICKS) {
			site_heap(STEP_BYTES);
			grown += STEP_BYTES;
		}
		wait_a_tick();
	}
}

static void grow_mapped(void)
{
	for (;;) {
		void *block = mmap(NULL, MMAP_BYTES, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		memset(block, 1, MMAP_BYTES);
		grown += MMAP_BYTES;
		wait_a_tick();
	}
}

/* One frame deeper in each tick. */
static void grow_stack(void)
{
	for (;;) {
		char *page = alloca(STACK_BYTES);

		memset(page, 1, STACK_BYTES);
		grown += STACK_BYTES;
		wait_a_tick();
	}
}

static void churn(bool at_all)
{
	for (;;) {
		for (int i = 0; at_all && i < CHURN_TIMES; i++)
			free(site_heap(HEAP_BLOCK));
		wait_a_tick();
	}
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	struct sigaction action = {.sa_handler = tell};

	sigaction(SIGUSR1, &action, NULL);
	free(site_heap(HEAP_BLOCK));
	target_ready();
	if (!strcmp(how, "heap"))
		grow_heap();
	else if (!strcmp(how, "step"))
		grow_once();
	else if (!strcmp(how, "mmap"))
		grow_mapped();
	else if (!strcmp(how, "stack"))
		grow_stack();
	churn(!strcmp(how, "churn"));
}
