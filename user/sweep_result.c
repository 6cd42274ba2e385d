#include "sweep_result.h"

#include "heap_all.h"
#include "report.h"
#include "sweep.h"
#include "sweep_growth.h"
#include "sweep_rows.h"
#include "targets.h"
#include "target/cgroup.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 4096

struct sweep_zoom *sweep_find_zoom(const struct sweep *sweep, const struct host_process *process)
{
	return process->zoom ? &sweep->zooms.items[process->zoom - 1] : NULL;
}

bool sweep_has_slot(const struct sweep *sweep)
{
	return sweep->recording.targets.count < sweep->slots;
}

struct host_grown sweep_grown(const struct settings *settings, bool ended)
{
	return (struct host_grown){
		.bytes = settings->min_growth ? settings->min_growth : SWEEP_MIN_BYTES,
		.share = settings->min_growth ? 0 : SWEEP_MIN_SHARE,
		.ended = ended,
	};
}

static int64_t shared_growth(const struct host_process *process)
{
	return (int64_t)process->latest.shared - (int64_t)process->first.shared;
}

bool sweep_tells_of(const struct sweep *sweep, const struct host_process *process)
{
	const struct host_grown grown = sweep_grown(sweep->settings, true);

	return (sweep_find_zoom(sweep, process) && !sweep->settings->heap_all) ||
	       host_growth(process) >= (int64_t)grown.bytes ||
	       shared_growth(process) >= (int64_t)grown.bytes;
}

void sweep_note_kinds(struct sweep *sweep)
{
	vec_for_each(item, &sweep->host->processes) {
		struct host_process *process = *item;

		if (process->state == HOST_WATCHED && process->read && !process->noted)
			process->noted = !host_read_detail(process, &process->noted_memory);
	}
}

static int add_identity(const struct host_process *process, struct sweep_row *row)
{
	char id[CGROUP_ID_MAX];

	row->pid = process->pid;
	row->uid = process->user;
	row->comm = strdup(process->comm);
	row->cgroup = strdup(process->cgroup ? process->cgroup : "");
	if (!row->comm || !row->cgroup)
		return -ENOMEM;
	if (!cgroup_container(row->cgroup, strlen(row->cgroup), id))
		return 0;
	row->container = strdup(id);
	return row->container ? 0 : -ENOMEM;
}

static void add_kinds(const struct host_process *process, struct sweep_row *row)
{
	const struct memory *before = &process->noted_memory;
	struct memory now;

	if (!process->noted || host_read_detail(process, &now))
		return;
	row->kinds_known = true;
	row->file_growth = (int64_t)now.file - (int64_t)before->file;
	row->shmem_growth = (int64_t)now.shmem - (int64_t)before->shmem;
}

static void add_verdict(const struct sweep *sweep, const struct host_process *process,
			struct sweep_row *row)
{
	unsigned int parts = verdict_ends(&process->readings, row->ends);

	for (unsigned int i = 0; parts && i <= parts; i++)
		row->ends[i].time -= sweep->recording.started;
	row->verdict = verdict_of(&process->readings);
}

static void add_memory(const struct sweep *sweep, const struct host_process *process,
		       struct sweep_row *row)
{
	row->rss_start = process->first.rss;
	row->rss_end = process->latest.rss;
	row->anon_growth = host_growth(process);
	row->shared_growth = shared_growth(process);
	row->ended = process->state == HOST_ENDED;
	add_verdict(sweep, process, row);
	add_kinds(process, row);
}

/* The heap of a target: its profile is written. An exit code. */
static int add_profile(struct sweep *sweep, struct target_record *target, struct sweep_row *row)
{
	struct profile *profile;
	int code;

	if (!target->ended_at)
		process_refresh(target->process);
	code = report_profile(&sweep->recording, target, &profile);
	if (!profile)
		return code;
	if (sweep_row_add_heap(row, profile))
		code = EXIT_OTHER;
	if (code == EXIT_OK)
		row->profile = strdup(target->output);
	profile_free(profile);
	return code;
}

/* The heap of one that was zoomed on. rank: of its row. An exit code. */
static int add_heap(struct sweep *sweep, const struct sweep_zoom *zoom, size_t rank,
		    struct sweep_row *row)
{
	struct target_record *target = &sweep->recording.targets.items[zoom->slot];

	if (!targets_has_allocator(target)) {
		row->reason = strdup("it has no known allocator");
		return EXIT_OK;
	}
	if (zoom->at > sweep->recording.started)
		row->zoomed_after = zoom->at - sweep->recording.started;
	if (!sweep->settings->heap_all ||
	    heap_all_gets_profile(sweep, rank, sweep_tells_of(sweep, zoom->process)))
		return add_profile(sweep, target, row);
	if (sweep_totals_read(sweep))
		return EXIT_OTHER;
	sweep_totals_add(sweep, target, row);
	return EXIT_OK;
}

/* Who it is and what its memory was, of all of them before anything that takes its time. An exit code. */
static int add_row(const struct sweep *sweep, const struct host_process *process,
		   struct sweep_result *result)
{
	struct sweep_row row = {0};
	int err;

	add_memory(sweep, process, &row);
	err = add_identity(process, &row);
	if (!err)
		err = vec_push(&result->rows, row);
	if (!err)
		return EXIT_OK;
	sweep_row_deinit(&row);
	return EXIT_OTHER;
}

/* Of the memory of who is told more of than a line: what it has by itself. */
static void add_share(const struct sweep *sweep, const struct host_process *process,
		      struct sweep_row *row)
{
	struct memory_share share;

	if (!sweep_tells_of(sweep, process) || host_read_share(process, &share))
		return;
	row->share_known = true;
	row->pss = share.pss;
	row->swap_pss = share.swap_pss;
}

/* Is it one of those that would be chosen now? */
static bool is_among_the_largest(const struct sweep *sweep, const struct host_process *process)
{
	const struct host_grown grown = sweep_grown(sweep->settings, false);
	struct host_process *found[SWEEP_TOP_MAX];
	size_t count = host_growers(sweep->host, &grown, found, sweep->settings->top_processes);

	for (size_t i = 0; i < count; i++) {
		if (found[i] == process)
			return true;
	}
	return false;
}

/* Of one that was not chosen. NULL: there was no reason to. */
static const char *reason_of(const struct sweep *sweep, const struct host_process *process,
			     const struct sweep_row *row)
{
	const struct host_grown grown = sweep_grown(sweep->settings, true);

	if (sweep->settings->heap_all)
		return heap_all_reason(sweep);
	if (row->anon_growth < (int64_t)grown.bytes)
		return NULL;
	if (process->state == HOST_ENDED)
		return "it ended too soon after it had grown";
	if (!sweep_has_slot(sweep))
		return "others had grown before it";
	if (!is_among_the_largest(sweep, process))
		return "others have grown by more (--top-processes)";
	return "it has grown too late in the window";
}

/* The rest of its row, which has that rank, with its profiles. An exit code. */
static int complete_row(struct sweep *sweep, const struct host_process *process, size_t rank,
			struct sweep_row *row)
{
	const struct sweep_zoom *zoom = sweep_find_zoom(sweep, process);
	const char *reason = zoom ? zoom->reason : reason_of(sweep, process, row);
	int code = EXIT_OK, growth_code = EXIT_OK;

	if (reason)
		row->reason = strdup(reason);
	else if (zoom)
		code = add_heap(sweep, zoom, rank, row);
	if (!row->verdict_text && sweep_row_judge(row))
		code = EXIT_OTHER;
	/* Whatever became of the heap's. */
	if (sweep_tells_of(sweep, process))
		growth_code = sweep_growth_write(sweep, process, 0, &row->growth_site,
						 &row->growth_profile);
	if (growth_code == EXIT_OK && sweep_row_add_new_pages(row))
		growth_code = EXIT_OTHER;
	return code != EXIT_OK ? code : growth_code;
}

static void peek_at_heap(const struct sweep *sweep, const struct sweep_zoom *zoom,
			 struct sweep_row *row)
{
	const struct target_record *target = &sweep->recording.targets.items[zoom->slot];

	if (targets_has_allocator(target))
		sweep_totals_add(sweep, target, row);
}

int sweep_result_peek(struct sweep *sweep, struct sweep_result *result)
{
	const struct host_grown grown = sweep_grown(sweep->settings, false);
	struct host_process *found[SWEEP_TOP_MAX];
	size_t count = host_growers(sweep->host, &grown, found, sweep->settings->top_processes);

	result->processes = (unsigned int)sweep->host->watched;
	for (size_t i = 0; i < count; i++) {
		const struct sweep_zoom *zoom = sweep_find_zoom(sweep, found[i]);

		if (add_row(sweep, found[i], result) != EXIT_OK)
			return -ENOMEM;
		if (!zoom || zoom->reason)
			continue;
		/* Without them, the rest of the row stands. */
		sweep_totals_read(sweep);
		peek_at_heap(sweep, zoom, &result->rows.items[i]);
	}
	return 0;
}

static int64_t growth_of(const struct host_process *process)
{
	return host_growth(process) + shared_growth(process);
}

static int by_growth(const void *a, const void *b)
{
	int64_t x = growth_of(*(const struct host_process *const *)a);
	int64_t y = growth_of(*(const struct host_process *const *)b);

	return (x < y) - (x > y);
}

/* Those that a row can be about, the largest growth first; to be freed. NULL: no memory. */
static const struct host_process **find_rows(const struct host *host, size_t *count)
{
	const struct host_process **found = calloc(host->processes.count + 1, sizeof(*found));

	*count = 0;
	if (!found)
		return NULL;
	vec_for_each(item, &host->processes) {
		const struct host_process *process = *item;

		if (process->read &&
		    (process->state == HOST_WATCHED || process->state == HOST_ENDED))
			found[(*count)++] = process;
	}
	qsort(found, *count, sizeof(*found), by_growth);
	return found;
}

/* A row for each of found[]; those that there is no room for are taken out of it. An exit code. */
static int add_rows(const struct sweep *sweep, const struct host_process **found, size_t *count,
		    struct sweep_result *result)
{
	size_t kept = 0;
	int code = EXIT_OK;

	for (size_t i = 0; i < *count && code == EXIT_OK; i++) {
		const struct host_process *process = found[i];

		result->processes++;
		result->ended += process->state == HOST_ENDED;
		if (result->rows.count >= ROWS_MAX && !sweep_find_zoom(sweep, process))
			continue;
		code = add_row(sweep, process, result);
		if (code == EXIT_OK)
			found[kept++] = process;
	}
	*count = kept;
	return code;
}

static int by_count(const void *a, const void *b)
{
	const struct host_short_lived *x = *(const struct host_short_lived *const *)a;
	const struct host_short_lived *y = *(const struct host_short_lived *const *)b;

	return (x->count < y->count) - (x->count > y->count);
}

/* The names that most of those had who lived too briefly. An exit code. */
static int add_brief(const struct host *host, struct sweep_result *result)
{
	const struct host_short_lived *found[HOST_SHORT_MAX];
	size_t count = 0;

	vec_for_each(item, &host->short_lived)
		found[count++] = item;
	qsort(found, count, sizeof(*found), by_count);
	for (size_t i = 0; i < count && i < SWEEP_BRIEF_MAX; i++) {
		struct sweep_brief brief = {
			.comm = strdup(found[i]->comm),
			.parent = strdup(found[i]->parent),
			.count = found[i]->count,
		};

		if (!brief.comm || !brief.parent || vec_push(&result->brief, brief)) {
			free(brief.comm);
			free(brief.parent);
			return EXIT_OTHER;
		}
	}
	return EXIT_OK;
}

int sweep_result_fill(struct sweep *sweep, struct sweep_result *result)
{
	const struct intervals *intervals = &sweep->recording.intervals;
	const struct host *host = sweep->host;
	CLEANUP(cleanup_free) const struct host_process **found = NULL;
	size_t count;
	int code;

	result->version = ALLOCTRACE_VERSION;
	result->kernel = strdup(sweep->system.release);
	result->time_nanos = sweep->started_realtime;
	result->duration = sweep->recording.ended - sweep->recording.started;
	result->short_lived = (unsigned int)host->short_lived_total;
	result->kernel_threads = (unsigned int)host->kernel_threads;
	result->not_read = (unsigned int)host->failed;
	result->readings_missed = sweep->missed;
	result->numbered = (struct sweep_numbered){
		.every = intervals->every,
		.last = intervals->number,
		.missed = intervals->missed,
		.longest = intervals->longest,
	};
	found = find_rows(host, &count);
	if (!found)
		return EXIT_OTHER;
	code = add_rows(sweep, found, &count, result);
	if (code == EXIT_OK)
		code = add_brief(host, result);
	/* Soon after their RSS: what follows takes its time. */
	for (size_t i = 0; i < count; i++)
		add_share(sweep, found[i], &result->rows.items[i]);
	for (size_t i = 0; i < count; i++) {
		int row_code = complete_row(sweep, found[i], i, &result->rows.items[i]);

		if (code == EXIT_OK)
			code = row_code;
	}
	result->processes += (unsigned int)host->forgotten;
	result->ended += (unsigned int)host->forgotten;
	return code;
}
