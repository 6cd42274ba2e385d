/*
 * Two passes over the function's bytes.
 *
 * The sweep decodes all of them and notes the lowest address that a branch of the function leads
 * to. Up to there, what stands before the first conditional branch is run once per call, from the
 * entry on: a breakpoint on it is hit once per call. Where the sweep cannot see every branch (bytes
 * that do not decode, a switch through a table) only the entry is left.
 *
 * The line then goes from the entry to the first instruction that the kernel emulates, as long as
 * nothing on the way writes an argument register or rsp. It ends at the first control transfer at
 * the latest, which is itself emulated in most functions.
 */
#include "binary/probe_site.h"
#include "binary/x86_insn.h"

#include <errno.h>

/* How far from the entry a site may lie: real prologues get there within 32 bytes. */
#define LINE_MAX_BYTES 64

/*
 * What arch/x86/kernel/uprobes.c emulates on every kernel since 4.16 (branch_setup_xol_ops,
 * push_setup_xol_ops). Prefixed forms are left out, and so are the longer nops, which came
 * with 6.16: on an older kernel a site there would silently be single-stepped.
 */
static bool kernel_emulates(const uint8_t *code, size_t length)
{
	switch (length) {
	case 1: /* nop, push */
		return code[0] == 0x90 || (code[0] & 0xf8) == 0x50;
	case 2: /* push r8-r15, jmp rel8, jcc rel8 */
		return (code[0] == 0x41 && (code[1] & 0xf8) == 0x50) || code[0] == 0xeb ||
		       (code[0] & 0xf0) == 0x70;
	case 5: /* call rel32, jmp rel32 */
		return code[0] == 0xe8 || code[0] == 0xe9;
	case 6: /* jcc rel32 */
		return code[0] == 0x0f && (code[1] & 0xf0) == 0x80;
	default:
		return false;
	}
}

/*
 * The lowest offset that a branch within the function leads to, size if there is none. A recursive
 * call of the entry is a call like any other and does not count; a jump to the entry does.
 */
static size_t lowest_branch_target(const uint8_t *code, size_t size, uint64_t vaddr)
{
	bool table_load = false, register_jump = false;
	size_t lowest = size;
	struct x86_insn insn;

	for (size_t at = 0; at < size; at += insn.length) {
		uint64_t target;

		if (!x86_insn_decode(code + at, size - at, vaddr + at, &insn))
			return 0;
		table_load |= insn.is_table_load;
		register_jump |= insn.is_register_jump;
		if (insn.is_table_jump || (table_load && register_jump))
			return 0;
		if (!insn.has_target)
			continue;
		target = insn.target - vaddr;
		if (target < lowest && !(insn.flow == X86_FLOW_CALL && target == 0))
			lowest = target;
	}
	return lowest;
}

int probe_site_choose(const uint8_t *code, size_t size, uint64_t vaddr, unsigned int argument_count,
		      struct probe_site *out)
{
	struct x86_insn insn;
	size_t end;

	if (!size) {
		*out = (struct probe_site){0};
		return 0;
	}
	if (!x86_insn_decode(code, size, vaddr, &insn))
		return -ENOEXEC;
	*out = (struct probe_site){.emulated = kernel_emulates(code, insn.length)};
	if (out->emulated)
		return 0;

	end = lowest_branch_target(code, size, vaddr);
	if (end > LINE_MAX_BYTES)
		end = LINE_MAX_BYTES;
	for (size_t at = 0; at < end; at += insn.length) {
		if (!x86_insn_decode(code + at, size - at, vaddr + at, &insn))
			return 0;
		if (kernel_emulates(code + at, insn.length)) {
			*out = (struct probe_site){.offset = at, .emulated = true};
			return 0;
		}
		if (insn.flow != X86_FLOW_NEXT ||
		    x86_insn_writes_arguments(code + at, size - at, argument_count))
			return 0;
	}
	return 0;
}
