/* The distances between samples, as a table that the kernel side draws from. */
#ifndef ALLOCTRACE_GAPS_H
#define ALLOCTRACE_GAPS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Fills gaps with `count` equally likely distances in whole bytes, >= 1, of an exponential
 * distribution with mean `period`: each is the mean of its quantile, so that the table's mean is
 * the period exactly, rounded up, because a call is hit by the first byte that reaches the gap (so
 * the table's mean is about period + 1/2, as that of the geometric distribution is). With a period
 * of 1 all are 1: every call.
 */
void gaps_fill(uint64_t *gaps, size_t count, uint64_t period);

#endif
