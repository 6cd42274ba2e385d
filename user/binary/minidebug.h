/*
 * The symbol table that a stripped image may carry with it, compressed (.gnu_debugdata,
 * "MiniDebugInfo": an ELF file in xz's format).
 */
#ifndef ALLOCTRACE_MINIDEBUG_H
#define ALLOCTRACE_MINIDEBUG_H

#include "binary/image.h"

/*
 * 0 with *out (to be freed; its addresses are the image's), -ENOENT where there is none, -E2BIG over
 * a limit, -EINVAL where it is broken, -ENOMEM, or what image_open() returns.
 */
int minidebug_open(const struct image *image, struct image **out);

#endif
