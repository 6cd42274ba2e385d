/*
 * The scan goes through windows of 64 KiB and keeps one bit per byte of the current window.
 *
 * x86-64, at each byte:
 *	e8 rel32		call; the target must lie in executable code, which drops nearly all
 *				chance hits
 *	ff /2			call *r/m: 2 to 7 bytes by its ModRM and SIB bytes. Prefixes stand
 *				before the opcode, so they change nothing about where it ends
 *	0f 05			syscall
 * aarch64, at each multiple of 4: BL with a target in executable code, BLR and its authenticating
 * forms, SVC.
 */
#include "binary/call_sites.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define WINDOW		0x10000U
#define BEFORE		16U /* longer than what is looked for: it may begin in the window before */
#define WORD_BITS	64U
#define TRAMPOLINES_MAX 4

struct call_sites {
	const struct image *image;
	const struct eh_frame_range *text;
	size_t text_count;
	size_t cursor;	 /* no question to come is about a range of text before this one */
	uint64_t window; /* address of the current one; not a multiple of WINDOW: none yet */
	uint64_t bits[WINDOW / WORD_BITS];
	struct eh_frame_range trampolines[TRAMPOLINES_MAX]; /* a ring of the last ones found */
	size_t trampoline_count;
	uint8_t code[BEFORE + WINDOW];
};

int call_sites_new(const struct image *image, const struct eh_frame_range *text, size_t text_count,
		   struct call_sites **out)
{
	struct call_sites *sites;

	if (image->machine != EM_X86_64 && image->machine != EM_AARCH64)
		return -ENOTSUP;
	sites = calloc(1, sizeof(*sites));
	if (!sites)
		return -ENOMEM;
	sites->image = image;
	sites->text = text;
	sites->text_count = text_count;
	sites->window = 1;
	*out = sites;
	return 0;
}

void call_sites_free(struct call_sites *sites)
{
	free(sites);
}

static bool is_code(const struct call_sites *sites, uint64_t address)
{
	size_t low = 0, high = sites->text_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (address < sites->text[middle].start)
			high = middle;
		else if (address >= sites->text[middle].end)
			low = middle + 1;
		else
			return true;
	}
	return false;
}

static void mark(struct call_sites *sites, uint64_t address)
{
	uint64_t bit = address - sites->window; /* of the window before: large */

	if (bit < WINDOW)
		sites->bits[bit / WORD_BITS] |= UINT64_C(1) << (bit % WORD_BITS);
}

static void note_trampoline(struct call_sites *sites, uint64_t start, uint64_t end)
{
	sites->trampolines[sites->trampoline_count++ % TRAMPOLINES_MAX] =
		(struct eh_frame_range){start, end};
}

/* Length of an FF instruction by the bytes behind the opcode, or 0 where it is no call. */
static size_t indirect_call_length(const uint8_t *code, size_t left)
{
	uint8_t modrm, mode, rm;
	size_t length = 2;

	if (left < 2)
		return 0;
	modrm = code[1];
	mode = modrm >> 6;
	rm = modrm & 7;
	if ((modrm >> 3 & 7) != 2)
		return 0;
	if (mode == 3)
		return length;
	if (rm == 4) { /* SIB */
		if (left < 3)
			return 0;
		length++;
		rm = mode == 0 ? code[2] & 7 : 0;
	}
	if (mode == 1)
		length += 1;
	else if (mode == 2 || rm == 5) /* mode 0, rm or base 5: disp32 alone, or from rip */
		length += 4;
	return length <= left ? length : 0;
}

/* mov $15, %eax or %rax before the syscall at code[i]: rt_sigreturn. */
static void note_x86_sigreturn(struct call_sites *sites, const uint8_t *code, size_t i,
			       uint64_t vaddr)
{
	static const uint8_t with_eax[] = {0xb8, 0x0f, 0, 0, 0};
	static const uint8_t with_rax[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0};

	if (i >= sizeof(with_eax) &&
	    !memcmp(code + i - sizeof(with_eax), with_eax, sizeof(with_eax)))
		note_trampoline(sites, vaddr + i - sizeof(with_eax), vaddr + i + 2);
	else if (i >= sizeof(with_rax) &&
		 !memcmp(code + i - sizeof(with_rax), with_rax, sizeof(with_rax)))
		note_trampoline(sites, vaddr + i - sizeof(with_rax), vaddr + i + 2);
}

static void scan_x86(struct call_sites *sites, const uint8_t *code, size_t size, uint64_t vaddr)
{
	static const bool interesting[256] = {[0xe8] = true, [0xff] = true, [0x0f] = true};

	for (size_t i = 0; i < size; i++) {
		size_t left = size - i, length;
		int32_t rel;

		if (__builtin_expect(!interesting[code[i]], true))
			continue;
		if (code[i] == 0xe8 && left >= 5) {
			memcpy(&rel, code + i + 1, sizeof(rel));
			if (is_code(sites, vaddr + i + 5 + (uint64_t)(int64_t)rel))
				mark(sites, vaddr + i + 4);
		} else if (code[i] == 0xff) {
			length = indirect_call_length(code + i, left);
			if (length)
				mark(sites, vaddr + i + length - 1);
		} else if (code[i] == 0x0f && left >= 2 && code[i + 1] == 0x05) {
			mark(sites, vaddr + i);
			mark(sites, vaddr + i + 2);
			note_x86_sigreturn(sites, code, i, vaddr);
		}
	}
}

static void scan_aarch64(struct call_sites *sites, const uint8_t *code, size_t size, uint64_t vaddr)
{
	size_t first = (size_t)(-vaddr & 3);
	uint32_t insn, before = 0;

	for (size_t i = first; i + sizeof(insn) <= size; i += sizeof(insn), before = insn) {
		memcpy(&insn, code + i, sizeof(insn));
		if ((insn & 0xfc000000) == 0x94000000) { /* BL: 26 bits of words, signed */
			int64_t rel = (int64_t)((uint64_t)insn << 38) >> 36;

			if (is_code(sites, vaddr + i + (uint64_t)rel))
				mark(sites, vaddr + i + 3);
		} else if ((insn & 0xfffffc1f) == 0xd63f0000 || /* BLR */
			   (insn & 0xfefff800) == 0xd63f0800) { /* BLRAA, BLRAB, BLRAAZ, BLRABZ */
			mark(sites, vaddr + i + 3);
		} else if ((insn & 0xffe0001f) == 0xd4000001) { /* SVC */
			mark(sites, vaddr + i);
			mark(sites, vaddr + i + 4);
			if (before == 0xd2801168) /* mov x8, #139: rt_sigreturn */
				note_trampoline(sites, vaddr + i - 4, vaddr + i + 4);
		}
	}
}

static void load_window(struct call_sites *sites, uint64_t window)
{
	uint64_t from = window > BEFORE ? window - BEFORE : 0, to = window + WINDOW;

	sites->window = window;
	memset(sites->bits, 0, sizeof(sites->bits));
	for (size_t i = 0; i < sites->text_count; i++) {
		uint64_t start = sites->text[i].start, end = sites->text[i].end;

		start = start > from ? start : from;
		end = end < to ? end : to;
		if (start >= end)
			continue;
		if (image_read(sites->image, start, sites->code, (size_t)(end - start)))
			memset(sites->bits, 0xff, sizeof(sites->bits));
		else if (sites->image->machine == EM_X86_64)
			scan_x86(sites, sites->code, (size_t)(end - start), start);
		else
			scan_aarch64(sites, sites->code, (size_t)(end - start), start);
	}
}

/* Any of the bits [low, high) of the window? */
static bool any_bit(const struct call_sites *sites, size_t low, size_t high)
{
	size_t word = low / WORD_BITS, last = (high - 1) / WORD_BITS;
	uint64_t mask = ~UINT64_C(0) << (low % WORD_BITS);

	for (; word < last; word++, mask = ~UINT64_C(0)) {
		if (sites->bits[word] & mask)
			return true;
	}
	return sites->bits[last] & mask &
	       (~UINT64_C(0) >> (WORD_BITS - 1 - (high - 1) % WORD_BITS));
}

bool call_sites_any(struct call_sites *sites, uint64_t start, uint64_t end)
{
	while (sites->cursor < sites->text_count && sites->text[sites->cursor].end <= start)
		sites->cursor++;
	for (size_t i = sites->cursor; i < sites->text_count && sites->text[i].start < end; i++) {
		uint64_t from = sites->text[i].start, to = sites->text[i].end;

		from = from > start ? from : start;
		to = to < end ? to : end;
		while (from < to) {
			uint64_t window = from & ~(uint64_t)(WINDOW - 1);
			uint64_t stop = to - window < WINDOW ? to - window : WINDOW;

			if (window != sites->window)
				load_window(sites, window);
			if (any_bit(sites, (size_t)(from - window), (size_t)stop))
				return true;
			from = window + stop;
		}
	}
	return false;
}

bool call_sites_sigreturn(struct call_sites *sites, uint64_t start, uint64_t end,
			  struct eh_frame_range *trampoline)
{
	size_t count = sites->trampoline_count;
	bool found = false;

	for (size_t i = 0; i < count && i < TRAMPOLINES_MAX; i++) {
		const struct eh_frame_range *at = &sites->trampolines[i];

		if (at->start < start || at->start >= end ||
		    (found && at->start >= trampoline->start))
			continue;
		*trampoline = *at;
		found = true;
	}
	return found;
}
