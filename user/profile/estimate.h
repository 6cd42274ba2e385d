/*
 * From sampled hits to unbiased figures with errors.
 *
 * An allocation of s bytes is hit with probability p(s) = 1 - exp(-s/R), R the mean distance
 * between samples in bytes. A hit stands for 1/p objects and s/p bytes (Horvitz-Thompson); its
 * variance is (1-p)/p^2 objects^2. With R = 1 every allocation is recorded: p = 1, no error. An
 * allocation of 0 bytes is treated as one of 1 byte when it comes to p, and as 0 bytes in sums.
 */
#ifndef ALLOCTRACE_ESTIMATE_H
#define ALLOCTRACE_ESTIMATE_H

#include <stdint.h>

struct estimate {
	double value;	 /* unbiased estimate of the true sum */
	double variance; /* of value */
	double observed; /* the sum over the hits alone: the truth is at least this */
};

/* p(size), in (0, 1]. period is R in bytes, >= 1. */
double estimate_probability(double size, uint64_t period);

/*
 * Adds `hits` allocations that are `bytes` bytes together and of nearly one size, to a count of
 * objects and to a sum of bytes. Either may be NULL. hits = 0 adds nothing.
 */
void estimate_add(struct estimate *objects, struct estimate *bytes_sum, uint64_t hits,
		  uint64_t bytes, uint64_t period);
/*
 * The same of what is left of allocations that were `size` bytes each: a mapping may be given back in
 * parts, and was recorded with the probability of its whole size.
 */
void estimate_add_rest(struct estimate *objects, struct estimate *bytes_sum, uint64_t hits,
		       uint64_t bytes, double size, uint64_t period);
/*
 * One hit of a sample that takes one event in `each`, at least 1 (p = 1 / each), to a sum of bytes:
 * `bytes` is what such an event brought.
 */
void estimate_add_event(struct estimate *bytes_sum, double each, double bytes);
void estimate_sum(struct estimate *to, const struct estimate *more);

/*
 * The 95 % interval of the truth. Score interval of a Poisson count with n = value^2/variance
 * equivalent hits, which keeps its coverage at few hits where value +- 1.96 sd does not; never
 * below what was observed. With variance 0 both ends are value.
 */
void estimate_interval(const struct estimate *e, double *low, double *high);

/*
 * The upper end of the 95 % interval for a part in which there was no hit at all, such as the live
 * objects of a site whose samples were all freed: its estimate is 0 with variance 0, yet objects
 * may have been missed. objects and figure are those of the whole that it is a part of: of what
 * size its objects are, and that it cannot be more. 0 when the whole is exact.
 */
double estimate_upper_of_none(const struct estimate *objects, const struct estimate *figure);

/*
 * The same where nothing at all was hit: of how many bytes there may have been without a sample. No event of
 * a Poisson process with one in `period` bytes: the score interval ends at 1.96^2 events. 0 at a period of 1.
 */
double estimate_upper_of_nothing(uint64_t period);

#endif
