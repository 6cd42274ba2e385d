#include "target/process.h"

#include "target/python.h"
#include "util/cleanup.h"
#include "util/open_file.h"
#include "util/vec.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* /proc files of one process are short, but for maps; a hostile one cannot make them endless. */
#define PROC_TEXT_MAX 4096
#define PF_KTHREAD    0x00200000
#define VDSO_MAX      (1 << 20)
/* The kernel allows a quarter of the stack's limit for it, 2 MiB by default. */
#define ENVIRONMENT_MAX (4 << 20)

static int open_proc(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Reads at most size - 1 bytes and ends them with NUL. Their number, or -errno. */
static ssize_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	CLEANUP(cleanup_fd) int fd = open_proc(pid, name);
	size_t length = 0;

	if (fd < 0)
		return fd;
	while (length < size - 1) {
		ssize_t n = read(fd, text + length, size - 1 - length);

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
	}
	text[length] = '\0';
	return (ssize_t)length;
}

static char *read_link(pid_t pid, const char *name)
{
	char path[64], target[4096];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	n = readlink(path, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = '\0';
	return strdup(target);
}

/* The process's state and flags, from /proc/PID/stat (proc(5)): what follows the last ')'. */
static int check_kind(pid_t pid)
{
	char text[PROC_TEXT_MAX], state;
	unsigned int flags;
	const char *rest;
	ssize_t n = read_proc(pid, "stat", text, sizeof(text));

	if (n < 0)
		return n == -ENOENT ? -ESRCH : (int)n;
	rest = strrchr(text, ')');
	if (!rest || sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
		return -ESRCH;
	if (flags & PF_KTHREAD)
		return -ENXIO;
	if (state == 'Z' || state == 'X')
		return -ECHILD;
	return 0;
}

/* The process that thread `tid` belongs to. */
static pid_t process_of_thread(pid_t tid)
{
	char text[PROC_TEXT_MAX];
	const char *line;
	int tgid;

	if (read_proc(tid, "status", text, sizeof(text)) < 0)
		return tid;
	line = strstr(text, "\nTgid:");
	return line && sscanf(line, "\nTgid: %d", &tgid) == 1 ? tgid : tid;
}

/* The two are owned from here on; NULL: there was no memory. */
static int take_names(struct process *process, char *comm, char *exe)
{
	if (!comm || !exe) {
		free(comm);
		free(exe);
		return -ENOMEM;
	}
	free(process->comm);
	free(process->exe);
	process->comm = comm;
	process->exe = exe;
	return 0;
}

static int read_names(struct process *process)
{
	char text[64] = "";
	ssize_t n = read_proc(process->pid, "comm", text, sizeof(text));

	if (n > 0 && text[n - 1] == '\n')
		text[n - 1] = '\0';
	return take_names(process, strdup(n > 0 ? text : ""), read_link(process->pid, "exe"));
}

/* One line of status. NSpid has an id for each namespace that the process is in, from outside in. */
static void parse_identity(const char *line, struct process *process)
{
	unsigned int id;

	if (sscanf(line, "Uid: %*u %u", &id) == 1)
		process->user = id;
	else if (sscanf(line, "Gid: %*u %u", &id) == 1)
		process->group = id;
	else if (strncmp(line, "NSpid:", 6) == 0)
		process->inner_pid = atoi(strrchr(line, '\t') ? strrchr(line, '\t') : line + 6);
}

/* By whom it is run, and its own id as it sees it. What cannot be read stays as it was. */
static void read_identity(struct process *process)
{
	int fd = open_proc(process->pid, "status");
	CLEANUP(cleanup_file) FILE *status = fd < 0 ? NULL : fdopen(fd, "r");
	CLEANUP(cleanup_free) char *line = NULL;
	size_t capacity = 0;

	if (!status) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (getline(&line, &capacity, status) > 0)
		parse_identity(line, process);
}

/* --- its root --- */

static bool same_folder(int a, int b)
{
	struct stat x, y;

	return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

const struct process_root *process_root_now(const struct process *process)
{
	return process->roots.count ? &process->roots.items[process->roots.count - 1] : NULL;
}

/* Keeps the root that the process has now, if it has not been kept already. 0 or -ENOMEM. */
static int keep_root(struct process *process)
{
	const struct process_root *last = process_root_now(process);
	struct process_root root;
	char link[64];
	int err;

	snprintf(link, sizeof(link), "/proc/%d/root", process->pid);
	root.fd = open(link, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root.fd < 0 && (errno == ENOENT || errno == ESRCH)) /* it has ended */
		return 0;
	/* What cannot be opened is not taken for what it had before. */
	if (last && (root.fd < 0 ? last->fd < 0 : same_folder(last->fd, root.fd))) {
		if (root.fd >= 0)
			close(root.fd);
		return 0;
	}
	root.path = read_link(process->pid, "root");
	err = root.path ? vec_push(&process->roots, root) : -ENOMEM;
	if (err) {
		free(root.path);
		if (root.fd >= 0)
			close(root.fd);
	}
	return err;
}

/* Bytes of a path, as maps shows it to us, that lead to the root. */
static size_t prefix_of_root(const struct process_root *root, const char *path)
{
	size_t length = strlen(root->path);

	return length > 1 && !strncmp(path, root->path, length) && path[length] == '/' ? length : 0;
}

static void set_root(const struct process *process, struct image *image)
{
	const struct process_root *root = process_root_now(process);

	if (!root || root->fd < 0) {
		image->root = IMAGE_ROOT_UNKNOWN;
		return;
	}
	image->root = root->fd;
	image->root_prefix = prefix_of_root(root, image->path);
}

int process_open(pid_t pid, struct process **out)
{
	struct process *process;
	int err;

	pid = process_of_thread(pid);
	err = check_kind(pid);
	if (err)
		return err;
	process = calloc(1, sizeof(*process));
	if (!process)
		return -ENOMEM;
	process->pid = process->inner_pid = pid;
	process->user = process->group = (uid_t)-1; /* nobody's */
	process->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (process->pidfd < 0)
		err = -errno;
	if (!err)
		err = read_names(process);
	if (!err)
		err = keep_root(process);
	if (!err)
		err = process_refresh(process);
	if (err) {
		process_free(process);
		return err == -ENOENT ? -ESRCH : err;
	}
	*out = process;
	return 0;
}

static void mappings_clear(struct process *process)
{
	vec_for_each(mapping, &process->mappings)
		free(mapping->path);
	process->mappings.count = 0;
}

void process_free(struct process *process)
{
	if (!process)
		return;
	mappings_clear(process);
	free(process->mappings.items);
	vec_for_each(image, &process->images)
		image_free(*image);
	free(process->images.items);
	vec_for_each(root, &process->roots) {
		if (root->fd >= 0)
			close(root->fd);
		free(root->path);
	}
	free(process->roots.items);
	python_free(process->python);
	free(process->comm);
	free(process->exe);
	if (process->pidfd >= 0)
		close(process->pidfd);
	free(process);
}

/* --- the files behind the mappings --- */

/* By the path in the target's root: for a mapping that is not there any more. */
static int open_by_path(const struct process *process, const char *path)
{
	const struct process_root *root = process_root_now(process);

	if (!root || root->fd < 0)
		return -ENOENT;
	return open_file_below(root->fd, path + prefix_of_root(root, path));
}

/* An overlay's and a btrfs's device number is another in maps than in stat(). */
static bool has_device_of_its_own(int fd)
{
	struct statfs st;

	return !fstatfs(fd, &st) &&
	       (st.f_type == OVERLAYFS_SUPER_MAGIC || st.f_type == BTRFS_SUPER_MAGIC);
}

static bool is_mapped_file(int fd, const struct mapping *mapping)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == mapping->inode &&
	       (st.st_dev == mapping->dev || has_device_of_its_own(fd));
}

/* map_files is the file that is mapped, whatever has become of its name. */
static int open_mapped(const struct process *process, const struct mapping *mapping)
{
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, process->pid,
		 mapping->start, mapping->end);
	fd = open_file_link(name);
	if (fd >= 0)
		return fd;
	fd = open_by_path(process, mapping->path);
	if (fd < 0)
		return fd;
	if (!is_mapped_file(fd, mapping)) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}

/*
 * The vDSO has no file, but it is the same in every process of a kernel: a copy of ours will do.
 * Where a target's is larger than ours, the copy stops with EFAULT, and it goes without.
 */
static int open_vdso(const struct mapping *mapping)
{
	const void *ours = (const void *)getauxval(AT_SYSINFO_EHDR);
	size_t size = mapping->end - mapping->start;
	int fd;

	if (!ours || size > VDSO_MAX)
		return -ENOENT;
	fd = memfd_create("vdso", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, ours, size) == (ssize_t)size)
		return fd;
	close(fd);
	return -EFAULT;
}

/* The one that was expected in place of one that has just been opened, if it is the same file. */
static struct image *meet_expected(struct process *process, struct image *opened)
{
	vec_for_each(known, &process->images) {
		char *path = opened->path;

		if (!(*known)->expected || image_compare_files(*known, opened))
			continue;
		opened->path = (*known)->path;
		(*known)->path = path;
		image_free(opened);
		return *known;
	}
	return opened;
}

/* Could the mapping be of that image? One that no mapping has shown yet may be on any device. */
static bool is_mapping_of(const struct mapping *mapping, const struct image *image)
{
	return image->inode == mapping->inode &&
	       (!image->mapped_dev || image->mapped_dev == mapping->dev) &&
	       strcmp(image->path, mapping->path) == 0;
}

/* By what the mapping says alone: a mapped image, or one that is expected. */
static struct image *find_image(const struct process *process, const struct mapping *mapping,
				bool expected)
{
	vec_for_each(known, &process->images) {
		if ((*known)->expected == expected && is_mapping_of(mapping, *known))
			return *known;
	}
	return NULL;
}

/* The image of a mapping: one that is known, or opened now; NULL where there is none to be had. */
static struct image *image_of(struct process *process, const struct mapping *mapping)
{
	bool vdso = strcmp(mapping->path, "[vdso]") == 0;
	struct image *image;
	int fd;

	if (!vdso && (!mapping->inode || mapping->path[0] != '/'))
		return NULL;
	image = find_image(process, mapping, false);
	if (image)
		return image;
	/* The path is one of the root that it has now: it may have changed it. */
	if (keep_root(process))
		return NULL;
	fd = vdso ? open_vdso(mapping) : open_mapped(process, mapping);
	if (fd < 0) {
		/* The process is gone. As far as one can tell this is what it was expected to map. */
		image = find_image(process, mapping, true);
		if (image) {
			image->expected = false;
			set_root(process, image);
		}
		return image;
	}
	if (image_open(fd, mapping->path, &image))
		return NULL;
	image = meet_expected(process, image);
	/* image_open() took them from the file itself; on overlays maps may show others. */
	image->mapped_dev = mapping->dev;
	image->inode = mapping->inode;
	if (!image->expected && vec_push(&process->images, image)) {
		image_free(image);
		return NULL;
	}
	image->expected = false;
	set_root(process, image);
	return image;
}

int process_expect_image(struct process *process, const struct image *image)
{
	struct image *copy;
	int fd, err;

	vec_for_each(known, &process->images) {
		if (!image_compare_files(*known, image))
			return 0;
	}
	fd = fcntl(image->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = image_open(fd, image->path, &copy);
	if (err)
		return err;
	copy->expected = true;
	err = vec_push(&process->images, copy);
	if (err)
		image_free(copy);
	return err;
}

/* --- the mappings --- */

/* First mapping that ends after address. */
static size_t lower_bound(const struct process *process, uint64_t address)
{
	size_t low = 0, high = process->mappings.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (process->mappings.items[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int process_add_mapping(struct process *process, const struct mapping *mapping)
{
	size_t at = lower_bound(process, mapping->start), end = at;
	struct mapping copy = *mapping, *items;

	if (mapping->start >= mapping->end)
		return 0;
	if (process->mappings.count >= PROCESS_MAPPINGS_MAX) {
		process->dropped++;
		return 0;
	}
	copy.path = strdup(mapping->path);
	if (!copy.path)
		return -ENOMEM;
	if (!*process->exe && copy.path[0] == '/' &&
	    take_names(process, strdup(process->comm), strdup(copy.path))) {
		free(copy.path);
		return -ENOMEM;
	}
	if (!copy.moved)
		copy.image = image_of(process, &copy);
	if (vec_reserve((void **)&process->mappings.items, &process->mappings.capacity,
			process->mappings.count, sizeof(copy))) {
		free(copy.path);
		return -ENOMEM;
	}
	items = process->mappings.items;
	while (end < process->mappings.count && items[end].start < copy.end)
		free(items[end++].path);
	memmove(&items[at + 1], &items[end], (process->mappings.count - end) * sizeof(*items));
	items[at] = copy;
	process->mappings.count = process->mappings.count - (end - at) + 1;
	return 0;
}

/*
 * One line of maps: "start-end perms offset major:minor inode   path". False: broken. The path is
 * the line's.
 */
static bool parse_line(char *line, struct mapping *mapping, bool *executable)
{
	unsigned int major, minor;
	unsigned long inode;
	char permissions[5];
	int path_at = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %lu %n", &mapping->start,
		   &mapping->end, permissions, &mapping->offset, &major, &minor, &inode,
		   &path_at) < 7)
		return false;
	mapping->dev = makedev(major, minor);
	mapping->inode = inode;
	mapping->path = line + path_at;
	*executable = permissions[2] == 'x';
	return true;
}

/*
 * Is anonymous memory what a file's code has become? Then it lies within an executable segment of
 * the ELF file whose first page is mapped before it.
 */
static void find_moved(struct process *process, const struct mapping *first,
		       struct mapping *mapping)
{
	struct image *image = first->path ? image_of(process, first) : NULL;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), vaddr;

	if (!image || !image_offset_to_vaddr(image, 0, &vaddr))
		return;
	vaddr = mapping->start - first->start + vaddr / page * page;
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];
		uint64_t start = segment->vaddr / page * page;

		if (!segment->executable || vaddr < start ||
		    vaddr >= segment->vaddr + segment->mem_size)
			continue;
		mapping->offset = segment->offset / page * page + (vaddr - start);
		mapping->path = first->path;
		mapping->image = image;
		mapping->moved = true;
	}
}

/* The first page of a file that is mapped, as far as lines have been read. */
static int remember_first(struct mapping *first, const struct mapping *mapping)
{
	if (!mapping->inode || mapping->offset || mapping->path[0] != '/')
		return 0;
	free(first->path);
	*first = *mapping;
	first->path = strdup(mapping->path);
	return first->path ? 0 : -ENOMEM;
}

static int add_line(struct process *process, char *line, struct mapping *first)
{
	struct mapping mapping = {0};
	bool executable;
	int err;

	if (!parse_line(line, &mapping, &executable))
		return 0;
	err = remember_first(first, &mapping);
	if (err || !executable)
		return err;
	if (!mapping.inode && !mapping.path[0])
		find_moved(process, first, &mapping);
	return process_add_mapping(process, &mapping);
}

int process_refresh(struct process *process)
{
	CLEANUP(cleanup_file) FILE *maps = NULL;
	CLEANUP(cleanup_free) char *line = NULL;
	struct mapping first = {0};
	size_t capacity = 0;
	ssize_t length;
	size_t areas = 0;
	int fd = open_proc(process->pid, "maps"), err = 0;

	if (fd < 0)
		return fd;
	maps = fdopen(fd, "r");
	if (!maps) {
		close(fd);
		return -ENOMEM;
	}
	while (!err && (length = getline(&line, &capacity, maps)) > 0) {
		areas++;
		if (line[length - 1] == '\n')
			line[length - 1] = '\0';
		err = add_line(process, line, &first);
	}
	free(first.path);
	if (err)
		return err;
	process->areas = areas;
	read_identity(process);
	return areas ? 0 : -ESRCH;
}

int process_exec(struct process *process, const char *comm)
{
	int err;

	mappings_clear(process);
	python_free(TAKE(process->python));
	/* The vDSO comes with every program. */
	vec_for_each(image, &process->images)
		(*image)->expected = (*image)->path[0] == '/';
	if (process_has_ended(process))
		return take_names(process, strdup(comm), strdup(""));
	err = keep_root(process);
	return err ? err : read_names(process);
}

bool process_has_ended(const struct process *process)
{
	struct pollfd poll_fd = {.fd = process->pidfd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) != 0;
}

const struct mapping *process_find(const struct process *process, uint64_t address)
{
	size_t at = lower_bound(process, address);

	if (at < process->mappings.count && process->mappings.items[at].start <= address)
		return &process->mappings.items[at];
	return NULL;
}

bool mapping_is_made_at_run_time(const struct mapping *mapping)
{
	/* What maps calls memory of no file, that which has been given a name too, and shared. */
	static const char *const beginnings[] = {"[anon",     "[heap]", "[stack]",   "/memfd:",
						 "/dev/zero", "/SYSV",	"/dev/shm/", "anon_inode:"};

	if (mapping->image)
		return false;
	for (size_t i = 0; i < sizeof(beginnings) / sizeof(*beginnings); i++) {
		if (!strncmp(mapping->path, beginnings[i], strlen(beginnings[i])))
			return true;
	}
	return !mapping->path[0];
}

/* A number of /proc/sys/vm, or fallback. */
static unsigned long read_vm_setting(const char *name, unsigned long fallback)
{
	CLEANUP(cleanup_file) FILE *file = NULL;
	unsigned long value;
	char path[64];

	snprintf(path, sizeof(path), "/proc/sys/vm/%s", name);
	file = fopen(path, "re");
	return file && fscanf(file, "%lu", &value) == 1 ? value : fallback;
}

/* Is a variable in the environment that the process was started with? */
static bool has_variable(const struct process *process, const char *name)
{
	CLEANUP(cleanup_free) char *text = malloc(ENVIRONMENT_MAX);
	size_t length = strlen(name);
	ssize_t n = text ? read_proc(process->pid, "environ", text, ENVIRONMENT_MAX) : -ENOMEM;

	if (n < 0)
		return true;
	for (const char *at = text; at < text + n; at += strlen(at) + 1) {
		if (strncmp(at, name, length) == 0 && at[length] == '=')
			return true;
	}
	return n == ENVIRONMENT_MAX - 1;
}

bool process_memory_is_limited(const struct process *process)
{
	static const int resources[] = {RLIMIT_AS, RLIMIT_DATA};

	for (size_t i = 0; i < sizeof(resources) / sizeof(*resources); i++) {
		struct rlimit limit;

		if (prlimit(process->pid, resources[i], NULL, &limit) ||
		    limit.rlim_cur != RLIM_INFINITY)
			return true;
	}
	return read_vm_setting("overcommit_memory", 2) == 2 ||
	       process->areas > read_vm_setting("max_map_count", 0) / 2 ||
	       has_variable(process, "TCMALLOC_HEAP_LIMIT_MB");
}

/* utime and stime of /proc/PID/stat (proc(5)), in clock ticks. */
int64_t process_cpu_time(const struct process *process)
{
	char text[PROC_TEXT_MAX];
	int64_t user, system;
	const char *rest;

	if (read_proc(process->pid, "stat", text, sizeof(text)) <= 0)
		return -1;
	rest = strrchr(text, ')');
	if (!rest ||
	    sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNd64 " %" SCNd64,
		   &user, &system) != 2)
		return -1;
	return (user + system) * (1000000000 / sysconf(_SC_CLK_TCK));
}
