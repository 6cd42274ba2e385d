/* Groups and containers as container runtimes and systemd name them, and hostile ones; and the filter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "target/cgroup.h"
#include "target/host_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ID    "5a0e8f5f1dbe9b7bd8bcbe21b8c5b2fdb6a24b3b3a5f4b2b9d4f0a3c6e7d8f90"
#define OUTER "00000000000000000000000000000000000000000000000000000000000000ff"

static void expect_id(const char *path, const char *expected)
{
	char id[CGROUP_ID_MAX] = "none";

	assert_int_equal(cgroup_container(path, strlen(path), id), expected != NULL);
	assert_string_equal(id, expected ? expected : "none");
}

static void containers_have_the_ids_that_runtimes_give(void **state)
{
	(void)state;
	expect_id("/system.slice/docker-" ID ".scope", ID);
	expect_id("/docker/" ID, ID);
	expect_id("/docker/" ID "/system.slice/ssh.service", ID);
	expect_id("/kubepods.slice/kubepods-burstable.slice/"
		  "kubepods-burstable-pod2f399b64_8a77_4b5c_9c36_0a7cbd3a04b4.slice/"
		  "cri-containerd-" ID ".scope",
		  ID);
	expect_id("/kubepods/besteffort/pod2f399b64-8a77-4b5c-9c36-0a7cbd3a04b4/" ID, ID);
	expect_id("/kubepods.slice/kubepods-pod1.slice/crio-" ID ".scope", ID);
	expect_id("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:" ID, ID);
	expect_id("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID
		  ".scope/container",
		  ID);
	expect_id("/machine.slice/libpod-" ID ".scope", ID);
	expect_id("/ecs/0123456789abcdef0123456789abcdef/" ID, ID);
	expect_id("/docker-0123456789ab.scope", "0123456789ab");
	/* A container in a container. */
	expect_id("/docker/" OUTER "/kubelet/kubepods/pod1/cri-containerd-" ID ".scope", ID);
}

static void other_groups_are_no_containers(void **state)
{
	(void)state;
	expect_id("", NULL);
	expect_id("/", NULL);
	expect_id("/system.slice/docker.service", NULL);
	expect_id("/machine.slice/libpod-conmon-" ID ".scope", NULL);
	expect_id("/kubepods.slice/crio-conmon-" ID ".scope", NULL);
	expect_id("/docker/" ID "0", NULL);
	expect_id("/docker-" ID "0.scope", NULL);
	expect_id("/docker/0123456789ab", NULL);
	expect_id("/docker-0123456789a.scope", NULL);
	expect_id("/docker-.scope", NULL);
	expect_id("/docker/5A0E8F5F1DBE9B7BD8BCBE21B8C5B2FDB6A24B3B3A5F4B2B9D4F0A3C6E7D8F90", NULL);
	expect_id("/user.slice/user-1000.slice/session-3.scope", NULL);
	expect_id("/a:", NULL);
	expect_id("/x/\x1b[2J/:::::/.scope", NULL);
}

static void expect_best(const char *lines, const char *expected)
{
	const char *path = "";
	size_t length = cgroup_best_path(lines, &path);

	assert_int_equal(length, strlen(expected));
	assert_memory_equal(path, expected, length);
}

static void the_path_that_says_most_is_taken(void **state)
{
	(void)state;
	expect_best("0::/system.slice/a.service\n", "/system.slice/a.service");
	expect_best("9:pids:/p\n4:memory:/m\n1:name=systemd:/s\n0::/u\n", "/u");
	/* All is in the root of the v2 hierarchy. */
	expect_best("9:pids:/p\n4:memory:/m\n1:name=systemd:/s\n0::/\n", "/m");
	expect_best("4:cpu,memory:/m\n9:pids:/p\n", "/m");
	expect_best("9:pids:/p\n4:memory:/\n0::/\n", "/p");
	expect_best("4:memory:/\n0::/\n", "/");
	expect_best("4:mem:/x\n5:memory2:/y\n", "/x");
	/* A name may have colons, and not all lines are lines. */
	expect_best("0::/a:b:c\n", "/a:b:c");
	expect_best("", "");
	expect_best("\n:\n::\n0:/\n0::x\n0::\n", "");
	expect_best("0::/../x (deleted)\n", "/../x (deleted)");
}

static void what_lies_below_a_group_is_in_it(void **state)
{
	const char *lines = "4:memory:/m/n\n0::/system.slice/a.service\n";

	(void)state;
	assert_true(cgroup_is_below(lines, "/"));
	assert_true(cgroup_is_below(lines, "/system.slice"));
	assert_true(cgroup_is_below(lines, "/system.slice/a.service"));
	assert_true(cgroup_is_below(lines, "/m"));
	assert_false(cgroup_is_below(lines, "/system"));
	assert_false(cgroup_is_below(lines, "/system.slice/a"));
	assert_false(cgroup_is_below(lines, "/system.slice/a.service/b"));
	assert_false(cgroup_is_below(lines, "/n"));
	assert_false(cgroup_is_below("", "/m"));
}

static void expect_parsed(const char *text, const char *expected)
{
	char *path = NULL;

	assert_int_equal(cgroup_parse(text, &path), 0);
	assert_string_equal(path, expected);
	free(path);
}

static void groups_are_written_in_several_ways(void **state)
{
	bool folders = access("/sys/fs/cgroup/cgroup.controllers", F_OK) != 0;
	char *path;

	(void)state;
	expect_parsed("/system.slice/a.service", "/system.slice/a.service");
	expect_parsed("system.slice//a.service///", "/system.slice/a.service");
	expect_parsed("/", "/");
	expect_parsed("/sys/fs/cgroup", "/");
	expect_parsed("/sys/fs/cgroupx", "/sys/fs/cgroupx");
	/* v1: a folder for each hierarchy. */
	if (folders && !access("/sys/fs/cgroup/memory", F_OK))
		expect_parsed("/sys/fs/cgroup/memory/m/n/", "/m/n");
	else if (!folders)
		expect_parsed("/sys/fs/cgroup/m/n/", "/m/n");
	assert_int_equal(cgroup_parse("", &path), -EINVAL);
	assert_int_equal(cgroup_parse("/a\n/b", &path), -EINVAL);
}

static void our_own_group_is_read(void **state)
{
	char *lines, first[4096] = "";
	const char *path;
	FILE *f = fopen("/proc/self/cgroup", "re");
	int fd;

	(void)state;
	if (!f)
		skip();
	while (fgets(first, sizeof(first), f))
		;
	fclose(f);
	fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	assert_int_equal(cgroup_read(fd, &lines), 0);
	close(fd);
	assert_non_null(strstr(lines, first));
	assert_true(cgroup_best_path(lines, &path) > 0);
	free(lines);
}

/* A text without an end is cut between lines. */
static void a_long_text_is_cut_at_a_line(void **state)
{
	FILE *f = tmpfile();
	char *lines;

	(void)state;
	assert_non_null(f);
	for (int i = 0; i < 3000; i++)
		fprintf(f, "%d:c%d:/group\n", i, i);
	fflush(f);
	assert_int_equal(cgroup_read(fileno(f), &lines), 0);
	assert_in_range(strlen(lines), CGROUP_TEXT_MAX - 32, CGROUP_TEXT_MAX - 1);
	assert_int_equal(lines[strlen(lines) - 1], '\n');
	free(lines);
	fclose(f);
}

static void a_filter_takes_what_is_asked_for(void **state)
{
	const char *lines = "0::/a/b\n";
	struct host_filter filter = {0};

	(void)state;
	assert_true(host_filter_takes_comm(&filter, "any"));
	assert_true(host_filter_takes_rest(&filter, 0, ""));
	assert_false(host_filter_has_rest(&filter));

	assert_int_equal(host_filter_add_comm(&filter, "redis"), 0);
	assert_int_equal(host_filter_add_comm(&filter, "a-name-that-the-kernel-cuts"), 0);
	assert_true(host_filter_takes_comm(&filter, "redis"));
	assert_false(host_filter_takes_comm(&filter, "redis-server"));
	assert_false(host_filter_takes_comm(&filter, "redi"));
	assert_true(host_filter_takes_comm(&filter, "a-name-that-the"));

	assert_int_equal(host_filter_add_user(&filter, "1000"), 0);
	assert_int_equal(host_filter_add_user(&filter, "root"), 0);
	assert_true(host_filter_takes_rest(&filter, 0, lines));
	assert_true(host_filter_takes_rest(&filter, 1000, lines));
	assert_false(host_filter_takes_rest(&filter, 1, lines));
	assert_int_equal(host_filter_add_cgroup(&filter, "/x"), 0);
	assert_false(host_filter_takes_rest(&filter, 0, lines));
	assert_int_equal(host_filter_add_cgroup(&filter, "a"), 0);
	assert_true(host_filter_takes_rest(&filter, 0, lines));
	assert_false(host_filter_takes_rest(&filter, 1, lines));
	assert_true(host_filter_has_rest(&filter));
	host_filter_deinit(&filter);
}

static void what_names_nothing_is_refused(void **state)
{
	struct host_filter filter = {0};

	(void)state;
	assert_int_equal(host_filter_add_comm(&filter, ""), -EINVAL);
	assert_int_equal(host_filter_add_cgroup(&filter, ""), -EINVAL);
	assert_int_equal(host_filter_add_user(&filter, ""), -EINVAL);
	assert_int_equal(host_filter_add_user(&filter, "4294967295"), -EINVAL);
	assert_int_equal(host_filter_add_user(&filter, "99999999999999999999999"), -EINVAL);
	assert_int_equal(host_filter_add_user(&filter, "-1"), -ENOENT);
	assert_int_equal(host_filter_add_user(&filter, "no such user"), -ENOENT);
	assert_int_equal(host_filter_add_user(&filter, "4294967294"), 0);
	host_filter_deinit(&filter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(containers_have_the_ids_that_runtimes_give),
		cmocka_unit_test(other_groups_are_no_containers),
		cmocka_unit_test(the_path_that_says_most_is_taken),
		cmocka_unit_test(what_lies_below_a_group_is_in_it),
		cmocka_unit_test(groups_are_written_in_several_ways),
		cmocka_unit_test(our_own_group_is_read),
		cmocka_unit_test(a_long_text_is_cut_at_a_line),
		cmocka_unit_test(a_filter_takes_what_is_asked_for),
		cmocka_unit_test(what_names_nothing_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
