/* Which programs of the kernel side a recording loads, and for links of which type. */
#include "tracer/internal.h"
#include "tracer/links.h"

#include "alloctrace.skel.h"

#include <bpf/libbpf.h>

struct call_programs call_programs_of(const struct alloctrace_bpf *bpf, bool shared)
{
	if (shared)
		return (struct call_programs){
			.session = bpf->progs.all_session,
			.at_entry = bpf->progs.all_entry,
			.at_return = bpf->progs.all_return,
			.at_free = bpf->progs.all_free,
			.map_session = bpf->progs.all_map_session,
			.map_at_entry = bpf->progs.all_map_entry,
			.map_at_return = bpf->progs.all_map_return,
			.at_unmap = bpf->progs.all_unmap,
		};
	return (struct call_programs){
		.session = bpf->progs.allocate_session,
		.at_entry = bpf->progs.allocate_entry,
		.at_return = bpf->progs.allocate_return,
		.at_free = bpf->progs.free_entry,
		.map_session = bpf->progs.map_session,
		.map_at_entry = bpf->progs.map_entry,
		.map_at_return = bpf->progs.map_return,
		.at_unmap = bpf->progs.unmap_entry,
	};
}

static void prepare_calls(const struct call_programs *of, enum tracer_kind kind,
			  bool records_mappings)
{
	const uint32_t type = kind == TRACER_PERF ? 0 : ATTACH_UPROBE_MULTI;
	const bool session = kind == TRACER_SESSION;
	const struct {
		struct bpf_program *program;
		bool wanted;
		uint32_t type;
	} programs[] = {
		{of->session, session, ATTACH_UPROBE_SESSION},
		{of->at_entry, !session, type},
		{of->at_return, !session, type},
		{of->at_free, true, type},
		{of->map_session, session, ATTACH_UPROBE_SESSION},
		{of->map_at_entry, !session, type},
		{of->map_at_return, !session, type},
		{of->at_unmap, records_mappings, type},
	};

	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++) {
		bpf_program__set_autoload(programs[i].program, programs[i].wanted);
		bpf_program__set_expected_attach_type(programs[i].program, programs[i].type);
	}
}

void attach_prepare(struct alloctrace_bpf *bpf, enum tracer_kind kind, bool can_guard,
		    const struct tracer_options *options)
{
	const struct call_programs used = call_programs_of(bpf, options->shared);
	const uint32_t type = kind == TRACER_PERF ? 0 : ATTACH_UPROBE_MULTI;
	struct bpf_program *program;

	bpf_object__for_each_program(program, bpf->obj)
	{
		if (bpf_program__type(program) == BPF_PROG_TYPE_KPROBE)
			bpf_program__set_autoload(program, false);
	}
	prepare_calls(&used, kind, options->mmap);
	bpf_program__set_autoload(bpf->progs.list_files, options->shared);
	bpf_program__set_autoload(bpf->progs.unwind_entry, can_guard);
	bpf_program__set_expected_attach_type(bpf->progs.unwind_entry, type);
	bpf_program__set_autoload(bpf->progs.count_hit, kind != TRACER_PERF);
	bpf_program__set_expected_attach_type(bpf->progs.count_hit, type);
}
