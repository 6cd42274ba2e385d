#include "binary/go_text.h"

#include <string.h>

/* Any of these will do: they stay when symbols are stripped. */
static const char *const go_sections[] = {
	".note.go.buildid",
	".go.buildinfo",
	".gopclntab",
	".data.rel.ro.gopclntab",
};

static int is_go_section(const struct image_section_info *section, void *context)
{
	(void)context;
	for (size_t i = 0; i < sizeof(go_sections) / sizeof(*go_sections); i++) {
		if (!strcmp(section->name, go_sections[i]))
			return 1;
	}
	return 0;
}

bool go_text_exists(const struct image *image)
{
	return image_for_each_section(image, is_go_section, NULL) == 1;
}

static int visit_symbol(const struct image_symbol *symbol, void *context)
{
	struct go_text *text = context;

	if (!strcmp(symbol->name, "runtime.text"))
		text->start = symbol->vaddr;
	else if (!strcmp(symbol->name, "runtime.etext"))
		text->end = symbol->vaddr;
	return 0;
}

int go_text_load(const struct image *image, const struct code_ranges *ranges, struct go_text *out)
{
	struct go_text text = {.any = go_text_exists(image), .ranges = ranges};

	if (text.any) {
		int err = image_for_each_function(image, visit_symbol, &text);

		if (err)
			return err;
	}
	*out = text;
	return 0;
}

bool go_text_holds(const struct go_text *text, uint64_t vaddr)
{
	if (!text->any)
		return false;
	if (text->start < text->end)
		return vaddr >= text->start && vaddr < text->end;
	return !code_ranges_has_unwind(text->ranges, vaddr);
}
