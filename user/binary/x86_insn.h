/*
 * One x86-64 instruction, as far as control flow goes: how long it is, and where it may lead. Both
 * the choice of probe sites and the search for calls between functions sweep over code with it.
 */
#ifndef ALLOCTRACE_X86_INSN_H
#define ALLOCTRACE_X86_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum x86_flow {
	X86_FLOW_NEXT, /* goes on with the next instruction */
	X86_FLOW_CALL,
	X86_FLOW_JUMP,
	X86_FLOW_BRANCH, /* conditional: jcc, loop, jrcxz, xbegin */
	X86_FLOW_SYSTEM, /* syscall, int n: returns, after anything may have happened */
	X86_FLOW_END,	 /* ret, hlt, ud2, int3: nothing follows */
};

struct x86_insn {
	size_t length;
	enum x86_flow flow;
	bool has_target;    /* the operand is relative: */
	uint64_t target;    /*   where to */
	bool has_slot;	    /* the operand is memory addressed by rip: */
	uint64_t slot;	    /*   its address (a GOT entry, mostly) */
	bool is_endbr;	    /* endbr64 */
	bool is_table_load; /* movslq (base,index,4): how compilers read a jump table of offsets */
	bool is_table_jump; /* jmp *(base,index,scale), notrack jmp: a switch */
	bool is_register_jump;
};

/* Decodes the instruction at code[0, size), which is at vaddr. false: none, or cut off. */
bool x86_insn_decode(const uint8_t *code, size_t size, uint64_t vaddr, struct x86_insn *out);

/*
 * Does it write one of the first argument_count argument registers (rdi, rsi, rdx), or rsp, in
 * whole or in part, always or on a condition, named or implied? Also true where it does not decode.
 */
bool x86_insn_writes_arguments(const uint8_t *code, size_t size, unsigned int argument_count);

#endif
