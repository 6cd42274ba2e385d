/*
 * wander: maps and unmaps, each time at another address. Says "ready PID", waits for a line, says so after
 * 200000 times, and goes on until it is killed.
 */
#include "target.h"

#include <stdint.h>
#include <sys/mman.h>

#define SIZE   (8UL << 20)
#define ROUNDS 200000
#define HIGH   0x7e0000000000UL
#define LOW    0x100000000UL

/* Downwards: what is new comes before all others in the order of addresses. */
static void map_once(uintptr_t *at)
{
	void *mapping = mmap((void *)*at, SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mapping == MAP_FAILED)
		target_die("mmap\n");
	munmap(mapping, SIZE);
	*at = *at < LOW ? HIGH : *at - SIZE;
}

int main(void)
{
	uintptr_t at = HIGH;

	target_ready();
	target_wait_line();
	for (int i = 0; i < ROUNDS; i++)
		map_once(&at);
	target_say("wandered\n");
	for (;;)
		map_once(&at);
}
