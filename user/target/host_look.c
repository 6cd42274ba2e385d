#include "target/host_look.h"

#include "target/cgroup.h"
#include "util/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAT_MAX     2048
#define STATUS_MAX   8192
#define STATM_MAX    256
#define PF_KTHREAD   0x00200000
#define THREADS_LOOK 4096 /* threads of a process without its first one that are tried */

/* What has ended between two looks is ESRCH, whether its folder or a file in it is gone. */
static int error_of(int error)
{
	return error == ENOENT ? -ESRCH : -error;
}

static int open_in(int folder, const char *name)
{
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? error_of(errno) : fd;
}

/* The beginning of a text, at most size - 1 bytes, with a NUL behind. Bytes or -errno. */
static ssize_t read_in(int folder, const char *name, char *text, size_t size)
{
	CLEANUP(cleanup_fd) int fd = open_in(folder, name);
	size_t length = 0;

	if (fd < 0)
		return fd;
	while (length < size - 1) {
		ssize_t n = read(fd, text + length, size - 1 - length);

		if (n < 0)
			return error_of(errno);
		if (n == 0)
			break;
		length += (size_t)n;
	}
	text[length] = '\0';
	return (ssize_t)length;
}

/*
 * /proc/PID/stat (proc(5)): "PID (NAME) STATE PARENT ...". The name may hold parentheses, blanks, newlines;
 * behind its last one there are only a letter and numbers.
 */
static int parse_stat(const char *text, struct host_look *out)
{
	const char *name = strchr(text, '('), *rest = strrchr(text, ')');
	unsigned int flags;
	long threads;
	size_t length;
	char state;
	int parent;

	/* Fields 3, 4, 9, 20, 22. */
	if (!name || !rest || rest <= name ||
	    sscanf(rest + 1,
		   " %c %d %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d "
		   "%" SCNu64,
		   &state, &parent, &flags, &threads, &out->start_time) != 5)
		return -ESRCH;
	length = (size_t)(rest - name - 1);
	if (length > HOST_COMM_SIZE - 1)
		length = HOST_COMM_SIZE - 1;
	memset(out->comm, 0, sizeof(out->comm));
	memcpy(out->comm, name + 1, length);
	out->parent = parent;
	/* The first thread may be one while others go on. */
	out->kind = flags & PF_KTHREAD				     ? HOST_KIND_KERNEL
		    : (state == 'Z' || state == 'X') && threads <= 1 ? HOST_KIND_ZOMBIE
								     : HOST_KIND_PROCESS;
	return 0;
}

static int read_user(int folder, uid_t *user)
{
	char text[STATUS_MAX];
	ssize_t n = read_in(folder, "status", text, sizeof(text));
	const char *line;
	unsigned int id;

	if (n < 0)
		return (int)n;
	/* The name, which comes first, has its newlines escaped. */
	line = strstr(text, "\nUid:");
	if (!line || sscanf(line, "\nUid: %*u %u", &id) != 1)
		return -ESRCH;
	*user = id;
	return 0;
}

static int read_cgroups(int folder, char **out)
{
	CLEANUP(cleanup_fd) int fd = open_in(folder, "cgroup");

	/* A kernel without control groups has no such file; that the process has gone is found out below. */
	if (fd == -ESRCH) {
		*out = strdup("");
		return *out ? 0 : -ENOMEM;
	}
	return fd < 0 ? fd : cgroup_read(fd, out);
}

void host_look_deinit(struct host_look *look)
{
	free(look->cgroups);
	look->cgroups = NULL;
	if (look->statm >= 0)
		close(look->statm);
	look->statm = -1;
}

int host_look(pid_t pid, struct host_look *out)
{
	CLEANUP(host_look_deinit) struct host_look look = {.statm = -1};
	CLEANUP(cleanup_fd) int folder = -1;
	char path[64], text[STAT_MAX];
	ssize_t n;
	int err;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return error_of(errno);
	n = read_in(folder, "stat", text, sizeof(text));
	if (n < 0)
		return (int)n;
	err = parse_stat(text, &look);
	if (!err && look.kind == HOST_KIND_PROCESS) {
		err = read_user(folder, &look.user);
		if (!err)
			err = read_cgroups(folder, &look.cgroups);
		/* Last: that it is there to be opened says that it was when the rest was read. */
		if (!err)
			look.statm = open_in(folder, "statm");
		if (!err && look.statm < 0)
			err = look.statm;
	}
	if (err)
		return err;
	*out = look;
	look = (struct host_look){.statm = -1};
	return 0;
}

int host_read_memory(int statm, struct host_memory *out)
{
	static uint64_t page_size;
	char text[STATM_MAX], *at = text;
	ssize_t n = pread(statm, text, sizeof(text) - 1, 0);
	uint64_t size, rss, shared;

	if (n <= 0)
		return n ? -errno : -ESRCH;
	text[n] = '\0';
	if (!page_size)
		page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	size = strtoull(at, &at, 10);
	rss = strtoull(at, &at, 10);
	shared = strtoull(at, &at, 10);
	if (!size)
		return -ECHILD;
	*out = (struct host_memory){.rss = rss * page_size, .shared = shared * page_size};
	return 0;
}

int host_find_thread(pid_t pid, int statm)
{
	struct host_memory memory;
	struct dirent *entry;
	int found = -ESRCH;
	char path[64];
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	threads = opendir(path);
	if (!threads)
		return error_of(errno);
	for (int i = 0; i < THREADS_LOOK && (entry = readdir(threads)); i++) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%.16s/statm", entry->d_name);
		found = open_in(dirfd(threads), path);
		if (found < 0)
			continue;
		if (!host_read_memory(found, &memory))
			break;
		close(found);
		found = -ESRCH;
	}
	closedir(threads);
	/* The id was the process's all the time, if it is now: what it had is not gone yet. */
	if (found >= 0 && host_read_memory(statm, &memory) == -ESRCH) {
		close(found);
		found = -ESRCH;
	}
	return found;
}
