/*
 * How old what is live is, and how long what was freed had lived: plain arithmetic.
 *
 * Recorded figures come by site and size class, in struct age_counts and struct lifetimes; struct ages
 * holds them scaled (profile/estimate.h), of a site or of all.
 */
#ifndef ALLOCTRACE_AGES_H
#define ALLOCTRACE_AGES_H

#include <stdbool.h>
#include <stdint.h>

/* Bands of ages: up to 1 s, 10 s, 1 min, 10 min, and what is older. */
#define AGE_BANDS 5
/* The lower end of a band, ns. */
extern const int64_t age_band_from[AGE_BANDS];

/* The parts of a window in which something was allocated. */
#define AGE_PARTS 3

/* Ages are counted from the end of this window. Times are ns of CLOCK_MONOTONIC. */
struct age_window {
	int64_t start, end;
	int64_t min_age; /* what is younger counts as young */
};

/* What is live of one size class of a site, as recorded. All zero is nothing. */
struct age_counts {
	uint64_t bytes[AGE_BANDS];
	uint64_t young_bytes;
	uint32_t young_objects;
	uint32_t born[AGE_PARTS]; /* objects, by the part of the window */
	int64_t oldest;		  /* ns */
};

/* objects: 1, or 0 for a further piece of one that was added before. */
void age_counts_add(struct age_counts *counts, const struct age_window *window, int64_t time,
		    unsigned int objects, uint64_t bytes);

/* Classes of lifetimes: below 2^12 ns, below 2^14, ... */
#define LIFETIME_CLASSES 18

/* What was freed of one size class of a site, as recorded. */
struct lifetimes {
	uint64_t objects;
	double sum;	     /* ns */
	int64_t first_freed; /* the earliest time at which one of them was allocated; 0: none */
	uint64_t by_class[LIFETIME_CLASSES];
};

/* All zero is one of nothing. */
struct ages {
	double bytes[AGE_BANDS];  /* live, by age */
	uint64_t born[AGE_PARTS]; /* live objects, as recorded, by the part of the window */
	int64_t oldest;		  /* ns */
	uint64_t freed;		  /* objects, as recorded; */
	double freed_objects;	  /* and how many they stand for */
	double lifetime_sum;	  /* of those, ns */
	double by_class[LIFETIME_CLASSES];
	int64_t first_freed; /* as above */
};

/* Each recorded object stands for `weight` (1/p). */
void ages_add(struct ages *to, const struct age_counts *live, const struct lifetimes *freed,
	      double weight);

/* Live objects as recorded, live bytes, and those of them that are at least so old as a band begins. */
uint64_t ages_live(const struct ages *ages);
double ages_bytes(const struct ages *ages);
double ages_older(const struct ages *ages, unsigned int band);

/*
 * How long what was freed had lived, ns: the mean; and the median, which is known to lie within a class,
 * a factor of four, and is read off as if lifetimes were spread evenly over its logarithm. 0 if nothing
 * was freed. Those still live are in neither: an object that outlives the window has no lifetime yet.
 */
double ages_mean_lifetime(const struct ages *ages);
double ages_median_lifetime(const struct ages *ages);

/*
 * Does it only get older: is there something from the window's first part, and from its last one, and
 * was nothing freed of what was allocated in the first? Of samples, there must be some: that none of
 * AGE_EVIDENCE was freed makes it likely (95 %) that less than a third of all were.
 */
#define AGE_EVIDENCE 8
bool ages_only_older(const struct ages *ages, const struct age_window *window, bool exact);

/* What became of what was allocated in the window's first part. */
enum ages_fate {
	AGES_UNKNOWN, /* too little is known */
	AGES_KEPT,    /* ages_only_older() */
	AGES_FREED,   /* some of it was freed */
};
enum ages_fate ages_fate(const struct ages *ages, const struct age_window *window, bool exact);

/* Are there enough samples to say something of what is live, of what was freed? */
#define AGE_SAMPLES 5
bool ages_tell_live(const struct ages *ages, bool exact);
bool ages_tell_freed(const struct ages *ages, bool exact);

#endif
