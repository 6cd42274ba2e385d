/*
 * libFuzzer target: call frame information as bytes from a hostile file.
 *
 * An input is a byte of flags, the section's address (8 bytes), then the section:
 *	1	.debug_frame instead of .eh_frame
 *	2	aarch64 instead of x86-64
 *	4	a whole image: the section is found by PT_GNU_EH_FRAME, its bytes are also the code
 *		that is scanned for calls, and tables are built
 *
 * What must hold beside not crashing: rows rise, never overlap, stay within the code; a table has its
 * documented form and, not pruned, says at each row what the row says.
 *
 * Build and run: tests/fuzz/eh_frame.sh
 */
#include <elf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "binary/eh_frame.h"
#include "binary/image.h"
#include "binary/unwind_table.h"
#include "util/reader.h"

#define TEXT_START 0x1000
#define TEXT_END   0x10000000

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			__builtin_trap();                                                          \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct check {
	uint16_t machine;
	uint64_t at, end; /* rows come from here on, and not beyond */
	const struct unwind_table *table;
	const struct unwind_rules *rules;
};

static int check_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *user)
{
	struct check *c = user;
	struct unwind_rule rule, none = {.cfa = UNWIND_END};
	enum unwind_loss loss;
	bool has_rule = unwind_rule_from_row(c->machine, row, &rule, &loss);

	CHECK(start >= c->at && start < end && end <= c->end);
	c->at = end;
	if (has_rule)
		CHECK(unwind_rule_kind(&rule) != UNWIND_END);
	if (c->table && c->rules->overflow == 0) {
		const struct unwind_rule *want = has_rule ? &rule : &none, *got;

		got = &c->rules->items[unwind_table_find(c->table, start)];
		CHECK(!memcmp(got, want, sizeof(*got)));
		got = &c->rules->items[unwind_table_find(c->table, end - 1)];
		CHECK(!memcmp(got, want, sizeof(*got)));
	}
	return 0;
}

static void fuzz_section(const uint8_t *data, size_t size, uint64_t vaddr, uint8_t flags)
{
	uint16_t machine = flags & 2 ? EM_AARCH64 : EM_X86_64;
	struct eh_frame_section section = {.data = data,
					   .size = size,
					   .vaddr = vaddr,
					   .data_rel = vaddr,
					   .debug_frame = flags & 1};
	struct eh_frame_range text = {TEXT_START, TEXT_END};
	struct check check = {.machine = machine, .at = TEXT_START, .end = TEXT_END};
	struct eh_frame *frame;

	CHECK(eh_frame_new(&section, 1, machine, &text, 1, &frame) == 0);
	CHECK(eh_frame_for_each_row(frame, check_row, &check) == 0);
	eh_frame_free(frame);
}

/* ELF header, one PT_LOAD, PT_GNU_EH_FRAME, the header that points at what follows it. */
struct file {
	Elf64_Ehdr ehdr;
	Elf64_Phdr load, hdr;
	uint8_t eh_frame_hdr[8];
};

static int make_file(const uint8_t *data, size_t size, uint64_t vaddr, uint8_t flags)
{
	struct file file = {
		.ehdr = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			 .e_type = ET_DYN,
			 .e_machine = flags & 2 ? EM_AARCH64 : EM_X86_64,
			 .e_version = EV_CURRENT,
			 .e_phoff = offsetof(struct file, load),
			 .e_ehsize = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 2},
		.load = {.p_type = PT_LOAD,
			 .p_flags = PF_R | PF_X,
			 .p_vaddr = vaddr,
			 .p_filesz = sizeof(file) + size,
			 .p_memsz = sizeof(file) + size,
			 .p_align = 1},
		.hdr = {.p_type = PT_GNU_EH_FRAME,
			.p_offset = offsetof(struct file, eh_frame_hdr),
			.p_vaddr = vaddr + offsetof(struct file, eh_frame_hdr),
			.p_filesz = 8,
			.p_memsz = 8},
		.eh_frame_hdr = {1, 0x1b, 0xff, 0xff, 4, 0, 0, 0},
	};
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK(write(fd, &file, sizeof(file)) == (ssize_t)sizeof(file));
	CHECK(write(fd, data, size) == (ssize_t)size);
	return fd;
}

static void check_form(const struct unwind_table *table)
{
	CHECK(table->page_index[table->page_count] == table->count);
	for (uint32_t page = 0; page < table->page_count; page++) {
		uint32_t first = table->page_index[page], end = table->page_index[page + 1];

		CHECK(first < end && table->items[first].pc_low == 0);
		for (uint32_t i = first + 1; i < end; i++)
			CHECK(table->items[i - 1].pc_low < table->items[i].pc_low);
	}
}

static void fuzz_image(const uint8_t *data, size_t size, uint64_t vaddr, uint8_t flags)
{
	struct unwind_options options = {.prune = false};
	struct check check = {.machine = flags & 2 ? EM_AARCH64 : EM_X86_64};
	struct unwind_rules *rules;
	struct unwind_table *table, *pruned;
	struct eh_frame *frame;
	struct image *image;

	if (image_open(make_file(data, size, vaddr, flags), "fuzz", &image))
		return;
	CHECK(unwind_rules_new(&rules) == 0);
	if (unwind_table_build(image, &options, rules, &table) == 0) {
		check_form(table);
		options.prune = true;
		CHECK(unwind_table_build(image, &options, rules, &pruned) == 0);
		check_form(pruned);
		unwind_table_free(pruned);
		check.at = vaddr;
		check.end = vaddr + sizeof(struct file) + size;
		check.table = table;
		check.rules = rules;
		if (eh_frame_open(image, &frame) == 0) {
			CHECK(eh_frame_for_each_row(frame, check_row, &check) == 0);
			eh_frame_free(frame);
		}
		unwind_table_free(table);
	}
	unwind_rules_free(rules);
	image_free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_new(data, size);
	uint8_t flags = reader_u8(&r);
	uint64_t vaddr = reader_u64(&r);

	if (r.failed)
		return -1;
	if (flags & 4)
		fuzz_image(r.pos, reader_left(&r), vaddr, flags);
	else
		fuzz_section(r.pos, reader_left(&r), vaddr, flags);
	return 0;
}
