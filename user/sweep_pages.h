/*
 * Where those grow that grow at all: the sampled page faults of processes that have grown by a little,
 * whatever by, each with its stack, and before a probe is placed.
 */
#ifndef ALLOCTRACE_SWEEP_PAGES_H
#define ALLOCTRACE_SWEEP_PAGES_H

#include "names.h"
#include "output/sweep.h"
#include "target/faults.h"
#include "target/host.h"

/*
 * From when on the faults of a process are kept: from so many bytes of growth on, anonymous or of files and
 * shared memory; or from so many of its faults being sampled between two ticks, so that what grows at
 * once is not missed but for its beginning.
 */
#define SWEEP_PAGES_LEAST (64 * 1024)
#define SWEEP_PAGES_HITS  3
/* Processes whose faults are kept, at one time. */
#define SWEEP_PAGES_MAX 256

struct sweep_pages;

/* host is borrowed. 0, or what faults_open() returns. */
int sweep_pages_new(struct host *host, struct sweep_pages **out);
void sweep_pages_free(struct sweep_pages *pages);

/* Readable when sweep_pages_read() has something to do. */
int sweep_pages_fd(const struct sweep_pages *pages);
int sweep_pages_read(struct sweep_pages *pages); /* 0 or -ENOMEM */

/* To be called once in each tick: lets go of what has ended. */
void sweep_pages_tick(struct sweep_pages *pages);

/*
 * The profile of a process's growth, named and encoded for pprof, and its first site in *site. *data is
 * the caller's to free; NULL where nothing is known of it, or it has ended. info: of the profile; its
 * strings are borrowed. 0 or -ENOMEM. Can be called at any time; names may lead to images of its process,
 * which is kept for them. site may be NULL.
 */
int sweep_pages_profile(struct sweep_pages *pages, const struct host_process *process,
			struct names *names, const struct profile_info *info,
			struct sweep_site *site, uint8_t **data, size_t *size);

/* Processes that are kept for names alone; and, when those are gone, lets go of them. */
size_t sweep_pages_ended(const struct sweep_pages *pages);
void sweep_pages_forget_ended(struct sweep_pages *pages);

/* How sampling has gone. */
void sweep_pages_stats(const struct sweep_pages *pages, struct faults_stats *out);

#endif
