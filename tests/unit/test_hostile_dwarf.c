/*
 * Debug information that is made to take minutes or gigabytes, in small files: it costs a bounded part
 * of that, is told, and functions still have the names of their symbols. What would take for ever here
 * is ended by an alarm, what takes all memory by a limit.
 */
#include "scratch.h"

#include "symbol/symbolizer.h"

#include <elf.h>
#include <sys/resource.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true /* and needs address space without end */
#else
#define SANITIZED false
#endif

#define ADDRESS_SPACE (5ull << 30)
#define SECONDS	      300
#define LEVELS	      8

static int setup(void **state)
{
	struct rlimit limit = {.rlim_cur = ADDRESS_SPACE, .rlim_max = RLIM_INFINITY};

	if (!SANITIZED && setrlimit(RLIMIT_AS, &limit))
		return -1;
	return scratch_setup(state);
}

static uint64_t address_of_f(const char *program)
{
	unsigned long vaddr = 0;
	char *text;
	size_t size;

	run("nm %s | awk '$3 == \"f\" {print $1}' > address", program);
	text = read_file("address", &size);
	assert_int_equal(sscanf(text, "%lx", &vaddr), 1);
	free(text);
	return vaddr;
}

/* The line at f, which has a symbol; its file in *file. */
static uint32_t look_at_f(const char *program, char file[PATH_MAX], struct symbol_source *source)
{
	static const struct symbolizer_options options;
	struct symbolizer *symbolizer = NULL;
	struct symbol_frame frames[LEVELS];
	struct image *image = open_image(program);
	int levels;

	alarm(SECONDS);
	assert_int_equal(symbolizer_new(&options, &symbolizer), 0);
	levels = symbolizer_resolve(symbolizer, image, address_of_f(program), frames, LEVELS);
	assert_int_equal(levels, 1);
	assert_string_equal(frames[0].name, "f");
	snprintf(file, PATH_MAX, "%s", frames[0].file);
	symbolizer_source(symbolizer, image, source);
	symbolizer_free(symbolizer);
	alarm(0);
	image_free(image);
	return frames[0].line;
}

static void assert_limited(const char *program)
{
	struct symbol_source source;
	char file[PATH_MAX];

	assert_int_equal(look_at_f(program, file, &source), 0);
	assert_string_equal(file, "");
	assert_true(source.limited);
	assert_true(source.has_functions);
}

/* It is used, in the memory there is. */
static void assert_bearable(const char *program)
{
	struct symbol_source source;
	char file[PATH_MAX];

	look_at_f(program, file, &source);
	assert_false(source.limited);
}

/* --- programs in assembler --- */

#define CODE                                                                                       \
	".text\n.globl f\n.type f, @function\nf: .skip 16, 0x90\n.size f, . - f\n"                 \
	".section .note.GNU-stack, \"\"\n"
#define ABBREV ".section .debug_abbrev, \"\", @progbits\n"
#define INFO   ".section .debug_info, \"\", @progbits\n"
#define LINE   ".section .debug_line, \"\", @progbits\n"
#define RANGES ".section .debug_ranges, \"\", @progbits\n"
/* Code 1, a compile unit of 16 bytes from f, without children; 0x10: DW_AT_stmt_list. */
#define UNIT_ABBREV                                                                                \
	".uleb128 1, 0x11\n.byte 0\n.uleb128 0x11, 1, 0x12, 7, 0x10, 0x17\n.byte 0, 0\n.byte 0\n"
#define UNIT                                                                                       \
	".Lu: .long .Lue - .Lus\n.Lus: .short 4\n.long 0\n.byte 8\n.uleb128 1\n"                   \
	".quad f, 16\n.long 0\n.Lue:\n"

static void assemble(const char *program, const char *source)
{
	write_text("program.s", source);
	run("gcc -shared -nostdlib -o %s program.s", program);
}

/* So that the others test what they mean to. */
static void a_decent_file_is_used(void **state)
{
	struct symbol_source source;
	char file[PATH_MAX];

	(void)state;
	assemble("decent.so", CODE ABBREV UNIT_ABBREV INFO UNIT LINE
		 "	.long .Le - .Ls\n.Ls: .short 4\n.long .Lp - .Lh\n.Lh: .byte 1, 1, 1, -5, "
		 "14, 13\n"
		 "	.byte 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1\n"
		 "	.asciz \"/folder\"\n.byte 0\n.asciz \"name.c\"\n.uleb128 1, 0, 0\n.byte 0\n"
		 "	.Lp: .byte 0, 9, 2\n.quad f\n.byte 0x15\n.byte 2\n.uleb128 16\n.byte 0, 1, "
		 "1\n.Le:\n");
	assert_int_equal(look_at_f("decent.so", file, &source), 4);
	assert_string_equal(file, "/folder/name.c");
	assert_false(source.limited);
}

static void abbreviations_are_not_read_for_ever(void **state)
{
	(void)state;
	/* Each of the units asks for the last abbreviation of the same table. */
	assemble("abbrevs.so",
		 CODE ABBREV ".set n, 1\n.rept 100000\n.uleb128 n, 0x11\n.byte 0, 0, 0\n"
			     ".set n, n + 1\n.endr\n.byte 0\n" INFO
			     ".rept 50000\n.long 10\n.short 4\n.long 0\n.byte 8\n"
			     ".uleb128 100000\n.endr\n");
	assert_limited("abbrevs.so");
	/* As do units that each have a part of it. */
	assemble("tails.so",
		 CODE ABBREV ".set n, 1000001\n.rept 200000\n.uleb128 n, 0x11\n.byte 0, 0, 0\n"
			     ".set n, n + 1\n.endr\n.byte 0\n" INFO
			     ".set o, 0\n.rept 100000\n.long 8\n.short 4\n"
			     ".long o\n.byte 8, 1\n.set o, o + 6\n.endr\n");
	assert_limited("tails.so");
}

static void attributes_that_take_no_byte_are_not_read_for_ever(void **state)
{
	(void)state;
	/* DIEs of one byte with a million DW_FORM_flag_present each. */
	assemble("flags.so", CODE ABBREV
		 ".uleb128 1, 0x11\n.byte 1\n.uleb128 0x11, 1, 0x12, 7\n.byte 0, 0\n"
		 ".uleb128 2, 0x2e\n.byte 0\n.rept 1000000\n.uleb128 0x3f, 0x19\n.endr\n"
		 ".byte 0, 0, 0\n" INFO ".long .Le - .Ls\n.Ls: .short 4\n.long 0\n.byte 8\n"
		 ".uleb128 1\n.quad f, 16\n.fill 1000000, 1, 2\n.byte 0\n.Le:\n");
	assert_limited("flags.so");
}

/* Up to the file's name, and from there on. */
#define LINE_HEADER                                                                                \
	LINE ".long .Le - .Ls\n.Ls: .short 4\n.long .Lp - .Lh\n.Lh: .byte 1, 1, 1, -5, 14, 13\n"   \
	     ".byte 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1\n"
#define LINE_START ".Lp: .byte 0, 9, 2\n.quad f\n"
#define LINE_END   ".byte 2\n.uleb128 16\n.byte 0, 1, 1\n.Le:\n"

static void rows_of_one_byte_take_no_gigabytes(void **state)
{
	(void)state;
	assemble("rows.so", CODE ABBREV UNIT_ABBREV INFO UNIT LINE_HEADER
		 ".byte 0\n.asciz \"name.c\"\n.uleb128 0, 0, 0\n.byte 0\n" LINE_START
		 ".fill 30000000, 1, 0x15\n" LINE_END);
	assert_bearable("rows.so");
}

static void names_of_folders_are_not_multiplied(void **state)
{
	(void)state;
	/* Each file of 5 bytes begins with a folder of a megabyte. */
	assemble("folders.so", CODE ABBREV UNIT_ABBREV INFO UNIT LINE_HEADER
		 ".fill 1000000, 1, 'x'\n.byte 0, 0\n"
		 ".rept 100000\n.asciz \"a\"\n.uleb128 1, 0, 0\n.endr\n.byte 0\n" LINE_START
		 ".byte 0x15\n" LINE_END);
	assert_bearable("folders.so");
	/* The same of a decent length, with very many files. */
	assemble("files.so", CODE ABBREV UNIT_ABBREV INFO UNIT LINE_HEADER
		 ".fill 4000, 1, 'x'\n.byte 0, 0\n"
		 ".rept 1000000\n.asciz \"a\"\n.uleb128 1, 0, 0\n.endr\n.byte 0\n" LINE_START
		 ".byte 0x15\n" LINE_END);
	assert_bearable("files.so");
}

static void lists_of_ranges_are_not_read_for_ever(void **state)
{
	(void)state;
	/* 300 000 entries that give no range, for each of 300 000 functions. */
	assemble("ranges.so", CODE ABBREV
		 ".uleb128 1, 0x11\n.byte 1\n.uleb128 0x11, 1, 0x12, 7\n.byte 0, 0\n"
		 ".uleb128 2, 0x2e\n.byte 0\n.uleb128 0x55, 0x17\n.byte 0, 0, 0\n" INFO
		 ".long .Le - .Ls\n.Ls: .short 4\n.long 0\n.byte 8\n.uleb128 1\n.quad f, 16\n"
		 ".rept 300000\n.uleb128 2\n.long 0\n.endr\n.byte 0\n.Le:\n" RANGES
		 ".rept 300000\n.quad -1, 0x1000\n.endr\n.quad 0, 0\n");
	assert_limited("ranges.so");
}

static void what_was_packed_to_nothing_is_not_unpacked(void **state)
{
	(void)state;
	assemble("full.so", CODE ABBREV UNIT_ABBREV INFO UNIT
		 ".section .debug_str, \"\", @progbits\n.zero 900000000\n");
	run("objcopy --compress-debug-sections=zlib full.so packed.so && rm full.so");
	assert_limited("packed.so");
}

/* A name that goes on to the section's end, in one that is decompressed to memory without a guard. */
static void a_name_ends_with_its_section(void **state)
{
	struct symbol_source source;
	char file[PATH_MAX];

	(void)state;
	assemble("name.so", CODE ABBREV
		 ".uleb128 1, 0x11\n.byte 1\n.uleb128 0x11, 1, 0x12, 7\n.byte 0, 0\n"
		 ".uleb128 2, 0x2e\n.byte 0\n.uleb128 0x11, 1, 0x12, 7, 3, 8\n.byte 0, 0, 0\n" INFO
		 ".long .Le - .Ls\n.Ls: .short 4\n.long 0\n.byte 8\n.uleb128 1\n.quad f, 16\n"
		 ".uleb128 2\n.quad f, 16\n.fill 4096, 1, 'x'\n.Le:\n");
	run("objcopy --compress-debug-sections=zlib name.so");
	run("readelf -SW name.so | grep debug_info | grep -q ' C '");
	look_at_f("name.so", file, &source);
	assert_false(source.limited);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_decent_file_is_used),
		cmocka_unit_test(abbreviations_are_not_read_for_ever),
		cmocka_unit_test(attributes_that_take_no_byte_are_not_read_for_ever),
		cmocka_unit_test(rows_of_one_byte_take_no_gigabytes),
		cmocka_unit_test(names_of_folders_are_not_multiplied),
		cmocka_unit_test(lists_of_ranges_are_not_read_for_ever),
		cmocka_unit_test(what_was_packed_to_nothing_is_not_unpacked),
		cmocka_unit_test(a_name_ends_with_its_section),
	};

	return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
