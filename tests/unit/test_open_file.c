/* Regular files are opened, and nothing else is even touched; nothing outside of a root. */
#include "scratch.h"

#include "util/open_file.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/mman.h>

static int root_of(const char *name)
{
	int fd = open(in_scratch(name), O_PATH | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void assert_holds(int fd, const char *text)
{
	char buffer[64];
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, buffer, sizeof(buffer));
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buffer, text, strlen(text));
	close(fd);
}

static void links_stay_inside_of_the_root(void **state)
{
	int root;

	(void)state;
	run("mkdir -p jail/etc jail/usr && printf inside > jail/etc/file && printf outside > file");
	run("ln -s /etc/file jail/usr/absolute && ln -s ../../../../../../etc/file "
	    "jail/usr/climbs");
	run("ln -s %s/file jail/usr/leads_out", scratch);
	root = root_of("jail");
	assert_holds(open_file_below(root, "/etc/file"), "inside");
	assert_holds(open_file_below(root, "/usr/absolute"), "inside");
	assert_holds(open_file_below(root, "/usr/climbs"), "inside");
	assert_holds(open_file_below(root, "/../../etc/file"), "inside");
	assert_int_equal(open_file_below(root, "/usr/leads_out"), -ENOENT);
	assert_int_equal(open_file_below(root, in_scratch("file")), -ENOENT);
	assert_holds(open_file_below(OPEN_FILE_HOST, in_scratch("file")), "outside");
	close(root);
}

static void links_of_proc_lead_nowhere(void **state)
{
	char link[64];
	int fd;

	(void)state;
	run("printf text > file");
	fd = open(in_scratch("file"), O_RDONLY | O_CLOEXEC);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	assert_int_equal(open_file_below(OPEN_FILE_HOST, link), -ELOOP);
	assert_holds(open_file_link(link), "text");
	close(fd);
}

static void assert_path(int root, int fd, const char *expected)
{
	char *path;

	assert_true(fd >= 0);
	path = open_file_path(root, fd);
	if (expected)
		assert_string_equal(path, expected);
	else
		assert_null(path);
	free(path);
	close(fd);
}

static void the_path_of_a_file_is_the_one_that_links_lead_to(void **state)
{
	int root;

	(void)state;
	run("rm -rf jail && mkdir -p jail/a/b jail/c jailed && printf x > jail/a/b/file && "
	    "printf x > jailed/file");
	run("ln -s ../a/b/file jail/c/link");
	root = root_of("jail");
	assert_path(root, open_file_below(root, "/c/link"), "/a/b/file");
	assert_path(OPEN_FILE_HOST, open_file_below(root, "/c/link"), in_scratch("jail/a/b/file"));
	/* Outside of it, also where the root's name is how the other one's begins. */
	assert_path(root, open_file_below(OPEN_FILE_HOST, in_scratch("jailed/file")), NULL);
	assert_path(root, memfd_create("no file", MFD_CLOEXEC), NULL);
	close(root);
}

/* That none of them was opened says the kernel: it tells whoever watches a file. */
static void what_is_no_regular_file_is_not_opened(void **state)
{
	static const char *const names[] = {"fifo", "device", "folder"};
	struct inotify_event event;
	int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

	(void)state;
	run("rm -rf fifo device folder && mkfifo fifo && mkdir folder");
	if (!try_run("mknod device c 1 3"))
		skip();
	for (size_t i = 0; i < 3; i++) {
		assert_true(inotify_add_watch(watch, in_scratch(names[i]), IN_OPEN) >= 0);
		assert_int_equal(open_file_below(OPEN_FILE_HOST, in_scratch(names[i])), -EINVAL);
		assert_int_equal(open_file_link(in_scratch(names[i])), -EINVAL);
	}
	assert_int_equal(read(watch, &event, sizeof(event)), -1);
	assert_int_equal(errno, EAGAIN);
	close(watch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links_stay_inside_of_the_root),
		cmocka_unit_test(links_of_proc_lead_nowhere),
		cmocka_unit_test(the_path_of_a_file_is_the_one_that_links_lead_to),
		cmocka_unit_test(what_is_no_regular_file_is_not_opened),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
