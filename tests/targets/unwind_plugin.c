/*
 * unwind_plugin: a library for unwind_dlopen, which allocates by two paths. With -DWIDE its frames
 * are larger, so that one build's unwind rules are wrong for the other.
 */
#include "target.h"

#ifdef WIDE
#define ROOM 4000
#else
#define ROOM 40
#endif

void plugin_allocate(int second, int count);

NAMED_SITE static void *path_site(size_t size)
{
	volatile char room[ROOM];
	void *block;

	room[0] = 0;
	block = malloc(size);
	return room[0] ? NULL : block;
}

NAMED_SITE static void path_first(int count)
{
	for (int i = 0; i < count; i++)
		free(path_site(100));
}

NAMED_SITE static void path_second(int count)
{
	for (int i = 0; i < count; i++)
		free(path_site(100));
}

void plugin_allocate(int second, int count)
{
	if (second)
		path_second(count);
	else
		path_first(count);
}
