/* Maps of code made at run time, as compilers write them, and as nobody should. */
#include "scratch.h"

#include "symbol/perf_map.h"
#include "target/process.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define PID   77
#define OTHER 54321

static int root;

static int setup(void **state)
{
	int err = scratch_setup(state);

	if (err)
		return err;
	run("mkdir tmp outside");
	root = open(scratch, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return root < 0;
}

/* The map as it is now in the folder, of a process of ours. */
static int read_map(struct perf_map **map, const char **refusal)
{
	struct perf_map_owner owner = {
		.root = root,
		.pid = PID,
		.user = getuid(),
		.group = getgid(),
	};

	*map = NULL;
	*refusal = NULL;
	return perf_map_read(&owner, map, refusal);
}

static struct perf_map *map_of_bytes(const char *text, size_t size)
{
	struct perf_map *map;
	const char *refusal;

	run("rm -f tmp/perf-77.map");
	write_file("tmp/perf-77.map", text, size);
	assert_int_equal(read_map(&map, &refusal), 0);
	assert_null(refusal);
	assert_non_null(map);
	return map;
}

static struct perf_map *map_of(const char *text)
{
	return map_of_bytes(text, strlen(text));
}

/* "" for none. */
static const char *name_at(const struct perf_map *map, uint64_t address)
{
	const char *name = perf_map_find(map, address);

	return name ? name : "";
}

static void assert_used(void)
{
	struct perf_map *map;
	const char *refusal;

	assert_int_equal(read_map(&map, &refusal), 0);
	perf_map_free(map);
}

static void assert_refused(const char *expected)
{
	struct perf_map *map;
	const char *refusal;
	int err = read_map(&map, &refusal);

	assert_true(err && err != -ENOENT && err != -ENOMEM);
	assert_null(map);
	assert_string_equal(refusal, expected);
}

/* --- the lines --- */

static void code_has_the_name_of_its_line(void **state)
{
	struct perf_map *map = map_of("1000 10 first\n1010 20 JS:*f /a b.js:1:2\n2000 1 last\n");

	(void)state;
	assert_string_equal(name_at(map, 0xfff), "");
	assert_string_equal(name_at(map, 0x1000), "first");
	assert_string_equal(name_at(map, 0x100f), "first");
	assert_string_equal(name_at(map, 0x1010), "JS:*f /a b.js:1:2");
	assert_string_equal(name_at(map, 0x102f), "JS:*f /a b.js:1:2");
	assert_string_equal(name_at(map, 0x1030), "");
	assert_string_equal(name_at(map, 0x2000), "last");
	assert_string_equal(name_at(map, UINT64_MAX), "");
	assert_int_equal(perf_map_broken(map), 0);
	perf_map_free(map);
}

static void the_last_line_may_lack_its_newline(void **state)
{
	struct perf_map *map = map_of("1000 10 first\n2000 10 last");

	(void)state;
	assert_string_equal(name_at(map, 0x2008), "last");
	assert_int_equal(perf_map_broken(map), 0);
	perf_map_free(map);
}

/* As HotSpot writes them, and as a debugger's user might. */
static void numbers_may_have_a_prefix_and_capitals(void **state)
{
	struct perf_map *map = map_of("0x00007f00000000a0 0x0000000000000010 java\n"
				      "7F00000000B0 1F CAPITALS\n");

	(void)state;
	assert_string_equal(name_at(map, 0x7f00000000a8), "java");
	assert_string_equal(name_at(map, 0x7f00000000ce), "CAPITALS");
	assert_string_equal(name_at(map, 0x7f00000000cf), "");
	assert_int_equal(perf_map_broken(map), 0);
	perf_map_free(map);
}

static void of_lines_that_overlap_the_later_one_holds(void **state)
{
	struct perf_map *map = map_of("1000 100 freed\n1040 20 second\n1050 100 third\n"
				      "3000 10 small\n2ff0 100 around\n");

	(void)state;
	assert_string_equal(name_at(map, 0x1000), "freed");
	assert_string_equal(name_at(map, 0x1040), "second");
	assert_string_equal(name_at(map, 0x1050), "third");
	assert_string_equal(name_at(map, 0x10ff), "third");
	assert_string_equal(name_at(map, 0x114f), "third");
	assert_string_equal(name_at(map, 0x3008), "around");
	perf_map_free(map);
}

static void broken_lines_are_counted_and_left_out(void **state)
{
	static const char *const lines[] = {
		"word",
		"1000",
		"1000 ",
		"1000 10",
		"1000 10 ",
		" 1000 10 blank_before",
		"1000  10 two_blanks",
		"1000\t10\ttabs",
		"0x 10 no_digits",
		"1000 0x no_digits",
		"-1000 10 negative",
		"1000 -1 negative",
		"10000000000000000 10 more_than_64_bits",
		"1000 11111111111111111 more_than_64_bits",
		"ffffffffffffffff 1 over_the_end",
		"1000 ffffffffffffffff over_the_end",
		"100g 10 no_hex",
	};
	const size_t count = sizeof(lines) / sizeof(*lines);
	char text[2048] = "4000 10 good\n";
	struct perf_map *map;

	(void)state;
	for (size_t i = 0; i < count; i++) {
		strcat(text, lines[i]);
		strcat(text, "\n\n"); /* empty ones do not count */
	}
	strcat(text, "5000 10 good_too\n");
	map = map_of(text);
	assert_int_equal(perf_map_broken(map), count);
	assert_string_equal(name_at(map, 0x1000), "");
	assert_string_equal(name_at(map, UINT64_MAX - 1), "");
	assert_string_equal(name_at(map, 0x4000), "good");
	assert_string_equal(name_at(map, 0x5000), "good_too");
	perf_map_free(map);
	map = map_of("1000 0 of_no_size\nfffffffffffffff0 f up_to_the_end\n");
	assert_string_equal(name_at(map, 0x1000), "");
	assert_string_equal(name_at(map, UINT64_MAX - 1), "up_to_the_end");
	perf_map_free(map);
}

static void names_are_bytes(void **state)
{
	static const char text[] = "1000 10 \xff\x1b[31m\r\n2000 10 cut\0off\n3000 10 \0none\n"
				   "\0 4000 10 x\n5000 10 after\n";
	struct perf_map *map = map_of_bytes(text, sizeof(text) - 1);

	(void)state;
	assert_string_equal(name_at(map, 0x1000), "\xff\x1b[31m\r");
	assert_string_equal(name_at(map, 0x2000), "cut");
	assert_string_equal(name_at(map, 0x3000), "");
	assert_string_equal(name_at(map, 0x4000), "");
	assert_string_equal(name_at(map, 0x5000), "after");
	assert_int_equal(perf_map_broken(map), 2);
	perf_map_free(map);
}

static void an_empty_map_names_nothing(void **state)
{
	struct perf_map *map = map_of("");

	(void)state;
	assert_string_equal(name_at(map, 0), "");
	perf_map_free(map);
	perf_map_free(NULL);
}

static void noise_does_no_harm(void **state)
{
	static const char bytes[] = "0123456789abcdefx \n\0g\xff";
	static char text[4096];
	uint64_t seed = 1, named = 0;

	(void)state;
	for (unsigned int i = 0; i < 300; i++) {
		size_t size = noise(&seed) % sizeof(text);
		struct perf_map *map;

		for (size_t at = 0; at < size; at++)
			text[at] = bytes[noise(&seed) % (sizeof(bytes) - 1)];
		map = map_of_bytes(text, size);
		for (uint64_t at = 0; at < 4096; at++)
			named += perf_map_find(map, at) != NULL;
		perf_map_free(map);
	}
	assert_true(named > 0);
}

/* --- limits --- */

/* Each covers all those before it, and none can be dropped before the end. */
static void a_map_of_many_lines_is_read_up_to_a_limit(void **state)
{
	struct perf_map *map;
	const char *refusal;
	FILE *f = fopen(in_scratch("tmp/perf-77.map"), "w");

	(void)state;
	assert_non_null(f);
	for (unsigned int i = 0; i < PERF_MAP_ENTRIES_MAX; i++)
		fprintf(f, "%x %x f%x\n", PERF_MAP_ENTRIES_MAX - i, 2 * i + 1, i);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(read_map(&map, &refusal), 0);
	assert_string_equal(name_at(map, PERF_MAP_ENTRIES_MAX), "f3fffff");
	assert_string_equal(name_at(map, 1), "f3fffff");
	perf_map_free(map);
	run("echo '1000 1 one_too_many' >>tmp/perf-77.map");
	assert_refused("has more than 4,194,304 lines");
}

static void a_map_that_is_too_large_is_refused(void **state)
{
	struct perf_map *map = map_of("1000 10 f\n");

	(void)state;
	perf_map_free(map);
	assert_int_equal(truncate(in_scratch("tmp/perf-77.map"), PERF_MAP_BYTES_MAX + 1L), 0);
	assert_refused("is larger than 256 MiB");
}

/* --- whose it is, and what --- */

static void without_a_map_there_is_none(void **state)
{
	struct perf_map *map;
	const char *refusal;

	(void)state;
	run("rm -f tmp/perf-77.map");
	assert_int_equal(read_map(&map, &refusal), -ENOENT);
	assert_null(refusal);
}

static void maps_of_others_are_refused(void **state)
{
	const char *path = in_scratch("tmp/perf-77.map");

	(void)state;
	if (getuid() != 0)
		skip();
	perf_map_free(map_of("1000 10 f\n"));
	assert_int_equal(chown(path, OTHER, OTHER), 0);
	assert_refused("belongs neither to the process's user nor to root");
}

/* A daemon that has opened its map and then become somebody else. */
static void a_map_of_root_is_used_if_the_process_may_read_it(void **state)
{
	struct perf_map_owner owner = {.root = root, .pid = PID, .user = OTHER, .group = OTHER};
	struct perf_map *map;
	const char *refusal;

	(void)state;
	if (getuid() != 0)
		skip();
	perf_map_free(map_of("1000 10 f\n"));
	run("chmod 644 tmp/perf-77.map");
	assert_int_equal(perf_map_read(&owner, &map, &refusal), 0);
	perf_map_free(map);
	run("chmod 640 tmp/perf-77.map");
	assert_int_equal(perf_map_read(&owner, &map, &refusal), -EPERM);
	assert_string_equal(refusal, "belongs to root, and the process's user may not read it");
}

static void maps_that_others_may_write_are_refused(void **state)
{
	(void)state;
	perf_map_free(map_of("1000 10 f\n"));
	run("chmod 606 tmp/perf-77.map");
	assert_refused("can be written by others than its owner");
	/* As with a umask of 002, where each user has a group of their own. */
	run("chmod 664 tmp/perf-77.map");
	assert_used();
	if (getuid() != 0)
		return;
	run("chgrp %d tmp/perf-77.map", OTHER);
	assert_refused("can be written by others than its owner");
	run("chmod 644 tmp/perf-77.map");
	assert_used();
}

static void what_is_no_regular_file_is_not_opened(void **state)
{
	static const char *const commands[] = {"mkfifo -m 600", "mkdir", "ln -s /dev/null",
					       "ln -s ../fifo"};

	(void)state;
	run("mkfifo -m 600 fifo && mkdir dev && mkfifo -m 600 dev/null");
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		run("rm -rf tmp/perf-77.map && %s tmp/perf-77.map", commands[i]);
		assert_refused("is not a regular file");
	}
	run("rm -rf tmp/perf-77.map");
}

static void links_lead_to_what_is_below_the_root_only(void **state)
{
	struct perf_map *map;
	const char *refusal;

	(void)state;
	/* By our own root this would be a file that can be read. */
	write_text("outside/map", "1000 10 outside\n");
	run("rm -f tmp/perf-77.map && ln -s $PWD/outside/map tmp/perf-77.map");
	assert_int_equal(read_map(&map, &refusal), -ENOENT);
	run("ln -sf ../../../../../outside/map tmp/perf-77.map");
	assert_int_equal(read_map(&map, &refusal), 0);
	assert_string_equal(name_at(map, 0x1000), "outside");
	perf_map_free(map);
	run("rm tmp/perf-77.map");
}

/* --- the process --- */

static void a_process_has_its_effective_ids_and_its_own_id(void **state)
{
	struct process *process;
	int go[2], status;
	pid_t child;
	char byte;

	(void)state;
	if (getuid() != 0)
		skip();
	assert_int_equal(pipe(go), 0);
	child = fork();
	if (!child) {
		/* After the ids have changed: a change takes this back. */
		if (setresgid(1, OTHER, 2) || setresuid(3, OTHER, 0) ||
		    prctl(PR_SET_PDEATHSIG, SIGKILL))
			_exit(1);
		(void)!write(go[1], "", 1);
		pause();
	}
	assert_int_equal(read(go[0], &byte, 1), 1);
	assert_int_equal(process_open(child, &process), 0);
	assert_int_equal(process->user, OTHER);
	assert_int_equal(process->group, OTHER);
	assert_int_equal(process->inner_pid, child);
	process_free(process);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
}

static void what_is_made_at_run_time_is_told_by_its_name(void **state)
{
	static const struct {
		char *path;
		bool made;
	} cases[] = {
		{"", true},
		{"/memfd:doublemapper (deleted)", true},
		{"[anon:v8]", true},
		{"[heap]", true},
		{"[vdso]", false},
		{"[uprobes]", false},
		{"/usr/lib/libc.so.6", false},
		{"/home/memfd:x", false},
	};
	struct mapping mapping = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		mapping.path = cases[i].path;
		assert_int_equal(mapping_is_made_at_run_time(&mapping), cases[i].made);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_has_the_name_of_its_line),
		cmocka_unit_test(the_last_line_may_lack_its_newline),
		cmocka_unit_test(numbers_may_have_a_prefix_and_capitals),
		cmocka_unit_test(of_lines_that_overlap_the_later_one_holds),
		cmocka_unit_test(broken_lines_are_counted_and_left_out),
		cmocka_unit_test(names_are_bytes),
		cmocka_unit_test(an_empty_map_names_nothing),
		cmocka_unit_test(noise_does_no_harm),
		cmocka_unit_test(a_map_of_many_lines_is_read_up_to_a_limit),
		cmocka_unit_test(a_map_that_is_too_large_is_refused),
		cmocka_unit_test(without_a_map_there_is_none),
		cmocka_unit_test(maps_of_others_are_refused),
		cmocka_unit_test(a_map_of_root_is_used_if_the_process_may_read_it),
		cmocka_unit_test(maps_that_others_may_write_are_refused),
		cmocka_unit_test(what_is_no_regular_file_is_not_opened),
		cmocka_unit_test(links_lead_to_what_is_below_the_root_only),
		cmocka_unit_test(a_process_has_its_effective_ids_and_its_own_id),
		cmocka_unit_test(what_is_made_at_run_time_is_told_by_its_name),
	};

	return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
