/*
 * exec_self COMMAND ARG...: says "ready PID", waits for a line, allocates 100 objects of 1000 bytes
 * at path_before_exec, and becomes the command, which keeps the pid and nothing else.
 */
#include "target.h"

NAMED_SITE static void *path_before_exec(void)
{
	return malloc(1000);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		target_die("exec_self COMMAND ARG...\n");
	target_ready();
	target_wait_line();
	for (int i = 0; i < 100; i++)
		if (!path_before_exec())
			target_die("out of memory\n");
	execv(argv[1], argv + 1);
	target_die("%s cannot be executed\n", argv[1]);
}
