/*
 * Go's own code in an image. It must never be probed: a goroutine's stack is moved and scanned by
 * return addresses, and one that a return probe has replaced ends the program ("unexpected return
 * pc"). The C code of the same program (cgo) runs on stacks of its own, and is like any other.
 */
#ifndef ALLOCTRACE_GO_TEXT_H
#define ALLOCTRACE_GO_TEXT_H

#include "binary/code_ranges.h"
#include "binary/image.h"

#include <stdbool.h>
#include <stdint.h>

struct go_text {
	bool any;			  /* false: no Go in this image */
	uint64_t start, end;		  /* from the symbols; both 0 where it is stripped */
	const struct code_ranges *ranges; /* borrowed */
};

/* Was Go code linked into the image? */
bool go_text_exists(const struct image *image);

/*
 * ranges: those of the image, kept until the last go_text_holds(). 0, or -errno of reading the
 * symbols.
 */
int go_text_load(const struct image *image, const struct code_ranges *ranges, struct go_text *out);

/*
 * Is the function that begins at vaddr Go's? Without symbols every one is taken for Go's that has no
 * entry in .eh_frame: C compilers write one for each function, and Go's linker writes none.
 */
bool go_text_holds(const struct go_text *text, uint64_t vaddr);

#endif
