#include "symbol/abbrev_check.h"

#include "util/cleanup.h"
#include "util/hash_index.h"
#include "util/reader.h"
#include "util/vec.h"

#include <dwarf.h>

/* Of libdw's for one abbreviation, with its share of a hash table that is not full. */
#define BYTES_EACH 64
/* And for a unit, of which there may be one every dozen bytes. */
#define UNIT_BYTES 512
#define UNIT_STEPS 100

static struct reader section_at(const Elf_Data *section, uint64_t offset)
{
	static const uint8_t nothing;
	struct reader r = section && section->d_buf ? reader_new(section->d_buf, section->d_size)
						    : reader_new(&nothing, 0);

	reader_seek(&r, offset);
	return r;
}

/* The next abbreviation. 0: the table ends, or breaks off; -1: one that is not decent. */
static int next_abbrev(struct reader *r, uint64_t *code)
{
	unsigned int empty = 0; /* attributes that take no byte in a DIE */

	*code = reader_uleb128(r);
	if (!*code || r->failed)
		return 0;
	reader_uleb128(r); /* tag */
	reader_u8(r);	   /* children */
	for (unsigned int i = 0; i <= ABBREV_ATTRIBUTES_MAX; i++) {
		uint64_t name = reader_uleb128(r), form = reader_uleb128(r);

		if (form == DW_FORM_implicit_const)
			reader_sleb128(r);
		empty += form == DW_FORM_implicit_const || form == DW_FORM_flag_present;
		if (r->failed)
			return 0;
		if (!name && !form)
			return 1;
		if (empty > ABBREV_EMPTY_MAX)
			return -1;
	}
	return -1;
}

/*
 * Reads a table, up to the given code or, where that is 0 or not there, to its end. Their number; -1:
 * not decent, or the budget is over.
 */
static int64_t read_table(const Elf_Data *abbrev, uint64_t offset, uint64_t wanted,
			  struct budget *budget)
{
	struct reader r = section_at(abbrev, offset);
	uint64_t code;
	int64_t count = 0;
	int more;

	while ((more = next_abbrev(&r, &code)) > 0) {
		if (++count > ABBREVS_MAX)
			return -1;
		if (code == wanted)
			break;
	}
	if (more < 0 || !budget_spend(budget, 1 + (reader_offset(&r) - offset) / 4, 0))
		return -1;
	return count;
}

/* The tables that have been looked at. */
struct tables {
	struct {
		uint64_t *items; /* owned: offsets */
		size_t count, capacity;
	} offsets;
	struct hash_index by_offset;
};

static void tables_deinit(struct tables *tables)
{
	free(tables->offsets.items);
	hash_index_deinit(&tables->by_offset);
}

static bool same_offset(const void *owner, uint32_t index, const void *key)
{
	const struct tables *tables = owner;

	return tables->offsets.items[index] == *(const uint64_t *)key;
}

/* Checks the whole table, once. */
static bool check_table(struct tables *tables, const Elf_Data *abbrev, uint64_t offset,
			struct budget *budget)
{
	uint64_t hash = hash_bytes(HASH_START, &offset, sizeof(offset));
	uint32_t index;

	if (hash_index_find(&tables->by_offset, hash, same_offset, tables, &offset, &index))
		return true;
	if (read_table(abbrev, offset, 0, budget) < 0 || hash_index_reserve(&tables->by_offset) ||
	    vec_push(&tables->offsets, offset))
		return false;
	hash_index_add(&tables->by_offset, hash, (uint32_t)tables->offsets.count - 1);
	return true;
}

static uint64_t read_offset(struct reader *r, bool wide)
{
	return wide ? reader_u64(r) : reader_u32(r);
}

/* What a unit's header says up to the offset of its table, from behind its length. */
static uint64_t read_header(struct reader *r, bool wide, uint8_t *type)
{
	uint16_t version = reader_u16(r);
	uint64_t offset;

	if (version >= 5) {
		*type = reader_u8(r);
		reader_u8(r); /* address size */
	}
	offset = read_offset(r, wide);
	if (version < 5)
		reader_u8(r);
	return offset;
}

static bool check_unit(struct reader *r, bool wide, bool types, struct tables *tables,
		       const Elf_Data *abbrev, struct budget *budget)
{
	uint8_t type = types ? DW_UT_type : DW_UT_compile;
	uint64_t offset = read_header(r, wide, &type), code;
	int64_t read;

	if (type == DW_UT_type || type == DW_UT_split_type) {
		reader_u64(r); /* signature */
		read_offset(r, wide);
	} else if (type == DW_UT_skeleton || type == DW_UT_split_compile) {
		reader_u64(r);
	}
	code = reader_uleb128(r);
	if (!budget_spend(budget, UNIT_STEPS, UNIT_BYTES))
		return false;
	if (r->failed || !code)
		return true; /* libdw sees no DIE there, either */
	if (!check_table(tables, abbrev, offset, budget))
		return false;
	read = read_table(abbrev, offset, code, budget);
	return read >= 0 && budget_spend(budget, 0, (uint64_t)read * BYTES_EACH);
}

bool abbrev_pay(const uint8_t *header, size_t size, const Elf_Data *abbrev, struct budget *budget)
{
	struct reader r = reader_new(header, size);
	bool wide = reader_u32(&r) == UINT32_MAX;
	uint64_t offset;
	int64_t count;
	uint8_t type;

	if (wide)
		reader_u64(&r);
	offset = read_header(&r, wide, &type);
	count = read_table(abbrev, offset, 0, budget);
	return count >= 0 && budget_spend(budget, 0, (uint64_t)count * BYTES_EACH);
}

bool abbrev_check(const Elf_Data *info, bool types, const Elf_Data *abbrev, struct budget *budget)
{
	CLEANUP(tables_deinit) struct tables tables = {0};
	struct reader r = section_at(info, 0);

	while (reader_left(&r)) {
		uint64_t length = reader_u32(&r);
		bool wide = length == UINT32_MAX;
		struct reader unit;

		if (wide)
			length = reader_u64(&r);
		if (r.failed)
			break;
		unit = reader_sub(&r, length < reader_left(&r) ? length : reader_left(&r));
		if (!check_unit(&unit, wide, types, &tables, abbrev, budget))
			return false;
	}
	return true;
}
