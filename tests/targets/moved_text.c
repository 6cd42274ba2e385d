/*
 * moved_text: copies its own code to anonymous memory that takes the place of the old, as programs
 * do that want it in huge pages. Linked statically and dynamically (moved_text_static).
 *
 *	moved_text WHEN WHAT	WHEN: before (it says "ready PID") or after (the next line).
 *				WHAT: all (the code), or but (all but the page that holds malloc).
 *
 * Waits for a line; allocates 500 objects of 100 bytes at path_moved and frees half of them; prints
 * the books in ledger's format, and goes on to use CPU time until the next line, then ends.
 */
#include "target.h"

#include <link.h>
#include <poll.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 4096UL

NAMED_SITE static void *path_moved(void)
{
	return malloc(100);
}

/* Our own code: the executable segment of the first object. */
static int find_code(struct dl_phdr_info *info, size_t size, void *context)
{
	uintptr_t *range = context;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
			continue;
		range[0] = (info->dlpi_addr + segment->p_vaddr) & ~(PAGE - 1);
		range[1] = (info->dlpi_addr + segment->p_vaddr + segment->p_memsz + PAGE - 1) &
			   ~(PAGE - 1);
	}
	return 1;
}

static void move(uintptr_t start, uintptr_t end)
{
	size_t size = end - start;
	void *copy;

	if (start >= end)
		return;
	copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED)
		target_die("no memory\n");
	memcpy(copy, (void *)start, size);
	if (mprotect(copy, size, PROT_READ | PROT_EXEC) ||
	    mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) == MAP_FAILED)
		target_die("not moved\n");
}

static void move_code(const char *what)
{
	uintptr_t range[2], page = (uintptr_t)malloc & ~(PAGE - 1);

	dl_iterate_phdr(find_code, range);
	if (strcmp(what, "but"))
		page = range[1];
	move(range[0], page);
	move(page + PAGE, range[1]);
}

static bool line_is_there(void)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

	return poll(&input, 1, 0) > 0;
}

int main(int argc, char **argv)
{
	static void *blocks[500];
	bool before;

	if (argc != 3)
		target_die("moved_text before|after all|but\n");
	before = !strcmp(argv[1], "before");
	if (before)
		move_code(argv[2]);
	target_ready();
	target_wait_line();
	if (!before)
		move_code(argv[2]);
	for (int i = 0; i < 500; i++)
		blocks[i] = path_moved();
	for (int i = 0; i < 250; i++)
		free(blocks[i]);
	target_say("{\"moved\": {\"alloc_objects\": 500, \"alloc_bytes\": 50000, "
		   "\"inuse_objects\": 250, \"inuse_bytes\": 25000}}\n");
	while (!line_is_there())
		;
	return 0;
}
