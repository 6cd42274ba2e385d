/* Rows of a sweep's result, from what was recorded of a process. */
#ifndef ALLOCTRACE_SWEEP_ROWS_H
#define ALLOCTRACE_SWEEP_ROWS_H

#include "output/sweep.h"
#include "profile/estimate.h"
#include "profile/profile.h"

/* What the verdict says, for a process of which no heap was recorded. 0 or -ENOMEM. */
int sweep_row_judge(struct sweep_row *row);

/* The heap's figures alone, of a target that was recorded for so many ns with that mean distance of samples. */
void sweep_row_add_figures(struct sweep_row *row, const struct estimate *live,
			   const struct estimate *allocated, int64_t duration, uint64_t period);

/* The heap's figures of a named profile, and the verdict with what they prove. 0 or -ENOMEM. */
int sweep_row_add_heap(struct sweep_row *row, const struct profile *profile);

/*
 * To the verdict of one that has grown, where its heap names no site: that most of its new pages come from
 * growth_site. 0 or -ENOMEM.
 */
int sweep_row_add_new_pages(struct sweep_row *row);

#endif
