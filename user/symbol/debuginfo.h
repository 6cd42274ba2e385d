/*
 * An image's debug information, and libdw's handle on it: in the image, or in a separate file
 * (debug_search.h). Where there is neither, the symbol table that it may carry compressed.
 *
 * .dwo files: symbol/split_unit.h. Not supported: .dwp files (their units' lines are, their functions
 * come from the symbol tables).
 */
#ifndef ALLOCTRACE_DEBUGINFO_H
#define ALLOCTRACE_DEBUGINFO_H

#include "binary/image.h"
#include "symbol/debug_search.h"

#include <elfutils/libdw.h>

/*
 * Of an image's debug sections, decompressed: libdw holds them in memory. Where there are more,
 * only symbol tables are used.
 */
#define DEBUGINFO_BYTES_MAX (2ull << 30)

/* libdw at work on one file. All fields are owned; NULL: not there. */
struct debuginfo_file {
	void *bytes; /* the parts of the file that libdw reads, at their offsets; zeros between and
			behind */
	size_t mapped;
	uint64_t held; /* bytes of sections, decompressed: what it takes of DEBUGINFO_BYTES_MAX */
	Elf *elf;
	Dwarf *dwarf;
};

/* Which of a file's sections libdw is shown: an object file may hold both halves of its units. */
enum debuginfo_half {
	DEBUGINFO_PLAIN,
	DEBUGINFO_DWO, /* those whose names end in .dwo */
};

struct debuginfo {
	bool too_large; /* there is DWARF, more than DEBUGINFO_BYTES_MAX of it */
	struct image
		*separate; /* owned; has symbols even where it has no DWARF. NULL: none found */
	struct debuginfo_file main;  /* without dwarf where there is none that can be used */
	struct debuginfo_file extra; /* what dwz has moved out of main (.gnu_debugaltlink) */
};

/* image and search are not kept, what holds image's root must stay. 0, also where nothing is found;
 * -ENOMEM. */
int debuginfo_open(const struct image *image, const struct debug_search *search,
		   struct debuginfo **out);
void debuginfo_free(struct debuginfo *debuginfo);

/*
 * Opens the DWARF of image, which is not kept. False: none, or none that can be used, or more than
 * max bytes of it; then *file is all zero.
 */
bool debuginfo_file_open(struct debuginfo_file *file, const struct image *image,
			 enum debuginfo_half half, uint64_t max);
void debuginfo_file_close(struct debuginfo_file *file);

/*
 * The contents of a section that libdw has read, and decompressed where necessary: ".debug_line",
 * and
 * ".zdebug_line" as well. Borrowed from elf. NULL: none.
 */
const Elf_Data *debuginfo_section(Elf *elf, const char *name);

#endif
