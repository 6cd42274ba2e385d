/*
 * Where a finished output goes: "-" is stdout; a directory gets the default name; anything else is
 * a file, written beside its place and renamed over it, so that no half-written file is ever seen.
 */
#ifndef ALLOCTRACE_FILE_H
#define ALLOCTRACE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct output_owner {
	bool given; /* false: leave it to whoever runs us */
	uid_t uid;
	gid_t gid;
};

/*
 * The path for one profile: pattern with %p (pid), %c (comm, with anything but letters, digits,
 * '.', '_',
 * '-' and '+', and a '.' or '-' at its beginning, replaced by '_') and %% expanded; a pattern that
 * is an existing directory or ends in
 * '/' gets "alloctrace.%c.%p.<extension>" appended; NULL is that name in the current folder. *path
 * is the caller's to free. 0, -EINVAL (unknown %), -ENOMEM.
 */
int output_path(const char *pattern, const char *comm, int pid, const char *extension, char **path);

/*
 * The path of one of several profiles of a process: the number, of four digits at least, before the
 * extension ("x.0001.pb.gz"), or at the end where path has another. To be freed. 0 or -ENOMEM.
 */
int output_numbered(const char *path, const char *extension, unsigned int number, char **numbered);

/*
 * Can path be written later? Called before a recording starts, so that nobody waits 60 s for
 * "permission denied". 0 or -errno: -ENOENT (no such folder), -EACCES, -EISDIR, -ELOOP (a symlink
 * owned by somebody other than root, us or owner: it is not followed).
 */
int output_check(const char *path, const struct output_owner *owner);

/*
 * Writes all bytes to path, atomically where path is (or will be) a regular file, directly where it
 * is a pipe or a device such as /dev/stdout; gives it to owner. 0 or -errno; on failure nothing is
 * left behind and an existing file is as it was.
 */
int output_write(const char *path, const struct output_owner *owner, const void *data, size_t size);

#endif
