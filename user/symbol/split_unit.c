#include "symbol/split_unit.h"

#include "symbol/abbrev_check.h"
#include "symbol/debuginfo.h"
#include "symbol/die_string.h"
#include "util/cleanup.h"
#include "util/hash_index.h"
#include "util/vec.h"

#include <dwarf.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More in one file (-flto makes files of several) are ignored. */
#define UNITS_MAX (1u << 16)

struct unit_place {
	uint64_t id;
	Dwarf_Die die;
};

struct split_file {
	char *path;		     /* owned */
	struct debuginfo_file *file; /* owned; NULL: not there, or of no use */
	struct dwarf_sections sections;
	struct {
		struct unit_place *items; /* owned, sorted by id */
		size_t count, capacity;
	} units;
};

struct split_files {
	const struct image *image;	   /* borrowed */
	const struct debug_search *search; /* borrowed */
	struct budget *budget;		   /* borrowed */
	struct {
		struct split_file **items; /* owned */
		size_t count, capacity;
	} files;
	struct hash_index by_path;
	uint64_t held; /* bytes, by those that are open */
};

int split_files_new(const struct image *image, const struct debug_search *search,
		    struct budget *budget, struct split_files **out)
{
	struct split_files *files = calloc(1, sizeof(*files));

	if (!files)
		return -ENOMEM;
	files->image = image;
	files->search = search;
	files->budget = budget;
	*out = files;
	return 0;
}

static void close_file(struct split_file *file)
{
	if (!file)
		return;
	if (file->file)
		debuginfo_file_close(file->file);
	free(file->file);
	free(file->units.items);
	free(file->path);
	free(file);
}

static void cleanup_split_file(struct split_file **file)
{
	close_file(*file);
}

void split_files_free(struct split_files *files)
{
	if (!files)
		return;
	vec_for_each(file, &files->files) {
		close_file(*file);
	}
	free(files->files.items);
	hash_index_deinit(&files->by_path);
	free(files);
}

/* --- one file --- */

static bool id_of(Dwarf_Die *die, uint64_t *id)
{
	Dwarf_Attribute attr;
	Dwarf_Half version;
	uint8_t type;

	/* Without a "subdie": see the header. */
	if (dwarf_cu_info(die->cu, &version, &type, NULL, NULL, id, NULL, NULL))
		return false;
	return version >= 5 || dwarf_formudata(dwarf_attr(die, DW_AT_GNU_dwo_id, &attr), id) == 0;
}

static int compare_units(const void *a, const void *b)
{
	const struct unit_place *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int find_units(struct split_file *file)
{
	Dwarf_CU *cu = NULL;
	Dwarf_Die die;
	uint8_t type;
	int err = 0;

	while (!err && file->units.count < UNITS_MAX &&
	       dwarf_get_units(file->file->dwarf, cu, &cu, NULL, &type, &die, NULL) == 0) {
		uint64_t id;

		if (type == DW_UT_split_compile && id_of(&die, &id))
			err = vec_push(&file->units, (struct unit_place){id, die});
	}
	if (!err && file->units.count)
		qsort(file->units.items, file->units.count, sizeof(struct unit_place),
		      compare_units);
	return err;
}

/* Reads what there is at file->path. 0, also if there is nothing; -E2BIG, -ENOMEM. */
static int read_file(struct split_files *files, struct split_file *file)
{
	struct image *image = debug_search_open(files->search, files->image, file->path);
	bool opened;

	if (!image)
		return 0;
	file->file = calloc(1, sizeof(*file->file));
	opened = file->file && debuginfo_file_open(file->file, image, DEBUGINFO_DWO,
						   DEBUGINFO_BYTES_MAX - files->held);
	image_free(image);
	if (!file->file)
		return -ENOMEM;
	if (!opened) {
		free(TAKE(file->file));
		return 0;
	}
	files->held += file->file->held;
	dwarf_sections_find(file->file->elf, true, &file->sections);
	if (!abbrev_check(file->sections.info, false, file->sections.abbrev, files->budget) ||
	    !abbrev_check(file->sections.types, true, file->sections.abbrev, files->budget))
		return 0;
	return find_units(file);
}

static bool has_path(const void *owner, uint32_t index, const void *key)
{
	const struct split_files *files = owner;

	return strcmp(files->files.items[index]->path, key) == 0;
}

/* The file at a path, from this use on in files. 0, -E2BIG, -ENOMEM. */
static int find_file(struct split_files *files, const char *path, struct split_file **out)
{
	uint64_t hash = hash_bytes(HASH_START, path, strlen(path));
	CLEANUP(cleanup_split_file) struct split_file *file = NULL;
	uint32_t index;
	int err;

	if (hash_index_find(&files->by_path, hash, has_path, files, path, &index)) {
		*out = files->files.items[index];
		return 0;
	}
	if (files->files.count >= SPLIT_FILES_MAX)
		return -E2BIG;
	file = calloc(1, sizeof(*file));
	if (!file)
		return -ENOMEM;
	file->path = strdup(path);
	if (!file->path)
		return -ENOMEM;
	err = read_file(files, file);
	if (!err)
		err = hash_index_reserve(&files->by_path);
	if (!err)
		err = vec_push(&files->files, file);
	if (err)
		return err;
	hash_index_add(&files->by_path, hash, (uint32_t)files->files.count - 1);
	*out = TAKE(file);
	return 0;
}

/* --- where a skeleton's file may lie --- */

static const char *string_of(const struct dwarf_sections *sections, Dwarf_Die *die,
			     unsigned int name)
{
	Dwarf_Attribute attr;
	const char *string = NULL;

	if (dwarf_attr(die, name, &attr))
		string = die_string(sections, &attr, PATH_MAX - 1);
	return string && *string ? string : NULL;
}

/*
 * The nth path to look at, in the image's root: what the skeleton says, then beside the image, where
 * whole builds are moved to, with and without the folders in what it says. To be freed. 1; 0: there is
 * none of that kind; -ENOENT: no more; -ENOMEM.
 */
static int path_of(const struct image *image, const struct dwarf_sections *sections,
		   Dwarf_Die *skeleton, unsigned int n, char **path)
{
	const char *name = string_of(sections, skeleton, DW_AT_dwo_name), *folder, *slash;
	int length;

	if (!name)
		name = string_of(sections, skeleton, DW_AT_GNU_dwo_name);
	if (!name || n > 2)
		return -ENOENT;
	if (n == 0) {
		folder = string_of(sections, skeleton, DW_AT_comp_dir);
		length = folder ? (int)strlen(folder) : 0;
	} else {
		folder = image->path + image->root_prefix;
		slash = strrchr(folder, '/');
		length = slash ? (int)(slash - folder) : 0;
	}
	if (n == 2) {
		slash = strrchr(name, '/');
		if (!slash)
			return 0;
		name = slash + 1;
	}
	if (name[0] == '/')
		return n ? 0 : asprintf(path, "%s", name) < 0 ? -ENOMEM : 1;
	/* Nothing is taken from our own working directory. */
	if (!folder || folder[0] != '/')
		return 0;
	return asprintf(path, "%.*s/%s", length, folder, name) < 0 ? -ENOMEM : 1;
}

static bool find_unit(const struct split_file *file, uint64_t id, struct split_unit *out)
{
	const struct unit_place key = {.id = id}, *found;

	if (!file->units.count)
		return false;
	found = bsearch(&key, file->units.items, file->units.count, sizeof(key), compare_units);
	if (!found)
		return false;
	*out = (struct split_unit){
		.id = id,
		.dwarf = file->file->dwarf,
		.die = found->die,
		.sections = &file->sections,
	};
	return true;
}

int split_files_find(struct split_files *files, const struct dwarf_sections *sections,
		     Dwarf_Die *skeleton, struct split_unit *out)
{
	int err = 0, result = -ENOENT;
	uint64_t id;

	if (!id_of(skeleton, &id))
		return -ENOENT;
	for (unsigned int n = 0; err >= 0; n++) {
		CLEANUP(cleanup_free) char *path = NULL;
		struct split_file *file = NULL;

		err = path_of(files->image, sections, skeleton, n, &path);
		if (err > 0)
			err = find_file(files, path, &file);
		else if (err < 0)
			path = NULL;
		if (err < 0 || !file)
			continue;
		if (find_unit(file, id, out))
			return 0;
		if (file->file)
			result = -ESTALE;
	}
	return err == -ENOENT ? result : err;
}
