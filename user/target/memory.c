#include "target/memory.h"

#include "target/pages.h"
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

/* What is asked about the mappings of a process. */
struct look {
	struct addresses pointers; /* stack pointers, sorted */
	struct pages pages;
	struct memory_part *parts;
	size_t count, at; /* parts from `at` on are not behind the mapping that is looked at */
	uint64_t stacks;
	int err; /* parts cannot be told */
};

static void look_deinit(struct look *look)
{
	addresses_deinit(&look->pointers);
	pages_deinit(&look->pages);
}

/* What of a mapping that is no stack belongs to parts. */
static void look_at_parts(struct look *look, uint64_t start, uint64_t end)
{
	while (look->at < look->count && look->parts[look->at].end <= start)
		look->at++;
	for (size_t i = look->at; i < look->count && look->parts[i].start < end && !look->err;
	     i++) {
		struct memory_part *part = &look->parts[i];
		uint64_t bytes = 0;

		look->err = pages_anonymous(&look->pages, part->start > start ? part->start : start,
					    part->end < end ? part->end : end, &bytes);
		part->resident += bytes;
	}
}

/* One line of /proc/PID/maps: "start-end perms offset major:minor inode   path". */
static void look_at_mapping(struct look *look, const char *line)
{
	uint64_t start, end;
	char access[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, access) != 3 || end <= start)
		return;
	if (end - start <= MEMORY_STACK_MAX &&
	    (holds_any(&look->pointers, start, end) || strstr(line, " [stack]\n")))
		look->stacks += pages_present(&look->pages, start, end);
	/*
	 * Pages of hugetlbfs are in no RSS. Before 6.7, what may not be accessed is passed over: it is what
	 * allocators reserve, by the terabyte, and page by page it would have to be looked at.
	 */
	else if (!strstr(line, " /anon_hugepage") &&
		 (look->pages.scans || strncmp(access, "---", 3) != 0))
		look_at_parts(look, start, end);
}

int memory_read_parts(pid_t pid, struct memory_part *parts, size_t count, uint64_t *stacks)
{
	CLEANUP(look_deinit)
	struct look look = {.parts = parts, .count = count, .pages.pagemap = -1};
	CLEANUP(cleanup_file) FILE *maps = NULL;
	CLEANUP(cleanup_free) char *line = NULL;
	size_t capacity = 0;
	char path[64];
	int err = read_stack_pointers(pid, &look.pointers);

	if (!err)
		err = pages_open(pid, &look.pages);
	if (err)
		return err;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return errno == ENOENT ? -ESRCH : -errno;
	while (getline(&line, &capacity, maps) > 0)
		look_at_mapping(&look, line);
	/*
	 * Who ends, or executes another program, has no memory from then on, nor any line, and that is no
	 * error: what was read is only true if there still are lines.
	 */
	rewind(maps);
	if (getline(&line, &capacity, maps) <= 0)
		return -ESRCH;
	*stacks = look.stacks;
	return look.err ? 1 : 0;
}
