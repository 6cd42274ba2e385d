/*
 * The functions that are reached from the probed ones form a graph: a node is a function (or the
 * cold part of one), an edge a call or a jump that leaves its function. It is built level by level,
 * so that the limit on its size cuts the farthest functions; a jump does not count as a level,
 * since it stays in the same activation.
 *
 * Then: a node "ends in an allocator" if it jumps to a probed allocating function, or to a node
 * that ends in one. A call nests if what it calls is a probed allocating function or ends in one.
 */
#include "binary/nesting.h"
#include "binary/x86_insn.h"
#include "util/cleanup.h"
#include "util/vec.h"

#define NODES_MAX	   256
#define EDGES_MAX	   65536
#define LEVELS_MAX	   2
#define FUNCTION_BYTES_MAX ((size_t)256 << 10)

struct node {
	uint64_t start, end; /* end 0: unknown, see guess_size() */
	unsigned int level;
	bool scanned;
	bool allocates;	     /* reached from an allocating function */
	bool tail_allocates; /* ends in an allocator */
};

struct edge {
	size_t from;
	uint64_t target;
	uint64_t return_address; /* 0: a jump */
};

struct edges {
	struct edge *items; /* owned */
	size_t count, capacity;
};

struct graph {
	const struct image *image; /* borrowed, these four */
	const struct code_ranges *ranges;
	const struct plt *plt;
	struct allocator *allocator;
	struct node nodes[NODES_MAX];
	size_t node_count;
	struct edges edges;
};

struct addresses {
	uint64_t *items; /* owned */
	size_t count, capacity;
};

static struct allocator_function *function_at(const struct graph *graph, uint64_t vaddr)
{
	for (size_t i = 0; i < graph->allocator->function_count; i++) {
		if (graph->allocator->functions[i].vaddr == vaddr)
			return &graph->allocator->functions[i];
	}
	return NULL;
}

static bool allocates_at(const struct graph *graph, uint64_t vaddr)
{
	const struct allocator_function *function = function_at(graph, vaddr);

	return function && function->shape != SHAPE_FREE;
}

/* The node that begins at vaddr. */
static struct node *node_at(struct graph *graph, uint64_t vaddr)
{
	for (size_t i = 0; i < graph->node_count; i++) {
		if (graph->nodes[i].start == vaddr)
			return &graph->nodes[i];
	}
	return NULL;
}

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

/* Takes the function at target into the graph, if there is room and need for it. */
static void add_node(struct graph *graph, uint64_t target, unsigned int level, bool allocates)
{
	uint64_t start = target, end = 0;
	struct node *node;

	if (level > LEVELS_MAX)
		return;
	code_ranges_find(graph->ranges, target, &start, &end);
	node = node_at(graph, start);
	if (node) {
		if (!node->scanned && node->level > level)
			node->level = level;
		return;
	}
	if (graph->node_count < NODES_MAX)
		graph->nodes[graph->node_count++] = (struct node){
			.start = start,
			.end = end,
			.level = level,
			.allocates = allocates,
		};
}

/* One call or jump is not to be hit twice: see nesting_find(). */
static void protect_sites(struct graph *graph, uint64_t target)
{
	for (size_t i = 0; i < graph->allocator->function_count; i++) {
		struct allocator_function *function = &graph->allocator->functions[i];

		if (target > function->vaddr && target <= function->site) {
			function->site_offset -= function->site - function->vaddr;
			function->site = function->vaddr;
			/* An emulated entry would have been the site from the start. */
			function->emulated = false;
		}
	}
}

/* A call or jump of node `from`, found at an instruction that ends at next. */
static int add_edge(struct graph *graph, size_t from, const struct x86_insn *insn, uint64_t next)
{
	const struct node node = graph->nodes[from];
	bool is_call = insn->flow == X86_FLOW_CALL;
	const struct allocator_function *function;
	uint64_t target;

	if (insn->has_target) {
		protect_sites(graph, insn->target);
		/* A jump to the entry is a call of the function by itself; any other stays in it.
		 */
		if (!is_call && insn->target > node.start && insn->target < node.end)
			return 0;
		target = plt_resolve(graph->image, graph->plt, insn->target);
	} else if (insn->has_slot) {
		target = plt_slot_target(graph->plt, insn->slot);
	} else {
		return 0;
	}
	if (!target || graph->edges.count >= EDGES_MAX)
		return 0;

	function = function_at(graph, target);
	if (function && function->shape == SHAPE_FREE)
		return 0;
	if (!function)
		add_node(graph, target, node.level + is_call, node.allocates);
	return vec_push(&graph->edges, (struct edge){from, target, is_call ? next : 0});
}

static int scan_node(struct graph *graph, size_t index)
{
	struct node *node = &graph->nodes[index];
	CLEANUP(cleanup_free) uint8_t *code = NULL;
	struct x86_insn insn;
	bool is_guess = !node->end;
	size_t size;
	int err;

	node->scanned = true;
	size = readable_size(graph->image, node->start,
			     is_guess ? code_ranges_next(graph->ranges, node->start) : node->end);
	if (!size)
		return 0;
	code = malloc(size);
	if (!code)
		return -ENOMEM;
	err = image_read(graph->image, node->start, code, size);
	if (err)
		return err;
	if (is_guess)
		size = guess_size(code, size, node->start);
	node->end = node->start + size;

	for (size_t at = 0; at < size; at += insn.length) {
		uint64_t vaddr = node->start + at;

		if (!x86_insn_decode(code + at, size - at, vaddr, &insn))
			break;
		if (insn.flow != X86_FLOW_CALL && insn.flow != X86_FLOW_JUMP &&
		    insn.flow != X86_FLOW_BRANCH)
			continue;
		err = add_edge(graph, index, &insn, vaddr + insn.length);
		if (err)
			return err;
	}
	return 0;
}

static int scan_level(struct graph *graph, unsigned int level)
{
	/* The array does not move; nodes of this level may be appended by jumps while it is
	 * scanned. */
	for (size_t i = 0; i < graph->node_count; i++) {
		int err;

		if (graph->nodes[i].scanned || graph->nodes[i].level != level)
			continue;
		err = scan_node(graph, i);
		if (err)
			return err;
	}
	return 0;
}

static void add_functions(struct graph *graph, bool allocating, unsigned int level)
{
	for (size_t i = 0; i < graph->allocator->function_count; i++) {
		const struct allocator_function *function = &graph->allocator->functions[i];

		if ((function->shape != SHAPE_FREE) == allocating)
			add_node(graph, function->vaddr, level, allocating);
	}
}

static int build_graph(struct graph *graph)
{
	int err;

	add_functions(graph, true, 0);
	for (unsigned int level = 0; level <= LEVELS_MAX; level++) {
		err = scan_level(graph, level);
		if (err)
			return err;
	}
	/* What frees is scanned for jumps back into its beginning only, so at the last level. */
	add_functions(graph, false, LEVELS_MAX);
	return scan_level(graph, LEVELS_MAX);
}

/* Does a call of target, or a jump to it, reach an allocating function with no call in between? */
static bool reaches_allocator(struct graph *graph, uint64_t target, bool is_call)
{
	uint64_t start = target, end;
	struct node *node;

	if (allocates_at(graph, target))
		return true;
	/* A jump may lead into the middle of a cold part. */
	if (!is_call)
		code_ranges_find(graph->ranges, target, &start, &end);
	node = node_at(graph, start);
	return node && node->tail_allocates;
}

static void find_tails(struct graph *graph)
{
	bool changed;

	do {
		changed = false;
		vec_for_each(edge, &graph->edges) {
			struct node *from = &graph->nodes[edge->from];

			if (!edge->return_address && !from->tail_allocates &&
			    reaches_allocator(graph, edge->target, false)) {
				from->tail_allocates = true;
				changed = true;
			}
		}
	} while (changed);
}

static int compare_addresses(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int collect_returns(struct graph *graph)
{
	struct addresses found = {0};
	size_t kept = 0;

	vec_for_each(edge, &graph->edges) {
		if (!edge->return_address || !graph->nodes[edge->from].allocates ||
		    !reaches_allocator(graph, edge->target, true))
			continue;
		if (vec_push(&found, edge->return_address)) {
			free(found.items);
			return -ENOMEM;
		}
	}
	if (found.count)
		qsort(found.items, found.count, sizeof(*found.items), compare_addresses);
	for (size_t i = 0; i < found.count; i++) {
		if (!kept || found.items[i] != found.items[kept - 1])
			found.items[kept++] = found.items[i];
	}
	graph->allocator->nested_returns = found.items;
	graph->allocator->nested_return_count = kept;
	return 0;
}

int nesting_find(const struct image *image, const struct code_ranges *ranges, const struct plt *plt,
		 struct allocator *allocator)
{
	CLEANUP(cleanup_free) struct graph *graph = calloc(1, sizeof(*graph));
	int err;

	if (!graph)
		return -ENOMEM;
	graph->image = image;
	graph->ranges = ranges;
	graph->plt = plt;
	graph->allocator = allocator;
	err = build_graph(graph);
	if (!err) {
		find_tails(graph);
		err = collect_returns(graph);
	}
	if (!err) {
		for (size_t i = 0; i < allocator->function_count; i++) {
			struct node *node = node_at(graph, allocator->functions[i].vaddr);

			allocator->functions[i].tail_calls_allocator =
				node && node->allocates && node->tail_allocates;
		}
	}
	free(graph->edges.items);
	return err;
}
