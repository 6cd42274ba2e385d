/*
 * Calls that an image makes through its own global offset table: a library whose functions can be
 * interposed calls even its own malloc that way.
 */
#ifndef ALLOCTRACE_PLT_H
#define ALLOCTRACE_PLT_H

#include "binary/families.h"
#include "binary/image.h"
#include "binary/symtab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Calls visit for each slot of the global offset table that is to hold a symbol's address (by a
 * JUMP_SLOT or GLOB_DAT relocation), until it returns non-zero, which is then returned. name is
 * borrowed from dynamic. 0 at the end, -ENOMEM, -E2BIG. x86-64 only.
 */
int plt_for_each_slot(const struct image *image, const struct symtab *dynamic,
		      int (*visit)(uint64_t slot, const Elf64_Sym *symbol, const char *name,
				   void *context),
		      void *context);

struct plt_slot {
	uint64_t slot;	 /* link-time address of the GOT entry */
	uint64_t target; /* of the function, in this image; 0: it is another image's */
	/* Of another image, which by its name allocates or frees. */
	const struct family_function *external; /* borrowed from the table of families */
};

/* The slots that are to hold the address of a function that this image defines, or of an allocating
 * or freeing function of another. x86-64 only. */
struct plt {
	struct plt_slot *items; /* owned; sorted by slot */
	size_t count, capacity;
};

/* dynamic: .dynsym. 0, -ENOMEM, -E2BIG; an image without relocations has an empty table. */
int plt_load(const struct image *image, const struct symtab *dynamic, struct plt *out);
void plt_deinit(struct plt *plt);

/* The entry of a slot, NULL where it holds none of these functions. Borrowed from plt. */
const struct plt_slot *plt_find(const struct plt *plt, uint64_t slot);

/*
 * Is there a PLT stub at vaddr? Then *slot is the GOT entry it jumps through. Where such a call ends
 * up is the same without interposition and with it, as far as this image's own functions are
 * concerned.
 */
bool plt_is_stub(const struct image *image, uint64_t vaddr, uint64_t *slot);

#endif
