/*
 * The allocators' own frames: what a reader looks through to see who asked for the memory. A stack
 * begins at the caller of the probed function; these still appear where one of them calls another,
 * as operator new does malloc.
 */
#ifndef ALLOCTRACE_ALLOC_FRAMES_H
#define ALLOCTRACE_ALLOC_FRAMES_H

#include <stdbool.h>

/*
 * For pprof's drop_frames: RE2, which pprof anchors at both ends and matches against a name up to
 * its first '('. pprof drops the matching frame and those inside of it, never one outside of it.
 */
extern const char alloc_frames_regex[];

/* Would that match this name? */
bool alloc_frames_match(const char *name);

/*
 * Beyond that, a function that only hands a request on to the allocator in the name of its
 * language: C++'s std::allocator, Rust's alloc, Python's PyMem and PyObject. Not dropped from a profile, but no answer to "who
 * allocates?".
 */
bool alloc_frames_plumbing(const char *name);

/*
 * Beyond that, what touches memory in the name of its caller: memset and its like, and the insides of
 * glibc's allocator. No answer to "who fills it?".
 */
bool alloc_frames_touch(const char *name);

#endif
