#include "symbol/symbolizer.h"

#include "symbol/debuginfo.h"
#include "symbol/demangle.h"
#include "symbol/dwarf_index.h"
#include "symbol/symbol_table.h"
#include "util/cleanup.h"
#include "util/hash_index.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Levels of one address. Recursive templates inline deeply, but not so deeply. */
#define LEVELS_MAX 256
/* Levels of all answers that are kept, 32 bytes each: a hostile file gives many to each address. */
#define KEPT_LEVELS_MAX (1u << 20)

/* Where the levels of an address are in the frames of its source. */
struct answer {
	uint64_t vaddr;
	uint32_t first, count;
};

/* What is known of one image. */
struct source {
	const struct image *image;   /* borrowed */
	struct debuginfo *debuginfo; /* owned */
	struct dwarf_index *dwarf;   /* owned; NULL: none */
	struct symbol_table *table;  /* owned */
	struct hash_index by_vaddr;  /* of answers */
	struct {
		struct answer *items; /* owned */
		size_t count, capacity;
	} answers; /* that have been given: each profile of a process asks for most of them again */
	struct {
		struct symbol_frame *items; /* owned */
		size_t count, capacity;
	} frames;
};

struct symbolizer {
	struct symbolizer_options options;
	struct demangler *demangler; /* owned */
	uint64_t checksum_bytes;     /* that may still be read */
	struct {
		struct source *items; /* owned, sorted as image_compare_files() has it */
		size_t count, capacity;
	} sources;
	size_t kept_levels;
	/* Scratch of symbolizer_resolve(). */
	struct dwarf_frame levels[LEVELS_MAX];
	struct symbol_frame frames[LEVELS_MAX];
};

int symbolizer_new(const struct symbolizer_options *options, struct symbolizer **out)
{
	struct symbolizer *symbolizer = calloc(1, sizeof(*symbolizer));
	int err;

	if (!symbolizer)
		return -ENOMEM;
	symbolizer->options = *options;
	symbolizer->checksum_bytes = DEBUG_SEARCH_CHECKSUM_MAX;
	symbolizer->options.search.checksum_bytes = &symbolizer->checksum_bytes;
	err = demangler_new(&symbolizer->demangler);
	if (err) {
		symbolizer_free(symbolizer);
		return err;
	}
	*out = symbolizer;
	return 0;
}

static void source_deinit(struct source *source)
{
	free(source->frames.items);
	free(source->answers.items);
	hash_index_deinit(&source->by_vaddr);
	symbol_table_free(source->table);
	dwarf_index_free(source->dwarf);
	debuginfo_free(source->debuginfo);
}

void symbolizer_free(struct symbolizer *symbolizer)
{
	if (!symbolizer)
		return;
	vec_for_each(source, &symbolizer->sources) {
		source_deinit(source);
	}
	free(symbolizer->sources.items);
	demangler_free(symbolizer->demangler);
	free(symbolizer);
}

static int source_init(struct source *source, const struct image *image,
		       const struct debug_search *search)
{
	int err;

	*source = (struct source){.image = image};
	err = debuginfo_open(image, search, &source->debuginfo);
	if (!err && source->debuginfo->main.dwarf)
		err = dwarf_index_new(source->debuginfo->main.dwarf, image, search, &source->dwarf);
	if (!err)
		err = symbol_table_new(image, source->debuginfo->separate, &source->table);
	if (err)
		source_deinit(source);
	return err;
}

/* The source of an image, made on first use. Valid until the next call. */
static int find_source(struct symbolizer *symbolizer, const struct image *image,
		       struct source **out)
{
	size_t low = 0, high = symbolizer->sources.count;
	struct source source;
	int err;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct source *at = &symbolizer->sources.items[middle];
		int order = image_compare_files(at->image, image);

		if (!order) {
			*out = at;
			return 0;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	err = source_init(&source, image, &symbolizer->options.search);
	if (err)
		return err;
	err = vec_push(&symbolizer->sources, source);
	if (err) {
		source_deinit(&source);
		return err;
	}
	*out = &symbolizer->sources.items[low];
	memmove(*out + 1, *out, (symbolizer->sources.count - 1 - low) * sizeof(source));
	**out = source;
	return 0;
}

static void set_names(const struct symbolizer *symbolizer, const char *raw,
		      struct symbol_frame *frame)
{
	frame->system_name = raw;
	frame->name = raw;
	if (!symbolizer->options.no_demangle)
		frame->name = demangler_name(symbolizer->demangler, raw);
}

/* C has names that begin so as well. */
static bool is_mangled(const struct symbolizer *symbolizer, const char *name)
{
	return (!strncmp(name, "_Z", 2) || !strncmp(name, "_R", 2)) &&
	       demangler_name(symbolizer->demangler, name) != name;
}

/*
 * The name of a level as it is in the binary, NULL: none. symbol: what the symbol tables have at the
 * address, or NULL.
 */
static const char *raw_name(const struct symbolizer *symbolizer, const struct source *source,
			    const struct dwarf_frame *level, const char *symbol)
{
	const char *raw = level->linkage_name ? level->linkage_name : level->name, *alias;

	if (!level->physical)
		return raw;
	/* Methods of local classes and lambdas have a bare name only ("operator()"); the symbol
	 * says whose. */
	if (!raw || (!level->linkage_name && symbol && is_mangled(symbolizer, symbol)))
		return symbol ? symbol : raw;
	/*
	 * Of a C function with several names DWARF has the one that its author chose for inside
	 * ("__libc_malloc", "__GI___setttyent"), the symbol table also the one that is called. So
	 * it is the same with debug information and without.
	 */
	alias = is_mangled(symbolizer, raw)
			? NULL
			: symbol_table_usual_name(source->table, level->entry, raw);
	return alias && !is_mangled(symbolizer, alias) ? alias : raw;
}

/* All levels at an address, in symbolizer->frames. Their number, or -ENOMEM. */
static int look_up(struct symbolizer *symbolizer, struct source *source, uint64_t vaddr)
{
	struct dwarf_frame *levels = symbolizer->levels;
	const char *symbol = symbol_table_find(source->table, vaddr);
	int count = 0;

	if (source->dwarf)
		count = dwarf_index_lookup(source->dwarf, vaddr, levels, LEVELS_MAX);
	if (count < 0)
		return count;
	if (!count) {
		levels[0] = (struct dwarf_frame){.file = "", .physical = true};
		count = 1;
	}
	/* A function unknown to DWARF, as those of assembler are: the symbol, with the line there
	 * may be. */
	if (count == 1 && !levels[0].name && !symbol)
		return 0;
	for (int i = 0; i < count; i++) {
		const struct dwarf_frame *level = &levels[i];
		const char *raw = raw_name(symbolizer, source, level, symbol);

		symbolizer->frames[i] = (struct symbol_frame){
			.file = level->file,
			.line = level->line,
			.start_line = level->start_line,
		};
		set_names(symbolizer, raw ? raw : "[unknown]", &symbolizer->frames[i]);
	}
	return count;
}

/* --- what has been looked up --- */

static uint64_t hash_vaddr(uint64_t vaddr)
{
	return hash_bytes(HASH_START, &vaddr, sizeof(vaddr));
}

static bool is_answer_for(const void *owner, uint32_t index, const void *key)
{
	const struct source *source = owner;

	return source->answers.items[index].vaddr == *(const uint64_t *)key;
}

/* Keeps an answer while there is room; without memory it is looked up again. */
static void keep(struct symbolizer *symbolizer, struct source *source, uint64_t vaddr, size_t count)
{
	struct answer answer = {vaddr, (uint32_t)source->frames.count, (uint32_t)count};

	/* One more, so that answers without a level have an end, too. */
	if (symbolizer->kept_levels + count + 1 > KEPT_LEVELS_MAX ||
	    hash_index_reserve(&source->by_vaddr))
		return;
	for (size_t i = 0; i < count; i++) {
		if (vec_push(&source->frames, symbolizer->frames[i]))
			return;
	}
	if (vec_push(&source->answers, answer))
		return;
	hash_index_add(&source->by_vaddr, hash_vaddr(vaddr), (uint32_t)(source->answers.count - 1));
	symbolizer->kept_levels += count + 1;
}

int symbolizer_resolve(struct symbolizer *symbolizer, const struct image *image, uint64_t vaddr,
		       struct symbol_frame *frames, size_t max)
{
	const struct symbol_frame *from = symbolizer->frames;
	struct source *source;
	uint32_t index;
	int count, err;

	err = find_source(symbolizer, image, &source);
	if (err || !max)
		return err;
	if (hash_index_find(&source->by_vaddr, hash_vaddr(vaddr), is_answer_for, source, &vaddr,
			    &index)) {
		const struct answer *answer = &source->answers.items[index];

		if (answer->count)
			from = source->frames.items + answer->first;
		count = (int)answer->count;
	} else {
		count = look_up(symbolizer, source, vaddr);
		if (count >= 0)
			keep(symbolizer, source, vaddr, (size_t)count);
	}
	if (count > 0 && (size_t)count > max)
		count = (int)max;
	if (count > 0)
		memcpy(frames, from, (size_t)count * sizeof(*frames));
	return count;
}

void symbolizer_source(struct symbolizer *symbolizer, const struct image *image,
		       struct symbol_source *out)
{
	struct source *source;

	*out = (struct symbol_source){0};
	if (find_source(symbolizer, image, &source))
		return;
	out->has_functions = source->dwarf || symbol_table_count(source->table) > 0;
	out->has_lines = source->dwarf && dwarf_index_has_lines(source->dwarf);
	out->has_inlines = source->dwarf != NULL;
	out->limited = source->debuginfo->too_large ||
		       (source->dwarf && dwarf_index_is_limited(source->dwarf));
	if (source->dwarf) {
		const struct dwarf_split_counts counts = dwarf_index_split_counts(source->dwarf);

		out->split_missing = counts.missing;
		out->split_stale = counts.stale;
	}
}
