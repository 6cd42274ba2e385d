/*
 * Where an image's debug information lies, and libdw's handle on it: in the image, or in a separate
 * file found by build id or by .gnu_debuglink. A separate file is as hostile as the image; it is
 * used only if it can be shown to belong to it.
 *
 * Not supported: .dwo and .dwp files (their units' lines are, their functions come from the symbol
 * tables), and downloads.
 */
#ifndef ALLOCTRACE_DEBUGINFO_H
#define ALLOCTRACE_DEBUGINFO_H

#include "binary/image.h"

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
	Elf *elf;
	Dwarf *dwarf;
};

struct debuginfo {
	struct image
		*separate; /* owned; has symbols even where it has no DWARF. NULL: none found */
	struct debuginfo_file main;  /* without dwarf where there is none that can be used */
	struct debuginfo_file extra; /* what dwz has moved out of main (.gnu_debugaltlink) */
};

/* Where Debian and others put separate debug files. */
#define DEBUGINFO_ROOT "/usr/lib/debug"

/*
 * root is the folder of separate debug files, "/usr/lib/debug". image is not kept.
 * 0, also where nothing is found; -ENOMEM.
 */
int debuginfo_open(const struct image *image, const char *root, struct debuginfo **out);
void debuginfo_free(struct debuginfo *debuginfo);

/*
 * The separate file that belongs to image, for its symbols alone: no DWARF of it is read. To be
 * freed; NULL: none found.
 */
struct image *debuginfo_find_file(const struct image *image, const char *root);

/*
 * The contents of a section that libdw has read, and decompressed where necessary: ".debug_line",
 * and
 * ".zdebug_line" as well. Borrowed from elf. NULL: none.
 */
const Elf_Data *debuginfo_section(Elf *elf, const char *name);

#endif
