/*
 * The function at which most of something is: of a process's live bytes, of its new pages.
 */
#ifndef ALLOCTRACE_OUTPUT_SWEEP_SITE_H
#define ALLOCTRACE_OUTPUT_SWEEP_SITE_H

#include "output/frame.h"

#include <stdint.h>

struct sweep_site {
	char *function; /* owned; NULL: none is known */
	char *file;	/* owned; "" where unknown */
	uint32_t line;	/* 0: unknown */
	double share;	/* of all, 0 to 1 */
	char *callers;	/* owned; as callers_format() has it; NULL: none */
};

/* From a frame, and a cursor that was left behind it. 0 or -ENOMEM; sweep_site_deinit() in either case. */
int sweep_site_fill(struct sweep_site *site, struct frame_cursor *cursor, const struct frame *frame,
		    double share);

void sweep_site_deinit(struct sweep_site *site);

#endif
