/* What an ELF file says about its segments, sections and symbols, compared with readelf and
 * objcopy. */
#include "scratch.h"

#include "util/vec.h"

#include <errno.h>

static const char program[] =
	"#include <stdio.h>\n"
	"static __attribute__((noinline)) int twice(int x) { return 2 * x; }\n"
	"int thrice(int x) { return 3 * x; }\n"
	"static int (*pick(void))(int) { return thrice; }\n"
	"int chosen(int) __attribute__((ifunc(\"pick\")));\n"
	"int table[100] = {1};\n"
	"int main(int argc, char **argv)\n"
	"{ (void)argv; printf(\"%d\\n\", twice(argc) + chosen(argc)); return 0; }\n";

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	write_text("program.c", program);
	run("gcc -g -O1 -fPIE -pie -Wl,--build-id=sha1 -o pie program.c");
	run("gcc -g -O1 -no-pie -Wl,--build-id=0xcafe01 -o fixed program.c");
	return 0;
}

static void segments_are_those_of_readelf(void **state)
{
	static const char *const names[] = {"pie", "fixed"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct image *image = open_image(names[i]);
		size_t count = 0;
		char line[512];
		FILE *f;

		run("readelf -lW %s > segments", names[i]);
		f = fopen(in_scratch("segments"), "r");
		assert_non_null(f);
		while (fgets(line, sizeof(line), f)) {
			unsigned long offset, vaddr, paddr, file_size, mem_size;
			char flags[4] = "";

			if (sscanf(line, " LOAD %lx %lx %lx %lx %lx %3[RWE ]", &offset, &vaddr,
				   &paddr, &file_size, &mem_size, flags) != 6)
				continue;
			assert_true(count < image->segment_count);
			assert_int_equal(image->segments[count].offset, offset);
			assert_int_equal(image->segments[count].vaddr, vaddr);
			assert_int_equal(image->segments[count].file_size, file_size);
			assert_int_equal(image->segments[count].mem_size, mem_size);
			assert_int_equal(image->segments[count].executable, flags[2] == 'E');
			count++;
		}
		fclose(f);
		assert_true(count >= 2);
		assert_int_equal(count, image->segment_count);
		assert_int_equal(image->is_exec, i == 1);
		image_free(image);
	}
}

/*
 * A program says where its main is, and from where on its code is mapped; nm says where main was linked
 * to. lld lets segments share pages of the file.
 */
static void a_mapping_tells_what_to_add_to_addresses(void **state)
{
	static const char *const linkers[] = {"", "-no-pie", "-Wl,-z,noseparate-code",
					      "-fuse-ld=gold", "-fuse-ld=lld"};

	(void)state;
	write_text("where.c",
		   "#include <stdio.h>\n"
		   "int main(void) { char line[512]; unsigned long start, end, offset;\n"
		   "FILE *maps = fopen(\"/proc/self/maps\", \"r\");\n"
		   "while (fgets(line, sizeof(line), maps))\n"
		   "if (sscanf(line, \"%lx-%lx r-xp %lx\", &start, &end, &offset) == 3 &&\n"
		   "(unsigned long)main >= start && (unsigned long)main < end)\n"
		   "printf(\"%lx %lx %lx\\n\", start, offset, (unsigned long)main);\n"
		   "return 0; }\n");
	for (size_t i = 0; i < sizeof(linkers) / sizeof(*linkers); i++) {
		unsigned long start, offset, at, linked;
		struct image *image;
		uint64_t bias;
		char *said;
		size_t size;

		run("gcc -O1 %s -o where where.c && ./where > said && nm where | grep ' T main$' "
		    ">> said",
		    linkers[i]);
		said = read_file("said", &size);
		assert_int_equal(sscanf(said, "%lx %lx %lx %lx", &start, &offset, &at, &linked), 4);
		free(said);
		image = open_image("where");
		assert_true(image_bias(image, start, offset, &bias));
		assert_int_equal(bias, at - linked);
		assert_false(image_bias(image, start, image->size + 4096, &bias));
		image_free(image);
	}
}

static void identity_is_that_of_the_file(void **state)
{
	struct image *image = open_image("pie");
	char hex[2 * IMAGE_BUILD_ID_MAX + 1] = "", *notes;
	struct stat st;
	size_t size;

	(void)state;
	assert_int_equal(stat(in_scratch("pie"), &st), 0);
	assert_true(image->dev == st.st_dev && image->inode == st.st_ino);
	assert_int_equal(image->size, st.st_size);
	assert_string_equal(image->path, in_scratch("pie"));
	run("readelf -nW pie > notes");
	notes = read_file("notes", &size);
	for (size_t i = 0; i < image->build_id_len; i++)
		snprintf(hex + 2 * i, 3, "%02x", image->build_id[i]);
	assert_int_equal(image->build_id_len, 20);
	assert_non_null(strstr(notes, hex));
	free(notes);
	image_free(image);
}

static void build_id_is_found_without_its_segment(void **state)
{
	static const uint8_t expected[] = {0xca, 0xfe, 0x01};
	struct image *image = open_image("fixed");
	char *bytes;
	size_t size;
	uint16_t phnum;

	(void)state;
	assert_int_equal(image->build_id_len, 3);
	assert_memory_equal(image->build_id, expected, 3);
	image_free(image);

	/* Turn every PT_NOTE into PT_NULL: the section is left. */
	bytes = read_file("fixed", &size);
	memcpy(&phnum, bytes + 56, 2);
	for (size_t i = 0; i < phnum; i++) {
		if (bytes[64 + i * 56] == PT_NOTE)
			bytes[64 + i * 56] = PT_NULL;
	}
	write_file("noteless", bytes, size);
	free(bytes);
	image = open_image("noteless");
	assert_int_equal(image->build_id_len, 3);
	assert_memory_equal(image->build_id, expected, 3);
	image_free(image);

	run("objcopy --remove-section=.note.gnu.build-id fixed anonymous");
	image = open_image("anonymous");
	assert_int_equal(image->build_id_len, 0);
	image_free(image);
}

static void addresses_and_offsets_lead_to_the_same_bytes(void **state)
{
	struct image *image = open_image("pie");
	uint8_t *text = NULL, read[64];
	uint64_t vaddr, offset, back;
	size_t size, file_size, dumped_size;
	char *dumped, *file;

	(void)state;
	run("objcopy --dump-section .text=text pie copy");
	dumped = read_file("text", &dumped_size);
	file = read_file("pie", &file_size);
	assert_int_equal(image_section(image, ".text", 1 << 20, &text, &size, &vaddr), 0);
	assert_int_equal(size, dumped_size);
	assert_memory_equal(text, dumped, size);
	for (size_t i = 0; i + sizeof(read) <= size; i += 16) {
		assert_int_equal(image_read(image, vaddr + i, read, sizeof(read)), 0);
		assert_memory_equal(read, dumped + i, sizeof(read));
		assert_true(image_vaddr_to_offset(image, vaddr + i, &offset));
		assert_memory_equal(file + offset, read, sizeof(read));
		assert_true(image_offset_to_vaddr(image, offset, &back));
		assert_int_equal(back, vaddr + i);
	}
	free(text);
	free(dumped);
	free(file);
	image_free(image);
}

static void reads_end_with_the_segment(void **state)
{
	struct image *image = open_image("pie");
	uint64_t offset;
	char byte[2];

	(void)state;
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct image_segment *s = &image->segments[i];
		uint64_t last = s->vaddr + s->file_size - 1;

		assert_int_equal(image_read(image, last, byte, 1), 0);
		assert_int_equal(image_read(image, last, byte, 2), -ERANGE);
		assert_int_equal(image_read(image, last, byte, SIZE_MAX), -ERANGE);
		assert_false(image_vaddr_to_offset(image, last + 1, &offset) &&
			     offset == s->offset + s->file_size);
	}
	assert_int_equal(image_read(image, UINT64_MAX, byte, 1), -ERANGE);
	assert_false(image_offset_to_vaddr(image, UINT64_MAX, &offset));
	image_free(image);
}

static void compressed_sections_are_unpacked(void **state)
{
	uint8_t *plain = NULL, *unpacked = NULL;
	struct image *image = open_image("pie"), *packed;
	size_t plain_size, unpacked_size;
	uint64_t vaddr;

	(void)state;
	run("objcopy --compress-debug-sections=zlib pie packed");
	run("readelf -SW packed | grep -q '\\.debug_info.* C '");
	packed = open_image("packed");
	assert_int_equal(image_section(image, ".debug_info", 1 << 20, &plain, &plain_size, &vaddr),
			 0);
	assert_int_equal(
		image_section(packed, ".debug_info", 1 << 20, &unpacked, &unpacked_size, &vaddr),
		0);
	assert_int_equal(plain_size, unpacked_size);
	assert_memory_equal(plain, unpacked, plain_size);
	free(unpacked);
	unpacked = NULL;
	assert_int_equal(image_section(packed, ".debug_info", plain_size - 1, &unpacked,
				       &unpacked_size, &vaddr),
			 -E2BIG);
	assert_int_equal(
		image_section(image, ".no_such", 1 << 20, &unpacked, &unpacked_size, &vaddr),
		-ENOENT);
	assert_int_equal(image_section(image, ".bss", 1 << 20, &unpacked, &unpacked_size, &vaddr),
			 -ENOENT);
	assert_null(unpacked);
	free(plain);
	image_free(packed);
	image_free(image);
}

/* Writes symbols as `readelf -sW` lists them. */
static int print_symbol(const struct image_symbol *symbol, void *context)
{
	static const char *const bindings[] = {"LOCAL", "GLOBAL", "WEAK"};

	assert_true(symbol->binding <= STB_WEAK);
	fprintf(context, "%s %016lx %lu %s %u %s\n", symbol->dynamic ? "dynamic" : "static",
		symbol->vaddr, symbol->size, bindings[symbol->binding], symbol->section,
		symbol->name);
	return 0;
}

static void functions_are_those_of_readelf(void **state)
{
	struct image *image = open_image("pie");
	FILE *f = fopen(in_scratch("functions"), "w");

	(void)state;
	assert_non_null(f);
	assert_int_equal(image_for_each_function(image, print_symbol, f), 0);
	fclose(f);
	run("readelf -sW pie | awk '/\\.dynsym/ {t = \"dynamic\"} /\\.symtab/ {t = \"static\"} "
	    "($4 == \"FUNC\" || $4 == \"IFUNC\") && $7 != \"UND\" "
	    "{sub(/@.*/, \"\", $8); print t, $2, $3, $5, $7, $8}' > expected");
	run("test $(wc -l < expected) -ge 8 && grep -q ' chosen$' expected");
	run("diff expected functions");
	image_free(image);
}

static int stop_at_main(const struct image_symbol *symbol, void *context)
{
	(*(int *)context)++;
	return strcmp(symbol->name, "main") ? 0 : 42;
}

static int find_versioned(const struct image_symbol *symbol, void *context)
{
	assert_null(strchr(symbol->name, '@'));
	if (!symbol->dynamic && !strcmp(symbol->name, "versioned"))
		(*(int *)context)++;
	return 0;
}

static void names_come_without_versions(void **state)
{
	struct image *image = open_image("pie");
	int count = 0;

	(void)state;
	assert_int_equal(image_for_each_function(image, stop_at_main, &count), 42);
	assert_true(count > 0);
	image_free(image);

	write_text("versioned.c", "int f1(void) { return 1; }\nint f2(void) { return 2; }\n"
				  "__asm__(\".symver f1, versioned@V1\");\n"
				  "__asm__(\".symver f2, versioned@@V2\");\n");
	write_text("map", "V1 { global: versioned; };\nV2 { global: versioned; } V1;\n");
	run("gcc -shared -fPIC -Wl,--version-script=map -o versioned.so versioned.c");
	run("nm versioned.so | grep -q 'versioned@@V2'");
	image = open_image("versioned.so");
	count = 0;
	assert_int_equal(image_for_each_function(image, find_versioned, &count), 0);
	assert_int_equal(count, 2);
	image_free(image);
}

/* --- what is not an image --- */

static int open_path(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;
	struct image *image = NULL;

	assert_true(fd >= 0);
	err = image_open(fd, path, &image);
	if (err) {
		assert_null(image);
		assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over, and closed */
	}
	image_free(image);
	return err;
}

/* Opens a copy of `pie` with n bytes at an offset replaced. */
static int open_patched(size_t at, const void *with, size_t n)
{
	size_t size;
	char *bytes = read_file("pie", &size);

	memcpy(bytes + at, with, n);
	write_file("patched", bytes, size);
	free(bytes);
	return open_path(in_scratch("patched"));
}

static void only_regular_elf_files_are_images(void **state)
{
	static const uint8_t one = 1, two = 2;
	static const uint16_t many = 0xffff, core = ET_CORE;

	(void)state;
	run("mkfifo fifo && : > empty && echo '#!/bin/sh' > script");
	assert_int_equal(open_path(scratch), -EINVAL);
	assert_int_equal(open_path(in_scratch("fifo")), -EINVAL);
	assert_int_equal(open_path("/dev/null"), -EINVAL);
	assert_int_equal(open_path(in_scratch("empty")), -ENOEXEC);
	assert_int_equal(open_path(in_scratch("script")), -ENOEXEC);
	assert_int_equal(open_patched(offsetof(Elf64_Ehdr, e_type), &core, 2), -ENOEXEC);
	assert_int_equal(open_patched(EI_CLASS, &one, 1), -ENOEXEC);
	assert_int_equal(open_patched(EI_DATA, &two, 1), -ENOEXEC);
	assert_int_equal(open_patched(offsetof(Elf64_Ehdr, e_phnum), &many, 2), -E2BIG);
	assert_int_equal(open_patched(offsetof(Elf64_Ehdr, e_shnum), &many, 2), -E2BIG);
	assert_int_equal(open_patched(EI_CLASS, &two, 1), 0);
}

static void segments_that_overflow_are_refused(void **state)
{
	uint64_t huge = UINT64_MAX - 16;
	static const size_t fields[] = {
		offsetof(Elf64_Phdr, p_vaddr),
		offsetof(Elf64_Phdr, p_offset),
		offsetof(Elf64_Phdr, p_filesz),
		offsetof(Elf64_Phdr, p_memsz),
	};
	Elf64_Phdr phdrs[32];
	Elf64_Ehdr ehdr;
	size_t size, first = 0;
	char *bytes = read_file("pie", &size);

	(void)state;
	memcpy(&ehdr, bytes, sizeof(ehdr));
	assert_true(ehdr.e_phnum <= 32);
	memcpy(phdrs, bytes + ehdr.e_phoff, ehdr.e_phnum * sizeof(phdrs[0]));
	/* The first one begins at 0, where a huge size does not overflow yet. */
	while (phdrs[first].p_type != PT_LOAD || !phdrs[first].p_vaddr)
		first++;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		assert_int_equal(open_patched(ehdr.e_phoff + first * sizeof(phdrs[0]) + fields[i],
					      &huge, sizeof(huge)),
				 -ENOEXEC);
	/* More in the file than in memory. */
	huge = phdrs[first].p_memsz + 1;
	assert_int_equal(open_patched(ehdr.e_phoff + first * sizeof(phdrs[0]) + fields[2], &huge,
				      sizeof(huge)),
			 -ENOEXEC);
	free(bytes);
}

static void a_file_that_shrinks_fails_the_read(void **state)
{
	struct image *image;
	uint8_t *data = NULL, byte;
	uint64_t vaddr;
	size_t size;

	(void)state;
	run("cp pie shrinking");
	image = open_image("shrinking");
	assert_int_equal(truncate(in_scratch("shrinking"), 100), 0);
	vaddr = image->segments[1].vaddr;
	assert_int_equal(image_read(image, vaddr, &byte, 1), -EIO);
	assert_int_not_equal(image_section(image, ".text", 1 << 20, &data, &size, &vaddr), 0);
	assert_null(data);
	image_free(image);
}

static int count_section(const struct image_section_info *section, void *context)
{
	assert_true(strnlen(section->name, sizeof(section->name)) < sizeof(section->name));
	(*(int *)context)++;
	return 0;
}

static int count_function(const struct image_symbol *symbol, void *context)
{
	*(size_t *)context += strlen(symbol->name);
	return 0;
}

static void damaged_files_do_no_harm(void **state)
{
	size_t size, opened = 0, names = 0;
	char *bytes = read_file("pie", &size);
	int sections = 0;

	(void)state;
	for (unsigned int i = 0; i < 800; i++) {
		struct image *image = NULL;
		uint8_t *data = NULL, read[4096];
		uint64_t vaddr;
		size_t n;

		write_damaged(bytes, size, i);
		if (try_open(in_scratch("broken"), &image))
			continue;
		opened++;
		image_for_each_section(image, count_section, &sections);
		image_for_each_function(image, count_function, &names);
		if (!image_section(image, ".eh_frame", 1 << 20, &data, &n, &vaddr))
			free(data);
		for (size_t s = 0; s < image->segment_count; s++)
			image_read(image, image->segments[s].vaddr, read, sizeof(read));
		image_free(image);
	}
	free(bytes);
	/* Damage that always fails at the door tests nothing behind it. */
	assert_true(opened > 200 && opened < 800);
	assert_true(sections > 0 && names > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(segments_are_those_of_readelf),
		cmocka_unit_test(a_mapping_tells_what_to_add_to_addresses),
		cmocka_unit_test(identity_is_that_of_the_file),
		cmocka_unit_test(build_id_is_found_without_its_segment),
		cmocka_unit_test(addresses_and_offsets_lead_to_the_same_bytes),
		cmocka_unit_test(reads_end_with_the_segment),
		cmocka_unit_test(compressed_sections_are_unpacked),
		cmocka_unit_test(functions_are_those_of_readelf),
		cmocka_unit_test(names_come_without_versions),
		cmocka_unit_test(only_regular_elf_files_are_images),
		cmocka_unit_test(segments_that_overflow_are_refused),
		cmocka_unit_test(a_file_that_shrinks_fails_the_read),
		cmocka_unit_test(damaged_files_do_no_harm),
	};

	return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
