/*
 * Readable names of C++ and Rust functions, each made once and kept. Mangled names come from
 * hostile files: a short one can stand for gigabytes of text, so what goes in and what comes out is
 * bounded.
 */
#ifndef ALLOCTRACE_DEMANGLE_H
#define ALLOCTRACE_DEMANGLE_H

/* Bytes. Longer mangled names, and those that would come out longer, stay as they are. */
#define DEMANGLE_MAX (64 * 1024)

struct demangler;

int demangler_new(struct demangler **out); /* 0 or -ENOMEM */
void demangler_free(struct demangler *demangler);

/*
 * The readable form of a name, without parameters: valid until demangler_free(). A name that is not
 * mangled, or for which memory is short, is returned itself.
 */
const char *demangler_name(struct demangler *demangler, const char *mangled);

#endif
