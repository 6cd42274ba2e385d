#include "binary/symtab.h"

#include <stdlib.h>
#include <string.h>

/* Chromium's, unstripped, is a tenth of it. */
#define SECTION_MAX ((size_t)512 << 20)

int symtab_load(const struct image *image, const char *section, const char *strings,
		struct symtab *out)
{
	struct symtab table = {0};
	uint64_t vaddr;
	int err;

	err = image_section(image, section, SECTION_MAX, &table.entries, &table.entries_size,
			    &vaddr);
	if (err)
		return err;
	err = image_section(image, strings, SECTION_MAX, &table.strings, &table.strings_size,
			    &vaddr);
	if (err) {
		symtab_deinit(&table);
		return err;
	}
	*out = table;
	return 0;
}

void symtab_deinit(struct symtab *table)
{
	free(table->entries);
	free(table->strings);
	*table = (struct symtab){0};
}

size_t symtab_count(const struct symtab *table)
{
	return table->entries_size / sizeof(Elf64_Sym);
}

bool symtab_get(const struct symtab *table, size_t index, Elf64_Sym *symbol, const char **name)
{
	if (index >= symtab_count(table))
		return false;
	memcpy(symbol, table->entries + index * sizeof(*symbol), sizeof(*symbol));
	/* Not a look for its end: a hostile table makes that long, for each symbol. */
	*name = symbol->st_name < table->strings_size
			? (const char *)table->strings + symbol->st_name
			: "";
	return true;
}

static bool has_symbol(const struct symtab *table, const char *name, bool defined)
{
	const char *candidate;
	Elf64_Sym symbol;

	for (size_t i = 0; symtab_get(table, i, &symbol, &candidate); i++) {
		if ((symbol.st_shndx != SHN_UNDEF) == defined && !strcmp(candidate, name))
			return true;
	}
	return false;
}

bool symtab_defines(const struct symtab *table, const char *name)
{
	return has_symbol(table, name, true);
}

bool symtab_needs(const struct symtab *table, const char *name)
{
	return has_symbol(table, name, false);
}
