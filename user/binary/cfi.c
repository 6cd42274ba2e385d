#include "binary/cfi.h"

#include <dwarf.h>
#include <elf.h>
#include <errno.h>

/* Not in elfutils 0.188's dwarf.h. On aarch64 0x2d (GNU_window_save) is negate_ra_state. */
#define CFA_AARCH64_NEGATE_RA_STATE_WITH_PC 0x2c
#define CFA_MIPS_ADVANCE_LOC8		    0x1d
#define CFA_GNU_NEGATIVE_OFFSET_EXTENDED    0x2f

struct machine {
	const struct cfi_context *context;
	struct cfi_row row;
	struct cfi_row initial;
	struct cfi_row remembered[CFI_REMEMBER_MAX];
	unsigned int depth;
	uint64_t pc;
	uint64_t target; /* where an instruction has moved the location to */
};

/* What a handler of a group of opcodes says. */
enum { HANDLED = 0, NOT_MINE = 1 };

bool cfi_registers_of(uint16_t machine, struct cfi_registers *out)
{
	switch (machine) {
	case EM_X86_64:
		*out = (struct cfi_registers){.sp = 7, .fp = 6, .ra = 16};
		return true;
	case EM_AARCH64:
		*out = (struct cfi_registers){.sp = 31, .fp = 29, .ra = 30};
		return true;
	default:
		return false;
	}
}

/* --- pointers and expressions --- */

static uint64_t read_format(struct reader *r, uint8_t format)
{
	switch (format) {
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8:
	case DW_EH_PE_signed:
		return reader_u64(r);
	case DW_EH_PE_uleb128:
		return reader_uleb128(r);
	case DW_EH_PE_udata2:
		return reader_u16(r);
	case DW_EH_PE_udata4:
		return reader_u32(r);
	case DW_EH_PE_sleb128:
		return (uint64_t)reader_sleb128(r);
	case DW_EH_PE_sdata2:
		return (uint64_t)(int64_t)reader_s16(r);
	case DW_EH_PE_sdata4:
		return (uint64_t)(int64_t)reader_s32(r);
	default:
		r->failed = true;
		return 0;
	}
}

int cfi_read_pointer(struct reader *r, uint8_t encoding, const struct cfi_base *base, uint64_t *out)
{
	uint64_t from, value;

	if (encoding & DW_EH_PE_indirect) /* DW_EH_PE_omit has this bit too */
		return -EINVAL;
	switch (encoding & 0x70) {
	case DW_EH_PE_absptr:
		from = 0;
		break;
	case DW_EH_PE_pcrel:
		from = base->vaddr + (uint64_t)(r->pos - base->data);
		break;
	case DW_EH_PE_datarel:
		if (!base->data_rel)
			return -EINVAL;
		from = base->data_rel;
		break;
	default:
		return -EINVAL;
	}
	value = read_format(r, encoding & 0x0f);
	if (r->failed)
		return -EINVAL;
	*out = value + from;
	return 0;
}

static bool fits_s32(int64_t value)
{
	return value >= INT32_MIN && value <= INT32_MAX;
}

/* reg + off: DW_OP_breg0..31 or DW_OP_bregx. */
static bool read_breg(struct reader *r, uint8_t *reg, int64_t *off)
{
	uint8_t op = reader_u8(r);
	uint64_t number;

	if (op >= DW_OP_breg0 && op <= DW_OP_breg31)
		number = op - DW_OP_breg0;
	else if (op == DW_OP_bregx)
		number = reader_uleb128(r);
	else
		return false;
	*off = reader_sleb128(r);
	*reg = number < CFI_NO_REG ? (uint8_t)number : CFI_NO_REG;
	return !r->failed && *reg != CFI_NO_REG && fits_s32(*off);
}

/* breg16 (pc) 0; lit15; and; lit N; ge; lit3; shl; plus: N in *from. */
static bool read_plt_tail(struct reader *r, int32_t *from)
{
	uint8_t reg, lit;
	int64_t off;

	if (!read_breg(r, &reg, &off) || reg != 16 || off != 0)
		return false;
	if (reader_u8(r) != DW_OP_lit15 || reader_u8(r) != DW_OP_and)
		return false;
	lit = reader_u8(r);
	if (lit < DW_OP_lit0 || lit > DW_OP_lit15)
		return false;
	*from = lit - DW_OP_lit0;
	return reader_u8(r) == DW_OP_ge && reader_u8(r) == DW_OP_lit3 &&
	       reader_u8(r) == DW_OP_shl && reader_u8(r) == DW_OP_plus && !reader_left(r) &&
	       !r->failed;
}

static void set_cfa_expression(struct machine *m, struct reader r)
{
	struct cfi_row *row = &m->row;
	struct reader rest;
	int64_t off = 0;
	uint64_t add = 0;
	uint8_t reg = CFI_NO_REG, op;

	row->cfa_kind = CFI_CFA_UNKNOWN;
	if (!read_breg(&r, &reg, &off))
		return;
	row->cfa_reg = reg;
	row->cfa_off = (int32_t)off;
	row->cfa_add = 0;
	if (!reader_left(&r)) {
		row->cfa_kind = CFI_CFA_REG;
		return;
	}
	rest = r;
	if (m->context->machine == EM_X86_64 && read_plt_tail(&rest, &row->cfa_add)) {
		row->cfa_kind = CFI_CFA_PLT;
		return;
	}
	op = reader_u8(&r);
	if (reader_left(&r)) {
		if (reader_u8(&r) != DW_OP_plus_uconst)
			return;
		add = reader_uleb128(&r);
	}
	if (r.failed || reader_left(&r) || add > INT32_MAX)
		return;
	if (op == DW_OP_deref) {
		row->cfa_kind = CFI_CFA_DEREF;
		row->cfa_add = (int32_t)add;
	}
}

/* --- rules of registers --- */

static void set_place(struct machine *m, uint64_t reg, struct cfi_place place)
{
	const struct cfi_registers *regs = &m->context->regs;

	if (reg == regs->fp)
		m->row.fp = place;
	else if (reg == regs->ra)
		m->row.ra = place;
	else if (reg == regs->sp)
		m->row.sp_ruled = true;
}

static void restore_place(struct machine *m, uint64_t reg)
{
	const struct cfi_registers *regs = &m->context->regs;

	if (reg == regs->fp)
		m->row.fp = m->initial.fp;
	else if (reg == regs->ra)
		m->row.ra = m->initial.ra;
	else if (reg == regs->sp)
		m->row.sp_ruled = m->initial.sp_ruled;
}

/* Factored offset -> bytes; beyond 32 bits no frame of a real program is. */
static void set_offset(struct machine *m, uint64_t reg, int64_t factored, enum cfi_where where)
{
	struct cfi_place place = {.where = (uint8_t)where, .reg = CFI_NO_REG};
	int64_t off;

	if (__builtin_mul_overflow(factored, m->context->data_align, &off) || !fits_s32(off))
		place.where = CFI_IS_EXPRESSION;
	else
		place.off = (int32_t)off;
	set_place(m, reg, place);
}

static void set_expression(struct machine *m, uint64_t reg, struct reader r, bool is_value)
{
	struct cfi_place place = {.where = is_value ? CFI_IS_EXPRESSION : CFI_AT_EXPRESSION,
				  .reg = CFI_NO_REG};
	int64_t off;
	uint8_t base;

	if (!is_value && read_breg(&r, &base, &off) && !reader_left(&r)) {
		place.reg = base;
		place.off = (int32_t)off;
	}
	set_place(m, reg, place);
}

static void set_in_register(struct machine *m, uint64_t reg, uint64_t in)
{
	struct cfi_place place = {.where = CFI_IN_REG,
				  .reg = in < CFI_NO_REG ? (uint8_t)in : CFI_NO_REG};

	set_place(m, reg, place);
}

/* The remaining operand is a block: its bytes. */
static struct reader read_block(struct reader *r)
{
	uint64_t length = reader_uleb128(r);

	if (length > reader_left(r))
		r->failed = true;
	return reader_sub(r, r->failed ? 0 : (size_t)length);
}

static int do_register(struct machine *m, uint8_t op, struct reader *r)
{
	uint64_t reg;

	switch (op) {
	case DW_CFA_offset_extended:
	case DW_CFA_offset_extended_sf:
	case DW_CFA_restore_extended:
	case DW_CFA_undefined:
	case DW_CFA_same_value:
	case DW_CFA_register:
	case DW_CFA_expression:
	case DW_CFA_val_expression:
	case DW_CFA_val_offset:
	case DW_CFA_val_offset_sf:
	case CFA_GNU_NEGATIVE_OFFSET_EXTENDED:
		break;
	default:
		return NOT_MINE;
	}
	reg = reader_uleb128(r);
	switch (op) {
	case DW_CFA_offset_extended:
		set_offset(m, reg, (int64_t)reader_uleb128(r), CFI_AT_CFA);
		break;
	case DW_CFA_offset_extended_sf:
		set_offset(m, reg, reader_sleb128(r), CFI_AT_CFA);
		break;
	case CFA_GNU_NEGATIVE_OFFSET_EXTENDED:
		set_offset(m, reg, (int64_t)(0 - reader_uleb128(r)), CFI_AT_CFA);
		break;
	case DW_CFA_val_offset:
		set_offset(m, reg, (int64_t)reader_uleb128(r), CFI_IS_CFA);
		break;
	case DW_CFA_val_offset_sf:
		set_offset(m, reg, reader_sleb128(r), CFI_IS_CFA);
		break;
	case DW_CFA_restore_extended:
		restore_place(m, reg);
		break;
	case DW_CFA_undefined:
		set_place(m, reg, (struct cfi_place){.where = CFI_UNDEFINED, .reg = CFI_NO_REG});
		break;
	case DW_CFA_same_value:
		set_place(m, reg, (struct cfi_place){.where = CFI_SAME, .reg = CFI_NO_REG});
		break;
	case DW_CFA_register:
		set_in_register(m, reg, reader_uleb128(r));
		break;
	default: /* DW_CFA_expression, DW_CFA_val_expression */
		set_expression(m, reg, read_block(r), op == DW_CFA_val_expression);
	}
	return HANDLED;
}

/* --- the CFA, the location, the rest --- */

static int set_cfa(struct machine *m, uint64_t reg, int64_t off, int64_t factor)
{
	struct cfi_row *row = &m->row;

	row->cfa_kind = CFI_CFA_REG;
	row->cfa_add = 0;
	row->cfa_reg = reg < CFI_NO_REG ? (uint8_t)reg : CFI_NO_REG;
	if (__builtin_mul_overflow(off, factor, &off) || !fits_s32(off))
		row->cfa_kind = CFI_CFA_UNKNOWN;
	else
		row->cfa_off = (int32_t)off;
	return HANDLED;
}

/* What changes only one half of reg + off makes no sense where there is no such pair. */
static bool has_register(const struct machine *m)
{
	return m->row.cfa_kind == CFI_CFA_REG;
}

static int do_cfa(struct machine *m, uint8_t op, struct reader *r)
{
	int64_t factor = m->context->data_align;
	struct cfi_row *row = &m->row;
	uint64_t reg;

	switch (op) {
	case DW_CFA_def_cfa:
		reg = reader_uleb128(r);
		return set_cfa(m, reg, (int64_t)reader_uleb128(r), 1);
	case DW_CFA_def_cfa_sf:
		reg = reader_uleb128(r);
		return set_cfa(m, reg, reader_sleb128(r), factor);
	case DW_CFA_def_cfa_register:
		reg = reader_uleb128(r);
		return has_register(m) ? set_cfa(m, reg, row->cfa_off, 1) : -EINVAL;
	case DW_CFA_def_cfa_offset:
		return has_register(m) ? set_cfa(m, row->cfa_reg, (int64_t)reader_uleb128(r), 1)
				       : -EINVAL;
	case DW_CFA_def_cfa_offset_sf:
		return has_register(m) ? set_cfa(m, row->cfa_reg, reader_sleb128(r), factor)
				       : -EINVAL;
	case DW_CFA_def_cfa_expression:
		set_cfa_expression(m, read_block(r));
		return HANDLED;
	default:
		return NOT_MINE;
	}
}

/* A location that would wrap around is past every end. */
static void advance(struct machine *m, uint64_t delta)
{
	if (__builtin_mul_overflow(delta, m->context->code_align, &delta) ||
	    __builtin_add_overflow(m->pc, delta, &m->target))
		m->target = UINT64_MAX;
}

static int do_location(struct machine *m, uint8_t op, struct reader *r)
{
	const struct cfi_context *context = m->context;

	switch (op) {
	case DW_CFA_advance_loc1:
		advance(m, reader_u8(r));
		return HANDLED;
	case DW_CFA_advance_loc2:
		advance(m, reader_u16(r));
		return HANDLED;
	case DW_CFA_advance_loc4:
		advance(m, reader_u32(r));
		return HANDLED;
	case CFA_MIPS_ADVANCE_LOC8:
		advance(m, reader_u64(r));
		return HANDLED;
	case DW_CFA_set_loc:
		if (cfi_read_pointer(r, context->pointer_encoding, &context->base, &m->target))
			return -EINVAL;
		return m->target >= m->pc ? HANDLED : -EINVAL;
	default:
		return NOT_MINE;
	}
}

static int do_other(struct machine *m, uint8_t op, struct reader *r)
{
	bool signal = m->row.signal;

	switch (op) {
	case DW_CFA_nop:
		return HANDLED;
	case DW_CFA_remember_state:
		if (m->depth == CFI_REMEMBER_MAX)
			return -EINVAL;
		m->remembered[m->depth++] = m->row;
		return HANDLED;
	case DW_CFA_restore_state:
		if (!m->depth)
			return -EINVAL;
		m->row = m->remembered[--m->depth];
		m->row.signal = signal;
		return HANDLED;
	case DW_CFA_GNU_args_size:
		reader_uleb128(r);
		return HANDLED;
	case DW_CFA_GNU_window_save:
	case CFA_AARCH64_NEGATE_RA_STATE_WITH_PC:
		/* Whether the return address is signed: a walk strips the signature either way. */
		return m->context->machine == EM_AARCH64 ? HANDLED : -EINVAL;
	default:
		return -EINVAL;
	}
}

static int step(struct machine *m, struct reader *r, uint64_t *budget)
{
	uint8_t byte = reader_u8(r), low = byte & 0x3f;
	int err;

	if (!*budget)
		return -EINVAL;
	--*budget;
	switch (byte & 0xc0) {
	case DW_CFA_advance_loc:
		advance(m, low);
		return 0;
	case DW_CFA_offset:
		set_offset(m, low, (int64_t)reader_uleb128(r), CFI_AT_CFA);
		break;
	case DW_CFA_restore:
		restore_place(m, low);
		break;
	default:
		err = do_cfa(m, byte, r);
		if (err == NOT_MINE)
			err = do_location(m, byte, r);
		if (err == NOT_MINE)
			err = do_register(m, byte, r);
		if (err == NOT_MINE)
			err = do_other(m, byte, r);
		if (err)
			return err;
	}
	return r->failed ? -EINVAL : 0;
}

int cfi_run_initial(const struct cfi_context *context, struct reader instructions,
		    struct cfi_row *row, uint64_t *budget)
{
	struct machine m = {.context = context, .row = *row, .initial = *row};
	int err;

	while (reader_left(&instructions)) {
		err = step(&m, &instructions, budget);
		if (err)
			return err;
	}
	*row = m.row;
	return instructions.failed ? -EINVAL : 0;
}

int cfi_run(const struct cfi_context *context, const struct cfi_row *initial,
	    struct reader instructions, uint64_t start, uint64_t end, uint64_t *budget,
	    cfi_visit *visit, void *user)
{
	struct machine m;
	int err;

	/* Not initialized as a whole: `remembered` is large, and most programs never use it. */
	m.context = context;
	m.row = m.initial = *initial;
	m.depth = 0;
	m.pc = m.target = start;
	while (reader_left(&instructions)) {
		err = step(&m, &instructions, budget);
		if (err)
			return err;
		if (m.target == m.pc)
			continue;
		if (m.target >= end)
			break;
		/* An instruction that moves the location leaves the row as it was. */
		err = visit(&m.row, m.pc, m.target, user);
		if (err)
			return err;
		m.pc = m.target;
	}
	if (instructions.failed)
		return -EINVAL;
	return m.pc < end ? visit(&m.row, m.pc, end, user) : 0;
}
