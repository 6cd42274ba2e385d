/*
 * The profile as its readers see it: Go's pprof, which is another decoder than the one in the
 * library that wrote the bytes, and a walk over the wire format for the field numbers.
 */
#include "sample_profile.h"

#include "output/pprof.h"
#include "util/cleanup.h"
#include "util/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

/* --- a small decoder
 * ------------------------------------------------------------------------------ */

#define ENTRIES_MAX 64

/* One field of a message: a number, or bytes. */
struct field {
	unsigned int number;
	uint64_t value;
	struct reader bytes;
};

struct message {
	struct field fields[512];
	size_t count;
};

static void decode(struct reader from, struct message *message)
{
	message->count = 0;
	while (reader_left(&from)) {
		struct field *field = &message->fields[message->count++];
		uint64_t tag = reader_uleb128(&from);

		assert_in_range(message->count, 1, 511);
		field->number = (unsigned int)(tag >> 3);
		if ((tag & 7) == 0)
			field->value = reader_uleb128(&from);
		else if ((tag & 7) == 2)
			field->bytes = reader_sub(&from, reader_uleb128(&from));
		else
			fail_msg("wire type %u", (unsigned int)(tag & 7));
		assert_false(from.failed);
	}
}

static size_t count_of(const struct message *message, unsigned int number)
{
	size_t count = 0;

	for (size_t i = 0; i < message->count; i++)
		count += message->fields[i].number == number;
	return count;
}

static const struct field *field_at(const struct message *message, unsigned int number,
				    size_t index)
{
	for (size_t i = 0; i < message->count; i++) {
		if (message->fields[i].number == number && !index--)
			return &message->fields[i];
	}
	fail_msg("no field %u", number);
	return NULL;
}

static uint64_t number_of(const struct message *message, unsigned int number)
{
	return count_of(message, number) ? field_at(message, number, 0)->value : 0;
}

static void sub_message(const struct message *message, unsigned int number, size_t index,
			struct message *sub)
{
	decode(field_at(message, number, index)->bytes, sub);
}

/* Packed numbers. */
static size_t numbers_of(const struct message *message, unsigned int number, uint64_t *to)
{
	struct reader from = field_at(message, number, 0)->bytes;
	size_t count = 0;

	while (reader_left(&from) && count < ENTRIES_MAX)
		to[count++] = reader_uleb128(&from);
	assert_false(from.failed);
	return count;
}

static void assert_string(const struct message *profile, uint64_t index, const char *expected)
{
	const struct reader *bytes = &field_at(profile, 6, index)->bytes;

	if (reader_left(bytes) != strlen(expected) ||
	    (*expected && memcmp(bytes->pos, expected, strlen(expected))))
		fail_msg("\"%.*s\" instead of \"%s\"", (int)reader_left(bytes),
			 (const char *)bytes->pos, expected);
}

struct encoded {
	uint8_t *gzip, *raw;
	size_t gzip_size, raw_size;
	struct message message;
};

static struct encoded *encode(const struct profile *profile)
{
	struct encoded *e = calloc(1, sizeof(*e));
	z_stream stream = {0};

	assert_non_null(e);
	assert_int_equal(pprof_encode(profile, &e->gzip, &e->gzip_size), 0);
	assert_in_range(e->gzip_size, 20, 1 << 24);
	assert_int_equal(e->gzip[0], 0x1f);
	assert_int_equal(e->gzip[1], 0x8b);
	e->raw = malloc(1 << 24);
	assert_non_null(e->raw);
	assert_int_equal(inflateInit2(&stream, 15 + 16), Z_OK);
	stream.next_in = e->gzip;
	stream.avail_in = (uInt)e->gzip_size;
	stream.next_out = e->raw;
	stream.avail_out = 1 << 24;
	assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
	e->raw_size = stream.total_out;
	inflateEnd(&stream);
	return e;
}

static void encoded_free(struct encoded *e)
{
	free(e->gzip);
	free(e->raw);
	free(e);
}

/* The sample profile, decoded. */
static struct encoded *encode_sample(uint64_t period)
{
	struct profile *profile = sample_profile(period);
	struct encoded *e = encode(profile);

	profile_free(profile);
	decode(reader_new(e->raw, e->raw_size), &e->message);
	return e;
}

static void test_head(void **state)
{
	static const char *const types[][2] = {{"alloc_objects", "count"},
					       {"alloc_space", "bytes"},
					       {"inuse_objects", "count"},
					       {"inuse_space", "bytes"}};
	struct encoded *e = encode_sample(512 * 1024);
	const struct message *profile = &e->message;
	struct message sub;

	(void)state;
	assert_int_equal(count_of(profile, 1), 4);
	for (size_t i = 0; i < 4; i++) {
		sub_message(profile, 1, i, &sub);
		assert_string(profile, number_of(&sub, 1), types[i][0]);
		assert_string(profile, number_of(&sub, 2), types[i][1]);
	}
	assert_string(profile, 0, "");
	assert_string(profile, number_of(profile, 14), "inuse_space");
	sub_message(profile, 11, 0, &sub);
	assert_string(profile, number_of(&sub, 1), "space");
	assert_string(profile, number_of(&sub, 2), "bytes");
	assert_int_equal(number_of(profile, 12), 512 * 1024);
	assert_int_equal(number_of(profile, 9), UINT64_C(1763641981000000000));
	assert_int_equal(number_of(profile, 10), UINT64_C(10000000000));
	encoded_free(e);
	e = encode_sample(1);
	assert_int_equal(number_of(&e->message, 12), 1);
	encoded_free(e);
}

static void test_mappings_functions_and_locations(void **state)
{
	struct encoded *e = encode_sample(512 * 1024);
	const struct message *profile = &e->message;
	struct message sub, line, function;

	(void)state;
	sub_message(profile, 3, 0, &sub);
	assert_int_equal(number_of(&sub, 1), 1);
	assert_int_equal(number_of(&sub, 2), EXE_START);
	assert_int_equal(number_of(&sub, 3), EXE_START + 0x10000);
	assert_int_equal(number_of(&sub, 4), 0x1000);
	assert_string(profile, number_of(&sub, 5), SAMPLE_EXE);
	assert_string(profile, number_of(&sub, 6), "00aabbccddeeff");
	assert_int_equal(number_of(&sub, 7), 1);
	assert_int_equal(number_of(&sub, 8), 1);
	assert_int_equal(number_of(&sub, 9), 1);
	assert_int_equal(number_of(&sub, 10), 0);
	sub_message(profile, 3, 1, &sub);
	assert_int_equal(number_of(&sub, 1), 2);
	assert_string(profile, number_of(&sub, 5), SAMPLE_LIBC);
	for (size_t i = 0; i < count_of(profile, 4); i++) {
		sub_message(profile, 4, i, &sub);
		assert_int_equal(number_of(&sub, 1), i + 1);
		assert_in_range(number_of(&sub, 2), 0, 2);
		assert_true(count_of(&sub, 4) >= 1);
		sub_message(&sub, 4, 0, &line);
		sub_message(profile, 5, number_of(&line, 1) - 1, &function);
		assert_int_equal(number_of(&function, 1), number_of(&line, 1));
		if (number_of(&sub, 3) == sample_addresses[AT_PARSE]) {
			assert_int_equal(number_of(&line, 2), 88);
			assert_string(profile, number_of(&function, 2), "http::Parser::header");
			assert_string(profile, number_of(&function, 3), "_ZN4http6Parser6headerEv");
			assert_string(profile, number_of(&function, 4), "/src/parser.cc");
			assert_int_equal(number_of(&function, 5), 83);
		} else if (number_of(&sub, 3) == sample_addresses[AT_LIBC]) {
			assert_int_equal(number_of(&sub, 2), 2);
			assert_string(profile, number_of(&function, 2), "[libc.so.6]");
			assert_string(profile, number_of(&function, 4), SAMPLE_LIBC);
		} else if (number_of(&sub, 3) == sample_addresses[AT_JIT]) {
			assert_int_equal(number_of(&sub, 2), 0);
			assert_string(profile, number_of(&function, 2), "[unknown]");
		}
	}
	encoded_free(e);
}

static void test_samples_and_their_labels(void **state)
{
	struct profile *source = sample_profile(512 * 1024);
	struct encoded *e = encode_sample(512 * 1024);
	const struct message *profile = &e->message;

	(void)state;
	assert_int_equal(count_of(profile, 2), source->buckets.count);
	for (size_t i = 0; i < source->buckets.count; i++) {
		const struct profile_bucket *bucket = &source->buckets.items[i];
		const struct profile_site *site = &source->sites.items[bucket->site];
		uint64_t numbers[ENTRIES_MAX];
		struct message sample, label;

		sub_message(profile, 2, i, &sample);
		assert_int_equal(numbers_of(&sample, 1, numbers), site->frame_count);
		for (size_t f = 0; f < site->frame_count; f++)
			assert_int_equal(numbers[f], site->frames[f] + 1);
		assert_int_equal(numbers_of(&sample, 2, numbers), 4);
		assert_memory_equal(numbers, bucket->values, sizeof(bucket->values));
		assert_int_equal(count_of(&sample, 3), 3);
		sub_message(&sample, 3, 0, &label);
		assert_string(profile, number_of(&label, 1), "bytes");
		assert_int_equal(number_of(&label, 2), 0);
		assert_int_equal(number_of(&label, 3), bucket->object_bytes);
		assert_string(profile, number_of(&label, 4), "bytes");
		sub_message(&sample, 3, 1, &label);
		assert_string(profile, number_of(&label, 1), "pid");
		assert_string(profile, number_of(&label, 2), "4321");
		sub_message(&sample, 3, 2, &label);
		assert_string(profile, number_of(&label, 1), "comm");
		assert_string(profile, number_of(&label, 2), "memserver");
	}
	encoded_free(e);
	profile_free(source);
}

/* By a label that no sample of the heap has. */
static void test_direct_mappings_are_labelled(void **state)
{
	struct profile *from = sample_profile_with(1, true);
	struct encoded *e = encode(from);
	const struct message *profile = &e->message;
	size_t labelled = 0;

	(void)state;
	decode(reader_new(e->raw, e->raw_size), &e->message);
	assert_int_equal(count_of(profile, 2), from->buckets.count);
	for (size_t i = 0; i < count_of(profile, 2); i++) {
		bool mapped = from->sites.items[from->buckets.items[i].site].mapped;
		struct message sample, label;

		sub_message(profile, 2, i, &sample);
		assert_int_equal(count_of(&sample, 3), mapped ? 4 : 3);
		if (!mapped)
			continue;
		sub_message(&sample, 3, 3, &label);
		assert_string(profile, number_of(&label, 1), "kind");
		assert_string(profile, number_of(&label, 2), "mmap");
		labelled++;
	}
	assert_int_equal(labelled, 2);
	encoded_free(e);
	profile_free(from);
}

static void test_every_string_is_valid_and_printable(void **state)
{
	struct profile *source = sample_profile(1);
	struct message *profile;
	struct encoded *e;
	bool found = false;

	(void)state;
	free(source->functions.items[0].name);
	source->functions.items[0].name = strdup("f\xff\x1b[2J\xc3\xa4\xe2\x82");
	free(source->mappings.items[1].file);
	source->mappings.items[1].file = strdup("/lib/lib<x>.so (deleted)");
	free(source->info.comm);
	source->info.comm = strdup("\n\xc2\x9b");
	e = encode(source);
	profile = &e->message;
	decode(reader_new(e->raw, e->raw_size), profile);
	for (size_t i = 0; i < count_of(profile, 6); i++) {
		const struct reader *bytes = &field_at(profile, 6, i)->bytes;
		static const char clean[] = "f\xef\xbf\xbd\xef\xbf\xbd[2J\xc3\xa4\xef\xbf\xbd"
					    "\xef\xbf\xbd";

		for (size_t at = 0; at < reader_left(bytes); at++)
			assert_true(bytes->pos[at] >= 0x20 && bytes->pos[at] != 0x7f &&
				    bytes->pos[at] != 0xff && bytes->pos[at] != 0x9b);
		found |= reader_left(bytes) == sizeof(clean) - 1 &&
			 !memcmp(bytes->pos, clean, sizeof(clean) - 1);
	}
	assert_true(found);
	encoded_free(e);
	profile_free(source);
}

static void test_an_empty_profile_is_a_profile(void **state)
{
	struct profile *source;
	struct encoded *e;

	(void)state;
	assert_int_equal(profile_new(&source), 0);
	source->info.period = 1;
	assert_int_equal(profile_finish(source), 0);
	e = encode(source);
	decode(reader_new(e->raw, e->raw_size), &e->message);
	assert_int_equal(count_of(&e->message, 1), 4);
	assert_int_equal(count_of(&e->message, 2), 0);
	encoded_free(e);
	profile_free(source);
}

/* --- Go's pprof
 * ----------------------------------------------------------------------------------- */

static bool have_go;

/* What `go tool pprof` says to these arguments and the profile; and that it has nothing else to
 * say. */
static char *pprof_says_of(const struct profile *profile, const char *arguments,
			   int (*encoder)(const struct profile *profile, uint8_t **data,
					  size_t *size))
{
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	CLEANUP(cleanup_free) char *command = NULL;
	char path[] = "/tmp/alloctrace-test-XXXXXX";
	char *output = calloc(1, 1 << 20);
	size_t size, length = 0, got;
	FILE *pipe;
	int fd = mkstemp(path), status;

	assert_non_null(output);
	assert_true(fd >= 0);
	assert_int_equal(encoder(profile, &data, &size), 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
	assert_true(asprintf(&command, "PPROF_TMPDIR=/tmp go tool pprof %s %s 2>&1", arguments,
			     path) > 0);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while ((got = fread(output + length, 1, (1 << 20) - 1 - length, pipe)) > 0)
		length += got;
	status = pclose(pipe);
	unlink(path);
	if (status)
		fail_msg("%s:\n%s", command, output);
	if (getenv("VERBOSE"))
		print_message("%s\n", output);
	return output;
}

static char *pprof_says(const struct profile *profile, const char *arguments)
{
	return pprof_says_of(profile, arguments, pprof_encode);
}

#define assert_has(text, what)                                                                     \
	do {                                                                                       \
		if (!strstr(text, what))                                                           \
			fail_msg("\"%s\" is missing in:\n%s", what, text);                         \
	} while (0)

static void test_go_reads_the_whole_of_it(void **state)
{
	struct profile *profile;
	char *text;

	(void)state;
	if (!have_go)
		skip();
	profile = sample_profile(1);
	text = pprof_says(profile, "-raw");
	assert_has(text, "PeriodType: space bytes\nPeriod: 1\n");
	assert_has(text, "alloc_objects/count alloc_space/bytes inuse_objects/count "
			 "inuse_space/bytes[dflt]");
	assert_has(text, "        180    1474560        180    1474560: ");
	assert_has(text, "                bytes:[8192 bytes]\n");
	assert_has(text, "                comm:[memserver] pid:[4321]\n");
	assert_has(text, "/srv/bin/memserver 00aabbccddeeff [FN][FL][LN]");
	assert_has(text, "http::Parser::header /src/parser.cc:88");
	free(text);
	profile_free(profile);
}

static void test_go_shows_the_figures_of_the_summary(void **state)
{
	struct profile *profile;
	char *text, expected[64];

	(void)state;
	if (!have_go)
		skip();
	profile = sample_profile(512 * 1024);
	text = pprof_says(profile, "-top -unit=B");
	assert_int_equal(strncmp(text, "File: memserver\n", 16), 0); /* no warning before it */
	assert_has(text, "Type: inuse_space\n");
	assert_has(text,
		   "alloctrace 0.1.0: pid 4321 (memserver), one sample per 512 KiB on average\n");
	snprintf(expected, sizeof(expected), "%lldB total\n",
		 (long long)profile->total_values[PROFILE_INUSE_SPACE]);
	assert_has(text, expected);
	snprintf(expected, sizeof(expected), "%lldB 94.09%%",
		 (long long)profile->sites.items[0].sums[PROFILE_INUSE_SPACE]);
	assert_has(text, expected);
	free(text);
	text = pprof_says(profile, "-top -sample_index=alloc_objects");
	snprintf(expected, sizeof(expected), "%lld total\n",
		 (long long)profile->total_values[PROFILE_ALLOC_OBJECTS]);
	assert_has(text, expected);
	free(text);
	profile_free(profile);
}

static void test_go_drops_the_allocators_frames_and_no_others(void **state)
{
	static const char *const names[] = {"operator new[]", "my_calloc", "malloc_pool", "strdup",
					    "__libc_malloc"};
	struct profile *profile;
	char *text;

	(void)state;
	if (!have_go)
		skip();
	profile = sample_profile(1);
	text = pprof_says(profile, "-top -cum -nodefraction=0 -sample_index=alloc_space");
	assert_null(strstr(text, "operator new"));
	/* Not lost with its frame: the bytes are its caller's now. */
	assert_has(text, "178.12kB  2.46%   100%   178.12kB  2.46%  http::Parser::header");
	assert_has(text, "[libc.so.6]");
	free(text);
	profile_free(profile);

	/* A chain of them: pprof cuts at the outermost allocator, and keeps what is outside of it.
	 */
	assert_int_equal(profile_new(&profile), 0);
	profile->info.period = 1;
	for (uint64_t i = 0; i < 5; i++) {
		uint64_t stack[] = {0x1000 + i, 0x2000};
		struct profile_line line = {0};
		uint32_t site, location;

		assert_int_equal(profile_add_site(profile, stack, 2, true, &site), 0);
		assert_int_equal(profile_add_bucket(profile, site, 1, 1000, 1, 1000), 0);
		location = profile->sites.items[site].frames[0];
		assert_int_equal(
			profile_add_function(profile, names[i], names[i], "", 0, &line.function),
			0);
		assert_int_equal(profile_set_lines(profile, location, &line, 1), 0);
		location = profile->sites.items[site].frames[1];
		assert_int_equal(
			profile_add_function(profile, "user", "user", "", 0, &line.function), 0);
		assert_int_equal(profile_set_lines(profile, location, &line, 1), 0);
	}
	assert_int_equal(profile_finish(profile), 0);
	text = pprof_says(profile, "-top -unit=B");
	assert_has(text, "2000B 40.00% 40.00%      5000B   100%  user\n");
	assert_has(text, "my_calloc\n");
	assert_has(text, "malloc_pool\n");
	assert_has(text, "strdup\n");
	free(text);
	profile_free(profile);
}

static void test_go_shows_the_comments(void **state)
{
	struct profile *profile;
	char *text;

	(void)state;
	if (!have_go)
		skip();
	profile = sample_profile(1);
	profile->counters.items[0].count = 3;
	profile->info.sampled += 3;
	assert_int_equal(profile_add_warning(profile, "the live map\nwas full"), 0);
	text = pprof_says(profile, "-comments");
	assert_has(text, "alloctrace 0.1.0: pid 4321 (memserver), every allocation\n");
	assert_has(text, "# command line: alloctrace -p 4321 -d 10s\n");
	assert_has(text, "# kernel: 6.18.0-test\n");
	assert_has(text, "# attached by: session\n");
	assert_has(text, "# calls: 1204331\n");
	assert_has(text, "# sampled: 2133\n");
	assert_has(text, "# recorded: 2130\n");
	assert_has(text, "# lost, live map full: 3\n");
	assert_has(text, "# lost, pending map full: 0\n");
	assert_has(text, "# failed allocations: 0\n");
	assert_has(text, "WARNING: 3 of 2133 samples were lost: values are too low\n");
	assert_has(text, "WARNING: the live map\xef\xbf\xbdwas full\n");
	free(text);
	/* Losses and warnings are seen without asking for them. */
	text = pprof_says(profile, "-top");
	assert_has(text, "WARNING: 3 of 2133 samples were lost");
	assert_null(strstr(text, "# kernel"));
	free(text);
	profile_free(profile);
}

static void test_go_subtracts_one_from_another(void **state)
{
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	char path[] = "/tmp/alloctrace-test-XXXXXX", arguments[128], *text;
	struct profile *profile;
	size_t size;
	int fd;

	(void)state;
	if (!have_go)
		skip();
	profile = sample_profile(1);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(pprof_encode(profile, &data, &size), 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
	snprintf(arguments, sizeof(arguments), "-top -base %s", path);
	text = pprof_says(profile, arguments);
	assert_has(text, "Showing nodes accounting for 0, 0% of 0 total");
	free(text);
	unlink(path);
	profile_free(profile);
}

static int find_go(void **state)
{
	(void)state;
	have_go = !system("go tool pprof -h >/dev/null 2>&1; test $? -eq 0 -o $? -eq 2") &&
		  !system("command -v go >/dev/null");
	return 0;
}

/* A profile of growth: three sites of two kinds. */
static void test_go_reads_growth(void **state)
{
	struct estimate heap = {0}, file = {0}, little = {0};
	struct profile *profile;
	uint32_t first, second;
	char *text;

	(void)state;
	if (!have_go)
		skip();
	for (int i = 0; i < 10; i++)
		estimate_add_event(&heap, 100, 4096);
	estimate_add_event(&file, 50, 65536);
	estimate_add_event(&little, 1, 4096);
	assert_int_equal(profile_new(&profile), 0);
	sample_info(profile, 17);
	assert_int_equal(profile_add_mapping(profile, EXE_START, EXE_START + 0x10000, 0x1000,
					     SAMPLE_EXE, "00aabbccddeeff", NULL),
			 0);
	first = sample_site(profile, true, 3, (int[]){AT_SESSION_NEW, AT_HANDLE, AT_WORKER});
	second = sample_site(profile, true, 2, (int[]){AT_CACHE_PUT, AT_WORKER});
	sample_line(profile, AT_SESSION_NEW, "session_new", "session_new", "/src/session.c", 10);
	sample_line(profile, AT_CACHE_PUT, "cache_put", "cache_put", "/src/cache.c", 20);
	assert_int_equal(profile_add_growth(profile, first, PROFILE_STACK, 1, &little), 0);
	assert_int_equal(profile_add_growth(profile, second, PROFILE_FILE, 1, &file), 0);
	assert_int_equal(profile_add_growth(profile, first, PROFILE_HEAP, 10, &heap), 0);
	assert_int_equal(profile_add_growth(profile, 2, PROFILE_HEAP, 10, &heap), -EINVAL);
	profile_finish_growth(profile);
	assert_true(profile->growth_value == 4096000 + 3276800 + 4096);
	assert_true(profile->growths.items[0].kind == PROFILE_HEAP);
	assert_true(profile->growths.items[2].kind == PROFILE_STACK);
	text = pprof_says_of(profile, "-raw", pprof_encode_growth);
	assert_has(text, "PeriodType: page_faults count\nPeriod: 17\n");
	assert_has(text, "growth_space/bytes[dflt]");
	assert_has(text, "    4096000: ");
	assert_has(text, "    3276800: ");
	assert_has(text, "comm:[memserver] kind:[heap] pid:[4321]\n");
	assert_has(text, "comm:[memserver] kind:[file] pid:[4321]\n");
	free(text);
	text = pprof_says_of(profile, "-top -unit=B", pprof_encode_growth);
	assert_has(text, "Type: growth_space\n");
	assert_has(text, "7376896B total\n");
	assert_has(text, " session_new");
	free(text);
	text = pprof_says_of(profile, "-top -unit=B -tagfocus=file", pprof_encode_growth);
	assert_has(text, "3276800B 44.42%");
	free(text);
	profile_free(profile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_mappings_functions_and_locations),
		cmocka_unit_test(test_samples_and_their_labels),
		cmocka_unit_test(test_direct_mappings_are_labelled),
		cmocka_unit_test(test_every_string_is_valid_and_printable),
		cmocka_unit_test(test_an_empty_profile_is_a_profile),
		cmocka_unit_test(test_go_reads_the_whole_of_it),
		cmocka_unit_test(test_go_shows_the_figures_of_the_summary),
		cmocka_unit_test(test_go_drops_the_allocators_frames_and_no_others),
		cmocka_unit_test(test_go_shows_the_comments),
		cmocka_unit_test(test_go_subtracts_one_from_another),
		cmocka_unit_test(test_go_reads_growth),
	};

	return cmocka_run_group_tests(tests, find_go, NULL);
}
