#include "target/memory.h"

#include "util/cleanup.h"
#include "util/vec.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of /proc/PID/status, in which up to 65536 groups come before the memory. */
#define STATUS_MAX (1024 * 1024)
/* Of /proc/PID/smaps_rollup: some two dozen lines. */
#define ROLLUP_MAX 4096
/* Entries of /proc/PID/pagemap read at once; bit 63: present (pagemap.rst in the kernel's documentation). */
#define PAGES_AT_ONCE 4096
#define PAGE_PRESENT  (1ull << 63)

struct addresses {
	uint64_t *items; /* owned */
	size_t count, capacity;
};

static void addresses_deinit(struct addresses *addresses)
{
	free(addresses->items);
}

/* The beginning of a text of /proc, at most size - 1 bytes, with a NUL behind. Bytes or -errno. */
static ssize_t read_text(const char *path, char *text, size_t size)
{
	CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	while (length < size - 1) {
		ssize_t n = read(fd, text + length, size - 1 - length);

		if (n < 0)
			return -errno;
		if (!n)
			break;
		length += (size_t)n;
	}
	text[length] = '\0';
	return (ssize_t)length;
}

/* The number of kB behind "\nName:", in bytes. */
static bool find_figure(const char *status, const char *name, uint64_t *bytes)
{
	const char *line = strstr(status, name);
	uint64_t kib;

	if (!line || sscanf(line + strlen(name), "%" SCNu64, &kib) != 1)
		return false;
	*bytes = kib * 1024;
	return true;
}

int memory_read(pid_t pid, struct memory *out)
{
	CLEANUP(cleanup_free) char *status = malloc(STATUS_MAX);
	char path[64];
	ssize_t n;

	if (!status)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	n = read_text(path, status, STATUS_MAX);
	if (n < 0)
		return (int)n;
	/* What has no memory has no such lines. The name, which comes first, has its newlines escaped. */
	if (!find_figure(status, "\nRssAnon:", &out->anon) ||
	    !find_figure(status, "\nRssFile:", &out->file) ||
	    !find_figure(status, "\nRssShmem:", &out->shmem) ||
	    !find_figure(status, "\nVmSwap:", &out->swap))
		return -ESRCH;
	return 0;
}

int memory_read_share(pid_t pid, struct memory_share *out)
{
	struct memory_share found;
	char path[64], text[ROLLUP_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	n = read_text(path, text, sizeof(text));
	if (n < 0)
		return (int)n;
	/* The first line has addresses; what has no memory has no line at all. */
	if (!find_figure(text, "\nPss:", &found.pss) ||
	    !find_figure(text, "\nSwapPss:", &found.swap_pss))
		return -ESRCH;
	*out = found;
	return 0;
}

/* --- stacks --- */

/* The stack pointer of a thread that sleeps: "NUMBER ARGUMENTS SP PC" or "-1 SP PC" (proc(5)). */
static bool read_stack_pointer(pid_t pid, const char *tid, uint64_t *sp)
{
	char path[96], text[512], *before_last = NULL, *last = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/syscall", pid, tid);
	if (read_text(path, text, sizeof(text)) <= 0)
		return false;
	for (char *at = text; (at = strchr(at, ' ')); at++) {
		before_last = last;
		last = at;
	}
	/* "-1 SP PC" has two blanks, "running" none. */
	if (!before_last)
		return false;
	*sp = strtoull(before_last, NULL, 16);
	return *sp != 0;
}

static int compare_addresses(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The stack pointers of all threads that sleep, sorted. */
static int read_stack_pointers(pid_t pid, struct addresses *out)
{
	const struct dirent *entry;
	char path[64];
	DIR *tasks;
	int err = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	if (!tasks)
		return errno == ENOENT ? -ESRCH : -errno;
	while (!err && out->count < MEMORY_THREADS_MAX && (entry = readdir(tasks))) {
		uint64_t sp;

		if (entry->d_name[0] != '.' && read_stack_pointer(pid, entry->d_name, &sp))
			err = vec_push(out, sp);
	}
	closedir(tasks);
	if (!err && out->count)
		qsort(out->items, out->count, sizeof(*out->items), compare_addresses);
	return err;
}

static bool holds_any(const struct addresses *sorted, uint64_t start, uint64_t end)
{
	size_t low = 0, high = sorted->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (sorted->items[middle] < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low < sorted->count && sorted->items[low] < end;
}

/* Pages of [start, end) that are resident. */
static uint64_t count_pages(int pagemap, uint64_t *entries, uint64_t start, uint64_t end)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), present = 0;

	for (uint64_t at = start / page; at < end / page;) {
		uint64_t left = end / page - at;
		size_t wanted = left < PAGES_AT_ONCE ? left : PAGES_AT_ONCE;
		ssize_t n = pread(pagemap, entries, wanted * sizeof(*entries),
				  (off_t)(at * sizeof(*entries)));

		if (n < (ssize_t)sizeof(*entries))
			break;
		for (size_t i = 0; i < (size_t)n / sizeof(*entries); i++)
			present += (entries[i] & PAGE_PRESENT) != 0;
		at += (size_t)n / sizeof(*entries);
	}
	return present;
}

int memory_read_stacks(pid_t pid, uint64_t *bytes)
{
	CLEANUP(addresses_deinit) struct addresses pointers = {0};
	CLEANUP(cleanup_free) uint64_t *entries = calloc(PAGES_AT_ONCE, sizeof(*entries));
	CLEANUP(cleanup_fd) int pagemap = -1;
	CLEANUP(cleanup_file) FILE *maps = NULL;
	CLEANUP(cleanup_free) char *line = NULL;
	uint64_t pages = 0, start, end;
	size_t capacity = 0;
	char path[64];
	int err;

	if (!entries)
		return -ENOMEM;
	err = read_stack_pointers(pid, &pointers);
	if (err)
		return err;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (pagemap < 0 || !maps)
		return errno == ENOENT ? -ESRCH : -errno;
	while (getline(&line, &capacity, maps) > 0) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2 || end <= start ||
		    end - start > MEMORY_STACK_MAX)
			continue;
		if (holds_any(&pointers, start, end) || strstr(line, " [stack]\n"))
			pages += count_pages(pagemap, entries, start, end);
	}
	*bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}
