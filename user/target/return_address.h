/*
 * Is a word of a stack a return address? For code that has neither unwind information nor a frame
 * pointer (musl's library is such code): what a call left on the stack is told by the instruction
 * before it.
 */
#ifndef ALLOCTRACE_RETURN_ADDRESS_H
#define ALLOCTRACE_RETURN_ADDRESS_H

#include "target/process.h"

#include <stdbool.h>
#include <stdint.h>

enum return_address {
	RETURN_ADDRESS_NONE,
	RETURN_ADDRESS_OTHER, /* of a call, though not one that seems to have led here */
	RETURN_ADDRESS_MATCHES,
};

/*
 * Does the word look like the return address of a call that led to pc: of a direct one to code not
 * far before pc, of one to another image (through its procedure linkage table), or of an indirect
 * one? x86-64 only: elsewhere always RETURN_ADDRESS_NONE.
 */
enum return_address return_address_check(const struct process *process, uint64_t word, uint64_t pc);

#endif
