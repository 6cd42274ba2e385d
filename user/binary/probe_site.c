/*
 * Two passes over the function's bytes.
 *
 * The sweep decodes all of them and notes the lowest address that a branch of the function leads
 * to. Up to there, what stands before the first conditional branch is run once per call, from the
 * entry on: a breakpoint on it is hit once per call. Where the sweep cannot see every branch (bytes
 * that do not decode, a switch through a table) only the entry is left.
 *
 * The line then goes from the entry to the first instruction that the kernel emulates, as long as
 * each argument is in some register and rsp is not written. On the way a mov of a whole register
 * hands an argument on, and any other write of a register takes it out of there. The line ends at
 * the first control transfer at the latest, which is itself emulated in most functions.
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

/* Where the wanted values are, at one place of the line. */
struct line_state {
	uint16_t holders[PROBE_ARGUMENTS_MAX]; /* of each argument: registers that hold it */
	bool stack_moved;
};

/* Is everything that is wished for known? What has been lost does not come back. */
static bool is_known(const struct line_state *state, const struct probe_wish *wish)
{
	for (size_t i = 0; i < wish->argument_count; i++) {
		if (!state->holders[i])
			return false;
	}
	return !state->stack_moved || wish->stack_moves;
}

static void step(struct line_state *state, const struct x86_writes *writes, size_t argument_count)
{
	for (size_t i = 0; i < argument_count; i++) {
		bool is_handed_on = writes->is_copy && state->holders[i] >> writes->from & 1;

		state->holders[i] &= ~writes->registers;
		if (is_handed_on)
			state->holders[i] |= 1U << writes->to;
	}
	state->stack_moved |= writes->registers >> PROBE_X86_RSP & 1;
}

/* Replaces the site at the entry in *site by a better one, if there is one. */
static void follow_line(const uint8_t *code, size_t size, uint64_t vaddr,
			const struct probe_wish *wish, struct probe_site *site)
{
	size_t end = lowest_branch_target(code, size, vaddr);
	struct line_state state = {0};
	struct x86_writes writes;
	struct x86_insn insn;

	for (size_t i = 0; i < wish->argument_count; i++)
		state.holders[i] = 1U << site->registers[i];
	if (end > LINE_MAX_BYTES)
		end = LINE_MAX_BYTES;
	for (size_t at = 0; at < end && is_known(&state, wish); at += insn.length) {
		if (!x86_insn_decode(code + at, size - at, vaddr + at, &insn))
			return;
		if (kernel_emulates(code + at, insn.length)) {
			site->offset = at;
			site->emulated = true;
			for (size_t i = 0; i < wish->argument_count; i++) {
				if (!(state.holders[i] >> site->registers[i] & 1))
					site->registers[i] =
						(uint8_t)__builtin_ctz(state.holders[i]);
			}
			return;
		}
		if (insn.flow != X86_FLOW_NEXT || !x86_insn_writes(code + at, size - at, &writes))
			return;
		step(&state, &writes, wish->argument_count);
	}
}

static const uint8_t argument_registers[PROBE_REGISTER_ARGUMENTS] = {
	PROBE_X86_RDI, PROBE_X86_RSI, PROBE_X86_RDX, PROBE_X86_RCX, PROBE_X86_R8, PROBE_X86_R9,
};

uint8_t probe_argument_register(uint8_t argument)
{
	return argument_registers[argument];
}

/* The site at the entry, where all arguments are in their own registers. */
static int entry_site(const struct probe_wish *wish, const uint8_t *registers,
		      size_t register_count, struct probe_site *site)
{
	*site = (struct probe_site){0};
	if (wish->argument_count > PROBE_ARGUMENTS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < wish->argument_count; i++) {
		if (wish->arguments[i] >= register_count)
			return -EINVAL;
		site->registers[i] = registers[wish->arguments[i]];
	}
	return 0;
}

int probe_site_choose(const uint8_t *code, size_t size, uint64_t vaddr,
		      const struct probe_wish *wish, struct probe_site *out)
{
	struct probe_site site;
	struct x86_insn insn;
	int err;

	err = entry_site(wish, argument_registers, sizeof(argument_registers), &site);
	if (err)
		return err;
	if (size) {
		if (!x86_insn_decode(code, size, vaddr, &insn))
			return -ENOEXEC;
		site.emulated = kernel_emulates(code, insn.length);
		if (!site.emulated)
			follow_line(code, size, vaddr, wish, &site);
	}
	*out = site;
	return 0;
}

/*
 * What arch/arm64/kernel/probes/decode-insn.c simulates on every kernel that has uprobes there
 * (4.10). nop came with 6.13.
 */
static bool kernel_simulates(uint32_t insn)
{
	static const struct {
		uint32_t mask, value;
	} simulated[] = {
		{0x7c000000, 0x14000000}, /* b, bl */
		{0xff000010, 0x54000000}, /* b.cond */
		{0x7c000000, 0x34000000}, /* cbz, cbnz, tbz, tbnz */
		{0x1f000000, 0x10000000}, /* adr, adrp */
		{0xfffffc1f, 0xd61f0000}, /* br */
		{0xfffffc1f, 0xd63f0000}, /* blr */
		{0xfffffc1f, 0xd65f0000}, /* ret */
	};

	for (size_t i = 0; i < sizeof(simulated) / sizeof(*simulated); i++) {
		if ((insn & simulated[i].mask) == simulated[i].value)
			return true;
	}
	return false;
}

int probe_site_choose_aarch64(const uint8_t *code, size_t size, uint64_t vaddr,
			      const struct probe_wish *wish, struct probe_site *out)
{
	static const uint8_t first_registers[] = {0, 1, 2, 3, 4, 5, 6, 7};
	struct probe_site site;
	int err;

	err = entry_site(wish, first_registers, sizeof(first_registers), &site);
	if (err)
		return err;
	if (vaddr % 4 || (size && size < 4))
		return -ENOEXEC;
	if (size)
		site.emulated = kernel_simulates((uint32_t)code[0] | (uint32_t)code[1] << 8 |
						 (uint32_t)code[2] << 16 | (uint32_t)code[3] << 24);
	*out = site;
	return 0;
}
