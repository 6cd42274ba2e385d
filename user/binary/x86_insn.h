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
	bool is_return;	    /* ret, of whatever form; a X86_FLOW_END */
	uint8_t condition;  /* of a jcc: the low four bits of its opcode */
	bool is_endbr;	    /* endbr64 */
	bool is_table_load; /* movslq (base,index,4): how compilers read a jump table of offsets */
	bool is_table_jump; /* jmp *(base,index,scale), notrack jmp: a switch */
	bool is_register_jump;
};

/* Decodes the instruction at code[0, size), which is at vaddr. false: none, or cut off. */
bool x86_insn_decode(const uint8_t *code, size_t size, uint64_t vaddr, struct x86_insn *out);

/*
 * What an instruction does to the general registers, numbered as instructions encode them: rax 0,
 * rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8-r15.
 */
struct x86_writes {
	uint16_t registers; /* a bit for each that may change, in whole or part, named or implied */
	bool is_copy;	    /* mov r64, r64: */
	uint8_t from, to;   /*   its whole value is in both afterwards */
};

/* The writes of the instruction at code[0, size). false: it does not decode. */
bool x86_insn_writes(const uint8_t *code, size_t size, struct x86_writes *out);

#endif
