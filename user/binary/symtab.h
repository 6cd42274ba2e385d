/*
 * A symbol table of an image, entry by entry, for what image_for_each_function() leaves out: data
 * symbols, indirect functions, and entries by their index, as relocations name them.
 */
#ifndef ALLOCTRACE_SYMTAB_H
#define ALLOCTRACE_SYMTAB_H

#include "binary/image.h"

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symtab {
	uint8_t *entries; /* owned */
	size_t entries_size;
	uint8_t *strings; /* owned; with a NUL behind them */
	size_t strings_size;
};

/* section and its strings: ".dynsym" and ".dynstr". 0, or what image_section() returns. */
int symtab_load(const struct image *image, const char *section, const char *strings,
		struct symtab *out);
void symtab_deinit(struct symtab *table);

size_t symtab_count(const struct symtab *table);
/*
 * false: no such entry. *name is borrowed from table, and may be as long as that; "" where the string
 * table does not hold it.
 */
bool symtab_get(const struct symtab *table, size_t index, Elf64_Sym *symbol, const char **name);

/* Does it define a symbol of that name? */
bool symtab_defines(const struct symtab *table, const char *name);

/* Does it refer to a symbol of that name, which another image is to define? */
bool symtab_needs(const struct symtab *table, const char *name);

#endif
