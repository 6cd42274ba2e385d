/*
 * libFuzzer target: what is looked for in a hostile ELF file before it is probed.
 *
 * An input damages a real file, of those that ALLOCTRACE_FUZZ_SEEDS names: a byte that chooses the
 * file, then patches of 8 bytes each:
 *	byte 0	where: see struct region, modulo their number; those that a file lacks are passed over
 *	byte 1	how: bits 0-1 the width of what is written (1, 2, 4, 8 bytes), the others an index into
 *		`interesting`, beyond which it is byte 7
 *	2-6	the place in that region, modulo its size
 *	7	a value
 *
 * What must hold beside not crashing, and not taking long: what comes out is in order, each once, in
 * the file, and no instruction is probed for two purposes.
 *
 * Build and run: tests/fuzz/allocators.sh
 */
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "binary/allocators.h"
#include "binary/image.h"
#include "binary/minidebug.h"
#include "util/vec.h"

#define SEEDS_MAX     8
#define PATCH_SIZE    8
#define PATCHES_MAX   64
#define SITE_MAX      64 /* probe_site.c, LINE_MAX_BYTES */
#define FUNCTIONS_MAX 1024

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			__builtin_trap();                                                          \
	} while (0)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct region {
	uint64_t offset, size; /* in the file; size 0: it has none */
};

/* The whole file, its headers, and what is read of it for an allocator. */
enum {
	REGION_FILE,
	REGION_HEADERS,
	REGION_SECTIONS,
	REGION_FIRST_NAMED,
	REGION_CODE =
		REGION_FIRST_NAMED + 9, /* of the functions that are found in the whole file */
	REGIONS,
};

static const char *const region_names[REGION_CODE - REGION_FIRST_NAMED] = {
	".dynsym",   ".dynstr",	      ".symtab",	  ".strtab",	    ".rela.plt",
	".rela.dyn", ".eh_frame_hdr", ".note.go.buildid", ".gnu_debugdata",
};

struct seed {
	int fd; /* of a copy in memory, which is damaged and mended */
	struct region regions[REGIONS];
};

static struct seed seeds[SEEDS_MAX];
static size_t seed_count;

static const uint64_t interesting[] = {
	0,
	1,
	0x7f,
	0xff,
	0x7fff,
	0xffff,
	0x7fffffff,
	0x80000000,
	0xffffffff,
	0x7fffffffffffffff,
	1ULL << 63,
	UINT64_MAX,
	0xe9,
	0x840f /* je */,
	0xc3,
	0x25ff,
	0xfa1e0ff3ULL,
	0x1000,
	0x90,
	0xeb,
};

/* --- seeds --- */

static int name_region(const struct image_section_info *section, void *context)
{
	struct seed *seed = context;

	for (size_t i = 0; i < sizeof(region_names) / sizeof(*region_names); i++) {
		if (!strcmp(section->name, region_names[i]))
			seed->regions[REGION_FIRST_NAMED + i] =
				(struct region){section->header.sh_offset, section->header.sh_size};
	}
	return 0;
}

static struct image *open_seed(const struct seed *seed)
{
	struct image *image;
	int fd = dup(seed->fd);

	CHECK(fd >= 0);
	return image_open(fd, "fuzz", &image) ? NULL : image;
}

/* From the first byte of its functions to the last. */
static void find_code(struct seed *seed, const struct image *image)
{
	struct allocator *allocator;
	uint64_t low = UINT64_MAX, high = 0;

	CHECK(!allocator_find(image, NULL, NULL, &allocator));
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		uint64_t at = function->site_offset - (function->site - function->vaddr);

		low = at < low ? at : low;
		high = at + function->size > high ? at + function->size : high;
	}
	seed->regions[REGION_CODE] = (struct region){low, high - low};
	allocator_free(allocator);
}

static void add_seed(const char *path)
{
	struct seed *seed = &seeds[seed_count];
	int from = open(path, O_RDONLY | O_CLOEXEC);
	struct image *image;
	struct stat st;
	Elf64_Ehdr ehdr;

	CHECK(from >= 0 && !fstat(from, &st));
	seed->fd = memfd_create("seed", MFD_CLOEXEC);
	CHECK(seed->fd >= 0);
	for (off_t done = 0; done < st.st_size;) {
		uint8_t bytes[1 << 16];
		ssize_t n = read(from, bytes, sizeof(bytes));

		CHECK(n > 0 && pwrite(seed->fd, bytes, (size_t)n, done) == n);
		done += n;
	}
	close(from);
	CHECK(pread(seed->fd, &ehdr, sizeof(ehdr), 0) == sizeof(ehdr));
	seed->regions[REGION_FILE] = (struct region){0, (uint64_t)st.st_size};
	seed->regions[REGION_HEADERS] =
		(struct region){0, sizeof(ehdr) + ehdr.e_phnum * sizeof(Elf64_Phdr)};
	seed->regions[REGION_SECTIONS] =
		(struct region){ehdr.e_shoff, ehdr.e_shnum * sizeof(Elf64_Shdr)};
	image = open_seed(seed);
	CHECK(image);
	image_for_each_section(image, name_region, seed);
	find_code(seed, image);
	image_free(image);
	seed_count++;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char *paths = getenv("ALLOCTRACE_FUZZ_SEEDS"), *path;

	(void)argc;
	(void)argv;
	CHECK(paths);
	while ((path = strsep(&paths, ":")) && seed_count < SEEDS_MAX)
		add_seed(path);
	return 0;
}

/* --- damage --- */

struct patch {
	off_t offset;
	size_t size;
	uint8_t before[8];
};

/* False: there is nothing to damage there. */
static bool apply(const struct seed *seed, const uint8_t *bytes, struct patch *patch)
{
	const struct region *region = &seed->regions[bytes[0] % REGIONS];
	size_t width = (size_t)1 << (bytes[1] & 3), index = bytes[1] >> 2;
	uint64_t place = 0, value = bytes[7], end = seed->regions[REGION_FILE].size;

	if (!region->size)
		return false;
	memcpy(&place, bytes + 2, 5);
	if (index < sizeof(interesting) / sizeof(*interesting))
		value = interesting[index];
	patch->offset = (off_t)(region->offset + place % region->size);
	patch->size = width;
	if ((uint64_t)patch->offset + width > end)
		return false;
	CHECK(pread(seed->fd, patch->before, width, patch->offset) == (ssize_t)width);
	CHECK(pwrite(seed->fd, &value, width, patch->offset) == (ssize_t)width);
	return true;
}

static void mend(const struct seed *seed, const struct patch *patch)
{
	CHECK(pwrite(seed->fd, patch->before, patch->size, patch->offset) == (ssize_t)patch->size);
}

/* --- what must hold --- */

static bool is_site(const struct allocator *allocator, uint64_t vaddr)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		if (allocator->functions[i].site == vaddr)
			return true;
	}
	return false;
}

static void check(const struct image *image, const struct allocator *allocator)
{
	CHECK(allocator->function_count <= FUNCTIONS_MAX);
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		uint64_t offset;

		CHECK(function->name && function->shape < SHAPE_COUNT);
		CHECK(function->site - function->vaddr < SITE_MAX);
		CHECK(image_vaddr_to_offset(image, function->site, &offset));
		CHECK(offset == function->site_offset);
		for (size_t j = 0; j < shape_operands(function->shape); j++)
			CHECK(function->registers[j] < 16);
		for (size_t j = 0; j < i; j++)
			CHECK(function->vaddr != allocator->functions[j].vaddr);
	}
	for (size_t i = 0; i < allocator->handovers.count; i++) {
		const struct allocator_handover *handover = &allocator->handovers.items[i];

		CHECK(!i || handover[-1].vaddr < handover->vaddr);
		CHECK(handover->condition <= HANDOVER_ALWAYS);
		CHECK(!is_site(allocator, handover->vaddr));
	}
	for (size_t i = 1; i < allocator->nested_return_count; i++)
		CHECK(allocator->nested_returns[i - 1].vaddr < allocator->nested_returns[i].vaddr);
	vec_for_each(left_out, &allocator->left_out)
		CHECK(left_out->name && left_out->reason);
}

static void look_at(const struct image *image)
{
	static struct family_function functions[] = {
		{.name = "mi_heap_malloc", .shape = SHAPE_MALLOC, .arguments = {1}},
		{.name = "memmove", .shape = SHAPE_REALLOCARRAY, .arguments = {0, 1, 2}},
	};
	const struct allocator_extras extras = {.functions = functions, .function_count = 2};
	struct allocator *allocator;
	struct image *symbols = NULL;

	if (!minidebug_open(image, &symbols) && !allocator_find(image, symbols, NULL, &allocator)) {
		check(image, allocator);
		allocator_free(allocator);
	}
	image_free(symbols);
	if (!allocator_find(image, NULL, &extras, &allocator)) {
		check(image, allocator);
		allocator_free(allocator);
	}
	if (!allocator_find_unwinder(image, &allocator)) {
		check(image, allocator);
		allocator_free(allocator);
	}
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
	image = open_seed(seed);
	if (image)
		look_at(image);
	image_free(image);
	while (count)
		mend(seed, &patches[--count]);
	return 0;
}
