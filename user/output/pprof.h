/*
 * profile -> gzipped protocol buffer of google/pprof (proto/profile.proto). See the field rules at
 * the top of pprof.c.
 */
#ifndef ALLOCTRACE_PPROF_H
#define ALLOCTRACE_PPROF_H

#include "profile/profile.h"

#include <stddef.h>
#include <stdint.h>

/* *data is the caller's to free. 0, -ENOMEM, -EFBIG (over 2 GiB uncompressed), -EIO (zlib). */
int pprof_encode(const struct profile *profile, uint8_t **data, size_t *size);

/*
 * The same of a profile of growth (profile_finish_growth()): one sample type, growth_space/bytes,
 * label kind: what memory it is. A sample stands for as many page faults as the period says at least.
 */
int pprof_encode_growth(const struct profile *profile, uint8_t **data, size_t *size);

#endif
