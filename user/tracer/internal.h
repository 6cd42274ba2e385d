/* What the files of tracer/ share, and nobody else sees. */
#ifndef ALLOCTRACE_TRACER_INTERNAL_H
#define ALLOCTRACE_TRACER_INTERNAL_H

#include "tracer/tracer.h"

#include <bpf/libbpf.h>

struct alloctrace_bpf;

/* One attached probe, or several of one program: a raw link by descriptor, or libbpf's. */
struct probe_link {
	int fd;		       /* owned; -1: none */
	struct bpf_link *link; /* owned; NULL: none */
};

struct tracer {
	struct alloctrace_bpf *bpf; /* owned */
	struct tracer_options options;
	enum tracer_kind kind;
	struct target *targets; /* the `targets` map, mapped: written here and by the kernel's programs */
	size_t targets_size;	/* bytes mapped */
	struct {
		struct probe_link *items;
		size_t count, capacity;
	} links;
};

/* Does the kernel know links of this kind? By trying; needs no program of ours. */
bool attach_kind_exists(enum tracer_kind kind);

/* Programs that a kind uses are loaded with the attach type that its links ask for. */
void attach_prepare(struct alloctrace_bpf *bpf, enum tracer_kind kind);

/*
 * Do hits in another thread of this process arrive? Kernels whose uprobe_multi filters by thread fail
 * here. After load only. 1 yes, 0 no, -errno.
 */
int attach_sees_threads(struct tracer *tracer);

#endif
