/* A library for boxed, in several builds as it: FLAVOUR_static calls malloc once, for 500 bytes. */
#include <stddef.h>
#include <stdlib.h>

#ifndef FLAVOUR
#define FLAVOUR plain
#endif
#define JOIN(a, b)    a##_##b
#define NAME_OF(a, b) JOIN(a, b)
#define NAME(b)	      NAME_OF(FLAVOUR, b)

static void *volatile kept;

__attribute__((noipa)) static void NAME(static)(void)
{
	kept = malloc(500); /* the line of static */
}

void boxed_library(void)
{
	NAME(static)();
}
