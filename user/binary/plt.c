#include "binary/plt.h"
#include "binary/x86_insn.h"
#include "util/cleanup.h"
#include "util/reader.h"
#include "util/vec.h"

#include <elf.h>

#define SECTION_MAX ((size_t)256 << 20)

struct visitor {
	int (*visit)(uint64_t slot, const Elf64_Sym *symbol, const char *name, void *context);
	void *context;
};

static int visit_relocations(const struct image *image, const char *section,
			     const struct symtab *dynamic, const struct visitor *visitor)
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
		if (!symtab_get(dynamic, ELF64_R_SYM(rela.r_info), &symbol, &name))
			continue;
		err = visitor->visit(rela.r_offset, &symbol, name, visitor->context);
		if (err)
			return err;
	}
	return 0;
}

int plt_for_each_slot(const struct image *image, const struct symtab *dynamic,
		      int (*visit)(uint64_t slot, const Elf64_Sym *symbol, const char *name,
				   void *context),
		      void *context)
{
	const struct visitor visitor = {visit, context};
	int err = visit_relocations(image, ".rela.plt", dynamic, &visitor);

	return err ? err : visit_relocations(image, ".rela.dyn", dynamic, &visitor);
}

/* --- the slots that matter to an allocator --- */

/* A function of another image, if by its name it allocates or frees. */
static const struct family_function *find_external(const char *name)
{
	const struct family_function *found = NULL;

	for (size_t i = 0; i < FAMILY_COUNT && !found; i++)
		found = family_find(&families[i], families[i].prefix, name);
	return found && !found->unprobed ? found : NULL;
}

static int add_slot(uint64_t slot, const Elf64_Sym *symbol, const char *name, void *context)
{
	struct plt_slot item = {.slot = slot};
	struct plt *plt = context;

	if (symbol->st_shndx == SHN_UNDEF)
		item.external = find_external(name);
	else if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC)
		item.target = symbol->st_value;
	return item.target || item.external ? vec_push(plt, item) : 0;
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

	err = plt_for_each_slot(image, dynamic, add_slot, &plt);
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

const struct plt_slot *plt_find(const struct plt *plt, uint64_t slot)
{
	const struct plt_slot key = {.slot = slot};

	if (!plt->count)
		return NULL;
	return bsearch(&key, plt->items, plt->count, sizeof(key), compare_slots);
}

bool plt_is_stub(const struct image *image, uint64_t vaddr, uint64_t *slot)
{
	/* endbr64 (4), bnd jmp *slot(%rip) (7) */
	uint8_t code[11];
	size_t size = sizeof(code), at = 0;
	struct x86_insn insn;

	/* Shorter where the segment ends. */
	while (size && image_read(image, vaddr, code, size))
		size--;
	if (!x86_insn_decode(code, size, vaddr, &insn))
		return false;
	if (insn.is_endbr) {
		at = insn.length;
		if (!x86_insn_decode(code + at, size - at, vaddr + at, &insn))
			return false;
	}
	if (insn.flow != X86_FLOW_JUMP || !insn.has_slot)
		return false;
	*slot = insn.slot;
	return true;
}
