#include "profile/estimate.h"

#include <math.h>

/* Two-sided 95 % quantile of the normal distribution. */
#define Z 1.959963984540054

double estimate_probability(double size, uint64_t period)
{
	if (period <= 1)
		return 1;
	/* expm1() keeps the digits that 1 - exp() loses when a byte meets a period of gigabytes. */
	return -expm1(-fmax(size, 1) / (double)period);
}

/* Adds hits that stand for `each` (objects or bytes) apiece. */
static void add_hits(struct estimate *to, double hits, double each, double p)
{
	to->value += hits * each / p;
	to->variance += hits * each * each * (1 - p) / (p * p);
	to->observed += hits * each;
}

void estimate_add_rest(struct estimate *objects, struct estimate *bytes_sum, uint64_t hits,
		       uint64_t bytes, double size, uint64_t period)
{
	double p = estimate_probability(size, period);

	if (!hits)
		return;
	if (objects)
		add_hits(objects, (double)hits, 1, p);
	if (bytes_sum)
		add_hits(bytes_sum, (double)hits, (double)bytes / (double)hits, p);
}

void estimate_add(struct estimate *objects, struct estimate *bytes_sum, uint64_t hits,
		  uint64_t bytes, uint64_t period)
{
	if (hits)
		estimate_add_rest(objects, bytes_sum, hits, bytes, (double)bytes / (double)hits,
				  period);
}

void estimate_add_event(struct estimate *bytes_sum, double each, double bytes)
{
	add_hits(bytes_sum, 1, bytes, 1 / fmax(each, 1));
}

void estimate_sum(struct estimate *to, const struct estimate *more)
{
	to->value += more->value;
	to->variance += more->variance;
	to->observed += more->observed;
}

/*
 * For k hits of equal weight w = 1/p, value = k w and variance = k (1-p) w^2: as many objects as
 * n = k/(1-p) Poisson events of weight w (1-p) would have estimated. The score interval of n is
 * n + z^2/2 +- z sqrt(n + z^2/4).
 */
void estimate_interval(const struct estimate *e, double *low, double *high)
{
	double weight, n, middle, half;

	if (!(e->variance > 0) || !(e->value > 0)) {
		*low = *high = e->value;
		return;
	}
	weight = e->variance / e->value;
	n = e->value / weight;
	middle = n + Z * Z / 2;
	half = Z * sqrt(n + Z * Z / 4);
	*low = fmax((middle - half) * weight, e->observed);
	*high = fmax((middle + half) * weight, *low);
}

double estimate_upper_of_none(const struct estimate *objects, const struct estimate *figure)
{
	double low, high, p, missed;

	if (!(objects->value > 0) || !(objects->variance > 0))
		return 0;
	/* How many objects could all be missed with a probability of 2.5 %? */
	p = objects->observed / objects->value;
	missed = log(0.025) / log1p(-p);
	estimate_interval(figure, &low, &high);
	return fmin(missed * figure->value / objects->value, high);
}

double estimate_upper_of_nothing(uint64_t period)
{
	return period > 1 ? Z * Z * (double)period : 0;
}
