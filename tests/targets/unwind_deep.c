/*
 * unwind_deep: allocates at the end of a recursion.
 *
 * Says "ready PID". For each line "DEPTH N" it then allocates N times below DEPTH frames of
 * path_recurse, and says "done". Ends with stdin.
 */
#include "target.h"

NAMED_SITE static void *path_recurse(int depth)
{
	void *block = depth > 1 ? path_recurse(depth - 1) : malloc(100);

	__asm__ volatile("" : "+r"(block)); /* no jump to what should be called */
	return block;
}

NAMED_SITE static void path_times(int depth, int count)
{
	for (int i = 0; i < count; i++)
		free(path_recurse(depth));
}

static bool read_line(char *line, size_t size)
{
	size_t at = 0;

	while (at < size - 1 && read(STDIN_FILENO, line + at, 1) == 1) {
		if (line[at++] == '\n') {
			line[at] = '\0';
			return true;
		}
	}
	return false;
}

int main(void)
{
	char line[64];

	target_ready();
	while (read_line(line, sizeof(line))) {
		int depth, count;

		if (sscanf(line, "%d %d", &depth, &count) != 2 || depth < 1)
			target_die("DEPTH N\n");
		path_times(depth, count);
		target_say("done\n");
	}
	return 0;
}
