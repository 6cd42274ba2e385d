/*
 * The addresses that a DIE states: DW_AT_low_pc and DW_AT_high_pc, or DW_AT_ranges (DWARF 5, 2.17 and
 * 7.28; DWARF 4, 2.17; for .dwo files of DWARF 4, https://gcc.gnu.org/wiki/DebugFission). Not by
 * dwarf_ranges(): in a split unit, what addresses refer to lies in another file, to which libdw has
 * no link but one that it makes by itself, opening whatever path is stated; and it reads all the
 * entries of a list that give no address in one go, which may be millions for each DIE.
 */
#ifndef ALLOCTRACE_DIE_RANGES_H
#define ALLOCTRACE_DIE_RANGES_H

#include "util/reader.h"

#include <elfutils/libdw.h>

/* The sections of a file that its DIEs are in, or refer to. Borrowed from its Elf; NULL: none. */
struct dwarf_sections {
	const Elf_Data *info;	  /* .debug_info */
	const Elf_Data *types;	  /* .debug_types */
	const Elf_Data *abbrev;	  /* .debug_abbrev */
	const Elf_Data *addr;	  /* .debug_addr */
	const Elf_Data *ranges;	  /* .debug_ranges */
	const Elf_Data *rnglists; /* .debug_rnglists */
};

/* What the DIEs of one unit take for granted. */
struct range_unit {
	struct dwarf_sections sections;
	uint16_t version;
	uint8_t offset_size;
	uint64_t base;	    /* of the unit: entries are relative to it */
	uint64_t addr_base; /* where the unit's part of .debug_addr begins */
	uint64_t
		ranges_base; /* version 5: of the offsets of .debug_rnglists; 4: of a split unit's */
};

/* Of the Elf that libdw has read; dwo: those whose names end so. */
void dwarf_sections_find(Elf *elf, bool dwo, struct dwarf_sections *out);

/* die: of a unit, or of a skeleton. False: not a unit of 64-bit addresses. */
bool range_unit_init(struct range_unit *unit, Dwarf_Die *die,
		     const struct dwarf_sections *sections);

/*
 * The same for die, the other half of a skeleton, in a file of its own; dwo: the sections there,
 * sections: those of the skeleton's file.
 */
bool range_unit_init_split(struct range_unit *unit, Dwarf_Die *die,
			   const struct dwarf_sections *dwo, Dwarf_Die *skeleton,
			   const struct dwarf_sections *sections);

/* A walk over the ranges of one DIE. */
struct die_ranges {
	const struct range_unit *unit; /* borrowed */
	struct reader list;	       /* fails at its end */
	uint64_t base, low, high;
	bool single; /* low and high are all */
};

/* False: it has none. */
bool die_ranges_begin(struct die_ranges *ranges, const struct range_unit *unit, Dwarf_Die *die);

/*
 * The next [*low, *high). An entry that gives none is told as an empty one (both 0): so each step is
 * a bounded one. False: that was all, or the list is broken.
 */
bool die_ranges_next(struct die_ranges *ranges, uint64_t *low, uint64_t *high);

#endif
