#include "page_growth.h"

#include "target/areas.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash_index.h"
#include "util/vec.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A stack that leads to unknown code has its process's mappings read again, at most so often. */
#define REFRESH_NS 500000000LL

/* Bytes below a thread's stack pointer that its code may write to (x86-64's red zone). */
#define RED_ZONE 128

struct page {
	uint64_t address;
	uint64_t sp; /* of the thread that faulted */
	float faults;
	uint32_t stack; /* index */
};

struct stack {
	size_t first; /* in addresses */
	uint32_t count;
	bool complete;
};

struct page_growth {
	struct page_growth_host *host; /* borrowed */
	struct {
		struct page *items;
		size_t count, capacity;
	} pages;
	struct hash_index page_index;
	struct {
		struct stack *items;
		size_t count, capacity;
	} stacks;
	struct hash_index stack_index;
	struct {
		uint64_t *items; /* of all stacks, one behind the other */
		size_t count, capacity;
	} addresses;
	int64_t refreshed;
	double faulted; /* pages */
	double lost;	/* of them: beyond the limits */
	uint64_t ends[STACK_WALK_END_COUNT];
	uint64_t unsure; /* walks that were so in part */
};

static uint64_t page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

int page_growth_new(struct page_growth_host *host, struct page_growth **out)
{
	struct page_growth *growth = calloc(1, sizeof(*growth));

	if (!growth)
		return -ENOMEM;
	growth->host = host;
	*out = growth;
	return 0;
}

void page_growth_free(struct page_growth *growth)
{
	if (!growth)
		return;
	growth->host->pages -= growth->pages.count;
	growth->host->frames -= growth->addresses.count;
	free(growth->pages.items);
	free(growth->stacks.items);
	free(growth->addresses.items);
	hash_index_deinit(&growth->page_index);
	hash_index_deinit(&growth->stack_index);
	free(growth);
}

/* --- faults --- */

static bool same_stack(const void *owner, uint32_t index, const void *key)
{
	const struct page_growth *growth = owner;
	const struct stack *stack = &growth->stacks.items[index];
	const struct stack_walk *walk = key;

	return stack->count == walk->count &&
	       stack->complete == (walk->end == STACK_WALK_COMPLETE) &&
	       !memcmp(&growth->addresses.items[stack->first], walk->addresses,
		       walk->count * sizeof(*walk->addresses));
}

/* The number of a stack, which is added where it is new. 0, -ENOSPC at the limits, -ENOMEM. */
static int intern_stack(struct page_growth *growth, const struct stack_walk *walk, uint32_t *index)
{
	uint64_t hash =
		hash_bytes(HASH_START, walk->addresses, walk->count * sizeof(*walk->addresses));
	struct stack stack = {
		.first = growth->addresses.count,
		.count = (uint32_t)walk->count,
		.complete = walk->end == STACK_WALK_COMPLETE,
	};

	if (hash_index_find(&growth->stack_index, hash, same_stack, growth, walk, index))
		return 0;
	if (growth->stacks.count >= PAGE_GROWTH_STACKS_MAX ||
	    growth->host->frames + walk->count > PAGE_GROWTH_HOST_FRAMES_MAX)
		return -ENOSPC;
	for (size_t i = 0; i < walk->count; i++) {
		if (vec_push(&growth->addresses, walk->addresses[i])) {
			growth->addresses.count = stack.first;
			return -ENOMEM;
		}
	}
	if (hash_index_reserve(&growth->stack_index) || vec_push(&growth->stacks, stack)) {
		growth->addresses.count = stack.first;
		return -ENOMEM;
	}
	growth->host->frames += walk->count;
	*index = (uint32_t)(growth->stacks.count - 1);
	hash_index_add(&growth->stack_index, hash, *index);
	return 0;
}

static bool same_page(const void *owner, uint32_t index, const void *key)
{
	const struct page_growth *growth = owner;

	return growth->pages.items[index].address == *(const uint64_t *)key;
}

/* The last fault of a page is the one that counts. 0, -ENOSPC, -ENOMEM. */
static int keep_page(struct page_growth *growth, const struct page *page)
{
	uint64_t hash = hash_bytes(HASH_START, &page->address, sizeof(page->address));
	uint32_t index;

	if (hash_index_find(&growth->page_index, hash, same_page, growth, &page->address, &index)) {
		growth->pages.items[index] = *page;
		return 0;
	}
	if (growth->pages.count >= PAGE_GROWTH_PAGES_MAX ||
	    growth->host->pages >= PAGE_GROWTH_HOST_PAGES_MAX)
		return -ENOSPC;
	if (hash_index_reserve(&growth->page_index) || vec_push(&growth->pages, *page))
		return -ENOMEM;
	growth->host->pages++;
	hash_index_add(&growth->page_index, hash, (uint32_t)(growth->pages.count - 1));
	return 0;
}

/* Walks, and once more if there was code that has been mapped meanwhile. 0 or -ENOMEM. */
static int walk(struct page_growth *growth, struct process *process, const struct fault *fault,
		struct stack_walk *out)
{
	int err = stack_walk(growth->host->walker, process, &fault->state, out);
	int64_t now;

	if (err || out->end != STACK_WALK_NO_MAPPING)
		return err;
	now = clock_now(CLOCK_MONOTONIC);
	if (now - growth->refreshed < REFRESH_NS)
		return 0;
	growth->refreshed = now;
	err = process_refresh(process);
	if (err)
		return err == -ENOMEM ? err : 0;
	return stack_walk(growth->host->walker, process, &fault->state, out);
}

int page_growth_add(struct page_growth *growth, struct process *process, const struct fault *fault)
{
	struct page page = {
		.address = fault->address & ~(page_size() - 1),
		.sp = fault->state.sp,
		.faults = (float)fault->faults,
	};
	struct stack_walk found;
	int err = walk(growth, process, fault, &found);

	if (err)
		return err;
	growth->faulted += fault->faults;
	growth->ends[found.end]++;
	growth->unsure += found.unsure != 0;
	err = intern_stack(growth, &found, &page.stack);
	if (!err)
		err = keep_page(growth, &page);
	if (err == -ENOSPC) {
		growth->lost += fault->faults;
		return 0;
	}
	return err;
}

double page_growth_faulted(const struct page_growth *growth)
{
	return growth->faulted * (double)page_size();
}

/* --- what is left at the end --- */

/* What is known of a page that is still there. */
struct kept {
	const struct page *page;
	double pages; /* that its fault has brought, with itself */
	enum profile_kind kind;
};

/* Sums of one stack and kind. */
struct sum {
	struct estimate space;
	uint64_t hits;
};

struct filling {
	const struct page_growth *growth;
	struct areas *areas;	    /* owned */
	const struct page **sorted; /* owned; by address */
	struct kept *kept;	    /* owned; those of one area */
	struct sum *sums;	    /* owned; [stack * PROFILE_KINDS + kind] */
	double gone;		    /* faults whose page is not there */
};

static void filling_deinit(struct filling *filling)
{
	areas_free(filling->areas);
	free(filling->sorted);
	free(filling->kept);
	free(filling->sums);
}

static int by_address(const void *a, const void *b)
{
	const struct page *x = *(const struct page *const *)a, *y = *(const struct page *const *)b;

	return x->address < y->address ? -1 : x->address > y->address;
}

static int prepare(struct filling *filling, const struct process *process)
{
	const struct page_growth *growth = filling->growth;
	size_t count = growth->pages.count;
	int err = areas_open(process->pid, &filling->areas);

	if (err)
		return err;
	filling->sorted = calloc(count + 1, sizeof(*filling->sorted));
	filling->kept = calloc(count + 1, sizeof(*filling->kept));
	filling->sums = calloc(growth->stacks.count * PROFILE_KINDS + 1, sizeof(*filling->sums));
	if (!filling->sorted || !filling->kept || !filling->sums)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		filling->sorted[i] = &growth->pages.items[i];
	qsort(filling->sorted, count, sizeof(*filling->sorted), by_address);
	return 0;
}

static enum profile_kind kind_of(const struct area *area, const struct page *page, bool file)
{
	bool holds_sp = page->sp >= area->start && page->sp <= area->end;

	switch (area->kind) {
	case AREA_HEAP:
		return PROFILE_HEAP;
	case AREA_STACK:
		return PROFILE_STACK;
	case AREA_SHARED:
		return PROFILE_SHARED;
	case AREA_FILE:
		return file ? PROFILE_FILE : PROFILE_ANON;
	default:
		/* A thread's stack is anonymous memory; what its thread touches there lies above sp. */
		if (holds_sp && area->end - area->start <= AREAS_STACK_MAX &&
		    page->address + page_size() + RED_ZONE > page->sp)
			return PROFILE_STACK;
		return PROFILE_ANON;
	}
}

/* Sampled pages around sorted[at] that lie in a block. */
static size_t hits_in_block(const struct filling *filling, size_t at,
			    const struct areas_block *block)
{
	size_t first = at, last = at;

	while (first > 0 && filling->sorted[first - 1]->address >= block->start)
		first--;
	while (last + 1 < filling->growth->pages.count &&
	       filling->sorted[last + 1]->address < block->end)
		last++;
	return last - first + 1;
}

/* How many pages the fault of sorted[at] seems to have brought. */
static double pages_of_fault(const struct filling *filling, const struct area *area, size_t at,
			     bool file)
{
	struct areas_block block;
	size_t hits;

	if (area->page_size > page_size()) /* hugetlbfs */
		return (double)area->page_size / (double)page_size();
	areas_block(filling->areas, area, filling->sorted[at]->address, file, &block);
	hits = hits_in_block(filling, at, &block);
	if (file)
		return fmax(block.resident, 1) / (double)hits;
	/* Anonymous pages that were faulted in one by one can become a huge page later. */
	return hits == 1 ? fmax(block.resident, 1) : 1;
}

/*
 * What the samples of one area come to. The pages that came beside those that were asked for are
 * cut to what is resident in the area, as they may have been there before, or come by themselves.
 */
static void add_kept(struct filling *filling, const struct area *area, size_t count)
{
	double asked = 0, beside = 0, share = 1;

	for (size_t i = 0; i < count; i++) {
		const struct kept *kept = &filling->kept[i];

		asked += kept->page->faults;
		beside += kept->page->faults * (kept->pages - 1);
	}
	if (beside > 0 && area->page_size == page_size())
		share = fmin(1, fmax(0, ((double)area->resident / (double)page_size() - asked) /
						beside));
	for (size_t i = 0; i < count; i++) {
		const struct kept *kept = &filling->kept[i];
		struct sum *sum = &filling->sums[kept->page->stack * PROFILE_KINDS + kept->kind];

		estimate_add_event(&sum->space, kept->page->faults,
				   (1 + share * (kept->pages - 1)) * (double)page_size());
		sum->hits++;
	}
}

/* The samples in one area, from sorted[at] on; the first one behind it. */
static size_t fill_area(struct filling *filling, const struct area *area, size_t at)
{
	size_t count = 0;

	for (; at < filling->growth->pages.count; at++) {
		const struct page *page = filling->sorted[at];
		bool file;

		if (page->address >= area->end)
			break;
		if (page->address < area->start ||
		    !areas_holds(filling->areas, page->address, &file)) {
			filling->gone += page->faults;
			continue;
		}
		filling->kept[count++] = (struct kept){
			.page = page,
			.pages = pages_of_fault(filling, area, at, file),
			.kind = kind_of(area, page, file),
		};
	}
	add_kept(filling, area, count);
	return at;
}

static int fill_areas(struct filling *filling)
{
	struct area area;
	size_t at = 0;
	int err;

	while ((err = areas_next(filling->areas, &area)) > 0)
		at = fill_area(filling, &area, at);
	for (; at < filling->growth->pages.count; at++)
		filling->gone += filling->sorted[at]->faults;
	return err;
}

static int add_stack(struct profile *profile, const struct filling *filling, size_t number)
{
	const struct stack *stack = &filling->growth->stacks.items[number];
	const struct sum *sums = &filling->sums[number * PROFILE_KINDS];
	uint32_t site = UINT32_MAX;
	int err = 0;

	for (int kind = 0; kind < PROFILE_KINDS && !err; kind++) {
		if (!sums[kind].hits)
			continue;
		if (site == UINT32_MAX)
			err = profile_add_site(profile,
					       &filling->growth->addresses.items[stack->first],
					       stack->count, stack->complete, &site);
		if (!err)
			err = profile_add_growth(profile, site, (enum profile_kind)kind,
						 sums[kind].hits, &sums[kind].space);
	}
	return err;
}

static int add_counters(struct profile *profile, const struct filling *filling)
{
	const struct page_growth *growth = filling->growth;
	int err;

	err = profile_add_counter(profile, "pages faulted in", (uint64_t)llround(growth->faulted),
				  PROFILE_DETAIL);
	if (!err)
		err = profile_add_counter(profile, "pages faulted in that are not there any more",
					  (uint64_t)llround(filling->gone), PROFILE_DETAIL);
	if (!err)
		err = profile_add_counter(profile, "pages beyond the limits",
					  (uint64_t)llround(growth->lost), PROFILE_LOSS);
	if (!err)
		err = profile_add_counter(profile,
					  "stacks found in part without unwind information",
					  growth->unsure, PROFILE_DETAIL);
	for (int end = 0; end < STACK_WALK_END_COUNT && !err; end++) {
		if (growth->ends[end])
			err = profile_add_counter(profile,
						  stack_walk_end_text((enum stack_walk_end)end),
						  growth->ends[end], PROFILE_DETAIL);
	}
	return err;
}

int page_growth_fill(const struct page_growth *growth, const struct process *process,
		     struct profile *profile)
{
	CLEANUP(filling_deinit) struct filling filling = {.growth = growth};
	int err = prepare(&filling, process);

	if (!err)
		err = fill_areas(&filling);
	for (size_t i = 0; i < growth->stacks.count && !err; i++)
		err = add_stack(profile, &filling, i);
	if (!err)
		err = add_counters(profile, &filling);
	if (err)
		return err;
	/* In pages: losses are told as a part of them. */
	profile->info.sampled = (uint64_t)llround(growth->faulted);
	profile->info.recorded = (uint64_t)llround(growth->faulted - growth->lost);
	profile_finish_growth(profile);
	return 0;
}
