/*
 * The function symbols of an image (and of its separate debug file), by address, and the entries of
 * its procedure linkage table ("malloc@plt"). An address that no symbol covers has no name: never the
 * neighbour's.
 */
#ifndef ALLOCTRACE_SYMBOL_TABLE_H
#define ALLOCTRACE_SYMBOL_TABLE_H

#include "binary/image.h"

/* More are ignored; a browser with everything in its .symtab has about a million. */
#define SYMBOL_TABLE_MAX (8u * 1024 * 1024)

struct symbol_table;

/*
 * image says where code lies; debug (may be NULL) has more symbols of the same code. Neither is
 * kept. 0 or -ENOMEM: broken tables give the symbols that could be read.
 */
int symbol_table_new(const struct image *image, const struct image *debug,
		     struct symbol_table **out);
void symbol_table_free(struct symbol_table *table);

/* The name at a link-time address, valid as long as the table; NULL: none. */
const char *symbol_table_find(const struct symbol_table *table, uint64_t vaddr);

/*
 * Of a function that begins at an address and has the name `name` there: the one that is shown of all
 * it has there. NULL: no symbol of that name begins there.
 */
const char *symbol_table_usual_name(const struct symbol_table *table, uint64_t vaddr,
				    const char *name);

/* Of function symbols. */
size_t symbol_table_count(const struct symbol_table *table);

#endif
