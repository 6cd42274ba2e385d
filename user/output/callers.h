/*
 * Who called: the rest of a stack, in one line for people.
 */
#ifndef ALLOCTRACE_OUTPUT_CALLERS_H
#define ALLOCTRACE_OUTPUT_CALLERS_H

#include "output/frame.h"

#include <stddef.h>

/*
 * "< handle_request server.c:310 < main server.c:20": the frames from the cursor on outwards, as many as fit into
 * some `width` characters (those that are escaped take more), and at least one. Names are escaped; neighbours without a name are told once. Where
 * the walk did not reach the end of the stack, that is told. NULL where there is nothing to tell; the caller frees it.
 * 0 or -ENOMEM.
 */
int callers_format(struct frame_cursor *cursor, size_t width, char **text);

#endif
