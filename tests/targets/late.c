/*
 * late LIBRARY PREFIX: loads an allocator while it runs. Says "ready PID", waits for a line, loads it
 * and says "loaded", waits for a line, calls PREFIXmalloc 1000 times and frees every second block,
 * prints the books in ledger's format, waits for a line and ends.
 */
#include "target.h"

#include <dlfcn.h>

#define BLOCKS 1000
#define SIZE   300

static void *(*late_malloc)(size_t size);
static void (*late_free)(void *block);

NAMED_SITE static void *path_late(void)
{
	return late_malloc(SIZE);
}

static void *find(void *library, const char *prefix, const char *name)
{
	char symbol[64];
	void *function;

	snprintf(symbol, sizeof(symbol), "%s%s", prefix, name);
	function = dlsym(library, symbol);
	if (!function)
		target_die("no %s\n", symbol);
	return function;
}

int main(int argc, char **argv)
{
	static void *blocks[BLOCKS];
	void *library;

	if (argc != 3)
		target_die("late LIBRARY PREFIX\n");
	target_ready();
	target_wait_line();
	library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	if (!library)
		target_die("%s\n", dlerror());
	late_malloc = (void *(*)(size_t))find(library, argv[2], "malloc");
	late_free = (void (*)(void *))find(library, argv[2], "free");
	target_say("loaded\n");
	target_wait_line();
	for (int i = 0; i < BLOCKS; i++)
		blocks[i] = path_late();
	for (int i = 0; i < BLOCKS; i += 2)
		late_free(blocks[i]);
	target_say("{\"late\": {\"alloc_objects\": %d, \"alloc_bytes\": %d, \"inuse_objects\": %d, "
		   "\"inuse_bytes\": %d}}\n",
		   BLOCKS, BLOCKS * SIZE, BLOCKS / 2, BLOCKS / 2 * SIZE);
	target_wait_line();
	return 0;
}
