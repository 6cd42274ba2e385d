#include "target/shadow_stack.h"

#include "util/cleanup.h"
#include "util/kernel_symbols.h"

#include <stdlib.h>
#include <string.h>

/* Of /proc/cpuinfo: the first processor's part. */
#define CPUINFO_MAX 16384
/* Of /proc/PID/status, in which up to 65536 groups come before the features. */
#define STATUS_MAX (1024 * 1024)
#define FEATURES   "x86_Thread_features:"

/*
 * By this return probes write to shadow stacks: it came with that, and serves nothing else. A look at
 * the version would pass over backports, and to try it out takes a processor with shadow stacks.
 */
#define WRITES_FRAME "shstk_update_last_frame"

/* Where the line begins that starts so, behind that; NULL: there is none. */
static const char *find_line(const char *text, const char *start)
{
	size_t length = strlen(start);

	while (strncmp(text, start, length)) {
		text = strchr(text, '\n');
		if (!text)
			return NULL;
		text++;
	}
	return text + length;
}

/* Is this one of the words of the line that starts so? */
static bool line_has(const char *text, const char *start, const char *word)
{
	const char *at = find_line(text, start);
	size_t wanted = strlen(word);

	while (at && *at && *at != '\n') {
		size_t length;

		at += strspn(at, " \t");
		length = strcspn(at, " \t\n");
		if (length == wanted && !strncmp(at, word, length))
			return true;
		at += length;
	}
	return false;
}

bool shadow_stack_in_status(const char *status)
{
	return line_has(status, FEATURES, "shstk");
}

/* The kernel's flag, not the processor's: it is there if the kernel gives out shadow stacks. */
bool shadow_stack_in_cpuinfo(const char *cpuinfo)
{
	return line_has(cpuinfo, "flags\t\t:", "user_shstk");
}

/* The beginning of a file; false: it cannot be read. */
static bool read_text(const char *path, char *text, size_t size)
{
	CLEANUP(cleanup_file) FILE *file = fopen(path, "re");

	if (!file)
		return false;
	text[fread(text, 1, size - 1, file)] = '\0';
	return true;
}

bool shadow_stack_in_status_file(const char *path)
{
	CLEANUP(cleanup_free) char *text = malloc(STATUS_MAX);

	/* Without memory nothing else will come to a probe, but it is not to depend on that. */
	if (!text)
		return true;
	return read_text(path, text, STATUS_MAX) && shadow_stack_in_status(text);
}

bool shadow_stack_exists(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return shadow_stack_in_status_file(path);
}

bool shadow_stack_is_possible(void)
{
	char text[CPUINFO_MAX];

	/* All processors have the same. */
	return !read_text("/proc/cpuinfo", text, sizeof(text)) || shadow_stack_in_cpuinfo(text);
}

bool shadow_stack_breaks_returns(void)
{
	return !kernel_has_function(WRITES_FRAME);
}

bool shadow_stack_forbids_returns(pid_t pid)
{
	return shadow_stack_exists(pid) && shadow_stack_breaks_returns();
}
