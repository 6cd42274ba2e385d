/*
 * Looks through .debug_abbrev before libdw does. libdw reads a unit's table until it finds the code of
 * a DIE, keeps what it has read for each unit by itself (so that a table of 1 MB takes 10 MB, times
 * the units that share it), and walks all the attributes of an abbreviation for each DIE, of which
 * some need no byte there (DW_FORM_flag_present). It does so for the first DIE of each unit when it
 * merely enumerates units.
 */
#ifndef ALLOCTRACE_ABBREV_CHECK_H
#define ALLOCTRACE_ABBREV_CHECK_H

#include "symbol/budget.h"

#include <libelf.h>

/*
 * Of one table, and of one abbreviation: compilers come to some thousands, and to about 30, of which a
 * dozen take no byte in a DIE.
 */
#define ABBREVS_MAX	      (1u << 18)
#define ABBREV_ATTRIBUTES_MAX 512
#define ABBREV_EMPTY_MAX      32

/*
 * Of a .debug_info (types: .debug_types) and its .debug_abbrev. False: no DWARF that is to be given
 * to libdw, or the budget is over.
 */
bool abbrev_check(const Elf_Data *info, bool types, const Elf_Data *abbrev, struct budget *budget);

/*
 * Pays for the whole table of a unit, of a file that passed. header: the unit's first bytes.
 * False: the budget is over.
 */
bool abbrev_pay(const uint8_t *header, size_t size, const Elf_Data *abbrev, struct budget *budget);

#endif
