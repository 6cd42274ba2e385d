/*
 * boxed [LIBRARY]: a program of which there are several builds. They differ in nothing but the names of
 * their functions, FLAVOUR_..., which their debug information has: so names tell which file they came from.
 *
 * Says "ready PID", then does what each line says, and then "done":
 *	work		allocates 3 blocks of 1000 bytes in FLAVOUR_inner, which is inlined into FLAVOUR_outer, and has
 *			each library that is loaded do its work
 *	load LIBRARY	loads one, built of boxed_library.c
 *	chroot FOLDER	changes its root
 */
#include "target.h"

#include <dlfcn.h>

#ifndef FLAVOUR
#define FLAVOUR plain
#endif
#define JOIN(a, b)    a##_##b
#define NAME_OF(a, b) JOIN(a, b)
#define NAME(b)	      NAME_OF(FLAVOUR, b)
#define LIBRARIES     4

static void (*libraries[LIBRARIES])(void);
static int library_count;
static void *volatile kept;

__attribute__((always_inline)) static inline void *NAME(inner)(size_t size)
{
	return malloc(size); /* the line of inner */
}

NAMED_SITE static void NAME(outer)(void)
{
	for (int i = 0; i < 3; i++)
		kept = NAME(inner)(1000); /* the line of outer */
}

static void load(const char *path)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!library)
		target_die("%s\n", dlerror());
	if (library_count == LIBRARIES)
		target_die("too many libraries\n");
	libraries[library_count] = (void (*)(void))dlsym(library, "boxed_library");
	if (!libraries[library_count++])
		target_die("%s: not one of ours\n", path);
}

NAMED_SITE static void obey(char *line)
{
	char *argument = strchr(line, ' ');

	if (argument)
		*argument++ = '\0';
	if (strcmp(line, "work") == 0) {
		NAME(outer)();
		for (int i = 0; i < library_count; i++)
			libraries[i]();
	} else if (argument && strcmp(line, "load") == 0) {
		load(argument);
	} else if (argument && strcmp(line, "chroot") == 0) {
		if (chroot(argument) || chdir("/"))
			target_die("chroot\n");
	} else {
		target_die("what is '%s'?\n", line);
	}
	target_say("done\n");
}

int main(int argc, char **argv)
{
	char line[512];
	size_t length = 0;

	if (argc > 1)
		load(argv[1]);
	target_ready();
	while (length < sizeof(line) && read(STDIN_FILENO, line + length, 1) == 1) {
		if (line[length++] != '\n')
			continue;
		line[length - 1] = '\0';
		obey(line);
		length = 0;
	}
	return 0;
}
