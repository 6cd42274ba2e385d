/*
 * Calls the functions of the malloc family that it is told to, all through one call instruction, so that
 * each call's return address is known: those that an allocator makes by itself have another.
 *
 * After "ready PID RETURN_ADDRESS" reads lines
 *	NAME KIND
 * a function, and the one of the C library that it is like. Has it allocate, frees that, and says what
 * calls that were
 *	NAME CALLS SUM_OF_ARGUMENT_0 SUM_OF_ARGUMENT_1 SUM_OF_ARGUMENT_2 SUM_OF_RESULTS
 *	free CALLS SUM_OF_ARGUMENT_0 ...
 * or "NAME missing". Of kind "free" there is one line only.
 */
#include "target.h"

#include <dlfcn.h>
#include <stdint.h>

#define ROUNDS 10

uint64_t gate(void *function, uint64_t a, uint64_t b, uint64_t c);
extern const char gate_return[];

asm(".text\n"
    ".globl gate, gate_return\n"
    "gate: push %rbx\n"
    "mov %rdi, %rax; mov %rsi, %rdi; mov %rdx, %rsi; mov %rcx, %rdx\n"
    "call *%rax\n"
    "gate_return: pop %rbx\n"
    "ret\n");

struct tally {
	void *function;
	uint64_t calls, sums[3], results;
};

/* Small and large, in the caches' classes and beyond them, and one that there is not. */
static const uint64_t sizes[] = {0,    1,     24,     100,    1000,    1032,	4000,
				 5000, 70000, 300000, 900000, 5000000, 1 << 26, (uint64_t)1 << 60};
#define SIZE_COUNT (sizeof(sizes) / sizeof(*sizes))

static uint64_t call(struct tally *tally, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t result = gate(tally->function, a, b, c);

	tally->calls++;
	tally->sums[0] += a;
	tally->sums[1] += b;
	tally->sums[2] += c;
	tally->results += result;
	return result;
}

static void free_block(struct tally *freeing, uint64_t block)
{
	call(freeing, block, 0, 0);
}

static void resize(struct tally *tally, struct tally *freeing)
{
	uint64_t block = 0;

	/* From nothing, up and down again; where it fails the block stays. */
	for (size_t i = 1; i < 2 * SIZE_COUNT - 2; i++) {
		size_t at = i < SIZE_COUNT ? i : 2 * SIZE_COUNT - 2 - i;
		uint64_t moved = call(tally, block, sizes[at], 0);

		if (moved)
			block = moved;
	}
	free_block(freeing, block);
}

static void align(struct tally *tally, struct tally *freeing, bool is_posix)
{
	static const uint64_t alignments[] = {8, 16, 64, 4096, 65536};

	for (size_t i = 0; i < SIZE_COUNT * 5; i++) {
		uint64_t alignment = alignments[i % 5], size = sizes[i / 5], block = 0;

		if (!is_posix)
			block = call(tally, alignment, size, 0);
		else if ((int)call(tally, (uint64_t)(uintptr_t)&block, alignment, size) != 0)
			block = 0;
		free_block(freeing, block);
	}
	if (is_posix) {
		uint64_t block;

		call(tally, (uint64_t)(uintptr_t)&block, 3, 100);
		call(tally, (uint64_t)(uintptr_t)&block, 0, 100);
	}
}

static void allocate(struct tally *tally, struct tally *freeing, bool is_calloc)
{
	for (size_t i = 0; i < SIZE_COUNT; i++) {
		uint64_t count = is_calloc ? i % 4 : sizes[i];
		uint64_t block = call(tally, count, is_calloc ? sizes[i] : 0, 0);

		free_block(freeing, block);
	}
	if (is_calloc) {
		call(tally, UINT64_MAX / 2, 3, 0);
		free_block(freeing, call(tally, 100000, 1, 0));
	}
}

static void say(const char *name, const struct tally *tally)
{
	target_say("%s %lu %lu %lu %lu %lu\n", name, tally->calls, tally->sums[0], tally->sums[1],
		   tally->sums[2], tally->results);
}

static void run(const char *name, const char *kind)
{
	struct tally freeing = {.function = dlsym(RTLD_DEFAULT, "free")};
	struct tally tally = {.function = dlsym(RTLD_DEFAULT, name)};
	bool is_free = !strcmp(kind, "free") || !strcmp(kind, "cfree");

	if (!tally.function) {
		target_say("%s missing\n", name);
		return;
	}
	for (int round = 0; round < ROUNDS; round++) {
		if (is_free)
			free_block(&tally, (uint64_t)(uintptr_t)malloc(sizes[round % 12]));
		else if (!strcmp(kind, "realloc"))
			resize(&tally, &freeing);
		else if (strstr(kind, "align"))
			align(&tally, &freeing, !strcmp(kind, "posix_memalign"));
		else
			allocate(&tally, &freeing, !strcmp(kind, "calloc"));
	}
	say(name, &tally);
	if (!is_free)
		say("free", &freeing);
}

int main(void)
{
	char line[128], name[64], kind[64];
	size_t length = 0;

	target_say("ready %d %lu\n", (int)getpid(), (unsigned long)(uintptr_t)gate_return);
	while (length < sizeof(line) && read(STDIN_FILENO, &line[length], 1) == 1) {
		if (line[length++] != '\n')
			continue;
		line[length - 1] = 0;
		if (sscanf(line, "%63s %63s", name, kind) != 2)
			target_die("not NAME KIND: %s\n", line);
		run(name, kind);
		length = 0;
	}
	return 0;
}
