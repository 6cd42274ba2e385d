/*
 * Three questions about code, answered by decoding it.
 *
 * Thin? From the entry every way is followed, until it calls or jumps to (or runs into) a function of
 * this image or, by name, of another, that does the same: allocates, or frees, or, as realloc does,
 * both. If no way gets to a return, or anywhere else out of the function, without that, the function
 * is left to the others. realloc is not left to malloc, although it may call it whatever happens: how
 * it frees the old block would not be seen.
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

/*
 * A file may be made to be slow. jemalloc takes 20 000 of these: one is an instruction looked at, or
 * so many bytes read of which some may be looked at.
 */
#define EFFORT_MAX	   ((size_t)1 << 20)
#define BYTES_PER_EFFORT   16
#define HELPERS_MAX	   256
#define RETURNS_MAX	   16384
#define HANDOVERS_MAX	   1024
#define THIN_DEPTH_MAX	   3
#define FUNCTION_BYTES_MAX ((size_t)256 << 10)

static const char is_thin_reason[] = "what it does is seen in the probed function that it calls";

/* What a function does, as bits. */
enum {
	DOES_ALLOCATE = 1,
	DOES_FREE = 2,
	DOES_RESIZE = 4, /* in place or not at all */
	DOES_MAP = 8,
	DOES_UNMAP = 16,
};

/* Of one function, or of what has to be found. */
struct deed {
	uint8_t does; /* bits of the above; 0: none of it */
	bool throws;  /* it may throw: then it may be that it is not probed */
};

/* A function, or a piece of code that one jumps to. */
struct part {
	uint64_t start, end; /* end 0: unknown, see guess_size() */
	struct deed deed;    /* of the probed function it belongs to; throws: only of such as may */
	bool helps;	     /* it belongs to none: it is only called by those */
};

/* Where a call or jump leads. */
struct callee {
	uint64_t vaddr; /* 0: not in this image, or not known */
	struct deed deed;
};

struct search {
	const struct image *image; /* borrowed, these four */
	const struct code_ranges *ranges;
	const struct plt *plt;
	struct allocator *allocator;
	struct callee *known; /* owned; all its functions, those too that are left out since */
	size_t known_count;
	bool mappings;	    /* some of them map memory */
	struct part *parts; /* owned; room for all functions, and for HELPERS_MAX others */
	size_t part_count, scanned, helper_count;
	size_t effort;
	struct {
		struct allocator_return *items; /* owned */
		size_t count, capacity;
	} returns;
};

static uint8_t does(enum allocator_shape shape)
{
	switch (shape) {
	case SHAPE_REALLOC:
	case SHAPE_REALLOCARRAY:
		return DOES_ALLOCATE | DOES_FREE;
	case SHAPE_XALLOCX:
		return DOES_RESIZE;
	default:
		return shape_allocates(shape) ? DOES_ALLOCATE
		       : shape_maps(shape)    ? DOES_MAP
		       : shape_unmaps(shape)  ? DOES_UNMAP
					      : DOES_FREE;
	}
}

static bool allocates(struct deed deed)
{
	return deed.does & (DOES_ALLOCATE | DOES_RESIZE);
}

/*
 * Is all that is wanted done where a call or jump leads? realloc of no block is as good as malloc. What
 * may throw is no help to what may not, which is probed in any case.
 */
static bool is_done_by(struct deed wanted, struct deed callee)
{
	if (callee.throws && !wanted.throws)
		return false;
	return wanted.does == DOES_ALLOCATE ? callee.does & DOES_ALLOCATE
					    : callee.does == wanted.does;
}

/* Is there any left? Where there is not, what was not looked at is not known, and that is said. */
static bool spend(struct search *search, size_t effort)
{
	if (effort > search->effort) {
		search->effort = 0;
		search->allocator->is_partly_known = true;
		return false;
	}
	search->effort -= effort;
	return true;
}

static bool decode(struct search *search, const uint8_t *code, size_t size, uint64_t vaddr,
		   struct x86_insn *insn)
{
	return spend(search, 1) && x86_insn_decode(code, size, vaddr, insn);
}

/* The function of this image that begins at vaddr; with vaddr 0 if none does. */
static struct callee find_known(const struct search *search, uint64_t vaddr)
{
	for (size_t i = 0; i < search->known_count; i++) {
		if (search->known[i].vaddr == vaddr)
			return search->known[i];
	}
	return (struct callee){0};
}

static struct callee resolve(const struct search *search, const struct x86_insn *insn)
{
	struct callee callee = {.vaddr = insn->has_target ? insn->target : 0}, known = {0};
	const struct plt_slot *entry = NULL;
	uint64_t slot = insn->slot;
	bool by_slot = insn->has_slot;

	if (insn->has_target)
		by_slot = plt_is_stub(search->image, insn->target, &slot);
	if (by_slot) {
		entry = plt_find(search->plt, slot);
		callee.vaddr = entry ? entry->target : 0;
	}
	/* Whether that one is probed is not known here, but what it does is seen somewhere. */
	if (entry && entry->external)
		callee.deed.does = does(entry->external->shape);
	known = callee.vaddr ? find_known(search, callee.vaddr) : known;
	return known.vaddr ? known : callee;
}

static struct deed deed_of(const struct allocator_function *function)
{
	return (struct deed){.does = does(function->shape), .throws = function->throws};
}

static int remember_functions(struct search *search)
{
	const struct allocator *allocator = search->allocator;
	size_t count = allocator->function_count;

	search->known = calloc(count + 1, sizeof(*search->known));
	search->parts = calloc(count + HELPERS_MAX, sizeof(*search->parts));
	if (!search->known || !search->parts)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		search->known[search->known_count++] = (struct callee){
			.vaddr = allocator->functions[i].vaddr,
			.deed = deed_of(&allocator->functions[i]),
		};
		search->mappings |= does(allocator->functions[i].shape) == DOES_MAP;
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
static size_t guess_size(struct search *search, const uint8_t *code, size_t size, uint64_t vaddr)
{
	struct x86_insn insn;
	uint64_t farthest = 0;
	size_t at = 0;

	while (at < size && decode(search, code + at, size - at, vaddr + at, &insn)) {
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
static int read_part(struct search *search, struct part *part, uint8_t **code, size_t *size)
{
	CLEANUP(cleanup_free) uint8_t *bytes = NULL;
	bool is_guess = !part->end;
	int err;

	*code = NULL;
	*size = readable_size(search->image, part->start,
			      is_guess ? code_ranges_next(search->ranges, part->start) : part->end);
	if (!*size || !spend(search, *size / BYTES_PER_EFFORT))
		return 0;
	bytes = malloc(*size);
	if (!bytes)
		return -ENOMEM;
	err = image_read(search->image, part->start, bytes, *size);
	if (err)
		return err;
	if (is_guess)
		*size = guess_size(search, bytes, *size, part->start);
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

static int is_thin(struct search *search, uint64_t vaddr, struct deed wanted, unsigned int depth);

/*
 * Is what is wanted done where a call or jump leads? 1, 0, -ENOMEM, or -errno of reading. A jump stays
 * in the same activation, whatever it leads to; and what may throw may leave it to one that does not.
 */
static int is_done_at(struct search *search, const struct callee *callee, bool jumps,
		      struct deed wanted, unsigned int depth)
{
	bool may_throw = callee->deed.throws && !wanted.throws;

	if (is_done_by(wanted, callee->deed))
		return 1;
	if (callee->vaddr && (may_throw || (jumps && !callee->deed.does)))
		return is_thin(search, callee->vaddr, wanted, depth + 1);
	return 0;
}

/*
 * Follows one instruction. 1: it leads out of the function without passing what is wanted; 0: not so,
 * its successors are in ways; -ENOMEM, or -errno of reading.
 */
static int follow(struct search *search, const struct part *part, const struct x86_insn *insn,
		  size_t at, struct deed wanted, unsigned int depth, struct ways *ways)
{
	size_t size = part->end - part->start, next = at + insn->length;
	bool jumps = insn->flow == X86_FLOW_JUMP || insn->flow == X86_FLOW_BRANCH;
	int done = 0, err = 0;

	if (insn->flow == X86_FLOW_END)
		return insn->is_return;
	if (jumps && insn->has_target && insn->target >= part->start && insn->target < part->end) {
		err = ways_add(ways, (size_t)(insn->target - part->start));
	} else if (jumps || insn->flow == X86_FLOW_CALL) {
		const struct callee callee = resolve(search, insn);

		done = is_done_at(search, &callee, jumps, wanted, depth);
		if (done < 0 || (jumps && !done))
			return done < 0 ? done : 1;
	}
	/* What is jumped to does not come back; a branch may go on. */
	if (err || insn->flow == X86_FLOW_JUMP || (done && insn->flow == X86_FLOW_CALL))
		return err;
	if (is_done_by(wanted, find_known(search, part->start + next).deed))
		return 0;
	return next >= size ? 1 : ways_add(ways, next);
}

/* Is what is wanted done on every way from vaddr on? 1 if so, 0 if not, -ENOMEM, or -errno of reading.
 */
static int is_thin(struct search *search, uint64_t vaddr, struct deed wanted, unsigned int depth)
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

		if (!decode(search, code + at, size - at, part.start + at, &insn))
			return 0;
		err = follow(search, &part, &insn, at, wanted, depth, &ways);
		if (err)
			return err < 0 ? err : 0;
	}
	return 1;
}

/* Leaves out the functions that are marked, by their index. */
static void leave_out(struct allocator *allocator, const uint8_t *marked)
{
	size_t kept = 0;

	for (size_t i = 0; i < allocator->function_count; i++) {
		struct allocator_function *function = &allocator->functions[i];

		if (!marked[i]) {
			allocator->functions[kept++] = *function;
			continue;
		}
		if (vec_push(&allocator->left_out, (struct allocator_left_out){
							   .name = function->name,
							   .reason = is_thin_reason,
						   }))
			free(function->name);
	}
	allocator->function_count = kept;
}

static bool is_of_mappings(enum allocator_shape shape)
{
	return shape_maps(shape) || shape_unmaps(shape);
}

/* Of the functions that map and unmap, or of all others. */
static int leave_out_thin(struct search *search, bool mappings)
{
	struct allocator *allocator = search->allocator;
	CLEANUP(cleanup_free) uint8_t *thin = calloc(allocator->function_count + 1, 1);
	size_t left = 0;

	if (!thin)
		return -ENOMEM;
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		int ret;

		if (is_of_mappings(function->shape) != mappings)
			continue;
		ret = function->custom ? 0 : is_thin(search, function->vaddr, deed_of(function), 0);
		if (ret < 0)
			return ret;
		thin[i] = (uint8_t)ret;
		left += !ret && (shape_allocates(function->shape) || shape_maps(function->shape));
	}
	/* Functions that only call each other: it was not understood what they do. */
	if (left)
		leave_out(allocator, thin);
	return 0;
}

/* --- handing over, nested --- */

/*
 * Takes the code at target into the search, as `like` says what it belongs to: a function that is
 * probed, or, if there is room, another one.
 */
static void add_part(struct search *search, uint64_t target, struct part like, bool is_helper)
{
	like.start = target;
	like.end = 0;
	code_ranges_find(search->ranges, target, &like.start, &like.end);
	for (size_t i = 0; i < search->part_count; i++) {
		if (search->parts[i].start == like.start)
			return;
	}
	if (is_helper && search->helper_count >= HELPERS_MAX) {
		search->allocator->is_partly_known = true;
		return;
	}
	search->helper_count += is_helper;
	search->parts[search->part_count++] = like;
}

static void site_to_entry(struct allocator_function *function)
{
	function->site_offset -= function->site - function->vaddr;
	function->site = function->vaddr;
	/* An emulated entry would have been the site from the start. */
	function->emulated = false;
	for (size_t i = 0; i < shape_operands(function->shape); i++)
		function->registers[i] = probe_argument_register(function->arguments[i]);
}

/* One call or jump is not to be hit twice: see nesting_find(). */
static void protect_sites(struct search *search, uint64_t target)
{
	for (size_t i = 0; i < search->allocator->function_count; i++) {
		struct allocator_function *function = &search->allocator->functions[i];

		if (target > function->vaddr && target <= function->site)
			site_to_entry(function);
	}
}

static int add_handover(struct search *search, bool throws, uint64_t vaddr,
			const struct x86_insn *insn)
{
	struct allocator_handover handover = {
		.vaddr = vaddr,
		.throws = throws,
		.condition = insn->flow == X86_FLOW_BRANCH ? insn->condition : HANDOVER_ALWAYS,
	};

	if (!image_vaddr_to_offset(search->image, vaddr, &handover.offset))
		return 0;
	if (search->allocator->handovers.count >= HANDOVERS_MAX) {
		search->allocator->is_partly_known = true;
		return 0;
	}
	return vec_push(&search->allocator->handovers, handover);
}

/* A call that returns to vaddr. */
static int add_return(struct search *search, const struct part *part, const struct x86_insn *insn,
		      uint64_t vaddr)
{
	struct callee callee = resolve(search, insn);
	struct allocator_return nested = {
		.vaddr = vaddr,
		.allocates = allocates(part->deed),
		.throws = part->deed.throws,
	};

	nested.callee = callee.vaddr;
	if (search->returns.count >= RETURNS_MAX) {
		search->allocator->is_partly_known = true;
		return 0;
	}
	return vec_push(&search->returns, nested);
}

/* A call or jump of a part, at vaddr. */
static int add_transfer(struct search *search, const struct part *part, const struct x86_insn *insn,
			uint64_t vaddr)
{
	struct callee callee;
	int done;

	if (insn->flow == X86_FLOW_CALL)
		return allocates(part->deed) || search->mappings
			       ? add_return(search, part, insn, vaddr + insn->length)
			       : 0;
	/* A jump to the entry is a call of the function by itself; any other stays in it. */
	if (insn->has_target && insn->target > part->start && insn->target < part->end)
		return 0;
	callee = resolve(search, insn);
	if (allocates(callee.deed))
		return allocates(part->deed)
			       ? add_handover(search, part->deed.throws || callee.deed.throws,
					      vaddr, insn)
			       : 0;
	if (callee.deed.does || !callee.vaddr)
		return 0;
	if (!allocates(part->deed)) {
		add_part(search, callee.vaddr, *part, true);
		return 0;
	}
	/* A function that others call too, and that goes on to an allocating one by a call. */
	done = is_thin(search, callee.vaddr, part->deed, 0);
	if (done > 0)
		return add_handover(search, part->deed.throws, vaddr, insn);
	if (!done)
		add_part(search, callee.vaddr, *part, true);
	return done;
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
	if (callee.deed.does == DOES_MAP && insn->flow == X86_FLOW_CALL && part->helps)
		return add_return(search, part, insn, vaddr + insn->length);
	if (!callee.deed.does && callee.vaddr)
		add_part(search, callee.vaddr, helper, true);
	return 0;
}

typedef int add_function(struct search *search, const struct part *part,
			 const struct x86_insn *insn, uint64_t vaddr);

static int scan_part(struct search *search, size_t index, add_function *add)
{
	/* Parts do not move: there is room for all. */
	struct part *part = &search->parts[index];
	CLEANUP(cleanup_free) uint8_t *code = NULL;
	struct x86_insn insn;
	size_t size;
	int err = read_part(search, part, &code, &size);

	for (size_t at = 0; !err && code && at < size; at += insn.length) {
		uint64_t vaddr = part->start + at;

		if (!decode(search, code + at, size - at, vaddr, &insn))
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
static int scan_functions(struct search *search, struct deed sort)
{
	for (size_t i = 0; i < search->allocator->function_count; i++) {
		const struct allocator_function *function = &search->allocator->functions[i];
		struct deed deed = deed_of(function);

		if (deed.does == sort.does && deed.throws == sort.throws)
			add_part(search, function->vaddr, (struct part){.deed = deed}, false);
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
	/*
	 * What is jumped to belongs to the first that does. So realloc comes before malloc: it wants
	 * more to be done before it hands over. What may throw comes after all that may not, or what
	 * they share would be taken for its own. What does none of it is scanned for jumps back into
	 * its beginning, mostly.
	 */
	static const struct deed order[] = {
		{DOES_ALLOCATE | DOES_FREE, false},
		{DOES_RESIZE, false},
		{DOES_ALLOCATE, false},
		{DOES_ALLOCATE | DOES_FREE, true},
		{DOES_ALLOCATE, true},
		{DOES_FREE, false},
		{DOES_MAP, false},
		{DOES_UNMAP, false},
	};
	int err = 0;

	for (size_t i = 0; i < sizeof(order) / sizeof(*order) && !err; i++) {
		if (order[i].does == DOES_MAP) {
			/* What allocates is known by now: its share of the effort is not to be taken. */
			search->effort = EFFORT_MAX;
			err = leave_out_thin(search, true);
		}
		if (!err)
			err = scan_functions(search, order[i]);
	}
	return err || !search->mappings ? err : scan_helpers(search);
}

/* One breakpoint for two purposes would have to serve them in the right order. */
static int part_sites_from_handovers(struct allocator *allocator)
{
	CLEANUP(cleanup_free) uint8_t *marked = calloc(allocator->function_count + 1, 1);

	if (!marked)
		return -ENOMEM;
	vec_for_each(handover, &allocator->handovers) {
		for (size_t i = 0; i < allocator->function_count; i++) {
			struct allocator_function *function = &allocator->functions[i];

			if (function->site == handover->vaddr && function->site != function->vaddr)
				site_to_entry(function);
			/* All that it does is to hand over. */
			if (function->vaddr == handover->vaddr)
				marked[i] = shape_allocates(function->shape);
		}
	}
	leave_out(allocator, marked);
	return 0;
}

static int compare_addresses(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Where a call that leads to vaddr gets to, as struct allocator_return has it. */
static uint64_t settle_callee(const struct search *search, uint64_t vaddr)
{
	for (size_t i = 0; i < search->allocator->function_count; i++) {
		if (search->allocator->functions[i].vaddr == vaddr)
			return vaddr;
	}
	/* One that is left out, or a helper that a probed one jumps to: such may jump on. */
	if (vaddr && find_known(search, vaddr).vaddr)
		return CALLEE_LEFT_OUT;
	for (size_t i = 0; vaddr && i < search->part_count; i++) {
		if (search->parts[i].start == vaddr && !search->parts[i].helps)
			return CALLEE_LEFT_OUT;
	}
	return 0;
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
	for (size_t i = 0; i < kept; i++)
		search->returns.items[i].callee =
			settle_callee(search, search->returns.items[i].callee);
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

static void search_free(struct search **search)
{
	if (*search) {
		free((*search)->known);
		free((*search)->parts);
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
	search->effort = EFFORT_MAX;
	err = remember_functions(search);
	if (!err)
		err = leave_out_thin(search, false);
	/* A function may run on into the next. */
	for (size_t i = 0; !err && i < search->known_count; i++)
		protect_sites(search, search->known[i].vaddr);
	if (!err)
		err = scan(search);
	if (!err)
		err = part_sites_from_handovers(allocator);
	if (!err)
		tidy(search);
	return err;
}
