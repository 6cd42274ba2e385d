/* What is left of mappings that are unmapped, replaced and moved in parts, beside a model of pages. */
#include "tracer/regions.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PAGE  0x1000ULL
#define PAGES 256
#define BASE  0x7f0000000000ULL

static void apply(struct regions *regions, enum region_event_type type, uint64_t first,
		  uint64_t pages, uint64_t stack, uint32_t id)
{
	const struct region_event event = {
		.start = BASE + first * PAGE,
		.end = BASE + (first + pages) * PAGE,
		.stack = stack,
		.epoch = 1,
		.id = id,
		.type = type,
	};

	regions_apply(regions, &event);
	assert_int_equal(regions->err, 0);
}

/* All counts of a stack, whatever the sizes. */
static struct count count_of(const struct regions *regions, uint64_t stack)
{
	struct count sum = {0};

	for (size_t i = 0; i < regions->counts.count; i++) {
		const struct region_count *item = &regions->counts.items[i];

		if (item->stack != stack)
			continue;
		sum.alloc_objects += item->count.alloc_objects;
		sum.alloc_bytes += item->count.alloc_bytes;
		sum.free_objects += item->count.free_objects;
		sum.free_bytes += item->count.free_bytes;
		sum.lifetimes += item->count.lifetimes;
		for (int j = 0; j < LIFETIMES; j++)
			sum.by_lifetime[j] += item->count.by_lifetime[j];
		if (item->count.first_freed &&
		    (!sum.first_freed || item->count.first_freed < sum.first_freed))
			sum.first_freed = item->count.first_freed;
	}
	return sum;
}

static void assert_count(const struct regions *regions, uint64_t stack, uint64_t objects,
			 uint64_t pages, uint64_t freed, uint64_t freed_pages)
{
	struct count count = count_of(regions, stack);

	assert_int_equal(count.alloc_objects, objects);
	assert_int_equal(count.alloc_bytes, pages * PAGE);
	assert_int_equal(count.free_objects, freed);
	assert_int_equal(count.free_bytes, freed_pages * PAGE);
}

static void test_an_object_goes_with_its_last_part(void **state)
{
	struct regions regions = {0};

	(void)state;
	apply(&regions, REGION_MAPPED, 10, 10, 7, 0);
	apply(&regions, REGION_UNMAPPED, 10, 2, 0, 0);
	assert_count(&regions, 7, 1, 10, 0, 2);
	apply(&regions, REGION_UNMAPPED, 18, 4, 0, 0);
	assert_count(&regions, 7, 1, 10, 0, 4);
	apply(&regions, REGION_UNMAPPED, 14, 1, 0, 0);
	assert_count(&regions, 7, 1, 10, 0, 5);
	apply(&regions, REGION_UNMAPPED, 14, 1, 0, 0); /* not there any more */
	apply(&regions, REGION_UNMAPPED, 0, 10, 0, 0);
	apply(&regions, REGION_UNMAPPED, 20, 100, 0, 0);
	assert_count(&regions, 7, 1, 10, 0, 5);
	apply(&regions, REGION_UNMAPPED, 15, 3, 0, 0);
	assert_count(&regions, 7, 1, 10, 0, 8);
	apply(&regions, REGION_UNMAPPED, 0, 30, 0, 0);
	assert_count(&regions, 7, 1, 10, 1, 10);
	assert_int_equal(regions.pieces.count, 0);
	regions_deinit(&regions);
}

static void test_a_mapping_replaces_what_was_there(void **state)
{
	struct regions regions = {0};

	(void)state;
	apply(&regions, REGION_MAPPED, 0, 10, 1, 0);
	apply(&regions, REGION_MAPPED, 20, 5, 2, 0);
	apply(&regions, REGION_MAPPED, 4, 18, 3, 0);
	assert_count(&regions, 1, 1, 10, 0, 6);
	assert_count(&regions, 2, 1, 5, 0, 2);
	/* One that is not recorded does so too. */
	apply(&regions, REGION_MAPPED, 0, 8, 0, 0);
	assert_count(&regions, 1, 1, 10, 1, 10);
	assert_count(&regions, 3, 1, 18, 0, 4);
	regions_deinit(&regions);
}

static void test_an_mremap_takes_away_only_if_it_succeeds(void **state)
{
	struct regions regions = {0};

	(void)state;
	apply(&regions, REGION_MAPPED, 0, 10, 1, 0);
	apply(&regions, REGION_HELD, 2, 4, 0, 55);
	apply(&regions, REGION_KEPT, 0, 0, 0, 55);
	assert_count(&regions, 1, 1, 10, 0, 0);
	apply(&regions, REGION_UNMAPPED, 3, 1, 0, 0);
	assert_count(&regions, 1, 1, 10, 0, 1);

	apply(&regions, REGION_HELD, 4, 6, 0, 55);
	/* The kernel has moved it, and another thread was given its place, before the call returns. */
	apply(&regions, REGION_MAPPED, 5, 3, 2, 0);
	apply(&regions, REGION_HELD, 0, 1, 0, 66);
	apply(&regions, REGION_MAPPED, 100, 8, 3, 55);
	assert_count(&regions, 1, 1, 10, 0, 7);
	assert_count(&regions, 2, 1, 3, 0, 0);
	assert_count(&regions, 3, 1, 8, 0, 0);
	apply(&regions, REGION_KEPT, 0, 0, 0, 66);
	apply(&regions, REGION_UNMAPPED, 0, 3, 0, 0);
	assert_count(&regions, 1, 1, 10, 1, 10);
	regions_deinit(&regions);
}

static void test_an_exec_forgets_all(void **state)
{
	struct regions regions = {0};
	struct region_event event = {
		.start = BASE,
		.end = BASE + PAGE,
		.stack = 1,
		.epoch = 2,
		.type = REGION_MAPPED,
	};

	(void)state;
	apply(&regions, REGION_MAPPED, 0, 10, 1, 0);
	apply(&regions, REGION_MAPPED, 10, 10, 1, 0);
	apply(&regions, REGION_HELD, 10, 4, 0, 5);
	regions_apply(&regions, &event);
	assert_int_equal(regions.forgotten, 2);
	assert_int_equal(regions.epoch, 2);
	assert_count(&regions, 1, 1, 1, 0, 0);
	assert_int_equal(regions.pieces.count, 1);
	assert_int_equal(regions.held.count, 0);
	regions_deinit(&regions);
}

static void apply_at(struct regions *regions, enum region_event_type type, uint64_t first,
		     uint64_t pages, uint64_t stack, uint32_t id, uint64_t time)
{
	const struct region_event event = {
		.start = BASE + first * PAGE,
		.end = BASE + (first + pages) * PAGE,
		.stack = stack,
		.time = time,
		.epoch = 1,
		.id = id,
		.type = type,
	};

	regions_apply(regions, &event);
	assert_int_equal(regions->err, 0);
}

/* What regions_visit() tells, summed up. */
struct seen {
	const struct regions *regions;
	uint64_t objects, bytes, times;
};

static void see(void *context, uint32_t count, uint64_t time, uint64_t bytes, bool first)
{
	struct seen *seen = context;

	assert_true(count < seen->regions->counts.count);
	seen->objects += first;
	seen->bytes += bytes;
	seen->times += first ? time : 0;
}

static void assert_seen(struct regions *regions, uint64_t objects, uint64_t pages, uint64_t times)
{
	/* Twice: that it was looked at changes nothing. */
	for (int i = 0; i < 2; i++) {
		struct seen seen = {.regions = regions};

		regions_visit(regions, see, &seen);
		assert_int_equal(seen.objects, objects);
		assert_int_equal(seen.bytes, pages * PAGE);
		assert_int_equal(seen.times, times);
	}
}

static void test_a_mapping_has_its_age_until_its_last_part_is_gone(void **state)
{
	struct regions regions = {0};
	struct count count;

	(void)state;
	apply_at(&regions, REGION_MAPPED, 0, 10, 7, 0, 1000);
	apply_at(&regions, REGION_MAPPED, 20, 10, 7, 0, 3000);
	assert_seen(&regions, 2, 20, 4000);
	apply_at(&regions, REGION_UNMAPPED, 4, 2, 0, 0, 1 << 20); /* it is in two parts */
	assert_seen(&regions, 2, 18, 4000);
	count = count_of(&regions, 7);
	assert_int_equal(count.lifetimes, 0);
	assert_int_equal(count.first_freed, 0);
	/* An mremap may take one of them away, and does not. */
	apply_at(&regions, REGION_HELD, 0, 4, 0, 5, 1 << 20);
	assert_seen(&regions, 2, 18, 4000);
	apply_at(&regions, REGION_KEPT, 0, 0, 0, 5, 1 << 20);
	apply_at(&regions, REGION_UNMAPPED, 6, 4, 0, 0, 1 << 20);
	apply_at(&regions, REGION_UNMAPPED, 20, 10, 0, 0, 3000 + (5 << 10));
	count = count_of(&regions, 7);
	assert_int_equal(count.lifetimes, 5);
	assert_int_equal(count.first_freed, 3000);
	assert_int_equal(count.by_lifetime[1], 1);
	/* Moved: one ends, the other begins. */
	apply_at(&regions, REGION_HELD, 0, 4, 0, 5, 1 << 20);
	apply_at(&regions, REGION_MAPPED, 50, 4, 8, 5, 1000 + (1 << 20));
	assert_seen(&regions, 1, 4, 1000 + (1 << 20));
	count = count_of(&regions, 7);
	assert_int_equal(count.lifetimes, 5 + 1024);
	assert_int_equal(count.first_freed, 1000);
	assert_int_equal(count.by_lifetime[5], 1);
	regions_deinit(&regions);
}

/* --- the model: who has each page --- */

#define OBJECTS 4000

static struct model {
	int owner[PAGES]; /* 0: nobody; held pages are nobody's */
	int held[2][PAGES];
	struct model_object {
		uint64_t stack;
		int size, left;
	} objects[OBJECTS];
	int count;
} model;

static void model_take(int first, int pages, int hold)
{
	for (int page = first; page < first + pages && page < PAGES; page++) {
		int owner = model.owner[page];

		model.owner[page] = 0;
		if (owner && hold >= 0)
			model.held[hold][page] = owner;
		else if (owner)
			model.objects[owner].left--;
	}
}

static void model_release(int hold)
{
	for (int page = 0; page < PAGES; page++) {
		int owner = model.held[hold][page];

		model.held[hold][page] = 0;
		if (owner)
			model.objects[owner].left--;
	}
}

static void model_map(int first, int pages, uint64_t stack)
{
	int object;

	model_take(first, pages, -1);
	if (!stack)
		return;
	object = ++model.count;
	model.objects[object] = (struct model_object){stack, pages, pages};
	for (int page = first; page < first + pages; page++)
		model.owner[page] = object;
}

static void assert_model(const struct regions *regions)
{
	for (uint64_t stack = 1; stack <= 3; stack++) {
		uint64_t objects = 0, pages = 0, freed = 0, freed_pages = 0;

		for (int i = 1; i <= model.count; i++) {
			const struct model_object *object = &model.objects[i];

			if (object->stack != stack)
				continue;
			objects++;
			pages += (uint64_t)object->size;
			freed += !object->left;
			freed_pages += (uint64_t)(object->size - object->left);
		}
		assert_count(regions, stack, objects, pages, freed, freed_pages);
	}
	for (size_t i = 0; i < regions->pieces.count; i++) {
		const struct region_piece *piece = &regions->pieces.items[i];

		assert_true(piece->start < piece->end);
		assert_true(!i || regions->pieces.items[i - 1].end <= piece->start);
	}
}

static void test_any_sequence_equals_the_model(void **state)
{
	struct regions regions = {0};
	bool holds[2] = {false};

	(void)state;
	srandom(1);
	for (int step = 0; step < 20000 && model.count < OBJECTS - 1; step++) {
		int pages = 1 + (int)(random() % 40), first = (int)(random() % (PAGES - pages));
		int id = (int)(random() % 2);
		uint64_t stack = (uint64_t)(random() % 4);

		switch (random() % 4) {
		case 0:
			apply(&regions, REGION_MAPPED, (uint64_t)first, (uint64_t)pages, stack, 0);
			model_map(first, pages, stack);
			break;
		case 1:
			/* One that fails finds its place as it was: nothing else comes between. */
			if (!holds[0] && !holds[1] && random() % 2) {
				apply(&regions, REGION_HELD, (uint64_t)first, (uint64_t)pages, 0,
				      1);
				apply(&regions, REGION_KEPT, 0, 0, 0, 1);
				break;
			}
			if (holds[id])
				break;
			apply(&regions, REGION_HELD, (uint64_t)first, (uint64_t)pages, 0,
			      1 + (uint32_t)id);
			model_take(first, pages, id);
			holds[id] = true;
			break;
		case 2:
			if (!holds[id])
				break;
			apply(&regions, REGION_MAPPED, (uint64_t)first, (uint64_t)pages, stack,
			      1 + (uint32_t)id);
			model_release(id);
			model_map(first, pages, stack);
			holds[id] = false;
			break;
		default:
			apply(&regions, REGION_UNMAPPED, (uint64_t)first, (uint64_t)pages, 0, 0);
			model_take(first, pages, -1);
			break;
		}
		assert_model(&regions);
	}
	assert_true(model.count > 1000);
	regions_deinit(&regions);
}

/* Parts of mappings that are only measured, as they are listed: in the order of the list. */
static void assert_part(const struct region_part *part, uint64_t first, uint64_t pages,
			uint64_t object_pages)
{
	assert_int_equal(part->start, BASE + first * PAGE);
	assert_int_equal(part->end, BASE + (first + pages) * PAGE);
	assert_int_equal(part->size, object_pages * PAGE);
}

static void test_parts_are_listed_with_their_object(void **state)
{
	struct regions regions = {0};
	struct region_part *parts;
	size_t count;

	(void)state;
	assert_int_equal(regions_list(&regions, &parts, &count), 0);
	assert_int_equal(count, 0);
	free(parts);
	apply(&regions, REGION_MAPPED, 0, 10, REGION_MEASURED, 0);
	apply(&regions, REGION_MAPPED, 10, 4, REGION_MEASURED, 0);
	/* Both were unmapped unseen, in parts, and an allocator has got the places. */
	apply(&regions, REGION_MAPPED, 4, 2, 0, 0);
	apply(&regions, REGION_MAPPED, 12, 8, 0, 0);
	assert_int_equal(regions_list(&regions, &parts, &count), 0);
	assert_int_equal(count, 3);
	assert_part(&parts[0], 0, 4, 10);
	assert_part(&parts[1], 6, 4, 10);
	assert_part(&parts[2], 10, 2, 4);
	assert_int_equal(parts[0].object, parts[1].object);
	assert_int_not_equal(parts[1].object, parts[2].object);
	free(parts);
	/* An mremap under way has it until it succeeds; then what it made is another object. */
	apply(&regions, REGION_HELD, 10, 4, 0, 55);
	assert_int_equal(regions_list(&regions, &parts, &count), 0);
	assert_int_equal(count, 3);
	free(parts);
	apply(&regions, REGION_MAPPED, 30, 16, REGION_MEASURED, 55);
	assert_int_equal(regions_list(&regions, &parts, &count), 0);
	assert_int_equal(count, 3);
	assert_part(&parts[2], 30, 16, 16);
	free(parts);
	regions_deinit(&regions);
}

/* Of one that maps at ever other addresses, until it executes another program. */
static void test_too_many_pieces_are_told(void **state)
{
	struct regions regions = {.most = 8};
	struct region_event event = {.stack = REGION_MEASURED, .epoch = 1, .type = REGION_MAPPED};
	struct region_part *parts;
	size_t count;

	(void)state;
	for (uint64_t i = 0; i < 8; i++)
		apply(&regions, REGION_MAPPED, 2 * i, 1, REGION_MEASURED, 0);
	assert_int_equal(regions_list(&regions, &parts, &count), 0);
	assert_int_equal(count, 8);
	free(parts);
	/* In the place of another there is no more of them. */
	apply(&regions, REGION_MAPPED, 4, 1, REGION_MEASURED, 0);
	assert_int_equal(regions_list(&regions, &parts, &count), 0);
	free(parts);
	for (uint64_t i = 8; i < 64; i++)
		apply(&regions, REGION_MAPPED, 2 * i, 1, REGION_MEASURED, 0);
	assert_int_equal(regions_list(&regions, &parts, &count), -E2BIG);
	assert_int_equal(regions.pieces.count, 0);
	event.start = BASE;
	event.end = BASE + PAGE;
	event.epoch = 2;
	regions_apply(&regions, &event);
	assert_int_equal(regions_list(&regions, &parts, &count), 0);
	assert_int_equal(count, 1);
	free(parts);
	regions_deinit(&regions);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts_are_listed_with_their_object),
		cmocka_unit_test(test_too_many_pieces_are_told),
		cmocka_unit_test(test_an_object_goes_with_its_last_part),
		cmocka_unit_test(test_a_mapping_replaces_what_was_there),
		cmocka_unit_test(test_an_mremap_takes_away_only_if_it_succeeds),
		cmocka_unit_test(test_an_exec_forgets_all),
		cmocka_unit_test(test_a_mapping_has_its_age_until_its_last_part_is_gone),
		cmocka_unit_test(test_any_sequence_equals_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
