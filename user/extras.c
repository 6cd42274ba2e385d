#include "extras.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	enum allocator_shape shape;
} kinds[] = {
	{"alloc", SHAPE_MALLOC},
	{"calloc", SHAPE_CALLOC},
	{"realloc", SHAPE_REALLOC},
	{"reallocarray", SHAPE_REALLOCARRAY},
	{"posix_memalign", SHAPE_POSIX_MEMALIGN},
	{"free", SHAPE_FREE},
};

int extras_add_prefix(struct allocator_extras *extras, const char *text)
{
	const char *colon = strrchr(text, ':');
	struct allocator_prefix *grown, prefix = {0};

	if (!colon || colon == text || !colon[1])
		return -EINVAL;
	grown = reallocarray(extras->prefixes, extras->prefix_count + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	extras->prefixes = grown;
	prefix.path = strndup(text, (size_t)(colon - text));
	prefix.prefix = strdup(colon + 1);
	grown[extras->prefix_count++] = prefix;
	return prefix.path && prefix.prefix ? 0 : -ENOMEM;
}

/* ":argN" at the end of text, which is cut off there. N, 0 if there is none, or -EINVAL. */
static int cut_argument(char *text)
{
	char *colon = strrchr(text, ':');

	if (!colon || strncmp(colon, ":arg", 4) != 0)
		return 0;
	if (colon[4] < '1' || colon[4] > '0' + PROBE_REGISTER_ARGUMENTS || colon[5])
		return -EINVAL;
	*colon = '\0';
	return colon[4] - '0';
}

/* The arguments that text ends with, taken off it; if there are none, the first ones. */
static int parse_arguments(char *text, struct family_function *function)
{
	size_t wanted = shape_operands(function->shape), found = 0;
	int argument;

	while ((argument = cut_argument(text)) > 0) {
		if (found == wanted)
			return -EINVAL;
		/* They come from the last one on. */
		found++;
		function->arguments[wanted - found] = (uint8_t)(argument - 1);
	}
	if (argument < 0 || (found && found != wanted))
		return -EINVAL;
	for (size_t i = 0; !found && i < wanted; i++)
		function->arguments[i] = (uint8_t)i;
	return 0;
}

static bool parse_kind(const char *text, size_t length, enum allocator_shape *shape)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strlen(kinds[i].name) == length && !strncmp(kinds[i].name, text, length)) {
			*shape = kinds[i].shape;
			return true;
		}
	}
	return false;
}

int extras_add_symbol(struct allocator_extras *extras, const char *text)
{
	const char *colon = strchr(text, ':');
	struct family_function *grown, function = {0};
	char *name;

	if (!colon || !parse_kind(text, (size_t)(colon - text), &function.shape))
		return -EINVAL;
	grown = reallocarray(extras->functions, extras->function_count + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	extras->functions = grown;
	name = strdup(colon + 1);
	if (!name)
		return -ENOMEM;
	if (parse_arguments(name, &function) || !*name) {
		free(name);
		return -EINVAL;
	}
	function.name = name;
	/* A function that a compiler of C++ or Rust has named may throw, as far as can be known. */
	function.throws = shape_allocates(function.shape) &&
			  (!strncmp(name, "_Z", 2) || !strncmp(name, "_R", 2));
	grown[extras->function_count++] = function;
	return 0;
}

void extras_deinit(struct allocator_extras *extras)
{
	for (size_t i = 0; i < extras->prefix_count; i++) {
		free((char *)extras->prefixes[i].path);
		free((char *)extras->prefixes[i].prefix);
	}
	for (size_t i = 0; i < extras->function_count; i++)
		free((char *)extras->functions[i].name);
	free(extras->prefixes);
	free(extras->functions);
	*extras = (struct allocator_extras){0};
}
