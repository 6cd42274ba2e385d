#include "output/short_name.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * A copy with "<..>" for template arguments: what tells two C++ frames apart is rarely in there.
 * Names with an operator, in which such a sign need not be a bracket, are copied as they are; so
 * are those whose brackets do not match, and those that begin with one: Rust's "<T as
 * Trait>::method" is about T.
 */
static char *without_template_arguments(const char *name)
{
	size_t depth = 0;
	char *copy, *to;

	if (*name == '<' || strstr(name, "operator"))
		return strdup(name);
	/* At worst every "<>" becomes "<..>". */
	copy = to = malloc(strlen(name) * 2 + 1);
	if (!copy)
		return NULL;
	for (const char *at = name; *at; at++) {
		if (*at == '>' && !depth--)
			break;
		if (!depth)
			*to++ = *at;
		if (*at == '<' && !depth++)
			to = stpcpy(to, "..");
	}
	*to = '\0';
	if (depth) { /* one too many of either */
		free(copy);
		return strdup(name);
	}
	return copy;
}

static bool is_inside_character(char byte)
{
	return (byte & 0xc0) == 0x80;
}

char *short_name(const char *name, size_t width)
{
	char *copy = strlen(name) > width ? without_template_arguments(name) : strdup(name);
	size_t length = copy ? strlen(copy) : 0;
	size_t head = width / 3, tail = length - (width - head - 2);

	if (length <= width)
		return copy;
	while (head && is_inside_character(copy[head]))
		head--;
	while (is_inside_character(copy[tail]))
		tail++;
	memcpy(copy + head, "..", 2);
	memmove(copy + head + 2, copy + tail, length - tail + 1);
	return copy;
}
