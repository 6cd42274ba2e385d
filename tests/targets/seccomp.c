/*
 * seccomp: allocates while its system calls are filtered.
 *
 *	seccomp MODE WHEN	MODE: strict (nothing but read, write, exit); kill and errno (a filter
 *				of as little, that kills or makes calls fail).
 *				WHEN: before (it says "ready PID") or after.
 *
 * Waits for a line; allocates 50 objects of 100 bytes at path_open unless it is filtered already;
 * filters; allocates 200 of 300 bytes at path_filtered and frees half of each; prints the books in
 * ledger's format. After another line it makes a call that its filter is against: where that does not
 * end it, it ends with 0.
 */
#include "target.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define OPEN	 50
#define FILTERED 200
#define ALLOW(call)                                                                                \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1),                                     \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void *blocks[OPEN + FILTERED];

NAMED_SITE static void *path_open(void)
{
	return malloc(100);
}

NAMED_SITE static void *path_filtered(void)
{
	return malloc(300);
}

static void filter(const char *mode)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(read),
		ALLOW(write),
		ALLOW(exit),
		ALLOW(rt_sigreturn),
		BPF_STMT(BPF_RET | BPF_K, !strcmp(mode, "kill") ? SECCOMP_RET_KILL_PROCESS
								: SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(*code), code};
	int err;

	if (!strcmp(mode, "strict"))
		err = prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
	else
		err = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
	if (err)
		target_die("no filter\n");
}

int main(int argc, char **argv)
{
	int open, pid = getpid();

	if (argc != 3)
		target_die("seccomp strict|kill|errno before|after\n");
	open = strcmp(argv[2], "before") ? OPEN : 0;
	/* From here on the heap does not have to grow. */
	mallopt(M_TOP_PAD, 1 << 20);
	free(malloc(1000));
	if (!open)
		filter(argv[1]);
	target_say("ready %d\n", pid);
	target_wait_line();
	for (int i = 0; i < open; i++)
		blocks[i] = path_open();
	if (open)
		filter(argv[1]);
	for (int i = 0; i < FILTERED; i++)
		blocks[open + i] = path_filtered();
	for (int i = 0; i < open / 2; i++)
		free(blocks[i]);
	for (int i = 0; i < FILTERED / 2; i++)
		free(blocks[open + i]);
	target_say("{\"open\": {\"alloc_objects\": %d, \"alloc_bytes\": %d, "
		   "\"inuse_objects\": %d, \"inuse_bytes\": %d}, "
		   "\"filtered\": {\"alloc_objects\": %d, \"alloc_bytes\": %d, "
		   "\"inuse_objects\": %d, \"inuse_bytes\": %d}}\n",
		   open, open * 100, open / 2, open / 2 * 100, FILTERED, FILTERED * 300,
		   FILTERED / 2, FILTERED / 2 * 300);
	target_wait_line();
	syscall(SYS_getppid);
	/* Not exit_group, which a strict filter is against. */
	syscall(SYS_exit, 0);
}
