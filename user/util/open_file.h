/*
 * Opening files whose names, and whose folders, are a target's: regular files for reading, and
 * nothing else. A device that is merely opened may act (a watchdog, a tape), a FIFO may wait for ever.
 */
#ifndef ALLOCTRACE_OPEN_FILE_H
#define ALLOCTRACE_OPEN_FILE_H

/* A folder to look below, the way the target sees it. */
#define OPEN_FILE_HOST (-1) /* instead of a root's descriptor: our own root */

/*
 * The file that path names where root is "/", as after chroot(): symbolic links and ".." lead to what
 * is below it only, links of /proc nowhere. root is a descriptor of the folder (O_PATH will do), or
 * OPEN_FILE_HOST. The descriptor, to be closed; -EINVAL: not a regular file; or -errno.
 */
int open_file_below(int root, const char *path);

/*
 * The path of an open file where root is "/", without symbolic links: where relative paths in it begin.
 * To be freed; NULL: it is not below root, or cannot be told.
 */
char *open_file_path(int root, int fd);

/* The file behind a link of /proc ("/proc/1/map_files/..."), which leads straight to it. As above. */
int open_file_link(const char *link);

#endif
