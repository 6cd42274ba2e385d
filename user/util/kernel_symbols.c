#include "util/kernel_symbols.h"

#include "util/cleanup.h"

#include <string.h>

bool kernel_symbols_have(FILE *kallsyms, const char *name)
{
	CLEANUP(cleanup_free) char *line = NULL;
	size_t capacity = 0;

	while (getline(&line, &capacity, kallsyms) > 0) {
		char found[128], type;

		if (sscanf(line, "%*s %c %127s", &type, found) == 2 &&
		    (type == 'T' || type == 't') && !strcmp(found, name))
			return true;
	}
	return false;
}

bool kernel_has_function(const char *name)
{
	CLEANUP(cleanup_file) FILE *kallsyms = fopen("/proc/kallsyms", "re");

	return kallsyms && kernel_symbols_have(kallsyms, name);
}
