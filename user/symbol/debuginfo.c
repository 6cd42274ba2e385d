#include "symbol/debuginfo.h"

#include "binary/minidebug.h"
#include "util/cleanup.h"

#include <elfutils/libdwelf.h>
#include <errno.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define GUARD_BYTES 4096
/* Debug sections shrink to a third or so, at most to a tenth. */
#define PACKED_RATIO_MAX 40
#define PACKED_LEAST	 (64ull << 20) /* bytes that need no such proof */
/* Of what is decompressed; no section of DWARF wants more. */
#define ALIGNMENT 16

#ifndef ELFCOMPRESS_ZSTD
#define ELFCOMPRESS_ZSTD 2
#endif

/* --- opening a file that claims to have debug information --- */

struct survey {
	enum debuginfo_half half;
	bool has_dwarf;
	uint32_t info;	/* index of .debug_info, the last of several */
	uint64_t bytes; /* of what libdw will read */
	uint64_t room;	/* for those of them that have to be decompressed */
};

/* Of the sections with debug information, those that nothing here asks for: a third of the bytes. */
static bool is_never_asked_for(const char *name)
{
	static const char *const names[] = {"loc",   "loclists", "frame",    "aranges",
					    "macro", "macinfo",	 "pubnames", "pubtypes"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t length = strlen(names[i]);

		if (!strncmp(name, names[i], length) &&
		    (!name[length] || !strcmp(name + length, ".dwo")))
			return true;
	}
	return false;
}

static bool ends_in_dwo(const char *section)
{
	size_t length = strlen(section);

	return length > 4 && !strcmp(section + length - 4, ".dwo");
}

/* A few more than it does read: what is not among them does not exist for it. */
static bool is_read_by_libdw(const char *section, enum debuginfo_half half)
{
	if (ends_in_dwo(section) != (half == DEBUGINFO_DWO))
		return false;
	if (!strncmp(section, ".debug_", 7))
		return !is_never_asked_for(section + 7);
	if (!strncmp(section, ".zdebug_", 8))
		return !is_never_asked_for(section + 8);
	return !strncmp(section, ".gnu", 4);
}

static bool is_info(const char *section)
{
	static const char *const names[] = {".debug_info", ".zdebug_info", ".debug_info.dwo",
					    ".zdebug_info.dwo"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(section, names[i]))
			return true;
	}
	return false;
}

static int survey_section(const struct image_section_info *section, void *context)
{
	struct survey *survey = context;

	if (!is_read_by_libdw(section->name, survey->half))
		return 0;
	if (__builtin_add_overflow(survey->bytes, section->size, &survey->bytes))
		survey->bytes = UINT64_MAX;
	if (section->header.sh_flags & SHF_COMPRESSED &&
	    (__builtin_add_overflow(survey->room, section->size, &survey->room) ||
	     __builtin_add_overflow(survey->room, ALIGNMENT, &survey->room)))
		survey->bytes = UINT64_MAX;
	if (section->size && is_info(section->name)) {
		survey->has_dwarf = true;
		survey->info = section->index;
	}
	return 0;
}

static struct survey survey_image(const struct image *image, enum debuginfo_half half)
{
	struct survey survey = {.half = half};

	image_for_each_section(image, survey_section, &survey);
	return survey;
}

/* Much of a small file has to be compressed as nothing is but what is made to be. */
static bool is_bearable(const struct image *image, uint64_t bytes, uint64_t max)
{
	return bytes <= max && (bytes <= PACKED_LEAST || bytes / PACKED_RATIO_MAX <= image->size);
}

/* NULL: it has DWARF that can be used. *too_large: it has too much. */
static const char *why_no_dwarf(const struct image *image, bool *too_large)
{
	struct survey survey = survey_image(image, DEBUGINFO_PLAIN);

	if (!survey.has_dwarf)
		return "none";
	if (is_bearable(image, survey.bytes, DEBUGINFO_BYTES_MAX))
		return NULL;
	*too_large = true;
	return "too much to be read";
}

/* --- libdw --- */

const Elf_Data *debuginfo_section(Elf *elf, const char *name)
{
	Elf_Scn *scn = NULL;
	size_t names;

	if (elf_getshdrstrndx(elf, &names))
		return NULL;
	while ((scn = elf_nextscn(elf, scn))) {
		GElf_Shdr header;
		const char *actual;

		if (!gelf_getshdr(scn, &header) || header.sh_type == SHT_NOBITS)
			continue;
		actual = elf_strptr(elf, names, header.sh_name);
		if (actual && (!strcmp(actual, name) ||
			       (!strncmp(actual, ".z", 2) && !strcmp(actual + 2, name + 1))))
			return elf_rawdata(scn, NULL);
	}
	return NULL;
}

/* Nor does it look whether a section's last string ends. */
static bool strings_end(Elf *elf)
{
	static const char *const sections[] = {".debug_str", ".debug_line_str", ".debug_str.dwo"};

	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		const Elf_Data *data = debuginfo_section(elf, sections[i]);

		if (data && data->d_size &&
		    (!data->d_buf || ((const char *)data->d_buf)[data->d_size - 1]))
			return false;
	}
	return true;
}

void debuginfo_file_close(struct debuginfo_file *file)
{
	dwarf_end(file->dwarf);
	elf_end(file->elf);
	if (file->bytes)
		munmap(file->bytes, file->mapped);
	*file = (struct debuginfo_file){0};
}

/* Reads all of a part of the image; false where it ends before. */
static bool read_whole(const struct image *image, void *to, uint64_t size, uint64_t offset)
{
	for (uint64_t done = 0; done < size;) {
		ssize_t got =
			pread(image->fd, (char *)to + done, size - done, (off_t)(offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		done += (uint64_t)got;
	}
	return true;
}

/* Copies a part of the image to its place. What a short file lacks stays zero. */
static void load(const struct debuginfo_file *file, const struct image *image, uint64_t offset,
		 uint64_t size)
{
	if (offset >= image->size)
		return;
	if (size > image->size - offset)
		size = image->size - offset;
	while (size) {
		ssize_t got = pread(image->fd, (char *)file->bytes + offset, size, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return;
		offset += (uint64_t)got;
		size -= (uint64_t)got;
	}
}

struct loader {
	const struct debuginfo_file *file;
	const struct image *image;
	enum debuginfo_half half;
	size_t names;		 /* index of the section with the sections' names */
	uint32_t info;		 /* and of the .debug_info.dwo that is meant */
	uint64_t next, room_end; /* of the copy: where the next section is decompressed to */
};

/* Leaves the copy with no name for a section, which libdw then does not look at. */
static void hide_section(const struct loader *loader, uint32_t index)
{
	const Elf64_Ehdr *ehdr = loader->file->bytes;
	uint64_t at = index * sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, sh_name);

	if (ehdr->e_shoff <= loader->image->size && at < loader->image->size - ehdr->e_shoff)
		memset((char *)loader->file->bytes + ehdr->e_shoff + at, 0, sizeof(Elf64_Word));
}

static bool is_wanted(const struct loader *loader, const struct image_section_info *section)
{
	/* gcc gives each type unit of DWARF 5 a section of that name, before the unit's. */
	if (loader->half == DEBUGINFO_DWO && is_info(section->name))
		return section->index == loader->info;
	return is_read_by_libdw(section->name, loader->half);
}

static int load_names(const struct image_section_info *section, void *context)
{
	const struct loader *loader = context;

	if (section->index == loader->names)
		load(loader->file, loader->image, section->header.sh_offset,
		     section->header.sh_size);
	else if (!is_wanted(loader, section))
		hide_section(loader, section->index);
	return 0;
}

static bool decompress(uint32_t type, const void *packed, size_t packed_size, void *to, size_t size)
{
	uLongf written = size;

	if (type == ELFCOMPRESS_ZLIB)
		return uncompress(to, &written, packed, packed_size) == Z_OK && written == size;
	return type == ELFCOMPRESS_ZSTD && ZSTD_decompress(to, size, packed, packed_size) == size;
}

/* The copy's own header of a section; NULL: it is not in the file. */
static char *section_header(const struct loader *loader, uint32_t index)
{
	const Elf64_Ehdr *ehdr = loader->file->bytes;
	uint64_t at;

	if (__builtin_add_overflow(ehdr->e_shoff, index * sizeof(Elf64_Shdr), &at) ||
	    at > loader->image->size || loader->image->size - at < sizeof(Elf64_Shdr))
		return NULL;
	return (char *)loader->file->bytes + at;
}

/*
 * Decompresses a section to behind the file, and tells its header so: libdw 0.188 does not know zstd,
 * and would keep the compressed bytes as well. What cannot be decompressed is left empty.
 */
static void load_compressed(struct loader *loader, const struct image_section_info *section)
{
	CLEANUP(cleanup_free) uint8_t *packed = NULL;
	char *header_at = section_header(loader, section->index);
	const struct image *image = loader->image;
	uint64_t size = section->header.sh_size;
	Elf64_Shdr header;
	Elf64_Chdr chdr;

	if (!header_at || size < sizeof(chdr) || size > image->size)
		return;
	packed = malloc(size);
	if (!packed || !read_whole(image, packed, size, section->header.sh_offset))
		return;
	memcpy(&chdr, packed, sizeof(chdr));
	/* The file may have changed since its sections were added up. */
	if (loader->next > loader->room_end || chdr.ch_size > loader->room_end - loader->next ||
	    !decompress(chdr.ch_type, packed + sizeof(chdr), size - sizeof(chdr),
			(char *)loader->file->bytes + loader->next, chdr.ch_size))
		return;
	memcpy(&header, header_at, sizeof(header));
	header.sh_flags &= ~(uint64_t)SHF_COMPRESSED;
	header.sh_offset = loader->next;
	header.sh_size = chdr.ch_size;
	header.sh_addralign = 1;
	memcpy(header_at, &header, sizeof(header));
	loader->next += (chdr.ch_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int load_section(const struct image_section_info *section, void *context)
{
	struct loader *loader = context;
	const GElf_Shdr *header = &section->header;

	if (!is_wanted(loader, section) || section->index == loader->names)
		return 0;
	if (header->sh_flags & SHF_COMPRESSED)
		load_compressed(loader, section);
	else
		load(loader->file, loader->image, header->sh_offset, header->sh_size);
	return 0;
}

/*
 * What libdw will decompress of the copy, in bytes; the file may be another by now than the one that
 * was surveyed. UINT64_MAX: more than can be.
 */
static uint64_t packed_rest(const struct debuginfo_file *file)
{
	uint64_t sum = 0, size;
	Elf_Scn *scn = NULL;

	while ((scn = elf_nextscn(file->elf, scn))) {
		uint8_t gnu[12]; /* "ZLIB", and the size, as before ELF had a flag for it */
		GElf_Shdr header;
		GElf_Chdr chdr;

		if (!gelf_getshdr(scn, &header) || header.sh_type == SHT_NOBITS || !header.sh_name)
			continue;
		size = 0;
		if (header.sh_flags & SHF_COMPRESSED) {
			size = gelf_getchdr(scn, &chdr) ? chdr.ch_size : 0;
		} else if (header.sh_offset <= file->mapped - sizeof(gnu)) {
			memcpy(gnu, (const char *)file->bytes + header.sh_offset, sizeof(gnu));
			memcpy(&size, gnu + 4, sizeof(size));
			size = memcmp(gnu, "ZLIB", 4) ? 0 : __builtin_bswap64(size);
		}
		if (__builtin_add_overflow(sum, size, &sum))
			return UINT64_MAX;
	}
	return sum;
}

/*
 * Opens the DWARF of an image. libdw could read the file by itself, but it does overrun sections
 * that are damaged (0.188: strings that begin at a section's end). So it gets a copy that lies in
 * memory as in the file: in it, and in the page of zeros behind it, such reads do no harm. The
 * parts that are not needed take no memory.
 */
static bool copy_and_open(struct debuginfo_file *file, const struct image *image,
			  const struct survey *survey)
{
	struct loader loader = {
		.file = file,
		.image = image,
		.half = survey->half,
		.info = survey->info,
	};
	Elf64_Ehdr *ehdr;

	if (__builtin_add_overflow(image->size, survey->room + ALIGNMENT + GUARD_BYTES,
				   &file->mapped) ||
	    elf_getshdrstrndx(image_elf(image), &loader.names))
		return false;
	loader.room_end = file->mapped - GUARD_BYTES;
	loader.next = (image->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	file->bytes = mmap(NULL, file->mapped, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (file->bytes == MAP_FAILED) {
		file->bytes = NULL;
		return false;
	}
	ehdr = file->bytes;
	load(file, image, 0, sizeof(*ehdr));
	load(file, image, ehdr->e_phoff, ehdr->e_phnum * sizeof(Elf64_Phdr));
	load(file, image, ehdr->e_shoff, IMAGE_SECTIONS_MAX * sizeof(Elf64_Shdr));
	image_for_each_section(image, load_names, &loader);
	image_for_each_section(image, load_section, &loader);
	file->elf = elf_memory(file->bytes, loader.room_end);
	if (!file->elf || packed_rest(file) > survey->bytes)
		return false;
	file->dwarf = dwarf_begin_elf(file->elf, DWARF_C_READ, NULL);
	return file->dwarf && strings_end(file->elf);
}

bool debuginfo_file_open(struct debuginfo_file *file, const struct image *image,
			 enum debuginfo_half half, uint64_t max)
{
	struct survey survey = survey_image(image, half);

	*file = (struct debuginfo_file){0};
	if (!survey.has_dwarf || !is_bearable(image, survey.bytes, max))
		return false;
	file->held = survey.bytes;
	if (!copy_and_open(file, image, &survey)) {
		debuginfo_file_close(file);
		return false;
	}
	return true;
}

/* --- .gnu_debugaltlink --- */

static void cleanup_image(struct image **image)
{
	image_free(*image);
}

/*
 * libdw would follow the link by itself when it meets the first reference, with a plain open() of a
 * path that the file states. So the file is found here, or the DWARF is not used at all: what dwz
 * has moved out is missed everywhere.
 */
static bool open_extra(struct debuginfo *debuginfo, const struct image *from,
		       const struct debug_search *search)
{
	const char *name;
	CLEANUP(cleanup_image) struct image *found = NULL;
	const void *build_id;
	ssize_t length = dwelf_dwarf_gnu_debugaltlink(debuginfo->main.dwarf, &name, &build_id);

	if (length == 0)
		return true;
	if (length < 0)
		return false;
	found = debug_search_find_extra(search, from, name, build_id, (size_t)length);
	if (!found || !debuginfo_file_open(&debuginfo->extra, found, DEBUGINFO_PLAIN,
					   DEBUGINFO_BYTES_MAX - debuginfo->main.held))
		return false;
	/* It refers to no further file: libdw would open that, too. */
	if (dwelf_dwarf_gnu_debugaltlink(debuginfo->extra.dwarf, &name, &build_id) != 0)
		return false;
	dwarf_setalt(debuginfo->main.dwarf, debuginfo->extra.dwarf);
	return true;
}

/* --- all of it --- */

static int is_symtab(const struct image_section_info *section, void *context)
{
	(void)context;
	return section->header.sh_type == SHT_SYMTAB;
}

/* What a stripped image carries with it is less than a separate file, and more than nothing. */
static void open_carried(struct debuginfo *debuginfo, const struct image *image,
			 const struct debug_search *search)
{
	int err;

	if (debuginfo->separate || image_for_each_section(image, is_symtab, NULL))
		return;
	err = minidebug_open(image, &debuginfo->separate);
	if (err != -ENOENT)
		debug_search_tell(search, image, ".gnu_debugdata", false, err ? "broken" : "found");
}

/* Opens a separate file, where there is one. False: there is no DWARF to be used in it. */
static bool open_separate(struct debuginfo *debuginfo, const struct image *image,
			  const struct debug_search *search)
{
	const char *why_not;

	debuginfo->separate = debug_search_find(search, image);
	open_carried(debuginfo, image, search);
	if (!debuginfo->separate)
		return false;
	why_not = why_no_dwarf(debuginfo->separate, &debuginfo->too_large);
	if (why_not)
		debug_search_tell(search, image, "lines in what was found", false, why_not);
	return !why_not;
}

int debuginfo_open(const struct image *image, const struct debug_search *search,
		   struct debuginfo **out)
{
	struct debuginfo *debuginfo = calloc(1, sizeof(*debuginfo));
	const struct image *from = image;
	const char *why_not;

	if (!debuginfo)
		return -ENOMEM;
	*out = debuginfo;
	why_not = why_no_dwarf(image, &debuginfo->too_large);
	debug_search_tell(search, image, "the file itself", false, why_not ? why_not : "found");
	if (why_not) {
		if (!open_separate(debuginfo, image, search))
			return 0;
		from = debuginfo->separate;
	}
	if (!debuginfo_file_open(&debuginfo->main, from, DEBUGINFO_PLAIN, DEBUGINFO_BYTES_MAX)) {
		debug_search_tell(search, image, "lines in what was found", false, "broken");
		debuginfo_file_close(&debuginfo->main);
	} else if (!open_extra(debuginfo, from, search)) {
		debug_search_tell(search, image, "what it says to be in another file", false,
				  "not to be had: its lines are not used");
		debuginfo_file_close(&debuginfo->main);
		debuginfo_file_close(&debuginfo->extra);
	}
	return 0;
}

void debuginfo_free(struct debuginfo *debuginfo)
{
	if (!debuginfo)
		return;
	debuginfo_file_close(&debuginfo->main);
	debuginfo_file_close(&debuginfo->extra);
	image_free(debuginfo->separate);
	free(debuginfo);
}
