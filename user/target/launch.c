#include "target/launch.h"

#include "util/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/* For good, and with the user's own groups. */
static int become(const struct launch_user *user)
{
	const struct passwd *entry;

	if (!user->given)
		return 0;
	entry = getpwuid(user->uid);
	if (entry ? initgroups(entry->pw_name, user->gid) : setgroups(0, NULL))
		return -errno;
	if (setresgid(user->gid, user->gid, user->gid) ||
	    setresuid(user->uid, user->uid, user->uid))
		return -errno;
	return 0;
}

/* In the child. The pipe closes when exec succeeds; else it carries the error. */
static void run_child(char *const argv[], const struct launch_user *user, int pipe)
{
	sigset_t none;
	int err;

	/* What we block and ignore for ourselves would outlive the exec. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	err = become(user);
	if (!err && ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		err = -errno;
	if (!err) {
		execvp(argv[0], argv);
		err = -errno;
	}
	if (write(pipe, &err, sizeof(err)) != sizeof(err))
		_exit(126);
	_exit(127);
}

void launch_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Waits for the next stop of pid; 0 with *status, -ECHILD if it has ended (and is reaped). */
static int wait_stop(pid_t pid, int *status)
{
	while (waitpid(pid, status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFSTOPPED(*status) ? 0 : -ECHILD;
}

/* Where the system call came from that pid is stopped at; 0 if that cannot be told. */
static uint64_t syscall_pc(pid_t pid)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) < 0)
		return 0;
	return info.instruction_pointer;
}

/* From one system call to the next, until it is to be held. */
static int run_until_held(pid_t pid, uint64_t pc, launch_ask ask, void *context)
{
	int signal = 0, status, answer = pc ? 0 : ask(pid, 0, context);

	while (!answer) {
		int err = ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)signal) ? -errno : 0;

		if (!err)
			err = wait_stop(pid, &status);
		if (err)
			return err;
		/* TRACESYSGOOD tells a system call's stop from a signal, which is passed on. */
		signal = WSTOPSIG(status);
		if (signal == (SIGTRAP | 0x80)) {
			signal = 0;
			answer = ask(pid, syscall_pc(pid), context);
		}
	}
	return answer < 0 ? answer : 0;
}

int launch_start(char *const argv[], const struct launch_user *user, launch_ask ask, void *context,
		 pid_t *out)
{
	int ends[2], status, err = 0, exec_error = 0;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0) {
		err = -errno;
		close(ends[0]);
		close(ends[1]);
		return err;
	}
	if (pid == 0)
		run_child(argv, user, ends[1]);
	close(ends[1]);
	if (read(ends[0], &exec_error, sizeof(exec_error)) == sizeof(exec_error))
		err = exec_error;
	close(ends[0]);
	if (err) {
		launch_kill(pid);
		return err;
	}
	/* Stopped by the SIGTRAP that follows a traced exec. */
	err = wait_stop(pid, &status);
	if (err)
		return err;
	if (ptrace(PTRACE_SETOPTIONS, pid, NULL,
		   (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)))
		err = -errno;
	if (!err)
		err = run_until_held(pid, 0, ask, context);
	if (err == -ECHILD)
		return err;
	if (err) {
		launch_kill(pid);
		return err;
	}
	*out = pid;
	return 0;
}

int launch_continue(pid_t pid, launch_ask ask, void *context)
{
	return run_until_held(pid, syscall_pc(pid), ask, context);
}

int launch_release(pid_t pid)
{
	return ptrace(PTRACE_DETACH, pid, NULL, NULL) ? -errno : 0;
}
