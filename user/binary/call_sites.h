/*
 * Where an image's code may call, by a scan of its bytes: which ranges of code a walk can come
 * upon. Every byte is tried as the start of an instruction, so no call is missed; data that looks
 * like one is taken for one, which costs a table row and nothing else.
 */
#ifndef ALLOCTRACE_CALL_SITES_H
#define ALLOCTRACE_CALL_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "binary/eh_frame.h"
#include "binary/image.h"

struct call_sites;

/*
 * image and text (sorted, executable, in the file) are borrowed while the result lives. 0, -ENOTSUP
 * (machine), -ENOMEM.
 */
int call_sites_new(const struct image *image, const struct eh_frame_range *text, size_t text_count,
		   struct call_sites **out);
void call_sites_free(struct call_sites *sites);

/*
 * Does [start, end) hold an address that a walk can look up? These are return address - 1 (the last
 * byte of a call), and where a signal finds a blocked thread: at, or behind, a system call
 * instruction. Code that cannot be read counts as full of them.
 * Questions must come by rising start; each byte is so read about once.
 */
bool call_sites_any(struct call_sites *sites, uint64_t start, uint64_t end);

/*
 * The first signal return trampoline (the instructions that call rt_sigreturn) that starts in
 * [start, end), which call_sites_any() has just been asked about. musl's has no call frame
 * information.
 */
bool call_sites_sigreturn(struct call_sites *sites, uint64_t start, uint64_t end,
			  struct eh_frame_range *trampoline);

#endif
