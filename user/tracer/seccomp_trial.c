#include "tracer/seccomp_trial.h"

#include "util/kernel_symbols.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#define URETPROBE	   335 /* __NR_uretprobe, for older headers */
#define URETPROBE_FUNCTION "__x64_sys_uretprobe"
#else
#define URETPROBE	   -1 /* return probes end with a breakpoint */
#define URETPROBE_FUNCTION ""
#endif

/* What our filter answers: no system call fails with it by itself. */
#define FILTERED EADV

/* How the child of a trial ends. */
enum {
	NOT_ASKED,
	ASKED,
	ABSENT,
	FAILED,
};

static sigjmp_buf refused;

static void on_refusal(int signal)
{
	(void)signal;
	siglongjmp(refused, 1);
}

/*
 * 0, or the errno of the call. The one that ends return probes has a SIGILL for whoever is not in
 * one: it is there then, and was not filtered.
 */
static int call(long number)
{
	if (sigsetjmp(refused, 1))
		return 0;
	return syscall(number, 0, 0, 0, 0, 0, 0) < 0 ? errno : 0;
}

static bool install_filter(long number)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | FILTERED),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = {
		.len = sizeof(code) / sizeof(*code),
		.filter = code,
	};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

/* In the child. How it ends. */
static int run(long number)
{
	struct sigaction action = {.sa_handler = on_refusal};

	/* Whatever goes wrong, it does not outlive us, and leaves no core file. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || prctl(PR_SET_DUMPABLE, 0) ||
	    sigaction(SIGILL, &action, NULL) || signal(SIGSYS, SIG_DFL) == SIG_ERR)
		return FAILED;
	if (call(number) == ENOSYS)
		return ABSENT;
	/* A kernel without filters asks none. */
	if (!install_filter(number))
		return errno == EINVAL ? NOT_ASKED : FAILED;
	return call(number) == FILTERED ? ASKED : NOT_ASKED;
}

int seccomp_trial_of(long number)
{
	pid_t child;
	int status;

	if (number < 0)
		return 0;
	child = fork();
	if (child < 0)
		return -errno;
	if (child == 0)
		_exit(run(number));
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (WIFSIGNALED(status))
		return 1;
	switch (WEXITSTATUS(status)) {
	case NOT_ASKED:
		return 0;
	case ASKED:
		return 1;
	case ABSENT:
		return -ENOSYS;
	default:
		return -ECHILD;
	}
}

int seccomp_trial(void)
{
	int answer = seccomp_trial_of(URETPROBE);

	/*
	 * A filter that we are under ourselves (in a container) is the child's too, and may have
	 * answered in place of a kernel that lacks the call: it was asked, if the call is there.
	 */
	if ((answer == 1 || answer == -ENOSYS) && prctl(PR_GET_SECCOMP, 0, 0, 0, 0) > 0)
		return kernel_has_function(URETPROBE_FUNCTION);
	return answer == -ENOSYS ? 0 : answer;
}
