/*
 * The string that an attribute states, if it ends within max bytes; NULL: none. libdw does not look
 * whether one that stands in the DIE (DW_FORM_string) ends in its section, and behind a section that
 * was decompressed there is no guard. sections: of the DIE's file.
 */
#ifndef ALLOCTRACE_DIE_STRING_H
#define ALLOCTRACE_DIE_STRING_H

#include "symbol/die_ranges.h"

const char *die_string(const struct dwarf_sections *sections, Dwarf_Attribute *attr, size_t max);

#endif
