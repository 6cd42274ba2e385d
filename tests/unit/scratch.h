/* A temporary folder for a test, with programs compiled into it; gone again at the end. */
#ifndef ALLOCTRACE_TESTS_SCRATCH_H
#define ALLOCTRACE_TESTS_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "binary/image.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[] = "/tmp/alloctrace-test-XXXXXX";

/* Runs a shell command in the folder; false: it failed. */
__attribute__((format(printf, 1, 2))) static inline bool try_run(const char *format, ...)
{
	char command[8192];
	va_list args;
	int used = snprintf(command, sizeof(command), "cd %s && ", scratch), n;

	va_start(args, format);
	n = vsnprintf(command + used, sizeof(command) - (size_t)used, format, args);
	va_end(args);
	assert_true(n >= 0 && (size_t)(used + n) < sizeof(command));
	return system(command) == 0;
}

#define run(...) assert_true(try_run(__VA_ARGS__))

static inline bool have(const char *tool)
{
	return try_run("command -v %s >/dev/null", tool);
}

static inline int scratch_setup(void **state)
{
	(void)state;
	return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_teardown(void **state)
{
	(void)state;
	return try_run("rm -rf %s", scratch) ? 0 : -1;
}

/* The path of a file in the folder; one of four buffers in turn. */
static inline const char *in_scratch(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, PATH_MAX, "%s/%s", scratch, name);
	return path;
}

static inline void write_file(const char *name, const void *data, size_t size)
{
	FILE *f = fopen(in_scratch(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, size, f), size);
	assert_int_equal(fclose(f), 0);
}

static inline void write_text(const char *name, const char *text)
{
	write_file(name, text, strlen(text));
}

/* All of a file, with a NUL behind it; to be freed. */
static inline char *read_file(const char *name, size_t *size)
{
	FILE *f = fopen(in_scratch(name), "r");
	struct stat st;
	char *bytes;

	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &st), 0);
	bytes = malloc((size_t)st.st_size + 1);
	assert_non_null(bytes);
	*size = fread(bytes, 1, (size_t)st.st_size, f);
	bytes[*size] = 0;
	fclose(f);
	return bytes;
}

static inline int try_open(const char *path, struct image **image)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0);
	return image_open(fd, path, image);
}

static inline struct image *open_image(const char *name)
{
	struct image *image = NULL;

	assert_int_equal(try_open(in_scratch(name), &image), 0);
	return image;
}

/* Deterministic noise (xorshift). */
static inline uint64_t noise(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/*
 * Writes `broken`, a damaged copy of the bytes: of every four, one is cut off somewhere, one has
 * its headers hit, two have bytes changed anywhere.
 */
static inline void write_damaged(const char *bytes, size_t size, unsigned int number)
{
	uint64_t seed = 0x9e3779b97f4a7c15ull * (number + 1);
	size_t length = size, hits = 1 + noise(&seed) % 16, within = size;
	char *copy = malloc(size);

	assert_non_null(copy);
	memcpy(copy, bytes, size);
	if (number % 4 == 0)
		length = noise(&seed) % size;
	else if (number % 4 == 1)
		within = 64 + 56 * 14 < size ? 64 + 56 * 14 : size;
	for (size_t i = 0; number % 4 && i < hits; i++) {
		/* Section headers stand at the end, and a broken size there is the worst. */
		size_t at = number % 8 == 3 ? size - 1 - noise(&seed) % (size < 2560 ? size : 2560)
					    : noise(&seed) % within;

		copy[at] = noise(&seed) % 3 ? (char)noise(&seed) : (char)0xff;
	}
	write_file("broken", copy, length);
	free(copy);
}

#endif
