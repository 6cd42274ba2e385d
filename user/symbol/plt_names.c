#include "symbol/plt_names.h"

#include "binary/plt.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a function's name; longer ones are cut. */
#define NAME_MAX_BYTES 4096

struct slot {
	uint64_t address;
	const char *name; /* borrowed from the symbol table */
};

struct slots {
	struct slot *items; /* owned; sorted by address */
	size_t count, capacity;
};

struct walk {
	const struct image *image;
	struct slots slots;
	size_t entries; /* looked at */
	int (*visit)(const struct image_symbol *symbol, void *context);
	void *context;
	char text[NAME_MAX_BYTES];
};

static int add_slot(uint64_t address, const Elf64_Sym *symbol, const char *name, void *context)
{
	struct slots *slots = context;

	(void)symbol;
	return *name ? vec_push(slots, (struct slot){address, name}) : 0;
}

static int compare_slots(const void *a, const void *b)
{
	const struct slot *x = a, *y = b;

	return (x->address > y->address) - (x->address < y->address);
}

static const char *name_at(const struct slots *slots, uint64_t address)
{
	const struct slot key = {.address = address}, *found;

	if (!slots->count)
		return NULL;
	found = bsearch(&key, slots->items, slots->count, sizeof(key), compare_slots);
	return found ? found->name : NULL;
}

/* .plt, .plt.sec, .plt.got and what else linkers call them. */
static bool is_plt(const struct image_section_info *section)
{
	return section->header.sh_flags & SHF_EXECINSTR &&
	       (!strcmp(section->name, ".plt") || !strncmp(section->name, ".plt.", 5));
}

static int visit_section(const struct image_section_info *section, void *context)
{
	const GElf_Shdr *header = &section->header;
	struct walk *walk = context;
	uint64_t step = header->sh_entsize == 8 ? 8 : 16, slot;

	if (!is_plt(section))
		return 0;
	for (uint64_t at = 0; at < header->sh_size && walk->entries < PLT_NAMES_MAX; at += step) {
		struct image_symbol symbol = {
			.name = walk->text,
			.vaddr = header->sh_addr + at,
			.size = step,
			.section = section->index,
			.binding = STB_GLOBAL,
			.dynamic = true,
		};
		const char *name;
		int err;

		walk->entries++;
		if (!plt_is_stub(walk->image, symbol.vaddr, &slot))
			continue;
		name = name_at(&walk->slots, slot);
		if (!name)
			continue;
		snprintf(walk->text, sizeof(walk->text), "%.*s@plt", NAME_MAX_BYTES - 5, name);
		err = walk->visit(&symbol, walk->context);
		if (err)
			return err;
	}
	return 0;
}

int plt_names_for_each(const struct image *image,
		       int (*visit)(const struct image_symbol *symbol, void *context),
		       void *context)
{
	CLEANUP(symtab_deinit) struct symtab dynamic = {0};
	struct walk *walk;
	int err;

	if (image->machine != EM_X86_64 || symtab_load(image, ".dynsym", ".dynstr", &dynamic))
		return 0;
	walk = calloc(1, sizeof(*walk));
	if (!walk)
		return -ENOMEM;
	walk->image = image;
	walk->visit = visit;
	walk->context = context;
	err = plt_for_each_slot(image, &dynamic, add_slot, &walk->slots);
	if (!err && walk->slots.count) {
		qsort(walk->slots.items, walk->slots.count, sizeof(struct slot), compare_slots);
		err = image_for_each_section(image, visit_section, walk);
	}
	free(walk->slots.items);
	free(walk);
	return err == -ENOMEM ? err : 0;
}
