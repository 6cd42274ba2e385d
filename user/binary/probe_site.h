/*
 * Which instruction of a function carries the breakpoint.
 *
 * The kernel emulates a few instructions (x86-64: nop, push r64, jmp/jcc/call rel) at ~0.6 us a hit
 * and single-steps all others, which costs ~20 us in a VM. So: decode from the function's entry in
 * a straight line, and take the first emulated instruction at which the arguments still are in
 * their registers, rsp is as at the entry, and to which no branch of the function leads back.
 * Otherwise the entry itself.
 */
#ifndef ALLOCTRACE_PROBE_SITE_H
#define ALLOCTRACE_PROBE_SITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct probe_site {
	size_t offset; /* from the function's entry */
	bool emulated;
};

/*
 * code: the function's bytes, all of them (size bytes), so that branches back can be seen. vaddr:
 * the entry's address. argument_count: how many argument registers (rdi, rsi, rdx in order) must be
 * intact. 0; -ENOEXEC where the entry does not decode.
 */
int probe_site_choose(const uint8_t *code, size_t size, uint64_t vaddr, unsigned int argument_count,
		      struct probe_site *out);

#endif
