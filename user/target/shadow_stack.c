#include "target/shadow_stack.h"

#include "util/cleanup.h"
#include "util/kernel_symbols.h"

#include <string.h>

#define STATUS_MAX 16384
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

bool shadow_stack_in_status(const char *status)
{
	const char *features = find_line(status, FEATURES);

	while (features && *features && *features != '\n') {
		size_t length;

		features += strspn(features, " \t");
		length = strcspn(features, " \t\n");
		if (length == 5 && !strncmp(features, "shstk", 5))
			return true;
		features += length;
	}
	return false;
}

bool shadow_stack_exists(pid_t pid)
{
	CLEANUP(cleanup_file) FILE *status = NULL;
	char path[64], text[STATUS_MAX];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	if (!status)
		return false;
	text[fread(text, 1, sizeof(text) - 1, status)] = '\0';
	return shadow_stack_in_status(text);
}

bool shadow_stack_forbids_returns(pid_t pid)
{
	return shadow_stack_exists(pid) && !kernel_has_function(WRITES_FRAME);
}
