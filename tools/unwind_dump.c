/*
 * unwind_dump [-c|-u|-s] FILE: what alloctrace makes of an ELF file's call frame information.
 *	-c	the rows of .eh_frame and .debug_frame as read, to be held against
 *		readelf --debug-dump=frames-interp: location, CFA, frame pointer, return address
 *	-u	the compact table, not pruned
 *	-s	numbers only: rows, bytes, milliseconds
 * Without an option, the compact table as the kernel gets it, pruned to call sites.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "binary/eh_frame.h"
#include "binary/image.h"
#include "binary/unwind_table.h"

static const char *register_name(uint16_t machine, unsigned int reg)
{
	static char other[16];
	struct cfi_registers regs;

	if (cfi_registers_of(machine, &regs)) {
		if (reg == regs.sp)
			return machine == EM_X86_64 ? "rsp" : "sp";
		if (reg == regs.fp)
			return machine == EM_X86_64 ? "rbp" : "x29";
	}
	snprintf(other, sizeof(other), "r%u", reg);
	return other;
}

static void format_place(char *to, size_t size, const struct cfi_place *place)
{
	switch (place->where) {
	case CFI_SAME:
		snprintf(to, size, "s");
		break;
	case CFI_AT_CFA:
		snprintf(to, size, "c%+d", place->off);
		break;
	case CFI_IS_CFA:
		snprintf(to, size, "v%+d", place->off);
		break;
	case CFI_IN_REG:
		snprintf(to, size, "r%u", place->reg);
		break;
	case CFI_AT_EXPRESSION:
		snprintf(to, size, "exp");
		break;
	case CFI_IS_EXPRESSION:
		snprintf(to, size, "vexp");
		break;
	default:
		snprintf(to, size, "u");
	}
}

static int print_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *user)
{
	uint16_t machine = *(const uint16_t *)user;
	char cfa[32] = "exp", fp[32], ra[32];

	if (row->cfa_kind == CFI_CFA_REG)
		snprintf(cfa, sizeof(cfa), "%s%+d", register_name(machine, row->cfa_reg),
			 row->cfa_off);
	format_place(fp, sizeof(fp), &row->fp);
	format_place(ra, sizeof(ra), &row->ra);
	printf("%016" PRIx64 " %016" PRIx64 " %-12s %-8s %-8s%s\n", start, end, cfa, fp, ra,
	       row->signal ? " signal" : "");
	return 0;
}

static int dump_cfi(const struct image *image)
{
	uint16_t machine = image->machine;
	const struct eh_frame_stats *stats;
	struct eh_frame *frame;
	int err = eh_frame_open(image, &frame);

	if (err)
		return err;
	printf("%-16s %-16s %-12s %-8s %s\n", "from", "to", "CFA", "fp", "ra");
	err = eh_frame_for_each_row(frame, print_row, &machine);
	stats = eh_frame_stats(frame);
	printf("# %" PRIu64 " FDEs\n", stats->fdes);
	for (unsigned int i = 0; i < EH_FRAME_SKIP_COUNT; i++) {
		if (stats->skipped[i])
			printf("# %" PRIu64 " skipped: %s\n", stats->skipped[i],
			       eh_frame_skip_text((enum eh_frame_skip)i));
	}
	eh_frame_free(frame);
	return err;
}

static void print_slot(const char *what, int slot)
{
	if (slot == UNWIND_SLOT_SAME)
		printf(" %s=same", what);
	else if (slot == UNWIND_SLOT_UNDEFINED)
		printf(" %s=undefined", what);
	else
		printf(" %s=%+d", what, 8 * slot);
}

static void print_rule(const struct unwind_rule *rule)
{
	static const char *const kinds[] = {
		[UNWIND_END] = "end",
		[UNWIND_STOP] = "stop",
		[UNWIND_SIGNAL] = "signal",
		[UNWIND_SP] = "sp",
		[UNWIND_FP] = "fp",
		[UNWIND_DEREF_SP] = "deref sp",
		[UNWIND_DEREF_FP] = "deref fp",
		[UNWIND_PLT] = "plt",
	};

	printf("%s", kinds[unwind_rule_kind(rule)]);
	if (unwind_rule_kind(rule) >= UNWIND_SP) {
		printf("%+d", unwind_rule_cfa_off(rule));
		print_slot("fp", rule->fp_slot);
		print_slot("ra", rule->ra_slot);
	}
	printf("%s\n", unwind_rule_exact_pc(rule) ? " exact" : "");
}

static void print_table(const struct unwind_table *table, const struct unwind_rules *rules)
{
	for (uint32_t page = 0; page < table->page_count; page++) {
		uint64_t base = ((uint64_t)table->first_page + page) << UNWIND_PAGE_SHIFT;

		for (uint32_t i = table->page_index[page]; i < table->page_index[page + 1]; i++) {
			printf("%016" PRIx64 " %4u ", base + table->items[i].pc_low,
			       table->items[i].rule);
			print_rule(&rules->items[table->items[i].rule]);
		}
	}
}

static void print_stats(const struct unwind_table *table, const struct unwind_rules *rules)
{
	const struct unwind_table_stats *stats = &table->stats;

	printf("# %" PRIu64 " FDEs, %" PRIu64 " rows, %" PRIu64 " needed, %" PRIu64
	       " gaps; table: %zu rows, %zu bytes, %u rules\n",
	       stats->fdes, stats->rows_read, stats->rows_needed, stats->gaps, table->count,
	       unwind_table_size(table), rules->count);
	for (unsigned int i = 0; i < UNWIND_LOSS_COUNT; i++) {
		if (stats->lost[i])
			printf("# %" PRIu64 " rows without a rule: %s\n", stats->lost[i],
			       unwind_loss_text((enum unwind_loss)i));
	}
	for (unsigned int i = 0; i < EH_FRAME_SKIP_COUNT; i++) {
		if (stats->skipped[i])
			printf("# %" PRIu64 " FDEs skipped: %s\n", stats->skipped[i],
			       eh_frame_skip_text((enum eh_frame_skip)i));
	}
}

static int dump_table(const struct image *image, bool prune, bool rows)
{
	struct unwind_options options = {.prune = prune};
	struct unwind_rules *rules;
	struct unwind_table *table;
	struct timespec from, to;
	int err = unwind_rules_new(&rules);

	if (err)
		return err;
	clock_gettime(CLOCK_MONOTONIC, &from);
	err = unwind_table_build(image, &options, rules, &table);
	clock_gettime(CLOCK_MONOTONIC, &to);
	if (!err) {
		if (rows)
			print_table(table, rules);
		print_stats(table, rules);
		printf("# %.1f ms\n", (double)(to.tv_sec - from.tv_sec) * 1e3 +
					      (double)(to.tv_nsec - from.tv_nsec) / 1e6);
		unwind_table_free(table);
	}
	unwind_rules_free(rules);
	return err;
}

int main(int argc, char **argv)
{
	char mode = argc == 3 && argv[1][0] == '-' ? argv[1][1] : 'p';
	const char *path = argv[argc - 1];
	struct image *image;
	int fd, err;

	if (argc < 2 || argc > 3 || !strchr("cusp", mode)) {
		fprintf(stderr, "usage: unwind_dump [-c|-u|-s] FILE\n");
		return 2;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	err = fd < 0 ? -errno : image_open(fd, path, &image);
	if (err) {
		fprintf(stderr, "unwind_dump: %s: %s\n", path, strerror(-err));
		return 1;
	}
	if (mode == 'c')
		err = dump_cfi(image);
	else if (mode == 's')
		err = dump_table(image, false, false) ?: dump_table(image, true, false);
	else
		err = dump_table(image, mode == 'p', true);
	image_free(image);
	if (err)
		fprintf(stderr, "unwind_dump: %s: %s\n", path, strerror(-err));
	return err ? 1 : 0;
}
