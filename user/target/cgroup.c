#include "target/cgroup.h"

#include "util/cleanup.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define CGROUP_ROOT "/sys/fs/cgroup"
/* Shorter ids than the full 64 digits are taken only from where a runtime's name stands before them. */
#define ID_DIGITS     64
#define ID_DIGITS_MIN 12

int cgroup_read(int fd, char **out)
{
	CLEANUP(cleanup_free) char *text = malloc(CGROUP_TEXT_MAX);
	size_t length = 0;

	if (!text)
		return -ENOMEM;
	while (length < CGROUP_TEXT_MAX - 1) {
		ssize_t n = pread(fd, text + length, CGROUP_TEXT_MAX - 1 - length, (off_t)length);

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
	}
	/* Every whole line ends with a newline. */
	while (length && text[length - 1] != '\n')
		length--;
	text[length] = '\0';
	*out = TAKE(text);
	return 0;
}

struct line {
	const char *controllers, *path;
	size_t controllers_length, path_length;
};

/* The next line that is one; *at moves behind it. */
static bool next_line(const char **at, struct line *line)
{
	while (**at) {
		const char *end = strchrnul(*at, '\n');
		const char *controllers = memchr(*at, ':', (size_t)(end - *at));
		const char *path =
			controllers ? memchr(controllers + 1, ':', (size_t)(end - controllers - 1))
				    : NULL;

		*at = *end ? end + 1 : end;
		if (!path || path + 1 == end || path[1] != '/')
			continue;
		line->controllers = controllers + 1;
		line->controllers_length = (size_t)(path - controllers - 1);
		line->path = path + 1;
		line->path_length = (size_t)(end - path - 1);
		return true;
	}
	return false;
}

static bool is_memory(const struct line *line)
{
	const char *at = line->controllers, *end = at + line->controllers_length;

	while (at < end) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		size_t length = (size_t)((comma ? comma : end) - at);

		if (length == strlen("memory") && memcmp(at, "memory", length) == 0)
			return true;
		at += length + 1;
	}
	return false;
}

size_t cgroup_best_path(const char *lines, const char **path)
{
	struct line line, best = {0};
	int rank = 0;

	while (next_line(&lines, &line)) {
		int this_rank = line.path_length == 1	       ? 1
				: line.controllers_length == 0 ? 4
				: is_memory(&line)	       ? 3
							       : 2;

		if (this_rank > rank) {
			rank = this_rank;
			best = line;
		}
	}
	if (rank)
		*path = best.path;
	return best.path_length;
}

bool cgroup_is_below(const char *lines, const char *folder)
{
	size_t length = strlen(folder);
	struct line line;

	if (length == 1)
		return true;
	while (next_line(&lines, &line)) {
		if (line.path_length >= length && memcmp(line.path, folder, length) == 0 &&
		    (line.path_length == length || line.path[length] == '/'))
			return true;
	}
	return false;
}

/* --- containers --- */

static bool is_lower_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* How much of a folder's name is that of a runtime, before the id; 0: nothing. */
static size_t runtime_prefix(const char *name, size_t length)
{
	static const char *const prefixes[] = {"docker-", "cri-containerd-", "crio-", "libpod-"};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		size_t prefix = strlen(prefixes[i]);

		if (length > prefix && memcmp(name, prefixes[i], prefix) == 0)
			return prefix;
	}
	return 0;
}

/* One folder's name. */
static bool container_of(const char *name, size_t length, char id[CGROUP_ID_MAX])
{
	size_t prefix = runtime_prefix(name, length), digits = 0;
	size_t least = prefix ? ID_DIGITS_MIN : ID_DIGITS;
	/* Where runc is given a name for systemd and drives the file system: "SLICE:cri-containerd:ID". */
	const char *colon = memrchr(name, ':', length);

	if (colon)
		prefix = (size_t)(colon + 1 - name);
	name += prefix;
	length -= prefix;
	if (length > strlen(".scope") &&
	    memcmp(name + length - strlen(".scope"), ".scope", strlen(".scope")) == 0)
		length -= strlen(".scope");
	while (digits < length && is_lower_hex(name[digits]))
		digits++;
	if (digits != length || digits > ID_DIGITS || digits < least)
		return false;
	memcpy(id, name, digits);
	id[digits] = '\0';
	return true;
}

bool cgroup_container(const char *path, size_t length, char id[CGROUP_ID_MAX])
{
	while (length) {
		const char *slash = memrchr(path, '/', length);
		const char *name = slash ? slash + 1 : path;

		if (container_of(name, (size_t)(path + length - name), id))
			return true;
		length = slash ? (size_t)(slash - path) : 0;
	}
	return false;
}

/* --- what users write --- */

/* Where v1 hierarchies are mounted, each has a folder of its own there, the v2 one too. */
static bool has_folder_per_hierarchy(void)
{
	struct statfs fs;

	return !statfs(CGROUP_ROOT, &fs) && fs.f_type == TMPFS_MAGIC;
}

/* Behind the name that text begins with. */
static const char *skip_name(const char *text)
{
	text += strspn(text, "/");
	return text + strcspn(text, "/");
}

int cgroup_parse(const char *text, char **out)
{
	size_t root = strlen(CGROUP_ROOT), length = 0;
	char *path;

	if (!*text || strchr(text, '\n'))
		return -EINVAL;
	if (strncmp(text, CGROUP_ROOT, root) == 0 && (text[root] == '/' || !text[root])) {
		text += root;
		if (has_folder_per_hierarchy())
			text = skip_name(text);
	}
	path = malloc(strlen(text) + 2);
	if (!path)
		return -ENOMEM;
	/* One slash before each name, none behind the last. */
	while (*(text += strspn(text, "/"))) {
		size_t name = strcspn(text, "/");

		path[length++] = '/';
		memcpy(path + length, text, name);
		length += name;
		text += name;
	}
	if (!length)
		path[length++] = '/';
	path[length] = '\0';
	*out = path;
	return 0;
}
