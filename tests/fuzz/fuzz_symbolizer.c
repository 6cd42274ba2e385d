/*
 * libFuzzer target: names, files and lines from hostile debug information, with all that it refers to.
 *
 * An input damages real files, of those that ALLOCTRACE_FUZZ_SEEDS names ("program:program+companion",
 * all in a folder of their own; a companion is a .dwo file, or what dwz has moved out): a byte that
 * chooses the program, then patches of 8 bytes each:
 *	byte 0	where: bit 7 the companion, the others a section, modulo their number + 3: the whole
 *		file, its headers, its section headers, then the sections that may hold DWARF
 *	byte 1	how: bits 0-1 the width of what is written (1, 2, 4, 8 bytes), the others an index into
 *		`interesting`, beyond which it is byte 7
 *	2-6	the place in that section, modulo its size
 *	7	a value
 *
 * What must hold beside not crashing, and taking neither long nor much memory: what comes out is
 * complete, and the same when it is asked for again.
 *
 * Build and run: tests/fuzz/symbolizer.sh
 */
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "binary/image.h"
#include "symbol/symbolizer.h"

#define SEEDS_MAX     32
#define SECTIONS_MAX  64
#define PATCH_SIZE    8
#define PATCHES_MAX   64
#define LEVELS	      32
#define ADDRESSES_MAX 400

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			__builtin_trap();                                                          \
	} while (0)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct region {
	uint64_t offset, size;
};

struct file {
	char path[256];
	int fd; /* for writing; -1: there is none */
	uint64_t size;
	struct region regions[3 + SECTIONS_MAX];
	size_t region_count;
};

struct seed {
	struct file program, companion;
};

static struct seed seeds[SEEDS_MAX];
static size_t seed_count;

static const uint64_t interesting[] = {
	0,
	1,
	0x7f,
	0x80,
	0xff,
	0x7fff,
	0xffff,
	0x7fffffff,
	0x80000000,
	0xffffffff,
	0x7fffffffffffffff,
	1ULL << 63,
	UINT64_MAX,
	0x8080808080808080,
	0x1d /* DW_TAG_inlined_subroutine */,
	0x2e /* DW_TAG_subprogram */,
	0x31 /* DW_AT_abstract_origin */,
	0x47 /* DW_AT_specification */,
	0x55 /* DW_AT_ranges */,
	0x10 /* DW_FORM_ref_addr */,
	0x16 /* DW_FORM_indirect */,
	0x19 /* DW_FORM_flag_present */,
	0x21 /* DW_FORM_implicit_const */,
	0x08 /* DW_FORM_string */,
	0x1f20 /* DW_FORM_GNU_ref_alt */,
	0x800 /* SHF_COMPRESSED */,
};

/* --- seeds --- */

static int name_region(const struct image_section_info *section, void *context)
{
	struct file *file = context;
	const char *name = section->name;

	if (file->region_count < 3 + SECTIONS_MAX && section->header.sh_type != SHT_NOBITS &&
	    section->header.sh_size &&
	    (!strncmp(name, ".debug", 6) || !strncmp(name, ".zdebug", 7) ||
	     !strncmp(name, ".gnu_debug", 10) || !strcmp(name, ".symtab") ||
	     !strcmp(name, ".strtab") || !strcmp(name, ".shstrtab")))
		file->regions[file->region_count++] =
			(struct region){section->header.sh_offset, section->header.sh_size};
	return 0;
}

static struct image *open_program(const struct file *file)
{
	struct image *image;
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	return image_open(fd, file->path, &image) ? NULL : image;
}

static void open_seed_file(struct file *file, const char *path)
{
	struct image *image;
	struct stat st;
	Elf64_Ehdr ehdr;

	CHECK(path[0] == '/' && strlen(path) < sizeof(file->path));
	strcpy(file->path, path);
	file->fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK(file->fd >= 0 && !fstat(file->fd, &st));
	CHECK(pread(file->fd, &ehdr, sizeof(ehdr), 0) == sizeof(ehdr));
	file->size = (uint64_t)st.st_size;
	file->regions[0] = (struct region){0, file->size};
	file->regions[1] = (struct region){0, sizeof(ehdr) + ehdr.e_phnum * sizeof(Elf64_Phdr)};
	file->regions[2] = (struct region){ehdr.e_shoff, ehdr.e_shnum * sizeof(Elf64_Shdr)};
	file->region_count = 3;
	image = open_program(file);
	CHECK(image);
	image_for_each_section(image, name_region, file);
	image_free(image);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char *paths = getenv("ALLOCTRACE_FUZZ_SEEDS"), *path;

	(void)argc;
	(void)argv;
	CHECK(paths);
	while ((path = strsep(&paths, ":")) && seed_count < SEEDS_MAX) {
		struct seed *seed = &seeds[seed_count++];
		char *program = strsep(&path, "+");

		open_seed_file(&seed->program, program);
		seed->companion.fd = -1;
		if (path)
			open_seed_file(&seed->companion, path);
	}
	return 0;
}

/* --- damage --- */

struct patch {
	int fd;
	off_t offset;
	size_t size;
	uint8_t before[8];
};

/* False: there is nothing to damage there. */
static bool apply(const struct seed *seed, const uint8_t *bytes, struct patch *patch)
{
	const struct file *file = bytes[0] & 0x80 ? &seed->companion : &seed->program;
	size_t width = (size_t)1 << (bytes[1] & 3), index = bytes[1] >> 2;
	uint64_t place = 0, value = bytes[7];
	const struct region *region;

	if (file->fd < 0)
		return false;
	region = &file->regions[(bytes[0] & 0x7f) % file->region_count];
	if (!region->size)
		return false;
	memcpy(&place, bytes + 2, 5);
	if (index < sizeof(interesting) / sizeof(*interesting))
		value = interesting[index];
	patch->fd = file->fd;
	patch->offset = (off_t)(region->offset + place % region->size);
	patch->size = width;
	if ((uint64_t)patch->offset + width > file->size)
		return false;
	CHECK(pread(file->fd, patch->before, width, patch->offset) == (ssize_t)width);
	CHECK(pwrite(file->fd, &value, width, patch->offset) == (ssize_t)width);
	return true;
}

static void mend(const struct patch *patch)
{
	CHECK(pwrite(patch->fd, patch->before, patch->size, patch->offset) == (ssize_t)patch->size);
}

/* --- what must hold --- */

static void check_frame(const struct symbol_frame *frame)
{
	CHECK(frame->name && frame->system_name && frame->file);
	CHECK(strlen(frame->name) + strlen(frame->system_name) + strlen(frame->file) <
	      (size_t)1 << 22);
	CHECK(frame->line <= INT32_MAX && frame->start_line <= INT32_MAX);
}

static void look_up(struct symbolizer *symbolizer, const struct image *image, uint64_t vaddr)
{
	struct symbol_frame frames[LEVELS], again[LEVELS];
	int levels = symbolizer_resolve(symbolizer, image, vaddr, frames, LEVELS);

	CHECK(levels >= 0 && levels <= LEVELS);
	for (int i = 0; i < levels; i++)
		check_frame(&frames[i]);
	CHECK(symbolizer_resolve(symbolizer, image, vaddr, again, LEVELS) == levels);
	for (int i = 0; i < levels; i++)
		CHECK(frames[i].line == again[i].line && !strcmp(frames[i].file, again[i].file));
}

static void look_at(const struct image *image)
{
	static const struct symbolizer_options options;
	struct symbolizer *symbolizer;
	struct symbol_source source;

	CHECK(!symbolizer_new(&options, &symbolizer));
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *segment = &image->segments[i];
		uint64_t step = segment->mem_size / ADDRESSES_MAX + 1;

		/* Prime to what code is aligned to. */
		for (uint64_t at = 0; segment->executable && at / step < ADDRESSES_MAX;
		     at += step | 1)
			look_up(symbolizer, image, segment->vaddr + at);
	}
	symbolizer_source(symbolizer, image, &source);
	CHECK(source.has_functions || !source.has_inlines);
	symbolizer_free(symbolizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct patch patches[PATCHES_MAX];
	const struct seed *seed;
	struct image *image;
	size_t count = 0;

	if (!size)
		return -1;
	seed = &seeds[data[0] % seed_count];
	for (size_t at = 1; at + PATCH_SIZE <= size && count < PATCHES_MAX; at += PATCH_SIZE)
		count += apply(seed, data + at, &patches[count]);
	image = open_program(&seed->program);
	if (image && image->segment_count < 16)
		look_at(image);
	image_free(image);
	while (count)
		mend(&patches[--count]);
	return 0;
}
