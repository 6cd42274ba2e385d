/* The table of the summary: the sites with most live bytes, their four figures, names and callers.
 */
#ifndef ALLOCTRACE_SITE_TABLE_H
#define ALLOCTRACE_SITE_TABLE_H

#include "profile/profile.h"

#include <stdio.h>

/*
 * The first `top` sites of a finished profile, and how many there are besides; then the same of those
 * that make direct mappings, if there are any. 0 or -ENOMEM.
 */
int site_table_write(const struct profile *profile, unsigned int top, FILE *to);

#endif
