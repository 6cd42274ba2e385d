#include "symbol/line_table.h"

#include "symbol/interval_map.h"
#include "util/cleanup.h"
#include "util/reader.h"
#include "util/vec.h"

#include <dwarf.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Formats of entries have a field for path, folder, time, size, checksum, source, and hardly more. */
#define FIELDS_MAX 16

/* From an address up to that of the next row of its sequence. */
struct row {
	uint32_t offset; /* from the sequence's low */
	uint32_t file, line;
};

/* A stretch of code whose rows rise. */
struct sequence {
	uint64_t low;
	uint32_t first, count; /* of the rows */
};

struct file {
	const char *name; /* borrowed; NULL: unknown */
	char *path;	  /* owned; NULL: not made yet */
	uint32_t folder;  /* index */
};

struct line_table {
	uint16_t version;
	const char *folder; /* of the compilation; borrowed; NULL: unknown */
	struct {
		const char **items; /* owned; borrowed strings, NULL where unknown */
		size_t count, capacity;
	} folders; /* item 0 is the one of the compilation, too */
	struct {
		struct file *items; /* owned */
		size_t count, capacity;
	} files;
	struct {
		struct row *items; /* owned */
		size_t count, capacity;
	} rows;
	struct {
		struct sequence *items; /* owned */
		size_t count, capacity;
	} sequences;
	struct interval_map map; /* values: indices of sequences */
};

/* What is needed while a program is read. */
struct program {
	struct line_table *table;
	const struct line_sections *sections;
	struct reader reader; /* over the program alone, once the header is read */
	bool wide;	      /* 64-bit DWARF */
	uint8_t min_instruction, opcode_base, line_range;
	int8_t line_base;
	uint8_t operands[UINT8_MAX]; /* their number, of each standard opcode - 1 */
	struct {
		struct interval *items; /* owned; of the sequences */
		size_t count, capacity;
	} intervals;
	/* The registers that matter. */
	uint64_t address, file;
	uint32_t line;
	bool open; /* a sequence has begun: the last one, which is not counted yet */
	struct sequence sequence;
	uint64_t last; /* address of a row in it */
};

void line_table_free(struct line_table *table)
{
	if (!table)
		return;
	vec_for_each(file, &table->files) {
		free(file->path);
	}
	free(table->files.items);
	free(table->folders.items);
	free(table->rows.items);
	free(table->sequences.items);
	interval_map_deinit(&table->map);
	free(table);
}

static void cleanup_line_table(struct line_table **table)
{
	line_table_free(*table);
}

/* --- the header --- */

static uint64_t read_offset(struct program *program)
{
	return program->wide ? reader_u64(&program->reader) : reader_u32(&program->reader);
}

/* A reader over the program at an offset, behind its length. */
static struct reader find_program(const struct line_sections *sections, uint64_t offset, bool *wide)
{
	const Elf_Data *data = sections->line;
	struct reader reader =
		reader_new(data ? data->d_buf : NULL, data && data->d_buf ? data->d_size : 0);
	uint64_t length;

	*wide = false;
	if (offset > SIZE_MAX) {
		reader.failed = true;
		return reader;
	}
	reader_seek(&reader, offset);
	length = reader_u32(&reader);
	if (length == UINT32_MAX) {
		*wide = true;
		length = reader_u64(&reader);
	}
	/* What breaks off is read up to there. */
	if (length > reader_left(&reader))
		length = reader_left(&reader);
	return reader_sub(&reader, length);
}

uint64_t line_table_size(const struct line_sections *sections, uint64_t offset)
{
	bool wide;
	struct reader reader = find_program(sections, offset, &wide);

	return reader_left(&reader);
}

/* A string by its offset in a section; NULL where there is none. */
static const char *string_at(const Elf_Data *data, uint64_t offset)
{
	if (!data || !data->d_buf || offset >= data->d_size ||
	    !memchr((const char *)data->d_buf + offset, 0, data->d_size - offset))
		return NULL;
	return (const char *)data->d_buf + offset;
}

struct field {
	uint64_t content, form;
};

struct format {
	struct field fields[FIELDS_MAX];
	size_t count;
};

/* What an entry says that matters here. */
struct entry {
	const char *path;
	uint64_t folder;
};

/* A field of a form of DWARF 5, 6.2.4.1: its number, or its string. */
static void read_field(struct program *program, uint64_t form, const char **string,
		       uint64_t *number)
{
	struct reader *reader = &program->reader;

	switch (form) {
	case DW_FORM_string:
		*string = reader_cstr(reader);
		break;
	case DW_FORM_line_strp:
		*string = string_at(program->sections->line_str, read_offset(program));
		break;
	case DW_FORM_strp:
		*string = string_at(program->sections->str, read_offset(program));
		break;
	case DW_FORM_udata:
		*number = reader_uleb128(reader);
		break;
	case DW_FORM_data1:
		*number = reader_u8(reader);
		break;
	case DW_FORM_data2:
		*number = reader_u16(reader);
		break;
	case DW_FORM_data4:
		*number = reader_u32(reader);
		break;
	case DW_FORM_data8:
		*number = reader_u64(reader);
		break;
	case DW_FORM_data16: /* an MD5 */
		reader_bytes(reader, 16);
		break;
	case DW_FORM_block:
		reader_bytes(reader, reader_uleb128(reader));
		break;
	default:
		reader->failed = true;
	}
}

static void read_format(struct program *program, struct format *format)
{
	format->count = reader_u8(&program->reader);
	if (format->count > FIELDS_MAX)
		program->reader.failed = true;
	for (size_t i = 0; i < format->count && !program->reader.failed; i++) {
		format->fields[i].content = reader_uleb128(&program->reader);
		format->fields[i].form = reader_uleb128(&program->reader);
	}
}

static struct entry read_entry(struct program *program, const struct format *format)
{
	struct entry entry = {0};

	for (size_t i = 0; i < format->count; i++) {
		const char *string = NULL;
		uint64_t number = 0;

		read_field(program, format->fields[i].form, &string, &number);
		if (format->fields[i].content == DW_LNCT_path)
			entry.path = string;
		else if (format->fields[i].content == DW_LNCT_directory_index)
			entry.folder = number;
	}
	return entry;
}

static int add_file(struct line_table *table, const char *name, uint64_t folder)
{
	if (table->files.count >= LINE_TABLE_FILES_MAX)
		return -E2BIG;
	return vec_push(
		&table->files,
		(struct file){.name = name,
			      .folder = folder < UINT32_MAX ? (uint32_t)folder : UINT32_MAX});
}

static int add_folder(struct line_table *table, const char *folder)
{
	return table->folders.count >= LINE_TABLE_FILES_MAX ? -E2BIG
							    : vec_push(&table->folders, folder);
}

/* The tables of DWARF 5. */
static int read_entries(struct program *program, bool folders)
{
	struct format format;
	uint64_t count;
	int err = 0;

	read_format(program, &format);
	count = reader_uleb128(&program->reader);
	/* Entries without a field would take no bytes. */
	if (count && !format.count)
		program->reader.failed = true;
	for (uint64_t i = 0; i < count && !err && !program->reader.failed; i++) {
		struct entry entry = read_entry(program, &format);

		if (folders)
			err = add_folder(program->table, entry.path);
		else
			err = add_file(program->table, entry.path, entry.folder);
	}
	return err ? err : program->reader.failed ? -EINVAL : 0;
}

/* A file as the tables before DWARF 5 and DW_LNE_define_file have it. *last: an empty name. */
static int read_old_file(struct program *program, bool *last)
{
	const char *name = reader_cstr(&program->reader);
	uint64_t folder;

	*last = !name || !*name;
	if (*last)
		return name ? 0 : -EINVAL;
	folder = reader_uleb128(&program->reader);
	reader_uleb128(&program->reader); /* time */
	reader_uleb128(&program->reader); /* size */
	return program->reader.failed ? -EINVAL : add_file(program->table, name, folder);
}

static int read_old_tables(struct program *program)
{
	int err = add_folder(program->table, program->table->folder);
	const char *folder;
	bool last = false;

	while (!err && (folder = reader_cstr(&program->reader)) && *folder)
		err = add_folder(program->table, folder);
	while (!err && !last)
		err = read_old_file(program, &last);
	return err;
}

/* Up to the first opcode. */
static int read_header(struct program *program)
{
	struct reader *reader = &program->reader;
	struct line_table *table = program->table;
	const uint8_t *start;
	uint64_t length;
	int err;

	table->version = reader_u16(reader);
	if (table->version < 2 || table->version > 5)
		return -EINVAL;
	if (table->version == 5)
		reader_u16(reader); /* the sizes of addresses and of segments */
	length = read_offset(program);
	if (length > reader_left(reader))
		return -EINVAL;
	start = reader->pos + length;
	program->min_instruction = reader_u8(reader);
	/* More than one is for machines with long instruction words. */
	if (table->version >= 4 && reader_u8(reader) > 1)
		return -EINVAL;
	reader_u8(reader); /* whether rows are statements until something else is said */
	program->line_base = reader_s8(reader);
	program->line_range = reader_u8(reader);
	program->opcode_base = reader_u8(reader);
	if (!program->opcode_base || !program->line_range)
		return -EINVAL;
	for (size_t i = 0; i + 1 < program->opcode_base; i++)
		program->operands[i] = reader_u8(reader);
	if (table->version == 5)
		err = read_entries(program, true) ?: read_entries(program, false);
	else
		err = read_old_tables(program);
	if (err || reader->failed)
		return err ? err : -EINVAL;
	if (!table->folder && table->folders.count)
		table->folder = table->folders.items[0];
	reader_seek(reader, (size_t)(start - reader->start));
	return 0;
}

/* --- the program --- */

/* Functions that the linker has thrown away are still there, at address 0. */
static int close_sequence(struct program *program, uint64_t high)
{
	struct line_table *table = program->table;
	struct sequence *sequence = &program->sequence;
	int err;

	if (!program->open)
		return 0;
	program->open = false;
	sequence->count = (uint32_t)table->rows.count - sequence->first;
	if (!sequence->low || high <= sequence->low) {
		table->rows.count = sequence->first;
		return 0;
	}
	/*
	 * Of identical functions that the linker has made one, the first: lld leaves all of their
	 * lines, but in .debug_info only the function that is kept, which comes before the others.
	 */
	err = vec_push(&program->intervals,
		       (struct interval){sequence->low, high, UINT32_MAX - table->sequences.count,
					 (uint32_t)table->sequences.count});
	return err ? err : vec_push(&table->sequences, *sequence);
}

static int add_row(struct program *program)
{
	struct line_table *table = program->table;
	struct row row = {.file = program->file < UINT32_MAX ? (uint32_t)program->file : UINT32_MAX,
			  .line = program->line <= INT32_MAX ? program->line : 0};
	struct row *last;
	int err = 0;

	/* Addresses rise, but for those in broken files. */
	if (program->open && (program->address < program->last ||
			      program->address - program->sequence.low > UINT32_MAX))
		err = close_sequence(program, program->last);
	if (err)
		return err;
	if (!program->open) {
		program->open = true;
		program->sequence = (struct sequence){.low = program->address,
						      .first = (uint32_t)table->rows.count};
	}
	program->last = program->address;
	row.offset = (uint32_t)(program->address - program->sequence.low);
	if (table->rows.count == program->sequence.first)
		return vec_push(&table->rows, row);
	last = &table->rows.items[table->rows.count - 1];
	/* Of several at one address the last one holds. */
	if (last->offset == row.offset)
		*last = row;
	else if (last->file != row.file || last->line != row.line)
		err = vec_push(&table->rows, row);
	return err;
}

static void reset(struct program *program)
{
	program->address = 0;
	program->file = 1;
	program->line = 1;
}

static int run_extended(struct program *program)
{
	uint64_t length = reader_uleb128(&program->reader);
	struct reader whole = program->reader;
	bool last;
	int err = 0;

	if (!length || length > reader_left(&whole))
		return -EINVAL;
	program->reader = reader_sub(&whole, length);
	switch (reader_u8(&program->reader)) {
	case DW_LNE_end_sequence:
		err = close_sequence(program, program->address);
		reset(program);
		break;
	case DW_LNE_set_address:
		if (length == 9)
			program->address = reader_u64(&program->reader);
		else
			err = -EINVAL;
		break;
	case DW_LNE_define_file:
		err = read_old_file(program, &last);
		break;
	default:
		break;
	}
	program->reader = whole;
	return err;
}

static void advance(struct program *program, uint64_t operations)
{
	program->address += operations * program->min_instruction;
}

static void skip_operands(struct program *program, uint8_t opcode)
{
	for (unsigned int i = 0; i < program->operands[opcode - 1]; i++)
		reader_uleb128(&program->reader);
}

static int run_standard(struct program *program, uint8_t opcode)
{
	struct reader *reader = &program->reader;

	switch (opcode) {
	case DW_LNS_copy:
		return add_row(program);
	case DW_LNS_advance_pc:
		advance(program, reader_uleb128(reader));
		break;
	case DW_LNS_advance_line:
		program->line += (uint32_t)reader_sleb128(reader);
		break;
	case DW_LNS_set_file:
		program->file = reader_uleb128(reader);
		break;
	case DW_LNS_const_add_pc:
		advance(program, (UINT8_MAX - program->opcode_base) / program->line_range);
		break;
	case DW_LNS_fixed_advance_pc:
		program->address += reader_u16(reader);
		break;
	default:
		skip_operands(program, opcode);
	}
	return 0;
}

static int run_special(struct program *program, uint8_t opcode)
{
	uint8_t adjusted = (uint8_t)(opcode - program->opcode_base);

	advance(program, adjusted / program->line_range);
	program->line += (uint32_t)(program->line_base + adjusted % program->line_range);
	return add_row(program);
}

/* What comes after something broken, and a sequence without an end, is not there. 0 or -ENOMEM. */
static int run_program(struct program *program)
{
	int err = 0;

	reset(program);
	while (!err && reader_left(&program->reader)) {
		uint8_t opcode = reader_u8(&program->reader);

		if (opcode >= program->opcode_base)
			err = run_special(program, opcode);
		else if (opcode)
			err = run_standard(program, opcode);
		else
			err = run_extended(program);
	}
	if (program->open)
		program->table->rows.count = program->sequence.first;
	return err == -ENOMEM ? err : 0;
}

/* --- all of it --- */

/* Gives back what was reserved for more rows. */
static void shrink_rows(struct line_table *table)
{
	size_t count = table->rows.count ? table->rows.count : 1;
	struct row *items = realloc(table->rows.items, count * sizeof(*items));

	if (!items)
		return;
	table->rows.items = items;
	table->rows.capacity = count;
}

int line_table_new(const struct line_sections *sections, uint64_t offset, const char *folder,
		   struct line_table **out)
{
	CLEANUP(cleanup_line_table) struct line_table *table = calloc(1, sizeof(*table));
	struct program program = {.table = table, .sections = sections};
	int err;

	if (!table)
		return -ENOMEM;
	table->folder = folder;
	program.reader = find_program(sections, offset, &program.wide);
	if (program.reader.failed)
		return -EINVAL;
	if (reader_left(&program.reader) > LINE_TABLE_BYTES_MAX)
		return -E2BIG;
	err = read_header(&program);
	if (!err)
		err = run_program(&program);
	if (!err)
		err = interval_map_init(&table->map, program.intervals.items,
					program.intervals.count);
	free(program.intervals.items);
	if (err)
		return err;
	shrink_rows(table);
	*out = TAKE(table);
	return 0;
}

bool line_table_find(const struct line_table *table, uint64_t vaddr, uint64_t *file, uint32_t *line)
{
	const struct sequence *sequence;
	const struct row *rows;
	size_t low = 0, high;
	uint32_t number;

	if (!interval_map_find(&table->map, vaddr, &number))
		return false;
	sequence = &table->sequences.items[number];
	rows = table->rows.items + sequence->first;
	/* The last row that begins at or before the address. */
	high = sequence->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (rows[middle].offset <= vaddr - sequence->low)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return false;
	*file = rows[low - 1].file;
	*line = rows[low - 1].line;
	return true;
}

/* --- paths --- */

/*
 * Relative paths begin in the folder of the compilation, if that is absolute. If not, the build has
 * mapped away the root of its sources, from all paths: they begin there as well, as the folder does.
 * But for those that were stated relative to the folder, and so are not touched by the mapping: a
 * path that leads out of it ("../sysdeps/x.c") is such a one; and where the root has become ".", all
 * that do not begin with that.
 */
static bool begins_in_folder(const char *path, const char *folder)
{
	if (folder[0] == '/' || !strncmp(path, "../", 3))
		return true;
	return folder[0] == '.' && folder[1] == '/' && strncmp(path, "./", 2) != 0;
}

/* In new memory; NULL where there is none, or it would be too long. */
static char *make_path(const struct line_table *table, const struct file *file)
{
	const char *folder =
		file->folder < table->folders.count ? table->folders.items[file->folder] : NULL;
	/* The folder of the compilation is as it is. */
	const char *around = folder && file->folder == 0 ? NULL : table->folder;
	size_t length = strnlen(file->name, PATH_MAX);
	char *path;

	if (folder && !*folder)
		folder = NULL;
	length += folder ? strnlen(folder, PATH_MAX) + 1 : 0;
	if (around && !begins_in_folder(folder ? folder : file->name, around))
		around = NULL;
	if (folder && folder[0] == '/')
		around = NULL;
	length += around ? strnlen(around, PATH_MAX) + 1 : 0;
	if (length >= PATH_MAX)
		return NULL;
	if (asprintf(&path, "%s%s%s%s%s", around ? around : "", around ? "/" : "",
		     folder ? folder : "", folder ? "/" : "", file->name) < 0)
		return NULL;
	return path;
}

const char *line_table_path(struct line_table *table, uint64_t number)
{
	/* They are counted from 0 since DWARF 5, before that from 1. */
	uint64_t index = table->version >= 5 ? number : number - 1;
	struct file *file;

	if (index >= table->files.count)
		return "";
	file = &table->files.items[index];
	if (!file->name)
		return "";
	if (file->name[0] == '/')
		return strnlen(file->name, PATH_MAX) < PATH_MAX ? file->name : "";
	if (!file->path)
		file->path = make_path(table, file);
	return file->path ? file->path : "";
}
