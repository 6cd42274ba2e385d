/*
 * Rows stream in by rising address, each with its range. With pruning, a row (or a gap between two)
 * counts only if its range holds an address that a walk can look up; what counts is run-length
 * encoded: a table row is written where the rule differs from that of the last range that counted.
 * So the search, which takes the last row at or before an address, answers rightly for each of
 * these addresses, and with some neighbouring rule for all others. Nothing but the result is ever
 * in memory.
 *
 * Without pruning all ranges count, but gaps under 16 bytes, which are padding between functions:
 * the rule before holds on there, and equal rows on both sides merge.
 *
 * Rows of signal frames always count: the trampoline is not called, it is returned to.
 */
#include "binary/unwind_table.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "binary/call_sites.h"
#include "util/cleanup.h"
#include "util/vec.h"

#define PADDING_MAX 16

const char *unwind_loss_text(enum unwind_loss loss)
{
	static const char *const texts[] = {
#define X(id, text) [id] = text,
		UNWIND_LOSSES(X)
#undef X
	};

	return (unsigned int)loss < UNWIND_LOSS_COUNT ? texts[loss] : "?";
}

/* --- the shared rules --- */

int unwind_rules_new(struct unwind_rules **out)
{
	struct unwind_rules *rules = calloc(1, sizeof(*rules));
	struct unwind_rule end = {.cfa = UNWIND_END};

	if (!rules)
		return -ENOMEM;
	unwind_rules_intern(rules, &end);
	*out = rules;
	return 0;
}

void unwind_rules_free(struct unwind_rules *rules)
{
	free(rules);
}

static size_t hash_rule(const struct unwind_rule *rule)
{
	uint64_t bits;

	_Static_assert(sizeof(bits) == sizeof(*rule), "a rule is hashed as one word");
	memcpy(&bits, rule, sizeof(bits));
	return (size_t)((bits * UINT64_C(0x9e3779b97f4a7c15)) >> 40) % UNWIND_RULE_SLOTS;
}

/* The table is at most half full, so a probe ends. */
uint16_t unwind_rules_intern(struct unwind_rules *rules, const struct unwind_rule *rule)
{
	size_t slot = hash_rule(rule);

	for (; rules->slots[slot]; slot = (slot + 1) % UNWIND_RULE_SLOTS) {
		uint16_t number = (uint16_t)(rules->slots[slot] - 1);

		if (!memcmp(&rules->items[number], rule, sizeof(*rule)))
			return number;
	}
	if (rules->count == UNWIND_RULES_MAX) {
		rules->overflow++;
		return UNWIND_RULE_END;
	}
	rules->items[rules->count] = *rule;
	rules->slots[slot] = (uint16_t)(rules->count + 1);
	return (uint16_t)rules->count++;
}

/* --- a row of call frame information -> a rule --- */

static bool to_slot(int64_t offset, int16_t *slot)
{
	if (offset % 8 || offset / 8 < UNWIND_SLOT_MIN || offset / 8 > UNWIND_SLOT_MAX)
		return false;
	*slot = (int16_t)(offset / 8);
	return true;
}

static struct unwind_rule make_rule(enum unwind_kind kind, int32_t cfa_off, bool exact_pc)
{
	return (struct unwind_rule){
		.cfa = (int32_t)((uint32_t)cfa_off << UNWIND_CFA_SHIFT) |
		       (exact_pc ? UNWIND_EXACT_PC : 0) | (int32_t)kind,
	};
}

/* The kind by form and base register of the CFA. False where no kind fits. */
static bool kind_of(const struct cfi_row *row, const struct cfi_registers *regs,
		    enum unwind_kind *kind)
{
	bool fp = row->cfa_reg == regs->fp;

	if (!fp && row->cfa_reg != regs->sp)
		return false;
	switch (row->cfa_kind) {
	case CFI_CFA_REG:
		*kind = fp ? UNWIND_FP : UNWIND_SP;
		return true;
	case CFI_CFA_DEREF:
		*kind = fp ? UNWIND_DEREF_FP : UNWIND_DEREF_SP;
		return true;
	case CFI_CFA_PLT:
		*kind = UNWIND_PLT;
		return !fp;
	default:
		return false;
	}
}

/*
 * Where the caller's fp is. What cannot be said in a rule counts as lost (UNWIND_SLOT_UNDEFINED):
 * the walk then goes on for as long as rules build on sp.
 */
static int16_t fp_slot_of(const struct cfi_row *row, bool deref)
{
	int16_t slot = UNWIND_SLOT_UNDEFINED;

	switch (row->fp.where) {
	case CFI_UNSPECIFIED: /* callee-saved in both ABIs: not mentioned is not touched */
	case CFI_SAME:
		return UNWIND_SLOT_SAME;
	case CFI_AT_CFA: /* a DEREF rule counts from its base instead, which no compiler mixes */
		if (deref || !to_slot(row->fp.off, &slot))
			return UNWIND_SLOT_UNDEFINED;
		return slot;
	case CFI_AT_EXPRESSION:
		if (row->fp.reg != row->cfa_reg ||
		    !to_slot(deref ? row->fp.off : (int64_t)row->fp.off - row->cfa_off, &slot))
			return UNWIND_SLOT_UNDEFINED;
		return slot;
	default:
		return UNWIND_SLOT_UNDEFINED;
	}
}

/* Where the return address is, in the ordinary kinds. */
static bool ra_slot_of(uint16_t machine, const struct cfi_row *row, int16_t *slot)
{
	switch (row->ra.where) {
	case CFI_UNSPECIFIED:
	case CFI_SAME:
		*slot = UNWIND_SLOT_SAME;
		return machine == EM_AARCH64;
	case CFI_AT_CFA:
		return to_slot(row->ra.off, slot) && (machine == EM_AARCH64 || *slot == -1);
	case CFI_AT_EXPRESSION:
		return row->cfa_kind == CFI_CFA_REG && row->ra.reg == row->cfa_reg &&
		       to_slot((int64_t)row->ra.off - row->cfa_off, slot) &&
		       (machine == EM_AARCH64 || *slot == -1);
	default:
		return false;
	}
}

/*
 * The kernel's frame, as glibc describes it on x86-64 (CFA = the interrupted sp, read from the
 * frame). aarch64's vDSO describes only the frame record that the kernel pushes for debuggers,
 * which leaves sp unknown; every signal frame there has the one layout.
 */
static bool is_rt_sigframe(uint16_t machine, const struct cfi_row *row,
			   const struct cfi_registers *regs)
{
	if (!row->signal)
		return false;
	return machine == EM_AARCH64 ||
	       (row->cfa_kind == CFI_CFA_DEREF && row->cfa_reg == regs->sp && row->cfa_add == 0 &&
		row->cfa_off == UNWIND_SIGFRAME_X86_64_SP);
}

bool unwind_rule_from_row(uint16_t machine, const struct cfi_row *row, struct unwind_rule *out,
			  enum unwind_loss *loss)
{
	struct cfi_registers regs;
	enum unwind_kind kind;
	int16_t ra_slot;

	*loss = UNWIND_LOST_CFA;
	if (!cfi_registers_of(machine, &regs))
		return false;
	if (row->ra.where == CFI_UNDEFINED) {
		*out = make_rule(UNWIND_STOP, 0, false);
		return true;
	}
	if (is_rt_sigframe(machine, row, &regs)) {
		*out = make_rule(UNWIND_SIGNAL, 0, true);
		return true;
	}
	if (!kind_of(row, &regs, &kind))
		return false;
	*loss = UNWIND_LOST_SP;
	if (row->sp_ruled)
		return false;
	*loss = UNWIND_LOST_RA;
	if (!ra_slot_of(machine, row, &ra_slot))
		return false;
	*loss = UNWIND_LOST_RANGE;
	if (row->cfa_off < UNWIND_CFA_MIN || row->cfa_off > UNWIND_CFA_MAX)
		return false;
	*out = make_rule(kind, row->cfa_off, row->signal);
	out->ra_slot = ra_slot;
	if (kind == UNWIND_PLT) {
		out->fp_slot = (int16_t)row->cfa_add;
		return true;
	}
	if (row->cfa_kind == CFI_CFA_DEREF && !to_slot((int64_t)row->cfa_add - 8, &out->ra_slot))
		return false;
	out->fp_slot = fp_slot_of(row, row->cfa_kind == CFI_CFA_DEREF);
	return true;
}

/* --- building --- */

struct builder {
	struct unwind_table *table;
	struct unwind_rules *rules;
	struct call_sites *sites; /* NULL: no pruning */
	uint16_t machine;
	uint64_t covered; /* up to here ranges have been seen */
	uint64_t limit;	  /* of the pages: exclusive */
	uint32_t pages;	  /* that have an index entry */
	uint16_t in_force;
};

static int push_row(struct builder *b, uint16_t pc_low, uint16_t rule)
{
	return vec_push(b->table, ((struct unwind_row){pc_low, rule}));
}

/* Begins all pages up to the one that holds pc; each repeats the rule in force, unless pc begins
 * it. */
static int begin_pages(struct builder *b, uint64_t pc)
{
	struct unwind_table *table = b->table;
	uint64_t page = (pc >> UNWIND_PAGE_SHIFT) - table->first_page;

	while (b->pages <= page && b->pages < table->page_count) {
		bool starts_with_pc = b->pages == page && !(pc & (UNWIND_PAGE_SIZE - 1));

		table->page_index[b->pages++] = (uint32_t)table->count;
		if (!starts_with_pc) {
			int err = push_row(b, 0, b->in_force);

			if (err)
				return err;
		}
	}
	return 0;
}

/* From pc on, this rule. A second rule at one pc takes the first one's place. */
static int emit(struct builder *b, uint64_t pc, uint16_t rule)
{
	struct unwind_table *table = b->table;
	uint16_t pc_low = (uint16_t)pc;
	int err;

	if (rule == b->in_force)
		return 0;
	err = begin_pages(b, pc);
	if (err)
		return err;
	b->in_force = rule;
	if (table->count > table->page_index[b->pages - 1] &&
	    table->items[table->count - 1].pc_low == pc_low) {
		table->items[table->count - 1].rule = rule;
		return 0;
	}
	return push_row(b, pc_low, rule);
}

/* musl's signal return trampoline has no CFI: found by its instructions, in a gap. */
static int emit_sigreturn(struct builder *b, uint64_t start, uint64_t end)
{
	struct unwind_rule signal = make_rule(UNWIND_SIGNAL, 0, true);
	struct eh_frame_range at;
	int err;

	if (!b->sites || !call_sites_sigreturn(b->sites, start, end, &at) || at.end > end)
		return 0;
	/* A lookup of the return address - 1 finds the byte before it. */
	err = emit(b, at.start > start ? at.start - 1 : start,
		   unwind_rules_intern(b->rules, &signal));
	return err || at.end >= end ? err : emit(b, at.end, UNWIND_RULE_END);
}

/* Code from b->covered to start is without information. */
static int visit_gap(struct builder *b, uint64_t start)
{
	uint64_t from = b->covered;
	int err;

	if (start <= from)
		return 0;
	if (b->sites ? !call_sites_any(b->sites, from, start) : start - from < PADDING_MAX)
		return 0;
	b->table->stats.gaps++;
	err = emit(b, from, UNWIND_RULE_END);
	return err ? err : emit_sigreturn(b, from, start);
}

static int visit_row(const struct cfi_row *row, uint64_t start, uint64_t end, void *user)
{
	struct builder *b = user;
	struct unwind_table_stats *stats = &b->table->stats;
	struct unwind_rule rule;
	enum unwind_loss loss;
	uint16_t number = UNWIND_RULE_END;
	uint64_t overflow = b->rules->overflow;
	int err;

	stats->rows_read++;
	if (end > b->limit) {
		stats->rows_cut++;
		return 0;
	}
	err = visit_gap(b, start);
	if (err)
		return err;
	b->covered = end;
	if (b->sites && !row->signal && !call_sites_any(b->sites, start, end))
		return 0;
	stats->rows_needed++;
	if (unwind_rule_from_row(b->machine, row, &rule, &loss))
		number = unwind_rules_intern(b->rules, &rule);
	else
		stats->lost[loss]++;
	stats->lost[UNWIND_LOST_RULES] += b->rules->overflow - overflow;
	return emit(b, start, number);
}

/* The pages from the first executable byte to the last. */
static int lay_out_pages(struct builder *b, const struct eh_frame_range *text, size_t text_count)
{
	struct unwind_table *table = b->table;
	uint64_t first, last;

	if (text_count) {
		first = text[0].start >> UNWIND_PAGE_SHIFT;
		last = (text[text_count - 1].end - 1) >> UNWIND_PAGE_SHIFT;
		if (first > UINT32_MAX)
			return -E2BIG;
		table->first_page = (uint32_t)first;
		table->page_count = last - first < UNWIND_PAGES_MAX ? (uint32_t)(last - first + 1)
								    : UNWIND_PAGES_MAX;
		b->covered = text[0].start;
	}
	table->page_index = calloc(table->page_count + 1, sizeof(*table->page_index));
	b->limit = ((uint64_t)table->first_page + table->page_count) << UNWIND_PAGE_SHIFT;
	return table->page_index ? 0 : -ENOMEM;
}

static int finish(struct builder *b, const struct eh_frame_range *text, size_t text_count)
{
	struct unwind_table *table = b->table;
	uint64_t end = text_count ? text[text_count - 1].end : 0;
	int err = 0;

	if (end > b->limit)
		end = b->limit;
	if (b->sites)
		err = visit_gap(b, end);
	else if (b->covered < end)
		err = emit(b, b->covered, UNWIND_RULE_END);
	if (!err && table->page_count)
		err = begin_pages(b, b->limit - 1);
	table->page_index[table->page_count] = (uint32_t)table->count;
	return err;
}

static void shrink(struct unwind_table *table)
{
	void *items =
		table->count ? realloc(table->items, table->count * sizeof(*table->items)) : NULL;

	if (items) {
		table->items = items;
		table->capacity = table->count;
	}
}

static void cleanup_call_sites(struct call_sites **sites)
{
	call_sites_free(*sites);
}

static void cleanup_eh_frame(struct eh_frame **frame)
{
	eh_frame_free(*frame);
}

static void cleanup_table(struct unwind_table **table)
{
	unwind_table_free(*table);
}

/* An image without any call frame information is one big gap. */
static int open_frame(const struct image *image, struct eh_frame **frame)
{
	int err = eh_frame_open(image, frame);

	return err == -ENOENT ? eh_frame_of_text(image, frame) : err;
}

int unwind_table_build(const struct image *image, const struct unwind_options *options,
		       struct unwind_rules *rules, struct unwind_table **out)
{
	CLEANUP(cleanup_eh_frame) struct eh_frame *frame = NULL;
	CLEANUP(cleanup_call_sites) struct call_sites *sites = NULL;
	CLEANUP(cleanup_table) struct unwind_table *table = calloc(1, sizeof(*table));
	struct builder b = {.table = table, .rules = rules, .machine = image->machine};
	const struct eh_frame_range *text;
	size_t text_count;
	int err;

	if (!table)
		return -ENOMEM;
	err = open_frame(image, &frame);
	if (err)
		return err;
	text = eh_frame_text(frame, &text_count);
	if (options->prune)
		err = call_sites_new(image, text, text_count, &sites);
	b.sites = sites;
	if (!err)
		err = lay_out_pages(&b, text, text_count);
	if (!err)
		err = eh_frame_for_each_row(frame, visit_row, &b);
	if (!err)
		err = finish(&b, text, text_count);
	if (err)
		return err;
	table->stats.fdes = eh_frame_stats(frame)->fdes;
	memcpy(table->stats.skipped, eh_frame_stats(frame)->skipped, sizeof(table->stats.skipped));
	shrink(table);
	*out = TAKE(table);
	return 0;
}

void unwind_table_free(struct unwind_table *table)
{
	if (!table)
		return;
	free(table->items);
	free(table->page_index);
	free(table);
}

/* --- use --- */

uint16_t unwind_table_find(const struct unwind_table *table, uint64_t vaddr)
{
	uint64_t page = (vaddr >> UNWIND_PAGE_SHIFT) - table->first_page;
	uint16_t pc_low = (uint16_t)vaddr;
	uint32_t low, high;

	if (page >= table->page_count)
		return UNWIND_RULE_END;
	low = table->page_index[page];
	high = table->page_index[page + 1];
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (table->items[middle].pc_low <= pc_low)
			low = middle;
		else
			high = middle;
	}
	return table->items[low].rule;
}

size_t unwind_table_size(const struct unwind_table *table)
{
	return table->count * sizeof(*table->items) +
	       (table->page_count + 1) * sizeof(*table->page_index);
}
