/*
 * Calls that an image makes through its own global offset table: a library whose functions can be
 * interposed calls even its own malloc that way.
 */
#ifndef ALLOCTRACE_PLT_H
#define ALLOCTRACE_PLT_H

#include "binary/image.h"
#include "binary/symtab.h"

#include <stddef.h>
#include <stdint.h>

struct plt_slot {
	uint64_t slot;	 /* link-time address of the GOT entry */
	uint64_t target; /* of the function, in this image */
};

/* The slots that are to hold the address of a function that this image defines. x86-64 only. */
struct plt {
	struct plt_slot *items; /* owned; sorted by slot */
	size_t count, capacity;
};

/* dynamic: .dynsym. 0, -ENOMEM, -E2BIG; an image without relocations has an empty table. */
int plt_load(const struct image *image, const struct symtab *dynamic, struct plt *out);
void plt_deinit(struct plt *plt);

/* The function that a jump through the slot reaches, 0 where it is not one of this image's. */
uint64_t plt_slot_target(const struct plt *plt, uint64_t slot);

/*
 * Where a call of vaddr ends up: at vaddr, or, if a PLT stub is there, where plt_slot_target()
 * says. The same without interposition and with it, as far as this image's own functions are
 * concerned.
 */
uint64_t plt_resolve(const struct image *image, const struct plt *plt, uint64_t vaddr);

#endif
