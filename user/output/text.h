/* profile -> what a person reads: the summary on stdout, and folded stacks for flame graphs. */
#ifndef ALLOCTRACE_TEXT_H
#define ALLOCTRACE_TEXT_H

#include "profile/profile.h"

#include <stdio.h>

/* The summary: what was traced and how, losses, rates, and the `top` largest sites (0: none). */
int text_write_summary(const struct profile *profile, unsigned int top, FILE *to);

/*
 * One line per site: frames from the outermost to the innermost, separated by ';', a space, and the
 * live bytes (inuse_space). Sites with nothing live are left out; those of direct mappings end in
 * "[mmap]".
 */
int folded_write(const struct profile *profile, FILE *to);

/*
 * Writes a string from outside, control characters, DEL, C1 controls, marks of the direction of
 * writing and invalid UTF-8 as \xNN (a backslash as \\), so that it cannot steer a terminal or
 * forge a line.
 */
void text_escape(FILE *to, const char *string);

/* The same as a copy, to be freed; NULL: no memory. */
char *text_escaped(const char *string);

/* Escapes one ASCII character more, which means something where the string is written. */
void text_escape_also(FILE *to, const char *string, char special);

#endif
