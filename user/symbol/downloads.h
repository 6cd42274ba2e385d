/*
 * Debug files from a debuginfod server: by libdebuginfod, which is loaded when it is asked for, uses
 * the servers of DEBUGINFOD_URLS and keeps what it gets in a cache of its own
 * (debuginfod-client-config(7)). A server may be slow or silent, and a target decides how many files
 * it maps: so there are limits in time and size for all downloads together.
 */
#ifndef ALLOCTRACE_DOWNLOADS_H
#define ALLOCTRACE_DOWNLOADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For all files of one run. DEBUGINFOD_TIMEOUT, _MAXTIME and _MAXSIZE may set less for one file. */
#define DOWNLOADS_SECONDS_MAX 120
#define DOWNLOADS_BYTES_MAX   (2ull << 30)
/* A server that says nothing for so long is given up; instead of the library's 90. */
#define DOWNLOADS_STALL_SECONDS "10"

struct downloads;

/*
 * Asked now and then while a file is on its way: false ends that, and there will be no other. Bytes;
 * of: 0 where not known. name: hostile text.
 */
typedef bool (*downloads_progress_fn)(const char *name, uint64_t bytes, uint64_t of);

/* 0; -EDESTADDRREQ: DEBUGINFOD_URLS is not set; -ELIBACC: no libdebuginfod; -ENOMEM. */
int downloads_new(downloads_progress_fn progress, struct downloads **out);
void downloads_free(struct downloads *downloads);

/*
 * The debug file of that build id, fetched or from the cache: a descriptor, to be closed. name is for
 * the progress. -ENOENT: no server has it; -ETIME, -EFBIG: a limit; -EINTR: ended by the progress; or another -errno of the library.
 */
int downloads_fetch(struct downloads *downloads, const char *name, const uint8_t *build_id,
		    size_t length);

/* "no server has it" and the like, for an error of downloads_fetch(). */
const char *downloads_failure_text(int err);

#endif
