#include <stdlib.h>
#include <string.h>

void *__shop_take(size_t n)
{
	return memset(malloc(n + 1), 0, n + 1);
}
extern __typeof(__shop_take) shop_take __attribute__((alias("__shop_take")));

static __attribute__((noinline)) int scale(int n, int by, int unused)
{
	return by ? *(char *)__shop_take((size_t)(n * by)) : n;
}

static inline int twice(int n)
{
	return scale(n, 2, 1) + scale(n + 1, 2, 2);
}

int shop_c_entry(int n)
{
	if (n < 0) {
		abort();
	}
	return twice(n) + twice(n + 3);
}

int shop_c_unused(int n)
{
	return twice(n);
}
