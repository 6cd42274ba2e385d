/*
 * Written as root, into folders that belong to others: the danger is that somebody else decides
 * where our bytes go. So a path is walked one name at a time, each name looked up relative to the
 * open folder before it and never followed by the kernel. A symbolic link is followed by us, and
 * only if root, we, or the one who gets the file made it. The bytes go to a new file of a random
 * name (O_EXCL: nobody else's file or link can be in its place) in the folder that the walk ended
 * in, and renameat() in that same folder puts it in place; rename replaces a name and follows
 * nothing.
 *
 * The exception is /proc: its links (/proc/self/fd/1, where /dev/stdout leads) are the kernel's,
 * their texts are no paths, and only the kernel can follow them.
 */
#include "output/file.h"

#include "util/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MAX_LINKS  40 /* as the kernel's */
#define TEMP_TRIES 16

/* What a path leads to. */
struct place {
	int dir; /* O_PATH */
	char name[NAME_MAX + 1];
	bool exists;
	bool follow;	  /* a link of /proc: the kernel follows it */
	struct stat stat; /* if it exists */
	bool by_owner;	  /* a link of the output's owner has led here */
};

static void cleanup_place(struct place *place)
{
	cleanup_fd(&place->dir);
}

/* --- the walk --- */

struct walk {
	const struct output_owner *owner; /* borrowed, may be NULL */
	int dir;			  /* O_PATH: where `rest` begins */
	char rest[PATH_MAX];		  /* what is left to walk */
	unsigned int links;
	bool follow;   /* the last name is a link of /proc */
	bool by_owner; /* a link of the output's owner was followed */
};

static void cleanup_walk(struct walk *walk)
{
	cleanup_fd(&walk->dir);
}

static bool is_trusted(const struct output_owner *owner, uid_t uid)
{
	return !uid || uid == geteuid() || (owner && owner->given && uid == owner->uid);
}

static bool is_proc(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && fs.f_type == PROC_SUPER_MAGIC;
}

static int walk_into(struct walk *walk, const char *name, int flags)
{
	int fd = openat(walk->dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | flags);

	if (fd < 0)
		return -errno;
	cleanup_fd(&walk->dir);
	walk->dir = fd;
	return 0;
}

/* An absolute rest begins at the root, whatever was walked before. */
static int walk_from_root(struct walk *walk)
{
	return walk->rest[0] == '/' ? walk_into(walk, "/", 0) : 0;
}

/* Puts what the link says in front of the rest. link: O_PATH. */
static int walk_link(struct walk *walk, int link, uid_t uid)
{
	char target[PATH_MAX], joined[PATH_MAX];
	ssize_t length;
	int size;

	if (++walk->links > MAX_LINKS || !is_trusted(walk->owner, uid))
		return -ELOOP;
	walk->by_owner |= uid && uid != geteuid();
	length = readlinkat(link, "", target, sizeof(target) - 1);
	if (length < 0)
		return -errno;
	if (!length)
		return -ENOENT;
	target[length] = '\0';
	size = snprintf(joined, sizeof(joined), "%s%s%s", target, *walk->rest ? "/" : "",
			walk->rest);
	if (size < 0 || (size_t)size >= sizeof(joined))
		return -ENAMETOOLONG;
	memcpy(walk->rest, joined, (size_t)size + 1);
	return walk_from_root(walk);
}

/* Goes through one name that is not the last one. */
static int walk_folder(struct walk *walk, const char *name)
{
	CLEANUP(cleanup_fd) int link = -1;
	struct stat stat;
	int err = walk_into(walk, name, O_NOFOLLOW);

	if (err != -ENOTDIR) /* which it is for a link, too */
		return err;
	link = openat(walk->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (link < 0 || fstat(link, &stat))
		return -errno;
	if (!S_ISLNK(stat.st_mode))
		return -ENOTDIR;
	if (is_proc(link))
		return walk_into(walk, name, 0);
	return walk_link(walk, link, stat.st_uid);
}

/* Looks at the last name. 1: it was a link, and the walk goes on. */
static int walk_last(struct walk *walk, const char *name, struct place *place)
{
	CLEANUP(cleanup_fd) int fd = -1;
	int err;

	place->exists = place->follow = false;
	if (snprintf(place->name, sizeof(place->name), "%s", name) >= (int)sizeof(place->name))
		return -ENAMETOOLONG;
	fd = openat(walk->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &place->stat))
		return -errno;
	place->exists = true;
	if (!S_ISLNK(place->stat.st_mode))
		return 0;
	if (is_proc(fd)) {
		place->follow = true;
		return fstatat(walk->dir, name, &place->stat, 0) ? -errno : 0;
	}
	err = walk_link(walk, fd, place->stat.st_uid);
	return err ? err : 1;
}

/* Takes the first name off the rest. Names of length 0 are skipped. */
static void walk_next_name(struct walk *walk, char name[PATH_MAX], bool *last)
{
	char *start = walk->rest + strspn(walk->rest, "/");
	size_t length = strcspn(start, "/");
	char *rest = start + length;

	memcpy(name, start, length);
	name[length] = '\0';
	*last = !*rest;
	rest += strspn(rest, "/");
	memmove(walk->rest, rest, strlen(rest) + 1);
}

static int place_find(const char *path, const struct output_owner *owner, struct place *place)
{
	CLEANUP(cleanup_walk) struct walk walk = {.owner = owner, .dir = -1};
	int err;

	if (snprintf(walk.rest, sizeof(walk.rest), "%s", path) >= (int)sizeof(walk.rest))
		return -ENAMETOOLONG;
	if (!*walk.rest)
		return -ENOENT;
	walk.dir = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (walk.dir < 0)
		return -errno;
	err = walk_from_root(&walk);
	while (!err) {
		char name[PATH_MAX];
		bool last;

		walk_next_name(&walk, name, &last);
		if (!*name)
			return -EISDIR; /* "/", "folder/" */
		if (!last) {
			err = walk_folder(&walk, name);
			continue;
		}
		err = walk_last(&walk, name, place);
		if (err == 1) {
			err = 0;
			continue;
		}
		if (!err) {
			place->by_owner = walk.by_owner;
			place->dir = walk.dir;
			walk.dir = -1;
		}
		return err;
	}
	return err;
}

/* --- what may be written, and how --- */

/* Is it written to as it is (pipe, terminal, /dev/null, whatever /dev/stdout is), not replaced? */
static bool place_is_direct(const struct place *place)
{
	return place->exists && (place->follow || !S_ISREG(place->stat.st_mode));
}

/*
 * A link of the owner may lead to what is theirs, not to where only we may write: one's own folder
 * would else be a way to any file.
 */
static bool link_goes_too_far(const struct place *place, const struct output_owner *owner)
{
	struct stat folder;

	if (!place->by_owner)
		return false;
	if (place->exists)
		return place->stat.st_uid != owner->uid;
	return fstat(place->dir, &folder) ||
	       (folder.st_uid != owner->uid && !(folder.st_mode & S_IWOTH));
}

static int place_check(const struct place *place, const struct output_owner *owner)
{
	mode_t mode = place->exists ? place->stat.st_mode : S_IFREG;

	if (S_ISDIR(mode))
		return -EISDIR;
	if (link_goes_too_far(place, owner))
		return -ELOOP;
	if (S_ISBLK(mode)) /* a profile over a file system: nobody means that */
		return -EINVAL;
	/* Somebody else's pipe: they would get the bytes, or let us wait for ever. */
	if (place_is_direct(place) && !place->follow && !is_trusted(owner, place->stat.st_uid))
		return -EACCES;
	/* rename() would replace it all the same, but a file is made read-only for a reason. */
	if (place->exists && faccessat(place->dir, place->name, W_OK, AT_EACCESS))
		return -errno;
	if (!place_is_direct(place) && faccessat(place->dir, ".", W_OK | X_OK, AT_EACCESS))
		return -errno;
	return 0;
}

static int write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t written = write(fd, at, size);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -errno;
		at += written;
		size -= (size_t)written;
	}
	return 0;
}

/* close() is where some file systems say that they had no room after all. */
static int close_checked(int *fd)
{
	int err = close(*fd) && errno != EINTR ? -errno : 0;

	*fd = -1;
	return err;
}

static int write_direct(const struct place *place, const void *data, size_t size)
{
	/* Where /dev/stdout is a file, what it holds already is somebody's. */
	int flags = O_WRONLY | O_NOCTTY | O_CLOEXEC | (place->follow ? O_APPEND : O_NOFOLLOW);
	CLEANUP(cleanup_fd) int fd = openat(place->dir, place->name, flags);
	struct stat stat;
	int err;

	if (fd < 0 || fstat(fd, &stat))
		return -errno;
	if (stat.st_dev != place->stat.st_dev || stat.st_ino != place->stat.st_ino)
		return -EAGAIN; /* exchanged since it was looked at */
	err = write_all(fd, data, size);
	return err ? err : close_checked(&fd);
}

/* Opens a new file of a name that nobody can know before. */
static int open_temp(int dir, char name[NAME_MAX + 1], int *out)
{
	for (int try = 0; try < TEMP_TRIES; try++) {
		uint64_t number;
		int fd;

		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			return -EIO;
		snprintf(name, NAME_MAX + 1, ".alloctrace-%016" PRIx64 ".tmp", number);
		/* 0666 would honour the umask as well, but a profile is nobody else's to write. */
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (fd >= 0) {
			*out = fd;
			return 0;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

/* File systems without owners (vfat), or with other people's (NFS), refuse: the profile is worth
 * more. */
static int give(int fd, const struct output_owner *owner)
{
	if (!owner || !owner->given || !fchown(fd, owner->uid, owner->gid))
		return 0;
	if (errno == EPERM || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)
		return 0;
	return -errno;
}

static int fill(int *fd, const struct output_owner *owner, const void *data, size_t size)
{
	int err = write_all(*fd, data, size);

	if (!err)
		err = give(*fd, owner);
	if (!err && fsync(*fd) && errno != EINVAL && errno != ENOSYS)
		err = -errno;
	return err ? err : close_checked(fd);
}

static int write_replacing(const struct place *place, const struct output_owner *owner,
			   const void *data, size_t size)
{
	CLEANUP(cleanup_fd) int fd = -1, dir = -1;
	char temp[NAME_MAX + 1];
	int err = open_temp(place->dir, temp, &fd);

	if (err)
		return err;
	err = fill(&fd, owner, data, size);
	if (!err && renameat(place->dir, temp, place->dir, place->name))
		err = -errno;
	if (err) {
		unlinkat(place->dir, temp, 0);
		return err;
	}
	/* So that the name survives a crash, too. The file is in place: an error here is not told.
	 */
	dir = openat(place->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0)
		fsync(dir);
	return 0;
}

/* Permissions do not tell everything (/proc, a full quota of files): make a file, and take it away.
 */
static int place_try(const struct place *place)
{
	char name[NAME_MAX + 1];
	int fd, err = open_temp(place->dir, name, &fd);

	if (err)
		return err;
	close(fd);
	return unlinkat(place->dir, name, 0) ? -errno : 0;
}

int output_check(const char *path, const struct output_owner *owner)
{
	CLEANUP(cleanup_place) struct place place = {.dir = -1};
	int err;

	if (!strcmp(path, "-"))
		return 0;
	err = place_find(path, owner, &place);
	if (!err)
		err = place_check(&place, owner);
	return err || place_is_direct(&place) ? err : place_try(&place);
}

int output_write(const char *path, const struct output_owner *owner, const void *data, size_t size)
{
	CLEANUP(cleanup_place) struct place place = {.dir = -1};
	int err;

	if (!strcmp(path, "-")) {
		if (fflush(stdout))
			return -errno;
		return write_all(STDOUT_FILENO, data, size);
	}
	err = place_find(path, owner, &place);
	if (!err)
		err = place_check(&place, owner);
	if (err)
		return err;
	return place_is_direct(&place) ? write_direct(&place, data, size)
				       : write_replacing(&place, owner, data, size);
}

/* --- names
 * ---------------------------------------------------------------------------------------- */

/*
 * comm is the target's to choose: no '/', nothing that a shell reads, and neither a hidden file,
 * "..", nor
 * "-" (stdout) for a pattern that is just %c.
 */
static void write_comm(FILE *to, const char *comm)
{
	if (!comm || !*comm)
		comm = "_";
	for (const char *at = comm; *at; at++) {
		bool fine = isascii((unsigned char)*at) &&
			    (isalnum((unsigned char)*at) || strchr("._-+", *at));

		if (at == comm && (*at == '.' || *at == '-'))
			fine = false;
		fputc(fine ? *at : '_', to);
	}
}

static int expand(const char *pattern, const char *comm, int pid, FILE *to)
{
	for (const char *at = pattern; *at; at++) {
		if (*at != '%') {
			fputc(*at, to);
			continue;
		}
		switch (*++at) {
		case 'p':
			fprintf(to, "%d", pid);
			break;
		case 'c':
			write_comm(to, comm);
			break;
		case '%':
			fputc('%', to);
			break;
		default:
			return -EINVAL;
		}
	}
	return 0;
}

static bool is_folder(const char *path, size_t length)
{
	struct stat st;

	return path[length - 1] == '/' || (!stat(path, &st) && S_ISDIR(st.st_mode));
}

int output_path(const char *pattern, const char *comm, int pid, const char *extension, char **path)
{
	CLEANUP(cleanup_free) char *text = NULL;
	CLEANUP(cleanup_file) FILE *to = NULL;
	size_t length;
	int err;

	to = open_memstream(&text, &length);
	if (!to)
		return -ENOMEM;
	err = pattern ? expand(pattern, comm, pid, to) : 0;
	if (err)
		return err;
	if (fflush(to)) /* which brings text and length up to date */
		return -ENOMEM;
	if (!pattern || (length && is_folder(text, length))) {
		fputs(length && text[length - 1] != '/' ? "/" : "", to);
		fputs("alloctrace.", to);
		write_comm(to, comm);
		fprintf(to, ".%d.%s", pid, extension);
	}
	err = ferror(to);
	/* glibc's fclose() shrinks the text to fit, and does not tell if that fails. */
	if (fclose(TAKE(to)) || err || !text)
		return -ENOMEM;
	*path = TAKE(text);
	return 0;
}

int output_numbered(const char *path, const char *extension, unsigned int number, char **numbered)
{
	size_t length = strlen(path), end = strlen(extension) + 1, stem = length;
	char *text;

	if (length > end && path[length - end] == '.' &&
	    !strcmp(path + length - end + 1, extension))
		stem = length - end;
	if (asprintf(&text, "%.*s.%04u%s", (int)stem, path, number, path + stem) < 0)
		return -ENOMEM;
	*numbered = text;
	return 0;
}
