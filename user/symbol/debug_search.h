/*
 * Where an image's separate debug information is: in a file named by its build id, or by its
 * .gnu_debuglink, in the folders that the user names, in the target's own root, on the host, and on a
 * debuginfod server if that was asked for. Such a file is as hostile as the image; it is used only if
 * it can be shown to belong to it, by build id, or by the link's checksum where there is none.
 */
#ifndef ALLOCTRACE_DEBUG_SEARCH_H
#define ALLOCTRACE_DEBUG_SEARCH_H

#include "binary/image.h"

/* Where Debian and others put separate debug files, on the host and in containers. */
#define DEBUG_SEARCH_ROOT "/usr/lib/debug"
/* Of a debug file; what is larger is not looked into. */
#define DEBUG_SEARCH_FILE_MAX (8ull << 30)

struct downloads;

/* Bytes that a run reads for checksums, where no build id tells whether a file belongs to an image. */
#define DEBUG_SEARCH_CHECKSUM_MAX (4ull << 30)

/* Borrowed, all of it. Zeros: the standard folders only, in silence, and no checksums. */
struct debug_search {
	const char *const *folders; /* on the host; before all others, in this order */
	size_t folder_count;
	struct downloads *server; /* NULL: nothing is downloaded */
	uint64_t *checksum_bytes; /* that may still be read, from DEBUG_SEARCH_CHECKSUM_MAX down */
	/*
	 * Told each place that was looked at for image, the file itself first. in_target: where is a
	 * path of the target's root. where may hold hostile bytes.
	 */
	void (*looked)(void *context, const struct image *image, const char *where, bool in_target,
		       const char *outcome);
	void *context;
};

/* Tells one place, if anybody is to be told. */
void debug_search_tell(const struct debug_search *search, const struct image *image,
		       const char *where, bool in_target, const char *outcome);

/*
 * The separate file of image, which need not have DWARF: its symbol table may be all that there is.
 * To be freed, before what holds image's root; NULL: none found.
 */
struct image *debug_search_find(const struct debug_search *search, const struct image *image);

/*
 * What dwz has moved out of `from`, which names it in .gnu_debugaltlink: by build id, or by name,
 * which is relative to the folder of from. As above.
 */
struct image *debug_search_find_extra(const struct debug_search *search, const struct image *from,
				      const char *name, const void *build_id, size_t length);

/* A file of the root of image, by its path there, whatever it is. As above. */
struct image *debug_search_open(const struct debug_search *search, const struct image *image,
				const char *path);

#endif
