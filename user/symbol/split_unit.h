/*
 * Units that were compiled with -gsplit-dwarf (DWARF 5, 7.3.2; DWARF 4 as in
 * https://gcc.gnu.org/wiki/DebugFission): the image has a skeleton of each, with its addresses and
 * lines; functions and inlined calls are in a .dwo file that the skeleton names. It is used only if it
 * states the skeleton's id: a later compilation has another.
 *
 * libdw would open the file by itself, with a plain open() of a path that a hostile file states, if it
 * were asked for a skeleton's "subdie" (dwarf_get_units(), dwarf_cu_info()): never do. It is opened
 * here instead, and what in it refers to the skeleton's file is resolved in die_ranges.c.
 *
 * Not supported: packages of .dwo files (.dwp).
 */
#ifndef ALLOCTRACE_SPLIT_UNIT_H
#define ALLOCTRACE_SPLIT_UNIT_H

#include "binary/image.h"
#include "symbol/budget.h"
#include "symbol/debug_search.h"
#include "symbol/die_ranges.h"

/* Per image; what is beyond comes from symbol tables. DEBUGINFO_BYTES_MAX is for all files as well. */
#define SPLIT_FILES_MAX 16384

/* The .dwo files of one image. */
struct split_files;

/* A unit of one of them. Borrowed from it. */
struct split_unit {
	uint64_t id;
	Dwarf *dwarf;
	Dwarf_Die die;
	const struct dwarf_sections *sections; /* of its file */
};

/*
 * They are looked for in the root of image, and told to search->looked; budget pays for them. All three
 * must live as long as *out. 0 or -ENOMEM.
 */
int split_files_new(const struct image *image, const struct debug_search *search,
		    struct budget *budget, struct split_files **out);
void split_files_free(struct split_files *files);

/*
 * The other half of a skeleton in a file with those sections (or of what dwarf_get_units() calls one), as long as files lives. Its
 * file is opened on first use. 0; -ENOENT: no such file, or not one to be used; -ESTALE: the file has
 * no unit with the skeleton's id; -E2BIG: over a limit; -ENOMEM.
 */
int split_files_find(struct split_files *files, const struct dwarf_sections *sections,
		     Dwarf_Die *skeleton, struct split_unit *out);

#endif
