/*
 * The line table of a unit: addresses -> files and lines (DWARF 2 to 5, section 6.2). It is read from
 * the program once, into rows of 12 bytes that only say what changes.
 *
 * libdw has this, too, but sorts the rows of all sequences together: one that stands where its own
 * sequence ends (of no length, which happens) then holds for what follows, up to the next sequence.
 * Here an address is looked for in the sequence that holds it, or it has no line. libdw's rows also
 * take 80 bytes each.
 */
#ifndef ALLOCTRACE_LINE_TABLE_H
#define ALLOCTRACE_LINE_TABLE_H

#include <libelf.h>
#include <stdbool.h>
#include <stdint.h>

/* Of one program, which makes at most one row of each byte. */
#define LINE_TABLE_BYTES_MAX (32u << 20)
/* Of one table. */
#define LINE_TABLE_FILES_MAX (1u << 20)

struct line_table;

/* Borrowed; NULL where there is no such section. */
struct line_sections {
	const Elf_Data *line;	  /* .debug_line */
	const Elf_Data *line_str; /* .debug_line_str */
	const Elf_Data *str;	  /* .debug_str */
};

/* The bytes that the program at an offset of .debug_line takes; 0: there is none. */
uint64_t line_table_size(const struct line_sections *sections, uint64_t offset);

/*
 * Reads the program at an offset. folder: the unit's DW_AT_comp_dir, or NULL. The sections' bytes and
 * folder must live as long as *out. A program that breaks off gives what it had until then. 0; -EINVAL:
 * not one that can be read; -E2BIG: over a limit; -ENOMEM.
 */
int line_table_new(const struct line_sections *sections, uint64_t offset, const char *folder,
		   struct line_table **out);
void line_table_free(struct line_table *table);

/* The row for an address: the number of its file, and its line, 0 for none. false: there is no row. */
bool line_table_find(const struct line_table *table, uint64_t vaddr, uint64_t *file,
		     uint32_t *line);

/* The path of a file by its number, as rows and DW_AT_call_file have it, valid as long as the table;
 * "": unknown. */
const char *line_table_path(struct line_table *table, uint64_t file);

#endif
