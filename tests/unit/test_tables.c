/* Unwind tables of several targets in arrays of ordinary memory, and the extents that they lie in.
 */
#include "tracer/tables.h"

#include "util/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void extents_give_back_what_they_took(void **state)
{
	struct extents extents;
	uint32_t a, b, c, whole;

	(void)state;
	assert_int_equal(extents_init(&extents, 100), 0);
	assert_int_equal(extents_take(&extents, 40, &a), 0);
	assert_int_equal(extents_take(&extents, 40, &b), 0);
	assert_int_equal(extents_take(&extents, 40, &c), -ENOSPC);
	assert_int_equal(extents_take(&extents, 20, &c), 0);
	assert_int_equal(extents_take(&extents, 1, &whole), -ENOSPC);
	assert_int_equal(extents_take(&extents, 0, &whole), 0);
	/* In any order: neighbours join. */
	assert_int_equal(extents_give(&extents, a, 40), 0);
	assert_int_equal(extents_give(&extents, c, 20), 0);
	assert_int_equal(extents.count, 2);
	assert_int_equal(extents_give(&extents, b, 40), 0);
	assert_int_equal(extents.count, 1);
	assert_int_equal(extents_take(&extents, 100, &whole), 0);
	assert_int_equal(whole, 0);
	extents_deinit(&extents);
}

/* Random takes and gives against a map of who owns each unit. */
static void extents_never_overlap(void **state)
{
	static uint8_t owned[1000];
	static struct extent held[200];
	struct extents extents;
	size_t count = 0;

	(void)state;
	srandom(7);
	memset(owned, 0, sizeof(owned));
	assert_int_equal(extents_init(&extents, 1000), 0);
	for (int round = 0; round < 20000; round++) {
		uint32_t size = 1 + (uint32_t)random() % 50, first;

		if (random() % 2 && count < 200 && !extents_take(&extents, size, &first)) {
			for (uint32_t i = first; i < first + size; i++)
				assert_int_equal(owned[i]++, 0);
			held[count++] = (struct extent){first, size};
		} else if (count) {
			size_t which = (size_t)random() % count;

			for (uint32_t i = 0; i < held[which].count; i++)
				owned[held[which].first + i]--;
			assert_int_equal(
				extents_give(&extents, held[which].first, held[which].count), 0);
			held[which] = held[--count];
		}
	}
	extents_deinit(&extents);
}

struct arrays {
	struct unwind_row_pair *rows;
	struct unwind_page *pages;
	struct unwind_rule *rules;
	struct unwind_mapping *mappings;
	struct tables_sizes sizes;
};

static void place(struct tables *tables, struct arrays *arrays, uint32_t more_rows)
{
	arrays->sizes = tables_sizes(tables, more_rows, 1000);
	arrays->rows = calloc(arrays->sizes.row_pairs + 1, sizeof(*arrays->rows));
	arrays->pages = calloc(arrays->sizes.pages, sizeof(*arrays->pages));
	arrays->rules = calloc(UNWIND_RULES_MAX, sizeof(*arrays->rules));
	arrays->mappings = calloc(arrays->sizes.mappings, sizeof(*arrays->mappings));
	assert_int_equal(tables_place(tables, &arrays->sizes, arrays->rows, arrays->pages,
				      arrays->rules, arrays->mappings),
			 0);
}

static void arrays_free(struct arrays *arrays)
{
	free(arrays->rows);
	free(arrays->pages);
	free(arrays->rules);
	free(arrays->mappings);
}

static void two_targets_share_one_table_until_both_are_gone(void **state)
{
	struct process *one, *other;
	struct arrays arrays;
	struct tables tables;
	uint64_t words[2] = {0, 0};
	size_t used, known;

	(void)state;
	assert_int_equal(process_open(getpid(), &one), 0);
	assert_int_equal(process_open(getpid(), &other), 0);
	assert_int_equal(tables_init(&tables, 2), 0);
	for (size_t i = 0; i < one->images.count; i++)
		assert_int_equal(tables_add_image(&tables, one->images.items[i]), 0);
	place(&tables, &arrays, 0);
	used = tables_used(&tables);
	assert_true(used > 1000);

	assert_int_equal(tables_update(&tables, 0, one, &words[0]), 0);
	assert_int_equal(tables_update(&tables, 1, other, &words[1]), 0);
	assert_int_equal(tables_used(&tables), used);
	assert_int_equal(tables.full, 0);
	assert_true(words[0] && words[1] && words[0] != words[1]);

	tables_drop(&tables, 0, &words[0]);
	assert_int_equal(words[0], 0);
	assert_int_equal(tables_used(&tables), used);
	tables_drop(&tables, 1, &words[1]);

	/* Who comes again finds it there. */
	assert_int_equal(tables_used(&tables), used);
	known = tables.images.count;
	assert_int_equal(tables_update(&tables, 0, one, &words[0]), 0);
	assert_int_equal(tables.images.count, known);
	assert_int_equal(tables.full, 0);
	assert_int_equal(tables_used(&tables), used);
	tables_deinit(&tables);
	arrays_free(&arrays);
	process_free(one);
	process_free(other);
}

/* A process that has mapped nothing but one file. */
static struct process *process_of(const char *path)
{
	struct process *process = calloc(1, sizeof(*process));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct mapping mapping = {.start = 1 << 20, .end = 2 << 20, .path = strdup(path)};

	assert_true(process && fd >= 0 && mapping.path);
	process->pidfd = -1;
	assert_int_equal(image_open(fd, path, &mapping.image), 0);
	assert_int_equal(vec_push(&process->images, mapping.image), 0);
	for (size_t i = 0; i < mapping.image->segment_count; i++) {
		if (mapping.image->segments[i].executable)
			mapping.offset = mapping.image->segments[i].offset;
	}
	assert_int_equal(vec_push(&process->mappings, mapping), 0);
	return process;
}

/* The first mapping of a slice. */
static const struct unwind_mapping *first_mapping(const struct arrays *arrays, uint64_t word)
{
	assert_true((uint32_t)word > 0);
	return &arrays->mappings[word >> 32];
}

static void table_that_nobody_uses_gives_way(void **state)
{
	struct process *bash = process_of("/bin/bash"), *ours = process_of("/proc/self/exe");
	struct process *loader = process_of("/lib64/ld-linux-x86-64.so.2");
	struct arrays arrays;
	struct tables tables;
	uint64_t words[3] = {0, 0, 0};

	(void)state;
	assert_int_equal(tables_init(&tables, 3), 0);
	assert_int_equal(tables_add_image(&tables, bash->images.items[0]), 0);
	place(&tables, &arrays, 0); /* bash is much larger than the other two together */
	assert_int_equal(tables_update(&tables, 0, bash, &words[0]), 0);
	assert_true(first_mapping(&arrays, words[0])->image.page_count > 0);

	assert_int_equal(tables_update(&tables, 1, ours, &words[1]), 0);
	assert_int_equal(first_mapping(&arrays, words[1])->image.page_count, 0);
	assert_int_equal(tables.full, 1);
	tables_drop(&tables, 0, &words[0]);
	assert_int_equal(tables_update(&tables, 2, loader, &words[2]), 0);
	assert_true(first_mapping(&arrays, words[2])->image.page_count > 0);
	assert_int_equal(tables.full, 1);

	/* And is built again: for that the loader's has to go in its turn. */
	tables_drop(&tables, 2, &words[2]);
	assert_int_equal(tables_update(&tables, 0, bash, &words[0]), 0);
	assert_true(first_mapping(&arrays, words[0])->image.page_count > 0);
	tables_deinit(&tables);
	arrays_free(&arrays);
	process_free(bash);
	process_free(ours);
	process_free(loader);
}

/* A process with two files, and room for one of them only. */
static void tables_of_one_process_do_not_take_each_other_s_room(void **state)
{
	struct process *bash = process_of("/bin/bash");
	struct process *loader = process_of("/lib64/ld-linux-x86-64.so.2");
	struct mapping second;
	struct arrays arrays;
	struct tables tables;
	uint64_t word = 0;

	(void)state;
	assert_int_equal(tables_init(&tables, 1), 0);
	assert_int_equal(tables_add_image(&tables, bash->images.items[0]), 0);
	place(&tables, &arrays, 0);
	second = loader->mappings.items[0];
	second.start += 4 << 20;
	second.end += 4 << 20;
	second.path = strdup(second.path);
	assert_int_equal(vec_push(&bash->mappings, second), 0);
	assert_int_equal(tables_update(&tables, 0, bash, &word), 0);
	assert_true(first_mapping(&arrays, word)[0].image.page_count > 0);
	assert_int_equal(first_mapping(&arrays, word)[1].image.page_count, 0);
	assert_int_equal(tables.full, 1);
	tables_deinit(&tables);
	arrays_free(&arrays);
	process_free(bash);
	process_free(loader);
}

static void slice_is_sorted_and_leads_to_this_function(void **state)
{
	uint64_t here = (uint64_t)(uintptr_t)slice_is_sorted_and_leads_to_this_function, word = 0;
	const struct unwind_mapping *mine = NULL;
	struct process *process;
	struct arrays arrays;
	struct tables tables;

	(void)state;
	assert_int_equal(process_open(getpid(), &process), 0);
	assert_int_equal(tables_init(&tables, 1), 0);
	place(&tables, &arrays, 1 << 20);
	assert_int_equal(tables_update(&tables, 0, process, &word), 0);
	for (uint32_t i = 0; i < (uint32_t)word; i++) {
		const struct unwind_mapping *mapping = &arrays.mappings[(word >> 32) + i];

		assert_true(mapping->start < mapping->end && !(mapping->end >> 63));
		assert_true(i == 0 || mapping[-1].end <= mapping->start);
		if (here >= mapping->start && here < mapping->end)
			mine = mapping;
	}
	assert_non_null(mine);
	assert_true(mine->image.page_count > 0);
	tables_deinit(&tables);
	arrays_free(&arrays);
	process_free(process);
}

static void table_without_room_is_counted(void **state)
{
	struct process *process;
	struct arrays arrays;
	struct tables tables;
	uint64_t word = 0;

	(void)state;
	assert_int_equal(process_open(getpid(), &process), 0);
	assert_int_equal(tables_init(&tables, 1), 0);
	place(&tables, &arrays, 4);
	assert_int_equal(tables_update(&tables, 0, process, &word), 0);
	assert_true(tables.full > 0);
	assert_true((uint32_t)word > 0); /* their mappings are known all the same */
	tables_deinit(&tables);
	arrays_free(&arrays);
	process_free(process);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(extents_give_back_what_they_took),
		cmocka_unit_test(extents_never_overlap),
		cmocka_unit_test(two_targets_share_one_table_until_both_are_gone),
		cmocka_unit_test(table_that_nobody_uses_gives_way),
		cmocka_unit_test(tables_of_one_process_do_not_take_each_other_s_room),
		cmocka_unit_test(slice_is_sorted_and_leads_to_this_function),
		cmocka_unit_test(table_without_room_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
