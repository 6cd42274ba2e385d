/*
 * The DWARF of one image, by address. The units are sorted by their ranges once; a unit's functions
 * and inlined calls are indexed when an address in it is first asked for. That is what makes
 * thousands of lookups in a big C++ program a matter of a second: libdw's own search walks the
 * unit's tree for each.
 */
#ifndef ALLOCTRACE_DWARF_INDEX_H
#define ALLOCTRACE_DWARF_INDEX_H

#include "binary/image.h"
#include "symbol/debug_search.h"

#include <elfutils/libdw.h>

/* Per image, as the budget (symbol/budget.h): what is beyond comes from symbol tables. */
#define DWARF_UNITS_MAX (1u << 20)
#define DWARF_DEPTH_MAX 512 /* of nested scopes; deeper ones belong to the one above */

struct dwarf_index;

/* One level of an address. Strings are valid as long as the index and its Dwarf. */
struct dwarf_frame {
	const char *name; /* DW_AT_name; NULL: unknown, and on the only level: no function there */
	const char *linkage_name;  /* NULL: none */
	const char *file;	   /* "" where unknown */
	uint32_t line, start_line; /* 0: unknown */
	bool physical;		   /* not inlined: the symbol tables may know it, too */
	uint64_t entry;		   /* of a physical one: its first address; 0: unknown */
};

/*
 * dwarf and image (whose segments say what is code) must live as long as *out, and so must search,
 * which is told of .dwo files. 0 or -ENOMEM.
 */
int dwarf_index_new(Dwarf *dwarf, const struct image *image, const struct debug_search *search,
		    struct dwarf_index **out);
void dwarf_index_free(struct dwarf_index *index);

/*
 * The levels at a link-time address, innermost first, the physical function last, at most max.
 * Their number; 0: no unit holds the address; -ENOMEM.
 */
int dwarf_index_lookup(struct dwarf_index *index, uint64_t vaddr, struct dwarf_frame *frames,
		       size_t max);

/* Units whose functions are in .dwo files that were looked for, and why they are not known. */
struct dwarf_split_counts {
	uint32_t missing; /* no such file, or not one to be used */
	uint32_t stale;	  /* of another compilation */
};

struct dwarf_split_counts dwarf_index_split_counts(const struct dwarf_index *index);

/*
 * Was there more than the budget pays for, or something that is not to be given to libdw? From then on,
 * nothing is found here.
 */
bool dwarf_index_is_limited(const struct dwarf_index *index);

/* Are there line tables at all? */
bool dwarf_index_has_lines(const struct dwarf_index *index);

#endif
