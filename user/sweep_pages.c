#include "sweep_pages.h"

#include "page_growth.h"
#include "output/frame.h"
#include "output/pprof.h"
#include "target/faults.h"
#include "tracer/fault_returns.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A process whose faults are kept, from when it had grown by a little. */
struct faulting {
	struct host_process *of; /* the host's; kept */
	/* Of `of`, when this was begun: another program has other memory. */
	unsigned int executions;
	struct process *process;    /* owned, unless named; NULL: it could not be opened */
	bool named;		    /* it is among those that names know, which own it then */
	struct page_growth *growth; /* owned */
};

/* A process with sampled faults since the last tick. More of them than there is room for have to wait. */
#define RECENT_MAX 128
struct recent {
	pid_t pid;
	uint64_t start_time;
	unsigned int hits;
};

struct sweep_pages {
	struct host *host;	       /* borrowed */
	struct faults *faults;	       /* owned */
	struct fault_returns *returns; /* owned; NULL: not to be had here */
	struct page_growth_host shared;
	struct {
		struct faulting *items; /* owned */
		size_t count, capacity;
	} processes;
	struct {
		struct process **items; /* owned; names may lead to their images */
		size_t count, capacity;
	} named;
	size_t ended; /* of those: nothing else leads to them */
	struct recent recent[RECENT_MAX];
	size_t recent_count;
};

/* Where the kernel does not let them be known, stacks end where a return probe is pending. */
static int open_returns(struct sweep_pages *pages)
{
	int err = fault_returns_open(&pages->returns);

	for (size_t i = 0; i < faults_events(pages->faults) && !err; i++)
		err = fault_returns_watch(pages->returns, faults_event(pages->faults, i));
	if (err)
		log_verbose("page faults within probed calls have no callers: %s", strerror(-err));
	return err == -ENOMEM ? err : 0;
}

int sweep_pages_new(struct host *host, struct sweep_pages **out)
{
	struct sweep_pages *pages = calloc(1, sizeof(*pages));
	int err;

	if (!pages)
		return -ENOMEM;
	pages->host = host;
	err = stack_walker_new(&pages->shared.walker);
	if (!err)
		err = faults_open(&pages->faults);
	if (!err)
		err = open_returns(pages);
	if (err) {
		sweep_pages_free(pages);
		return err;
	}
	*out = pages;
	return 0;
}

/* What is known of one is let go, but for what names may lead to. */
static void let_go(struct sweep_pages *pages, struct faulting *faulting)
{
	page_growth_free(faulting->growth);
	if (faulting->named)
		pages->ended++;
	else
		process_free(faulting->process);
	faulting->growth = NULL;
	faulting->process = NULL;
	faulting->named = false;
}

void sweep_pages_free(struct sweep_pages *pages)
{
	if (!pages)
		return;
	vec_for_each(faulting, &pages->processes)
		let_go(pages, faulting);
	free(pages->processes.items);
	vec_for_each(process, &pages->named)
		process_free(*process);
	free(pages->named.items);
	faults_free(pages->faults);
	fault_returns_free(pages->returns);
	stack_walker_free(pages->shared.walker);
	free(pages);
}

int sweep_pages_fd(const struct sweep_pages *pages)
{
	return faults_fd(pages->faults);
}

static struct faulting *find(const struct sweep_pages *pages, const struct host_process *of)
{
	vec_for_each(faulting, &pages->processes) {
		if (faulting->of == of)
			return faulting;
	}
	return NULL;
}

size_t sweep_pages_ended(const struct sweep_pages *pages)
{
	return pages->ended;
}

void sweep_pages_forget_ended(struct sweep_pages *pages)
{
	vec_for_each(faulting, &pages->processes) {
		if (!faulting->named)
			continue;
		/* Its own again. */
		vec_for_each(process, &pages->named) {
			if (*process == faulting->process)
				*process = NULL;
		}
		faulting->named = false;
	}
	vec_for_each(process, &pages->named)
		process_free(*process);
	pages->named.count = pages->ended = 0;
}

void sweep_pages_stats(const struct sweep_pages *pages, struct faults_stats *out)
{
	faults_stats(pages->faults, out);
}

static bool has_grown(const struct host_process *of)
{
	int64_t shared = (int64_t)of->latest.shared - (int64_t)of->first.shared;

	return of->state == HOST_WATCHED && of->read &&
	       (host_growth(of) >= SWEEP_PAGES_LEAST || shared >= SWEEP_PAGES_LEAST);
}

/*
 * What has ended has no pages any more: its place, and its room among all pages, are for others. What
 * could not be opened is tried again with its next fault.
 */
void sweep_pages_tick(struct sweep_pages *pages)
{
	size_t kept = 0;

	pages->recent_count = 0;
	vec_for_each(faulting, &pages->processes) {
		if (faulting->of->state == HOST_ENDED || !faulting->growth) {
			let_go(pages, faulting);
			faulting->of->kept--;
		} else {
			pages->processes.items[kept++] = *faulting;
		}
	}
	pages->processes.count = kept;
}

/* Counts a fault of a process that has not grown yet. Is it one of many? */
static bool is_one_of_many(struct sweep_pages *pages, const struct host_process *of)
{
	for (size_t i = 0; i < pages->recent_count; i++) {
		struct recent *recent = &pages->recent[i];

		if (recent->pid == of->pid && recent->start_time == of->start_time)
			return ++recent->hits >= SWEEP_PAGES_HITS;
	}
	if (pages->recent_count < RECENT_MAX)
		pages->recent[pages->recent_count++] = (struct recent){of->pid, of->start_time, 1};
	return false;
}

/* Opens the process. One that cannot be opened has no growth, for now. 0 or -ENOMEM. */
static int begin(struct sweep_pages *pages, struct faulting *faulting)
{
	struct memory memory;
	int err;

	/* It is not tried again in this tick: opening takes longer than a fault. */
	faulting->executions = faulting->of->executions;
	err = process_open(faulting->of->pid, &faulting->process);
	if (err)
		return err == -ENOMEM ? err : 0;
	/* Is it the one that has grown, whatever has its id by now? */
	if (host_read_detail(faulting->of, &memory)) {
		process_free(faulting->process);
		faulting->process = NULL;
		return 0;
	}
	return page_growth_new(&pages->shared, &faulting->growth);
}

/* The one that a fault is of, begun where it is to be kept from now on; *out NULL: it is not. */
static int find_or_begin(struct sweep_pages *pages, pid_t pid, struct faulting **out)
{
	struct host_process *of = host_find(pages->host, pid);
	struct faulting added = {.of = of};
	int err;

	*out = NULL;
	if (!of || of->state != HOST_WATCHED)
		return 0;
	*out = find(pages, of);
	if (*out && (*out)->executions == of->executions)
		return 0;
	if (*out) { /* it executes another program: what it had is gone */
		let_go(pages, *out);
		return begin(pages, *out);
	}
	if (pages->processes.count >= SWEEP_PAGES_MAX ||
	    (!has_grown(of) && !is_one_of_many(pages, of)))
		return 0;
	err = begin(pages, &added);
	if (!err)
		err = vec_push(&pages->processes, added);
	if (err) {
		let_go(pages, &added);
		return err;
	}
	of->kept++;
	*out = &pages->processes.items[pages->processes.count - 1];
	return 0;
}

static int visit(const struct fault *fault, void *context)
{
	struct sweep_pages *pages = context;
	struct faulting *faulting;
	struct fault known = *fault;
	int err = find_or_begin(pages, fault->pid, &faulting);

	if (err || !faulting || !faulting->growth)
		return err;
	if (pages->returns)
		known.state.replaced =
			fault_returns_find(pages->returns, fault->tid, fault->address, fault->time);
	return page_growth_add(faulting->growth, faulting->process, &known);
}

int sweep_pages_read(struct sweep_pages *pages)
{
	return faults_read(pages->faults, visit, pages);
}

/* --- the profile --- */

static int fill_site(const struct profile *profile, struct sweep_site *site)
{
	struct frame_cursor cursor;
	struct frame frame;
	int64_t bytes;

	if (!frame_find_growth(profile, &cursor, &frame, &bytes))
		return 0;
	return sweep_site_fill(site, &cursor, &frame,
			       (double)bytes / (double)profile->growth_value);
}

static int copy_info(const struct profile_info *from, struct profile_info *to)
{
	*to = *from;
	to->comm = strdup(from->comm);
	to->exe = strdup(from->exe);
	to->version = strdup(from->version);
	to->command_line = strdup(from->command_line);
	to->kernel = strdup(from->kernel);
	to->attach = strdup(from->attach);
	to->period = FAULTS_PERIOD;
	return to->comm && to->exe && to->version && to->command_line && to->kernel && to->attach
		       ? 0
		       : -ENOMEM;
}

/* Names are about to lead to its images. */
static int keep_named(struct sweep_pages *pages, struct faulting *faulting)
{
	int err = faulting->named ? 0 : vec_push(&pages->named, faulting->process);

	faulting->named |= !err;
	return err;
}

int sweep_pages_profile(struct sweep_pages *pages, const struct host_process *process,
			struct names *names, const struct profile_info *info,
			struct sweep_site *site, uint8_t **data, size_t *size)
{
	struct faulting *faulting = find(pages, process);
	struct profile *profile;
	int err;

	*data = NULL;
	if (!faulting || !faulting->growth)
		return 0;
	err = profile_new(&profile);
	if (err)
		return err;
	process_refresh(faulting->process);
	err = copy_info(info, &profile->info);
	if (!err)
		err = names_add_mappings(profile, faulting->process);
	if (!err)
		err = page_growth_fill(faulting->growth, faulting->process, profile);
	/* What was read under its id was its own, if it has not ended by now. */
	if (!err && process_has_ended(faulting->process))
		err = -ESRCH;
	if (!err && profile->growths.count)
		err = keep_named(pages, faulting);
	if (!err && profile->growths.count)
		err = names_give(names, profile, faulting->process);
	if (!err && site)
		err = fill_site(profile, site);
	if (!err && profile->growths.count)
		err = pprof_encode_growth(profile, data, size);
	profile_free(profile);
	/* Without its /proc, nothing is known of its pages. */
	return err == -ENOMEM ? err : 0;
}
