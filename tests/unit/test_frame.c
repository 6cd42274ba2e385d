/* Which of a profile's frames stand for its growth. */
#include "output/alloc_frames.h"
#include "output/callers.h"
#include "output/frame.h"
#include "sample_profile.h"

#include <stdlib.h>

enum { TOUCHES, MALLOC, OTHER, NAMELESS };

/* MALLOC's name is an allocator's own, NAMELESS has none. Stack n of the growth is stacks[n] with bytes[n]. */
static struct profile *make(const int *stacks, const double *bytes, size_t count)
{
	static const int at[] = {AT_SESSION_NEW, AT_LIBC, AT_CACHE_PUT, AT_JIT};
	struct profile *profile;

	assert_int_equal(profile_new(&profile), 0);
	assert_int_equal(profile_add_mapping(profile, EXE_START, EXE_START + 0x10000, 0x1000,
					     SAMPLE_EXE, "00", NULL),
			 0);
	for (size_t i = 0; i < count; i++) {
		uint32_t site = sample_site(profile, false, 1, &at[stacks[i]]);
		struct estimate space = {0};

		estimate_add_event(&space, 1, bytes[i]);
		assert_int_equal(profile_add_growth(profile, site, PROFILE_HEAP, 1, &space), 0);
	}
	sample_line(profile, AT_SESSION_NEW, "session_new", "session_new", "session.c", 10);
	sample_line(profile, AT_LIBC, "malloc", "malloc", "", 10);
	sample_line(profile, AT_CACHE_PUT, "cache_put", "cache_put", "cache.c", 20);
	profile_finish_growth(profile);
	return profile;
}

/* NULL: nothing is found. */
static void assert_found(const int *stacks, const double *bytes, size_t count, const char *name,
			 int64_t wanted)
{
	struct profile *profile = make(stacks, bytes, count);
	struct frame_cursor cursor;
	struct frame frame;
	int64_t found;

	if (!name) {
		assert_false(frame_find_growth(profile, &cursor, &frame, &found));
	} else {
		assert_true(frame_find_growth(profile, &cursor, &frame, &found));
		assert_string_equal(frame.name, name);
		assert_int_equal(found, wanted);
		/* Behind that frame: the way outwards does not meet it again. */
		while (frame_next_outward(&cursor, &frame))
			assert_string_not_equal(frame.name, name);
	}
	profile_free(profile);
}

static void assert_callers(size_t width, const char *expected)
{
	const int at[] = {AT_SESSION_NEW, AT_CACHE_PUT, AT_JIT, AT_JIT, AT_LIBC};
	struct profile *profile;
	struct frame_cursor cursor;
	struct frame frame;
	uint32_t site;
	char *text;

	assert_int_equal(profile_new(&profile), 0);
	assert_int_equal(profile_add_mapping(profile, EXE_START, EXE_START + 0x10000, 0x1000,
					     SAMPLE_EXE, "00", NULL),
			 0);
	site = sample_site(profile, true, 5, at);
	cursor = (struct frame_cursor){
		.profile = profile,
		.site = &profile->sites.items[site],
	};
	sample_line(profile, AT_SESSION_NEW, "session_new", "session_new", "session.c", 10);
	sample_line(profile, AT_CACHE_PUT, "put\x1b\xff", "put\x1b\xff", "/src/a\n.c", 20);
	sample_line(profile, AT_LIBC, "main", "main", "", 0);
	assert_true(frame_next_outward(&cursor, &frame));
	assert_int_equal(callers_format(&cursor, width, &text), 0);
	if (expected)
		assert_string_equal(text, expected);
	else
		assert_null(text);
	free(text);
	/* Nobody has called the outermost. */
	while (frame_next_outward(&cursor, &frame))
		;
	assert_int_equal(callers_format(&cursor, width, &text), 0);
	assert_null(text);
	profile_free(profile);
}

static void callers_are_escaped_once_and_cut(void **state)
{
	(void)state;
	assert_callers(100, "< put\\x1B\\xFF a\\x0A.c:20 < [unknown] < main");
	assert_callers(20, "< put\\x1B\\xFF a\\x0A.c:20 < ...");
}

static void the_largest_stack_stands_for_the_growth(void **state)
{
	(void)state;
	assert_found((int[]){OTHER, TOUCHES}, (double[]){40, 60}, 2, "session_new", 60);
	assert_found((int[]){TOUCHES, NAMELESS}, (double[]){40, 60}, 2, "[unknown]", 60);
}

static void a_stack_within_an_allocator_leaves_it_to_the_next(void **state)
{
	(void)state;
	assert_found((int[]){MALLOC, OTHER, TOUCHES}, (double[]){60, 15, 25}, 3, "session_new", 25);
	/* What has no name does not come before what has one. */
	assert_found((int[]){MALLOC, NAMELESS, TOUCHES}, (double[]){60, 28, 12}, 3, "session_new",
		     12);
}

static void a_small_part_does_not_stand_for_all(void **state)
{
	(void)state;
	assert_found((int[]){MALLOC, TOUCHES}, (double[]){920, 80}, 2, NULL, 0);
	assert_found((int[]){MALLOC}, (double[]){100}, 1, NULL, 0);
	assert_found(NULL, NULL, 0, NULL, 0);
}

/* CPython's own functions below PyObject_Malloc, which are inlined or not, by its version. */
static void an_interpreters_allocator_is_no_site(void **state)
{
	static const char *const names[] = {
		"_PyObject_Malloc",	  "pymalloc_alloc", "pymalloc_pool_extend",
		"allocate_from_new_pool", "new_arena",	    "_PyObject_ArenaMmap"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert_true(alloc_frames_touch(names[i]));
	assert_false(alloc_frames_touch("PyUnicode_New"));
	assert_false(alloc_frames_touch("list_resize"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(callers_are_escaped_once_and_cut),
		cmocka_unit_test(the_largest_stack_stands_for_the_growth),
		cmocka_unit_test(a_stack_within_an_allocator_leaves_it_to_the_next),
		cmocka_unit_test(a_small_part_does_not_stand_for_all),
		cmocka_unit_test(an_interpreters_allocator_is_no_site),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
