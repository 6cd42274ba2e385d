/*
 * A command started to be traced from its first allocation on: it is held (by ptrace, and only
 * until then) at the moment when its libc is mapped and nothing in it has run.
 */
#ifndef ALLOCTRACE_LAUNCH_H
#define ALLOCTRACE_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct launch_user {
	bool given; /* false: the command runs as we do */
	uid_t uid;
	gid_t gid;
};

/*
 * Asked at the command's exec, with pc 0, and then at each of its system calls, before and after,
 * with the address of the instruction that made it: 0 to go on, 1 to hold it here, -errno to give
 * up.
 */
typedef int (*launch_ask)(pid_t pid, uint64_t pc, void *context);

/*
 * Starts argv[0] (looked up in PATH) as user and runs it until `ask` holds it. *pid is the command,
 * to be let go with launch_release().
 *
 * 0; -errno of execvp (-ENOENT, -EACCES, ...); -ECHILD if it ended before it was held; -errno of
 * `ask`. After an error there is no command.
 */
int launch_start(char *const argv[], const struct launch_user *user, launch_ask ask, void *context,
		 pid_t *pid);

/* Runs a held command on until `ask` holds it again. Errors as above, but it is not killed. */
int launch_continue(pid_t pid, launch_ask ask, void *context);

/* Lets the command run. 0 or -errno. */
int launch_release(pid_t pid);

/* Ends a held command that is not wanted after all, and reaps it. */
void launch_kill(pid_t pid);

#endif
