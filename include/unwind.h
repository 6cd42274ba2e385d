/*
 * The compact unwind table: what user/binary/unwind_table.c makes of an image's call frame
 * information, and bpf/ searches. Included by both sides.
 *
 * Every address here is an image's link-time address (ELF p_vaddr), so one table serves all
 * processes that map the image: vaddr = pc - load bias.
 *
 * ROWS. A row is 4 bytes: from pc_low (the low 16 bits of vaddr) on, rule number `rule` is in force,
 * until the next row. Rows are sorted by address and lie in pages of 64 KiB of address space. Every
 * page of an image, from the first to the last executable one, begins with a row whose pc_low is 0
 * (it repeats the rule in force where no change falls on that address). So a page is never empty, and
 * a search never looks at another page:
 *
 *	page = (vaddr >> 16) - image.first_page;		unsigned: below first_page is large
 *	if (page >= image.page_count)
 *		no rule (UNWIND_RULE_END)
 *	index = pages + image.first_index + page;
 *	low = index[0], high = index[1];			row numbers within the image
 *	while (high - low > 1) {				at most UNWIND_SEARCH_STEPS times
 *		middle = low + (high - low) / 2;
 *		if (rows[image.first_row + middle].pc_low <= (vaddr & 0xffff))
 *			low = middle;
 *		else
 *			high = middle;
 *	}
 *	rule = rules[rows[image.first_row + low].rule]
 *
 * An image of page_count pages has page_count + 1 index entries; the last one is its row count.
 *
 * WHAT TO LOOK UP. vaddr of return address - 1, which is inside the call: the return address itself
 * may be the next function's first byte. After a rule with UNWIND_EXACT_PC the pc found is not a
 * return address (a signal interrupted there): look it up as it is, without the - 1.
 *
 * A table pruned to call sites answers rightly for return addresses, and for a pc at or behind a
 * system call instruction. Any other pc that a signal interrupted gets the rule of some call site
 * before it: mark what follows as a guess.
 *
 * RULES. All images share one table of at most UNWIND_RULES_MAX; number 0 is UNWIND_END. See
 * struct unwind_rule for how a rule turns one frame into its caller's.
 */
#ifndef ALLOCTRACE_UNWIND_H
#define ALLOCTRACE_UNWIND_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define UNWIND_PAGE_SHIFT   16
#define UNWIND_PAGE_SIZE    (1 << UNWIND_PAGE_SHIFT)
#define UNWIND_SEARCH_STEPS 16 /* log2 of the most rows of a page: one per byte */
#define UNWIND_RULES_MAX    4096
/* Of an image, from its first executable one: 2 GiB, as far as code can call. */
#define UNWIND_PAGES_MAX 32768

struct unwind_row {
	__u16 pc_low;
	__u16 rule;
};

/*
 * How the caller's pc, sp and fp follow from a frame's sp and fp. fp is rbp or x29. The caller's sp is
 * the CFA, always. Offsets are in bytes, slots in units of 8 bytes.
 *
 *	UNWIND_SP, UNWIND_FP	CFA = base + cfa_off, base being sp or fp
 *	UNWIND_DEREF_SP, _FP	as stack-realigning functions have it (gcc keeps the CFA in the frame):
 *				CFA = *(base + cfa_off) + 8 + 8 * ra_slot
 *	UNWIND_PLT		CFA = sp + cfa_off + ((pc & 15) >= fp_slot ? 8 : 0); fp is unchanged
 *	UNWIND_SIGNAL		sp points at the rt_sigframe as the handler returns: all registers of
 *				the interrupted code are in it, at the UNWIND_SIGFRAME_* offsets from sp.
 *				Its UNWIND_EXACT_PC is always set.
 *	UNWIND_STOP		outermost frame (return address undefined): the walk is complete
 *	UNWIND_END		no rule: go by the frame pointer, and mark the frame
 *
 * Return address (not for STOP, END and SIGNAL):
 *	ra_slot == UNWIND_SLOT_SAME	still in lr (aarch64). Only the innermost frame, or one that a
 *					signal interrupted, can be so: elsewhere the walk is lost
 *	otherwise			*(CFA + 8 * ra_slot). On x86-64 this is CFA - 8, ra_slot -1, for all
 *					but the DEREF kinds, for which it is *(CFA - 8) whatever ra_slot
 * aarch64: strip the pointer authentication bits from what was loaded.
 *
 * Caller's fp (not for STOP, END, SIGNAL and PLT):
 *	fp_slot == UNWIND_SLOT_SAME	  unchanged
 *	fp_slot == UNWIND_SLOT_UNDEFINED lost: a rule further out that needs it ends the walk
 *	otherwise			  *(CFA + 8 * fp_slot); DEREF kinds: *(base + 8 * fp_slot)
 */
enum unwind_kind {
	UNWIND_END = 0,
	UNWIND_STOP = 1,
	UNWIND_SIGNAL = 2,
	UNWIND_SP = 3,
	UNWIND_FP = 4,
	UNWIND_DEREF_SP = 5,
	UNWIND_DEREF_FP = 6,
	UNWIND_PLT = 7,
};

#define UNWIND_KIND_MASK 0x7f
#define UNWIND_EXACT_PC	 0x80 /* beside the kind: what this frame returns to is not after a call */

#define UNWIND_CFA_SHIFT 8
#define UNWIND_CFA_MAX	 ((1 << 23) - 1) /* bytes; larger frames get UNWIND_END */
#define UNWIND_CFA_MIN	 (-(1 << 23))

#define UNWIND_SLOT_SAME      (-32768)
#define UNWIND_SLOT_UNDEFINED (-32767)
#define UNWIND_SLOT_MIN	      (-32766) /* 256 KiB either way */
#define UNWIND_SLOT_MAX	      32767

#define UNWIND_RULE_END 0 /* the number of the rule {UNWIND_END} */

struct unwind_rule {
	__s32 cfa; /* cfa_off << UNWIND_CFA_SHIFT | UNWIND_EXACT_PC or 0 | kind */
	__s16 fp_slot;
	__s16 ra_slot;
};

static inline __u32 unwind_rule_kind(const struct unwind_rule *rule)
{
	return (__u32)rule->cfa & UNWIND_KIND_MASK;
}

static inline int unwind_rule_exact_pc(const struct unwind_rule *rule)
{
	return (rule->cfa & UNWIND_EXACT_PC) != 0;
}

static inline __s32 unwind_rule_cfa_off(const struct unwind_rule *rule)
{
	return rule->cfa >> UNWIND_CFA_SHIFT;
}

/* Where an image's rows and its page index lie in the arrays that hold those of all images. */
struct unwind_image {
	__u32 first_row;
	__u32 first_index;
	__u32 first_page; /* vaddr >> UNWIND_PAGE_SHIFT */
	__u32 page_count; /* 0: no table */
};

/*
 * Offsets from sp to the interrupted registers in the rt_sigframe, once the handler has returned
 * (Linux: arch/x86/include/uapi/asm/sigcontext.h, behind 40 bytes of ucontext; aarch64: 128 bytes of
 * siginfo, 176 of ucontext, then struct sigcontext).
 */
#define UNWIND_SIGFRAME_X86_64_SP  160
#define UNWIND_SIGFRAME_X86_64_FP  120
#define UNWIND_SIGFRAME_X86_64_PC  168
#define UNWIND_SIGFRAME_AARCH64_SP 560
#define UNWIND_SIGFRAME_AARCH64_FP 544
#define UNWIND_SIGFRAME_AARCH64_LR 552
#define UNWIND_SIGFRAME_AARCH64_PC 568

_Static_assert(sizeof(struct unwind_row) == 4, "ABI of struct unwind_row");
_Static_assert(sizeof(struct unwind_rule) == 8, "ABI of struct unwind_rule");
_Static_assert(sizeof(struct unwind_image) == 16, "ABI of struct unwind_image");

#endif
