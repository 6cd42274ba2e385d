/*
 * exports.so: a library for boxed with functions that it exports, and others between them that it does not.
 * Each allocates a block of its own size, and calls the next one.
 */
#include <stdlib.h>

#define SITE __attribute__((noipa))

/* In the order in which they are written. */
SITE static void static_first(void);
SITE void exported_first(void);
SITE static void static_second(void);
SITE void exported_second(void);
SITE static void static_last(void);

static void *volatile kept;

static void static_first(void)
{
	kept = malloc(1100);
	exported_first();
	kept = malloc(1101);
}

void exported_first(void)
{
	kept = malloc(1200);
	static_second();
	kept = malloc(1201);
}

static void static_second(void)
{
	kept = malloc(1300);
	exported_second();
	kept = malloc(1301);
}

void exported_second(void)
{
	kept = malloc(1400);
	static_last();
	kept = malloc(1401);
}

static void static_last(void)
{
	kept = malloc(1500);
}

void boxed_library(void)
{
	static_first();
}
