/* What the files of tracer/ share, and nobody else sees. */
#ifndef ALLOCTRACE_TRACER_INTERNAL_H
#define ALLOCTRACE_TRACER_INTERNAL_H

#include "tracer/closing.h"
#include "tracer/live_ages.h"
#include "tracer/regions.h"
#include "tracer/tables.h"
#include "tracer/tracer.h"

#include <bpf/libbpf.h>

struct alloctrace_bpf;

/* An array map in our memory. */
struct array_map {
	void *at; /* owned mapping; NULL: none */
	size_t size;
};

/* A file with a link that serves all processes, as a process sees it: others may see it as another one. */
struct shared_file {
	dev_t dev;
	ino_t inode;
	struct mapped_file real; /* but for its start */
	uint32_t cookie;	 /* the link's number, with COOKIE_SHARED */
};

struct tracer {
	struct alloctrace_bpf *bpf; /* owned */
	struct tracer_options options;
	enum tracer_kind kind;
	uint16_t *site_numbers; /* owned; by slot: sites numbered so far */
	struct {
		struct shared_file *items; /* owned; with options.shared */
		size_t count, capacity;
	} shared;
	uint32_t shared_links;	      /* made so far, */
	uint16_t shared_sites;	      /* and sites numbered */
	bool can_guard;		      /* the kernel lets BPF write to a process's memory */
	struct ring_buffer *requests; /* owned; and of region_events */
	struct regions *regions;      /* owned, and each; by slot */
	struct live_ages ages;	      /* as tracer_read_ages() has found them */
	struct tables tables;
	/* Arrays of the kernel, mapped. `targets` is written here and by the kernel's programs. */
	struct array_map targets, rows, pages, rules, mappings;
	struct {
		struct probe_link *items;
		size_t count, capacity;
	} links;
	struct {
		struct fork_event *items;
		size_t count, capacity;
	} forks;
	struct {
		struct python_event *items;
		size_t count, capacity;
	} python_events;
	size_t region_events;	/* taken by one tracer_read_requests() */
	size_t next_python;	/* in `python_events`: those before are taken */
	size_t next_fork;	/* in `forks`: those before are taken */
	uint64_t missed_forks;	/* for want of memory here */
	struct closing closing; /* links of targets that have ended */
};

static inline struct target *tracer_target(const struct tracer *tracer, uint32_t slot)
{
	return &((struct target *)tracer->targets.at)[slot];
}

/* Does the kernel know links of this kind? By trying; needs no program of ours. */
bool attach_kind_exists(enum tracer_kind kind);

/* May a program write to a process's memory? By trying to load one. */
bool attach_can_guard(void);

/* Programs that a kind uses are loaded with the attach type that its links ask for. */
void attach_prepare(struct alloctrace_bpf *bpf, enum tracer_kind kind, bool can_guard,
		    const struct tracer_options *options);

/*
 * Do hits in another thread of this process arrive? Kernels whose uprobe_multi filters by thread
 * fail here. After load only. 1 yes, 0 no, -errno.
 */
int attach_sees_threads(struct tracer *tracer);

#endif
