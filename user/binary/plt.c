#include "binary/plt.h"
#include "binary/x86_insn.h"
#include "util/cleanup.h"
#include "util/reader.h"
#include "util/vec.h"

#include <elf.h>

#define SECTION_MAX ((size_t)256 << 20)

static int add_relocations(const struct image *image, const char *section,
			   const struct symtab *dynamic, struct plt *plt)
{
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	struct reader r;
	uint64_t vaddr;
	size_t size;
	int err;

	err = image_section(image, section, SECTION_MAX, &data, &size, &vaddr);
	if (err)
		return err == -ENOENT ? 0 : err;
	r = reader_new(data, size);
	while (reader_left(&r) >= sizeof(Elf64_Rela)) {
		const char *name;
		Elf64_Sym symbol;
		Elf64_Rela rela;

		memcpy(&rela, reader_bytes(&r, sizeof(rela)), sizeof(rela));
		if (ELF64_R_TYPE(rela.r_info) != R_X86_64_JUMP_SLOT &&
		    ELF64_R_TYPE(rela.r_info) != R_X86_64_GLOB_DAT)
			continue;
		if (!symtab_get(dynamic, ELF64_R_SYM(rela.r_info), &symbol, &name) ||
		    symbol.st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol.st_info) != STT_FUNC)
			continue;
		err = vec_push(plt, (struct plt_slot){rela.r_offset, symbol.st_value});
		if (err)
			return err;
	}
	return 0;
}

static int compare_slots(const void *a, const void *b)
{
	const struct plt_slot *x = a, *y = b;

	return (x->slot > y->slot) - (x->slot < y->slot);
}

int plt_load(const struct image *image, const struct symtab *dynamic, struct plt *out)
{
	CLEANUP(plt_deinit) struct plt plt = {0};
	int err;

	err = add_relocations(image, ".rela.plt", dynamic, &plt);
	if (!err)
		err = add_relocations(image, ".rela.dyn", dynamic, &plt);
	if (err)
		return err;
	if (plt.count)
		qsort(plt.items, plt.count, sizeof(*plt.items), compare_slots);
	*out = plt;
	plt = (struct plt){0};
	return 0;
}

void plt_deinit(struct plt *plt)
{
	free(plt->items);
	*plt = (struct plt){0};
}

uint64_t plt_slot_target(const struct plt *plt, uint64_t slot)
{
	const struct plt_slot key = {.slot = slot}, *found;

	if (!plt->count)
		return 0;
	found = bsearch(&key, plt->items, plt->count, sizeof(key), compare_slots);
	return found ? found->target : 0;
}

uint64_t plt_resolve(const struct image *image, const struct plt *plt, uint64_t vaddr)
{
	/* endbr64 (4), bnd jmp *slot(%rip) (7) */
	uint8_t code[11];
	size_t size = sizeof(code), at = 0;
	struct x86_insn insn;

	/* Shorter where the segment ends. */
	while (size && image_read(image, vaddr, code, size))
		size--;
	if (!x86_insn_decode(code, size, vaddr, &insn))
		return vaddr;
	if (insn.is_endbr) {
		at = insn.length;
		if (!x86_insn_decode(code + at, size - at, vaddr + at, &insn))
			return vaddr;
	}
	if (insn.flow == X86_FLOW_JUMP && insn.has_slot)
		return plt_slot_target(plt, insn.slot);
	return vaddr;
}
