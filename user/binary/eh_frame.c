/*
 * From section bytes to sorted FDEs, in two sweeps over each section. The first parses the CIEs: an
 * FDE of .debug_frame may stand before its CIE, and each CIE is so parsed once however many FDEs
 * name it, which keeps a hostile section from costing more than its own length. The second notes for
 * each FDE its range, its CIE and where its instructions are. Instructions run only when rows are
 * asked for, in order of address.
 *
 * A record is a 32-bit length (0xffffffff: a 64-bit one follows), then the CIE's mark or the FDE's
 * reference to its CIE. The two sections differ in that:
 *			mark of a CIE		reference to the CIE
 *	.eh_frame	0, always 4 bytes	distance back from the reference itself
 *	.debug_frame	all ones, 4 or 8 bytes	offset in the section
 * A length of 0 ends .eh_frame for some readers; linkers leave such in the middle (crtend.o is not
 * always last), so it is stepped over.
 */
#include "binary/eh_frame.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/vec.h"

#define SECTIONS_MAX 2
/* .eh_frame's letters are at most "zPLRSBG"; anything longer is garbage. */
#define AUGMENTATION_MAX 15

struct cie {
	uint32_t offset; /* of the record in its section */
	bool usable;
	bool has_augmentation_data; /* z: FDEs have it too */
	struct cfi_context context;
	struct cfi_row row; /* after the initial instructions */
};

struct cies {
	struct cie *items;
	size_t count, capacity;
};

struct fde {
	uint64_t start, end;
	uint32_t instructions, length; /* offset in the section, bytes */
	uint32_t cie;
	uint32_t section;
};

struct eh_frame {
	struct eh_frame_section sections[SECTIONS_MAX];
	size_t section_count;
	struct cies cies[SECTIONS_MAX];
	struct fde *items;
	size_t count, capacity;
	struct eh_frame_range *text; /* owned */
	size_t text_count;
	uint16_t machine;
	struct cfi_registers regs;
	uint64_t budget; /* of instructions, for what is being done */
	struct eh_frame_stats stats;
};

const char *eh_frame_skip_text(enum eh_frame_skip reason)
{
	static const char *const texts[] = {
#define X(id, text) [id] = text,
		EH_FRAME_SKIPS(X)
#undef X
	};

	return (unsigned int)reason < EH_FRAME_SKIP_COUNT ? texts[reason] : "?";
}

/* --- records --- */

struct record {
	size_t offset;	    /* of its length field */
	struct reader body; /* behind the mark or reference */
	bool is_cie;
	uint64_t cie; /* offset of the CIE's record, where this is an FDE; UINT64_MAX: nowhere */
};

/* The next record, stepping over empty ones. False at the end, or at a length that does not fit. */
static bool next_record(const struct eh_frame_section *section, struct reader *r,
			struct record *record)
{
	uint64_t length, id, id_at;
	bool wide;

	do {
		record->offset = reader_offset(r);
		if (reader_left(r) < sizeof(uint32_t))
			return false;
		length = reader_u32(r);
		wide = length == UINT32_MAX;
		if (wide)
			length = reader_u64(r);
	} while (!length);
	if (r->failed || length > reader_left(r)) {
		r->failed = true;
		return false;
	}
	id_at = reader_offset(r);
	record->body = reader_sub(r, (size_t)length);
	if (section->debug_frame && wide) {
		id = reader_u64(&record->body);
		record->is_cie = id == UINT64_MAX;
		record->cie = id;
	} else {
		id = reader_u32(&record->body);
		record->is_cie = id == (section->debug_frame ? UINT32_MAX : 0);
		record->cie = section->debug_frame ? id : id <= id_at ? id_at - id : UINT64_MAX;
	}
	return true;
}

/* The letters behind 'z' say what the augmentation data holds, in their order. */
static bool parse_augmentation(const char *letters, struct reader data, struct cie *cie)
{
	uint64_t ignored;
	uint8_t encoding;

	for (; *letters; letters++) {
		switch (*letters) {
		case 'R':
			cie->context.pointer_encoding = reader_u8(&data);
			break;
		case 'L':
			reader_u8(&data);
			break;
		case 'P':
			encoding = reader_u8(&data);
			/* Only its length matters. An aligned one (0x50) is of the past. */
			if ((encoding & 0x70) == DW_EH_PE_aligned)
				return false;
			if (encoding != DW_EH_PE_omit &&
			    cfi_read_pointer(&data, encoding & 0x0f, &cie->context.base, &ignored))
				return false;
			break;
		case 'S':
			cie->row.signal = true;
			break;
		case 'B': /* aarch64: return addresses are signed with the B key */
		case 'G': /* aarch64: the stack frame is tagged memory */
			break;
		default:
			return false;
		}
	}
	return !data.failed;
}

static bool parse_cie(struct eh_frame *frame, const struct eh_frame_section *section,
		      struct record *record, struct cie *cie)
{
	struct reader *r = &record->body, data = {0};
	uint8_t version = reader_u8(r);
	const char *augmentation = reader_cstr(r);
	uint64_t ra;

	if (!augmentation || (version != 1 && version != 3 && version != 4) ||
	    strlen(augmentation) > AUGMENTATION_MAX)
		return false;
	if (!strcmp(augmentation, "eh")) { /* gcc 2: a pointer to exception data */
		reader_u64(r);
		augmentation = "";
	}
	if (version == 4 && (reader_u8(r) != sizeof(uint64_t) || reader_u8(r) != 0))
		return false; /* address size, segment selector size */
	cie->context = (struct cfi_context){
		.regs = frame->regs,
		.machine = frame->machine,
		.pointer_encoding = DW_EH_PE_absptr,
		.base = {section->data, section->vaddr, section->data_rel},
	};
	cie->context.code_align = reader_uleb128(r);
	cie->context.data_align = reader_sleb128(r);
	ra = version == 1 ? reader_u8(r) : reader_uleb128(r);
	cie->row = (struct cfi_row){
		.cfa_reg = CFI_NO_REG, .fp = {.reg = CFI_NO_REG}, .ra = {.reg = CFI_NO_REG}};
	cie->has_augmentation_data = *augmentation == 'z';
	if (cie->has_augmentation_data) {
		uint64_t length = reader_uleb128(r);

		if (length > reader_left(r))
			return false;
		data = reader_sub(r, (size_t)length);
		augmentation++;
	}
	if (r->failed || ra != frame->regs.ra || !parse_augmentation(augmentation, data, cie))
		return false;
	return !cfi_run_initial(&cie->context, *r, &cie->row, &frame->budget);
}

static int sweep_cies(struct eh_frame *frame, size_t s)
{
	const struct eh_frame_section *section = &frame->sections[s];
	struct reader r = reader_new(section->data, section->size);
	struct cies *cies = &frame->cies[s];
	struct record record;

	while (next_record(section, &r, &record)) {
		struct cie cie = {.offset = (uint32_t)record.offset};
		int err;

		if (!record.is_cie || cies->count == EH_FRAME_CIES_MAX)
			continue;
		cie.usable = parse_cie(frame, section, &record, &cie);
		err = vec_push(cies, cie);
		if (err)
			return err;
	}
	return 0;
}

/* CIEs were pushed by rising offset. */
static const struct cie *find_cie(const struct cies *cies, uint64_t offset)
{
	size_t low = 0, high = cies->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (cies->items[middle].offset == offset)
			return &cies->items[middle];
		if (cies->items[middle].offset < offset)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static const struct eh_frame_range *find_text(const struct eh_frame *frame, uint64_t pc)
{
	size_t low = 0, high = frame->text_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (pc < frame->text[middle].start)
			high = middle;
		else if (pc >= frame->text[middle].end)
			low = middle + 1;
		else
			return &frame->text[middle];
	}
	return NULL;
}

/* The FDE of a record into *fde, or the reason why it is left out: EH_FRAME_SKIP_COUNT for none. */
static enum eh_frame_skip parse_fde(const struct eh_frame *frame, size_t s, struct record *record,
				    struct fde *fde)
{
	const struct eh_frame_section *section = &frame->sections[s];
	const struct cie *cie = find_cie(&frame->cies[s], record->cie);
	const struct eh_frame_range *text;
	struct reader *r = &record->body;
	uint64_t length;

	if (!cie || !cie->usable)
		return EH_FRAME_BAD_CIE;
	if (cfi_read_pointer(r, cie->context.pointer_encoding, &cie->context.base, &fde->start) ||
	    cfi_read_pointer(r, cie->context.pointer_encoding & 0x0f, &cie->context.base, &length))
		return EH_FRAME_BAD_RANGE;
	if (cie->has_augmentation_data) {
		uint64_t skip = reader_uleb128(r);

		if (skip > reader_left(r))
			return EH_FRAME_BAD_RANGE;
		reader_bytes(r, (size_t)skip);
	}
	text = find_text(frame, fde->start);
	if (!length || !text)
		return EH_FRAME_NO_CODE;
	fde->end = length < text->end - fde->start ? fde->start + length : text->end;
	fde->section = (uint32_t)s;
	fde->cie = (uint32_t)(cie - frame->cies[s].items);
	fde->instructions = (uint32_t)(r->pos - section->data);
	fde->length = (uint32_t)reader_left(r);
	return EH_FRAME_SKIP_COUNT;
}

static int sweep_fdes(struct eh_frame *frame, size_t s)
{
	const struct eh_frame_section *section = &frame->sections[s];
	struct reader r = reader_new(section->data, section->size);
	struct record record;

	while (next_record(section, &r, &record)) {
		struct fde fde;
		enum eh_frame_skip skip = EH_FRAME_TOO_MANY;
		int err;

		if (record.is_cie)
			continue;
		if (frame->count < EH_FRAME_FDES_MAX)
			skip = parse_fde(frame, s, &record, &fde);
		if (skip != EH_FRAME_SKIP_COUNT) {
			frame->stats.skipped[skip]++;
			continue;
		}
		err = vec_push(frame, fde);
		if (err)
			return err;
	}
	/* Where a length leads outside, the rest of the section cannot be told apart. */
	frame->stats.skipped[EH_FRAME_BAD_RECORD] += r.failed;
	return 0;
}

/* By start; of equal ones the FDE that prevails comes last: see eh_frame_for_each_row(). */
static int compare_fdes(const void *left, const void *right)
{
	const struct fde *a = left, *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	if (a->section != b->section)
		return a->section > b->section ? -1 : 1;
	if (a->end != b->end)
		return a->end < b->end ? -1 : 1;
	return a->instructions > b->instructions ? -1 : a->instructions < b->instructions;
}

static void sort_fdes(struct eh_frame *frame)
{
	bool sorted = true;

	for (size_t i = 1; i < frame->count && sorted; i++)
		sorted = compare_fdes(&frame->items[i - 1], &frame->items[i]) <= 0;
	if (!sorted)
		qsort(frame->items, frame->count, sizeof(*frame->items), compare_fdes);
	frame->stats.fdes = frame->count;
}

/* --- construction --- */

void eh_frame_free(struct eh_frame *frame)
{
	if (!frame)
		return;
	for (size_t s = 0; s < SECTIONS_MAX; s++) {
		free(frame->sections[s].owned);
		free(frame->cies[s].items);
	}
	free(frame->items);
	free(frame->text);
	free(frame);
}

static void cleanup_eh_frame(struct eh_frame **frame)
{
	eh_frame_free(*frame);
}

static int index_sections(struct eh_frame *frame)
{
	int err = 0;

	frame->budget = EH_FRAME_INSTRUCTIONS_MAX;
	for (size_t s = 0; s < frame->section_count && !err; s++) {
		err = sweep_cies(frame, s);
		if (!err)
			err = sweep_fdes(frame, s);
	}
	sort_fdes(frame);
	return err;
}

/* Everything of `sections` that is owned goes over into the result, or is freed. */
static int take_sections(struct eh_frame *frame, const struct eh_frame_section *sections,
			 size_t section_count)
{
	int err = 0;

	for (size_t s = 0; s < section_count; s++) {
		if (sections[s].size > EH_FRAME_SIZE_MAX || s >= SECTIONS_MAX)
			err = -E2BIG;
		if (!frame || s >= SECTIONS_MAX)
			free(sections[s].owned);
		else
			frame->sections[frame->section_count++] = sections[s];
	}
	return err;
}

int eh_frame_new(const struct eh_frame_section *sections, size_t section_count, uint16_t machine,
		 const struct eh_frame_range *text, size_t text_count, struct eh_frame **out)
{
	CLEANUP(cleanup_eh_frame) struct eh_frame *frame = calloc(1, sizeof(*frame));
	int err = take_sections(frame, sections, section_count);

	if (!frame)
		return -ENOMEM;
	if (err)
		return err;
	if (!cfi_registers_of(machine, &frame->regs))
		return -ENOTSUP;
	frame->machine = machine;
	frame->text = calloc(text_count ? text_count : 1, sizeof(*frame->text));
	if (!frame->text)
		return -ENOMEM;
	if (text_count)
		memcpy(frame->text, text, text_count * sizeof(*text));
	frame->text_count = text_count;
	err = index_sections(frame);
	if (err)
		return err;
	*out = TAKE(frame);
	return 0;
}

/* --- use --- */

const struct eh_frame_range *eh_frame_text(const struct eh_frame *frame, size_t *count)
{
	*count = frame->text_count;
	return frame->text;
}

const struct eh_frame_stats *eh_frame_stats(const struct eh_frame *frame)
{
	return &frame->stats;
}

int eh_frame_for_each_row(struct eh_frame *frame, cfi_visit *visit, void *user)
{
	frame->stats.skipped[EH_FRAME_BAD_INSTRUCTION] = 0;
	frame->stats.skipped[EH_FRAME_OVERLAPPED] = 0;
	frame->budget = EH_FRAME_INSTRUCTIONS_MAX;
	for (size_t i = 0; i < frame->count; i++) {
		const struct fde *fde = &frame->items[i];
		const struct cie *cie = &frame->cies[fde->section].items[fde->cie];
		const uint8_t *data = frame->sections[fde->section].data;
		uint64_t end = fde->end;
		int err;

		if (i + 1 < frame->count && fde[1].start < end)
			end = fde[1].start;
		if (end == fde->start) {
			frame->stats.skipped[EH_FRAME_OVERLAPPED]++;
			continue;
		}
		err = cfi_run(&cie->context, &cie->row,
			      reader_new(data + fde->instructions, fde->length), fde->start, end,
			      &frame->budget, visit, user);
		if (!frame->budget) {
			frame->stats.skipped[EH_FRAME_TOO_MANY] += frame->count - i;
			return err == -EINVAL ? 0 : err;
		}
		if (err == -EINVAL)
			frame->stats.skipped[EH_FRAME_BAD_INSTRUCTION]++;
		else if (err)
			return err;
	}
	return 0;
}
