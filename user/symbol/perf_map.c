#include "symbol/perf_map.h"

#include "symbol/interval_map.h"
#include "util/cleanup.h"
#include "util/open_file.h"
#include "util/vec.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct perf_map {
	char *text;		     /* owned: the file, with the end of each name made a NUL */
	struct interval_map entries; /* a value is where the name begins in the text */
	size_t broken;
};

_Static_assert(PERF_MAP_BYTES_MAX < UINT32_MAX, "a name's place is a value of an interval map");

void perf_map_path(pid_t pid, char path[PERF_MAP_PATH_MAX])
{
	snprintf(path, PERF_MAP_PATH_MAX, "/tmp/perf-%d.map", pid);
}

/* --- may it be read? --- */

/*
 * Why not, or NULL. perf looks at the owner alone. Beyond that: who else may write the file could
 * give any name to any code; group-writable it is as a rule, though, where each user has a group of
 * their own. And what root owns, but the process may not read, cannot be its map: the name has been
 * made to lead there.
 */
static const char *find_refusal(const struct stat *st, const struct perf_map_owner *owner)
{
	bool foreign_group = st->st_gid != owner->group && st->st_gid != 0;

	if (st->st_uid != owner->user && st->st_uid != 0)
		return "belongs neither to the process's user nor to root";
	if (st->st_uid != owner->user && !(st->st_mode & S_IROTH))
		return "belongs to root, and the process's user may not read it";
	if (st->st_mode & S_IWOTH || (st->st_mode & S_IWGRP && foreign_group))
		return "can be written by others than its owner";
	if (st->st_size > PERF_MAP_BYTES_MAX)
		return "is larger than 256 MiB";
	return NULL;
}

/* At most size bytes, in so far as they are still there. Their number, or -errno. */
static ssize_t read_text(int fd, char *text, size_t size)
{
	size_t length = 0;

	while (length < size) {
		ssize_t n = pread(fd, text + length, size - length, (off_t)length);

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
	}
	return (ssize_t)length;
}

/* --- the lines --- */

static int hex_digit(char byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	byte |= 0x20;
	return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/*
 * A number and the blank behind it, at *at, which is moved behind them. The format has no "0x", but
 * some write it (HotSpot) and perf takes it. False: there is none, or it has more than 64 bits.
 */
static bool parse_number(const char **at, const char *end, uint64_t *number)
{
	const char *digit = *at;
	uint64_t value = 0;

	if (end - digit > 2 && digit[0] == '0' && (digit[1] | 0x20) == 'x')
		digit += 2;
	if (digit == end || hex_digit(*digit) < 0)
		return false;
	for (; digit < end && hex_digit(*digit) >= 0; digit++) {
		if (value >> 60)
			return false;
		value = value << 4 | (uint64_t)hex_digit(*digit);
	}
	if (digit == end || *digit != ' ')
		return false;
	*at = digit + 1;
	*number = value;
	return true;
}

/* One line, up to `end`. False: broken. */
static bool parse_line(const char *line, const char *end, struct interval *entry, const char **name)
{
	uint64_t size;

	if (!parse_number(&line, end, &entry->low) || !parse_number(&line, end, &size) ||
	    __builtin_add_overflow(entry->low, size, &entry->high))
		return false;
	*name = line;
	return line < end && *line; /* a NUL ends the name */
}

struct entries {
	struct interval *items;
	size_t count, capacity;
};

/*
 * All lines of the text, which ends with a NUL at text[size]; the last one may lack its newline. 0,
 * -ENOMEM or -E2BIG.
 */
static int parse_text(struct perf_map *map, size_t size, struct entries *entries)
{
	char *line = map->text, *text_end = map->text + size;
	struct interval entry;
	const char *name;

	while (line < text_end) {
		char *newline = memchr(line, '\n', (size_t)(text_end - line));
		char *end = newline ? newline : text_end;

		*end = '\0';
		if (!parse_line(line, end, &entry, &name)) {
			map->broken += line < end;
		} else if (entries->count == PERF_MAP_ENTRIES_MAX) {
			return -E2BIG;
		} else {
			entry.priority = entries->count;
			entry.value = (uint32_t)(name - map->text);
			if (vec_push(entries, entry))
				return -ENOMEM;
		}
		line = end + 1;
	}
	return 0;
}

/* --- the map --- */

static void cleanup_map(struct perf_map **map)
{
	perf_map_free(*map);
}

static int load(int fd, size_t size, struct perf_map **out)
{
	CLEANUP(cleanup_map) struct perf_map *map = calloc(1, sizeof(*map));
	struct entries entries = {0};
	ssize_t length;
	int err;

	if (!map)
		return -ENOMEM;
	map->text = malloc(size + 1);
	if (!map->text)
		return -ENOMEM;
	length = read_text(fd, map->text, size);
	if (length < 0)
		return (int)length;
	map->text[length] = '\0';
	err = parse_text(map, (size_t)length, &entries);
	if (!err)
		err = interval_map_init(&map->entries, entries.items, entries.count);
	free(entries.items);
	if (!err)
		*out = TAKE(map);
	return err;
}

int perf_map_read(const struct perf_map_owner *owner, struct perf_map **out, const char **refusal)
{
	char path[PERF_MAP_PATH_MAX];
	CLEANUP(cleanup_fd) int fd = -1;
	struct stat st;
	int err;

	perf_map_path(owner->pid, path);
	fd = open_file_below(owner->root, path);
	if (fd == -ENOENT || fd == -ENOMEM)
		return fd;
	*refusal = fd == -EINVAL ? "is not a regular file" : "cannot be opened";
	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		return -errno;
	*refusal = find_refusal(&st, owner);
	if (*refusal)
		return -EPERM;
	err = load(fd, (size_t)st.st_size, out);
	if (err)
		*refusal = err == -E2BIG ? "has more than 4,194,304 lines" : "cannot be read";
	return err;
}

void perf_map_free(struct perf_map *map)
{
	if (!map)
		return;
	interval_map_deinit(&map->entries);
	free(map->text);
	free(map);
}

const char *perf_map_find(const struct perf_map *map, uint64_t address)
{
	uint32_t name;

	return interval_map_find(&map->entries, address, &name) ? map->text + name : NULL;
}

size_t perf_map_broken(const struct perf_map *map)
{
	return map->broken;
}
