/* What the user says of allocators that the table of families lacks: option texts -> rows. */
#ifndef ALLOCTRACE_EXTRAS_H
#define ALLOCTRACE_EXTRAS_H

#include "binary/allocators.h"

/*
 * PATH:PREFIX, as in /opt/lib/libpool.so:pool_ (pool_malloc, pool_free, ...). A PATH without a slash
 * is that of any file of this name. 0, -EINVAL, -ENOMEM.
 */
int extras_add_prefix(struct allocator_extras *extras, const char *text);

/*
 * KIND:NAME[:argN...], as in alloc:pool_get:arg2 or free:pool_put. The kinds and what their
 * arguments are, by default the first ones in this order:
 *   alloc SIZE, calloc COUNT SIZE, realloc POINTER SIZE, reallocarray POINTER COUNT SIZE,
 *   posix_memalign RESULT SIZE, free POINTER
 * 0, -EINVAL, -ENOMEM.
 */
int extras_add_symbol(struct allocator_extras *extras, const char *text);

void extras_deinit(struct allocator_extras *extras);

#endif
