#include "symbol/demangle.h"

#include "util/cleanup.h"

#include <errno.h>
#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 1024

struct entry {
	struct entry *next;
	uint64_t hash;
	char *readable; /* owned; NULL: not mangled */
	char mangled[];
};

struct demangler {
	struct entry **buckets; /* owned; a power of two of them */
	size_t bucket_count, count;
};

int demangler_new(struct demangler **out)
{
	struct demangler *demangler = calloc(1, sizeof(*demangler));

	if (!demangler)
		return -ENOMEM;
	demangler->bucket_count = BUCKETS_MIN;
	demangler->buckets = calloc(BUCKETS_MIN, sizeof(struct entry *));
	if (!demangler->buckets) {
		free(demangler);
		return -ENOMEM;
	}
	*out = demangler;
	return 0;
}

void demangler_free(struct demangler *demangler)
{
	if (!demangler)
		return;
	for (size_t i = 0; i < demangler->bucket_count; i++) {
		for (struct entry *entry = demangler->buckets[i], *next; entry; entry = next) {
			next = entry->next;
			free(entry->readable);
			free(entry);
		}
	}
	free(demangler->buckets);
	free(demangler);
}

/* --- the demangling itself --- */

struct output {
	char *bytes; /* DEMANGLE_MAX + 1 */
	size_t length;
	jmp_buf overflow;
};

/*
 * The only way to stop libiberty early. Its C++ side keeps what it needs in the stack frames that
 * are jumped over. Its Rust side may lose one identifier's buffer.
 */
static void append(const char *text, size_t length, void *context)
{
	struct output *output = context;

	if (length > DEMANGLE_MAX - output->length)
		longjmp(output->overflow, 1);
	if (length) /* text may be NULL then */
		memcpy(output->bytes + output->length, text, length);
	output->length += length;
}

/*
 * What cplus_demangle(mangled, DMGL_AUTO | DMGL_NO_OPTS) does, through the callbacks. libiberty's
 * limit on recursion stays on.
 */
static bool demangle(struct output *output, const char *mangled)
{
	if (setjmp(output->overflow))
		return false;
	output->length = 0;
	if (!rust_demangle_callback(mangled, DMGL_AUTO | DMGL_NO_OPTS, append, output)) {
		output->length = 0;
		if (!cplus_demangle_v3_callback(mangled, DMGL_AUTO | DMGL_NO_OPTS, append, output))
			return false;
	}
	output->bytes[output->length] = 0;
	return output->length > 0;
}

/* The readable form in new memory, or NULL. */
static char *demangle_new(const char *mangled, size_t length)
{
	CLEANUP(cleanup_free) struct output *output = NULL;
	CLEANUP(cleanup_free) char *bytes = NULL;

	/* Both schemes of Rust and that of C++ begin so, and nearly no name of C does. */
	if (mangled[0] != '_' || length > DEMANGLE_MAX)
		return NULL;
	output = malloc(sizeof(*output));
	bytes = malloc(DEMANGLE_MAX + 1);
	if (!output || !bytes)
		return NULL;
	output->bytes = bytes;
	if (!demangle(output, mangled))
		return NULL;
	return strdup(bytes);
}

/* --- the names that have been seen --- */

static uint64_t hash_bytes(const char *bytes, size_t length)
{
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3;
	return hash;
}

static void grow(struct demangler *demangler)
{
	size_t wanted = demangler->bucket_count * 2;
	struct entry **buckets = calloc(wanted, sizeof(*buckets));

	if (!buckets)
		return; /* longer chains, then */
	for (size_t i = 0; i < demangler->bucket_count; i++) {
		for (struct entry *entry = demangler->buckets[i], *next; entry; entry = next) {
			struct entry **bucket = &buckets[entry->hash & (wanted - 1)];

			next = entry->next;
			entry->next = *bucket;
			*bucket = entry;
		}
	}
	free(demangler->buckets);
	demangler->buckets = buckets;
	demangler->bucket_count = wanted;
}

const char *demangler_name(struct demangler *demangler, const char *mangled)
{
	size_t length = strnlen(mangled, DEMANGLE_MAX + 1);
	uint64_t hash;
	struct entry *entry;

	if (mangled[0] != '_' || length > DEMANGLE_MAX)
		return mangled;
	hash = hash_bytes(mangled, length);
	entry = demangler->buckets[hash & (demangler->bucket_count - 1)];
	for (; entry; entry = entry->next) {
		if (entry->hash == hash && !strcmp(entry->mangled, mangled))
			return entry->readable ? entry->readable : mangled;
	}
	if (demangler->count >= demangler->bucket_count)
		grow(demangler);
	entry = malloc(sizeof(*entry) + length + 1);
	if (!entry)
		return mangled;
	entry->hash = hash;
	memcpy(entry->mangled, mangled, length + 1);
	entry->readable = demangle_new(mangled, length);
	entry->next = demangler->buckets[hash & (demangler->bucket_count - 1)];
	demangler->buckets[hash & (demangler->bucket_count - 1)] = entry;
	demangler->count++;
	return entry->readable ? entry->readable : mangled;
}
