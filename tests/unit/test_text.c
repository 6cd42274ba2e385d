/* What a person reads, and that nobody else can write in it. */
#include "sample_profile.h"

#include "output/alloc_frames.h"
#include "output/text.h"

#include <stdio.h>
#include <stdlib.h>

static char *summary(const struct profile *profile, unsigned int top)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(to);
	assert_int_equal(text_write_summary(profile, top, to), 0);
	fclose(to);
	if (getenv("VERBOSE"))
		print_message("%s\n", text);
	return text;
}

static char *folded(const struct profile *profile)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(to);
	assert_int_equal(folded_write(profile, to), 0);
	fclose(to);
	return text;
}

static char *escaped(const char *string)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(to);
	text_escape(to, string);
	fclose(to);
	return text;
}

#define assert_has(text, what)                                                                     \
	do {                                                                                       \
		if (!strstr(text, what))                                                           \
			fail_msg("\"%s\" is missing in:\n%s", what, text);                         \
	} while (0)

#define assert_has_not(text, what)                                                                 \
	do {                                                                                       \
		if (strstr(text, what))                                                            \
			fail_msg("\"%s\" is in:\n%s", what, text);                                 \
	} while (0)

static void test_summary_says_what_was_traced_and_how(void **state)
{
	struct profile *profile = sample_profile(512 * 1024);
	char *text = summary(profile, 10);

	(void)state;
	assert_has(text, "alloctrace 0.1.0: memserver, pid 4321, /srv/bin/memserver\n");
	assert_has(text, "10.0 s from 2025-11-20 12:33:01 UTC, ended: duration reached\n");
	assert_has(text, SAMPLE_LIBC " (C library, by its .dynsym; attach: session)\n");
	assert_has(text, " malloc+0 calloc+0 realloc+0 free+9\n");
	assert_has(text, "not probed strdup: no size\n");
	assert_has(text, "1,204,331 allocation calls, 1,104,220 frees\n");
	assert_has(text, "one sample per 512 KiB allocated, on average");
	assert_has(text, "2,130 taken, 2,130 recorded, 0 lost; stacks complete: 99.7 %\n");
	assert_has(text, "RSS 213 MiB -> 331 MiB (+118 MiB)\n");
	assert_has(text, "\"live\" = allocated since attach and not freed; what was allocated "
			 "before is not known\n");
	assert_has_not(text, "WARNING");
	free(text);
	profile_free(profile);
}

static void test_sampled_figures_carry_their_interval(void **state)
{
	struct profile *profile = sample_profile(512 * 1024);
	char *text = summary(profile, 10);

	(void)state;
	assert_has(text, "figures are estimates (95 % interval)");
	assert_has(text, "107 MiB/s (102-112), 1,046,590 objects/s (1,000,000-1,100,000)");
	assert_has(text, "118 MiB (104-134) in 99,330 (61,600-161,000) objects");
	assert_has(text,
		   "TOP 4 OF 4 SITES BY LIVE BYTES (estimates, 95 % interval in parentheses)");
	assert_has(text, "  1  94% 111 MiB (97.9-127) ");
	assert_has(text, " 11,942 (10,300-13,800) ");
	/* The ends in another unit than the value. */
	assert_has(text, "1.00 MiB (281 KiB-3.65 MiB)");
	/* None of three seen is live: that is no proof that none is. */
	assert_has(text, "  4   0% 0 B (0-1.84 MiB) ");
	free(text);
	profile_free(profile);
}

static void test_exact_figures_carry_none(void **state)
{
	struct profile *profile = sample_profile(1);
	char *text = summary(profile, 10);

	(void)state;
	assert_has(text, "sampling   every allocation: figures are exact\n");
	assert_has(text, "allocated  725 KiB/s, 213 objects/s; 7.08 MiB in all\n");
	assert_has(text, "live       3.84 MiB in 233 objects; RSS");
	assert_has(text, "BYTES (every allocation counted)");
	assert_has(text, "  1 100% 3.84 MiB    219           3.91 MiB         220\n");
	assert_has_not(text, "95 %");
	assert_has_not(text, "estimate");
	free(text);
	profile_free(profile);
}

static void test_sites_are_named_by_who_asks_for_the_memory(void **state)
{
	struct profile *profile = sample_profile(512 * 1024);
	char *text = summary(profile, 10);

	(void)state;
	assert_has(text, "\n        session_new  /src/session.c:120\n"
			 "        < handle_request server.c:310 < worker_main server.c:401\n");
	/* operator new is not an answer. */
	assert_has(text, "\n        http::Parser::header  /src/parser.cc:88\n");
	assert_has_not(text, "operator new");
	/* A frame without a name inside of the first that has one. */
	assert_has(text, "\n        cache_put  /src/cache.c:52  (through [libc.so.6])\n");
	/* No name at all, no callers. */
	assert_has(text, "\n        [unknown]+0x7fff00000000  (no symbols)\n"
			 "        < (stack cut short)\n");
	free(text);
	profile_free(profile);
}

static void test_nameless_callers_in_a_row_are_told_once(void **state)
{
	const int stack[] = {AT_SESSION_NEW, AT_LIBC, AT_LIBC, AT_JIT, AT_LIBC, AT_WORKER};
	struct profile *profile;
	char *text;

	(void)state;
	assert_int_equal(profile_new(&profile), 0);
	sample_info(profile, 1);
	assert_int_equal(profile_add_mapping(profile, LIBC_START, LIBC_START + 0x200000, 0,
					     SAMPLE_LIBC, "", NULL),
			 0);
	assert_int_equal(
		profile_add_bucket(profile, sample_site(profile, true, 6, stack), 1, 1, 1, 1), 0);
	assert_int_equal(profile_finish(profile), 0);
	sample_line(profile, AT_SESSION_NEW, "session_new", "", "", 7);
	sample_line(profile, AT_WORKER, "worker_main", "", "", 7);
	text = summary(profile, 1);
	assert_has(text, "\n        < [libc.so.6] < [unknown] < [libc.so.6] < worker_main\n");
	free(text);
	profile_free(profile);
}

static void test_sites_beyond_the_top_are_counted(void **state)
{
	struct profile *profile = sample_profile(512 * 1024);
	char *text = summary(profile, 1);

	(void)state;
	assert_has(text, "TOP 1 OF 4 SITES");
	assert_has_not(text, "cache_put");
	assert_has(text, "\n3 more sites with 7.00 MiB live\n");
	free(text);
	text = summary(profile, 0);
	assert_has_not(text, "TOP");
	assert_has(text, "\n4 more sites with 118 MiB live\n");
	free(text);
	text = summary(profile, 4);
	assert_has(text, "\nno more sites\n");
	free(text);
	profile_free(profile);
}

/* 6000 bytes are the program's, 3600 of the library, 400 of code in no file. */
static struct profile *profile_of_two_images(bool live)
{
	const int program[] = {AT_LIBC, AT_SESSION_NEW}, library[] = {AT_LIBC}, jit[] = {AT_JIT};
	struct profile *profile;

	assert_int_equal(profile_new(&profile), 0);
	sample_info(profile, 1);
	assert_int_equal(profile_add_mapping(profile, EXE_START, EXE_START + 0x10000, 0, SAMPLE_EXE,
					     "00aabb", NULL),
			 0);
	/* Two mappings of one file. */
	for (uint64_t start = LIBC_START; start < LIBC_START + 0x8000; start += 0x4000)
		assert_int_equal(profile_add_mapping(profile, start + 0x6000, start + 0xa000, 0,
						     SAMPLE_LIBC, "ccdd", NULL),
				 0);
	assert_int_equal(profile_add_bucket(profile, sample_site(profile, true, 2, program), 6,
					    6000, live * 6, live * 6000),
			 0);
	assert_int_equal(profile_add_bucket(profile, sample_site(profile, true, 1, library), 6,
					    3600, live * 6, live * 3600),
			 0);
	assert_int_equal(profile_add_bucket(profile, sample_site(profile, true, 1, jit), 4, 400,
					    live * 4, live * 400),
			 0);
	assert_int_equal(profile_finish(profile), 0);
	return profile;
}

static void test_images_without_debug_information_are_named_by_their_share(void **state)
{
	struct profile *profile = profile_of_two_images(true);
	char *text = summary(profile, 1);

	(void)state;
	/* Whose frame without a name it is nobody knows: the innermost counts. */
	assert_has(text, "\nnames      96 % of live bytes come from " SAMPLE_LIBC
			 ", which has no symbols (build id ccdd)\n");
	assert_has_not(text, "come from " SAMPLE_EXE);
	free(text);

	/* An allocator's own frame does not, so most is the program's. */
	sample_line(profile, AT_LIBC, "operator new", "_Znwm", "", 0);
	profile->mappings.items[0].has_functions = true;
	text = summary(profile, 1);
	assert_has(text, "\nnames      60 % of live bytes come from " SAMPLE_EXE
			 ", which has no debug information (build id 00aabb)\n");
	free(text);

	/* Lines are all one can have. */
	profile->mappings.items[0].has_line_numbers = true;
	text = summary(profile, 1);
	assert_has_not(text, "\nnames");
	free(text);
	profile_free(profile);

	profile = profile_of_two_images(false);
	text = summary(profile, 1);
	assert_has(text, "\nnames      96 % of allocated bytes come from " SAMPLE_LIBC);
	free(text);
	profile_free(profile);
}

static void test_terms_of_the_account_add_up_to_the_rss(void **state)
{
	struct profile *profile = sample_profile(1);
	char *text = summary(profile, 1);

	(void)state;
	/* 4,031,712 bytes are live; 118 MiB more than before: */
	assert_has(text,
		   "\nRSS        331 MiB = 213 MiB before + 3.84 MiB live + 24.0 KiB stacks + "
		   "1.00 MiB files + 1.00 MiB shared - 1.00 MiB swapped out + "
		   "113 MiB not explained\n");
	free(text);
	/* What was there before can have been given back. */
	profile->info.memory_end.anon = 150 << 20;
	profile->info.memory_end.swap = 4 << 20;
	text = summary(profile, 1);
	assert_has(text,
		   "\nRSS        165 MiB = 213 MiB before + 3.84 MiB live + 24.0 KiB stacks + "
		   "1.00 MiB files + 1.00 MiB shared - 53.9 MiB not explained\n");
	free(text);
	profile->info.memory_start.known = false;
	text = summary(profile, 1);
	assert_has_not(text, "\nRSS   ");
	free(text);
	profile_free(profile);
}

static void test_no_sample_is_no_proof_of_nothing(void **state)
{
	struct profile *profile;
	char *text;

	(void)state;
	assert_int_equal(profile_new(&profile), 0);
	sample_info(profile, 512 * 1024);
	assert_int_equal(profile_finish(profile), 0);
	text = summary(profile, 1);
	/* 1.96^2 samples' worth. */
	assert_has(text, " = 213 MiB before + 0 B (0-1.92 MiB) live + 24.0 KiB stacks");
	free(text);
	profile->info.memory_end.direct_known = true;
	text = summary(profile, 1);
	assert_has(text, " = 213 MiB before + 0 B (0-1.92 MiB) live + 0 B (0-1.92 MiB) direct "
			 "mappings + ");
	free(text);
	/* So of 1 MiB the heap may have all, of 4 MiB it has less than most. */
	profile->info.growth = (struct verdict){
		.kind = VERDICT_STEADY, .parts = 10, .grown = 10, .per_second = 1 << 20};
	profile->info.memory_start.swap = profile->info.memory_end.swap = 0;
	profile->info.memory_end.anon = profile->info.memory_start.anon + (1 << 20);
	text = summary(profile, 1);
	assert_has(text, ", 1.00 MiB/s; too little for the samples to tell whether it is the "
			 "heap's\n");
	free(text);
	profile->info.memory_end.anon = profile->info.memory_start.anon + (4 << 20);
	text = summary(profile, 1);
	assert_has(text, "; most of it is outside the heap, where 0 B are live, and outside "
			 "direct mappings, which have 0 B (0-1.92 MiB)\n");
	free(text);
	profile->info.memory_end.direct = (struct estimate){.value = 1 << 20, .variance = 1e12};
	text = summary(profile, 1);
	assert_has(text, ", where 0 B are live, and perhaps in direct mappings, which have 1.00 "
			 "MiB (");
	free(text);
	profile->info.memory_end.direct = (struct estimate){0};
	profile->info.period = 1;
	text = summary(profile, 1);
	assert_has(text, " = 213 MiB before + 0 B live + ");
	assert_has(text, "; most of it is outside the heap, where 0 B are live, and outside "
			 "direct mappings, which have 0 B\n");
	free(text);
	profile_free(profile);
}

static void test_growth_is_told_with_its_evidence(void **state)
{
	struct profile *profile = sample_profile(1);
	struct verdict *growth = &profile->info.growth;
	char *text;

	(void)state;
	profile->info.memory_end.anon = 203 << 20;
	text = summary(profile, 1);
	assert_has_not(text, "\ngrowth ");
	free(text);
	*growth = (struct verdict){.kind = VERDICT_STEADY,
				   .parts = 10,
				   .grown = 9,
				   .change = 4 << 20,
				   .per_second = 0.4 * (1 << 20)};
	text = summary(profile, 1);
	assert_has(text,
		   "\ngrowth     grew in 9 of 10 parts of the window, 410 KiB/s; 100 % of what "
		   "is live comes from session_new\n");
	free(text);
	profile->info.memory_end.anon = 300 << 20;
	text = summary(profile, 1);
	assert_has(text, "; most of it is outside the heap, where 3.84 MiB are live\n");
	free(text);
	profile->info.memory_end.direct_known = true;
	profile->info.memory_end.direct.value = 10 << 20;
	text = summary(profile, 1);
	assert_has(text, " + 3.84 MiB live + 10.0 MiB direct mappings + 24.0 KiB stacks + ");
	assert_has(text, "; most of it is outside the heap, where 3.84 MiB are live, and outside "
			 "direct mappings, which have 10.0 MiB\n");
	free(text);
	profile->info.memory_end.direct.value = 60 << 20;
	text = summary(profile, 1);
	assert_has(text, "; most of it is outside the heap: 60.0 MiB in direct mappings (--mmap "
			 "names their sites)\n");
	free(text);
	profile->info.mmap = true;
	text = summary(profile, 1);
	assert_has(text, "; most of it is outside the heap: 60.0 MiB in direct mappings\n");
	free(text);
	profile->info.mmap = false;
	profile->info.memory_end.anon = 203 << 20;
	*growth = (struct verdict){.kind = VERDICT_STEP,
				   .parts = 10,
				   .grown = 9,
				   .change = 4 << 20,
				   .step = 4000 << 10,
				   .step_from = INT64_C(3000000000),
				   .step_to = INT64_C(4000000000)};
	text = summary(profile, 1);
	assert_has(text, "\ngrowth     grew once, by 3.91 MiB between 3.00 s and 4.00 s; 100 %");
	free(text);
	/* Ten times what is live: it came before the profile was begun. */
	growth->step = 40 << 20;
	text = summary(profile, 1);
	assert_has(text, "\ngrowth     grew once, by 40.0 MiB between 3.00 s and 4.00 s\n");
	free(text);
	*growth = (struct verdict){
		.kind = VERDICT_FLAT, .parts = 10, .low = 5 << 20, .high = (5 << 20) + 4096};
	text = summary(profile, 1);
	assert_has(text, "\ngrowth     stayed within 4.00 KiB\n");
	free(text);
	profile->info.duration_nanos = 1000000000;
	profile->total_values[PROFILE_ALLOC_SPACE] = 50 << 20;
	text = summary(profile, 1);
	assert_has(text, "stayed within 4.00 KiB, while 50.0 MiB/s were allocated and nearly all "
			 "freed\n");
	free(text);
	profile_free(profile);
}

static void test_losses_are_named(void **state)
{
	struct profile *profile = sample_profile(512 * 1024);
	char *text;

	(void)state;
	profile->counters.items[0].count = 1234;
	profile->counters.items[2].count = 5;
	profile->info.sampled += 1234 + 5 + 1;
	assert_int_equal(profile_add_counter(profile, "stack map full", 1, PROFILE_LOSS), 0);
	assert_int_equal(profile_add_warning(profile, "the live map was full"), 0);
	text = summary(profile, 1);
	assert_has(text, "3,370 taken, 2,130 recorded, 1,235 lost");
	assert_has(text,
		   "\nLOST       live map full: 1,234; stack map full: 1\n"
		   "           36.6 % of the samples are lost: figures are too low by about as "
		   "much\n");
	assert_has_not(text, "pending map full");
	assert_has(text, "\nalso seen  failed allocations: 5\n");
	assert_has(text, "WARNING    the live map was full\n");
	free(text);
	profile_free(profile);

	profile = sample_profile(1);
	profile->counters.items[1].count = 1;
	profile->info.sampled = 100000;
	text = summary(profile, 1);
	assert_has(text, "every allocation, but some were lost: figures are too low\n");
	assert_has(text, "pending map full: 1\n           0.1 % of the samples are lost");
	assert_has_not(text, "exact");
	free(text);
	profile_free(profile);
}

static struct profile *empty_profile(uint64_t calls, uint64_t sampled, uint64_t lost)
{
	struct profile *profile;

	assert_int_equal(profile_new(&profile), 0);
	sample_info(profile, 512 * 1024);
	profile->info.calls = calls;
	profile->info.sampled = sampled;
	assert_int_equal(profile_add_counter(profile, "stack map full", lost, PROFILE_LOSS), 0);
	assert_int_equal(profile_finish(profile), 0);
	return profile;
}

static void test_nothing_recorded_is_said_and_explained(void **state)
{
	static const struct {
		uint64_t calls, sampled, lost;
		const char *reason;
	} cases[] = {
		{0, 0, 0, "NOTHING RECORDED: no allocation call was seen."},
		{500, 0, 0, "NOTHING RECORDED: calls were seen, but too few bytes for a sample."},
		{500, 9, 9, "NOTHING RECORDED: every sample was lost"},
		{500, 9, 0, "NOTHING RECORDED: there were samples, but none of them became"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct profile *profile =
			empty_profile(cases[i].calls, cases[i].sampled, cases[i].lost);
		char *text = summary(profile, 10);

		assert_has(text, cases[i].reason);
		assert_has(text, "RSS        213 MiB -> 331 MiB (+118 MiB)\n");
		assert_has_not(text, "TOP");
		free(text);
		profile_free(profile);
	}
}

static void test_no_calls_of_an_idle_and_of_a_busy_process(void **state)
{
	static const struct {
		int64_t cpu_nanos;
		const char *used;
		bool idle;
	} cases[] = {
		{-1, "no allocation call was seen. It may be that\n", true},
		{0, "seen. The process used hardly any CPU time. It may be that\n", true},
		{90000000, "seen. The process used 90 ms of CPU time. It may be that\n", true},
		{100000000, "seen. The process used 100 ms of CPU time. It may be that\n", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct profile *profile = empty_profile(0, 0, 0);
		char *text;

		profile->info.cpu_nanos = cases[i].cpu_nanos;
		text = summary(profile, 10);
		assert_has(text, cases[i].used);
		assert_int_equal(strstr(text, "was idle") != NULL, cases[i].idle);
		free(text);
		profile_free(profile);
	}
}

static void test_what_is_not_known_is_called_unknown(void **state)
{
	struct profile *profile;
	char *text;

	(void)state;
	assert_int_equal(profile_new(&profile), 0);
	profile->info.period = 1;
	profile->info.memory_end = (struct profile_memory){.known = true, .anon = 5 << 20};
	assert_int_equal(profile_add_site(profile, NULL, 0, false, NULL), 0);
	assert_int_equal(profile_add_bucket(profile, 0, 1, 1, 1, 1), 0);
	assert_int_equal(profile_finish(profile), 0);
	text = summary(profile, 10);
	assert_has(text, "(no name)");
	assert_has(text, "RSS unknown -> 5.00 MiB\n");
	assert_has(text, "allocator  none probed\n");
	assert_has(text, "        [no stack]\n");
	assert_has(text, "stacks complete: 0.0 %");
	free(text);
	profile_free(profile);
}

/* --- names from outside
 * --------------------------------------------------------------------------- */

static void test_escape(void **state)
{
	static const char *const cases[][2] = {
		{"plain text, \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
		 "plain text, \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
		{"\x1b[2J\x07", "\\x1B[2J\\x07"},
		{"a\nb\tc\rd\x7f", "a\\x0Ab\\x09c\\x0Dd\\x7F"},
		{"back\\slash", "back\\\\slash"},
		{"\xc2\x9b"
		 "31m",
		 "\\xC2\\x9B31m"}, /* C1: the eight bit CSI */
		{"\x9b"
		 "31m",
		 "\\x9B31m"},
		{"\xff\xc3", "\\xFF\\xC3"},
		{"\xc0\xaf", "\\xC0\\xAF"},		      /* overlong */
		{"\xed\xa0\x80", "\\xED\\xA0\\x80"},	      /* surrogate */
		{"\xf4\x90\x80\x80", "\\xF4\\x90\\x80\\x80"}, /* above U+10FFFF */
		{"\xe2\x82", "\\xE2\\x82"},		      /* cut short */
		{"\xe2\x80\xae"
		 "cod.exe",
		 "\\xE2\\x80\\xAE"
		 "cod.exe"},			     /* right to left */
		{"\xe2\x80\xa8", "\\xE2\\x80\\xA8"}, /* line separator */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *text = escaped(cases[i][0]);

		assert_string_equal(text, cases[i][1]);
		free(text);
	}
}

static void replace(char **string, const char *with)
{
	free(*string);
	*string = strdup(with);
}

static void assert_harmless(const char *text)
{
	for (const char *at = text; *at; at++) {
		if (((unsigned char)*at < 0x20 && *at != '\n') || *at == 0x7f)
			fail_msg("control character %#x in:\n%s", *at, text);
	}
	assert_has_not(text, "\nforged");
}

static void test_hostile_names_reach_no_terminal(void **state)
{
	static const char hostile[] = "\x1b]0;owned\x07\x1b[2J\nforged 99 GiB\r";
	struct profile *profile = sample_profile(512 * 1024);
	char *text;

	(void)state;
	replace(&profile->info.comm, hostile);
	replace(&profile->info.exe, hostile);
	replace(&profile->info.attach, hostile);
	replace(&profile->info.version, hostile);
	replace(&profile->mappings.items[0].file, hostile);
	replace(&profile->probes.items[0].file, hostile);
	replace(&profile->probes.items[0].functions, hostile);
	assert_int_equal(profile_add_warning(profile, "%s", hostile), 0);
	for (size_t i = 0; i < profile->functions.count; i++) {
		replace(&profile->functions.items[i].name, hostile);
		replace(&profile->functions.items[i].file, hostile);
	}
	text = summary(profile, 10);
	assert_harmless(text);
	assert_has(text, "\\x1B[2J\\x0Aforged 99 GiB\\x0D");
	free(text);
	text = folded(profile);
	assert_harmless(text);
	free(text);
	profile_free(profile);
}

/* The summary with this name for handle_request, which is the first site's caller. */
static char *summary_with_caller(const char *name)
{
	struct profile *profile = sample_profile(512 * 1024);
	char *text;

	replace(&profile->functions.items[2].name, name);
	text = summary(profile, 1);
	profile_free(profile);
	return text;
}

static void test_long_names_are_shortened_where_they_say_least(void **state)
{
	static const char *const cases[][2] = {
		{"std::map<std::string, std::vector<int, std::allocator<int> > >::emplace",
		 "< std::map<..>::emplace server.c:310 <"},
		{"short<int>::name", "< short<int>::name server.c:310 <"},
		/* No brackets, though they match. */
		{"a_name_that_is_much_too_long_for_a_caller::operator<=>",
		 "< a_name_that_i..for_a_caller::operator<=> server.c:310 <"},
		{"<alloc::vec::Vec<T> as core::iter::FromIterator<T> >::from_iter",
		 "< <alloc::vec::..mIterator<T> >::from_iter server.c:310 <"},
		{"unbalanced<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<<end",
		 "< unbalanced<<<..<<<<<<<<<<<<<<<<<<<<<<end server.c:310 <"},
		{"unbalanced>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>end",
		 "< unbalanced>>>..>>>>>>>>>>>>>>>>>>>>>>end server.c:310 <"},
	};
	char long_name[401];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *text = summary_with_caller(cases[i][0]);

		assert_has(text, cases[i][1]);
		free(text);
	}
	/* Characters are not cut in two, wherever they begin. */
	for (size_t start = 0; start < 2; start++) {
		char *text;

		memset(long_name, 0, sizeof(long_name));
		long_name[0] = 'x';
		for (size_t i = start; i + 2 < sizeof(long_name); i += 2)
			memcpy(long_name + i, "\xc3\xa4", 2);
		text = summary_with_caller(long_name);
		assert_has(text, "\xc3\xa4..\xc3\xa4");
		assert_has_not(text, "\\x");
		free(text);
	}
}

static void test_allocators_own_frames_are_known_by_their_whole_name(void **state)
{
	(void)state;
	assert_true(alloc_frames_match("malloc"));
	assert_true(alloc_frames_match("reallocarray"));
	assert_true(alloc_frames_match("__libc_calloc"));
	assert_true(alloc_frames_match("__GI___libc_malloc"));
	assert_true(alloc_frames_match("operator new"));
	assert_true(alloc_frames_match("operator new[](unsigned long)"));
	assert_false(alloc_frames_match("strdup"));
	assert_false(alloc_frames_match("my_malloc"));
	assert_false(alloc_frames_match("malloc_pool"));
	assert_false(alloc_frames_match("Arena::malloc"));
	assert_false(alloc_frames_match("operator new[]x"));
	assert_false(alloc_frames_match(""));
	assert_true(alloc_frames_plumbing("std::allocator<int>::allocate"));
	assert_true(alloc_frames_plumbing("operator new"));
	assert_true(alloc_frames_plumbing("_PyObject_Malloc"));
	assert_false(alloc_frames_plumbing("PyObject_Call"));
	assert_false(alloc_frames_plumbing("std::allocatory"));
}

/* --- folded stacks
 * -------------------------------------------------------------------------------- */

static void test_folded_stacks_run_from_the_outermost_frame_inwards(void **state)
{
	struct profile *profile = sample_profile(1);
	struct profile_line lines[2] = {{.line = 1}, {.line = 2}};
	char *text;

	(void)state;
	/* session_new is inlined in "make; it", and this is the leaf. */
	lines[0].function = 0;
	assert_int_equal(profile_add_function(profile, "make; it", "", "", 0, &lines[1].function),
			 0);
	for (uint32_t i = 0; i < profile->locations.count; i++) {
		if (profile->locations.items[i].address == sample_addresses[AT_SESSION_NEW])
			assert_int_equal(profile_set_lines(profile, i, lines, 2), 0);
	}
	text = folded(profile);
	assert_string_equal(text,
			    "worker_main;handle_request;make\\x3B it;session_new 4030464\n"
			    "worker_main;handle_request;http::Parser::header;operator new 1152\n"
			    "[unknown] 96\n"); /* and not cache_put, of which nothing is live */
	free(text);
	profile_free(profile);
}

/* Neither in the figures of the heap nor among its sites. */
static void test_direct_mappings_are_told_apart(void **state)
{
	struct profile *profile = sample_profile_with(1, true), *heap = sample_profile(1);
	char *text = summary(profile, 1), *without = summary(heap, 1), *line;

	(void)state;
	assert_has(text, "seen       1,204,331 allocation calls, 1,104,220 frees; 1,250 mapping "
			 "calls, 1,233 unmappings, the allocator's among them\n");
	assert_has(text, "live       3.84 MiB in 233 objects; RSS");
	assert_has(text, "mapped     24.0 MiB in 3 direct mappings, beside what is live; 52.0 MiB "
			 "in all\n");
	assert_has(text, "TOP 1 OF 4 SITES BY LIVE BYTES (every allocation counted)\n");
	assert_has(text, "TOP 1 OF 2 SITES BY DIRECTLY MAPPED BYTES (every mapping counted)\n"
			 "  # mmap mapped bytes  mappings  bytes in all  mappings in all\n"
			 "  1  83% 20.0 MiB      2         48.0 MiB      3\n"
			 "        cache_put  /src/cache.c:52\n"
			 "        < worker_main server.c:401\n"
			 "1 more site with 4.00 MiB mapped\n");
	/* The table of the heap is the same without. */
	line = strstr(without, "\nTOP 1 OF");
	assert_non_null(line);
	assert_has(text, line);
	assert_has_not(without, "mapp");
	free(text);
	free(without);
	text = folded(profile);
	assert_has(text, "worker_main;cache_put;[mmap] 20971520\n");
	assert_has(text, "worker_main;handle_request;session_new ");
	free(text);
	profile_free(profile);
	profile_free(heap);
}

/* A sampled mapping stands for as many as one of its whole size does, however little is left. */
static void test_sampled_mappings_carry_their_interval(void **state)
{
	struct profile *profile = sample_profile_with(16 << 20, true);
	char *text = summary(profile, 2);

	(void)state;
	/* p = 1 - 1/e for 16 MiB: 2 / p = 3.2 objects, 20 MiB / p; p = 0.2212 for 4 MiB. */
	assert_has(text, "TOP 2 OF 2 SITES BY DIRECTLY MAPPED BYTES (estimates, 95 % interval in "
			 "parentheses)\n");
	assert_has(text, "% 31.6 MiB (");
	assert_has(text, "% 18.1 MiB (");
	assert_has(text, "mapped     49.7 MiB (");
	assert_has(text, ") in 8 (");
	free(text);
	profile_free(profile);
}

static void test_a_full_disk_is_reported(void **state)
{
	struct profile *profile = sample_profile(1);
	FILE *full = fopen("/dev/full", "w");

	(void)state;
	if (!full)
		skip();
	assert_int_not_equal(folded_write(profile, full), 0);
	fclose(full);
	full = fopen("/dev/full", "w");
	assert_int_not_equal(text_write_summary(profile, 10, full), 0);
	fclose(full);
	profile_free(profile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_summary_says_what_was_traced_and_how),
		cmocka_unit_test(test_sampled_figures_carry_their_interval),
		cmocka_unit_test(test_exact_figures_carry_none),
		cmocka_unit_test(test_sites_are_named_by_who_asks_for_the_memory),
		cmocka_unit_test(test_nameless_callers_in_a_row_are_told_once),
		cmocka_unit_test(test_sites_beyond_the_top_are_counted),
		cmocka_unit_test(test_images_without_debug_information_are_named_by_their_share),
		cmocka_unit_test(test_terms_of_the_account_add_up_to_the_rss),
		cmocka_unit_test(test_no_sample_is_no_proof_of_nothing),
		cmocka_unit_test(test_growth_is_told_with_its_evidence),
		cmocka_unit_test(test_losses_are_named),
		cmocka_unit_test(test_nothing_recorded_is_said_and_explained),
		cmocka_unit_test(test_no_calls_of_an_idle_and_of_a_busy_process),
		cmocka_unit_test(test_what_is_not_known_is_called_unknown),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_hostile_names_reach_no_terminal),
		cmocka_unit_test(test_long_names_are_shortened_where_they_say_least),
		cmocka_unit_test(test_allocators_own_frames_are_known_by_their_whole_name),
		cmocka_unit_test(test_folded_stacks_run_from_the_outermost_frame_inwards),
		cmocka_unit_test(test_direct_mappings_are_told_apart),
		cmocka_unit_test(test_sampled_mappings_carry_their_interval),
		cmocka_unit_test(test_a_full_disk_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
