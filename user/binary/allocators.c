#include "binary/allocators.h"
#include "binary/code_ranges.h"
#include "binary/go_text.h"
#include "binary/nesting.h"
#include "binary/plt.h"
#include "binary/symtab.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* mimalloc has some 120 names, each of which may be in two symbol tables. */
#define CANDIDATES_MAX 1024
/* Of code that is decoded for probe sites: jemalloc has 60 KiB in its functions. */
#define FUNCTION_BYTES_MAX ((size_t)256 << 10)
#define CODE_BYTES_MAX	   ((size_t)4 << 20)

static const char not_code[] = "its address is not in the file's code";
static const char is_go[] = "it is Go code, which must not be probed";
static const char not_instructions[] = "what stands there are no instructions";
static const char is_alias[] = "it is another name of a probed function";

/* A symbol of a known name. */
struct candidate {
	const struct family_function *function; /* borrowed from the table, or from the extras */
	const char *prefix;			/* borrowed; what stands before function->name */
	size_t family;				/* index in families[], or one of these two: */
#define FAMILY_PREFIXED FAMILY_COUNT
#define FAMILY_CUSTOM	(FAMILY_COUNT + 1)
	bool throws;
	bool is_calm; /* one of its names is of a function that does not throw */
	bool dynamic, indirect;
	uint64_t vaddr, size;
};

struct candidates {
	const struct image *image;	       /* borrowed, these two */
	const struct allocator_extras *extras; /* may be NULL */
	struct candidate *items;	       /* owned */
	size_t count, capacity;
	struct {
		const char **items; /* owned; what they say is the extras' */
		size_t count, capacity;
	} aliases; /* names that the user gave to what has another already */
};

static void candidates_deinit(struct candidates *candidates)
{
	free(candidates->items);
	free(candidates->aliases.items);
}

bool allocator_is_prefixed(const struct image *image, const struct allocator_prefix *prefix)
{
	const char *name = strrchr(image->path, '/');

	/* A name without a folder is that of any file so called. */
	if (!strchr(prefix->path, '/'))
		return strcmp(prefix->path, name ? name + 1 : image->path) == 0;
	return strcmp(prefix->path, image->path) == 0;
}

static int add_candidate(struct candidates *candidates, const struct image_symbol *symbol,
			 size_t family, const char *prefix, const struct family_function *function)
{
	if (!function || candidates->count >= CANDIDATES_MAX)
		return 0;
	return vec_push(candidates, (struct candidate){
					    .function = function,
					    .prefix = prefix,
					    .family = family,
					    .throws = function->throws,
					    .is_calm = family != FAMILY_CUSTOM && !function->throws,
					    .dynamic = symbol->dynamic,
					    .vaddr = symbol->vaddr,
					    .size = symbol->size,
				    });
}

static int visit_symbol(const struct image_symbol *symbol, void *context)
{
	struct candidates *candidates = context;
	const struct allocator_extras *extras = candidates->extras;
	int err = 0;

	for (size_t i = 0; i < FAMILY_COUNT && !err; i++) {
		if (i == FAMILY_MAPPINGS && !(extras && extras->mappings))
			continue;
		err = add_candidate(candidates, symbol, i, families[i].prefix,
				    family_find(&families[i], families[i].prefix, symbol->name));
	}
	for (size_t i = 0; extras && i < extras->prefix_count && !err; i++) {
		const struct allocator_prefix *prefix = &extras->prefixes[i];

		if (allocator_is_prefixed(candidates->image, prefix))
			err = add_candidate(
				candidates, symbol, FAMILY_PREFIXED, prefix->prefix,
				family_find(&families[0], prefix->prefix, symbol->name));
	}
	for (size_t i = 0; extras && i < extras->function_count && !err; i++) {
		if (strcmp(symbol->name, extras->functions[i].name) == 0)
			err = add_candidate(candidates, symbol, FAMILY_CUSTOM, "",
					    &extras->functions[i]);
	}
	return err;
}

/* --- which of them are an allocator's --- */

/* A family is there if the image can allocate by its names, and free. */
static bool has_family(const struct candidates *candidates, size_t family)
{
	bool allocates = false, frees = false;

	if (family == FAMILY_CUSTOM)
		return true;
	if (family < FAMILY_COUNT && families[family].companion) {
		for (size_t i = 0; i < candidates->count; i++) {
			size_t other = candidates->items[i].family;

			if ((other >= FAMILY_COUNT || !families[other].companion) &&
			    has_family(candidates, other))
				return true;
		}
		return false;
	}
	for (size_t i = 0; i < candidates->count; i++) {
		const struct candidate *candidate = &candidates->items[i];

		if (candidate->family != family || candidate->function->unprobed)
			continue;
		if (shape_allocates(candidate->function->shape))
			allocates = true;
		else
			frees = true;
	}
	return allocates && frees;
}

static void drop_other_families(struct candidates *candidates)
{
	bool present[FAMILY_CUSTOM + 1];
	size_t kept = 0;

	for (size_t i = 0; i <= FAMILY_CUSTOM; i++)
		present[i] = has_family(candidates, i);
	for (size_t i = 0; i < candidates->count; i++) {
		if (present[candidates->items[i].family])
			candidates->items[kept++] = candidates->items[i];
	}
	candidates->count = kept;
}

static int compare_order(const struct candidate *x, const struct candidate *y)
{
	if (x->family != y->family) /* the user's own come first: they say what is meant */
		return x->family >= FAMILY_PREFIXED   ? -1
		       : y->family >= FAMILY_PREFIXED ? 1
		       : x->family < y->family	      ? -1
						      : 1;
	if (x->function != y->function)
		return x->function < y->function ? -1 : 1;
	return (x->vaddr > y->vaddr) - (x->vaddr < y->vaddr);
}

/* By address, and at one address by the table's order. */
static int by_address(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->vaddr != y->vaddr)
		return x->vaddr < y->vaddr ? -1 : 1;
	return compare_order(x, y);
}

static int by_order(const void *a, const void *b)
{
	return compare_order(a, b);
}

/* The first of the candidates, by address, that is not below vaddr. */
static size_t lower_bound(const struct candidates *candidates, uint64_t vaddr)
{
	size_t low = 0, high = candidates->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (candidates->items[middle].vaddr < vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * Takes out what table marks as indirect: such a symbol's address is that of a resolver, which runs
 * once and returns the function, so a probe there sees no allocation. They are sorted by address.
 */
static void drop_indirect(struct candidates *candidates, const struct symtab *table)
{
	size_t kept = 0;
	const char *name;
	Elf64_Sym symbol;

	for (size_t i = 0; symtab_get(table, i, &symbol, &name); i++) {
		if (ELF64_ST_TYPE(symbol.st_info) != STT_GNU_IFUNC || symbol.st_shndx == SHN_UNDEF)
			continue;
		for (size_t c = lower_bound(candidates, symbol.st_value);
		     c < candidates->count && candidates->items[c].vaddr == symbol.st_value &&
		     !candidates->items[c].indirect;
		     c++)
			candidates->items[c].indirect = true;
	}
	for (size_t c = 0; c < candidates->count; c++) {
		if (!candidates->items[c].indirect)
			candidates->items[kept++] = candidates->items[c];
	}
	candidates->count = kept;
}

static void sort_by_address(struct candidates *candidates)
{
	qsort(candidates->items, candidates->count, sizeof(*candidates->items), by_address);
}

/* Is a symbol another of the user's names for last? Either may be in two symbol tables. */
static bool is_new_alias(const struct candidates *candidates, const struct candidate *last,
			 const struct candidate *candidate)
{
	size_t count = candidates->aliases.count;

	return candidate->family == FAMILY_CUSTOM && candidate->function != last->function &&
	       (!count || candidates->aliases.items[count - 1] != candidate->function->name);
}

/* Of those at one address, which follow each other, the first stays. 0 or -ENOMEM. */
static int merge_aliases(struct candidates *candidates)
{
	size_t kept = 0;
	int err = 0;

	for (size_t i = 1; i < candidates->count; i++) {
		struct candidate *last = &candidates->items[kept];
		const struct candidate *candidate = &candidates->items[i];

		if (candidate->vaddr != last->vaddr) {
			candidates->items[++kept] = *candidate;
			continue;
		}
		if (candidate->size > last->size)
			last->size = candidate->size;
		last->throws |= candidate->throws;
		last->is_calm |= candidate->is_calm;
		last->dynamic |= candidate->dynamic;
		if (!err && is_new_alias(candidates, last, candidate))
			err = vec_push(&candidates->aliases, candidate->function->name);
	}
	candidates->count = kept + 1;
	qsort(candidates->items, candidates->count, sizeof(*candidates->items), by_order);
	return err;
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

/* The symbols to probe, and .dynsym; -ENOENT where they make no allocator. */
static int find_candidates(const struct image *image, const struct image *symbols,
			   struct candidates *candidates, struct symtab *dynamic)
{
	struct symtab table = {0};
	int err;

	err = image_for_each_function(image, visit_symbol, candidates);
	if (!err && symbols)
		err = image_for_each_function(symbols, visit_symbol, candidates);
	if (err)
		return err;
	/* Most images end here, before anything else of them is read. */
	drop_other_families(candidates);
	if (!candidates->count)
		return -ENOENT;
	err = symtab_load(image, ".dynsym", ".dynstr", dynamic);
	if (err && err != -ENOENT)
		return err;
	if (is_dynamic_linker(dynamic))
		return -ENOENT;
	sort_by_address(candidates);
	drop_indirect(candidates, dynamic);
	if (!symtab_load(symbols ? symbols : image, ".symtab", ".strtab", &table))
		drop_indirect(candidates, &table);
	symtab_deinit(&table);
	return candidates->count ? merge_aliases(candidates) : -ENOENT;
}

/* --- what is to be known of each --- */

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

/*
 * *code_left: bytes of code that may be looked at yet. 0, -ENOEXEC where the function cannot be probed,
 * -ENOMEM, or -errno of reading.
 */
static int choose_site(const struct image *image, struct allocator_function *function,
		       size_t *code_left)
{
	const struct probe_wish wish = {
		.arguments = function->arguments,
		.argument_count = shape_operands(function->shape),
		/* All that a free has to tell is its pointer. */
		.stack_moves = !shape_allocates(function->shape) && !shape_maps(function->shape),
	};
	CLEANUP(cleanup_free) uint8_t *code = NULL;
	struct probe_site site = {0};
	size_t size = 0;
	int err;

	if ((image->machine == EM_X86_64 || image->machine == EM_AARCH64) && function->size &&
	    function->size <= FUNCTION_BYTES_MAX && function->size <= *code_left) {
		size = function->size;
		*code_left -= size;
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
	if (image->machine == EM_AARCH64)
		err = probe_site_choose_aarch64(code, size, function->vaddr, &wish, &site);
	else
		err = probe_site_choose(code, size, function->vaddr, &wish, &site);
	if (err)
		return err;
	function->site = function->vaddr + site.offset;
	function->emulated = site.emulated;
	memcpy(function->registers, site.registers, sizeof(function->registers));
	if (!image_vaddr_to_offset(image, function->site, &function->site_offset))
		return -ENOEXEC;
	return 0;
}

static char *full_name(const struct candidate *candidate)
{
	size_t prefix = strlen(candidate->prefix), rest = strlen(candidate->function->name) + 1;
	char *name = malloc(prefix + rest);

	if (name) {
		memcpy(name, candidate->prefix, prefix);
		memcpy(name + prefix, candidate->function->name, rest);
	}
	return name;
}

/* Takes name over. */
static int leave_out(struct allocator *allocator, char *name, const char *reason)
{
	int err = vec_push(&allocator->left_out,
			   (struct allocator_left_out){.name = name, .reason = reason});

	if (err)
		free(name);
	return err;
}

static int add_function(const struct image *image, const struct candidate *candidate,
			const struct code_ranges *ranges, const struct go_text *go_text,
			size_t *code_left, struct allocator *allocator)
{
	struct allocator_function function = {
		.shape = candidate->function->shape,
		.throws = candidate->throws && !candidate->is_calm,
		.custom = candidate->family >= FAMILY_PREFIXED,
		.vaddr = candidate->vaddr,
		.size = size_of(candidate, ranges),
	};
	char *name = full_name(candidate);
	int err;

	if (!name)
		return -ENOMEM;
	memcpy(function.arguments, candidate->function->arguments, sizeof(function.arguments));
	if (candidate->function->unprobed)
		return leave_out(allocator, name, candidate->function->unprobed);
	if (!is_executable(image, function.vaddr))
		return leave_out(allocator, name, not_code);
	if (go_text_holds(go_text, function.vaddr))
		return leave_out(allocator, name, is_go);
	err = choose_site(image, &function, code_left);
	if (err == -ENOEXEC)
		return leave_out(allocator, name, not_instructions);
	if (err) {
		free(name);
		return err;
	}
	function.name = name;
	allocator->functions[allocator->function_count++] = function;
	return 0;
}

/* 0, or as allocator_find(). */
static int add_functions(const struct image *image, const struct candidates *candidates,
			 const struct code_ranges *ranges, struct allocator *allocator)
{
	size_t code_left = CODE_BYTES_MAX;
	struct go_text go_text;
	bool allocates = false;
	int err = go_text_load(image, ranges, &go_text);

	if (err)
		return err;
	allocator->functions = calloc(candidates->count, sizeof(*allocator->functions));
	if (!allocator->functions)
		return -ENOMEM;
	for (size_t i = 0; i < candidates->count; i++) {
		err = add_function(image, &candidates->items[i], ranges, &go_text, &code_left,
				   allocator);
		if (err)
			return err;
	}
	vec_for_each(alias, &candidates->aliases) {
		char *name = strdup(*alias);

		if (!name || leave_out(allocator, name, is_alias))
			return -ENOMEM;
	}
	for (size_t i = 0; i < allocator->function_count; i++)
		allocates |= shape_allocates(allocator->functions[i].shape);
	return allocates || candidates->items[0].family == FAMILY_CUSTOM ? 0 : -ENOENT;
}

/* The family whose own names are there; the plain names are those of many. */
static const char *family_of(const struct candidates *candidates)
{
	const char *name = "C library";

	for (size_t i = 0; i < candidates->count; i++) {
		const struct candidate *candidate = &candidates->items[i];

		if (candidate->family >= FAMILY_PREFIXED)
			return "named by you";
		if (families[candidate->family].companion)
			continue;
		if (*candidate->prefix && strcmp(candidate->prefix, "__libc_") != 0)
			name = families[candidate->family].name;
		else if (!strcmp(candidate->function->name, "mallocx"))
			name = "jemalloc";
	}
	return name;
}

static void describe(const struct candidates *candidates, struct allocator *allocator)
{
	bool dynamic = true;

	for (size_t i = 0; i < candidates->count; i++)
		dynamic &= candidates->items[i].dynamic;
	allocator->family = family_of(candidates);
	allocator->source = dynamic ? ".dynsym" : ".symtab";
}

/* Itanium C++ ABI, and what libstdc++ and libc++ wrap it in. */
static bool imports_throwing(const struct symtab *dynamic)
{
	return symtab_needs(dynamic, "_Unwind_RaiseException") ||
	       symtab_needs(dynamic, "__cxa_throw") ||
	       symtab_needs(dynamic, "_ZSt17__throw_bad_allocv");
}

static int is_except_table(const struct image_section_info *section, void *context)
{
	(void)context;
	return !strcmp(section->name, ".gcc_except_table");
}

/*
 * May exceptions pass through its functions, whatever these are called? It throws some itself, or has
 * code that is to run when one passes.
 */
static bool has_exceptions(const struct image *image, const struct symtab *dynamic)
{
	return imports_throwing(dynamic) || image_for_each_section(image, is_except_table, NULL);
}

/* What the user named tells nothing by its name; of the families' functions it is known. */
static void mark_throwing(struct candidates *candidates)
{
	for (size_t i = 0; i < candidates->count; i++) {
		struct candidate *candidate = &candidates->items[i];

		candidate->throws |= candidate->family == FAMILY_CUSTOM &&
				     shape_allocates(candidate->function->shape);
	}
}

static void cleanup_allocator(struct allocator **allocator)
{
	allocator_free(*allocator);
}

int allocator_find(const struct image *image, const struct image *symbols,
		   const struct allocator_extras *extras, struct allocator **out)
{
	CLEANUP(candidates_deinit)
	struct candidates candidates = {.image = image, .extras = extras};
	CLEANUP(code_ranges_deinit) struct code_ranges ranges = {0};
	CLEANUP(cleanup_allocator) struct allocator *allocator = NULL;
	CLEANUP(symtab_deinit) struct symtab dynamic = {0};
	CLEANUP(plt_deinit) struct plt plt = {0};
	int err;

	err = find_candidates(image, symbols, &candidates, &dynamic);
	if (err)
		return err;
	allocator = calloc(1, sizeof(*allocator));
	if (!allocator)
		return -ENOMEM;
	describe(&candidates, allocator);
	allocator->throws_by_import = imports_throwing(&dynamic);
	if (has_exceptions(image, &dynamic))
		mark_throwing(&candidates);
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

struct allocator *allocator_share(struct allocator *allocator)
{
	if (allocator)
		allocator->shares++;
	return allocator;
}

void allocator_free(struct allocator *allocator)
{
	if (!allocator || allocator->shares--)
		return;
	for (size_t i = 0; i < allocator->function_count; i++)
		free(allocator->functions[i].name);
	vec_for_each(left_out, &allocator->left_out)
		free(left_out->name);
	free(allocator->functions);
	free(allocator->left_out.items);
	free(allocator->handovers.items);
	free(allocator->nested_returns);
	free(allocator);
}

/* --- exceptions --- */

/* Itanium C++ ABI, "Level I: base ABI": who calls these goes up the stack by return addresses. */
static const struct family_function unwinder_functions[] = {
	{.name = "_Unwind_RaiseException", .shape = SHAPE_UNWIND},
	{.name = "_Unwind_ForcedUnwind", .shape = SHAPE_UNWIND},
	{.name = "_Unwind_Resume_or_Rethrow", .shape = SHAPE_UNWIND},
	{0},
};

static int visit_unwinder(const struct image_symbol *symbol, void *context)
{
	static const struct family unwinder = {.functions = unwinder_functions};

	return add_candidate(context, symbol, FAMILY_CUSTOM, "",
			     family_find(&unwinder, "", symbol->name));
}

int allocator_find_unwinder(const struct image *image, struct allocator **out)
{
	CLEANUP(candidates_deinit) struct candidates candidates = {.image = image};
	CLEANUP(code_ranges_deinit) struct code_ranges ranges = {0};
	CLEANUP(cleanup_allocator) struct allocator *allocator = NULL;
	int err = image_for_each_function(image, visit_unwinder, &candidates);

	if (err)
		return err;
	if (!candidates.count)
		return -ENOENT;
	sort_by_address(&candidates);
	err = merge_aliases(&candidates);
	allocator = calloc(1, sizeof(*allocator));
	if (err || !allocator)
		return -ENOMEM;
	err = code_ranges_load(image, &ranges);
	if (!err)
		err = add_functions(image, &candidates, &ranges, allocator);
	if (!err && !allocator->function_count) /* none that a guard could be put into */
		err = -ENOENT;
	if (err)
		return err;
	*out = TAKE(allocator);
	return 0;
}
