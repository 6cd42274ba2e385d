/* What links are made of: attributes for the kernel, and the programs that they run. */
#ifndef ALLOCTRACE_LINKS_H
#define ALLOCTRACE_LINKS_H

#include <stdbool.h>
#include <stdint.h>

struct alloctrace_bpf;
struct bpf_program;

/* enum bpf_attach_type and flags of <linux/bpf.h> 6.6 and 6.13, for older headers. */
#define ATTACH_UPROBE_MULTI   48
#define ATTACH_UPROBE_SESSION 57
#define UPROBE_MULTI_RETURN   1

/* union bpf_attr of BPF_LINK_CREATE with link_create.uprobe_multi (linux/bpf.h since 6.6). */
struct uprobe_multi_attr {
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t path, offsets, ref_ctr_offsets, cookies;
	uint32_t count, multi_flags, pid, pad;
};

/* A file descriptor, or -errno. */
int uprobe_multi_create(struct uprobe_multi_attr *attr);

/* Those of one target's links, or of links that serve all processes. */
struct call_programs {
	struct bpf_program *session, *at_entry, *at_return, *at_free;
	struct bpf_program *map_session, *map_at_entry, *map_at_return, *at_unmap;
};

struct call_programs call_programs_of(const struct alloctrace_bpf *bpf, bool shared);

#endif
