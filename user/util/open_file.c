#include "util/open_file.h"

#include "util/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Takes over a descriptor that only says which file it is (O_PATH), or an -errno. */
static int reopen(int fd)
{
	CLEANUP(cleanup_fd) int which = fd;
	struct stat st;
	char link[64];
	int file;

	if (which < 0)
		return which;
	if (fstat(which, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", which);
	/* What it is cannot change any more; O_NONBLOCK, because a lease of another may delay. */
	file = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return file < 0 ? -errno : file;
}

int open_file_below(int root, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	CLEANUP(cleanup_fd) int host = -1;
	int fd;

	if (root == OPEN_FILE_HOST) {
		host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (host < 0)
			return -errno;
		root = host;
	}
	fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	return reopen(fd < 0 ? -errno : fd);
}

/* As we see it, or, where we cannot, as whoever has it mounted. */
static bool path_of(int fd, char path[PATH_MAX])
{
	char link[64];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, PATH_MAX - 1);
	if (length <= 0)
		return false;
	path[length] = '\0';
	return path[0] == '/';
}

char *open_file_path(int root, int fd)
{
	char path[PATH_MAX], root_path[PATH_MAX] = "/";
	size_t length;

	if (!path_of(fd, path) || (root != OPEN_FILE_HOST && !path_of(root, root_path)))
		return NULL;
	length = strlen(root_path);
	if (length == 1)
		length = 0;
	if (strncmp(path, root_path, length) || path[length] != '/')
		return NULL;
	return strdup(path + length);
}

int open_file_link(const char *link)
{
	int fd = open(link, O_PATH | O_CLOEXEC);

	return reopen(fd < 0 ? -errno : fd);
}
