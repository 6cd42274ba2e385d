/*
 * unwind_dlopen: loads libraries while it is traced.
 *
 *	unwind_dlopen PLUGIN...
 *
 * Says "ready PID". For each PLUGIN (built from unwind_plugin.c): waits for a line, unloads the one
 * before, loads it, allocates 100 times by its first path, says "loaded ADDRESS"; waits for a line,
 * allocates 1000 times by its second path, says "done". Then waits for another line, and ends.
 */
#include "target.h"

#include <dlfcn.h>

int main(int argc, char **argv)
{
	void *library = NULL;

	/* What printing and loading need themselves is there before. */
	target_ready();
	for (int i = 1; i < argc; i++) {
		void (*allocate)(int, int);

		target_wait_line();
		if (library)
			dlclose(library);
		library = dlopen(argv[i], RTLD_NOW);
		if (!library)
			target_die("%s\n", dlerror());
		*(void **)&allocate = dlsym(library, "plugin_allocate");
		if (!allocate)
			target_die("%s\n", dlerror());
		allocate(0, 100);
		target_say("loaded %p\n", *(void **)&allocate);
		target_wait_line();
		allocate(1, 1000);
		target_say("done\n");
	}
	target_wait_line();
	return 0;
}
