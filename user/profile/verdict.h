/*
 * How something grew in a window, from readings of it at regular times: plain arithmetic. What it is
 * called says no more than a window can prove: that it grew in every part of it, once, not at all; never
 * that it leaks.
 */
#ifndef ALLOCTRACE_VERDICT_H
#define ALLOCTRACE_VERDICT_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

/* The window is looked at in so many parts at most, of one length; and in fewer than that not at all. */
#define VERDICT_PARTS_MAX 12
#define VERDICT_PARTS_MIN 4

struct reading {
	int64_t time; /* ns */
	uint64_t bytes;
};

/*
 * Readings of a window of unknown length, in bounded memory: where there is no room for more, every
 * other one is dropped, and from then on only every other one is taken.
 */
#define READINGS_MAX 4096
struct readings {
	size_t limit;	       /* room for so many, an even number; 0: READINGS_MAX */
	struct reading *items; /* owned */
	size_t count, capacity;
	unsigned int step, skip; /* one of `step` is taken; so many are to be passed over */
};

int readings_add(struct readings *readings, int64_t time, uint64_t bytes); /* 0 or -ENOMEM */
void readings_deinit(struct readings *readings);

enum verdict_kind {
	VERDICT_TOO_SHORT, /* fewer readings than VERDICT_PARTS_MIN parts need */
	VERDICT_FLAT,	   /* never far from where it began */
	VERDICT_STEADY,	   /* grew in nearly every part */
	VERDICT_STEP, /* nearly all of the growth came in one part, or on both sides of its end */
	VERDICT_SAWTOOTH, /* grew and shrank in turn, by much more than what is left of it */
	VERDICT_UNEVEN,	  /* grew, in some parts */
	VERDICT_SHRANK,
};

static inline bool verdict_is_growth(enum verdict_kind kind)
{
	return kind == VERDICT_STEADY || kind == VERDICT_STEP || kind == VERDICT_UNEVEN;
}

struct verdict {
	enum verdict_kind kind;
	unsigned int parts, grown; /* of the window; those at whose end it was more than before */
	int64_t change;		   /* bytes, from the first reading to the last */
	double per_second;	   /* change, bytes */
	/* The largest growth: ns after the first reading, from and to, and bytes. */
	int64_t step_from, step_to, step;
	uint64_t low, high; /* of all readings */
};

/* Changes up to this many bytes, or this share of where it began, count for nothing. */
#define VERDICT_LEAST_BYTES (256 * 1024)
#define VERDICT_LEAST_SHARE 0.01

struct verdict verdict_of(const struct readings *readings);

/*
 * What its parts are told by: ends[0] is the first of all readings, and ends[i] the one at which part i ends.
 * The number of parts; 0, and no ends, where there are fewer than two readings.
 */
unsigned int verdict_ends(const struct readings *readings,
			  struct reading ends[VERDICT_PARTS_MAX + 1]);

#endif
