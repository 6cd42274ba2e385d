#include "profile/gaps.h"

#include <math.h>

/* Integral of -ln v from 0 to v: v - v ln v. */
static double log_integral(double v)
{
	return v > 0 ? v - v * log(v) : 0;
}

void gaps_fill(uint64_t *gaps, size_t count, uint64_t period)
{
	double n = (double)count;

	/*
	 * With u uniform in [0, 1), -ln(1 - u) is exponential with mean 1. The mean over the
	 * quantile i/n <= u < (i+1)/n is n times the integral of -ln v over v = 1 - u.
	 */
	for (size_t i = 0; i < count; i++) {
		double from = 1 - (double)(i + 1) / n, to = 1 - (double)i / n;
		double mean = n * (log_integral(to) - log_integral(from));
		double gap = ceil(mean * (double)period);

		gaps[i] = period > 1 && gap > 1 ? (uint64_t)gap : 1;
	}
}
