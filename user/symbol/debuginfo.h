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

struct debuginfo {
	struct image
		*separate; /* owned; has symbols even where it has no DWARF. NULL: none found */
	struct image
		*supplementary; /* owned; what dwz has moved out (.gnu_debugaltlink). NULL: none */
	Elf *elf, *alt_elf;	/* owned: libdw changes sections where it decompresses them */
	Dwarf *dwarf, *alt_dwarf; /* owned; dwarf is NULL where there is no usable DWARF */
};

/*
 * root is the folder of separate debug files, "/usr/lib/debug". image must live as long as *out.
 * 0, also where nothing is found; -ENOMEM.
 */
int debuginfo_open(const struct image *image, const char *root, struct debuginfo **out);
void debuginfo_free(struct debuginfo *debuginfo);

/*
 * The contents of a section that libdw has read, and decompressed where necessary: ".debug_line",
 * and
 * ".zdebug_line" as well. Borrowed from elf. NULL: none.
 */
const Elf_Data *debuginfo_section(Elf *elf, const char *name);

#endif
