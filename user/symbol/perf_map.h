/*
 * The names of code that a process makes at run time, from the file that its just-in-time compiler
 * writes for perf: /tmp/perf-PID.map below the process's root, PID as its innermost pid namespace
 * counts. A line a function: "START SIZE name", numbers in hex, the name to the end of the line (the
 * kernel's tools/perf/Documentation/jit-interface.txt). Code is freed and its place used again, so of
 * two lines about one address the later one holds.
 *
 * All of it is the process's, or of somebody who was before it in /tmp: only a regular file is read
 * that the process's user or root owns and that nobody else may write, and no more of it than the
 * limits below. Names are bytes: escape them before printing.
 */
#ifndef ALLOCTRACE_PERF_MAP_H
#define ALLOCTRACE_PERF_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A map of a process that runs for days has tens of MiB, with some 60 bytes a line. */
#define PERF_MAP_BYTES_MAX   (256u * 1024 * 1024)
#define PERF_MAP_ENTRIES_MAX (4u * 1024 * 1024)

/* "/tmp/perf-PID.map" */
#define PERF_MAP_PATH_MAX 40

struct perf_map;

/* Whose map it is: what makes a file that is found under the name credible. */
struct perf_map_owner {
	int root;    /* descriptor of its root folder, as for open_file_below() */
	pid_t pid;   /* its id in its innermost pid namespace */
	uid_t user;  /* its effective ids, */
	gid_t group; /* as we see them */
};

void perf_map_path(pid_t pid, char path[PERF_MAP_PATH_MAX]);

/*
 * Reads a process's map, which may be there still when the process is not. 0; -ENOENT: there is none;
 * -ENOMEM; or -errno for one that there is and that is not used: *refusal then says why, as what
 * follows "it" (static).
 */
int perf_map_read(const struct perf_map_owner *owner, struct perf_map **out, const char **refusal);
void perf_map_free(struct perf_map *map);

/* The name of the code at an address, valid as long as the map, never ""; NULL: none. */
const char *perf_map_find(const struct perf_map *map, uint64_t address);

/* Lines that are not of the format, or whose code runs over the end of the address space. */
size_t perf_map_broken(const struct perf_map *map);

#endif
