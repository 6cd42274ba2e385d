/*
 * spent FILE COMMAND...: runs a command, and writes to FILE what it took:
 *	NANOSECONDS, from start to end; NANOSECONDS on a CPU; KIBIBYTES, the most that was resident
 * The kernel counts the memory of the process that forks as that of the child before it executes, so
 * the one that measures has to be small. Exits with the command's status.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t of_timeval(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_usec * 1000;
}

int main(int argc, char **argv)
{
	uint64_t started = nanoseconds();
	struct rusage usage;
	int status;
	pid_t pid;
	FILE *f;

	if (argc < 3) {
		fprintf(stderr, "usage: spent FILE COMMAND...\n");
		return 2;
	}
	pid = fork();
	if (pid == 0) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
		fprintf(stderr, "spent: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	f = fopen(argv[1], "w");
	if (!f ||
	    fprintf(f, "%" PRIu64 " %" PRIu64 " %ld\n", nanoseconds() - started,
		    of_timeval(&usage.ru_utime) + of_timeval(&usage.ru_stime),
		    usage.ru_maxrss) < 0 ||
	    fclose(f)) {
		fprintf(stderr, "spent: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
