/*
 * contain pivot|overlay|upper|volume|chroot ROOT PROGRAM [ARGUMENT...]: runs a program in a container.
 *
 * pivot	ROOT becomes the root of a mount namespace of its own
 * overlay	so does an overlay of tmpfs over ROOT, which stays as it is
 * upper	the same; the program has been copied up into the tmpfs
 * volume	chroot into such an overlay, which can be unmounted: it is ROOT.box/merged in that namespace
 * chroot	no namespaces, and the program in this process
 *
 * But for the last, the program is process 1 of a pid namespace. It ends with us, and we as it does.
 */
#include "target.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void check(int failed, const char *what)
{
	if (failed)
		target_die("%s: %s\n", what, strerror(errno));
}

__attribute__((format(printf, 2, 3))) static void set_path(char path[PATH_MAX], const char *format,
							   ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(path, PATH_MAX, format, args);
	va_end(args);
}

static void make_folder(const char *path)
{
	check(mkdir(path, 0755) && errno != EEXIST, path);
}

/* The folder becomes what is seen of the overlay. */
static void mount_overlay(const char *lower, char merged[PATH_MAX])
{
	char base[PATH_MAX], path[PATH_MAX], options[3 * PATH_MAX];

	set_path(base, "%s.box", lower);
	make_folder(base);
	check(mount("box", base, "tmpfs", 0, NULL), base);
	set_path(path, "%s/upper", base);
	make_folder(path);
	set_path(path, "%s/work", base);
	make_folder(path);
	set_path(merged, "%s/merged", base);
	make_folder(merged);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower,
		 base, base);
	check(mount("overlay", merged, "overlay", 0, options), "overlay");
}

/* The root of the mount namespace; what was it before is gone. */
static void pivot(const char *root)
{
	check(mount(root, root, NULL, MS_BIND | MS_REC, NULL), root);
	check(chdir(root), root);
	check(mount("proc", "proc", "proc", 0, NULL), "proc");
	check((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "umount");
}

static void go_into(const char *how, const char *root, const char *program)
{
	char merged[PATH_MAX], path[PATH_MAX];

	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	if (strcmp(how, "pivot") == 0) {
		pivot(root);
		return;
	}
	mount_overlay(root, merged);
	set_path(path, "%s%s", merged, program);
	if (strcmp(how, "upper") == 0)
		check(chmod(path, 0700), path);
	if (strcmp(how, "volume") == 0)
		check(chroot(merged), merged);
	else
		pivot(merged);
}

static void become(char **command)
{
	check(chdir("/"), "/");
	execv(command[0], command);
	check(1, command[0]);
}

int main(int argc, char **argv)
{
	int status;
	pid_t child;

	if (argc < 4)
		target_die("contain HOW ROOT PROGRAM [ARGUMENT...]\n");
	if (strcmp(argv[1], "chroot") == 0) {
		check(chroot(argv[2]), argv[2]);
		become(argv + 3);
	}
	check(unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare");
	child = fork();
	check(child < 0, "fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		go_into(argv[1], argv[2], argv[3]);
		become(argv + 3);
	}
	check(waitpid(child, &status, 0) < 0, "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
