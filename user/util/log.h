/*
 * What alloctrace says on stderr. Only main.c, cli.c, record.c and their like call this: the rooms
 * below return errors and let the caller say them.
 */
#ifndef ALLOCTRACE_LOG_H
#define ALLOCTRACE_LOG_H

enum log_level {
	LOG_QUIET,   /* errors only */
	LOG_NORMAL,  /* and warnings, and the progress line */
	LOG_VERBOSE, /* and what is done, and libbpf's own messages */
};

void log_set_level(enum log_level level);
enum log_level log_level(void);

/* Each prints one line, "alloctrace: ...". The text must be escaped where it comes from outside. */
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_verbose(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line that the next one replaces; only where stderr is a terminal that can. */
void log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_progress_clear(void);

#endif
