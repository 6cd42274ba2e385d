/*
 * Names for the entries of a procedure linkage table, which no symbol names: "malloc@plt", as objdump
 * shows them. x86-64 only.
 */
#ifndef ALLOCTRACE_PLT_NAMES_H
#define ALLOCTRACE_PLT_NAMES_H

#include "binary/image.h"

/* Entries looked at; a large browser's has some thousands. */
#define PLT_NAMES_MAX (1u << 18)

/*
 * Calls visit for each entry that jumps to a function with a name, until it returns non-zero, which
 * is then returned. 0 at the end, and where tables are missing or broken; -ENOMEM.
 */
int plt_names_for_each(const struct image *image,
		       int (*visit)(const struct image_symbol *symbol, void *context),
		       void *context);

#endif
