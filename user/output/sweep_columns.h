/* The table of a sweep: a line for each process. */
#ifndef ALLOCTRACE_SWEEP_COLUMNS_H
#define ALLOCTRACE_SWEEP_COLUMNS_H

#include "output/sweep.h"

/*
 * The first `shown` rows under their heading. Columns for pages of files and for shared memory are there if
 * any of these rows has something in them.
 */
void sweep_columns_write(const struct sweep_result *result, size_t shown, FILE *to);

#endif
