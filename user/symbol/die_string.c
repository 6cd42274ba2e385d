#include "symbol/die_string.h"

#include <dwarf.h>
#include <string.h>

/* How many bytes of the section are at and behind a place in it; 0: it is not in it. */
static size_t left_in(const Elf_Data *section, const void *at)
{
	uintptr_t start = section ? (uintptr_t)section->d_buf : 0, place = (uintptr_t)at;

	return start && place >= start && place - start < section->d_size
		       ? section->d_size - (place - start)
		       : 0;
}

const char *die_string(const struct dwarf_sections *sections, Dwarf_Attribute *attr, size_t max)
{
	const char *string = dwarf_formstring(attr);
	size_t left = max + 1;

	if (!string)
		return NULL;
	if (dwarf_whatform(attr) == DW_FORM_string) {
		size_t room = left_in(sections->info, string);

		if (!room)
			room = left_in(sections->types, string);
		if (room < left)
			left = room;
	}
	return strnlen(string, left) < left ? string : NULL;
}
