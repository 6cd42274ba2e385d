/*
 * What every test target needs: to say that it is ready, to wait for the tester's next line, and to
 * print. Nothing here allocates, so that a target's own ledger stays the whole truth.
 */
#ifndef ALLOCTRACE_TARGET_H
#define ALLOCTRACE_TARGET_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Functions that a test looks for by name: never inlined, cloned or merged with a twin, and, as the
 * targets are built without sibling calls, always a frame of their own.
 */
#define NAMED_SITE __attribute__((noipa))

static inline void target_write(int fd, const char *text, size_t left)
{
	while (left) {
		ssize_t done = write(fd, text, left);

		if (done <= 0)
			_exit(120); /* nobody listens any more */
		text += done;
		left -= (size_t)done;
	}
}

__attribute__((format(printf, 1, 2))) static inline void target_say(const char *format, ...)
{
	char line[512];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	target_write(STDOUT_FILENO, line, (size_t)length);
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void target_die(const char *format,
									      ...)
{
	char line[512];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	target_write(STDERR_FILENO, line, (size_t)length);
	_exit(1);
}

static inline void target_ready(void)
{
	target_say("ready %d\n", (int)getpid());
}

/* Waits for one line on stdin. false: there will be no more. */
static inline bool target_wait_line(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) == 1)
		if (byte == '\n')
			return true;
	return false;
}

#endif
