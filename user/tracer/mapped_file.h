/* What the mappings of a process are of, as the kernel has it and /proc does not tell (struct mapped_file). */
#ifndef ALLOCTRACE_MAPPED_FILE_H
#define ALLOCTRACE_MAPPED_FILE_H

#include "alloctrace.h"

#include <stdint.h>
#include <sys/types.h>

struct bpf_program;

/*
 * Of the mapping that starts there. program: list_files, loaded. 0, -ENOENT (there is none, or not of a
 * file) or -errno. Takes as long as to read /proc/PID/maps.
 */
int mapped_file_find(const struct bpf_program *program, pid_t pid, uint64_t start,
		     struct mapped_file *out);

#endif
