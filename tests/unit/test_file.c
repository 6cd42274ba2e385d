/* Where a profile ends up, and where nobody can make it end up. */
#include "output/file.h"

#include "util/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* Two people who are not root. No such user need exist. */
#define OWNER	 54321
#define STRANGER 54322

static const struct output_owner nobody = {.given = false};
static const struct output_owner owner = {.given = true, .uid = OWNER, .gid = OWNER};

/* Each test runs in an empty folder of its own. */
static int enter_folder(void **state)
{
	char path[] = "/tmp/alloctrace-test-XXXXXX";

	*state = NULL;
	if (!mkdtemp(path) || chdir(path) || chmod(path, 0755))
		return -1;
	umask(022);
	*state = strdup(path);
	return *state ? 0 : -1;
}

static void remove_all(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		CLEANUP(cleanup_free) char *name = NULL;
		struct stat st;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		assert_true(asprintf(&name, "%s/%s", path, entry->d_name) > 0);
		if (!lstat(name, &st) && S_ISDIR(st.st_mode))
			remove_all(name);
		else
			unlink(name);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

static int leave_folder(void **state)
{
	if (chdir("/"))
		return -1;
	remove_all(*state);
	free(*state);
	return 0;
}

static void write_file(const char *path, const char *text)
{
	FILE *to = fopen(path, "w");

	assert_non_null(to);
	assert_true(fputs(text, to) >= 0);
	assert_int_equal(fclose(to), 0);
}

static void assert_file_holds(const char *path, const char *text)
{
	char found[256] = "";
	FILE *from = fopen(path, "r");

	assert_non_null(from);
	found[fread(found, 1, sizeof(found) - 1, from)] = '\0';
	fclose(from);
	assert_string_equal(found, text);
}

static unsigned int count_files(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	unsigned int count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
	closedir(dir);
	return count;
}

static int write_text(const char *path, const struct output_owner *to, const char *text)
{
	return output_write(path, to, text, strlen(text));
}

static void need_root(void)
{
	if (geteuid())
		skip();
}

/* --- names
 * ---------------------------------------------------------------------------------------- */

static void assert_path(const char *pattern, const char *comm, const char *expected)
{
	CLEANUP(cleanup_free) char *path = NULL;

	assert_int_equal(output_path(pattern, comm, 7, "pb.gz", &path), 0);
	assert_string_equal(path, expected);
}

static void test_names_of_profiles(void **state)
{
	CLEANUP(cleanup_free) char *in_folder = NULL;
	char *untouched = NULL;

	assert_path(NULL, "server", "alloctrace.server.7.pb.gz");
	assert_path("out/", "server", "out/alloctrace.server.7.pb.gz");
	assert_path("x.%c.%p.%%", "server", "x.server.7.%");
	assert_path("-", "server", "-");
	assert_true(asprintf(&in_folder, "%s/alloctrace.server.7.pb.gz", (char *)*state) > 0);
	assert_path(*state, "server", in_folder);
	assert_int_equal(output_path("%d", "server", 7, "pb.gz", &untouched), -EINVAL);
	assert_int_equal(output_path("x%", "server", 7, "pb.gz", &untouched), -EINVAL);
	assert_null(untouched);
}

static void test_the_target_has_no_say_in_the_folder(void **state)
{
	(void)state;
	assert_path("%c.pb.gz", "../../etc/x", "_._.._etc_x.pb.gz");
	assert_path("%c", "..", "_.");
	assert_path("%c", "-", "_");
	assert_path("%c", "", "_");
	assert_path("%c", ".bashrc", "_bashrc");
	assert_path("%c", "a b;$(c)\n\x1b\xc3\xa4", "a_b___c_____");
	assert_path("%c", "kworker/0:1+x_y-z.1", "kworker_0_1+x_y-z.1");
}

/* --- files
 * ---------------------------------------------------------------------------------------- */

static void test_a_new_file_honours_the_umask(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(output_check("new", &nobody), 0);
	assert_int_equal(count_files("."), 0); /* a check leaves nothing */
	assert_int_equal(write_text("new", &nobody, "profile"), 0);
	assert_file_holds("new", "profile");
	assert_int_equal(stat("new", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	umask(077);
	assert_int_equal(write_text("secret", &nobody, ""), 0);
	assert_int_equal(stat("secret", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	umask(0);
	assert_int_equal(write_text("open", &nobody, ""), 0);
	assert_int_equal(stat("open", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(count_files("."), 3);
}

static void test_an_old_file_is_replaced_at_once(void **state)
{
	int old;
	char text[8] = "";

	(void)state;
	write_file("file", "old");
	old = open("file", O_RDONLY);
	assert_true(old >= 0);
	assert_int_equal(write_text("file", NULL, "new"), 0);
	assert_file_holds("file", "new");
	/* Whoever has it open still reads the old one, whole. */
	assert_int_equal(read(old, text, sizeof(text)), 3);
	assert_string_equal(text, "old");
	close(old);
	assert_int_equal(count_files("."), 1);
}

static void test_bad_paths_have_their_own_errors(void **state)
{
	static char too_long[5000];
	static char long_name[300];

	(void)state;
	assert_int_equal(mkdir("folder", 0755), 0);
	write_file("file", "old");
	memset(too_long, 'x', sizeof(too_long) - 1);
	memset(long_name, 'x', sizeof(long_name) - 1);
	assert_int_equal(output_check("", &nobody), -ENOENT);
	assert_int_equal(output_check("missing/file", &nobody), -ENOENT);
	assert_int_equal(output_check("file/below", &nobody), -ENOTDIR);
	assert_int_equal(output_check("file/", &nobody), -ENOTDIR);
	assert_int_equal(output_check("folder", &nobody), -EISDIR);
	assert_int_equal(output_check("folder/", &nobody), -EISDIR);
	assert_int_equal(output_check("/", &nobody), -EISDIR);
	assert_int_equal(output_check("folder/.", &nobody), -EISDIR);
	assert_int_equal(output_check("folder/..", &nobody), -EISDIR);
	assert_int_equal(output_check(too_long, &nobody), -ENAMETOOLONG);
	assert_int_equal(output_check(long_name, &nobody), -ENAMETOOLONG);
	assert_int_equal(output_check("folder//./../folder/new", &nobody), 0);
	assert_int_equal(write_text("folder//./../folder/new", &nobody, "x"), 0);
	assert_file_holds("folder/new", "x");
	assert_int_equal(write_text("missing/file", &nobody, "x"), -ENOENT);
	assert_int_equal(write_text("folder", &nobody, "x"), -EISDIR);
	assert_int_equal(count_files("folder"), 1);
	assert_file_holds("file", "old");
}

/* Runs check() in a child process as somebody who may do nothing. Its result is the exit status. */
static int run_as(uid_t uid, int (*check)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		if (setgid(uid) || setuid(uid))
			_exit(99);
		_exit(check());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int check_no_permission(void)
{
	if (output_check("new", &nobody) != -EACCES)
		return 1;
	if (write_text("new", &nobody, "x") != -EACCES)
		return 2;
	if (output_check("file", &nobody) != -EACCES)
		return 3;
	if (output_check("open/read-only", &nobody) != -EACCES)
		return 4;
	return output_check("open/new", &nobody) ? 5 : 0;
}

static void test_missing_permission_is_told_before(void **state)
{
	(void)state;
	need_root();
	write_file("file", "old");
	assert_int_equal(mkdir("open", 0755), 0);
	write_file("open/read-only", "");
	assert_int_equal(chmod("open", 0777), 0);
	assert_int_equal(run_as(STRANGER, check_no_permission), 0);
	assert_file_holds("file", "old");
}

static void test_the_file_is_given_to_its_owner(void **state)
{
	struct stat st;

	(void)state;
	need_root();
	assert_int_equal(write_text("file", &owner, "profile"), 0);
	assert_int_equal(stat("file", &st), 0);
	assert_int_equal(st.st_uid, OWNER);
	assert_int_equal(st.st_gid, OWNER);
}

/* --- links
 * ---------------------------------------------------------------------------------------- */

static void make_link(const char *target, const char *path, uid_t uid)
{
	assert_int_equal(symlink(target, path), 0);
	assert_int_equal(lchown(path, uid, uid), 0);
}

static void test_our_own_links_are_followed(void **state)
{
	CLEANUP(cleanup_free) char *absolute = NULL;
	struct stat st;

	assert_int_equal(mkdir("folder", 0755), 0);
	write_file("folder/file", "old");
	assert_int_equal(symlink("folder/file", "link"), 0);
	assert_int_equal(symlink("../folder/new", "folder/dangling"), 0);
	assert_true(asprintf(&absolute, "%s/folder", (char *)*state) > 0);
	assert_int_equal(symlink(absolute, "way"), 0);
	assert_int_equal(write_text("link", &nobody, "through the link"), 0);
	assert_file_holds("folder/file", "through the link");
	assert_int_equal(lstat("link", &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(write_text("way/dangling", &nobody, "to what is not there yet"), 0);
	assert_file_holds("folder/new", "to what is not there yet");
	assert_int_equal(symlink("way", "way2"), 0);
	assert_int_equal(output_check("way2", &nobody), -EISDIR);
	assert_int_equal(symlink("loop", "loop"), 0);
	assert_int_equal(output_check("loop", &nobody), -ELOOP);
	assert_int_equal(output_check("loop/file", &nobody), -ELOOP);
}

static void test_links_of_the_owner_are_followed(void **state)
{
	(void)state;
	need_root();
	write_file("file", "old");
	assert_int_equal(chown("file", OWNER, OWNER), 0);
	make_link("file", "link", OWNER);
	assert_int_equal(output_check("link", &nobody), -ELOOP);
	assert_int_equal(output_check("link", NULL), -ELOOP);
	assert_int_equal(write_text("link", &owner, "new"), 0);
	assert_file_holds("file", "new");
}

/* Else one's own folder would be a way to every file that root may write. */
static void test_links_of_the_owner_lead_only_to_what_is_theirs(void **state)
{
	(void)state;
	need_root();
	assert_int_equal(mkdir("private", 0755), 0);
	write_file("private/file", "old");
	make_link("private/file", "link", OWNER);
	make_link("private/new", "dangling", OWNER);
	make_link("private", "way", OWNER);
	assert_int_equal(output_check("link", &owner), -ELOOP);
	assert_int_equal(write_text("link", &owner, "x"), -ELOOP);
	assert_int_equal(write_text("dangling", &owner, "x"), -ELOOP);
	assert_int_equal(write_text("way/new", &owner, "x"), -ELOOP);
	assert_file_holds("private/file", "old");
	assert_int_equal(count_files("private"), 1);
}

static void test_a_strangers_link_is_refused(void **state)
{
	(void)state;
	need_root();
	assert_int_equal(mkdir("private", 0755), 0);
	write_file("private/file", "old");
	make_link("private/file", "planted", STRANGER);
	make_link("private/new", "dangling", STRANGER);
	make_link("private", "way", STRANGER);
	/* An honest link that leads over a planted one. */
	assert_int_equal(symlink("planted", "honest"), 0);
	assert_int_equal(output_check("planted", &owner), -ELOOP);
	assert_int_equal(write_text("planted", &owner, "x"), -ELOOP);
	assert_int_equal(write_text("dangling", &owner, "x"), -ELOOP);
	assert_int_equal(write_text("way/file", &owner, "x"), -ELOOP);
	assert_int_equal(write_text("honest", &owner, "x"), -ELOOP);
	assert_file_holds("private/file", "old");
	assert_int_equal(count_files("private"), 1);
}

static void test_a_strangers_file_is_replaced_and_not_written_into(void **state)
{
	struct stat before, after;

	(void)state;
	need_root();
	write_file("file", "old");
	assert_int_equal(chown("file", STRANGER, STRANGER), 0);
	assert_int_equal(link("file", "other"), 0);
	assert_int_equal(stat("file", &before), 0);
	assert_int_equal(write_text("file", &owner, "new"), 0);
	assert_int_equal(stat("file", &after), 0);
	assert_int_equal(after.st_uid, OWNER);
	assert_int_not_equal(after.st_ino, before.st_ino);
	assert_file_holds("other", "old");
}

/* --- what is not a file
 * --------------------------------------------------------------------------- */

static void test_pipes_and_devices_are_written_to(void **state)
{
	char text[16] = "", path[64];
	int ends[2];

	(void)state;
	assert_int_equal(output_write("/dev/null", &nobody, "x", 1), 0);
	assert_int_equal(access("/dev/null", W_OK), 0);
	assert_int_equal(pipe(ends), 0);
	snprintf(path, sizeof(path), "/dev/fd/%d", ends[1]);
	assert_int_equal(output_check(path, &nobody), 0);
	assert_int_equal(write_text(path, &nobody, "by pipe"), 0);
	assert_int_equal(read(ends[0], text, sizeof(text)), 7);
	assert_string_equal(text, "by pipe");
	assert_int_equal(mkfifo("fifo", 0600), 0);
	close(ends[0]);
	close(ends[1]);
	ends[0] = open("fifo", O_RDWR);
	assert_true(ends[0] >= 0);
	assert_int_equal(write_text("fifo", &nobody, "by name"), 0);
	assert_int_equal(read(ends[0], text, sizeof(text)), 7);
	assert_string_equal(text, "by name");
	close(ends[0]);
}

static void test_a_strangers_pipe_is_refused(void **state)
{
	(void)state;
	need_root();
	assert_int_equal(mkfifo("fifo", 0666), 0);
	assert_int_equal(chown("fifo", STRANGER, STRANGER), 0);
	assert_int_equal(output_check("fifo", &owner), -EACCES);
	assert_int_equal(write_text("fifo", &owner, "x"), -EACCES);
}

static void test_dev_stdout_may_be_a_file(void **state)
{
	char path[64];
	int fd = open("out", O_WRONLY | O_CREAT, 0644);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "before ", 7), 7);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_int_equal(write_text(path, &nobody, "after"), 0);
	assert_file_holds("out", "before after");
	close(fd);
}

static void test_dash_is_stdout(void **state)
{
	int saved = dup(STDOUT_FILENO), fd, err;

	(void)state;
	fflush(stdout);
	fd = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0 && saved >= 0 && dup2(fd, STDOUT_FILENO) >= 0);
	err = write_text("-", &nobody, "to stdout");
	dup2(saved, STDOUT_FILENO);
	close(fd);
	close(saved);
	assert_int_equal(err, 0);
	assert_int_equal(output_check("-", &nobody), 0);
	assert_file_holds("out", "to stdout");
}

static void test_no_room_in_a_device(void **state)
{
	(void)state;
	if (access("/dev/full", W_OK))
		skip();
	assert_int_equal(output_write("/dev/full", &nobody, "x", 1), -ENOSPC);
}

/* In a child of its own: a mount namespace cannot be left. Returns an exit status. */
static int fill_small_disk(void)
{
	static char big[1 << 20];
	FILE *old;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("small", "disk", "tmpfs", 0, "size=64k"))
		return 77;
	old = fopen("disk/file", "w");
	if (!old || fputs("old", old) < 0 || fclose(old))
		return 77;
	memset(big, 'x', sizeof(big));
	if (output_check("disk/file", &nobody))
		return 1;
	if (output_write("disk/file", &nobody, big, sizeof(big)) != -ENOSPC)
		return 2;
	if (output_write("disk/new", &nobody, big, sizeof(big)) != -ENOSPC)
		return 3;
	if (count_files("disk") != 1)
		return 4;
	assert_file_holds("disk/file", "old");
	if (output_write("disk/file", &nobody, big, 4096))
		return 5;
	if (mount(NULL, "disk", NULL, MS_REMOUNT | MS_RDONLY, NULL))
		return 77;
	if (output_check("disk/file", &nobody) != -EROFS ||
	    output_check("disk/new", &nobody) != -EROFS)
		return 6;
	return 0;
}

static void test_a_full_disk_leaves_the_old_file_and_nothing_else(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	need_root();
	assert_int_equal(mkdir("disk", 0755), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(fill_small_disk());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip(); /* no mounts in here */
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define test(function) cmocka_unit_test_setup_teardown(function, enter_folder, leave_folder)

static void test_numbers_stand_before_the_extension(void **state)
{
	static const struct {
		const char *path, *numbered;
		unsigned int number;
	} cases[] = {
		{"/a/x.pb.gz", "/a/x.0001.pb.gz", 1}, {"x.pb.gz", "x.9999.pb.gz", 9999},
		{"x.pb.gz", "x.10000.pb.gz", 10000},  {"x.gz", "x.gz.0001", 1},
		{"pb.gz", "pb.gz.0001", 1},	      {"/a.pb.gz/x", "/a.pb.gz/x.0001", 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *path;

		assert_int_equal(output_numbered(cases[i].path, "pb.gz", cases[i].number, &path),
				 0);
		assert_string_equal(path, cases[i].numbered);
		free(path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_names_of_profiles),
		test(test_the_target_has_no_say_in_the_folder),
		test(test_a_new_file_honours_the_umask),
		test(test_an_old_file_is_replaced_at_once),
		test(test_bad_paths_have_their_own_errors),
		test(test_missing_permission_is_told_before),
		test(test_the_file_is_given_to_its_owner),
		test(test_our_own_links_are_followed),
		test(test_links_of_the_owner_are_followed),
		test(test_links_of_the_owner_lead_only_to_what_is_theirs),
		test(test_a_strangers_link_is_refused),
		test(test_a_strangers_file_is_replaced_and_not_written_into),
		test(test_pipes_and_devices_are_written_to),
		test(test_a_strangers_pipe_is_refused),
		test(test_dev_stdout_may_be_a_file),
		test(test_dash_is_stdout),
		test(test_no_room_in_a_device),
		test(test_a_full_disk_leaves_the_old_file_and_nothing_else),
		cmocka_unit_test(test_numbers_stand_before_the_extension),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
