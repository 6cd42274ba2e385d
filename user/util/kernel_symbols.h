/* What the kernel is made of, by the names of its functions: for what cannot be tried out. */
#ifndef ALLOCTRACE_KERNEL_SYMBOLS_H
#define ALLOCTRACE_KERNEL_SYMBOLS_H

#include <stdbool.h>
#include <stdio.h>

/* By /proc/kallsyms, all of which is read: a tenth of a second. false, too, where it is unreadable. */
bool kernel_has_function(const char *name);

/* The same for a text like it. */
bool kernel_symbols_have(FILE *kallsyms, const char *name);

#endif
