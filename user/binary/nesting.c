/*
 * Three questions about code, answered by decoding it.
 *
 * Thin? From the entry every way is followed, until it calls or jumps to an allocating function of
 * this image or, by name, of another. If no way gets to a return, or anywhere else out of the
 * function, without that, the function is left to the others.
 *
 * Handing over? An allocating function that ends in a jump to another one (or to a thin one) leaves it
 * stack pointer and return address as they were: so that the two are not counted as two, the jump is
 * noted. A jump to any other function that is not probed stays in the same activation; so that
 * function is looked at as if it were a part of the first.
 *
 * Nested? Whatever is called from within these functions has a return address of theirs on the
 * stack: all of those are noted, as who is called by a pointer cannot be told.
 *
 * Does it map memory for itself? The walk tells, by these return addresses, as far as it can walk.
 * musl has no unwind information: there, from function to function that is called directly, the
 * calls that map memory are looked for, and noted too.
 */
#include "binary/nesting.h"
#include "binary/unwind_ranges.h"
#include "binary/x86_insn.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <string.h>

#define PARTS_MAX	   256
#define RETURNS_MAX	   16384
#define HANDOVERS_MAX	   1024
#define THIN_DEPTH_MAX	   3
#define FUNCTION_BYTES_MAX ((size_t)256 << 10)

static const char is_thin_reason[] = "what it does is seen in the probed function that it calls";

/* A function, or a piece of code that one jumps to. */
struct part {
	uint64_t start, end; /* end 0: unknown, see guess_size() */
	bool allocates;	     /* it belongs to a probed function that allocates */
	bool throws;	     /* only to such as may throw */
	bool helps;	     /* to none: it is only called by those */
};

enum callee_kind {
	CALLEE_OTHER,
	CALLEE_ALLOCATES,
	CALLEE_FREES,
	CALLEE_MAPS,
	CALLEE_UNMAPS,
};

/* Where a call or jump leads. */
struct callee {
	uint64_t vaddr; /* 0: not in this image, or not known */
	enum callee_kind kind;
};

struct search {
	const struct image *image; /* borrowed, these four */
	const struct code_ranges *ranges;
	const struct plt *plt;
	struct allocator *allocator;
	struct callee *known; /* owned; all its functions, those too that are left out since */
	size_t known_count;
	bool mappings; /* some of them map memory */
	struct part parts[PARTS_MAX];
	size_t part_count, scanned;
	struct {
		struct allocator_return *items; /* owned */
		size_t count, capacity;
	} returns;
};

static enum callee_kind kind_of(enum allocator_shape shape)
{
	return shape_allocates(shape) ? CALLEE_ALLOCATES
	       : shape_maps(shape)    ? CALLEE_MAPS
	       : shape_unmaps(shape)  ? CALLEE_UNMAPS
				      : CALLEE_FREES;
}

static struct callee resolve(const struct search *search, const struct x86_insn *insn)
{
	struct callee callee = {.vaddr = insn->has_target ? insn->target : 0};
	const struct plt_slot *entry = NULL;
	uint64_t slot = insn->slot;
	bool by_slot = insn->has_slot;

	if (insn->has_target)
		by_slot = plt_is_stub(search->image, insn->target, &slot);
	if (by_slot) {
		entry = plt_find(search->plt, slot);
		callee.vaddr = entry ? entry->target : 0;
	}
	if (entry && entry->external)
		callee.kind = kind_of(entry->external->shape);
	for (size_t i = 0; i < search->known_count; i++) {
		if (search->known[i].vaddr == callee.vaddr)
			return search->known[i];
	}
	return callee;
}

static int remember_functions(struct search *search)
{
	const struct allocator *allocator = search->allocator;

	search->known = calloc(allocator->function_count + 1, sizeof(*search->known));
	if (!search->known)
		return -ENOMEM;
	for (size_t i = 0; i < allocator->function_count; i++) {
		enum callee_kind kind = kind_of(allocator->functions[i].shape);

		search->known[search->known_count++] = (struct callee){
			.vaddr = allocator->functions[i].vaddr,
			.kind = kind,
		};
		search->mappings |= kind == CALLEE_MAPS;
	}
	return 0;
}

/* --- code --- */

/* How much of [vaddr, end) the file holds as code, up to the limit for one function. */
static size_t readable_size(const struct image *image, uint64_t vaddr, uint64_t end)
{
	uint64_t size = end - vaddr;

	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];
		uint64_t left;

		if (!segment->executable || vaddr < segment->vaddr ||
		    vaddr - segment->vaddr >= segment->file_size)
			continue;
		left = segment->vaddr + segment->file_size - vaddr;
		if (size > left)
			size = left;
		return size > FUNCTION_BYTES_MAX ? FUNCTION_BYTES_MAX : (size_t)size;
	}
	return 0;
}

/*
 * The size of a function of which only the start is known: up to the first instruction that ends it
 * and that no branch seen so far goes beyond. code holds what lies before the next known function.
 */
static size_t guess_size(const uint8_t *code, size_t size, uint64_t vaddr)
{
	struct x86_insn insn;
	uint64_t farthest = 0;
	size_t at = 0;

	while (at < size && x86_insn_decode(code + at, size - at, vaddr + at, &insn)) {
		uint64_t target = insn.target - vaddr;

		at += insn.length;
		if (insn.has_target && insn.flow == X86_FLOW_BRANCH && target < size &&
		    target > farthest)
			farthest = target;
		if ((insn.flow == X86_FLOW_END || insn.flow == X86_FLOW_JUMP) && at > farthest)
			break;
	}
	return at;
}

/* The code of a part, and its end if that was not known. 0 with *code owned, NULL if there is none. */
static int read_part(const struct search *search, struct part *part, uint8_t **code, size_t *size)
{
	CLEANUP(cleanup_free) uint8_t *bytes = NULL;
	bool is_guess = !part->end;
	int err;

	*code = NULL;
	*size = readable_size(search->image, part->start,
			      is_guess ? code_ranges_next(search->ranges, part->start) : part->end);
	if (!*size)
		return 0;
	bytes = malloc(*size);
	if (!bytes)
		return -ENOMEM;
	err = image_read(search->image, part->start, bytes, *size);
	if (err)
		return err;
	if (is_guess)
		*size = guess_size(bytes, *size, part->start);
	part->end = part->start + *size;
	*code = TAKE(bytes);
	return 0;
}

/* --- thin? --- */

/* The ways through a function that are still to be followed. */
struct ways {
	uint8_t *seen; /* owned; by offset */
	struct {
		size_t *items; /* owned */
		size_t count, capacity;
	} open;
};

static void ways_deinit(struct ways *ways)
{
	free(ways->seen);
	free(ways->open.items);
}

static int ways_add(struct ways *ways, size_t at)
{
	if (ways->seen[at])
		return 0;
	ways->seen[at] = 1;
	return vec_push(&ways->open, at);
}

static int is_thin(const struct search *search, uint64_t vaddr, enum callee_kind wanted,
		   unsigned int depth);

/*
 * Follows one instruction. 1: it leads out of the function without passing one of the wanted kind;
 * 0: not so, its successors are in ways; -ENOMEM, or -errno of reading.
 */
static int follow(const struct search *search, const struct part *part, const struct x86_insn *insn,
		  size_t at, enum callee_kind wanted, unsigned int depth, struct ways *ways)
{
	size_t size = part->end - part->start, next = at + insn->length;
	bool jumps = insn->flow == X86_FLOW_JUMP || insn->flow == X86_FLOW_BRANCH;
	bool passes = false;
	int ret = 0;

	if (insn->flow == X86_FLOW_END)
		return insn->is_return;
	if (jumps && insn->has_target && insn->target >= part->start && insn->target < part->end) {
		ret = ways_add(ways, (size_t)(insn->target - part->start));
	} else if (jumps || insn->flow == X86_FLOW_CALL) {
		struct callee callee = resolve(search, insn);

		passes = callee.kind == wanted;
		if (jumps && !passes) {
			ret = callee.vaddr && callee.kind == CALLEE_OTHER
				      ? is_thin(search, callee.vaddr, wanted, depth + 1)
				      : 0;
			ret = ret < 0 ? ret : !ret;
		}
	}
	/* What is jumped to does not come back; a branch may go on. */
	if (ret || insn->flow == X86_FLOW_JUMP || (passes && insn->flow == X86_FLOW_CALL))
		return ret;
	return next >= size ? 1 : ways_add(ways, next);
}

/*
 * Does every way from vaddr on pass a function of the wanted kind? 1 if so, 0 if not, -ENOMEM, or
 * -errno of reading.
 */
static int is_thin(const struct search *search, uint64_t vaddr, enum callee_kind wanted,
		   unsigned int depth)
{
	struct part part = {.start = vaddr};
	CLEANUP(ways_deinit) struct ways ways = {0};
	CLEANUP(cleanup_free) uint8_t *code = NULL;
	size_t size;
	int err;

	if (depth > THIN_DEPTH_MAX)
		return 0;
	/* Where it begins and ends is not known: then it is taken to be more than it is. */
	if (!code_ranges_find(search->ranges, vaddr, &part.start, &part.end))
		part.start = vaddr;
	err = read_part(search, &part, &code, &size);
	if (err || !code || vaddr - part.start >= size)
		return err;
	ways.seen = calloc(size, 1);
	if (!ways.seen || ways_add(&ways, (size_t)(vaddr - part.start)))
		return -ENOMEM;
	while (ways.open.count) {
		size_t at = ways.open.items[--ways.open.count];
		struct x86_insn insn;

		if (!x86_insn_decode(code + at, size - at, part.start + at, &insn))
			return 0;
		err = follow(search, &part, &insn, at, wanted, depth, &ways);
		if (err)
			return err < 0 ? err : 0;
	}
	return 1;
}

/* Function `index` is not to be probed. */
static void leave_out(struct allocator *allocator, size_t index)
{
	struct allocator_left_out item = {.name = allocator->functions[index].name,
					  .reason = is_thin_reason};
	struct allocator_function *at = &allocator->functions[index];

	if (vec_push(&allocator->left_out, item))
		free(item.name);
	allocator->function_count--;
	memmove(at, at + 1, (allocator->function_count - index) * sizeof(*at));
}

static int leave_out_thin(struct search *search)
{
	struct allocator *allocator = search->allocator;
	CLEANUP(cleanup_free) uint8_t *thin = calloc(allocator->function_count + 1, 1);
	size_t left = 0;

	if (!thin)
		return -ENOMEM;
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		int ret = function->custom
				  ? 0
				  : is_thin(search, function->vaddr, kind_of(function->shape), 0);

		if (ret < 0)
			return ret;
		thin[i] = (uint8_t)ret;
		left += !ret && shape_allocates(function->shape);
	}
	/* Functions that only call each other: it was not understood what they do. */
	if (!left)
		return 0;
	/* From the end on, so that indexes stay what they are. */
	for (size_t i = allocator->function_count; i > 0; i--) {
		if (thin[i - 1])
			leave_out(allocator, i - 1);
	}
	return 0;
}

/* --- handing over, nested --- */

/*
 * Takes the code at target into the search, as `like` says what it belongs to, if there is room and
 * need for it.
 */
static void add_part(struct search *search, uint64_t target, struct part like)
{
	like.start = target;
	like.end = 0;
	code_ranges_find(search->ranges, target, &like.start, &like.end);
	for (size_t i = 0; i < search->part_count; i++) {
		if (search->parts[i].start == like.start)
			return;
	}
	if (search->part_count < PARTS_MAX)
		search->parts[search->part_count++] = like;
}

/* One call or jump is not to be hit twice: see nesting_find(). */
static void protect_sites(struct search *search, uint64_t target)
{
	for (size_t i = 0; i < search->allocator->function_count; i++) {
		struct allocator_function *function = &search->allocator->functions[i];

		if (target > function->vaddr && target <= function->site) {
			function->site_offset -= function->site - function->vaddr;
			function->site = function->vaddr;
			/* An emulated entry would have been the site from the start. */
			function->emulated = false;
			for (size_t j = 0; j < shape_operands(function->shape); j++)
				function->registers[j] =
					probe_argument_register(function->arguments[j]);
		}
	}
}

static int add_handover(struct search *search, const struct part *part, uint64_t vaddr,
			const struct x86_insn *insn)
{
	struct allocator_handover handover = {
		.vaddr = vaddr,
		.throws = part->throws,
		.condition = insn->flow == X86_FLOW_BRANCH ? insn->condition : HANDOVER_ALWAYS,
	};

	if (search->allocator->handovers.count >= HANDOVERS_MAX ||
	    !image_vaddr_to_offset(search->image, vaddr, &handover.offset))
		return 0;
	return vec_push(&search->allocator->handovers, handover);
}

static int add_return(struct search *search, const struct part *part, uint64_t vaddr)
{
	const struct allocator_return nested = {
		.vaddr = vaddr,
		.allocates = part->allocates,
		.throws = part->throws,
	};

	return search->returns.count < RETURNS_MAX ? vec_push(&search->returns, nested) : 0;
}

/* A call or jump of a part, at vaddr. */
static int add_transfer(struct search *search, const struct part *part, const struct x86_insn *insn,
			uint64_t vaddr)
{
	struct callee callee;
	int ret;

	if (insn->flow == X86_FLOW_CALL)
		return part->allocates || search->mappings
			       ? add_return(search, part, vaddr + insn->length)
			       : 0;
	/* A jump to the entry is a call of the function by itself; any other stays in it. */
	if (insn->has_target && insn->target > part->start && insn->target < part->end)
		return 0;
	callee = resolve(search, insn);
	if (callee.kind == CALLEE_ALLOCATES)
		return part->allocates ? add_handover(search, part, vaddr, insn) : 0;
	if (callee.kind != CALLEE_OTHER || !callee.vaddr)
		return 0;
	if (!part->allocates) {
		add_part(search, callee.vaddr, *part);
		return 0;
	}
	/* A function that others call too, and that goes on to an allocating one by a call. */
	ret = is_thin(search, callee.vaddr, CALLEE_ALLOCATES, 0);
	if (ret > 0)
		return add_handover(search, part, vaddr, insn);
	if (!ret)
		add_part(search, callee.vaddr, *part);
	return ret;
}

/*
 * A call or jump in code without unwind information, which the allocator executes: it is followed,
 * unless it leads to a function that maps; then it is noted.
 */
static int add_help(struct search *search, const struct part *part, const struct x86_insn *insn,
		    uint64_t vaddr)
{
	const struct part helper = {.helps = true};
	struct callee callee = resolve(search, insn);

	if (insn->has_target && insn->target >= part->start && insn->target < part->end)
		return 0;
	if (callee.kind == CALLEE_MAPS && insn->flow == X86_FLOW_CALL && part->helps)
		return add_return(search, part, vaddr + insn->length);
	if (callee.kind == CALLEE_OTHER && callee.vaddr)
		add_part(search, callee.vaddr, helper);
	return 0;
}

typedef int add_function(struct search *search, const struct part *part,
			 const struct x86_insn *insn, uint64_t vaddr);

static int scan_part(struct search *search, size_t index, add_function *add)
{
	struct part *part = &search->parts[index];
	CLEANUP(cleanup_free) uint8_t *code = NULL;
	struct x86_insn insn;
	size_t size;
	int err = read_part(search, part, &code, &size);

	for (size_t at = 0; !err && code && at < size; at += insn.length) {
		uint64_t vaddr = part->start + at;

		if (!x86_insn_decode(code + at, size - at, vaddr, &insn))
			break;
		if (insn.flow != X86_FLOW_CALL && insn.flow != X86_FLOW_JUMP &&
		    insn.flow != X86_FLOW_BRANCH)
			continue;
		if (insn.has_target)
			protect_sites(search, insn.target);
		err = add(search, part, &insn, vaddr);
	}
	return err;
}

/* Adds the functions of one sort to the search, and scans what there is to scan then. */
static int scan_functions(struct search *search, bool allocating, bool throwing)
{
	for (size_t i = 0; i < search->allocator->function_count; i++) {
		const struct allocator_function *function = &search->allocator->functions[i];

		if (shape_allocates(function->shape) == allocating && function->throws == throwing)
			add_part(search, function->vaddr,
				 (struct part){.allocates = allocating, .throws = throwing});
	}
	/* Parts are added while this goes on. */
	while (search->scanned < search->part_count) {
		int err = scan_part(search, search->scanned++, add_transfer);

		if (err)
			return err;
	}
	return 0;
}

/* What the parts that have no unwind information call to map memory for them. */
static int scan_helpers(struct search *search)
{
	CLEANUP(unwind_ranges_deinit) struct unwind_ranges ranges = {0};
	int err = unwind_ranges_load(search->image, &ranges);

	/* Where it cannot be read, the walk has none either. */
	if (err == -ENOMEM)
		return err;
	err = 0;
	for (size_t i = 0; i < search->part_count && !err; i++) {
		if (!unwind_ranges_hold(&ranges, search->parts[i].start))
			err = scan_part(search, i, add_help);
	}
	return err;
}

static int scan(struct search *search)
{
	int err = scan_functions(search, true, false);

	/* What is reached from others too, does not belong to these only: so they come second. */
	if (!err)
		err = scan_functions(search, true, true);
	/* What frees is scanned for jumps back into its beginning, mostly. */
	if (!err)
		err = scan_functions(search, false, false);
	return err || !search->mappings ? err : scan_helpers(search);
}

static int compare_addresses(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The results in order, each once. In both structs vaddr comes first. */
static void tidy(struct search *search)
{
	struct allocator *allocator = search->allocator;
	size_t kept = 0;

	if (search->returns.count)
		qsort(search->returns.items, search->returns.count, sizeof(*search->returns.items),
		      compare_addresses);
	vec_for_each(found, &search->returns) {
		struct allocator_return *last = kept ? &search->returns.items[kept - 1] : NULL;

		if (last && found->vaddr == last->vaddr) {
			last->allocates |= found->allocates;
			last->throws &= found->throws;
		} else {
			search->returns.items[kept++] = *found;
		}
	}
	allocator->nested_returns = TAKE(search->returns.items);
	allocator->nested_return_count = kept;

	if (allocator->handovers.count)
		qsort(allocator->handovers.items, allocator->handovers.count,
		      sizeof(*allocator->handovers.items), compare_addresses);
	kept = 0;
	vec_for_each(handover, &allocator->handovers) {
		if (!kept || handover->vaddr != allocator->handovers.items[kept - 1].vaddr)
			allocator->handovers.items[kept++] = *handover;
	}
	allocator->handovers.count = kept;
}

/*
 * Where a function's site is itself a jump that hands over, one probe has to do for both: a function
 * that jumps on in any case is left out; of one that may, the program looks at the condition.
 */
static void merge_sites(struct allocator *allocator)
{
	size_t kept = 0;

	for (size_t i = 0; i < allocator->handovers.count; i++) {
		const struct allocator_handover handover = allocator->handovers.items[i];
		size_t at = 0;

		while (at < allocator->function_count &&
		       allocator->functions[at].site != handover.vaddr)
			at++;
		if (at == allocator->function_count)
			allocator->handovers.items[kept++] = handover;
		else if (handover.condition == HANDOVER_ALWAYS)
			leave_out(allocator, at);
		else
			allocator->functions[at].site_jump = handover.condition + 1;
	}
	allocator->handovers.count = kept;
}

static void search_free(struct search **search)
{
	if (*search) {
		free((*search)->known);
		free((*search)->returns.items);
	}
	free(*search);
}

int nesting_find(const struct image *image, const struct code_ranges *ranges, const struct plt *plt,
		 struct allocator *allocator)
{
	CLEANUP(search_free) struct search *search = calloc(1, sizeof(*search));
	int err;

	if (!search)
		return -ENOMEM;
	search->image = image;
	search->ranges = ranges;
	search->plt = plt;
	search->allocator = allocator;
	err = remember_functions(search);
	if (!err)
		err = leave_out_thin(search);
	if (!err)
		err = scan(search);
	if (err)
		return err;
	tidy(search);
	merge_sites(allocator);
	return 0;
}
