/*
 * CPython in a process: where its version keeps what (for the kernel side, which reads the frames of a
 * thread), and what the code objects in its memory are called.
 *
 * Known are 3.11, 3.12 and 3.13, found by the data symbols _PyRuntime and Py_Version, which an
 * executable or a library with the interpreter exports (to extension modules). What 3.13 keeps where,
 * it tells itself (struct _Py_DebugOffsets at the beginning of _PyRuntime); of 3.11 and 3.12 it is
 * known from their headers, and has stayed as it is within each.
 *
 * Code objects are freed, those of modules when they have been imported, and others get their place. So
 * they are read as soon as a stack with them is seen, and then it is told by the stack's key whether
 * they are still those that the kernel side saw: a function has its name, or none. The process's memory
 * is hostile: lengths have limits, and what has another type than PyCode_Type is none.
 */
#ifndef ALLOCTRACE_PYTHON_H
#define ALLOCTRACE_PYTHON_H

#include "alloctrace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image;
struct process;
struct python;

/* Code objects that are kept of a process. */
#define PYTHON_CODES_MAX 65536

/* A Python function, and the line in it. */
struct python_function {
	const char
		*name; /* qualified: "Class.method", "f.<locals>.g"; as long as the struct python */
	const char *file;	   /* as above */
	uint32_t line, first_line; /* 0: unknown */
};

/*
 * Looks at the images of a process that have not been looked at yet. *python is made if one has an
 * interpreter, and is the one that was found before otherwise; NULL: none. 0 or -ENOMEM.
 */
int python_look(const struct process *process, struct python **python);
void python_free(struct python *python);

/* The file with the interpreter: borrowed from the process; NULL: none was found. */
const struct image *python_image(const struct python *python);

/* For the kernel side. */
const struct python_target *python_target(const struct python *python);

/*
 * Reads the code objects of a new stack, and puts their numbers in place of their addresses
 * (FRAME_PYTHON_KNOWN). seed: what the hash began with. False: they are others by now, or cannot be read.
 */
bool python_resolve(struct python *python, const struct process *process, uint64_t seed,
		    uint64_t key, struct stack *stack);

/* Code objects that are known. */
size_t python_count(const struct python *python);

/* What a frame is called; false: not known. */
bool python_name(const struct python *python, uint64_t frame, struct python_function *out);

/* The address of the instruction that a frame is at. */
uint64_t python_address(const struct python *python, uint64_t frame);

#endif
