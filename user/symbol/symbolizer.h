/*
 * Addresses of an image -> functions, files and lines, from the best source there is: DWARF (in the
 * image or in separate debug info), then the ELF symbol tables. Nothing here knows processes or
 * BPF.
 */
#ifndef ALLOCTRACE_SYMBOLIZER_H
#define ALLOCTRACE_SYMBOLIZER_H

#include "binary/image.h"
#include "symbol/debug_search.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbolizer;

struct symbolizer_options {
	bool no_demangle;
	struct debug_search search; /* what it borrows must stay as long as the symbolizer */
};

/* One level of an address: a function, and the line in it that is executed or that calls the level
 * below. */
struct symbol_frame {
	const char *name;	 /* demangled; valid until symbolizer_free() */
	const char *system_name; /* as in the binary; the same as name where nothing was mangled */
	const char *file;	 /* "" where unknown */
	uint32_t line;		 /* 0: unknown */
	uint32_t start_line;	 /* line of the function's declaration, 0: unknown */
};

/* What is known of an image as a whole, for pprof's mapping flags and for messages. */
struct symbol_source {
	bool has_functions; /* any symbol table or debug info */
	bool has_lines;	    /* debug info with line tables, in the image or beside it */
	bool has_inlines;   /* debug info whose inlined calls are resolved */
	/* Of the units asked for, those whose functions are in .dwo files (-gsplit-dwarf) that are
	 * not to be had, and those whose file is of another compilation: symbols name these. */
	uint32_t split_missing, split_stale;
	/* Debug info that would have taken too much time or memory: symbols for what is beyond. */
	bool limited;
};

int symbolizer_new(const struct symbolizer_options *options, struct symbolizer **out);
void symbolizer_free(struct symbolizer *symbolizer);

/*
 * The frames at link-time address vaddr of image, innermost inlined call first, the physical
 * function last, at most max. Returns their number (0: no function known there), or -ENOMEM. The
 * caller passes return address - 1 for callers, so that the line is the call's. Files are read
 * once, however many images there are of them; image must live until symbolizer_free().
 */
int symbolizer_resolve(struct symbolizer *symbolizer, const struct image *image, uint64_t vaddr,
		       struct symbol_frame *frames, size_t max);

void symbolizer_source(struct symbolizer *symbolizer, const struct image *image,
		       struct symbol_source *out);

#endif
