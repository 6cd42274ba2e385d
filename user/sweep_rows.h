/* Rows of a sweep's result, from what was recorded of a process. */
#ifndef ALLOCTRACE_SWEEP_ROWS_H
#define ALLOCTRACE_SWEEP_ROWS_H

#include "output/sweep.h"
#include "profile/profile.h"

/* What the verdict says, for a process of which no heap was recorded. 0 or -ENOMEM. */
int sweep_row_judge(struct sweep_row *row);

/* The heap's figures of a named profile, and the verdict with what they prove. 0 or -ENOMEM. */
int sweep_row_add_heap(struct sweep_row *row, const struct profile *profile);

#endif
