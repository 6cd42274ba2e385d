/* What a sweep's result is written as, with names from outside that mean harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sweep_rows.h"
#include "output/sweep.h"
#include "util/vec.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define HOSTILE "a\x1b[2J\\\xed\xa0\x80\xff\n\"" /* a surrogate is no UTF-8 either */
#define ESCAPED "a\\x1B[2J\\\\\\xED\\xA0\\x80\\xFF\\x0A\""

static char *copy(const char *text)
{
	char *made = strdup(text);

	assert_non_null(made);
	return made;
}

static void make(struct sweep_result *result)
{
	struct sweep_row row = {
		.pid = 7,
		.comm = copy(HOSTILE),
		.cgroup = copy("/" HOSTILE),
		.verdict_text = copy("comes from " ESCAPED),
		.site = {.function = copy(HOSTILE), .file = copy(HOSTILE), .share = 0.5},
	};

	struct sweep_brief brief = {.comm = copy(HOSTILE), .parent = copy(HOSTILE), .count = 12};

	*result = (struct sweep_result){
		.version = "1",
		.kernel = copy("6"),
		.processes = 1,
		.short_lived = 20,
	};
	assert_int_equal(vec_push(&result->rows, row), 0);
	assert_int_equal(vec_push(&result->brief, brief), 0);
}

static const char *text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static json_int_t number_of(const json_t *object, const char *name)
{
	const json_t *number = json_object_get(object, name);

	assert_true(json_is_integer(number));
	return json_integer_value(number);
}

/* Both are to be freed. */
static json_t *read_back(const struct sweep_result *result, char **text)
{
	size_t size;
	FILE *to = open_memstream(text, &size);

	assert_non_null(to);
	assert_int_equal(sweep_json_write(result, to), 0);
	fclose(to);
	return json_loads(*text, 0, NULL);
}

static void names_are_escaped_once(void **state)
{
	struct sweep_result result;
	json_t *root, *row, *brief;
	char *text;

	(void)state;
	make(&result);
	root = read_back(&result, &text);
	row = json_array_get(json_object_get(root, "processes"), 0);
	assert_string_equal(text_of(row, "comm"), ESCAPED);
	assert_string_equal(text_of(row, "cgroup"), "/" ESCAPED);
	assert_string_equal(text_of(json_object_get(row, "top_site"), "function"), ESCAPED);
	assert_string_equal(text_of(json_object_get(row, "verdict"), "text"),
			    "comes from " ESCAPED);
	assert_true(json_is_null(json_object_get(row, "zoomed_after_seconds")));
	brief = json_array_get(json_object_get(root, "short_lived"), 0);
	assert_string_equal(text_of(brief, "comm"), ESCAPED);
	assert_string_equal(text_of(brief, "parent"), ESCAPED);
	assert_int_equal(json_integer_value(json_object_get(brief, "count")), 12);
	json_decref(root);
	free(text);
	sweep_result_deinit(&result);
}

/* The ledger is there where there is an account, as integers that are the account's. */
static void the_ledger_is_told_in_numbers(void **state)
{
	struct sweep_result result;
	json_t *root, *row, *ledger;
	char *text;

	(void)state;
	make(&result);
	root = read_back(&result, &text);
	row = json_array_get(json_object_get(root, "processes"), 0);
	assert_true(json_is_null(json_object_get(row, "ledger")));
	json_decref(root);
	free(text);
	result.rows.items[0].account = strdup("2.00 MiB = ...");
	result.rows.items[0].ledger = (struct ledger){
		.rss_start = 1 << 20,
		.rss_end = 2 << 20,
		.live = {1000, 900, 1200},
		.direct_known = true,
		.direct = {2000, 1900, 2200},
		.direct_lost = 3,
		.stacks = -4096,
		.file = 8192,
		.shmem = 12288,
		.swapped_out = 16384,
		.not_explained = (1 << 20) - 3000,
	};
	root = read_back(&result, &text);
	row = json_array_get(json_object_get(root, "processes"), 0);
	ledger = json_object_get(row, "ledger");
	assert_int_equal(number_of(ledger, "rss_start"), 1 << 20);
	assert_int_equal(number_of(ledger, "rss_end"), 2 << 20);
	assert_int_equal(number_of(json_object_get(ledger, "live"), "value"), 1000);
	assert_int_equal(number_of(json_object_get(ledger, "live"), "low"), 900);
	assert_int_equal(number_of(json_object_get(ledger, "live"), "high"), 1200);
	assert_int_equal(number_of(json_object_get(ledger, "direct_mappings"), "value"), 2000);
	assert_int_equal(number_of(json_object_get(ledger, "direct_mappings"), "low"), 1900);
	assert_int_equal(number_of(json_object_get(ledger, "direct_mappings"), "high"), 2200);
	assert_int_equal(number_of(ledger, "direct_mappings_lost"), 3);
	assert_int_equal(number_of(ledger, "stacks"), -4096);
	assert_int_equal(number_of(ledger, "file"), 8192);
	assert_int_equal(number_of(ledger, "shmem"), 12288);
	assert_int_equal(number_of(ledger, "swapped_out"), 16384);
	assert_int_equal(number_of(ledger, "not_explained"), (1 << 20) - 3000);
	json_decref(root);
	free(text);
	result.rows.items[0].ledger.direct_known = false;
	root = read_back(&result, &text);
	row = json_array_get(json_object_get(root, "processes"), 0);
	ledger = json_object_get(row, "ledger");
	assert_true(json_is_null(json_object_get(ledger, "direct_mappings")));
	json_decref(root);
	free(text);
	sweep_result_deinit(&result);
}

static void no_name_steers_the_terminal(void **state)
{
	struct sweep_result result;
	char *text;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	(void)state;
	make(&result);
	result.rows.items[0].zoomed = true;
	assert_non_null(to);
	assert_int_equal(sweep_table_write(&result, 10, to), 0);
	sweep_table_write_rows(&result, to);
	fclose(to);
	assert_null(strchr(text, '\x1b'));
	assert_null(strchr(text, '\xff'));
	assert_non_null(strstr(text, "7 " ESCAPED ": comes from " ESCAPED "\n"));
	assert_non_null(
		strstr(text, "\nbriefly lived: 12 " ESCAPED " (of " ESCAPED ") and 8 more\n"));
	free(text);
	sweep_result_deinit(&result);
}

/* The table about one process, whose names are given; to be freed. */
static char *table_of(struct sweep_row row, const char *comm, const char *cgroup)
{
	struct sweep_result result = {.version = "1", .kernel = copy("6"), .processes = 1};
	size_t size;
	char *text;
	FILE *to = open_memstream(&text, &size);

	row.pid = 7;
	row.comm = copy(comm);
	row.cgroup = copy(cgroup);
	assert_non_null(to);
	assert_int_equal(vec_push(&result.rows, row), 0);
	assert_int_equal(sweep_table_write(&result, 10, to), 0);
	fclose(to);
	sweep_result_deinit(&result);
	return text;
}

/* Where the figures of a row begin: columns, counted as characters. */
static size_t place_of_figures(const char *comm, const char *cgroup)
{
	char *text = table_of((struct sweep_row){.rss_end = 123 << 20}, comm, cgroup);
	const char *line = strstr(text, "\n      7 "), *figures;
	size_t columns = 0;

	assert_non_null(line);
	figures = strstr(line, "123 MiB");
	assert_non_null(figures);
	for (; line < figures; line++)
		columns += ((uint8_t)*line & 0xc0) != 0x80;
	free(text);
	return columns;
}

static void columns_are_of_characters(void **state)
{
	const size_t place = place_of_figures("plain", "/plain");

	(void)state;
	assert_int_equal(place_of_figures("größe", "/plain"), place);
	assert_int_equal(place_of_figures("é", "/dienst-ü"), place);
	/* Cut at both ends, between two characters: of \xff not more than is left of it. */
	assert_int_equal(
		place_of_figures("ééééééééééééééééééééé", "/éééééééééééééééééééééééééééééé"),
		place);
	assert_int_equal(place_of_figures("\xff\xff\xff\xff\xff", "/\xff"), place);
	assert_int_equal(place_of_figures("", ""), place);
}

static void losses_are_told(void **state)
{
	struct sweep_row row = {.zoomed = true, .sampled = 500, .lost = 12};
	char *text = table_of(row, "x", "/");

	(void)state;
	assert_null(strstr(text, "LOST"));
	free(text);
	row.losses = copy("live map full: 12");
	text = table_of(row, "x", "/");
	assert_non_null(strstr(text, "\n        LOST 12 of 500 samples (live map full: 12): "));
	free(text);
}

static bool tells_share(const struct sweep_row *row, const char *words)
{
	char *text = table_of(*row, "x", "/");
	bool told = strstr(text, words);

	free(text);
	return told;
}

static void share_is_told_where_it_is_much_less(void **state)
{
	struct sweep_row row = {.rss_end = 140 << 20, .pss = 12 << 20, .share_known = true};

	(void)state;
	assert_true(tells_share(&row, "PSS 12.0 MiB of 140 MiB RSS"));
	row.pss = 120 << 20;
	assert_false(tells_share(&row, "PSS"));
	/* A small one that maps the same libraries as others. */
	row.rss_end = 4 << 20;
	row.pss = 1 << 20;
	assert_false(tells_share(&row, "PSS"));
	assert_false(tells_share(&(struct sweep_row){.rss_end = 140 << 20}, "PSS"));
}

static void callers_and_ages_stand_below_the_site(void **state)
{
	struct sweep_row row = {
		.zoomed = true,
		.live = 1,
		.site = {.function = copy("f"), .share = 1, .callers = copy("< g g.c:7 < main")},
		.site_ages = {.known = true, .text = copy("80 % older than 10 s")},
	};
	char *text = table_of(row, "x", "/");

	(void)state;
	assert_non_null(strstr(text, "of live bytes: f\n"
				     "              < g g.c:7 < main\n"
				     "              ages: 80 % older than 10 s\n"));
	free(text);
}

static void columns_are_those_that_say_something(void **state)
{
	struct sweep_row row = {.rss_start = 1 << 20, .rss_end = 8 << 20, .anon_growth = 7 << 20};
	char *text = table_of(row, "plain", "/plain");

	(void)state;
	assert_non_null(strstr(text, " growth  anonymous      live "));
	assert_non_null(strstr(text, "8.00 MiB  +7.00 MiB  +7.00 MiB         - "));
	free(text);

	/* Some pages of code that have breakpoints are the process's own. */
	row.shared_growth = -(16 << 10);
	text = table_of(row, "plain", "/plain");
	assert_non_null(strstr(text, " growth  anonymous      live "));
	free(text);

	/* Of which kind the rest is, is not known. */
	row.anon_growth = 5 << 20;
	row.shared_growth = 2 << 20;
	text = table_of(row, "plain", "/plain");
	assert_non_null(strstr(text, " anonymous       files      live "));
	assert_non_null(strstr(text, "+7.00 MiB  +5.00 MiB  +2.00 MiB? "));
	free(text);

	row.kinds_known = true;
	row.file_growth = 0;
	row.shmem_growth = 2 << 20;
	text = table_of(row, "plain", "/plain");
	assert_non_null(strstr(text, " anonymous     shared      live "));
	assert_non_null(strstr(text, "+7.00 MiB  +5.00 MiB  +2.00 MiB   "));
	free(text);
}

static void rows_name_the_first_site(void **state)
{
	struct sweep_row row = {
		.zoomed = true,
		.live = 1 << 20,
		.site = {.function = copy("keeps"), .file = copy("")},
		.growth_site = {.function = copy("touches"), .file = copy("")},
	};
	char *text = table_of(row, "plain", "/plain");

	(void)state;
	assert_non_null(strstr(text, "1.00 MiB       0 B/s  too short  keeps\n"));
	free(text);

	row.live = 0;
	row.site = (struct sweep_site){.function = copy("allocates"), .file = copy("")};
	row.growth_site = (struct sweep_site){.function = copy("touches"), .file = copy("")};
	text = table_of(row, "plain", "/plain");
	assert_non_null(strstr(text, "0 B       0 B/s  too short  touches\n"));
	free(text);
}

/* Whose memory stays, and whose does not, stand in one sentence. */
static void what_stayed_is_named_where_other_memory_grew(void **state)
{
	struct sweep_row row = {
		.verdict = {.kind = VERDICT_FLAT},
		.shared_growth = 15 << 20,
		.kinds_known = true,
		.shmem_growth = 14 << 20,
	};

	(void)state;
	assert_int_equal(sweep_row_judge(&row), 0);
	assert_string_equal(row.verdict_text,
			    "anonymous memory stayed within 0 B; shared memory grew by 15.0 MiB");
	free(row.verdict_text);
	row.shared_growth = 0;
	assert_int_equal(sweep_row_judge(&row), 0);
	assert_string_equal(row.verdict_text, "stayed within 0 B");
	free(row.verdict_text);
}

/* The verdict's words, with the site of its new pages where it takes that. */
static char *judge(struct sweep_row row, const char *site, double share)
{
	row.verdict_text = NULL;
	row.growth_site = (struct sweep_site){.function = copy(site), .share = share};
	assert_int_equal(sweep_row_judge(&row), 0);
	assert_int_equal(sweep_row_add_new_pages(&row), 0);
	free(row.growth_site.function);
	return row.verdict_text;
}

static void assert_judged(const struct sweep_row *row, const char *site, double share,
			  const char *expected)
{
	char *text = judge(*row, site, share);

	assert_string_equal(text, expected);
	free(text);
}

static void new_pages_are_evidence_where_the_heap_has_none(void **state)
{
	struct sweep_row row = {
		.verdict = {.kind = VERDICT_UNEVEN, .parts = 12, .grown = 7, .change = 3 << 20},
	};
	const char *alone = "grew by 3.00 MiB, in 7 of 12 parts of the window";

	(void)state;
	assert_judged(&row, "map\n", 0.93,
		      "grew by 3.00 MiB, in 7 of 12 parts of the window; 93 % of the sampled new "
		      "pages come from map\\x0A");
	assert_judged(&row, "map", 0.1, alone);
	row.verdict_named = true;
	assert_judged(&row, "map", 0.93, alone);
	row = (struct sweep_row){.verdict = {.kind = VERDICT_FLAT}};
	assert_judged(&row, "map", 0.93, "stayed within 0 B");
	row.shared_growth = 15 << 20;
	assert_judged(&row, "map", 0.93,
		      "anonymous memory stayed within 0 B; shared memory or file pages grew by "
		      "15.0 MiB; 93 % of the sampled new pages come from map");
}

static bool has_verdict(const struct sweep_row *row, const char *word)
{
	char *text = table_of(*row, "plain", "/plain"), *line = strstr(text, "\n      7 plain");
	bool found;

	assert_non_null(line);
	line[strcspn(line + 1, "\n") + 1] = '\0';
	found = strstr(line, word);
	free(text);
	return found;
}

/* "flat" beside megabytes of growth would be read as all clear. */
static void verdict_tells_of_other_memory_that_grew(void **state)
{
	struct sweep_row row = {
		.rss_end = 15 << 20,
		.verdict = {.kind = VERDICT_FLAT},
		.shared_growth = 15 << 20,
		.kinds_known = true,
		.shmem_growth = 14 << 20,
	};

	(void)state;
	assert_true(has_verdict(&row, "  shared"));
	row.shmem_growth = 1 << 20;
	assert_true(has_verdict(&row, "  files"));
	row.kinds_known = false;
	assert_true(has_verdict(&row, "  files?"));
	row.shared_growth = 100 << 10;
	assert_true(has_verdict(&row, "  flat"));
	row.shared_growth = 15 << 20;
	row.verdict.kind = VERDICT_STEADY;
	assert_true(has_verdict(&row, "  steady"));
	row.ended = true;
	assert_true(has_verdict(&row, "  ended"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_escaped_once),
		cmocka_unit_test(the_ledger_is_told_in_numbers),
		cmocka_unit_test(no_name_steers_the_terminal),
		cmocka_unit_test(columns_are_those_that_say_something),
		cmocka_unit_test(rows_name_the_first_site),
		cmocka_unit_test(columns_are_of_characters),
		cmocka_unit_test(losses_are_told),
		cmocka_unit_test(share_is_told_where_it_is_much_less),
		cmocka_unit_test(callers_and_ages_stand_below_the_site),
		cmocka_unit_test(what_stayed_is_named_where_other_memory_grew),
		cmocka_unit_test(new_pages_are_evidence_where_the_heap_has_none),
		cmocka_unit_test(verdict_tells_of_other_memory_that_grew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
