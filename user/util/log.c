#include "util/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum log_level current_level = LOG_NORMAL;
static bool progress_shown;

void log_set_level(enum log_level level)
{
	current_level = level;
}

enum log_level log_level(void)
{
	return current_level;
}

void log_progress_clear(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}

static void say(const char *kind, const char *format, va_list arguments)
{
	log_progress_clear();
	fprintf(stderr, "alloctrace: %s", kind);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
}

#define DEFINE_LOG(name, kind, least)                                                              \
	void name(const char *format, ...)                                                         \
	{                                                                                          \
		va_list arguments;                                                                 \
		if (current_level < (least))                                                       \
			return;                                                                    \
		va_start(arguments, format);                                                       \
		say(kind, format, arguments);                                                      \
		va_end(arguments);                                                                 \
	}

DEFINE_LOG(log_error, "", LOG_QUIET)
DEFINE_LOG(log_warning, "warning: ", LOG_NORMAL)
DEFINE_LOG(log_verbose, "", LOG_VERBOSE)

static bool terminal_can_rewrite(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

void log_progress(const char *format, ...)
{
	va_list arguments;

	if (current_level != LOG_NORMAL || !terminal_can_rewrite())
		return;
	fputs("\r\033[K", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fflush(stderr);
	progress_shown = true;
}
