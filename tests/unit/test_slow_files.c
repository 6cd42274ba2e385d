/*
 * Files that are made so that looking for an allocator in them takes for ever: each by one thing of
 * which there may be much, at the size of a real file. No time is measured: without the limit that it
 * runs into, each takes minutes at the least, and most take days.
 */
#include "scratch.h"

#include "binary/allocators.h"

#include <elf.h>
#include <errno.h>

#define CODE_OFFSET 0x1000
#define CODE_VADDR  0x1000

/* Bytes that grow. */
struct bytes {
	uint8_t *items;
	size_t count, capacity;
};

/* Room for n bytes more, and where it is. */
static uint8_t *extend(struct bytes *to, size_t n)
{
	while (to->capacity - to->count < n) {
		to->capacity = to->capacity ? 2 * to->capacity : 4096;
		to->items = realloc(to->items, to->capacity);
		assert_non_null(to->items);
	}
	to->count += n;
	return to->items + to->count - n;
}

static void append(struct bytes *to, const void *from, size_t n)
{
	uint8_t *at = extend(to, n);

	if (n)
		memcpy(at, from, n);
}

/* A library of one segment, which is code, and whatever sections. */
struct library {
	struct bytes code, symbols, strings, relocations;
	/* Section headers beside those of the above, with the symbols' bytes. */
	size_t more_tables;
};

static uint64_t here(const struct library *library)
{
	return CODE_VADDR + library->code.count;
}

static void add_symbol(struct library *library, uint32_t name, int type, uint16_t section,
		       uint64_t vaddr, uint64_t size)
{
	const Elf64_Sym symbol = {
		.st_name = name,
		.st_info = ELF64_ST_INFO(STB_GLOBAL, type),
		.st_shndx = section,
		.st_value = vaddr,
		.st_size = size,
	};

	append(&library->symbols, &symbol, sizeof(symbol));
}

static uint32_t add_name(struct library *library, const char *name)
{
	size_t at = library->strings.count;

	append(&library->strings, name, strlen(name) + 1);
	return (uint32_t)at;
}

static void add_function(struct library *library, const char *name, uint64_t vaddr, uint64_t size)
{
	add_symbol(library, add_name(library, name), STT_FUNC, 1, vaddr, size);
}

/* jmp, or je, from where the code ends. */
static void add_jump(struct library *library, bool conditional, uint64_t target)
{
	const uint8_t opcode[2] = {0x0f, 0x84}, jump = 0xe9;
	size_t length = conditional ? 6 : 5;
	int32_t distance = (int32_t)(target - here(library) - length);

	append(&library->code, conditional ? opcode : &jump, conditional ? 2 : 1);
	append(&library->code, &distance, 4);
}

/* malloc and free, of which each is one ret. */
static void library_init(struct library *library)
{
	const uint8_t ret = 0xc3;

	*library = (struct library){0};
	add_name(library, "");
	add_symbol(library, 0, STT_NOTYPE, SHN_UNDEF, 0, 0);
	add_function(library, "malloc", here(library), 1);
	append(&library->code, &ret, 1);
	add_function(library, "free", here(library), 1);
	append(&library->code, &ret, 1);
}

static void library_deinit(struct library *library)
{
	free(library->code.items);
	free(library->symbols.items);
	free(library->strings.items);
	free(library->relocations.items);
}

enum {
	SECTION_CODE = 1,
	SECTION_SYMBOLS,
	SECTION_STRINGS,
	SECTION_RELOCATIONS,
	SECTION_NAMES,
	SECTIONS,
};

static Elf64_Shdr add_section(struct bytes *file, uint32_t name, uint32_t type,
			      const struct bytes *from)
{
	Elf64_Shdr header = {
		.sh_name = name,
		.sh_type = type,
		.sh_offset = file->count,
		.sh_size = from->count,
		.sh_link = SECTION_STRINGS,
		.sh_entsize = sizeof(Elf64_Sym),
	};

	append(file, from->items, from->count);
	return header;
}

static void library_write(const struct library *library, const char *name)
{
	static const char names[] = "\0.text\0.dynsym\0.dynstr\0.rela.dyn";
	static const uint8_t zeros[CODE_OFFSET];
	const struct bytes names_bytes = {(uint8_t *)names, sizeof(names), 0};
	Elf64_Shdr headers[SECTIONS] = {0};
	struct bytes file = {0};
	Elf64_Phdr segment = {
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X,
		.p_offset = CODE_OFFSET,
		.p_vaddr = CODE_VADDR,
		.p_filesz = library->code.count,
		.p_memsz = library->code.count,
		.p_align = 0x1000,
	};
	Elf64_Ehdr header = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(header),
		.e_ehsize = sizeof(header),
		.e_phentsize = sizeof(segment),
		.e_phnum = 1,
		.e_shentsize = sizeof(*headers),
		.e_shnum = (uint16_t)(SECTIONS + library->more_tables),
		.e_shstrndx = SECTION_NAMES,
	};

	append(&file, zeros, CODE_OFFSET);
	headers[SECTION_CODE] = add_section(&file, 1, SHT_PROGBITS, &library->code);
	headers[SECTION_SYMBOLS] = add_section(&file, 7, SHT_DYNSYM, &library->symbols);
	headers[SECTION_STRINGS] = add_section(&file, 15, SHT_STRTAB, &library->strings);
	headers[SECTION_RELOCATIONS] = add_section(&file, 23, SHT_RELA, &library->relocations);
	headers[SECTION_NAMES] = add_section(&file, 0, SHT_STRTAB, &names_bytes);
	header.e_shoff = file.count;
	append(&file, headers, sizeof(headers));
	for (size_t i = 0; i < library->more_tables; i++)
		append(&file, &headers[SECTION_SYMBOLS], sizeof(*headers));
	memcpy(file.items, &header, sizeof(header));
	memcpy(file.items + sizeof(header), &segment, sizeof(segment));
	write_file(name, file.items, file.count);
	free(file.items);
}

/* To be freed; the library is not needed any more. */
static struct allocator *find_in(struct library *library)
{
	struct allocator *allocator = NULL;
	struct image *image;

	library_write(library, "slow.so");
	library_deinit(library);
	image = open_image("slow.so");
	assert_int_equal(allocator_find(image, NULL, NULL, &allocator), 0);
	assert_true(allocator->function_count >= 2);
	image_free(image);
	return allocator;
}

/* For each of the symbols and relocations one may look for the end of its name. */
static void names_without_an_end(void **state)
{
	const Elf64_Rela relocation = {.r_info = ELF64_R_INFO(3, R_X86_64_GLOB_DAT)};
	struct library library;

	(void)state;
	library_init(&library);
	memset(extend(&library.strings, 16 << 20), 'x', 16 << 20);
	for (uint32_t i = 0; i < 1 << 20; i++) {
		add_symbol(&library, 100 + i, STT_FUNC, SHN_UNDEF, 0, 0);
		append(&library.relocations, &relocation, sizeof(relocation));
	}
	allocator_free(find_in(&library));
}

/* One table of symbols, and thousands of headers that are for it. */
static void many_tables_of_the_same_symbols(void **state)
{
	struct library library;

	(void)state;
	library_init(&library);
	for (size_t i = 0; i < 1 << 20; i++)
		add_symbol(&library, 2, STT_FUNC, 1, CODE_VADDR, 1);
	library.more_tables = 8000;
	allocator_free(find_in(&library));
}

/* Code of this size, all of it conditional jumps to one place, and at last a jump to malloc. */
static void add_jumps(struct library *library, size_t size, uint64_t target)
{
	size_t end = library->code.count + size;

	while (library->code.count + 12 < end)
		add_jump(library, true, target);
	add_jump(library, false, CODE_VADDR);
}

/* What a jump leads to is looked at for each of thousands of jumps, and so are its own jumps. */
static void jumps_to_jumps_to_jumps(void **state)
{
	static const char *const names[] = {"first", "second", "third"};
	struct allocator *allocator;
	struct library library;
	uint64_t target = CODE_VADDR;

	(void)state;
	library_init(&library);
	for (size_t i = 0; i < 4; i++) {
		uint64_t start = here(&library);

		add_jumps(&library, 1 << 16, target);
		add_function(&library, i < 3 ? names[i] : "calloc", start, here(&library) - start);
		target = start;
	}
	allocator = find_in(&library);
	assert_true(allocator->is_partly_known);
	allocator_free(allocator);
}

/* As many functions as are looked at, each as large as one may be, of the same code. */
static void many_large_functions(void **state)
{
	struct allocator *allocator;
	struct library library;
	uint64_t nowhere;
	size_t known = 0;

	(void)state;
	library_init(&library);
	nowhere = here(&library) + (1 << 26);
	add_jumps(&library, 1 << 19, nowhere);
	for (uint64_t i = 0; i < 1000; i++)
		add_function(&library, "calloc", CODE_VADDR + 2 + 6 * i, 1 << 18);
	allocator = find_in(&library);
	/* Their first instruction is one that is emulated, if it is looked at. */
	for (size_t i = 0; i < allocator->function_count; i++)
		known += allocator->functions[i].emulated;
	assert_in_range(known, 1, 100);
	allocator_free(allocator);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_without_an_end),
		cmocka_unit_test(many_tables_of_the_same_symbols),
		cmocka_unit_test(jumps_to_jumps_to_jumps),
		cmocka_unit_test(many_large_functions),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
