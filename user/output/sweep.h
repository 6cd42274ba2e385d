/*
 * What a sweep of a host found: plain data, and how it is told, as a table for people and as JSON for
 * machines.
 */
#ifndef ALLOCTRACE_OUTPUT_SWEEP_H
#define ALLOCTRACE_OUTPUT_SWEEP_H

#include "output/sweep_site.h"
#include "profile/ages.h"
#include "profile/ledger.h"
#include "profile/verdict.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* How old what is live of a heap, or of a site, is at the end, and how long what was freed had lived. */
struct sweep_ages {
	bool known;
	double older[AGE_BANDS]; /* live bytes at least so old as each band begins */
	uint64_t freed;		 /* samples; */
	bool freed_known;	 /* are there enough of them? */
	double median, mean;	 /* lifetimes, ns */
	enum ages_fate fate;
	char *text; /* owned; of a site, in words; NULL: nothing to say */
};

/* Less growth of shared memory and file pages is not told with the verdict. */
#define SWEEP_SHARED_LEAST (1024 * 1024)

/* One process. Strings are owned; names hold hostile bytes. */
struct sweep_row {
	pid_t pid;
	uid_t uid;
	char *comm;
	char *cgroup;	 /* "" where unknown */
	char *container; /* id; NULL: none */
	/* Bytes, since it was first seen. */
	uint64_t rss_start, rss_end;
	int64_t anon_growth, shared_growth; /* shared: file pages and shared memory */
	bool kinds_known;
	int64_t file_growth, shmem_growth;
	bool share_known; /* of those that were zoomed on or have grown, if they run: */
	uint64_t pss, swap_pss;
	struct verdict verdict; /* of its anonymous memory, and the readings that it is told by: */
	struct reading ends[VERDICT_PARTS_MAX + 1]; /* ns after the sweep's start */
	char *verdict_text;			    /* names in it are escaped */
	bool verdict_named;			    /* it names a site */
	/* Of its heap, if probes were placed. */
	bool zoomed;
	int64_t zoomed_after; /* ns after the sweep's start */
	double live, live_low, live_high;
	double alloc_per_second; /* bytes */
	char *account;		 /* of its RSS since then; NULL: none */
	struct sweep_ages ages;
	struct ledger ledger; /* the same in numbers, if there is an account */
	struct sweep_site site;
	struct sweep_ages site_ages;
	char *profile; /* path; NULL: none was written. Of its samples: */
	uint64_t sampled, lost;
	char *losses; /* in words, as counters_format() has them; NULL: none */
	struct sweep_site growth_site;
	char *growth_profile;
	bool ended;
	char *reason; /* why there are no probes; NULL: nothing to say */
};

/* Processes of one name that lived too briefly to be looked at. Strings are owned, and hostile. */
struct sweep_brief {
	char *comm;
	char *parent; /* the name of who started them; "": not known */
	uint64_t count;
};

/* So many of these names are told, the most frequent ones. */
#define SWEEP_BRIEF_MAX 10

/* Numbered profiles (--interval). */
struct sweep_numbered {
	int64_t every;	     /* ns; 0: there were none */
	unsigned int last;   /* number */
	unsigned int missed; /* intervals that were left out, or not written to the end */
	int64_t longest;     /* ns that one profile took to write */
};

struct sweep_result {
	const char *version; /* borrowed */
	char *kernel;	     /* owned */
	int64_t time_nanos;  /* start, since the epoch */
	int64_t duration;    /* ns */
	struct {
		struct sweep_row *items; /* owned; the largest growth first */
		size_t count, capacity;
	} rows;
	struct {
		struct sweep_brief *items; /* owned; the most frequent name first */
		size_t count, capacity;
	} brief;
	/* Processes seen, that ended, that lived too briefly to be looked at, that could not be read. */
	unsigned int processes, ended, short_lived, kernel_threads, not_read;
	unsigned int readings_missed; /* seconds in which memory was not read */
	struct sweep_numbered numbered;
};

void sweep_row_deinit(struct sweep_row *row);
void sweep_result_deinit(struct sweep_result *result);

/* The first `top` rows as a table, then each with its evidence. 0 or -errno. */
int sweep_table_write(const struct sweep_result *result, unsigned int top, FILE *to);

/* The rows alone, under one line that says how it stands: while it runs. */
void sweep_table_write_rows(const struct sweep_result *result, FILE *to);

/* All rows; the man page has the schema. Bytes that are not UTF-8 are written as \xNN. 0 or -errno. */
int sweep_json_write(const struct sweep_result *result, FILE *to);

/* "steady", "step", ...: as JSON has it. */
const char *sweep_verdict_name(enum verdict_kind kind);

#endif
