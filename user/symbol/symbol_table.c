/*
 * Several names for one address are the rule in C libraries. Which one is shown is decided once,
 * when the table is made, by what a reader of nm would expect: see compare_names().
 */
#include "symbol/symbol_table.h"

#include "binary/eh_frame.h"
#include "symbol/interval_map.h"
#include "symbol/plt_names.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Names are copied, and many symbols of a hostile file may share one long name. */
#define NAME_BYTES_MAX (512u << 20)
/* Names of one function that are looked at. libc has 12 of one; a hostile file may have millions. */
#define ALIASES_MAX 64

struct symbol {
	uint64_t low, high;
	uint64_t name; /* offset in names */
	uint8_t binding;
	bool sized;
};

struct symbol_table {
	struct {
		struct symbol *items;
		size_t count, capacity;
	} symbols;
	size_t functions; /* of the symbols, without the PLT's entries */
	struct {
		char *items; /* NUL-terminated names, one after another */
		size_t count, capacity;
	} names;
	struct interval_map map; /* values: indices of symbols */
};

/* What is needed while symbols are collected from one image. */
struct collector {
	struct symbol_table *table;
	const struct image *image; /* the one that is mapped: its segments say where code is */
	uint64_t *section_ends;	   /* by index; 0: not a section with code */
};

static const struct image_segment *text_segment(const struct image *image, uint64_t vaddr)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (segment->executable && vaddr >= segment->vaddr &&
		    vaddr - segment->vaddr < segment->mem_size)
			return segment;
	}
	return NULL;
}

static int add_name(struct symbol_table *table, const char *name, uint64_t *offset)
{
	size_t length = strlen(name) + 1;

	*offset = table->names.count;
	while (table->names.capacity - table->names.count < length) {
		int err = vec_reserve((void **)&table->names.items, &table->names.capacity,
				      table->names.capacity, 1);

		if (err)
			return err;
	}
	memcpy(table->names.items + table->names.count, name, length);
	table->names.count += length;
	return 0;
}

static int add_symbol(const struct image_symbol *from, void *context)
{
	const struct collector *collector = context;
	const struct image_segment *segment = text_segment(collector->image, from->vaddr);
	struct symbol symbol = {
		.low = from->vaddr,
		.binding = from->binding,
		.sized = from->size > 0,
	};
	uint64_t end;
	int err;

	/* Symbols at 0 are functions that the linker has thrown away. */
	if (!segment || !from->vaddr)
		return 0;
	if (collector->table->symbols.count >= SYMBOL_TABLE_MAX ||
	    collector->table->names.count >= NAME_BYTES_MAX)
		return 1;
	end = segment->vaddr + segment->mem_size;
	if (symbol.sized) {
		symbol.high = from->size < end - symbol.low ? symbol.low + from->size : end;
	} else {
		uint64_t section_end = from->section < IMAGE_SECTIONS_MAX
					       ? collector->section_ends[from->section]
					       : 0;

		/* Up to the next symbol, which is not known yet. */
		symbol.high = section_end < end ? section_end : end;
		if (symbol.high <= symbol.low)
			return 0;
	}
	err = add_name(collector->table, from->name, &symbol.name);
	return err ? err : vec_push(&collector->table->symbols, symbol);
}

static int note_section_end(const struct image_section_info *section, void *context)
{
	const GElf_Shdr *header = &section->header;
	uint64_t *ends = context, end;

	if (header->sh_flags & SHF_EXECINSTR && section->index < IMAGE_SECTIONS_MAX &&
	    !__builtin_add_overflow(header->sh_addr, header->sh_size, &end))
		ends[section->index] = end;
	return 0;
}

static int collect(struct symbol_table *table, const struct image *image, const struct image *from)
{
	CLEANUP(cleanup_free) uint64_t *ends = calloc(IMAGE_SECTIONS_MAX, sizeof(*ends));
	struct collector collector = {
		.table = table,
		.image = image,
		.section_ends = ends,
	};

	if (!ends)
		return -ENOMEM;
	image_for_each_section(from, note_section_end, ends);
	/* A broken table is as good as one that ends where it breaks. */
	if (image_for_each_function(from, add_symbol, &collector) == -ENOMEM)
		return -ENOMEM;
	table->functions = table->symbols.count;
	return 0;
}

static int collect_plt(struct symbol_table *table, const struct image *image)
{
	struct collector collector = {.table = table, .image = image};

	return plt_names_for_each(image, add_symbol, &collector);
}

/* --- which name wins --- */

static unsigned int leading_underscores(const char *name)
{
	return (unsigned int)strspn(name, "_");
}

static int binding_rank(uint8_t binding)
{
	return binding == STB_LOCAL ? 0 : 1;
}

/*
 * Positive where the name of x is the better one for the same address: exported before local, fewer
 * underscores (malloc, not __libc_malloc; write, which is weak, not __write), global before weak,
 * short before long; then any order, as long as it is always the same.
 */
static int compare_names(const struct symbol_table *table, const struct symbol *x,
			 const struct symbol *y)
{
	const char *a = table->names.items + x->name, *b = table->names.items + y->name;
	int rank = binding_rank(x->binding) - binding_rank(y->binding);
	size_t a_length, b_length;

	if (rank)
		return rank;
	if (leading_underscores(a) != leading_underscores(b))
		return leading_underscores(a) < leading_underscores(b) ? 1 : -1;
	if ((x->binding == STB_WEAK) != (y->binding == STB_WEAK))
		return x->binding == STB_WEAK ? -1 : 1;
	a_length = strlen(a);
	b_length = strlen(b);
	if (a_length != b_length)
		return a_length < b_length ? 1 : -1;
	return -strcmp(a, b);
}

/* By address, then from the least to the most wanted name. */
static int compare_symbols(const void *a, const void *b, void *context)
{
	const struct symbol *x = a, *y = b;

	if (x->low != y->low)
		return x->low < y->low ? -1 : 1;
	if (x->sized != y->sized)
		return x->sized ? 1 : -1;
	return compare_names(context, x, y);
}

/* Cuts each symbol without a size where the next one of its section begins. */
static void cut_unsized(struct symbol_table *table)
{
	struct symbol *symbols = table->symbols.items;

	for (size_t i = table->symbols.count, next = table->symbols.count; i-- > 0;) {
		/* next: the first symbol at a higher address */
		if (i + 1 < table->symbols.count && symbols[i + 1].low != symbols[i].low)
			next = i + 1;
		if (symbols[i].sized || next == table->symbols.count)
			continue;
		/* In another section it does not matter: this one's end comes first. */
		if (symbols[next].low < symbols[i].high)
			symbols[i].high = symbols[next].low;
	}
}

/* --- symbols without a size, of a file without its local symbols --- */

static int is_symtab(const struct image_section_info *section, void *context)
{
	(void)context;
	return section->header.sh_type == SHT_SYMTAB;
}

struct entries {
	struct cfi_registers registers;
	int32_t cfa_off; /* at the entry of a function */
	struct addresses {
		uint64_t *items; /* owned; rising */
		size_t count, capacity;
	} at;
};

static int visit_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *context)
{
	struct entries *entries = context;

	(void)end;
	if (row->cfa_kind != CFI_CFA_REG || row->cfa_reg != entries->registers.sp ||
	    row->cfa_off != entries->cfa_off)
		return 0;
	return vec_push(&entries->at, start);
}

/*
 * Where functions may begin, by the unwind information: rows with nothing on the stack but the return
 * address. A few are within a function, behind its last pop.
 */
static int find_entries(const struct image *image, struct entries *entries)
{
	struct eh_frame *frame;
	int err;

	if (!cfi_registers_of(image->machine, &entries->registers))
		return 0;
	entries->cfa_off = image->machine == EM_X86_64 ? 8 : 0;
	err = eh_frame_open(image, &frame);
	if (err)
		return err == -ENOMEM ? err : 0;
	err = eh_frame_for_each_row(frame, visit_row, entries);
	eh_frame_free(frame);
	return err;
}

/*
 * Cuts each symbol without a size where a function may begin that has lost its symbol. Too short is
 * no lie.
 */
static int cut_stripped(struct symbol_table *table, const struct image *image)
{
	struct entries entries = {0};
	struct symbol *symbols = table->symbols.items;
	int err = find_entries(image, &entries);

	for (size_t i = 0, next = 0; !err && i < table->symbols.count; i++) {
		while (next < entries.at.count && entries.at.items[next] <= symbols[i].low)
			next++;
		if (next == entries.at.count)
			break;
		if (!symbols[i].sized && entries.at.items[next] < symbols[i].high)
			symbols[i].high = entries.at.items[next];
	}
	free(entries.at.items);
	return err;
}

static bool lacks_local_symbols(const struct image *image, const struct image *debug)
{
	return !image_for_each_section(image, is_symtab, NULL) &&
	       !(debug && image_for_each_section(debug, is_symtab, NULL));
}

static bool has_unsized(const struct symbol_table *table)
{
	vec_for_each(symbol, &table->symbols) {
		if (!symbol->sized)
			return true;
	}
	return false;
}

static int build_map(struct symbol_table *table, const struct image *image,
		     const struct image *debug)
{
	int err;

	CLEANUP(cleanup_free) struct interval *intervals = NULL;
	size_t count = table->symbols.count;

	if (!count)
		return 0;
	intervals = calloc(count, sizeof(*intervals));
	if (!intervals)
		return -ENOMEM;
	qsort_r(table->symbols.items, count, sizeof(struct symbol), compare_symbols, table);
	cut_unsized(table);
	if (has_unsized(table) && lacks_local_symbols(image, debug)) {
		err = cut_stripped(table, image);
		if (err)
			return err;
	}
	for (size_t i = 0; i < count; i++) {
		const struct symbol *symbol = &table->symbols.items[i];

		/* A size is a statement, its lack is not; of two that nest, the inner one begins
		 * later. */
		intervals[i] = (struct interval){
			.low = symbol->low,
			.high = symbol->high,
			.priority = (symbol->sized ? SYMBOL_TABLE_MAX : 0) + i,
			.value = (uint32_t)i,
		};
	}
	return interval_map_init(&table->map, intervals, count);
}

int symbol_table_new(const struct image *image, const struct image *debug,
		     struct symbol_table **out)
{
	struct symbol_table *table = calloc(1, sizeof(*table));
	int err;

	if (!table)
		return -ENOMEM;
	err = collect(table, image, image);
	if (!err && debug)
		err = collect(table, image, debug);
	if (!err)
		err = collect_plt(table, image);
	if (!err)
		err = build_map(table, image, debug);
	if (err) {
		symbol_table_free(table);
		return err;
	}
	*out = table;
	return 0;
}

void symbol_table_free(struct symbol_table *table)
{
	if (!table)
		return;
	interval_map_deinit(&table->map);
	free(table->names.items);
	free(table->symbols.items);
	free(table);
}

const char *symbol_table_find(const struct symbol_table *table, uint64_t vaddr)
{
	uint32_t index;

	if (!interval_map_find(&table->map, vaddr, &index))
		return NULL;
	return table->names.items + table->symbols.items[index].name;
}

/* Is it one of the first ALIASES_MAX names of what begins at an address? */
static bool has_name(const struct symbol_table *table, uint64_t vaddr, const char *name)
{
	size_t low = 0, high = table->symbols.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (table->symbols.items[middle].low < vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t i = low; i < table->symbols.count && i - low < ALIASES_MAX; i++) {
		const struct symbol *symbol = &table->symbols.items[i];

		if (symbol->low != vaddr)
			return false;
		if (!strcmp(table->names.items + symbol->name, name))
			return true;
	}
	return false;
}

const char *symbol_table_usual_name(const struct symbol_table *table, uint64_t vaddr,
				    const char *name)
{
	uint32_t index;

	if (!interval_map_find(&table->map, vaddr, &index) ||
	    table->symbols.items[index].low != vaddr || !has_name(table, vaddr, name))
		return NULL;
	return table->names.items + table->symbols.items[index].name;
}

size_t symbol_table_count(const struct symbol_table *table)
{
	return table->functions;
}
