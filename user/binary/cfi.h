/*
 * Call frame instructions (DWARF 5, 6.4.2): one CIE's or FDE's program, run into rows. A row says
 * how, in a range of code, the caller's frame follows from the registers. Of the registers only
 * those that a walk needs are kept: CFA, frame pointer, return address (and whether sp has a rule).
 */
#ifndef ALLOCTRACE_CFI_H
#define ALLOCTRACE_CFI_H

#include <stdbool.h>
#include <stdint.h>

#include "util/reader.h"

/* remember_state nests as deep as this; compilers use one level. */
#define CFI_REMEMBER_MAX 16

#define CFI_NO_REG 0xff

enum cfi_cfa_kind {
	CFI_CFA_UNSET,
	CFI_CFA_REG,	/* reg + off */
	CFI_CFA_DEREF,	/* *(reg + off) + add */
	CFI_CFA_PLT,	/* reg + off + ((pc & 15) >= add ? 8 : 0): the linkers' .plt */
	CFI_CFA_UNKNOWN /* any other expression, or an offset beyond 32 bits */
};

enum cfi_where {
	CFI_UNSPECIFIED,
	CFI_UNDEFINED,
	CFI_SAME,	   /* unchanged */
	CFI_AT_CFA,	   /* *(CFA + off) */
	CFI_IS_CFA,	   /* CFA + off */
	CFI_IN_REG,	   /* in register reg */
	CFI_AT_EXPRESSION, /* *(reg + off); reg is CFI_NO_REG for an expression of another form */
	CFI_IS_EXPRESSION, /* an expression, not looked into */
};

struct cfi_place {
	int32_t off;
	uint8_t where; /* enum cfi_where */
	uint8_t reg;   /* a DWARF register number, or CFI_NO_REG */
};

struct cfi_row {
	int32_t cfa_off;
	int32_t cfa_add;
	uint8_t cfa_kind; /* enum cfi_cfa_kind */
	uint8_t cfa_reg;  /* a DWARF register number, or CFI_NO_REG for one over 254 */
	bool signal;	  /* a signal frame (augmentation S) */
	bool sp_ruled;	  /* sp has a rule of its own, and may not be the CFA */
	struct cfi_place fp, ra;
};

/* The DWARF numbers of a machine's registers. */
struct cfi_registers {
	uint8_t sp, fp, ra;
};

/* false: no such machine here. */
bool cfi_registers_of(uint16_t machine, struct cfi_registers *out);

/* Which bytes of the address space a section holds: what a pc-relative pointer in it counts from.
 */
struct cfi_base {
	const uint8_t *data; /* borrowed */
	uint64_t vaddr;
	uint64_t data_rel; /* what DW_EH_PE_datarel counts from; 0: not known */
};

/*
 * Reads one pointer in a DW_EH_PE_* encoding. 0, -EINVAL where it does not fit in r or the encoding
 * is none that stands in a file (omit, indirect, aligned, textrel, funcrel).
 */
int cfi_read_pointer(struct reader *r, uint8_t encoding, const struct cfi_base *base,
		     uint64_t *out);

/* What a program's instructions are read with: the CIE's part. */
struct cfi_context {
	struct cfi_registers regs;
	uint16_t machine;
	uint8_t pointer_encoding;
	uint64_t code_align;
	int64_t data_align;
	struct cfi_base base;
};

/* [start, end) is not empty. The row is borrowed for the duration of the call. Non-zero stops. */
typedef int cfi_visit(const struct cfi_row *row, uint64_t start, uint64_t end, void *user);

/*
 * Runs a CIE's initial instructions on *row. Each instruction takes 1 from *budget; at 0 nothing
 * more is run. 0 or -EINVAL.
 */
int cfi_run_initial(const struct cfi_context *context, struct reader instructions,
		    struct cfi_row *row, uint64_t *budget);

/*
 * Runs an FDE's instructions over [start, end), from the row the CIE left, and visits one row per
 * change of location, in rising order. 0, -EINVAL at a broken or unknown instruction or without
 * budget (the rows before it have been visited: they stand), or what visit returned.
 */
int cfi_run(const struct cfi_context *context, const struct cfi_row *initial,
	    struct reader instructions, uint64_t start, uint64_t end, uint64_t *budget,
	    cfi_visit *visit, void *user);

#endif
