/*
 * Which instruction of a function carries the breakpoint.
 *
 * The kernel emulates a few instructions (x86-64: nop, push r64, jmp/jcc/call rel) at ~0.6 us a hit
 * and single-steps all others, which costs ~20 us in a VM. So: decode from the function's entry in
 * a straight line, and take the first emulated instruction at which each argument that is wanted
 * still is in some register, rsp is as at the entry, and to which no branch of the function leads
 * back. Otherwise the entry itself.
 *
 * On aarch64 it is always the entry. The return address is in x30 there, and a return probe is right
 * only before the prologue that saves it (stp x29, x30), signs it (paciasp) or calls; that is mostly
 * within the first three instructions. And cold parts that jump back to there are looked for on
 * x86-64 only (nesting.h).
 */
#ifndef ALLOCTRACE_PROBE_SITE_H
#define ALLOCTRACE_PROBE_SITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arguments of one function that a probe may want. */
#define PROBE_ARGUMENTS_MAX 4

/* The registers of x86-64 as instructions encode them, which is how probe_site.registers does. */
enum probe_register_x86 {
	PROBE_X86_RAX,
	PROBE_X86_RCX,
	PROBE_X86_RDX,
	PROBE_X86_RBX,
	PROBE_X86_RSP,
	PROBE_X86_RBP,
	PROBE_X86_RSI,
	PROBE_X86_RDI,
	PROBE_X86_R8,
	PROBE_X86_R9,
	PROBE_X86_R10,
	PROBE_X86_R11,
	PROBE_X86_R12,
	PROBE_X86_R13,
	PROBE_X86_R14,
	PROBE_X86_R15,
};

/* The register in which the ABI passes an integer argument (0 = the first), < PROBE_REGISTER_ARGUMENTS. */
#define PROBE_REGISTER_ARGUMENTS 6
uint8_t probe_argument_register(uint8_t argument);

/* What has to be known at the site. */
struct probe_wish {
	/* Borrowed: which integer arguments. x86-64: 0 rdi, 1 rsi, 2 rdx, 3 rcx, 4 r8, 5 r9. */
	const uint8_t *arguments;
	size_t argument_count; /* <= PROBE_ARGUMENTS_MAX */
	/*
	 * rsp may have changed. Not so where the return is probed, or the stack walked: for both
	 * the return address is at [rsp].
	 */
	bool stack_moves;
};

struct probe_site {
	size_t offset; /* from the function's entry */
	bool emulated;
	/* At the site, the register that holds each argument, in the order of the wish. */
	uint8_t registers[PROBE_ARGUMENTS_MAX];
};

/*
 * code: the function's bytes, all of them (size bytes), so that branches back can be seen; with
 * size 0, not known, the site is the entry. vaddr: the entry's address. 0; -EINVAL for a wish of
 * too many arguments or one that is not in a register; -ENOEXEC where the entry does not decode.
 */
int probe_site_choose(const uint8_t *code, size_t size, uint64_t vaddr,
		      const struct probe_wish *wish, struct probe_site *out);

/* The same for aarch64, where registers are x0-x7. -ENOEXEC for a vaddr that is no multiple of 4. */
int probe_site_choose_aarch64(const uint8_t *code, size_t size, uint64_t vaddr,
			      const struct probe_wish *wish, struct probe_site *out);

#endif
