/*
 * A heap profile: plain data and arithmetic. No BPF, no ELF, no process: a recorded sample set can
 * build one. The profile owns everything it holds.
 *
 * Built in this order: profile_new(); profile_add_mapping() (the main executable first);
 * profile_add_site() and profile_add_bucket() for what was recorded; profile_finish() (scales,
 * sums, sorts); then the symbolizer fills in the locations' lines with profile_set_lines().
 */
#ifndef ALLOCTRACE_PROFILE_H
#define ALLOCTRACE_PROFILE_H

#include "profile/ages.h"
#include "profile/estimate.h"
#include "profile/verdict.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The four figures, in pprof's and Go's order. */
enum profile_value {
	PROFILE_ALLOC_OBJECTS,
	PROFILE_ALLOC_SPACE,
	PROFILE_INUSE_OBJECTS,
	PROFILE_INUSE_SPACE,
	PROFILE_VALUES,
};

struct profile_mapping {
	uint64_t start, limit, offset; /* as in /proc/PID/maps */
	char *file;
	char *build_id; /* lower-case hex, "" where unknown */
	bool has_functions, has_filenames, has_line_numbers, has_inline_frames;
	bool is_interpreter; /* of some that locations run in: Python's */
};

struct profile_function {
	char *name;	   /* readable */
	char *system_name; /* as in the binary */
	char *file;	   /* "" where unknown */
	uint32_t start_line;
};

struct profile_line {
	uint32_t function; /* index */
	uint32_t line;
};

/* One code address. lines[0] is the innermost inlined call, the last one the physical function. */
struct profile_location {
	uint64_t address;
	int mapping; /* index, -1: in no known mapping */
	struct profile_line *lines;
	size_t line_count; /* >= 1 after symbolization */
	bool interpreted;  /* a function that an interpreter runs, as Python's */
};

/* A stack that allocates, or that maps memory. */
struct profile_site {
	uint32_t *frames; /* location indices, innermost (the call of the allocator) first */
	size_t frame_count;
	bool complete; /* the walk reached the thread's first frame */
	bool mapped;   /* it makes direct mappings; set by who adds it */
	struct estimate values[PROFILE_VALUES];
	int64_t sums[PROFILE_VALUES]; /* of its buckets' values: what is printed */
	struct ages ages;
};

/* The allocations of one site within one size class: a sample of pprof, with its `bytes` label. */
struct profile_bucket {
	uint32_t site;
	uint64_t alloc_hits, alloc_bytes; /* recorded, unscaled */
	uint64_t inuse_hits, inuse_bytes;
	uint64_t object_bytes;		/* mean size of the allocations */
	int64_t values[PROFILE_VALUES]; /* scaled, rounded: what every output prints the sum of */
};

/* What memory that a process has grown by is. */
enum profile_kind {
	PROFILE_HEAP,	/* [heap]: what brk(2) gives */
	PROFILE_ANON,	/* anonymous memory: other allocators' heaps, direct mappings */
	PROFILE_STACK,	/* a thread's stack */
	PROFILE_FILE,	/* a file that is mapped, and has not been written to privately */
	PROFILE_SHARED, /* shared memory: memfd, tmpfs, System V, shared anonymous mappings */
	PROFILE_KINDS,
};

/* "heap", "anonymous", ...: the label `kind` of pprof. */
extern const char *const profile_kind_names[PROFILE_KINDS];

/*
 * What one site has made a process grow by, from page faults: memory of one kind that was touched
 * for the first time in the window, and is there at its end.
 */
struct profile_growth {
	uint32_t site;
	enum profile_kind kind;
	uint64_t hits; /* sampled faults whose page is still there */
	struct estimate space;
	int64_t value; /* scaled, rounded: what every output prints the sum of */
};

enum profile_counter_kind {
	PROFILE_SEEN,	/* worth telling where it is not 0 */
	PROFILE_LOSS,	/* part of: sampled = recorded + failed + sum of losses */
	PROFILE_DETAIL, /* only for who looks closely: pprof's comments */
};

/* One named count of things not recorded, or worth telling. */
struct profile_counter {
	const char *name; /* static */
	uint64_t count;
	enum profile_counter_kind kind;
};

/* A process that uses so much CPU time in a window is not idle. */
#define PROFILE_BUSY_NANOS 100000000

/* Resident memory by kind, bytes; swap is what is not resident any more. */
struct profile_memory {
	bool known;
	uint64_t anon, file, shmem, swap;
	uint64_t stacks; /* of anon: of all threads */
	/* Of anon, without stacks: of direct mappings since recording began. */
	bool direct_known;
	struct estimate direct;
	uint64_t direct_lost; /* events that this may lack */
	bool direct_crowded;  /* they are not known as they are at too many places */
};

/* 0: not known. */
static inline uint64_t profile_memory_rss(const struct profile_memory *memory)
{
	return memory->known ? memory->anon + memory->file + memory->shmem : 0;
}

/* Everything that is told about a recording besides its sites. Strings are owned. */
struct profile_info {
	int pid;
	char *comm;	    /* raw bytes from the target: escape before printing */
	char *exe;	    /* path of the executable, "" where unknown */
	char *version;	    /* of alloctrace */
	char *command_line; /* of alloctrace */
	char *kernel;	    /* release */
	char *attach;	    /* how: "session", "multi", "perf" */
	/* When a process that was followed to was joined: "3.1 ms after ..."; NULL: it was given. */
	char *origin;
	char *children;	    /* what became of the processes that it started; NULL: nothing to say */
	int64_t time_nanos; /* start, since the epoch */
	int64_t duration_nanos;
	uint64_t period; /* R, bytes */
	uint64_t calls;	 /* allocator calls seen, sampled or not */
	uint64_t frees;	 /* calls of freeing functions seen */
	bool mmap;	 /* direct mappings are recorded too */
	uint64_t maps;	 /* calls of functions that map memory, seen */
	uint64_t unmaps;
	uint64_t sampled; /* = recorded + failed allocations + losses */
	uint64_t recorded;
	bool aged; /* ages are known: they are at the end only, unless there is a min_age */
	struct age_window window; /* its min_age > 0: what is younger is not among what is in use */
	struct profile_memory memory_start, memory_end;
	struct verdict growth; /* of anonymous memory, with what is swapped out */
	int64_t cpu_nanos;     /* CPU time used in the window; -1: unknown */
	const char
		*end_reason; /* static: "duration reached", "interrupted", "process exited", ... */
};

/* How an allocator is probed, for the summary. */
struct profile_probe {
	char *file;
	char *origin;	 /* whose functions they are, and where they were found */
	char *functions; /* "malloc+0 calloc+0 ... " */
	char *left_out;	 /* functions that are not probed: lines "name: reason" */
};

struct profile_young {
	struct estimate objects, space;
};

struct profile {
	struct profile_info info;
	struct {
		struct profile_mapping *items;
		size_t count, capacity;
	} mappings;
	struct {
		struct profile_function *items;
		size_t count, capacity;
	} functions;
	struct {
		struct profile_location *items;
		size_t count, capacity;
	} locations;
	struct {
		/* After profile_finish(): by inuse_space, then alloc_space, descending; those of
		   direct mappings behind the others. */
		struct profile_site *items;
		size_t count, capacity;
	} sites;
	struct {
		struct profile_bucket *items;
		size_t count, capacity;
	} buckets;
	struct {
		/* Only in a profile of growth, which has no buckets. After profile_finish_growth():
		   by value, descending. */
		struct profile_growth *items;
		size_t count, capacity;
	} growths;
	struct {
		struct profile_counter *items;
		size_t count, capacity;
	} counters;
	struct {
		struct profile_probe *items;
		size_t count, capacity;
	} probes;
	struct {
		char **items; /* owned, one line each, printed and written as comments */
		size_t count, capacity;
	} warnings;
	struct estimate total[PROFILE_VALUES];
	int64_t total_values[PROFILE_VALUES]; /* sums of the buckets' values: equal what pprof shows
					       */
	/* What is live and left out of the figures in use, as it is too young; and all ages. */
	struct profile_young young;
	struct ages ages;
	/* The same of direct mappings, which are in none of the above. */
	struct estimate mapped[PROFILE_VALUES];
	int64_t mapped_values[PROFILE_VALUES];
	struct profile_young mapped_young;
	/* Of a profile of growth: of all, and by kind. */
	struct estimate growth, growth_by_kind[PROFILE_KINDS];
	int64_t growth_value;
};

int profile_new(struct profile **out);
void profile_free(struct profile *profile);

/* All of these: 0 or -ENOMEM; strings are copied; the new index in *index (may be NULL). */
int profile_add_mapping(struct profile *profile, uint64_t start, uint64_t limit, uint64_t offset,
			const char *file, const char *build_id, uint32_t *index);
/* Locations are shared: one per address. addresses: return address - 1, innermost first. */
int profile_add_site(struct profile *profile, const uint64_t *addresses, size_t count,
		     bool complete, uint32_t *index);
int profile_add_bucket(struct profile *profile, uint32_t site, uint64_t alloc_hits,
		       uint64_t alloc_bytes, uint64_t inuse_hits, uint64_t inuse_bytes);
/*
 * The ages of what a bucket of that site and object_bytes was made of. What is young is not to be in
 * that bucket's inuse_hits and inuse_bytes. info.period is to be known. 0 or -EINVAL.
 */
int profile_add_ages(struct profile *profile, uint32_t site, double object_bytes,
		     const struct age_counts *live, const struct lifetimes *freed);
int profile_add_counter(struct profile *profile, const char *name, uint64_t count,
			enum profile_counter_kind kind);
int profile_add_probe(struct profile *profile, const char *file, const char *origin,
		      const char *functions, const char *left_out);
int profile_add_warning(struct profile *profile, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Functions are shared: one per (name, system_name, file, start_line). */
int profile_add_function(struct profile *profile, const char *name, const char *system_name,
			 const char *file, uint32_t start_line, uint32_t *index);
/* Copies the lines into the location, in place of those it had. */
int profile_set_lines(struct profile *profile, uint32_t location, const struct profile_line *lines,
		      size_t count);

/* Scales the buckets with info.period, sums up sites and totals, sorts the sites. Once, at the end.
 */
int profile_finish(struct profile *profile);

/* For a profile of growth instead; once for each site and kind. 0 or -ENOMEM. */
int profile_add_growth(struct profile *profile, uint32_t site, enum profile_kind kind,
		       uint64_t hits, const struct estimate *space);
/* Rounds, sums up and sorts. Once, at the end; takes the place of profile_finish(). */
void profile_finish_growth(struct profile *profile);

/* Sum of the counters that are losses. */
uint64_t profile_losses(const struct profile *profile);

#endif
