/* Links: from the functions of an allocator to probes in the kernel, in one of three ways (kinds.c). */
#include "tracer/internal.h"

#include "alloctrace.skel.h"
#include "tracer/last.h"
#include "tracer/links.h"
#include "tracer/mapped_file.h"
#include "tracer/nested.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <bpf/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ALL_SLOTS UINT32_MAX

/* The probe sites of an image that one program serves. */
struct sites {
	uint64_t *offsets, *cookies; /* owned; all `count` */
	bool *throws;
	uint32_t count;
	uint32_t slot;
	pid_t tgid;
	char path[64];
};

static int keep_link(struct tracer *tracer, uint32_t slot, int fd, struct bpf_link *link,
		     enum closing_phase phase)
{
	struct probe_link item = {.fd = fd, .link = link, .slot = slot, .phase = phase};

	if (fd < 0 && !link)
		return -EINVAL;
	if (!vec_push(&tracer->links, item))
		return 0;
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	return -ENOMEM;
}

/*
 * Links from `first` on stay until others are closed, also if we are killed: return probes without their guard
 * would kill the target too.
 */
static int keep_for_later(struct tracer *tracer, uint32_t slot, size_t first, unsigned int rounds,
			  enum closing_phase phase)
{
	size_t end = tracer->links.count;
	int err = 0;

	for (size_t i = first; i < end && !err; i++) {
		const struct probe_link *link = &tracer->links.items[i];
		int fd;

		err = last_keep(link->link ? bpf_link__fd(link->link) : link->fd, rounds, &fd);
		if (!err)
			err = keep_link(tracer, slot, fd, NULL, phase);
	}
	for (size_t i = first; i < tracer->links.count; i++)
		tracer->links.items[i].phase = phase;
	return err;
}

static int attach_multi(struct tracer *tracer, const struct bpf_program *program,
			const struct sites *sites, bool at_return)
{
	struct uprobe_multi_attr attr = {
		.prog_fd = (uint32_t)bpf_program__fd(program),
		.attach_type = (uint32_t)bpf_program__get_expected_attach_type(program),
		.path = (uintptr_t)sites->path,
		.offsets = (uintptr_t)sites->offsets,
		.cookies = (uintptr_t)sites->cookies,
		.count = sites->count,
		.multi_flags = at_return ? UPROBE_MULTI_RETURN : 0,
		.pid = (uint32_t)sites->tgid,
	};
	int fd = uprobe_multi_create(&attr);

	return fd < 0 ? fd : keep_link(tracer, sites->slot, fd, NULL, CLOSING_FIRST);
}

static int attach_site(struct tracer *tracer, const struct bpf_program *program,
		       const struct sites *sites, uint32_t number, bool at_return)
{
	LIBBPF_OPTS(bpf_uprobe_opts, options, .bpf_cookie = sites->cookies[number],
		    .retprobe = at_return);
	struct bpf_link *link = bpf_program__attach_uprobe_opts(program, sites->tgid, sites->path,
								sites->offsets[number], &options);
	size_t first = tracer->links.count;
	int err = link ? keep_link(tracer, sites->slot, -1, link, CLOSING_FIRST) : -errno;

	if (err || !at_return || !sites->throws[number])
		return err;
	return keep_for_later(tracer, sites->slot, first, LAST_AFTER_MOST, CLOSING_THROWING);
}

static int attach_perf(struct tracer *tracer, const struct bpf_program *program,
		       const struct sites *sites, bool at_return)
{
	int err = 0;

	for (uint32_t i = 0; i < sites->count && !err; i++)
		err = attach_site(tracer, program, sites, i, at_return);
	return err;
}

static int attach_program(struct tracer *tracer, const struct bpf_program *program,
			  const struct sites *sites, bool at_return)
{
	if (!sites->count)
		return 0;
	return tracer->kind == TRACER_PERF ? attach_perf(tracer, program, sites, at_return)
					   : attach_multi(tracer, program, sites, at_return);
}

/* The sites of an image by what they do. */
enum site_group {
	SITES_ALLOCATE, /* functions, and behind them the jumps by which they hand over */
	SITES_FREE,
	SITES_MAP,
	SITES_UNMAP,
	SITE_GROUPS,
};

static enum site_group group_of(enum allocator_shape shape)
{
	return shape_allocates(shape) ? SITES_ALLOCATE
	       : shape_maps(shape)    ? SITES_MAP
	       : shape_unmaps(shape)  ? SITES_UNMAP
				      : SITES_FREE;
}

/*
 * Sites of functions of which the returns are wanted too, of the first ones at least. Returns
 * before entries: a call whose entry is seen must have its return seen; of one under way when the
 * return probe comes, nothing is pending.
 */
static int attach_calls(struct tracer *tracer, const struct bpf_program *session,
			const struct bpf_program *at_return, const struct bpf_program *at_entry,
			const struct sites *sites, uint32_t functions)
{
	struct sites returning = *sites;
	int err;

	returning.count = functions;
	if (tracer->kind == TRACER_SESSION)
		return attach_program(tracer, session, sites, false);
	err = attach_program(tracer, at_return, &returning, true);
	return err ? err : attach_program(tracer, at_entry, sites, false);
}

/* functions: those that allocate. */
static int attach_sites(struct tracer *tracer, const struct sites groups[SITE_GROUPS],
			uint32_t functions)
{
	const struct call_programs programs = call_programs_of(tracer->bpf, tracer->options.shared);
	int err;

	/*
	 * Frees first, so that no allocation is recorded whose free would pass unseen (before a
	 * recording begins, the flag that holds all back serves that too).
	 */
	err = attach_program(tracer, programs.at_free, &groups[SITES_FREE], false);
	if (!err)
		err = attach_program(tracer, programs.at_unmap, &groups[SITES_UNMAP], false);
	if (!err)
		err = attach_calls(tracer, programs.session, programs.at_return, programs.at_entry,
				   &groups[SITES_ALLOCATE], functions);
	if (!err)
		err = attach_calls(tracer, programs.map_session, programs.map_at_return,
				   programs.map_at_entry, &groups[SITES_MAP],
				   groups[SITES_MAP].count);
	return err;
}

/* Tells the guard what calls it may have to let go: all whose returns are probed. */
static int mark_guarded(const struct tracer *tracer, uint32_t slot,
			const struct allocator *allocator)
{
	int fd = bpf_map__fd(tracer->bpf->maps.guards);
	struct guarded guarded;

	if (bpf_map_lookup_elem(fd, &slot, &guarded))
		return -errno;
	for (size_t i = 0; i < allocator->function_count; i++) {
		uint64_t place = allocator->functions[i].site % GUARDED_PLACES;

		if (shape_allocates(allocator->functions[i].shape))
			guarded.places[place / 64] |= UINT64_C(1) << place % 64;
	}
	return bpf_map_update_elem(fd, &slot, &guarded, BPF_ANY) ? -errno : 0;
}

/* Gives up the links of a slot from index `from` on. */
static void close_links(struct tracer *tracer, uint32_t slot, size_t from)
{
	size_t kept = from;

	for (size_t i = from; i < tracer->links.count; i++) {
		struct probe_link link = tracer->links.items[i];

		if (link.slot == slot)
			closing_add(&tracer->closing, link);
		else
			tracer->links.items[kept++] = link;
	}
	tracer->links.count = kept;
}

static int sites_init(struct sites *sites, const struct image *image, uint32_t slot, pid_t tgid,
		      size_t capacity)
{
	*sites = (struct sites){.slot = slot, .tgid = tgid};
	/* The descriptor, not a path: it is the file that was looked at. */
	snprintf(sites->path, sizeof(sites->path), "/proc/self/fd/%d", image->fd);
	sites->offsets = calloc(capacity + 1, sizeof(*sites->offsets));
	sites->cookies = calloc(capacity + 1, sizeof(*sites->cookies));
	sites->throws = calloc(capacity + 1, sizeof(*sites->throws));
	return sites->offsets && sites->cookies && sites->throws ? 0 : -ENOMEM;
}

static void sites_deinit(struct sites *sites)
{
	free(sites->offsets);
	free(sites->cookies);
	free(sites->throws);
}

static void sites_add(struct sites *sites, uint64_t offset, uint64_t cookie, bool throws)
{
	sites->offsets[sites->count] = offset;
	sites->throws[sites->count] = throws;
	sites->cookies[sites->count++] = cookie;
}

/* The cookie of a function, see include/alloctrace.h. */
static uint64_t function_cookie(uint32_t slot, uint32_t number,
				const struct allocator_function *function,
				enum tracer_throwing throwing)
{
	uint64_t cookie = slot | (uint64_t)function->shape << COOKIE_SHAPE_SHIFT;

	if (!shape_maps(function->shape) && !shape_unmaps(function->shape))
		cookie |= (uint64_t)number << COOKIE_SITE_SHIFT;
	for (size_t i = 0; i < shape_operands(function->shape); i++) {
		uint64_t where = function->registers[i];

		cookie |= where << (COOKIE_OPERANDS_SHIFT + i * COOKIE_OPERAND_BITS);
		if (where != probe_argument_register((uint8_t)i))
			cookie |= COOKIE_MOVED;
	}
	if (function->throws && throwing == THROWING_IF_SAFE)
		cookie |= COOKIE_UNGUARDED;
	return cookie;
}

static uint64_t handover_cookie(uint32_t slot, const struct allocator_handover *handover)
{
	return slot | (uint64_t)SHAPE_HANDOVER << COOKIE_SHAPE_SHIFT |
	       (uint64_t)handover->condition << COOKIE_OPERANDS_SHIFT;
}

bool tracer_probes(const struct tracer *tracer, enum allocator_shape shape)
{
	return tracer->options.mmap || (shape != SHAPE_BRK && shape != SHAPE_MUNMAP);
}

/* For whom the probes of an image are. */
struct probe_owner {
	uint32_t slot;	 /* that they are closed with */
	uint32_t cookie; /* what their cookies have for a slot, */
	uint32_t nested; /* and their entries in `nested` */
	pid_t tgid;	 /* 0: all processes */
	uint32_t first;	 /* number of the first site */
};

/* functions: the sites among those that allocate, which handovers come behind. 0 or -ENOMEM. */
static int fill_groups(const struct tracer *tracer, const struct probe_owner *owner,
		       const struct image *image, const struct allocator *allocator,
		       enum tracer_throwing throwing, struct sites groups[SITE_GROUPS],
		       uint32_t *functions)
{
	size_t capacity = allocator->function_count + allocator->handovers.count;

	for (int i = 0; i < SITE_GROUPS; i++) {
		if (sites_init(&groups[i], image, owner->slot, owner->tgid, capacity))
			return -ENOMEM;
	}
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];

		if (nested_is_probed(function->throws, throwing) &&
		    tracer_probes(tracer, function->shape))
			sites_add(&groups[group_of(function->shape)], function->site_offset,
				  function_cookie(owner->cookie, owner->first + (uint32_t)i,
						  function, throwing),
				  function->throws);
	}
	*functions = groups[SITES_ALLOCATE].count;
	vec_for_each(handover, &allocator->handovers) {
		if (nested_is_probed(handover->throws, throwing))
			sites_add(&groups[SITES_ALLOCATE], handover->offset,
				  handover_cookie(owner->cookie, handover), handover->throws);
	}
	return 0;
}

static int attach_image(struct tracer *tracer, const struct probe_owner *owner,
			const struct image *image, const struct allocator *allocator,
			enum tracer_throwing throwing)
{
	struct sites groups[SITE_GROUPS] = {0};
	size_t before = tracer->links.count;
	uint32_t functions;
	int err = nested_mark_relative(tracer, owner->nested, owner->first, allocator, throwing);

	if (!err)
		err = fill_groups(tracer, owner, image, allocator, throwing, groups, &functions);
	if (!err)
		err = attach_sites(tracer, groups, functions);
	for (int i = 0; i < SITE_GROUPS; i++)
		sites_deinit(&groups[i]);
	if (err)
		close_links(tracer, owner->slot, before);
	return err;
}

/* The first of so many sites. 0 or -E2BIG. */
static int number_sites(uint16_t *numbered, size_t count, uint32_t *first)
{
	*first = *numbered;
	if (*first + count > UINT16_MAX)
		return -E2BIG;
	*numbered += (uint16_t)count;
	return 0;
}

/* What the image is to the kernel, by where the process has mapped it. 0 or -errno. */
static int find_real(const struct tracer *tracer, const struct process *process,
		     const struct image *image, struct mapped_file *out)
{
	vec_for_each(mapping, &process->mappings) {
		if (mapping->image == image && !mapping->moved)
			return mapped_file_find(tracer->bpf->progs.list_files, process->pid,
						mapping->start, out);
	}
	return -ENOENT;
}

/* The link that serves all processes which map the image, made if there is none. 0 or -errno. */
static int share_link(struct tracer *tracer, const struct process *process,
		      const struct image *image, const struct allocator *allocator,
		      enum tracer_throwing throwing, uint32_t *cookie)
{
	struct shared_file added = {
		.dev = image->dev,
		.inode = image->file_inode,
		.cookie = COOKIE_SHARED | tracer->shared_links,
	};
	struct probe_owner owner = {
		.slot = SHARED_SITES,
		.cookie = added.cookie,
		.nested = SHARED_SITES,
	};
	bool is_real, is_new = true;
	int err;

	vec_for_each(known, &tracer->shared) {
		*cookie = known->cookie;
		if (known->dev == added.dev && known->inode == added.inode)
			return 0;
	}
	/* What cannot be found out gets a link of its own, which is no error: see member_cookie(). */
	is_real = !find_real(tracer, process, image, &added.real);
	vec_for_each(known, &tracer->shared) {
		if (is_real && known->real.inode && known->real.dev == added.real.dev &&
		    known->real.inode == added.real.inode) {
			added.cookie = known->cookie;
			is_new = false;
			break;
		}
	}
	*cookie = added.cookie;
	if (!is_new)
		return vec_push(&tracer->shared, added);
	/* SHARED_SITES would be the last. */
	if (tracer->shared_links >= COOKIE_SHARED - 1)
		return -E2BIG;
	err = number_sites(&tracer->shared_sites, allocator->function_count, &owner.first);
	if (!err)
		err = attach_image(tracer, &owner, image, allocator, throwing);
	if (!err)
		err = vec_push(&tracer->shared, added);
	tracer->shared_links += !err;
	return err;
}

/* From now on calls count that come through the link: the last thing to be done. */
static int attach_shared(struct tracer *tracer, uint32_t slot, const struct process *process,
			 const struct image *image, const struct allocator *allocator,
			 enum tracer_throwing throwing)
{
	struct member_key key = {.tgid = (uint32_t)process->pid};
	int err = share_link(tracer, process, image, allocator, throwing, &key.link);

	if (!err)
		err = tracer_nest(tracer, slot, process, image, allocator, throwing);
	return err ? err
		   : bpf_map__update_elem(tracer->bpf->maps.members, &key, sizeof(key), &slot,
					  sizeof(slot), BPF_ANY);
}

int tracer_attach(struct tracer *tracer, uint32_t slot, const struct process *process,
		  const struct image *image, const struct allocator *allocator,
		  enum tracer_throwing throwing)
{
	struct probe_owner owner = {
		.slot = slot,
		.cookie = slot,
		.nested = slot,
		.tgid = process->pid,
	};
	int err;

	if (tracer->options.shared)
		return attach_shared(tracer, slot, process, image, allocator, throwing);
	err = number_sites(&tracer->site_numbers[slot], allocator->function_count, &owner.first);
	if (!err)
		err = mark_guarded(tracer, slot, allocator);
	if (!err)
		err = tracer_nest(tracer, slot, process, image, allocator, throwing);
	return err ? err : attach_image(tracer, &owner, image, allocator, throwing);
}

bool tracer_can_guard(const struct tracer *tracer)
{
	return tracer->can_guard;
}

int tracer_guard(struct tracer *tracer, uint32_t slot, const struct process *process,
		 const struct image *image, const struct allocator *unwinder)
{
	CLEANUP(sites_deinit) struct sites sites = {0};
	size_t before = tracer->links.count;
	int err;

	err = sites_init(&sites, image, slot, process->pid, unwinder->function_count);
	for (size_t i = 0; i < unwinder->function_count && !err; i++)
		sites_add(&sites, unwinder->functions[i].site_offset,
			  function_cookie(slot, 0, &unwinder->functions[i], THROWING_GUARDED),
			  false);
	if (!err)
		err = attach_program(tracer, tracer->bpf->progs.unwind_entry, &sites, false);
	if (!err)
		err = keep_for_later(tracer, slot, before, LAST_OF_ALL, CLOSING_LAST);
	if (err)
		close_links(tracer, slot, before);
	return err;
}

int tracer_let_children_go(struct tracer *tracer, uint32_t slot, const struct process *process,
			   const struct image *image, const struct allocator *allocator)
{
	CLEANUP(sites_deinit) struct sites sites = {0};
	size_t before = tracer->links.count;
	int err;

	if (tracer->kind == TRACER_PERF)
		return 0; /* there, the first hit of a breakpoint takes it out */
	err = sites_init(&sites, image, slot, process->pid, allocator->function_count);
	for (size_t i = 0; i < allocator->function_count && !err; i++) {
		if (allocator->functions[i].throws)
			sites_add(&sites, allocator->functions[i].site_offset, 0, false);
	}
	if (!err)
		err = attach_program(tracer, tracer->bpf->progs.count_hit, &sites, false);
	close_links(tracer, slot, before);
	return err;
}

void tracer_release(struct tracer *tracer, uint32_t slot)
{
	struct target *target = tracer_target(tracer, slot);

	/* Another process may have this one's id tomorrow. */
	if (target->tgid)
		bpf_map_delete_elem(bpf_map__fd(tracer->bpf->maps.slots), &target->tgid);
	target->tgid = 0;
	tables_drop(&tracer->tables, slot, (uint64_t *)&target->mappings);
	if (!tracer->options.shared)
		close_links(tracer, slot, 0);
	/*
	 * That looks at all there is of all targets. Where there are many, what one leaves behind that
	 * was recorded is nobody else's: its slot is not given away.
	 */
	if (!tracer->options.shared || !target->enabled)
		nested_forget(tracer, slot);
	tracer->site_numbers[slot] = 0;
}

/* Closes the links of a slot, or of all (ALL_SLOTS), that are of that phase. */
static void close_phase(struct tracer *tracer, uint32_t slot, enum closing_phase phase)
{
	size_t kept = 0;

	vec_for_each(link, &tracer->links) {
		if (link->phase == phase && (slot == ALL_SLOTS || link->slot == slot))
			closing_add(&tracer->closing, *link);
		else
			tracer->links.items[kept++] = *link;
	}
	tracer->links.count = kept;
	closing_finish(&tracer->closing);
}

void tracer_withdraw(struct tracer *tracer, uint32_t slot)
{
	for (int phase = CLOSING_FIRST; phase < CLOSING_LAST; phase++)
		close_phase(tracer, slot, (enum closing_phase)phase);
	tracer_release(tracer, slot);
}

void tracer_detach(struct tracer *tracer)
{
	for (int phase = CLOSING_FIRST; phase < CLOSING_PHASES; phase++)
		close_phase(tracer, ALL_SLOTS, (enum closing_phase)phase);
	/* Now the last events are there. */
	if (tracer->requests)
		tracer_read_requests(tracer);
}
