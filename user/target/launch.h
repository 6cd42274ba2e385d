/*
 * A command started to be traced from its first allocation on: it is held (by ptrace, and only
 * until then) at the moment when its libc is mapped and nothing in it has run.
 */
#ifndef ALLOCTRACE_LAUNCH_H
#define ALLOCTRACE_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

struct launch_user {
	bool given; /* false: the command runs as we do */
	uid_t uid;
	gid_t gid;
};

/*
 * Starts argv[0] (looked up in PATH) as user. After each system call that it makes while it is
 * loaded, calls is_ready(pid, context): non-zero stops there, and is returned if negative. *pid is
 * the command, held; to be let go with launch_release().
 *
 * 0; -errno of execvp (-ENOENT, -EACCES, ...); -ECHILD if it ended before it was ready; -ETIME if
 * after LAUNCH_SYSCALLS_MAX system calls it still was not: then, and after an error of is_ready, it
 * has been killed.
 */
int launch_start(char *const argv[], const struct launch_user *user,
		 int (*is_ready)(pid_t pid, void *context), void *context, pid_t *pid);

/*
 * Runs a held command on until is_done says so, in the same way: it is held again then. 0; -ECHILD
 * if it ended; -ETIME after LAUNCH_SYSCALLS_MAX system calls; -errno of is_done. It is not killed.
 */
int launch_continue(pid_t pid, int (*is_done)(pid_t pid, void *context), void *context);

/* Lets the command run. 0 or -errno. */
int launch_release(pid_t pid);

/* Ends a held command that is not wanted after all, and reaps it. */
void launch_kill(pid_t pid);

#define LAUNCH_SYSCALLS_MAX 20000

#endif
