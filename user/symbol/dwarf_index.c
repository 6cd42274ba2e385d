/*
 * Two levels of the same structure (interval_map): address -> unit, and in a unit address -> the
 * innermost function or inlined call. The enclosing ones follow from parent links, which always
 * lead to an entry made earlier, so they end whatever the file says.
 *
 * The units' ranges come from the unit DIEs: .debug_aranges may be missing, and is with clang. A
 * unit's tree is walked once, front to back, with a stack of our own; dwarf_siblingof() tells where
 * the children of a DIE end, so nothing is read twice. References between DIEs are followed only
 * for names, at lookup, by dwarf_attr_integrate(), which gives up after 16 of them.
 *
 * Functions that the linker has thrown away are still in the DWARF, at address 0 or so. Only ranges
 * that begin in code count.
 */
#include "symbol/dwarf_index.h"

#include "symbol/abbrev_check.h"
#include "symbol/budget.h"
#include "symbol/debuginfo.h"
#include "symbol/die_ranges.h"
#include "symbol/die_string.h"
#include "symbol/interval_map.h"
#include "symbol/line_table.h"
#include "symbol/split_unit.h"
#include "util/cleanup.h"
#include "util/hash_index.h"
#include "util/vec.h"

#include <dwarf.h>
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#define NO_FUNCTION UINT32_MAX

/* What things cost of the budget (measured): a range with its place in a map, a DIE. */
#define RANGE_STEPS 10
#define RANGE_BYTES 56
#define DIE_STEPS   8
/* A byte of a line program, of which at most each makes a row. */
#define LINE_STEPS 2
#define LINE_BYTES 12
#define BYTE_STEPS 2
/* A reference from DIE to DIE, with a look at the attributes of both. */
#define REFERENCE_STEPS 50
/* As in libdw: so many are followed for an attribute. */
#define REFERENCES_MAX 16
/* Longer names are no names. */
#define NAME_MAX_BYTES (64 * 1024)

/* A DW_TAG_subprogram or DW_TAG_inlined_subroutine that has code. */
struct function {
	Dwarf_Off die;
	uint32_t parent; /* index of what it is inlined into, lower than its own; NO_FUNCTION:
			    physical */
};

struct unit {
	Dwarf_Die die;
	bool indexed, skeleton;
	Dwarf *dwarf;		   /* where its functions are, once it is indexed; borrowed */
	struct range_unit *ranges; /* of those, owned */
	const struct dwarf_sections *split_sections; /* of that file, if it is a .dwo; borrowed */
	struct {
		struct function *items; /* owned, in the order of the tree */
		size_t count, capacity;
	} functions;
	struct interval_map map; /* values: indices of functions */
};

struct intervals {
	struct interval *items; /* owned */
	size_t count, capacity;
};

/* Line tables by their offset in .debug_line: units may share one. */
struct lines {
	struct {
		struct lines_at {
			uint64_t offset;
			struct line_table *table; /* owned; NULL: not to be read */
		} * items;			  /* owned */
		size_t count, capacity;
	} tables;
	struct hash_index by_offset;
	struct line_sections sections;
	uint64_t left; /* bytes that may still be read: not more than there are */
};

struct dwarf_index {
	Dwarf *dwarf;		   /* borrowed */
	const struct image *image; /* borrowed */
	struct {
		struct unit *items; /* owned */
		size_t count, capacity;
	} units;
	struct interval_map map; /* values: indices of units */
	struct budget budget;
	void *paid; /* tsearch() tree of Dwarf_CU whose abbreviations are paid for, owned */
	struct lines lines;
	struct dwarf_sections moved; /* those of the file that dwz has moved DIEs to */
	struct dwarf_sections sections;
	struct split_files *split; /* owned */
	struct dwarf_split_counts split_counts;
};

/* --- what libdw costs --- */

static int compare_addresses(const void *a, const void *b)
{
	return ((uintptr_t)a > (uintptr_t)b) - ((uintptr_t)a < (uintptr_t)b);
}

/* Of the file that holds something, where a unit has led to it. */
static const struct dwarf_sections *sections_of(const struct dwarf_index *index,
						const struct unit *unit, Dwarf_CU *cu)
{
	Dwarf *dwarf = dwarf_cu_getdwarf(cu);

	if (dwarf == index->dwarf)
		return &index->sections;
	return dwarf == unit->dwarf ? unit->split_sections : &index->moved;
}

/*
 * Pays for what libdw may read and keep of the abbreviations of the unit that holds a DIE, once. unit:
 * the one that leads to it. False: the budget is over.
 */
static bool pay_for_unit(struct dwarf_index *index, const struct unit *unit, Dwarf_Die *die)
{
	Dwarf_Off from_header = dwarf_cuoffset(die);

	if (tfind(die->cu, &index->paid, compare_addresses))
		return true;
	if (from_header == (Dwarf_Off)-1 || !tsearch(die->cu, &index->paid, compare_addresses))
		return false;
	return abbrev_pay((const uint8_t *)die->addr - from_header, from_header,
			  sections_of(index, unit, die->cu)->abbrev, &index->budget);
}

/* Pays for a look at a DIE, each of which goes through its attributes. */
static bool pay_for_die(struct dwarf_index *index, Dwarf_Die *die)
{
	size_t attributes = 0;

	/* dwarf_tag() finds the abbreviation. */
	if (dwarf_tag(die) != DW_TAG_invalid)
		dwarf_getattrcnt(die->abbrev, &attributes);
	return budget_spend(&index->budget, DIE_STEPS + attributes, 0);
}

/* --- ranges --- */

static bool is_code(const struct image *image, uint64_t low, uint64_t high)
{
	if (!low || high <= low)
		return false;
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];

		if (segment->executable && low >= segment->vaddr &&
		    high - segment->vaddr <= segment->mem_size)
			return true;
	}
	return false;
}

/* Adds the ranges of a DIE of a unit. Their number, -E2BIG over the limit, -ENOMEM. */
static int add_ranges(struct dwarf_index *index, const struct range_unit *unit, Dwarf_Die *die,
		      uint64_t priority, uint32_t value, struct intervals *to)
{
	struct die_ranges ranges;
	uint64_t low, high;
	int added = 0;

	if (!die_ranges_begin(&ranges, unit, die))
		return 0;
	while (die_ranges_next(&ranges, &low, &high)) {
		int err;

		if (!budget_spend(&index->budget, RANGE_STEPS, 0))
			return -E2BIG;
		if (!is_code(index->image, low, high))
			continue;
		if (!budget_spend(&index->budget, 0, RANGE_BYTES))
			return -E2BIG;
		err = vec_push(to, (struct interval){low, high, priority, value});
		if (err)
			return err;
		added++;
	}
	return added;
}

/* --- one unit's tree --- */

struct walk {
	struct dwarf_index *index;
	struct unit *unit;
	struct intervals *intervals;
	Dwarf_Die root; /* of its tree */
	Dwarf_Off end;	/* of the unit */
	size_t depth;
	uint32_t inside[DWARF_DEPTH_MAX]; /* the function that holds the DIEs at each depth */
};

/* Remembers a function. Its index in *inside where it has code. 0, -E2BIG, -ENOMEM. */
static int add_function(struct walk *walk, Dwarf_Die *die, uint32_t parent, uint32_t *inside)
{
	struct unit *unit = walk->unit;
	uint32_t number = (uint32_t)unit->functions.count;
	int added = -E2BIG;

	if (budget_spend(&walk->index->budget, 0, 2 * sizeof(struct function)))
		added = vec_push(&unit->functions,
				 (struct function){.die = dwarf_dieoffset(die), .parent = parent});

	if (added < 0)
		return added;
	/* Of identical functions that the linker has made one, the first: its lines are there. */
	added = add_ranges(walk->index, walk->unit->ranges, die,
			   (uint64_t)walk->depth << 32 | (UINT32_MAX - number), number,
			   walk->intervals);
	if (added > 0)
		*inside = number;
	else if (added == 0)
		unit->functions.count--; /* after an error, ranges may refer to it */
	return added < 0 ? added : 0;
}

/* Looks at one DIE. 1: go into its children, with *inside around them; 0: do not; -E2BIG, -ENOMEM.
 */
static int visit(struct walk *walk, Dwarf_Die *die, uint32_t *inside)
{
	uint32_t around = *inside;
	int err;

	switch (dwarf_tag(die)) {
	case DW_TAG_subprogram:
		*inside = NO_FUNCTION;
		err = add_function(walk, die, NO_FUNCTION, inside);
		/* Without code it is a declaration, or the pattern that inlined calls refer to. */
		return err ? err : *inside != NO_FUNCTION;
	case DW_TAG_inlined_subroutine:
		err = add_function(walk, die, around, inside);
		return err ? err : 1;
	case DW_TAG_lexical_block:
	case DW_TAG_try_block:
	case DW_TAG_catch_block:
	case DW_TAG_with_stmt:
	case DW_TAG_namespace:
	case DW_TAG_module:
	case DW_TAG_class_type:
	case DW_TAG_structure_type:
	case DW_TAG_union_type:
	case DW_TAG_interface_type:
		return 1;
	default:
		return 0;
	}
}

/*
 * The DIE behind the children of a DIE, of which `last` was the last one. dwarf_siblingof() has
 * left in *next the address of the zero byte that ends them. 0, 1: the parent was the last child in
 * turn, *next as before; -1: the unit ends here.
 */
static int climb(struct walk *walk, const Dwarf_Die *last, Dwarf_Off last_offset, Dwarf_Die *next)
{
	const unsigned char *terminator = next->addr;
	Dwarf_Off after;

	if (!terminator || terminator < (const unsigned char *)last->addr)
		return -1;
	after = last_offset + (Dwarf_Off)(terminator - (const unsigned char *)last->addr) + 1;
	if (after >= walk->end)
		return -1;
	if (terminator[1] == 0) {
		next->addr = (void *)(terminator + 1);
		return 1;
	}
	return dwarf_offdie(walk->unit->dwarf, after, next) ? 0 : -1;
}

/* Steps over die (and what is below it), up where it is the last of its level. False: the tree
 * ends. */
static bool step(struct walk *walk, Dwarf_Die *die)
{
	Dwarf_Off offset = dwarf_dieoffset(die);
	Dwarf_Die next;
	int end = dwarf_siblingof(die, &next);

	while (end == 1) {
		if (!walk->depth)
			return false;
		walk->depth--;
		end = climb(walk, die, offset, &next);
	}
	if (end < 0 || dwarf_dieoffset(&next) <= offset)
		return false;
	*die = next;
	return true;
}

/* 0; -E2BIG where a limit ends it; -ENOMEM. */
static int walk_tree(struct walk *walk)
{
	Dwarf_Die die, child;

	walk->inside[0] = NO_FUNCTION;
	if (dwarf_child(&walk->root, &die))
		return 0;
	for (;;) {
		uint32_t inside = walk->inside[walk->depth];
		int descend;

		if (!pay_for_die(walk->index, &die))
			return -E2BIG;
		descend = visit(walk, &die, &inside);
		if (descend < 0)
			return descend;
		if (descend && walk->depth + 1 < DWARF_DEPTH_MAX &&
		    dwarf_child(&die, &child) == 0) {
			walk->inside[++walk->depth] = inside;
			die = child;
		} else if (!step(walk, &die)) {
			return 0;
		}
	}
}

/* A skeleton's functions are in another file. False: it cannot be had. */
static bool begin_split(struct walk *walk, int *err)
{
	struct dwarf_index *index = walk->index;
	struct unit *unit = walk->unit;
	struct split_unit split;

	*err = split_files_find(index->split, &index->sections, &unit->die, &split);
	if (*err == -ESTALE)
		index->split_counts.stale++;
	else if (*err)
		index->split_counts.missing++;
	if (*err)
		return false;
	unit->dwarf = split.dwarf;
	unit->split_sections = split.sections;
	walk->root = split.die;
	return range_unit_init_split(walk->unit->ranges, &split.die, split.sections, &unit->die,
				     &index->sections);
}

static bool begin_walk(struct walk *walk, int *err)
{
	Dwarf_Off start;

	*err = 0;
	walk->unit->dwarf = walk->index->dwarf;
	if (walk->unit->skeleton) {
		if (!begin_split(walk, err))
			return false;
	} else {
		walk->root = walk->unit->die;
		if (!range_unit_init(walk->unit->ranges, &walk->root, &walk->index->sections))
			return false;
	}
	start = dwarf_dieoffset(&walk->root) - dwarf_cuoffset(&walk->root);
	if (dwarf_next_unit(walk->unit->dwarf, start, &walk->end, NULL, NULL, NULL, NULL, NULL,
			    NULL, NULL) != 0)
		return false;
	/* What a unit says of its length is not checked by libdw. */
	if (!walk->unit->ranges->sections.info)
		return false;
	if (walk->end > walk->unit->ranges->sections.info->d_size)
		walk->end = walk->unit->ranges->sections.info->d_size;
	/* dwarf_siblingof() goes through what is not looked at here. */
	if (walk->end < start ||
	    !budget_spend(&walk->index->budget, (walk->end - start) * BYTE_STEPS, 0)) {
		*err = -E2BIG;
		return false;
	}
	return true;
}

/* Indexes a unit's functions. 0, also if its tree is broken or over a limit; -ENOMEM. */
static int index_unit(struct dwarf_index *index, struct unit *unit, struct intervals *intervals)
{
	CLEANUP(cleanup_free) struct walk *walk = calloc(1, sizeof(*walk));
	int err;

	if (!walk)
		return -ENOMEM;
	*walk = (struct walk){.index = index, .unit = unit, .intervals = intervals};
	unit->indexed = true;
	unit->ranges = calloc(1, sizeof(*unit->ranges));
	if (!unit->ranges)
		return -ENOMEM;
	if (begin_walk(walk, &err) && pay_for_unit(index, unit, &walk->root))
		err = walk_tree(walk);
	if (err == -ENOMEM)
		return err;
	return interval_map_init(&unit->map, intervals->items, intervals->count);
}

static int index_unit_lazily(struct dwarf_index *index, struct unit *unit)
{
	struct intervals intervals = {0};
	int err;

	if (unit->indexed)
		return 0;
	err = index_unit(index, unit, &intervals);
	free(intervals.items);
	return err;
}

/* --- all units --- */

/* The unit says nothing of its addresses, so its functions have to. */
static int add_unit_by_functions(struct dwarf_index *index, struct unit *unit, uint32_t number,
				 struct intervals *to)
{
	struct intervals own = {0};
	int err = index_unit(index, unit, &own);

	for (size_t i = 0; !err && i < own.count; i++)
		err = vec_push(to, (struct interval){own.items[i].low, own.items[i].high,
						     UINT32_MAX - number, number});
	free(own.items);
	return err;
}

static int add_unit(struct dwarf_index *index, Dwarf_Die *die, bool skeleton, struct intervals *to)
{
	uint32_t number = (uint32_t)index->units.count;
	struct range_unit ranges;
	int added = 0;

	if (range_unit_init(&ranges, die, &index->sections))
		added = add_ranges(index, &ranges, die, UINT32_MAX - number, number, to);
	if (added < 0)
		return added;
	if (vec_push(&index->units, (struct unit){.die = *die, .skeleton = skeleton}))
		return -ENOMEM;
	/* A skeleton without addresses is that of a unit without code. */
	if (!added && !skeleton && !dwarf_hasattr(die, DW_AT_ranges) &&
	    !dwarf_hasattr(die, DW_AT_high_pc))
		return add_unit_by_functions(index, &index->units.items[number], number, to);
	return 0;
}

static int add_units(struct dwarf_index *index)
{
	struct intervals intervals = {0};
	Dwarf_CU *cu = NULL;
	Dwarf_Die die;
	uint8_t type;
	int err = 0;

	/* Without a "subdie": symbol/split_unit.h says why. */
	while (!err && index->units.count < DWARF_UNITS_MAX &&
	       dwarf_get_units(index->dwarf, cu, &cu, NULL, &type, &die, NULL) == 0) {
		if (type == DW_UT_compile || type == DW_UT_skeleton)
			err = add_unit(index, &die, type == DW_UT_skeleton, &intervals);
	}
	if (err != -ENOMEM)
		err = interval_map_init(&index->map, intervals.items, intervals.count);
	free(intervals.items);
	return err;
}

static void find_sections(struct dwarf_index *index)
{
	Elf *elf = dwarf_getelf(index->dwarf);

	dwarf_sections_find(elf, false, &index->sections);
	index->lines.sections = (struct line_sections){
		.line = debuginfo_section(elf, ".debug_line"),
		.line_str = debuginfo_section(elf, ".debug_line_str"),
		.str = debuginfo_section(elf, ".debug_str"),
	};
	if (index->lines.sections.line)
		index->lines.left = index->lines.sections.line->d_size;
}

/* May libdw be let loose on it? */
static bool is_decent(struct dwarf_index *index)
{
	/* The caller has set it, or there is no link to it that libdw could follow. */
	Dwarf *alt = dwarf_getalt(index->dwarf);

	if (alt)
		dwarf_sections_find(dwarf_getelf(alt), false, &index->moved);
	if (abbrev_check(index->sections.info, false, index->sections.abbrev, &index->budget) &&
	    abbrev_check(index->sections.types, true, index->sections.abbrev, &index->budget) &&
	    abbrev_check(index->moved.info, false, index->moved.abbrev, &index->budget))
		return true;
	index->budget.over = true;
	return false;
}

int dwarf_index_new(Dwarf *dwarf, const struct image *image, const struct debug_search *search,
		    struct dwarf_index **out)
{
	struct dwarf_index *index = calloc(1, sizeof(*index));
	int err;

	if (!index)
		return -ENOMEM;
	index->dwarf = dwarf;
	index->image = image;
	index->budget = budget_new();
	find_sections(index);
	err = split_files_new(image, search, &index->budget, &index->split);
	if (!err && is_decent(index))
		err = add_units(index);
	if (err) {
		dwarf_index_free(index);
		return err;
	}
	*out = index;
	return 0;
}

/* What is not owned. */
static void leave(void *node)
{
	(void)node;
}

void dwarf_index_free(struct dwarf_index *index)
{
	if (!index)
		return;
	vec_for_each(lines, &index->lines.tables) {
		line_table_free(lines->table);
	}
	free(index->lines.tables.items);
	hash_index_deinit(&index->lines.by_offset);
	tdestroy(index->paid, leave);
	vec_for_each(unit, &index->units) {
		interval_map_deinit(&unit->map);
		free(unit->functions.items);
		free(unit->ranges);
	}
	interval_map_deinit(&index->map);
	split_files_free(index->split);
	free(index->units.items);
	free(index);
}

bool dwarf_index_has_lines(const struct dwarf_index *index)
{
	return index->lines.sections.line && index->lines.sections.line->d_size > 0 &&
	       index->units.count > 0;
}

bool dwarf_index_is_limited(const struct dwarf_index *index)
{
	return index->budget.over;
}

struct dwarf_split_counts dwarf_index_split_counts(const struct dwarf_index *index)
{
	return index->split_counts;
}

/* --- one address --- */

static bool has_offset(const void *owner, uint32_t index, const void *key)
{
	const struct lines *lines = owner;

	return lines->tables.items[index].offset == *(const uint64_t *)key;
}

/* Reads a table for the first time. *out: NULL where that is not to be. 0 or -ENOMEM. */
static int read_lines(struct dwarf_index *index, uint64_t offset, const char *folder,
		      struct line_table **out)
{
	struct lines *lines = &index->lines;
	uint64_t size = line_table_size(&lines->sections, offset);
	int err;

	*out = NULL;
	/* Those of a hostile file overlap. */
	if (!size || size > lines->left ||
	    !budget_spend(&index->budget, size * LINE_STEPS, size * LINE_BYTES))
		return 0;
	lines->left -= size;
	err = line_table_new(&lines->sections, offset, folder, out);
	return err == -ENOMEM ? err : 0;
}

/* The line table of a unit, NULL for none. 0 or -ENOMEM. */
static int find_lines(struct dwarf_index *index, struct unit *unit, struct line_table **out)
{
	struct lines *lines = &index->lines;
	const char *folder = NULL;
	struct lines_at found;
	Dwarf_Attribute attr;
	Dwarf_Word offset;
	uint64_t hash;
	uint32_t number;
	int err;

	*out = NULL;
	if (dwarf_formudata(dwarf_attr(&unit->die, DW_AT_stmt_list, &attr), &offset))
		return 0;
	found = (struct lines_at){.offset = offset};
	hash = hash_bytes(HASH_START, &found.offset, sizeof(found.offset));
	if (hash_index_find(&lines->by_offset, hash, has_offset, lines, &found.offset, &number)) {
		*out = lines->tables.items[number].table;
		return 0;
	}
	err = hash_index_reserve(&lines->by_offset);
	if (err)
		return err;
	if (dwarf_attr(&unit->die, DW_AT_comp_dir, &attr))
		folder = die_string(&index->sections, &attr, PATH_MAX);
	err = read_lines(index, offset, folder, &found.table);
	if (err)
		return err;
	err = vec_push(&lines->tables, found);
	if (err) {
		line_table_free(found.table);
		return err;
	}
	hash_index_add(&lines->by_offset, hash, (uint32_t)(lines->tables.count - 1));
	*out = found.table;
	return 0;
}

static void set_line(struct line_table *lines, uint64_t vaddr, struct dwarf_frame *frame)
{
	uint64_t file;
	uint32_t line;

	if (!lines || !line_table_find(lines, vaddr, &file, &line))
		return;
	frame->file = line_table_path(lines, file);
	frame->line = frame->file[0] ? line : 0;
}

/* Where an inlined call stands in the function around it. */
static void set_call_line(struct line_table *lines, Dwarf_Die *inlined, struct dwarf_frame *frame)
{
	Dwarf_Word file, line;
	Dwarf_Attribute attr;

	if (!lines || dwarf_formudata(dwarf_attr(inlined, DW_AT_call_file, &attr), &file))
		return;
	frame->file = line_table_path(lines, file);
	if (frame->file[0] &&
	    !dwarf_formudata(dwarf_attr(inlined, DW_AT_call_line, &attr), &line) &&
	    line <= INT32_MAX)
		frame->line = (uint32_t)line;
}

/*
 * An attribute of a function, or of what it is an instance of. As dwarf_attr_integrate(), but paid for.
 */
static bool find_attribute(struct dwarf_index *index, const struct unit *unit, Dwarf_Die die,
			   unsigned int name, Dwarf_Attribute *attr)
{
	for (unsigned int i = 0; i <= REFERENCES_MAX; i++) {
		if (!pay_for_unit(index, unit, &die) ||
		    !budget_spend(&index->budget, REFERENCE_STEPS, 0))
			return false;
		if (dwarf_attr(&die, name, attr))
			return true;
		if (!dwarf_attr(&die, DW_AT_abstract_origin, attr) &&
		    !dwarf_attr(&die, DW_AT_specification, attr))
			return false;
		if (!dwarf_formref_die(attr, &die))
			return false;
	}
	return false;
}

static const char *string_of(struct dwarf_index *index, const struct unit *unit,
			     const Dwarf_Die *die, unsigned int name)
{
	Dwarf_Attribute attr;

	if (!find_attribute(index, unit, *die, name, &attr))
		return NULL;
	return die_string(sections_of(index, unit, attr.cu), &attr, NAME_MAX_BYTES);
}

static void set_function(struct dwarf_index *index, const struct unit *unit, const Dwarf_Die *die,
			 struct dwarf_frame *frame)
{
	Dwarf_Attribute attr;
	Dwarf_Word line;

	frame->name = string_of(index, unit, die, DW_AT_name);
	frame->linkage_name = string_of(index, unit, die, DW_AT_linkage_name);
	if (!frame->linkage_name)
		frame->linkage_name = string_of(index, unit, die, DW_AT_MIPS_linkage_name);
	if (find_attribute(index, unit, *die, DW_AT_decl_line, &attr) &&
	    !dwarf_formudata(&attr, &line) && line <= INT32_MAX)
		frame->start_line = (uint32_t)line;
}

/* Where a function begins: with the first of its ranges. */
static uint64_t entry_of(const struct unit *unit, Dwarf_Die *die)
{
	struct die_ranges ranges;
	uint64_t low, high;

	if (!die_ranges_begin(&ranges, unit->ranges, die))
		return 0;
	do {
		if (!die_ranges_next(&ranges, &low, &high))
			return 0;
	} while (low == high);
	return low;
}

int dwarf_index_lookup(struct dwarf_index *index, uint64_t vaddr, struct dwarf_frame *frames,
		       size_t max)
{
	struct line_table *lines;
	struct unit *unit;
	uint32_t number;
	size_t count = 0;
	int err;

	if (!max || index->budget.over || !interval_map_find(&index->map, vaddr, &number))
		return 0;
	unit = &index->units.items[number];
	err = index_unit_lazily(index, unit);
	if (!err)
		err = find_lines(index, unit, &lines);
	if (err)
		return err;
	frames[0] = (struct dwarf_frame){.file = "", .physical = true};
	set_line(lines, vaddr, &frames[0]);
	if (!interval_map_find(&unit->map, vaddr, &number))
		return 1;
	for (;;) {
		const struct function *function = &unit->functions.items[number];
		Dwarf_Die die;

		if (!dwarf_offdie(unit->dwarf, function->die, &die))
			return (int)(count + 1);
		number = function->parent;
		set_function(index, unit, &die, &frames[count]);
		frames[count].physical = number == NO_FUNCTION;
		if (number == NO_FUNCTION)
			frames[count].entry = entry_of(unit, &die);
		count++;
		if (number == NO_FUNCTION || count == max)
			return (int)count;
		frames[count] = (struct dwarf_frame){.file = ""};
		set_call_line(lines, &die, &frames[count]);
	}
}
