#include "symbol/die_ranges.h"

#include "symbol/debuginfo.h"

#include <dwarf.h>

#define ADDRESS_SIZE 8

void dwarf_sections_find(Elf *elf, bool dwo, struct dwarf_sections *out)
{
	*out = (struct dwarf_sections){
		.info = debuginfo_section(elf, dwo ? ".debug_info.dwo" : ".debug_info"),
		.types = debuginfo_section(elf, dwo ? ".debug_types.dwo" : ".debug_types"),
		.abbrev = debuginfo_section(elf, dwo ? ".debug_abbrev.dwo" : ".debug_abbrev"),
		.addr = debuginfo_section(elf, ".debug_addr"),
		.ranges = debuginfo_section(elf, ".debug_ranges"),
		.rnglists = debuginfo_section(elf, dwo ? ".debug_rnglists.dwo" : ".debug_rnglists"),
	};
}

/* Fails where there is no such section, or it has no such offset. */
static struct reader section_at(const Elf_Data *section, uint64_t offset)
{
	static const uint8_t nothing;
	struct reader r = section && section->d_buf ? reader_new(section->d_buf, section->d_size)
						    : reader_new(&nothing, 0);

	reader_seek(&r, offset);
	return r;
}

static uint64_t read_offset(struct reader *r, uint8_t size)
{
	return size == 8 ? reader_u64(r) : reader_u32(r);
}

/* --- a unit --- */

static uint64_t number_of(Dwarf_Die *die, unsigned int name, uint64_t otherwise)
{
	Dwarf_Attribute attr;
	Dwarf_Word value;

	return dwarf_formudata(dwarf_attr(die, name, &attr), &value) ? otherwise : value;
}

/* Behind the header of the section's first list table; 0 where there is none. */
static uint64_t first_offsets(const Elf_Data *rnglists)
{
	struct reader r = section_at(rnglists, 0);

	if (reader_u32(&r) == UINT32_MAX)
		reader_u64(&r);
	/* version, address_size, segment_selector_size, offset_entry_count */
	reader_bytes(&r, 2 + 1 + 1 + 4);
	return r.failed ? 0 : reader_offset(&r);
}

static bool read_header(struct range_unit *unit, Dwarf_Die *die)
{
	uint8_t address_size;

	/* Without asking for a "subdie": for a skeleton, libdw would open the file that it names. */
	return dwarf_cu_info(die->cu, &unit->version, NULL, NULL, NULL, NULL, &address_size,
			     &unit->offset_size) == 0 &&
	       address_size == ADDRESS_SIZE;
}

bool range_unit_init(struct range_unit *unit, Dwarf_Die *die, const struct dwarf_sections *sections)
{
	Dwarf_Addr base;

	*unit = (struct range_unit){.sections = *sections};
	if (!read_header(unit, die))
		return false;
	if (dwarf_lowpc(die, &base) == 0 || dwarf_entrypc(die, &base) == 0)
		unit->base = base;
	unit->addr_base = number_of(die, DW_AT_GNU_addr_base, 0);
	unit->addr_base = number_of(die, DW_AT_addr_base, unit->addr_base);
	if (unit->version >= 5)
		unit->ranges_base =
			number_of(die, DW_AT_rnglists_base, first_offsets(sections->rnglists));
	return true;
}

bool range_unit_init_split(struct range_unit *unit, Dwarf_Die *die,
			   const struct dwarf_sections *dwo, Dwarf_Die *skeleton,
			   const struct dwarf_sections *sections)
{
	if (!range_unit_init(unit, skeleton, sections) || !read_header(unit, die))
		return false;
	unit->sections.info = dwo->info;
	unit->sections.rnglists = dwo->rnglists;
	unit->ranges_base = unit->version >= 5 ? first_offsets(dwo->rnglists)
					       : number_of(skeleton, DW_AT_GNU_ranges_base, 0);
	return true;
}

/* --- a DIE --- */

static bool read_addr(const struct range_unit *unit, uint64_t index, uint64_t *address)
{
	struct reader r;
	uint64_t at;

	if (__builtin_mul_overflow(index, ADDRESS_SIZE, &at) ||
	    __builtin_add_overflow(at, unit->addr_base, &at))
		return false;
	r = section_at(unit->sections.addr, at);
	*address = reader_u64(&r);
	return !r.failed;
}

/* What an attribute of class address says. */
static bool address_of(const struct range_unit *unit, Dwarf_Attribute *attr, uint64_t *address)
{
	Dwarf_Word index;

	switch (dwarf_whatform(attr)) {
	case DW_FORM_addr:
		return dwarf_formaddr(attr, address) == 0;
	case DW_FORM_GNU_addr_index:
	case DW_FORM_addrx:
	case DW_FORM_addrx1:
	case DW_FORM_addrx2:
	case DW_FORM_addrx3:
	case DW_FORM_addrx4:
		return dwarf_formudata(attr, &index) == 0 && read_addr(unit, index, address);
	default:
		return false;
	}
}

static bool bounds_of(const struct range_unit *unit, Dwarf_Die *die, uint64_t *low, uint64_t *high)
{
	Dwarf_Attribute attr;
	Dwarf_Word size;

	if (!dwarf_attr(die, DW_AT_high_pc, &attr))
		return false;
	if (address_of(unit, &attr, high))
		return dwarf_attr(die, DW_AT_low_pc, &attr) && address_of(unit, &attr, low);
	if (dwarf_formudata(&attr, &size) || !dwarf_attr(die, DW_AT_low_pc, &attr) ||
	    !address_of(unit, &attr, low))
		return false;
	return !__builtin_add_overflow(*low, size, high);
}

/*
 * Where in its section a DIE's list begins. An offset is read here: libdw compares it with the
 * section of the DIE's own file.
 */
static bool list_offset(const struct range_unit *unit, Dwarf_Attribute *attr, uint64_t *offset)
{
	const Elf_Data *info = unit->sections.info;
	Dwarf_Word value;
	struct reader r;

	switch (dwarf_whatform(attr)) {
	case DW_FORM_sec_offset:
	case DW_FORM_data4:
	case DW_FORM_data8:
		if (!info || (const uint8_t *)attr->valp < (const uint8_t *)info->d_buf)
			return false;
		r = section_at(info, (uint64_t)(attr->valp - (const uint8_t *)info->d_buf));
		value = read_offset(&r, dwarf_whatform(attr) == DW_FORM_data4 ? 4
					: dwarf_whatform(attr) == DW_FORM_data8
						? 8
						: unit->offset_size);
		break;
	case DW_FORM_rnglistx:
		if (dwarf_formudata(attr, &value) ||
		    __builtin_mul_overflow(value, unit->offset_size, &value) ||
		    __builtin_add_overflow(value, unit->ranges_base, &value))
			return false;
		r = section_at(unit->sections.rnglists, value);
		value = read_offset(&r, unit->offset_size);
		break;
	default:
		return false;
	}
	/* In DWARF 5, what the form says by itself is an offset in the section. */
	if ((unit->version < 5 || dwarf_whatform(attr) == DW_FORM_rnglistx) &&
	    __builtin_add_overflow(value, unit->ranges_base, &value))
		return false;
	*offset = value;
	return !r.failed;
}

bool die_ranges_begin(struct die_ranges *ranges, const struct range_unit *unit, Dwarf_Die *die)
{
	Dwarf_Attribute attr;
	uint64_t offset;

	*ranges = (struct die_ranges){.unit = unit, .base = unit->base};
	if (bounds_of(unit, die, &ranges->low, &ranges->high)) {
		ranges->single = true;
		return true;
	}
	if (!dwarf_attr(die, DW_AT_ranges, &attr) || !list_offset(unit, &attr, &offset))
		return false;
	ranges->list = section_at(
		unit->version < 5 ? unit->sections.ranges : unit->sections.rnglists, offset);
	return !ranges->list.failed;
}

/* --- a list --- */

/* One entry of .debug_ranges. False: the end. */
static bool next_pair(struct die_ranges *ranges, uint64_t *low, uint64_t *high)
{
	uint64_t begin = reader_u64(&ranges->list), end = reader_u64(&ranges->list);

	if (ranges->list.failed || (!begin && !end))
		return false;
	if (begin == UINT64_MAX) {
		ranges->base = end;
		return true;
	}
	*low = begin + ranges->base;
	*high = end + ranges->base;
	return true;
}

/* An index into .debug_addr. */
static uint64_t next_addr(struct die_ranges *ranges)
{
	uint64_t address = 0;

	if (!read_addr(ranges->unit, reader_uleb128(&ranges->list), &address))
		ranges->list.failed = true;
	return address;
}

/* One entry of .debug_rnglists. False: the end. */
static bool next_entry(struct die_ranges *ranges, uint64_t *low, uint64_t *high)
{
	struct reader *r = &ranges->list;

	switch (reader_u8(r)) {
	case DW_RLE_base_addressx:
		ranges->base = next_addr(ranges);
		break;
	case DW_RLE_base_address:
		ranges->base = reader_u64(r);
		break;
	case DW_RLE_startx_endx:
		*low = next_addr(ranges);
		*high = next_addr(ranges);
		break;
	case DW_RLE_startx_length:
		*low = next_addr(ranges);
		*high = *low + reader_uleb128(r);
		break;
	case DW_RLE_offset_pair:
		*low = ranges->base + reader_uleb128(r);
		*high = ranges->base + reader_uleb128(r);
		break;
	case DW_RLE_start_end:
		*low = reader_u64(r);
		*high = reader_u64(r);
		break;
	case DW_RLE_start_length:
		*low = reader_u64(r);
		*high = *low + reader_uleb128(r);
		break;
	default: /* DW_RLE_end_of_list, and what nobody knows */
		return false;
	}
	return !r->failed;
}

bool die_ranges_next(struct die_ranges *ranges, uint64_t *low, uint64_t *high)
{
	*low = *high = 0;
	if (ranges->single) {
		ranges->single = false;
		ranges->list.failed = true;
		*low = ranges->low;
		*high = ranges->high;
		return true;
	}
	if (ranges->list.failed)
		return false;
	return ranges->unit->version < 5 ? next_pair(ranges, low, high)
					 : next_entry(ranges, low, high);
}
