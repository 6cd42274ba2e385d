/*
 * The ledger of a process: what became of its resident memory in the window, as plain numbers that add up. Each
 * term is measured on its own; what remains is called not explained:
 *
 *	rss_end = rss_start + live + direct + stacks + file + shmem - swapped_out + not_explained
 */
#ifndef ALLOCTRACE_LEDGER_H
#define ALLOCTRACE_LEDGER_H

#include "profile/profile.h"

#include <stdbool.h>
#include <stdint.h>

/* An estimate with the ends of its 95 % interval; three times the same where it is exact. */
struct ledger_figure {
	int64_t value, low, high;
};

/* Bytes. */
struct ledger {
	int64_t rss_start, rss_end;
	/* Allocated since, and not freed: whatever its age. Of it some may not be resident. */
	struct ledger_figure live;
	/* Resident anonymous memory of mappings that the program has made by itself since, but for stacks. */
	bool direct_known;
	struct ledger_figure direct; /* 0 where it is not known */
	uint64_t direct_lost;	     /* events that it may lack */
	/* Changes: */
	int64_t stacks, file, shmem, swapped_out;
	int64_t not_explained;
};

/* False: the memory was not read at both ends. */
bool ledger_of(const struct profile *profile, struct ledger *out);

/* All that is live, what is too young to be told elsewhere among it. */
struct estimate ledger_live(const struct profile *profile);

#endif
