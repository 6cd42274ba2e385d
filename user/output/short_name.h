/* Names of functions for a column of a table. */
#ifndef ALLOCTRACE_SHORT_NAME_H
#define ALLOCTRACE_SHORT_NAME_H

#include <stddef.h>

/*
 * A copy of a name, made to fit into `width` bytes: without what its template arguments are, then the end
 * of it, which says most, and some of its beginning. To be freed; NULL: no memory.
 */
char *short_name(const char *name, size_t width);

#endif
