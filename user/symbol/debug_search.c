#include "symbol/debug_search.h"

#include "symbol/downloads.h"
#include "util/cleanup.h"
#include "util/open_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define CRC_CHUNK (256 * 1024)
#define LINK_MAX  4096

/* One look for one image. */
struct look {
	const struct debug_search *search;
	const struct image *image; /* for which it is */
	const uint8_t *build_id;   /* that it must have; */
	size_t build_id_len;	   /* 0: it need not have one */
	bool own_root;		   /* the target's root is not ours */
};

/* A folder of debug files. */
struct place {
	int root; /* OPEN_FILE_HOST, or the target's */
	const char *folder;
};

static void cleanup_image(struct image **image)
{
	image_free(*image);
}

static bool is_host_root(int root)
{
	struct stat ours, theirs;

	return root < 0 || (!stat("/", &ours) && !fstat(root, &theirs) &&
			    ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino);
}

static struct look begin(const struct debug_search *search, const struct image *image,
			 const void *build_id, size_t length)
{
	return (struct look){
		.search = search,
		.image = image,
		.build_id = build_id,
		.build_id_len = length,
		.own_root = !is_host_root(image->root),
	};
}

/* The folders in their order. False: there are no more. */
static bool place_at(const struct look *look, size_t index, struct place *place)
{
	size_t named = look->search->folder_count;

	*place = (struct place){.root = OPEN_FILE_HOST, .folder = DEBUG_SEARCH_ROOT};
	if (index < named)
		place->folder = look->search->folders[index];
	else if (index == named && look->own_root)
		place->root = look->image->root;
	else
		return index == named + look->own_root;
	return true;
}

void debug_search_tell(const struct debug_search *search, const struct image *image,
		       const char *where, bool in_target, const char *outcome)
{
	if (search->looked)
		search->looked(search->context, image, where, in_target, outcome);
}

static void tell(const struct look *look, const char *where, bool in_target, const char *outcome)
{
	debug_search_tell(look->search, look->image, where, in_target, outcome);
}

static const char *failure_text(int err)
{
	switch (err) {
	case -ENOENT:
	case -ENOTDIR:
		return "not there";
	case -EINVAL:
		return "not a regular file";
	case -ENOEXEC:
		return "not an ELF file of 64 bits, or a broken one";
	case -E2BIG:
		return "too large";
	case -ELOOP:
		return "behind links that lead nowhere";
	default:
		return strerror(-err);
	}
}

/* --- one candidate --- */

static bool same_file(const struct image *a, const struct image *b)
{
	return a->dev == b->dev && a->file_inode == b->file_inode;
}

static bool has_build_id(const struct image *image, const void *build_id, size_t length)
{
	return image->build_id_len == length && !memcmp(image->build_id, build_id, length);
}

/* Reads all of the file, if that is still within the run's limit. */
static bool file_crc(const struct debug_search *search, const struct image *image, uint32_t *crc)
{
	CLEANUP(cleanup_free) uint8_t *chunk = malloc(CRC_CHUNK);
	uLong sum = crc32(0, NULL, 0);

	if (!chunk || !search->checksum_bytes || image->size > *search->checksum_bytes)
		return false;
	*search->checksum_bytes -= image->size;
	for (uint64_t at = 0; at < image->size;) {
		ssize_t got = pread(image->fd, chunk, CRC_CHUNK, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		sum = crc32(sum, chunk, (uInt)got);
		at += (uint64_t)got;
	}
	*crc = (uint32_t)sum;
	return true;
}

/* Why the file does not belong to the image; crc: what the image's link says of it, NULL: it was not
 * linked. NULL: it does. */
static const char *refuse(const struct look *look, const struct image *found, const uint32_t *crc)
{
	uint32_t actual;

	if (same_file(found, look->image))
		return "the file itself";
	if (found->size > DEBUG_SEARCH_FILE_MAX)
		return "too large";
	if (look->build_id_len)
		return has_build_id(found, look->build_id, look->build_id_len) ? NULL
									       : "of another build";
	if (!crc) /* who looks has another proof */
		return NULL;
	if (!file_crc(look->search, found, &actual))
		return "not proved to be of this build";
	return actual == *crc ? NULL : "of another build, by its checksum";
}

/* What it names in turn begins where it really is, as for GDB: in .build-id there are links to it. */
static void be_found(struct image *found)
{
	char *path = open_file_path(found->root, found->fd);

	if (!path)
		return;
	free(found->path);
	found->path = path;
}

static struct image *try_path(const struct look *look, int root, const char *path,
			      const uint32_t *crc)
{
	CLEANUP(cleanup_image) struct image *found = NULL;
	int fd = open_file_below(root, path), err = fd < 0 ? fd : image_open(fd, path, &found);
	bool in_target = root != OPEN_FILE_HOST && look->own_root;
	const char *why_not = err ? failure_text(err) : refuse(look, found, crc);

	tell(look, path, in_target, why_not ? why_not : "found");
	if (why_not)
		return NULL;
	found->root = root;
	be_found(found);
	return TAKE(found);
}

/* --- by build id --- */

static struct image *find_by_build_id(const struct look *look)
{
	char hex[2 * IMAGE_BUILD_ID_MAX + 1];
	struct image *found = NULL;
	struct place place;

	if (look->build_id_len < 2 || look->build_id_len > IMAGE_BUILD_ID_MAX)
		return NULL;
	for (size_t i = 0; i < look->build_id_len; i++)
		snprintf(hex + 2 * i, 3, "%02x", look->build_id[i]);
	for (size_t i = 0; !found && place_at(look, i, &place); i++) {
		CLEANUP(cleanup_free) char *path = NULL;

		if (asprintf(&path, "%s/.build-id/%.2s/%s.debug", place.folder, hex, hex + 2) < 0)
			path = NULL;
		if (path)
			found = try_path(look, place.root, path, NULL);
	}
	return found;
}

/* --- by .gnu_debuglink --- */

/* name NUL padding crc32. The name is that of a file, without a folder. */
static bool parse_link(const uint8_t *section, size_t size, const char **name, uint32_t *crc)
{
	size_t length = strnlen((const char *)section, size), at = (length + 1 + 3) & ~(size_t)3;

	if (!length || length == size || at > size || size - at < sizeof(*crc))
		return false;
	if (strchr((const char *)section, '/'))
		return false;
	*name = (const char *)section;
	memcpy(crc, section + at, sizeof(*crc));
	return true;
}

/* The path of an image where its root is "/", NULL: not known. *folder: length up to the last '/'. */
static const char *path_in_root(const struct image *image, int *folder)
{
	const char *path = image->path + image->root_prefix, *slash = strrchr(path, '/');

	/* A path that is not absolute would be taken from our own working directory. */
	if (path[0] != '/' || image->root == IMAGE_ROOT_UNKNOWN)
		return NULL;
	*folder = (int)(slash - path);
	return path;
}

/* Where GDB looks: beside the image, in .debug beside it, and in the folders of debug files. */
static struct image *find_by_link(const struct look *look)
{
	CLEANUP(cleanup_free) uint8_t *section = NULL;
	static const char *const beside[] = {"/", "/.debug/"};
	const char *name, *image_path;
	struct image *found = NULL;
	struct place place;
	uint64_t vaddr;
	size_t size;
	uint32_t crc;
	int folder;

	image_path = path_in_root(look->image, &folder);
	if (!image_path ||
	    image_section(look->image, ".gnu_debuglink", LINK_MAX, &section, &size, &vaddr))
		return NULL;
	if (!parse_link(section, size, &name, &crc)) {
		tell(look, ".gnu_debuglink", false, "broken");
		return NULL;
	}
	for (size_t i = 0; i < 2 && !found; i++) {
		CLEANUP(cleanup_free) char *path = NULL;

		if (asprintf(&path, "%.*s%s%s", folder, image_path, beside[i], name) < 0)
			path = NULL;
		if (path)
			found = try_path(look, look->image->root, path, &crc);
	}
	for (size_t i = 0; !found && place_at(look, i, &place); i++) {
		CLEANUP(cleanup_free) char *path = NULL;

		if (asprintf(&path, "%s%.*s/%s", place.folder, folder, image_path, name) < 0)
			path = NULL;
		if (path)
			found = try_path(look, place.root, path, &crc);
	}
	return found;
}

/* --- from a server --- */

static struct image *download(const struct look *look)
{
	CLEANUP(cleanup_image) struct image *found = NULL;
	const char *why_not;
	int fd, err;

	if (!look->search->server || !look->build_id_len)
		return NULL;
	fd = downloads_fetch(look->search->server, look->image->path, look->build_id,
			     look->build_id_len);
	err = fd < 0 ? fd : image_open(fd, "debuginfod", &found);
	why_not = err ? downloads_failure_text(err) : refuse(look, found, NULL);
	tell(look, "debuginfod", false, why_not ? why_not : "found");
	return why_not ? NULL : TAKE(found);
}

/* --- all of it --- */

struct image *debug_search_find(const struct debug_search *search, const struct image *image)
{
	struct look look = begin(search, image, image->build_id, image->build_id_len);
	struct image *found = find_by_build_id(&look);

	if (!found)
		found = find_by_link(&look);
	return found ? found : download(&look);
}

struct image *debug_search_find_extra(const struct debug_search *search, const struct image *from,
				      const char *name, const void *build_id, size_t length)
{
	struct look look = begin(search, from, build_id, length);
	struct image *found = find_by_build_id(&look);
	CLEANUP(cleanup_free) char *path = NULL;
	const char *from_path;
	int folder = 0;

	if (found || !length)
		return found;
	if (from->root == IMAGE_ROOT_UNKNOWN)
		return download(&look);
	from_path = path_in_root(from, &folder);
	if (name[0] == '/')
		folder = 0;
	if (from_path || name[0] == '/') {
		if (asprintf(&path, "%.*s%s%s", folder, from_path ? from_path : "",
			     folder ? "/" : "", name) < 0)
			path = NULL;
		if (path)
			found = try_path(&look, from->root, path, NULL);
	}
	return found ? found : download(&look);
}

struct image *debug_search_open(const struct debug_search *search, const struct image *image,
				const char *path)
{
	struct look look = begin(search, image, NULL, 0);

	return try_path(&look, image->root, path, NULL);
}
