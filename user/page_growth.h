/*
 * What a process has grown by, and where, from its sampled page faults: growth by any means, with its
 * stacks, without a probe.
 *
 * Of each page the last fault counts, and at the end only if the page is still there: what was given
 * back, or given back and faulted in again (churn), counts once or not at all. So what is found is
 * what the process has touched in the window and kept. That is growth of its resident memory, but
 * for pages that take the place of others: those that are copied after a fork.
 *
 * One fault may bring more than its page: a huge page, or those around it in a file's cache. Both
 * show as neighbours that are there, too, and as they may have come one by one: what one mapping
 * has brought in this way is never more than is resident in it.
 */
#ifndef ALLOCTRACE_PAGE_GROWTH_H
#define ALLOCTRACE_PAGE_GROWTH_H

#include "profile/profile.h"
#include "target/faults.h"
#include "target/process.h"
#include "target/stack_walk.h"

#include <stddef.h>
#include <stdint.h>

/* Of one process; and of all of a host. */
#define PAGE_GROWTH_PAGES_MAX	    65536
#define PAGE_GROWTH_STACKS_MAX	    16384
#define PAGE_GROWTH_HOST_PAGES_MAX  (256u << 10)
#define PAGE_GROWTH_HOST_FRAMES_MAX (4u << 20)

/* What the processes of a host share. */
struct page_growth_host {
	struct stack_walker *walker; /* borrowed */
	size_t pages, frames;	     /* in use; 0 at first */
};

/* One process, from one exec to the next. */
struct page_growth;

/* host is borrowed until page_growth_free(). 0 or -ENOMEM. */
int page_growth_new(struct page_growth_host *host, struct page_growth **out);
void page_growth_free(struct page_growth *growth);

/*
 * A fault of the process, from faults_read(). Its mappings are read again, now and then, where its
 * stack leads to unknown code. 0 or -ENOMEM; what is beyond the limits is counted.
 */
int page_growth_add(struct page_growth *growth, struct process *process, const struct fault *fault);

/* What the process seems to have faulted in so far, whether it is still there or not; bytes. */
double page_growth_faulted(const struct page_growth *growth);

/*
 * Adds what is still there to a new profile that has its mappings (names_add_mappings()): sites,
 * growths and counters, and finishes it. The process must still run: -ESRCH where it does not.
 * 0, -ENOMEM or -errno. May be called again later, for another profile.
 */
int page_growth_fill(const struct page_growth *growth, const struct process *process,
		     struct profile *profile);

#endif
