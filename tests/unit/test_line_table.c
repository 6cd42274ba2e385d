/* Line tables: programs made by hand, byte by byte. Those of compilers are in test_symbolizer.c. */
#include "scratch.h"

#include "symbol/line_table.h"

#include <dwarf.h>
#include <errno.h>
#include <inttypes.h>

#define BYTES_MAX 4096

/* A section that is being written. */
static struct {
	uint8_t bytes[BYTES_MAX];
	size_t size, length_at, header_at;
	bool wide;
} out;

static void put(const void *data, size_t size)
{
	assert_true(size <= BYTES_MAX - out.size);
	memcpy(out.bytes + out.size, data, size);
	out.size += size;
}

static void put_u8(uint8_t value)
{
	put(&value, 1);
}

static void put_u16(uint16_t value)
{
	put(&value, 2);
}

static void put_u64(uint64_t value)
{
	put(&value, 8);
}

static void put_offset(uint64_t value)
{
	put(&value, out.wide ? 8 : 4);
}

static void put_text(const char *text)
{
	put(text, strlen(text) + 1);
}

static void put_uleb(uint64_t value)
{
	do {
		put_u8((uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0)));
		value >>= 7;
	} while (value);
}

/* The header, up to the tables of folders and files. */
static void begin(uint16_t version, bool wide)
{
	static const uint8_t operands[] = {0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1};

	out.size = 0;
	out.wide = wide;
	if (wide)
		put("\xff\xff\xff\xff", 4);
	out.length_at = out.size;
	put_offset(0);
	put_u16(version);
	if (version == 5)
		put("\x08\0", 2);
	out.header_at = out.size;
	put_offset(0);
	put_u8(1); /* bytes of an instruction */
	if (version >= 4)
		put_u8(1); /* operations of one */
	put_u8(1);
	put_u8((uint8_t)-5); /* line base */
	put_u8(14);	     /* line range */
	put_u8(13);	     /* opcode base */
	put(operands, sizeof(operands));
}

static void end_header(void)
{
	size_t width = out.wide ? 8 : 4;
	uint64_t length = out.size - out.header_at - width;

	memcpy(out.bytes + out.header_at, &length, width);
}

static void end(void)
{
	size_t width = out.wide ? 8 : 4;
	uint64_t length = out.size - out.length_at - width;

	memcpy(out.bytes + out.length_at, &length, width);
}

/* DWARF 4: two folders, three files. */
static void begin_four(void)
{
	begin(4, false);
	put_text("sub");
	put_text("/abs");
	put_u8(0);
	put_text("main.c"), put_uleb(0), put_uleb(0), put_uleb(0);
	put_text("sub.c"), put_uleb(1), put_uleb(0), put_uleb(0);
	put_text("abs.c"), put_uleb(2), put_uleb(0), put_uleb(0);
	put_u8(0);
	end_header();
}

static void go_to(uint64_t address)
{
	put_u8(0), put_uleb(9), put_u8(DW_LNE_set_address), put_u64(address);
}

/* A row at so many bytes behind the last one. */
static void row(uint64_t advance, uint64_t file, int line_change)
{
	put_u8(DW_LNS_advance_pc), put_uleb(advance);
	put_u8(DW_LNS_set_file), put_uleb(file);
	put_u8(DW_LNS_advance_line), put_u8((uint8_t)(line_change & 0x7f));
	put_u8(DW_LNS_copy);
}

static void end_sequence(uint64_t advance)
{
	put_u8(DW_LNS_advance_pc), put_uleb(advance);
	put_u8(0), put_uleb(1), put_u8(DW_LNE_end_sequence);
}

/* On memory of the right size, so that a sanitizer sees what is read beyond it. */
static int read_table(const char *folder, struct line_table **table, void **bytes)
{
	static Elf_Data data;
	struct line_sections sections = {.line = &data};

	*bytes = malloc(out.size ? out.size : 1);
	assert_non_null(*bytes);
	memcpy(*bytes, out.bytes, out.size);
	data = (Elf_Data){.d_buf = *bytes, .d_size = out.size};
	return line_table_new(&sections, 0, folder, table);
}

struct expected {
	uint64_t vaddr;
	uint64_t file; /* 0: no row */
	uint32_t line;
};

static void assert_rows(const struct expected *rows, size_t count)
{
	struct line_table *table;
	void *bytes;

	assert_int_equal(read_table("/build", &table, &bytes), 0);
	for (size_t i = 0; i < count; i++) {
		uint64_t file = 0;
		uint32_t line = 0;
		bool found = line_table_find(table, rows[i].vaddr, &file, &line);

		if (found != (rows[i].file > 0) || file != rows[i].file || line != rows[i].line)
			fail_msg("%#" PRIx64 ": file %" PRIu64 " line %u, but it should be %" PRIu64
				 " %u",
				 rows[i].vaddr, file, line, rows[i].file, rows[i].line);
	}
	line_table_free(table);
	free(bytes);
}

#define ASSERT_ROWS(...)                                                                           \
	do {                                                                                       \
		static const struct expected rows_[] = {__VA_ARGS__};                              \
		assert_rows(rows_, sizeof(rows_) / sizeof(rows_[0]));                              \
	} while (0)

static void a_row_holds_up_to_the_next_or_the_end(void **state)
{
	(void)state;
	begin_four();
	go_to(0x1000);
	row(0, 1, 4);  /* 5 */
	row(4, 2, 2);  /* 7 */
	row(4, 2, 0);  /* says nothing new */
	row(0, 3, 10); /* 17, of several at one address the last */
	row(4, 3, -17);
	end_sequence(4);
	end();
	ASSERT_ROWS({0xfff, 0, 0}, {0x1000, 1, 5}, {0x1003, 1, 5}, {0x1004, 2, 7}, {0x1007, 2, 7},
		    {0x1008, 3, 17}, {0x100b, 3, 17}, {0x100c, 3, 0}, {0x100f, 3, 0},
		    {0x1010, 0, 0}, {0, 0, 0}, {UINT64_MAX, 0, 0});
}

static void rows_do_not_hold_beyond_their_sequence(void **state)
{
	(void)state;
	begin_four();
	/* Sequences in any order, with a hole between; a row of no length where one ends. */
	go_to(0x3000);
	row(0, 3, 29);
	end_sequence(8);
	go_to(0x1000);
	row(0, 1, 9);
	row(16, 2, 70);
	end_sequence(0);
	go_to(0x1020);
	row(0, 1, 19);
	end_sequence(16);
	/* What the linker has thrown away, and a sequence that does not end. */
	go_to(0);
	row(0, 1, 50);
	end_sequence(0x2000);
	go_to(0x4000);
	row(0, 1, 50);
	row(16, 1, 1);
	end();
	ASSERT_ROWS({0x1000, 1, 10}, {0x100f, 1, 10}, {0x1010, 0, 0}, {0x101f, 0, 0},
		    {0x1020, 1, 20}, {0x102f, 1, 20}, {0x1030, 0, 0}, {0x3000, 3, 30},
		    {0x3007, 3, 30}, {0x3008, 0, 0}, {0x800, 0, 0}, {0x4000, 0, 0});
}

static void the_first_of_identical_functions_holds(void **state)
{
	(void)state;
	begin_four();
	for (uint8_t i = 1; i <= 3; i++) {
		go_to(0x1000);
		row(0, i, 9 + i);
		end_sequence(8);
	}
	end();
	ASSERT_ROWS({0x1000, 1, 11}, {0x1007, 1, 11}, {0x1008, 0, 0});
}

static void special_opcodes_advance_both(void **state)
{
	(void)state;
	begin_four();
	go_to(0x1000);
	put_u8(13 + 5 + 3 + 14 * 2); /* line + 3, address + 2 */
	put_u8(DW_LNS_const_add_pc); /* as the highest one: 17 */
	put_u8(13 + 5 - 1);
	put_u8(DW_LNS_fixed_advance_pc), put_u16(0x100);
	put_u8(DW_LNS_copy);
	end_sequence(1);
	end();
	ASSERT_ROWS({0x1001, 0, 0}, {0x1002, 1, 4}, {0x1012, 1, 4}, {0x1013, 1, 3}, {0x1112, 1, 3},
		    {0x1113, 1, 3}, {0x1114, 0, 0});
}

static void assert_paths(const char *folder, const char *const *paths, size_t count)
{
	struct line_table *table;
	void *bytes;

	assert_int_equal(read_table(folder, &table, &bytes), 0);
	for (size_t i = 0; i < count; i++) {
		assert_string_equal(line_table_path(table, i), paths[i]);
		assert_string_equal(line_table_path(table, i), paths[i]);
	}
	assert_string_equal(line_table_path(table, UINT64_MAX), "");
	line_table_free(table);
	free(bytes);
}

static void files_are_counted_from_one_before_dwarf_5(void **state)
{
	static const char *const absolute[] = {"", "/build/main.c", "/build/sub/sub.c",
					       "/abs/abs.c", ""};
	static const char *const unknown[] = {"", "main.c", "sub/sub.c", "/abs/abs.c", ""};
	static const char *const dotted[] = {"", "./lib/main.c", "./lib/sub/sub.c", "/abs/abs.c",
					     ""};

	(void)state;
	begin_four();
	end();
	assert_paths("/build", absolute, 5);
	assert_paths(NULL, unknown, 5);
	assert_paths("./lib", dotted, 5);
}

static void files_are_counted_from_zero_in_dwarf_5(void **state)
{
	static const char *const paths[] = {"/build/main.c", "/build/sub/sub.c", "/root.c",
					    "/build/no_such_folder.c"};

	(void)state;
	for (int wide = 0; wide < 2; wide++) {
		begin(5, wide);
		put_u8(1), put_uleb(DW_LNCT_path), put_uleb(DW_FORM_string);
		put_uleb(2), put_text("/build"), put_text("sub");
		put_u8(3), put_uleb(DW_LNCT_path), put_uleb(DW_FORM_string);
		put_uleb(DW_LNCT_directory_index), put_uleb(DW_FORM_udata);
		put_uleb(DW_LNCT_MD5), put_uleb(DW_FORM_data16);
		put_uleb(4);
		for (size_t i = 0; i < 4; i++) {
			static const char *const names[] = {"main.c", "sub.c", "/root.c",
							    "no_such_folder.c"};

			put_text(names[i]), put_uleb(i == 3 ? 99 : i), put("0123456789abcdef", 16);
		}
		end_header();
		go_to(0x1000);
		row(0, 1, 41);
		end_sequence(1);
		end();
		assert_paths(NULL, paths, 4);
		ASSERT_ROWS({0xfff, 0, 0}, {0x1000, 1, 42}, {0x1001, 0, 0});
	}
}

static void assert_refused(const char *what)
{
	struct line_table *table = NULL;
	void *bytes;

	if (read_table("/build", &table, &bytes) != -EINVAL)
		fail_msg("accepted: %s", what);
	free(bytes);
}

static void what_cannot_be_read_is_refused(void **state)
{
	(void)state;
	out.size = 0;
	assert_refused("nothing");
	for (uint16_t version = 0; version < 9; version++) {
		if (version >= 2 && version <= 5)
			continue;
		begin(version, false);
		put_u8(0), put_u8(0);
		end_header();
		end();
		assert_refused("a version");
	}
	begin_four();
	end();
	out.bytes[14] = 0; /* line range: would be divided by */
	assert_refused("no range of lines");
	begin(5, false);
	put_u8(0), put_uleb(UINT64_MAX); /* folders that take no bytes */
	put_u8(0), put_uleb(UINT64_MAX);
	end_header();
	end();
	assert_refused("folders without a form");
	begin(5, false);
	put_u8(1), put_uleb(DW_LNCT_path), put_uleb(DW_FORM_string), put_uleb(UINT64_MAX);
	put_text("a");
	end_header();
	end();
	assert_refused("more folders than there are bytes");
}

static void what_breaks_off_or_is_damaged_does_no_harm(void **state)
{
	uint8_t whole[BYTES_MAX];
	size_t size, read = 0;
	uint64_t seed = 1;

	(void)state;
	begin_four();
	go_to(0x1000);
	for (uint8_t i = 1; i < 40; i++)
		row(i, i % 5, i);
	end_sequence(9);
	end();
	size = out.size;
	memcpy(whole, out.bytes, size);
	for (int i = 0; i < 20000; i++) {
		struct line_table *table;
		void *bytes;

		memcpy(out.bytes, whole, size);
		out.size = i % 4 ? size : noise(&seed) % size;
		for (uint64_t n = noise(&seed) % 4; n && out.size; n--)
			out.bytes[noise(&seed) % out.size] = (uint8_t)noise(&seed);
		if (read_table("/build", &table, &bytes) == 0) {
			uint64_t file;
			uint32_t line;

			for (uint64_t at = 0xff0; at < 0x1400; at++)
				read += line_table_find(table, at, &file, &line) &&
					*line_table_path(table, file);
			line_table_free(table);
		}
		free(bytes);
	}
	assert_true(read > 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_row_holds_up_to_the_next_or_the_end),
		cmocka_unit_test(rows_do_not_hold_beyond_their_sequence),
		cmocka_unit_test(the_first_of_identical_functions_holds),
		cmocka_unit_test(special_opcodes_advance_both),
		cmocka_unit_test(files_are_counted_from_one_before_dwarf_5),
		cmocka_unit_test(files_are_counted_from_zero_in_dwarf_5),
		cmocka_unit_test(what_cannot_be_read_is_refused),
		cmocka_unit_test(what_breaks_off_or_is_damaged_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
