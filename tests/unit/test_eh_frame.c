/*
 * Call frame information as read here and as readelf --debug-dump=frames-interp prints it, row by
 * row, for the libraries of this machine and for programs compiled to be awkward; then what no
 * compiler emits, from bytes put together by hand.
 *
 * Differences that are known, and left out of the comparison:
 * - readelf prints no row for an FDE without location changes or rules. Its one row is then the
 * CIE's, but for DW_CFA_undefined of the return address alone, which its other listing shows.
 * - An FDE whose CIE names another return address register (aarch64 libc's _mcount: x15) is skipped
 * here.
 * - "exp" stands for any expression; what is in it is tested by hand below.
 */
#include "cfi_fixture.h"

#include <dwarf.h>
#include <elf.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "binary/eh_frame.h"
#include "util/vec.h"

/* --- what readelf says --- */

struct text_row {
	uint64_t start, end;
	char cfa[24], fp[12], ra[12];
	bool assumed; /* of readelf: not printed, the CIE's */
};

struct text_rows {
	struct text_row *items;
	size_t count, capacity;
};

static void cleanup_rows(struct text_rows *rows)
{
	free(rows->items);
}

/* Columns of the row that readelf is printing. */
struct columns {
	int cfa, fp, ra;
};

#define WORDS_MAX 48

/* A register's cell is "r9 (r9)": the name in parentheses is dropped. */
static int split(char *line, char **words)
{
	int count = 0;

	for (char *word = strtok(line, " \t\n"); word && count < WORDS_MAX;
	     word = strtok(NULL, " \t\n")) {
		if (*word != '(')
			words[count++] = word;
	}
	return count;
}

static void set_columns(char **words, int count, const char *fp_name, struct columns *columns)
{
	*columns = (struct columns){-1, -1, -1};
	for (int i = 0; i < count; i++) {
		if (!strcmp(words[i], "CFA"))
			columns->cfa = i;
		else if (!strcmp(words[i], fp_name))
			columns->fp = i;
		else if (!strcmp(words[i], "ra"))
			columns->ra = i;
	}
}

static void copy_cell(char *to, size_t size, char **words, int count, int column)
{
	snprintf(to, size, "%s", column >= 0 && column < count ? words[column] : "u");
}

static void fill_cells(struct text_row *row, char **words, int count, const struct columns *columns)
{
	copy_cell(row->cfa, sizeof(row->cfa), words, count, columns->cfa);
	copy_cell(row->fp, sizeof(row->fp), words, count, columns->fp);
	copy_cell(row->ra, sizeof(row->ra), words, count, columns->ra);
}

/* The state of reading one listing. */
struct listing {
	struct text_rows *rows;
	const char *fp_name;
	const char *ra_register; /* "ra=16": FDEs of other CIEs are left out */
	struct {
		unsigned long long offset;
		struct text_row row;
		bool other_ra;
	} cies[64];
	size_t cie_count, cie;
	struct columns columns;
	bool in_fde, in_cie, skip;
	size_t first; /* of the current FDE's rows */
	uint64_t start, end;
};

/* The FDE's last row reaches to its end; without any, the CIE's row is what holds. */
static void end_fde(struct listing *l)
{
	struct text_rows *rows = l->rows;

	if (!l->in_fde || l->skip)
		return;
	if (rows->count == l->first && l->start < l->end) {
		struct text_row row = l->cies[l->cie].row;

		row.start = l->start;
		row.assumed = true;
		assert_int_equal(vec_push(rows, row), 0);
	}
	if (rows->count > l->first)
		rows->items[rows->count - 1].end = l->end;
}

static void begin_record(struct listing *l, char **words, int count)
{
	end_fde(l);
	l->in_fde = l->in_cie = false;
	if (!strcmp(words[3], "CIE")) {
		assert_true(l->cie_count < 64);
		l->cie = l->cie_count++;
		l->cies[l->cie].offset = strtoull(words[0], NULL, 16);
		l->cies[l->cie].other_ra = strcmp(words[count - 1], l->ra_register) != 0;
		l->in_cie = true;
		return;
	}
	l->in_fde = true;
	l->first = l->rows->count;
	assert_int_equal(sscanf(words[count - 1], "pc=%" SCNx64 "..%" SCNx64, &l->start, &l->end),
			 2);
	/* From the last one on: a second section counts its offsets from 0 again. */
	for (l->cie = l->cie_count; l->cie-- > 0;) {
		if (l->cies[l->cie].offset == strtoull(words[count - 2] + 4, NULL, 16))
			break;
	}
	assert_true(l->cie < l->cie_count);
	l->skip = l->cies[l->cie].other_ra || l->start == l->end;
}

static void add_row(struct listing *l, char **words, int count)
{
	struct text_rows *rows = l->rows;
	struct text_row row = {.start = strtoull(words[0], NULL, 16)};

	fill_cells(&row, words, count, &l->columns);
	if (l->in_cie)
		l->cies[l->cie].row = row;
	if (!l->in_fde || l->skip || row.start >= l->end)
		return;
	if (rows->count > l->first) {
		/* An advance by 0, or the row is printed again at the end: the last one holds. */
		if (rows->items[rows->count - 1].start == row.start)
			rows->count--;
		else
			rows->items[rows->count - 1].end = row.start;
	}
	assert_int_equal(vec_push(rows, row), 0);
}

static int compare_rows(const void *left, const void *right)
{
	const struct text_row *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

static void rows_of_readelf(const char *path, uint16_t machine, struct text_rows *rows)
{
	struct listing l = {.rows = rows,
			    .fp_name = machine == EM_X86_64 ? "rbp" : "x29",
			    .ra_register = machine == EM_X86_64 ? "ra=16" : "ra=30"};
	char command[512], line[1024], *words[WORDS_MAX];
	FILE *readelf;

	snprintf(command, sizeof(command), "readelf --debug-dump=frames-interp -W %s 2>/dev/null",
		 path);
	readelf = popen(command, "r");
	assert_non_null(readelf);
	while (fgets(line, sizeof(line), readelf)) {
		int count = split(line, words);

		if (count >= 4 && (!strcmp(words[3], "CIE") || !strcmp(words[3], "FDE")))
			begin_record(&l, words, count);
		else if (count >= 2 && !strcmp(words[0], "LOC"))
			set_columns(words, count, l.fp_name, &l.columns);
		else if (count >= 2 && strlen(words[0]) == 16 && (l.in_fde || l.in_cie))
			add_row(&l, words, count);
	}
	end_fde(&l);
	pclose(readelf); /* fails where a separate debug file is missing, which is of no interest */
	qsort(rows->items, rows->count, sizeof(*rows->items), compare_rows);
}

/* --- what is read here --- */

static const char *register_name(uint16_t machine, uint8_t reg)
{
	static const char *const x86[] = {"rax", "rdx", "rcx", "rbx", "rsi", "rdi",
					  "rbp", "rsp", "r8",  "r9",  "r10", "r11",
					  "r12", "r13", "r14", "r15", "rip"};
	static char other[8];

	if (machine == EM_X86_64 && reg < sizeof(x86) / sizeof(*x86))
		return x86[reg];
	if (machine == EM_AARCH64 && reg == 31)
		return "sp";
	snprintf(other, sizeof(other), "x%u", reg);
	return other;
}

static void place_text(const struct cfi_place *place, char *to, size_t size)
{
	static const char *const fixed[] = {
		[CFI_UNSPECIFIED] = "u",     [CFI_UNDEFINED] = "u",	   [CFI_SAME] = "s",
		[CFI_AT_EXPRESSION] = "exp", [CFI_IS_EXPRESSION] = "vexp",
	};

	if (place->where == CFI_AT_CFA)
		snprintf(to, size, "c%+d", place->off);
	else if (place->where == CFI_IS_CFA)
		snprintf(to, size, "v%+d", place->off);
	else if (place->where == CFI_IN_REG)
		snprintf(to, size, "r%u", place->reg);
	else
		snprintf(to, size, "%s", fixed[place->where]);
}

struct collect {
	struct text_rows *rows;
	uint16_t machine;
};

static int collect_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *user)
{
	struct collect *c = user;
	struct text_row text = {.start = start, .end = end, .cfa = "exp"};

	if (row->cfa_kind == CFI_CFA_REG)
		snprintf(text.cfa, sizeof(text.cfa), "%s%+d",
			 register_name(c->machine, row->cfa_reg), row->cfa_off);
	place_text(&row->fp, text.fp, sizeof(text.fp));
	place_text(&row->ra, text.ra, sizeof(text.ra));
	return vec_push(c->rows, text);
}

static void rows_read_here(const struct image *image, struct text_rows *rows)
{
	struct collect collect = {.rows = rows, .machine = image->machine};
	struct eh_frame *frame;

	assert_int_equal(eh_frame_open(image, &frame), 0);
	assert_int_equal(eh_frame_for_each_row(frame, collect_row, &collect), 0);
	eh_frame_free(frame);
}

/* --- the comparison
 * ------------------------------------------------------------------------------- */

struct undefined_ras {
	uint64_t *items;
	size_t count, capacity;
};

/* Starts of the FDEs that say DW_CFA_undefined of the return address, from the raw listing. */
static void find_undefined_ras(const char *path, struct undefined_ras *starts)
{
	char command[512], line[1024];
	uint64_t start = 0;
	FILE *readelf;

	snprintf(command, sizeof(command), "readelf --debug-dump=frames -W %s 2>/dev/null", path);
	readelf = popen(command, "r");
	assert_non_null(readelf);
	while (fgets(line, sizeof(line), readelf)) {
		const char *range = strstr(line, " pc=");

		if (range)
			start = strtoull(range + 4, NULL, 16);
		else if (strstr(line, "DW_CFA_undefined: r16 ") ||
			 strstr(line, "DW_CFA_undefined: r30 "))
			assert_int_equal(vec_push(starts, start), 0);
	}
	pclose(readelf);
}

static bool is_one_of(const struct undefined_ras *starts, uint64_t start)
{
	for (size_t i = 0; i < starts->count; i++) {
		if (starts->items[i] == start)
			return true;
	}
	return false;
}

static size_t compare_listings(const struct text_rows *want, const struct text_rows *got,
			       const struct undefined_ras *undefined)
{
	size_t differences = want->count != got->count;

	for (size_t i = 0; i < want->count && i < got->count; i++) {
		const struct text_row *w = &want->items[i], *g = &got->items[i];
		const char *ra = w->assumed && is_one_of(undefined, w->start) ? "u" : w->ra;

		if (w->start == g->start && w->end == g->end && !strcmp(w->cfa, g->cfa) &&
		    !strcmp(w->fp, g->fp) && !strcmp(ra, g->ra))
			continue;
		if (differences++ < 5)
			print_error("readelf: %" PRIx64 "-%" PRIx64 " %s %s %s; here: %" PRIx64
				    "-%" PRIx64 " %s %s %s\n",
				    w->start, w->end, w->cfa, w->fp, ra, g->start, g->end, g->cfa,
				    g->fp, g->ra);
	}
	return differences;
}

static void compare_with_readelf(const char *path)
{
	CLEANUP(cleanup_image) struct image *image = path ? open_path(path) : NULL;
	CLEANUP(cleanup_rows) struct text_rows want = {0}, got = {0};
	struct undefined_ras undefined = {0};

	if (!image)
		skip();
	rows_of_readelf(path, image->machine, &want);
	find_undefined_ras(path, &undefined);
	rows_read_here(image, &got);
	assert_true(want.count > 0);
	print_message("%s: %zu rows of readelf, %zu here\n", path, want.count, got.count);
	assert_int_equal(compare_listings(&want, &got, &undefined), 0);
	free(undefined.items);
}

static void libc_reads_as_readelf_reads_it(void **state)
{
	(void)state;
	compare_with_readelf(libc_path());
}

static void libstdcxx_reads_as_readelf_reads_it(void **state)
{
	(void)state;
	compare_with_readelf(libstdcxx_path());
}

static void python_reads_as_readelf_reads_it(void **state)
{
	(void)state;
	compare_with_readelf(python_path());
}

static void aarch64_libc_reads_as_readelf_reads_it(void **state)
{
	(void)state;
	compare_with_readelf(aarch64_libc_path());
}

/* Whatever else is here, for its assembly: node's OpenSSL has expressions by the dozen. */
static void further_programs_read_as_readelf_reads_them(void **state)
{
	static const char *const paths[] = {"/lib64/ld-linux-x86-64.so.2", "/usr/bin/node",
					    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
					    "/usr/lib/x86_64-linux-gnu/libgmp.so.10"};
	const char *also = getenv("EH_FRAME_ALSO");

	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		if (access(paths[i], R_OK) == 0)
			compare_with_readelf(paths[i]);
	}
	if (also)
		compare_with_readelf(also);
}

static void compiled_frames_read_as_readelf_reads_them(void **state)
{
	static const char *const flags[] = {"-O2 -fomit-frame-pointer", "-O0", "-Os -mavx512f",
					    "-O2 -mavx2 -fno-pie -no-pie -Wl,-z,lazy",
					    "-O2 -fcf-protection=full -static"};
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		compile("frames.c", source_frames, flags[i], path, sizeof(path));
		compare_with_readelf(path);
	}
}

static void assembly_reads_as_readelf_reads_it(void **state)
{
	char path[128];

	(void)state;
	compile("asm.s", source_asm, "", path, sizeof(path));
	compare_with_readelf(path);
}

static void debug_frame_alone_is_enough(void **state)
{
	CLEANUP(cleanup_rows) struct text_rows got = {0};
	char path[128];
	size_t before;

	(void)state;
	compile("frames.c", source_frames,
		"-O2 -g -fno-asynchronous-unwind-tables -fno-unwind-tables", path, sizeof(path));
	{
		CLEANUP(cleanup_image) struct image *image = open_path(path);
		uint64_t plain = label(path, "plain");
		bool found = false;

		rows_read_here(image, &got);
		vec_for_each(row, &got)
			found |= row->start == plain;
		assert_true(found);
	}
	/* crt1.o has an .eh_frame nevertheless: both are read, as readelf lists both. */
	before = got.count;
	assert_true(before > 3);
	compare_with_readelf(path);
}

/* A copy of libc whose header says that there are no sections. */
static void without_sections_the_header_finds_the_same_rows(void **state)
{
	CLEANUP(cleanup_rows) struct text_rows want = {0}, got = {0};
	const char *path = libc_path();
	char copy[128];
	Elf64_Ehdr header;
	int fd;

	(void)state;
	if (!path)
		skip();
	snprintf(copy, sizeof(copy), "%s/libc", scratch);
	assert_true(run("cp -L %s %s && chmod u+w %s", path, copy, copy));
	fd = open(copy, O_RDWR);
	assert_int_equal(pread(fd, &header, sizeof(header), 0), sizeof(header));
	header.e_shoff = 0;
	header.e_shnum = header.e_shstrndx = 0;
	assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
	close(fd);
	{
		CLEANUP(cleanup_image) struct image *whole = open_path(path);
		CLEANUP(cleanup_image) struct image *bare = open_path(copy);
		struct undefined_ras none = {0};

		rows_read_here(whole, &want);
		rows_read_here(bare, &got);
		assert_true(want.count > 1000);
		assert_int_equal(compare_listings(&want, &got, &none), 0);
	}
}

/* --- by hand
 * ---------------------------------------------------------------------------------------- */

#define SECTION_VADDR 0x100000
#define TEXT_START    0x1000
#define TEXT_END      0x9000

struct bytes {
	uint8_t data[4096];
	size_t size;
};

static void put(struct bytes *b, const void *data, size_t size)
{
	assert_true(size <= sizeof(b->data) - b->size);
	if (size)
		memcpy(b->data + b->size, data, size);
	b->size += size;
}

static void put_u8(struct bytes *b, uint8_t value)
{
	put(b, &value, sizeof(value));
}

static void put_u32(struct bytes *b, uint32_t value)
{
	put(b, &value, sizeof(value));
}

static void put_u64(struct bytes *b, uint64_t value)
{
	put(b, &value, sizeof(value));
}

/* Writes the length of the record that began at `from`. */
static void end_record(struct bytes *b, size_t from)
{
	uint32_t length = (uint32_t)(b->size - from - 4);

	memcpy(b->data + from, &length, sizeof(length));
}

#define OPS(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

/* A CIE with augmentation "zR": code 1, data -8, and on x86-64 rsp+8, ra at CFA-8. */
static size_t put_cie(struct bytes *b, uint16_t machine, uint8_t encoding)
{
	size_t from = b->size;
	bool x86 = machine == EM_X86_64;

	put_u32(b, 0);
	put_u32(b, 0);
	put(b, "\1zR", 4);
	put_u8(b, x86 ? 1 : 4);
	put_u8(b, 0x78);
	put_u8(b, x86 ? 16 : 30);
	put_u8(b, 1);
	put_u8(b, encoding);
	if (x86)
		put(b, OPS(DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1));
	else
		put(b, OPS(DW_CFA_def_cfa, 31, 0));
	end_record(b, from);
	return from;
}

static void put_pointer(struct bytes *b, uint8_t encoding, uint64_t value)
{
	static const uint8_t sizes[16] = {8, 0, 2, 4, 8, 0, 0, 0, 8, 0, 2, 4, 8};

	put(b, &value, sizes[encoding & 0x0f]);
}

static void put_fde(struct bytes *b, size_t cie, uint8_t encoding, uint64_t start, uint64_t length,
		    const uint8_t *ops, size_t size)
{
	size_t from = b->size;
	uint64_t base = 0;

	put_u32(b, 0);
	put_u32(b, (uint32_t)(b->size - cie));
	if ((encoding & 0x70) == DW_EH_PE_pcrel)
		base = SECTION_VADDR + b->size;
	else if ((encoding & 0x70) == DW_EH_PE_datarel)
		base = SECTION_VADDR;
	put_pointer(b, encoding, start - base);
	put_pointer(b, encoding, length);
	put_u8(b, 0);
	put(b, ops, size);
	end_record(b, from);
}

struct seen {
	struct cfi_row rows[32];
	uint64_t start[32], end[32];
	size_t count;
	struct eh_frame_stats stats;
};

static int see_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *user)
{
	struct seen *seen = user;

	assert_true(start < end);
	assert_true(seen->count < 32);
	seen->rows[seen->count] = *row;
	seen->start[seen->count] = start;
	seen->end[seen->count++] = end;
	return 0;
}

static void see_section(const struct bytes *b, uint16_t machine, bool debug_frame,
			struct seen *seen)
{
	struct eh_frame_section section = {.data = b->data,
					   .size = b->size,
					   .vaddr = SECTION_VADDR,
					   .data_rel = SECTION_VADDR,
					   .debug_frame = debug_frame};
	struct eh_frame_range text = {TEXT_START, TEXT_END};
	struct eh_frame *frame;

	*seen = (struct seen){0};
	assert_int_equal(eh_frame_new(&section, 1, machine, &text, 1, &frame), 0);
	assert_int_equal(eh_frame_for_each_row(frame, see_row, seen), 0);
	seen->stats = *eh_frame_stats(frame);
	eh_frame_free(frame);
}

/* One FDE [0x2000, 0x2100) of these instructions. */
static void see_ops(uint16_t machine, const uint8_t *ops, size_t size, struct seen *seen)
{
	struct bytes b = {0};
	size_t cie = put_cie(&b, machine, DW_EH_PE_pcrel | DW_EH_PE_sdata4);

	put_fde(&b, cie, DW_EH_PE_pcrel | DW_EH_PE_sdata4, 0x2000, 0x100, ops, size);
	see_section(&b, machine, false, seen);
}

static void every_pointer_encoding_is_read(void **state)
{
	static const uint8_t encodings[] = {
		DW_EH_PE_absptr,
		DW_EH_PE_udata2,
		DW_EH_PE_udata4,
		DW_EH_PE_udata8,
		DW_EH_PE_sdata2,
		DW_EH_PE_sdata4,
		DW_EH_PE_sdata8,
		DW_EH_PE_pcrel | DW_EH_PE_absptr,
		DW_EH_PE_pcrel | DW_EH_PE_sdata4,
		DW_EH_PE_pcrel | DW_EH_PE_sdata8,
		DW_EH_PE_datarel | DW_EH_PE_sdata4,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(encodings); i++) {
		struct bytes b = {0};
		struct seen seen;
		size_t cie = put_cie(&b, EM_X86_64, encodings[i]);

		put_fde(&b, cie, encodings[i], 0x2000, 0x100, NULL, 0);
		see_section(&b, EM_X86_64, false, &seen);
		assert_int_equal(seen.count, 1);
		assert_int_equal(seen.start[0], 0x2000);
		assert_int_equal(seen.end[0], 0x2100);
	}
}

static void pointers_that_a_file_cannot_hold_are_skipped(void **state)
{
	static const uint8_t encodings[] = {DW_EH_PE_omit, DW_EH_PE_indirect | DW_EH_PE_pcrel,
					    DW_EH_PE_aligned, DW_EH_PE_funcrel, 0x07};

	(void)state;
	for (size_t i = 0; i < sizeof(encodings); i++) {
		struct bytes b = {0};
		struct seen seen;
		size_t cie = put_cie(&b, EM_X86_64, encodings[i]);

		put_fde(&b, cie, DW_EH_PE_udata8, 0x2000, 0x100, NULL, 0);
		see_section(&b, EM_X86_64, false, &seen);
		assert_int_equal(seen.count, 0);
		assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_RANGE], 1);
	}
}

static void augmentations_are_understood(void **state)
{
	struct bytes b = {0};
	struct seen seen;
	size_t from;

	(void)state;
	/* "zPLRSB": personality (indirect pcrel, 4 bytes), LSDA, range encoding, signal, B key */
	put_u32(&b, 0);
	put_u32(&b, 0);
	put(&b, "\1zPLRSB", 8);
	put(&b, OPS(1, 0x78, 16, 7, 0x9b, 1, 2, 3, 4, 0x1b, DW_EH_PE_udata8));
	put(&b, OPS(DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1));
	end_record(&b, 0);
	/* An FDE with 4 bytes of augmentation data */
	from = b.size;
	put_u32(&b, 0);
	put_u32(&b, (uint32_t)b.size);
	put_u64(&b, 0x2000);
	put_u64(&b, 0x100);
	put(&b, OPS(4, 0xff, 0xff, 0xff, 0xff, DW_CFA_def_cfa_offset, 16));
	end_record(&b, from);
	see_section(&b, EM_X86_64, false, &seen);
	assert_int_equal(seen.count, 1);
	assert_true(seen.rows[0].signal);
	assert_int_equal(seen.rows[0].cfa_off, 16);
}

static void an_unknown_augmentation_costs_its_own_fdes_only(void **state)
{
	struct bytes b = {0};
	struct seen seen;
	size_t bad = put_cie(&b, EM_X86_64, DW_EH_PE_udata8), good;

	(void)state;
	b.data[bad + 10] = 'Q'; /* length, id, version, 'z', then this */
	good = put_cie(&b, EM_X86_64, DW_EH_PE_udata8);
	put_fde(&b, bad, DW_EH_PE_udata8, 0x2000, 0x100, NULL, 0);
	put_fde(&b, good, DW_EH_PE_udata8, 0x3000, 0x100, NULL, 0);
	see_section(&b, EM_X86_64, false, &seen);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.start[0], 0x3000);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_CIE], 1);
}

static void debug_frame_is_read_in_32_and_64_bits(void **state)
{
	(void)state;
	for (int wide = 0; wide < 2; wide++) {
		struct bytes b = {0};
		struct seen seen;

		/* The FDE comes first: .debug_frame may refer forward. */
		size_t fde_size = wide ? 12 + 8 + 16 : 4 + 4 + 16;

		if (wide)
			put_u32(&b, UINT32_MAX), put_u64(&b, 24), put_u64(&b, fde_size);
		else
			put_u32(&b, 20), put_u32(&b, (uint32_t)fde_size);
		put_u64(&b, 0x2000);
		put_u64(&b, 0x40);
		assert_int_equal(b.size, fde_size);
		if (wide)
			put_u32(&b, UINT32_MAX), put_u64(&b, 8 + 12), put_u64(&b, UINT64_MAX);
		else
			put_u32(&b, 4 + 12), put_u32(&b, UINT32_MAX);
		/* version 4, no augmentation, 8-byte addresses, no segments, 1, -8, 16, then ops */
		put(&b, OPS(4, 0, 8, 0, 1, 0x78, 16, DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1));
		see_section(&b, EM_X86_64, true, &seen);
		assert_int_equal(seen.count, 1);
		assert_int_equal(seen.end[0], 0x2040);
		assert_int_equal(seen.rows[0].cfa_off, 8);
	}
}

static void instructions_do_what_dwarf_says(void **state)
{
	struct seen seen;

	(void)state;
	see_ops(EM_X86_64,
		OPS(DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset, 16, DW_CFA_offset | 6, 2,
		    DW_CFA_advance_loc1, 2, DW_CFA_def_cfa_register, 6, DW_CFA_remember_state,
		    DW_CFA_advance_loc2, 16, 0, DW_CFA_def_cfa, 7, 8, DW_CFA_restore | 6,
		    DW_CFA_advance_loc4, 1, 0, 0, 0, DW_CFA_restore_state, DW_CFA_GNU_args_size, 16,
		    DW_CFA_advance_loc | 1, DW_CFA_def_cfa_sf, 7, 0x7e, DW_CFA_offset_extended_sf,
		    6, 0x7f, DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset_sf, 0x7d,
		    DW_CFA_same_value, 6, DW_CFA_advance_loc | 1, DW_CFA_undefined, 6,
		    DW_CFA_register, 16, 3),
		&seen);
	assert_int_equal(seen.count, 8);
	assert_int_equal(seen.rows[0].cfa_off, 8);
	assert_int_equal(seen.rows[0].fp.where, CFI_UNSPECIFIED);
	assert_int_equal(seen.rows[0].ra.where, CFI_AT_CFA);
	assert_int_equal(seen.rows[0].ra.off, -8);
	assert_int_equal(seen.rows[1].cfa_off, 16);
	assert_int_equal(seen.rows[1].fp.off, -16);
	assert_int_equal(seen.rows[2].cfa_reg, 6);
	assert_int_equal(seen.start[3], 0x2000 + 1 + 2 + 16);
	assert_int_equal(seen.rows[3].cfa_reg, 7);
	assert_int_equal(seen.rows[3].fp.where, CFI_UNSPECIFIED);
	assert_int_equal(seen.rows[4].cfa_reg, 6);
	assert_int_equal(seen.rows[4].fp.where, CFI_AT_CFA);
	assert_int_equal(seen.rows[5].cfa_off, 16);
	assert_int_equal(seen.rows[5].fp.off, 8);
	assert_int_equal(seen.rows[6].cfa_off, 24);
	assert_int_equal(seen.rows[6].fp.where, CFI_SAME);
	assert_int_equal(seen.rows[7].fp.where, CFI_UNDEFINED);
	assert_int_equal(seen.rows[7].ra.where, CFI_IN_REG);
	assert_int_equal(seen.end[7], 0x2100);
}

static void expressions_are_told_apart(void **state)
{
	struct seen seen;

	(void)state;
	see_ops(EM_X86_64,
		OPS(DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref, DW_CFA_expression,
		    6, 2, DW_OP_breg6, 0, DW_CFA_advance_loc | 1, DW_CFA_def_cfa_expression, 5,
		    DW_OP_breg7, 40, DW_OP_deref, DW_OP_plus_uconst, 8, DW_CFA_advance_loc | 1,
		    DW_CFA_def_cfa_expression, 11, DW_OP_breg7, 8, DW_OP_breg16, 0, DW_OP_lit15,
		    DW_OP_and, DW_OP_lit11, DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus,
		    DW_CFA_advance_loc | 1, DW_CFA_def_cfa_expression, 2, DW_OP_lit3, DW_OP_deref,
		    DW_CFA_val_expression, 7, 1, DW_OP_lit3),
		&seen);
	assert_int_equal(seen.count, 4);
	assert_int_equal(seen.rows[0].cfa_kind, CFI_CFA_DEREF);
	assert_int_equal(seen.rows[0].cfa_reg, 6);
	assert_int_equal(seen.rows[0].cfa_off, -8);
	assert_int_equal(seen.rows[0].fp.where, CFI_AT_EXPRESSION);
	assert_int_equal(seen.rows[0].fp.reg, 6);
	assert_int_equal(seen.rows[1].cfa_kind, CFI_CFA_DEREF);
	assert_int_equal(seen.rows[1].cfa_off, 40);
	assert_int_equal(seen.rows[1].cfa_add, 8);
	assert_int_equal(seen.rows[2].cfa_kind, CFI_CFA_PLT);
	assert_int_equal(seen.rows[2].cfa_off, 8);
	assert_int_equal(seen.rows[2].cfa_add, 11);
	assert_int_equal(seen.rows[3].cfa_kind, CFI_CFA_UNKNOWN);
	assert_true(seen.rows[3].sp_ruled);
}

static void aarch64_frames_and_signed_addresses_are_read(void **state)
{
	struct seen seen;

	(void)state;
	/* paciasp; stp x29, x30, [sp, -32]!; ... ldp; autiasp */
	see_ops(EM_AARCH64,
		OPS(DW_CFA_advance_loc | 1, DW_CFA_GNU_window_save, DW_CFA_advance_loc | 1,
		    DW_CFA_def_cfa_offset, 32, DW_CFA_offset | 29, 4, DW_CFA_offset | 30, 3,
		    DW_CFA_advance_loc | 4, DW_CFA_restore | 30, DW_CFA_restore | 29,
		    DW_CFA_def_cfa_offset, 0, DW_CFA_advance_loc | 1, DW_CFA_GNU_window_save),
		&seen);
	assert_int_equal(seen.count, 5);
	assert_int_equal(seen.rows[0].cfa_reg, 31);
	assert_int_equal(seen.rows[0].ra.where, CFI_UNSPECIFIED);
	assert_int_equal(seen.start[2], 0x2008);
	assert_int_equal(seen.rows[2].ra.off, -24);
	assert_int_equal(seen.rows[2].fp.off, -32);
	assert_int_equal(seen.rows[4].ra.where, CFI_UNSPECIFIED);
	/* The same opcode is SPARC's on x86-64, where it has no business. */
	see_ops(EM_X86_64, OPS(DW_CFA_GNU_window_save), &seen);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_INSTRUCTION], 1);
}

static void broken_instructions_end_their_fde_only(void **state)
{
	uint8_t nested[CFI_REMEMBER_MAX + 1];
	struct seen seen;

	(void)state;
	memset(nested, DW_CFA_remember_state, sizeof(nested));
	see_ops(EM_X86_64, nested, sizeof(nested) - 1, &seen);
	assert_int_equal(seen.count, 1);
	see_ops(EM_X86_64, nested, sizeof(nested), &seen);
	assert_int_equal(seen.count, 0);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_INSTRUCTION], 1);
	/* What came before the broken one stands. */
	see_ops(EM_X86_64, OPS(DW_CFA_advance_loc | 4, DW_CFA_restore_state), &seen);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.end[0], 0x2004);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_INSTRUCTION], 1);
	see_ops(EM_X86_64, OPS(0x3e), &seen);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_INSTRUCTION], 1);
	/* An operand that runs out of the record */
	see_ops(EM_X86_64, OPS(DW_CFA_advance_loc4, 1, 0), &seen);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_INSTRUCTION], 1);
	see_ops(EM_X86_64, OPS(DW_CFA_def_cfa_expression, 200, DW_OP_breg7), &seen);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_INSTRUCTION], 1);
	/* A location past the end ends the program without harm. */
	see_ops(EM_X86_64, OPS(DW_CFA_advance_loc2, 0xff, 0xff, DW_CFA_restore_state), &seen);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.end[0], 0x2100);
}

static void overlapping_fdes_follow_the_stated_order(void **state)
{
	const uint8_t enc = DW_EH_PE_udata8;
	struct bytes b = {0};
	struct seen seen;
	size_t cie = put_cie(&b, EM_X86_64, enc);

	(void)state;
	put_fde(&b, cie, enc, 0x5000, 0x10, OPS(DW_CFA_def_cfa_offset, 50));
	put_fde(&b, cie, enc, 0x2000, 0x100, OPS(DW_CFA_def_cfa_offset, 20));
	put_fde(&b, cie, enc, 0x2040, 0x20, OPS(DW_CFA_def_cfa_offset, 24)); /* inside the former */
	put_fde(&b, cie, enc, 0x3000, 0x10, OPS(DW_CFA_def_cfa_offset, 30)); /* hidden: shorter */
	put_fde(&b, cie, enc, 0x3000, 0x40, OPS(DW_CFA_def_cfa_offset, 34));
	put_fde(&b, cie, enc, 0x3000, 0x40, OPS(DW_CFA_def_cfa_offset, 36)); /* hidden: later */
	put_fde(&b, cie, enc, 0x100, 0x40, OPS(DW_CFA_def_cfa_offset, 10));  /* not in code */
	put_fde(&b, cie, enc, 0x8ff0, UINT64_MAX,
		OPS(DW_CFA_def_cfa_offset, 80)); /* past the code */
	see_section(&b, EM_X86_64, false, &seen);
	assert_int_equal(seen.count, 5);
	assert_int_equal(seen.start[0], 0x2000);
	assert_int_equal(seen.end[0], 0x2040);
	assert_int_equal(seen.rows[1].cfa_off, 24);
	assert_int_equal(seen.end[1], 0x2060);
	assert_int_equal(seen.rows[2].cfa_off, 34);
	assert_int_equal(seen.end[2], 0x3040);
	assert_int_equal(seen.start[3], 0x5000);
	assert_int_equal(seen.end[4], TEXT_END);
	assert_int_equal(seen.stats.skipped[EH_FRAME_OVERLAPPED], 2);
	assert_int_equal(seen.stats.skipped[EH_FRAME_NO_CODE], 1);
}

static void broken_records_cost_what_they_must(void **state)
{
	const uint8_t enc = DW_EH_PE_udata8;
	struct bytes b = {0};
	struct seen seen;
	size_t cie = put_cie(&b, EM_X86_64, enc), at;

	(void)state;
	put_fde(&b, cie, enc, 0x2000, 0x100, NULL, 0);
	put_u32(&b, 0); /* a terminator in the middle, as after crtend.o */
	at = b.size;
	put_fde(&b, cie, enc, 0x3000, 0x100, NULL, 0);
	memset(b.data + at + 4, 0xee, 4); /* its CIE is nowhere */
	put_u32(&b, 2);			  /* a record too short for anything */
	put_u8(&b, 1), put_u8(&b, 1);
	put_fde(&b, cie, enc, 0x4000, 0x100, NULL, 0);
	put_u32(&b, 0x7fffffff); /* past the end: nothing can follow */
	put_fde(&b, cie, enc, 0x5000, 0x100, NULL, 0);
	see_section(&b, EM_X86_64, false, &seen);
	assert_int_equal(seen.count, 2);
	assert_int_equal(seen.start[1], 0x4000);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_CIE], 1);
	assert_int_equal(seen.stats.skipped[EH_FRAME_BAD_RECORD], 1);
}

static int ignore_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *user)
{
	(void)row, (void)start, (void)end, (void)user;
	return 0;
}

/* One FDE of no-operations over the limit, and one behind it. */
static void a_flood_of_instructions_is_cut(void **state)
{
	const uint8_t enc = DW_EH_PE_udata8;
	size_t flood = EH_FRAME_INSTRUCTIONS_MAX + 16;
	struct eh_frame_range text = {TEXT_START, TEXT_END};
	struct eh_frame_section section = {.vaddr = SECTION_VADDR};
	struct bytes b = {0}, last = {0};
	struct eh_frame *frame;
	size_t cie = put_cie(&b, EM_X86_64, enc), at = b.size;
	uint32_t length, back;

	(void)state;
	put_fde(&b, cie, enc, 0x2000, 0x100, NULL, 0);
	length = (uint32_t)(b.size - at - 4 + flood);
	memcpy(b.data + at, &length, sizeof(length));
	put_fde(&last, 0, enc, 0x3000, 0x100, NULL, 0);
	back = (uint32_t)(b.size + flood + 4 - cie);
	memcpy(last.data + 4, &back, sizeof(back));
	section.size = b.size + flood + last.size;
	section.data = section.owned = calloc(1, section.size);
	assert_non_null(section.owned);
	memcpy(section.owned, b.data, b.size);
	memcpy(section.owned + b.size + flood, last.data, last.size);
	assert_int_equal(eh_frame_new(&section, 1, EM_X86_64, &text, 1, &frame), 0);
	assert_int_equal(eh_frame_stats(frame)->fdes, 2);
	assert_int_equal(eh_frame_for_each_row(frame, ignore_row, NULL), 0);
	assert_int_equal(eh_frame_stats(frame)->skipped[EH_FRAME_TOO_MANY], 2);
	eh_frame_free(frame);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(libc_reads_as_readelf_reads_it),
		cmocka_unit_test(libstdcxx_reads_as_readelf_reads_it),
		cmocka_unit_test(python_reads_as_readelf_reads_it),
		cmocka_unit_test(aarch64_libc_reads_as_readelf_reads_it),
		cmocka_unit_test(further_programs_read_as_readelf_reads_them),
		cmocka_unit_test(compiled_frames_read_as_readelf_reads_them),
		cmocka_unit_test(assembly_reads_as_readelf_reads_it),
		cmocka_unit_test(debug_frame_alone_is_enough),
		cmocka_unit_test(without_sections_the_header_finds_the_same_rows),
		cmocka_unit_test(every_pointer_encoding_is_read),
		cmocka_unit_test(pointers_that_a_file_cannot_hold_are_skipped),
		cmocka_unit_test(augmentations_are_understood),
		cmocka_unit_test(an_unknown_augmentation_costs_its_own_fdes_only),
		cmocka_unit_test(debug_frame_is_read_in_32_and_64_bits),
		cmocka_unit_test(instructions_do_what_dwarf_says),
		cmocka_unit_test(expressions_are_told_apart),
		cmocka_unit_test(aarch64_frames_and_signed_addresses_are_read),
		cmocka_unit_test(broken_instructions_end_their_fde_only),
		cmocka_unit_test(overlapping_fdes_follow_the_stated_order),
		cmocka_unit_test(broken_records_cost_what_they_must),
		cmocka_unit_test(a_flood_of_instructions_is_cut),
	};

	return cmocka_run_group_tests_name("eh_frame", tests, scratch_make, scratch_remove);
}
