#include "binary/allocators.h"
#include "binary/code_ranges.h"
#include "binary/nesting.h"
#include "binary/plt.h"
#include "binary/probe_site.h"
#include "binary/symtab.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An image has one to three functions per name (compatibility versions, local copies). */
#define FUNCTIONS_MAX	   64
#define FUNCTION_BYTES_MAX ((size_t)256 << 10)

/* Of several names at one address the first in this order is the one that is shown. */
static const struct {
	const char *name;
	enum allocator_shape shape;
} known[] = {
	{"malloc", SHAPE_MALLOC},     {"calloc", SHAPE_CALLOC},
	{"realloc", SHAPE_REALLOC},   {"aligned_alloc", SHAPE_MEMALIGN},
	{"memalign", SHAPE_MEMALIGN}, {"posix_memalign", SHAPE_POSIX_MEMALIGN},
	{"valloc", SHAPE_MALLOC},     {"pvalloc", SHAPE_MALLOC},
	{"free", SHAPE_FREE},	      {"cfree", SHAPE_FREE},
};
#define KNOWN_COUNT (sizeof(known) / sizeof(*known))

/* What the BPF programs read at the site of a function of each shape. */
static const struct probe_wish wishes[SHAPE_COUNT] = {
	[SHAPE_MALLOC] = {.arguments = (const uint8_t[]){0}, .argument_count = 1},
	[SHAPE_CALLOC] = {.arguments = (const uint8_t[]){0, 1}, .argument_count = 2},
	[SHAPE_REALLOC] = {.arguments = (const uint8_t[]){0, 1}, .argument_count = 2},
	[SHAPE_MEMALIGN] = {.arguments = (const uint8_t[]){0, 1}, .argument_count = 2},
	[SHAPE_POSIX_MEMALIGN] = {.arguments = (const uint8_t[]){0, 2}, .argument_count = 2},
	[SHAPE_FREE] = {.arguments = (const uint8_t[]){0},
			.argument_count = 1,
			.stack_moves = true},
};

/* A symbol of a known name. */
struct candidate {
	size_t known_index;
	uint64_t vaddr, size;
};

struct candidates {
	struct candidate *items; /* owned */
	size_t count, capacity;
	bool operator_new;
};

static void candidates_deinit(struct candidates *candidates)
{
	free(candidates->items);
}

static int visit_symbol(const struct image_symbol *symbol, void *context)
{
	struct candidates *candidates = context;

	if (!strcmp(symbol->name, "_Znwm"))
		candidates->operator_new = true;
	if (candidates->count >= FUNCTIONS_MAX)
		return 0;
	for (size_t i = 0; i < KNOWN_COUNT; i++) {
		if (!strcmp(symbol->name, known[i].name))
			return vec_push(candidates,
					(struct candidate){i, symbol->vaddr, symbol->size});
	}
	return 0;
}

/* By address, and at one address by the table's order. */
static int by_address(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->vaddr != y->vaddr)
		return x->vaddr < y->vaddr ? -1 : 1;
	return (x->known_index > y->known_index) - (x->known_index < y->known_index);
}

static int by_name(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->known_index != y->known_index)
		return x->known_index < y->known_index ? -1 : 1;
	return (x->vaddr > y->vaddr) - (x->vaddr < y->vaddr);
}

static void merge_aliases(struct candidates *candidates)
{
	size_t kept = 0;

	qsort(candidates->items, candidates->count, sizeof(*candidates->items), by_address);
	for (size_t i = 1; i < candidates->count; i++) {
		struct candidate *last = &candidates->items[kept];
		const struct candidate *candidate = &candidates->items[i];

		if (candidate->vaddr != last->vaddr)
			candidates->items[++kept] = *candidate;
		else if (candidate->size > last->size)
			last->size = candidate->size;
	}
	candidates->count = kept + 1;
	qsort(candidates->items, candidates->count, sizeof(*candidates->items), by_name);
}

/*
 * Takes out what table marks as indirect: such a symbol's address is that of a resolver, which runs
 * once and returns the function, so a probe there sees no allocation.
 */
static void drop_indirect(struct candidates *candidates, const struct symtab *table)
{
	const char *name;
	Elf64_Sym symbol;

	for (size_t i = 0; symtab_get(table, i, &symbol, &name); i++) {
		size_t kept = 0;

		if (ELF64_ST_TYPE(symbol.st_info) != STT_GNU_IFUNC || symbol.st_shndx == SHN_UNDEF)
			continue;
		for (size_t c = 0; c < candidates->count; c++) {
			if (candidates->items[c].vaddr != symbol.st_value)
				candidates->items[kept++] = candidates->items[c];
		}
		candidates->count = kept;
	}
}

/*
 * glibc's dynamic linker has a malloc of its own for the time before libc is relocated; until 2.33
 * it even exports it. All later calls go to libc, so it allocates nothing that lasts, and its
 * functions must not be taken for the process's allocator. What tells it apart is the data symbol
 * _rtld_global: only ld.so defines it, in every version. In a static executable the same state is
 * made of separate variables, so that one, whose malloc is the real one, is not taken for ld.so
 * although it defines _dl_* functions too; and musl, which is linker and libc in one file, has no
 * such symbol.
 */
static bool is_dynamic_linker(const struct symtab *dynamic)
{
	return symtab_defines(dynamic, "_rtld_global");
}

static bool is_executable(const struct image *image, uint64_t vaddr)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (vaddr >= segment->vaddr && vaddr - segment->vaddr < segment->file_size)
			return segment->executable;
	}
	return false;
}

static uint64_t size_of(const struct candidate *candidate, const struct code_ranges *ranges)
{
	uint64_t start, end;

	if (candidate->size)
		return candidate->size;
	if (code_ranges_find(ranges, candidate->vaddr, &start, &end) && start == candidate->vaddr)
		return end - start;
	return 0;
}

/* 0, -ENOEXEC where the function cannot be probed, -ENOMEM, or -errno of reading. */
static int choose_site(const struct image *image, struct allocator_function *function)
{
	const struct probe_wish *wish = &wishes[function->shape];
	CLEANUP(cleanup_free) uint8_t *code = NULL;
	struct probe_site site = {0};
	size_t size = 0;
	int err;

	if (image->machine == EM_X86_64 && function->size && function->size <= FUNCTION_BYTES_MAX) {
		size = function->size;
		code = malloc(size);
		if (!code)
			return -ENOMEM;
		err = image_read(image, function->vaddr, code, size);
		/* A symbol that claims to go beyond its segment: then its size is not known. */
		if (err == -ERANGE)
			size = 0;
		else if (err)
			return err;
	}
	err = probe_site_choose(code, size, function->vaddr, wish, &site);
	/*
	 * The BPF programs do not know yet which registers a site's arguments are in: only where
	 * none has moved is the site of use.
	 */
	if (!err && site.offset) {
		struct probe_site entry;

		err = probe_site_choose(NULL, 0, function->vaddr, wish, &entry);
		if (!err && memcmp(site.registers, entry.registers, sizeof(site.registers)) != 0)
			site = entry;
	}
	if (err)
		return err;
	function->site = function->vaddr + site.offset;
	function->emulated = site.emulated;
	if (!image_vaddr_to_offset(image, function->site, &function->site_offset))
		return -ENOEXEC;
	return 0;
}

static bool has_function(const struct allocator *allocator, const char *name)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		if (!strcmp(allocator->functions[i].name, name))
			return true;
	}
	return false;
}

/* 0, or as allocator_find(). */
static int add_functions(const struct image *image, const struct candidates *candidates,
			 const struct code_ranges *ranges, struct allocator *allocator)
{
	allocator->functions = calloc(candidates->count, sizeof(*allocator->functions));
	if (!allocator->functions)
		return -ENOMEM;
	for (size_t i = 0; i < candidates->count; i++) {
		const struct candidate *candidate = &candidates->items[i];
		struct allocator_function function = {
			.name = known[candidate->known_index].name,
			.shape = known[candidate->known_index].shape,
			.vaddr = candidate->vaddr,
			.size = size_of(candidate, ranges),
		};
		int err;

		if (!is_executable(image, function.vaddr))
			continue;
		err = choose_site(image, &function);
		if (err == -ENOEXEC)
			continue;
		if (err)
			return err;
		allocator->functions[allocator->function_count++] = function;
	}
	return has_function(allocator, "malloc") && has_function(allocator, "free") ? 0 : -ENOENT;
}

static bool has_candidate(const struct candidates *candidates, const char *name)
{
	for (size_t i = 0; i < candidates->count; i++) {
		if (!strcmp(known[candidates->items[i].known_index].name, name))
			return true;
	}
	return false;
}

/* The symbols to probe, and .dynsym; -ENOENT where they make no allocator. */
static int find_candidates(const struct image *image, struct candidates *candidates,
			   struct symtab *dynamic)
{
	struct symtab symbols = {0};
	int err;

	err = image_for_each_function(image, visit_symbol, candidates);
	if (err)
		return err;
	/* Most images end here, before anything else of them is read. */
	if (!has_candidate(candidates, "malloc") || !has_candidate(candidates, "free"))
		return -ENOENT;
	err = symtab_load(image, ".dynsym", ".dynstr", dynamic);
	if (err && err != -ENOENT)
		return err;
	if (is_dynamic_linker(dynamic))
		return -ENOENT;
	drop_indirect(candidates, dynamic);
	if (!symtab_load(image, ".symtab", ".strtab", &symbols))
		drop_indirect(candidates, &symbols);
	symtab_deinit(&symbols);
	if (!candidates->count)
		return -ENOENT;
	merge_aliases(candidates);
	return 0;
}

static void cleanup_allocator(struct allocator **allocator)
{
	allocator_free(*allocator);
}

int allocator_find(const struct image *image, struct allocator **out)
{
	CLEANUP(candidates_deinit) struct candidates candidates = {0};
	CLEANUP(code_ranges_deinit) struct code_ranges ranges = {0};
	CLEANUP(cleanup_allocator) struct allocator *allocator = NULL;
	CLEANUP(symtab_deinit) struct symtab dynamic = {0};
	CLEANUP(plt_deinit) struct plt plt = {0};
	int err;

	err = find_candidates(image, &candidates, &dynamic);
	if (err)
		return err;
	allocator = calloc(1, sizeof(*allocator));
	if (!allocator)
		return -ENOMEM;
	allocator->own_operator_new = candidates.operator_new;
	err = code_ranges_load(image, &ranges);
	if (!err)
		err = add_functions(image, &candidates, &ranges, allocator);
	if (!err && image->machine == EM_X86_64) {
		err = plt_load(image, &dynamic, &plt);
		if (!err)
			err = nesting_find(image, &ranges, &plt, allocator);
	}
	if (err)
		return err;
	*out = TAKE(allocator);
	return 0;
}

void allocator_free(struct allocator *allocator)
{
	if (!allocator)
		return;
	free(allocator->functions);
	free(allocator->nested_returns);
	free(allocator);
}
