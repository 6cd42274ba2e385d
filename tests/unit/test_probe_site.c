/*
 * The chooser over machine code written out by hand: what the malloc family of several libraries
 * begins with, and each way in which a site can be wrong.
 */
#include "binary/probe_site.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define RET	   0xc3

enum {
	RAX = PROBE_X86_RAX,
	RCX = PROBE_X86_RCX,
	RDX = PROBE_X86_RDX,
	RBX = PROBE_X86_RBX,
	RSP = PROBE_X86_RSP,
	RSI = PROBE_X86_RSI,
	RDI = PROBE_X86_RDI,
	R8 = PROBE_X86_R8,
	R9 = PROBE_X86_R9,
	R12 = PROBE_X86_R12,
	R15 = PROBE_X86_R15,
};

static const uint8_t in_order[] = {0, 1, 2, 3, 4, 5};
static const uint8_t argument_registers[] = {RDI, RSI, RDX, RCX, R8, R9};

static struct probe_wish wish_for(size_t argument_count)
{
	return (struct probe_wish){.arguments = in_order, .argument_count = argument_count};
}

static void check_site(const char *what, int err, const struct probe_site *site, size_t offset,
		       bool emulated, const uint8_t *registers, size_t register_count)
{
	if (err || site->offset != offset || site->emulated != emulated)
		fail_msg("%s: error %d, offset %zu %s, expected %zu %s", what, err, site->offset,
			 site->emulated ? "emulated" : "stepped", offset,
			 emulated ? "emulated" : "stepped");
	for (size_t i = 0; i < register_count; i++) {
		if (site->registers[i] != registers[i])
			fail_msg("%s: argument %zu in register %u, expected %u", what, i,
				 site->registers[i], registers[i]);
	}
}

/* The first so many arguments are wanted, and where the site is, no one has moved. */
struct site_case {
	const char *what;
	const uint8_t *code;
	size_t size;
	unsigned int arguments;
	size_t offset;
	bool emulated;
};

static void check_cases(const struct site_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct probe_wish wish = wish_for(cases[i].arguments);
		struct probe_site site = {.offset = 999};
		int err = probe_site_choose(cases[i].code, cases[i].size, 0x401000, &wish, &site);

		check_site(cases[i].what, err, &site, cases[i].offset, cases[i].emulated,
			   argument_registers, cases[i].arguments);
	}
}
#define CHECK_CASES(cases) check_cases(cases, sizeof(cases) / sizeof(*(cases)))

/* The site is emulated; places are pairs: an argument that is wanted, and its register there. */
struct moved_case {
	const char *what;
	size_t offset;
	const uint8_t *places;
	size_t place_bytes;
	const uint8_t *code;
	size_t size;
};
#define PLACES BYTES

static void check_moved(const struct moved_case *cases, size_t count, bool stack_moves)
{
	for (size_t i = 0; i < count; i++) {
		uint8_t arguments[PROBE_ARGUMENTS_MAX], registers[PROBE_ARGUMENTS_MAX];
		struct probe_wish wish = {.arguments = arguments,
					  .argument_count = cases[i].place_bytes / 2,
					  .stack_moves = stack_moves};
		struct probe_site site = {.offset = 999};
		int err;

		for (size_t j = 0; j < wish.argument_count; j++) {
			arguments[j] = cases[i].places[2 * j];
			registers[j] = cases[i].places[2 * j + 1];
		}
		err = probe_site_choose(cases[i].code, cases[i].size, 0x401000, &wish, &site);
		check_site(cases[i].what, err, &site, cases[i].offset, true, registers,
			   wish.argument_count);
	}
}
#define CHECK_MOVED(cases, stack_moves)                                                            \
	check_moved(cases, sizeof(cases) / sizeof(*(cases)), stack_moves)

/* Beginnings as compiled, ends cut short: some branches lead out of what is given. */
static void test_sites_of_real_allocators(void **state)
{
	const struct site_case cases[] = {
		{"glibc 2.31 malloc: mov hook(%rip),%rax; push %rbp",
		 BYTES(0x48, 0x8b, 0x05, 0x01, 0x02, 0x03, 0x00, 0x55, 0x53, RET), 1, 7, true},
		{"glibc 2.31 free: sub $24,%rsp first",
		 BYTES(0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x05, 1, 2, 3, 0, 0x48, 0x8b, 0x00, 0x48,
		       0x85, 0xc0, 0x75, 0x10, RET),
		 1, 0, false},
		{"glibc 2.31 memalign: mov (%rsp),%rdx; jmp",
		 BYTES(0x48, 0x8b, 0x14, 0x24, 0xe9, 0x10, 0x20, 0x00, 0x00), 2, 4, true},
		{"glibc 2.36 malloc: push %r12", BYTES(0x41, 0x54, 0x55, 0x53, RET), 1, 0, true},
		{"glibc 2.36 free: test %rdi,%rdi; je; push",
		 BYTES(0x48, 0x85, 0xff, 0x0f, 0x84, 0x10, 0x00, 0x00, 0x00, 0x55, RET), 1, 3,
		 true},
		{"glibc 2.36 posix_memalign: lea -1(%rsi),%rax; test %sil,7; push",
		 BYTES(0x48, 0x8d, 0x46, 0xff, 0x48, 0x85, 0xc6, 0x41, 0x54, RET), 3, 7, true},
		{"glibc 2.36 memalign: lea -1(%rdi),%rax; test; je",
		 BYTES(0x48, 0x8d, 0x47, 0xff, 0x48, 0x85, 0xf8, 0x74, 0x20, RET), 2, 7, true},
		{"glibc 2.43 malloc: test %rdi,%rdi; js", BYTES(0x48, 0x85, 0xff, 0x78, 0x40, RET),
		 1, 3, true},
		{"glibc 2.43 calloc: mov %rdi,%rax; mul %rsi; jo",
		 BYTES(0x48, 0x89, 0xf8, 0x48, 0xf7, 0xe6, 0x70, 0x40, RET), 2, 6, true},
		{"glibc 2.43 aligned_alloc: lea; test; jne",
		 BYTES(0x48, 0x8d, 0x47, 0xff, 0x48, 0x85, 0xf8, 0x75, 0x20, RET), 2, 7, true},
		{"glibc 2.43 memalign: jmp", BYTES(0xe9, 0x10, 0x00, 0x00, 0x00), 2, 0, true},
		{"jemalloc 5.3 malloc: cmp $0x1000,%rdi; ja",
		 BYTES(0x48, 0x81, 0xff, 0x00, 0x10, 0x00, 0x00, 0x77, 0x50, RET), 1, 7, true},
		{"jemalloc 5.3 free: moves, and a jne at 48",
		 BYTES(0x48, 0x89, 0xf8, 0x48, 0x8b, 0x15, 0x0e, 0x53, 0x0a, 0x00, 0x48, 0x89, 0xf9,
		       0x48, 0xc1, 0xe8, 0x1a, 0x48, 0x81, 0xe1, 0x00, 0x00, 0x00, 0xc0, 0x25, 0xf0,
		       0x00, 0x00, 0x00, 0x64, 0x48, 0x03, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00, 0x48,
		       0x01, 0xd0, 0x48, 0x3b, 0x88, 0xb0, 0x01, 0x00, 0x00, 0x0f, 0x85, 0x8a, 0x00,
		       0x00, 0x00, RET),
		 1, 48, true},
		{"tcmalloc 2.10 malloc: mov flag(%rip),%rax; test %rax,%rax; jne",
		 BYTES(0x48, 0x8b, 0x05, 1, 2, 3, 0, 0x48, 0x85, 0xc0, 0x75, 0x40, RET), 1, 10,
		 true},
		{"mimalloc 2.0.9 free: mov; test; je",
		 BYTES(0x48, 0x89, 0xf9, 0x48, 0x85, 0xff, 0x74, 0x20, RET), 1, 6, true},
		{"musl 1.2.3 malloc: jmp", BYTES(0xe9, 0xab, 0xff, 0xff, 0xff), 1, 0, true},
		{"musl 1.2.3 calloc: push %r12", BYTES(0x41, 0x54, 0x49, 0x89, 0xf4, RET), 2, 0,
		 true},
	};
	const struct moved_case moved[] = {
		{"glibc 2.36 posix_memalign, of which the alignment is not wanted", 7,
		 PLACES(0, RDI, 2, RDX),
		 BYTES(0x48, 0x8d, 0x46, 0xff, 0x48, 0x85, 0xc6, 0x41, 0x54, RET)},
		{"mimalloc 2.0.9 malloc: the size is in rsi when the branch comes", 21,
		 PLACES(0, RSI),
		 BYTES(0x48, 0x8b, 0x05, 0x49, 0xb4, 0x00, 0x00, 0x48, 0x89, 0xfe, 0x64, 0x48, 0x8b,
		       0x38, 0x48, 0x81, 0xfe, 0x00, 0x04, 0x00, 0x00, 0x77, 0x29, RET)},
		{"mimalloc 2.0.9 realloc: two moves on, and the first argument's register is used",
		 17, PLACES(0, RSI, 1, RDX),
		 BYTES(0x48, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x48, 0x8b, 0x3d, 1, 2, 3, 0, 0x64, 0x48,
		       0x8b, 0x3f, 0xe9, 1, 2, 3, 0)},
		{"musl 1.2.3 valloc: mov %rdi,%rsi; mov $4096,%edi; jmp", 8, PLACES(0, RSI),
		 BYTES(0x48, 0x89, 0xfe, 0xbf, 0x00, 0x10, 0x00, 0x00, 0xe9, 1, 0, 0, 0)},
	};
	const struct moved_case freeing[] = {
		{"glibc 2.31 free: sub $24,%rsp first", 17, PLACES(0, RDI),
		 BYTES(0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x05, 1, 2, 3, 0, 0x48, 0x8b, 0x00, 0x48,
		       0x85, 0xc0, 0x75, 0x10, RET)},
	};

	(void)state;
	CHECK_CASES(cases);
	CHECK_MOVED(moved, false);
	CHECK_MOVED(freeing, true);
}

#define MOV_RAX_RDI 0x48, 0x89, 0xf8

static void test_what_the_kernel_emulates(void **state)
{
	const struct site_case cases[] = {
		{"nop", BYTES(MOV_RAX_RDI, 0x90, RET), 1, 3, true},
		{"push %rsp", BYTES(MOV_RAX_RDI, 0x54, RET), 1, 3, true},
		{"push %r15", BYTES(MOV_RAX_RDI, 0x41, 0x57, RET), 1, 3, true},
		{"jmp rel8", BYTES(MOV_RAX_RDI, 0xeb, 0x40), 1, 3, true},
		{"call rel32", BYTES(MOV_RAX_RDI, 0xe8, 0x40, 0, 0, 0, RET), 1, 3, true},
		{"jg rel8", BYTES(MOV_RAX_RDI, 0x7f, 0x40, RET), 1, 3, true},
		{"jo rel32", BYTES(MOV_RAX_RDI, 0x0f, 0x80, 0x40, 0, 0, 0, RET), 1, 3, true},
		{"endbr64, then push", BYTES(0xf3, 0x0f, 0x1e, 0xfa, 0x55, RET), 1, 4, true},
		{"long nop, then push", BYTES(0x0f, 0x1f, 0x44, 0x00, 0x00, 0x55, RET), 1, 5, true},
		{"pause is not a nop", BYTES(0xf3, 0x90, 0x55, RET), 1, 2, true},
		{"xchg %ax,%ax", BYTES(0x66, 0x90, 0x55, RET), 1, 2, true},
		{"push with REX.W", BYTES(0x48, 0x55, 0x55, RET), 1, 0, false},
		{"push %ax", BYTES(0x66, 0x50, 0x55, RET), 1, 0, false},
		{"push $0", BYTES(MOV_RAX_RDI, 0x6a, 0x00, 0x55, RET), 1, 0, false},
		{"bnd jmp", BYTES(MOV_RAX_RDI, 0xf2, 0xe9, 0x40, 0, 0, 0), 1, 0, false},
		{"jrcxz, then push", BYTES(MOV_RAX_RDI, 0xe3, 0x40, 0x55, RET), 1, 0, false},
		{"ret, then push", BYTES(MOV_RAX_RDI, RET, 0x55, RET), 1, 0, false},
		{"call *%rax, then push", BYTES(MOV_RAX_RDI, 0xff, 0xd0, 0x55, RET), 1, 0, false},
		{"jmp *%rax", BYTES(MOV_RAX_RDI, 0xff, 0xe0, 0x55, RET), 1, 0, false},
		{"syscall, then push", BYTES(MOV_RAX_RDI, 0x0f, 0x05, 0x55, RET), 1, 0, false},
		{"ud2, then push", BYTES(0x0f, 0x0b, 0x55, RET), 1, 0, false},
		{"int3, then push", BYTES(MOV_RAX_RDI, 0xcc, 0x55, RET), 1, 0, false},
	};

	(void)state;
	CHECK_CASES(cases);
}

static void test_no_site_behind_an_overwritten_argument(void **state)
{
	const struct site_case cases[] = {
		{"mov %rsi,%rdi", BYTES(0x48, 0x89, 0xf7, 0x55, RET), 1, 0, false},
		{"xor %edi,%edi", BYTES(0x31, 0xff, 0x55, RET), 1, 0, false},
		{"mov $1,%dil", BYTES(0x40, 0xb7, 0x01, 0x55, RET), 1, 0, false},
		{"mov $1,%di", BYTES(0x66, 0xbf, 0x01, 0x00, 0x55, RET), 1, 0, false},
		{"mov $1,%dh", BYTES(0xb6, 0x01, 0x55, RET), 3, 0, false},
		{"cmove %rax,%rdi", BYTES(0x48, 0x0f, 0x44, 0xf8, 0x55, RET), 1, 0, false},
		{"xchg %rax,%rdi", BYTES(0x48, 0x97, 0x55, RET), 1, 0, false},
		{"movsq moves rdi", BYTES(0x48, 0xa5, 0x55, RET), 1, 0, false},
		{"mul writes rdx: three arguments", BYTES(0x48, 0xf7, 0xe6, 0x55, RET), 3, 0,
		 false},
		{"mul writes rdx: two", BYTES(0x48, 0xf7, 0xe6, 0x55, RET), 2, 3, true},
		{"cqo writes rdx", BYTES(0x48, 0x99, 0x55, RET), 3, 0, false},
		{"cpuid writes rdx", BYTES(0x0f, 0xa2, 0x55, RET), 3, 0, false},
		{"mov %rdi,%rsi: one argument", BYTES(0x48, 0x89, 0xfe, 0x55, RET), 1, 3, true},
		{"mov %rdi,%rsi: two", BYTES(0x48, 0x89, 0xfe, 0x55, RET), 2, 0, false},
		{"mov %rax,(%rdi) writes memory", BYTES(0x48, 0x89, 0x07, 0x55, RET), 1, 3, true},
		{"sub $8,%rsp", BYTES(0x48, 0x83, 0xec, 0x08, 0x55, RET), 1, 0, false},
		{"lea -8(%rsp),%rsp", BYTES(0x48, 0x8d, 0x64, 0x24, 0xf8, 0x55, RET), 1, 0, false},
		{"pop %rax", BYTES(0x58, 0x55, RET), 1, 0, false},
		{"pushf", BYTES(0x9c, 0x55, RET), 1, 0, false},
		{"leave", BYTES(0xc9, 0x55, RET), 1, 0, false},
		{"enter", BYTES(0xc8, 0x08, 0x00, 0x00, 0x55, RET), 1, 0, false},
	};

	(void)state;
	CHECK_CASES(cases);
}

static void test_arguments_are_followed(void **state)
{
	const struct moved_case cases[] = {
		{"its own register is preferred", 3, PLACES(0, RDI),
		 BYTES(0x48, 0x89, 0xf8, 0x55, RET)},
		{"mov %rdi,%rax; xor %edi,%edi", 5, PLACES(0, RAX),
		 BYTES(0x48, 0x89, 0xf8, 0x31, 0xff, 0x55, RET)},
		{"the other encoding of mov", 5, PLACES(0, RAX),
		 BYTES(0x48, 0x8b, 0xc7, 0x31, 0xff, 0x55, RET)},
		{"to r12", 5, PLACES(0, R12), BYTES(0x49, 0x89, 0xfc, 0x31, 0xff, 0x55, RET)},
		{"r8, the fifth, to r15", 6, PLACES(4, R15),
		 BYTES(0x4d, 0x89, 0xc7, 0x45, 0x31, 0xc0, 0x55, RET)},
		{"twice: to rax, to rbx", 10, PLACES(0, RBX),
		 BYTES(0x48, 0x89, 0xf8, 0x48, 0x89, 0xc3, 0x31, 0xff, 0x31, 0xc0, 0x55, RET)},
		{"and back", 10, PLACES(0, RDI),
		 BYTES(0x48, 0x89, 0xf8, 0x31, 0xff, 0x48, 0x89, 0xc7, 0x31, 0xc0, 0x55, RET)},
		{"mov %rdi,%rdi is no change", 3, PLACES(0, RDI),
		 BYTES(0x48, 0x89, 0xff, 0x55, RET)},
		{"one into the register of the other, which has moved away", 8,
		 PLACES(0, RSI, 1, RDX),
		 BYTES(0x48, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x31, 0xff, 0x55, RET)},
		{"swapped through rax", 9, PLACES(0, RAX, 1, RDI),
		 BYTES(0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xc6, 0x55, RET)},
		{"registers are in the order of the wish", 5, PLACES(3, RCX, 0, RAX, 1, RSI),
		 BYTES(0x48, 0x89, 0xf8, 0x31, 0xff, 0x55, RET)},
		{"what is not wanted may be lost: rsi", 2, PLACES(0, RDI, 2, RDX),
		 BYTES(0x31, 0xf6, 0x55, RET)},
		{"all six", 3, PLACES(2, RDX, 3, RCX, 4, R8, 5, R9), BYTES(MOV_RAX_RDI, 0x55, RET)},
		{"the entry's are their own", 0, PLACES(0, RDI, 2, RDX), BYTES(0x55, RET)},
	};

	(void)state;
	CHECK_MOVED(cases, false);
}

/* rdi is copied to rax (at 0) and cleared (at 3); what then is done to rax decides. */
#define MOVED_TO_RAX MOV_RAX_RDI, 0x31, 0xff

static void test_only_whole_copies_count(void **state)
{
	const struct site_case cases[] = {
		{"the copy is overwritten", BYTES(MOVED_TO_RAX, 0x31, 0xc0, 0x55, RET), 1, 0,
		 false},
		{"by its low byte", BYTES(MOVED_TO_RAX, 0xb0, 0x01, 0x55, RET), 1, 0, false},
		{"by its second byte", BYTES(MOVED_TO_RAX, 0xb4, 0x01, 0x55, RET), 1, 0, false},
		{"by setcc", BYTES(MOVED_TO_RAX, 0x0f, 0x94, 0xc0, 0x55, RET), 1, 0, false},
		{"by cmov", BYTES(MOVED_TO_RAX, 0x48, 0x0f, 0x44, 0xc2, 0x55, RET), 1, 0, false},
		{"by cmpxchg", BYTES(MOVED_TO_RAX, 0x48, 0x0f, 0xb1, 0x0a, 0x55, RET), 1, 0, false},
		{"by mul", BYTES(MOVED_TO_RAX, 0x48, 0xf7, 0xe2, 0x55, RET), 1, 0, false},
		{"by cltq", BYTES(MOVED_TO_RAX, 0x48, 0x98, 0x55, RET), 1, 0, false},
		{"by lods", BYTES(MOVED_TO_RAX, 0xac, 0x55, RET), 1, 0, false},
		{"by rdtsc", BYTES(MOVED_TO_RAX, 0x0f, 0x31, 0x55, RET), 1, 0, false},
		{"by mov %eax,%eax", BYTES(MOVED_TO_RAX, 0x89, 0xc0, 0x55, RET), 1, 0, false},
		{"by xchg", BYTES(MOVED_TO_RAX, 0x48, 0x92, 0x55, RET), 1, 0, false},
		{"mov %edi,%eax", BYTES(0x89, 0xf8, 0x31, 0xff, 0x55, RET), 1, 0, false},
		{"mov %di,%ax", BYTES(0x66, 0x89, 0xf8, 0x31, 0xff, 0x55, RET), 1, 0, false},
		{"mov %edi,%edi", BYTES(0x89, 0xff, 0x55, RET), 1, 0, false},
		{"movslq %edi,%rax", BYTES(0x48, 0x63, 0xc7, 0x31, 0xff, 0x55, RET), 1, 0, false},
		{"cmove %rdi,%rax", BYTES(0x48, 0x0f, 0x44, 0xc7, 0x31, 0xff, 0x55, RET), 1, 0,
		 false},
		{"mov (%rdi),%rax", BYTES(0x48, 0x8b, 0x07, 0x31, 0xff, 0x55, RET), 1, 0, false},
		{"mov %rdi,(%rax)", BYTES(0x48, 0x89, 0x38, 0x31, 0xff, 0x55, RET), 1, 0, false},
		{"movq %rdi,%xmm0", BYTES(0x66, 0x48, 0x0f, 0x6e, 0xc7, 0x31, 0xff, 0x55, RET), 1,
		 0, false},
		{"a copy of what is no longer the argument",
		 BYTES(0x31, 0xff, 0x48, 0x89, 0xf8, 0x55, RET), 1, 0, false},
		{"both in one another's way: mov %rdi,%rsi; mov %rsi,%rdi",
		 BYTES(0x48, 0x89, 0xfe, 0x48, 0x89, 0xf7, 0x55, RET), 2, 0, false},
		{"mov %rsp,%rdi", BYTES(0x48, 0x89, 0xe7, 0x55, RET), 1, 0, false},
		{"mov %rdi,%rsp", BYTES(0x48, 0x89, 0xfc, 0x55, RET), 1, 0, false},
	};

	(void)state;
	CHECK_CASES(cases);
}

static void test_the_stack_may_move_where_nothing_is_read_from_it(void **state)
{
	const struct moved_case cases[] = {
		{"sub $8,%rsp", 4, PLACES(0, RDI), BYTES(0x48, 0x83, 0xec, 0x08, 0x74, 0x40, RET)},
		{"mov %rdi,%rbx; mov %rdi,%rsp; xor %edi,%edi", 8, PLACES(0, RBX),
		 BYTES(0x48, 0x89, 0xfb, 0x48, 0x89, 0xfc, 0x31, 0xff, 0x55, RET)},
		{"pop %rax", 1, PLACES(0, RDI), BYTES(0x58, 0x55, RET)},
		{"a push is a site itself", 3, PLACES(0, RDI),
		 BYTES(MOV_RAX_RDI, 0x55, 0x48, 0x83, 0xec, 0x08, 0x74, 0x40, RET)},
	};
	const uint8_t lost[] = {0x48, 0x83, 0xec, 0x08, 0x31, 0xff, 0x55, RET};
	const uint8_t loop[] = {0x48, 0x83, 0xec, 0x08, 0x74, 0x02, 0xeb, 0xfc, RET};
	struct probe_wish wish = wish_for(1);
	struct probe_site site;
	int err;

	(void)state;
	CHECK_MOVED(cases, true);
	wish.stack_moves = true;
	err = probe_site_choose(lost, sizeof(lost), 0, &wish, &site);
	check_site("the pointer is lost", err, &site, 0, false, argument_registers, 1);
	err = probe_site_choose(loop, sizeof(loop), 0, &wish, &site);
	check_site("a loop back to the site", err, &site, 0, false, argument_registers, 1);
}

static void test_a_wish_that_no_register_holds_is_refused(void **state)
{
	const uint8_t code[] = {0x55, RET}, seventh[] = {6};
	struct probe_wish wish = {.arguments = seventh, .argument_count = 1};
	struct probe_site site = {.offset = 999};

	(void)state;
	assert_int_equal(probe_site_choose(code, sizeof(code), 0, &wish, &site), -EINVAL);
	wish = wish_for(PROBE_ARGUMENTS_MAX + 1);
	assert_int_equal(probe_site_choose(code, sizeof(code), 0, &wish, &site), -EINVAL);
	assert_int_equal(site.offset, 999);
}

static void test_one_call_is_one_hit(void **state)
{
	const struct site_case cases[] = {
		{"a loop back to the site", BYTES(MOV_RAX_RDI, 0x74, 0x02, 0xeb, 0xfc, RET), 1, 0,
		 false},
		{"a loop back into the way to the site",
		 BYTES(MOV_RAX_RDI, MOV_RAX_RDI, 0x74, 0x02, 0xeb, 0xf9, RET), 1, 0, false},
		{"a loop back into the middle of an instruction",
		 BYTES(MOV_RAX_RDI, 0x74, 0x02, 0xeb, 0xfa, RET), 1, 0, false},
		{"a loop back to the entry", BYTES(MOV_RAX_RDI, 0x74, 0x02, 0xeb, 0xf9, RET), 1, 0,
		 false},
		{"a loop back to the entry, which is emulated",
		 BYTES(0x55, 0x5d, 0x74, 0x02, 0xeb, 0xfa, RET), 1, 0, true},
		{"a loop back to behind the site",
		 BYTES(MOV_RAX_RDI, 0x74, 0x03, 0x90, 0xeb, 0xfd, RET), 1, 3, true},
		{"rel32 back", BYTES(MOV_RAX_RDI, 0x74, 0x00, 0xe9, 0xf9, 0xff, 0xff, 0xff), 1, 0,
		 false},
		{"loop back", BYTES(MOV_RAX_RDI, 0x55, 0x90, 0xe2, 0xfc, RET), 1, 0, false},
		{"a recursive call of the entry is a call",
		 BYTES(MOV_RAX_RDI, 0x74, 0x05, 0xe8, 0xf6, 0xff, 0xff, 0xff, RET), 1, 3, true},
		{"a call into the way to the site",
		 BYTES(MOV_RAX_RDI, MOV_RAX_RDI, 0x55, 0xe8, 0xf7, 0xff, 0xff, 0xff, RET), 1, 0,
		 false},
		{"a jump to the function before", BYTES(MOV_RAX_RDI, 0x74, 0x80, RET), 1, 3, true},
		{"switch: notrack jmp *%rax", BYTES(MOV_RAX_RDI, 0x55, 0x5d, 0x3e, 0xff, 0xe0), 1,
		 0, false},
		{"switch: jmp *0(,%rax,8)",
		 BYTES(MOV_RAX_RDI, 0x55, 0x5d, 0xff, 0x24, 0xc5, 0, 0, 0, 0), 1, 0, false},
		{"switch: movslq (%rdx,%rax,4),%rax; add %rdx,%rax; jmp *%rax",
		 BYTES(MOV_RAX_RDI, 0x55, 0x5d, 0x48, 0x63, 0x04, 0x82, 0x48, 0x01, 0xd0, 0xff,
		       0xe0),
		 1, 0, false},
		{"a tail call through a pointer is no switch",
		 BYTES(MOV_RAX_RDI, 0x55, 0x5d, 0xff, 0xe0), 1, 3, true},
		{"a tail call through memory is no switch",
		 BYTES(MOV_RAX_RDI, 0x55, 0x5d, 0xff, 0x25, 0, 0, 0, 0, 0xff, 0x64, 0x24, 0x08), 1,
		 3, true},
	};

	(void)state;
	CHECK_CASES(cases);
}

static void test_unseen_code_leaves_the_entry(void **state)
{
	const struct site_case cases[] = {
		{"undecodable behind the site", BYTES(MOV_RAX_RDI, 0x55, 0x06, RET), 1, 0, false},
		{"cut off behind the site", BYTES(MOV_RAX_RDI, 0x55, 0xe9, 0x00), 1, 0, false},
		{"cut off at the site", BYTES(MOV_RAX_RDI, 0x0f, 0x84, 0x00), 1, 0, false},
		{"ends without a site", BYTES(MOV_RAX_RDI), 1, 0, false},
		{"emulated entry, undecodable body", BYTES(0x55, 0x06, RET), 1, 0, true},
		{"size unknown", (const uint8_t *)"", 0, 1, 0, false},
		{"size unknown, no bytes", NULL, 0, 1, 0, false},
	};
	struct probe_wish wish = wish_for(1);
	uint8_t line[100];
	struct probe_site site;

	(void)state;
	CHECK_CASES(cases);

	/* push at 63, the last offset within reach, and at 66. */
	memset(line, RET, sizeof(line));
	for (size_t at = 0; at < 66; at += 3)
		memcpy(line + at, (const uint8_t[]){MOV_RAX_RDI}, 3);
	line[66] = 0x55;
	assert_int_equal(probe_site_choose(line, sizeof(line), 0, &wish, &site), 0);
	assert_int_equal(site.offset, 0);
	assert_false(site.emulated);
	line[63] = 0x55;
	line[64] = line[65] = 0x5d;
	assert_int_equal(probe_site_choose(line, sizeof(line), 0, &wish, &site), 0);
	assert_int_equal(site.offset, 63);
	assert_true(site.emulated);
}

static void test_an_entry_that_is_no_code_is_refused(void **state)
{
	const uint8_t invalid[] = {0x06, 0x55, RET}, cut[] = {0x48};
	struct probe_wish wish = wish_for(1);
	struct probe_site site = {.offset = 999};

	(void)state;
	assert_int_equal(probe_site_choose(invalid, sizeof(invalid), 0, &wish, &site), -ENOEXEC);
	assert_int_equal(probe_site_choose(cut, sizeof(cut), 0, &wish, &site), -ENOEXEC);
	assert_int_equal(site.offset, 999);
}

/* Addresses at the ends of the address space must not wrap into the function. */
static void test_addresses_may_wrap(void **state)
{
	const uint8_t code[] = {MOV_RAX_RDI, 0x74, 0x80, RET};
	const uint64_t addresses[] = {0, 1, UINT64_MAX, UINT64_MAX - 3, INT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(addresses) / sizeof(*addresses); i++) {
		struct probe_wish wish = wish_for(1);
		struct probe_site site = {0};

		assert_int_equal(probe_site_choose(code, sizeof(code), addresses[i], &wish, &site),
				 0);
		assert_int_equal(site.offset, 3);
	}
}

/* The return address is still in x30, the arguments are where they were passed. */
static void test_aarch64_sites_are_the_entry(void **state)
{
	const struct {
		const char *what;
		uint32_t insn;
		bool simulated;
	} cases[] = {
		{"stp x29, x30, [sp, #-64]!", 0xa9bc7bfd, false},
		{"paciasp", 0xd503233f, false},
		{"bti c", 0xd503245f, false},
		{"nop", 0xd503201f, false},
		{"mov x1, x0", 0xaa0003e1, false},
		{"ldr x0, 0x40", 0x58000200, false},
		{"bc.eq 0x40", 0x54000210, false},
		{"retaa", 0xd65f0bff, false},
		{"b 0x40", 0x14000010, true},
		{"b -0x40", 0x17fffff0, true},
		{"bl 0x40", 0x94000010, true},
		{"b.hi 0x40", 0x54000208, true},
		{"cbz x0, 0x40", 0xb4000200, true},
		{"cbnz w0, 0x40", 0x35000200, true},
		{"tbz w0, #1, 0x40", 0x36080200, true},
		{"tbnz x0, #63, 0x40", 0xb7f80200, true},
		{"adr x0, 0x40", 0x10000200, true},
		{"adrp x3, 0x1000", 0xb0000003, true},
		{"br x16", 0xd61f0200, true},
		{"blr x1", 0xd63f0020, true},
		{"ret", 0xd65f03c0, true},
	};
	const uint8_t arguments[] = {7, 0, 2};
	struct probe_wish wish = {.arguments = arguments, .argument_count = 3};
	struct probe_site site;
	int err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint32_t insn = cases[i].insn;
		/* Behind it, cbz x0. */
		const uint8_t code[] = {insn, insn >> 8, insn >> 16, insn >> 24, 0, 2, 0, 0xb4};

		site = (struct probe_site){.offset = 999};
		err = probe_site_choose_aarch64(code, sizeof(code), 0x401000, &wish, &site);
		check_site(cases[i].what, err, &site, 0, cases[i].simulated, arguments, 3);
	}
	err = probe_site_choose_aarch64(NULL, 0, 0x401000, &wish, &site);
	check_site("size unknown", err, &site, 0, false, arguments, 3);
	site.offset = 999;
	assert_int_equal(probe_site_choose_aarch64(arguments, 3, 0x401000, &wish, &site), -ENOEXEC);
	assert_int_equal(probe_site_choose_aarch64(NULL, 0, 0x401002, &wish, &site), -ENOEXEC);
	wish.arguments = (const uint8_t[]){8, 0, 2};
	assert_int_equal(probe_site_choose_aarch64(NULL, 0, 0x401000, &wish, &site), -EINVAL);
	assert_int_equal(site.offset, 999);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/*
 * Any bytes at all: no crash, no read beyond them (they are a block of exactly that size, for
 * ASan), and what holds of every answer: a site is inside, off the entry only if emulated, and one
 * argument more can only take it away.
 */
static void test_random_bytes(void **state)
{
	static const uint8_t common[] = {0x48, 0x89, 0xf8, 0x55, 0x74, 0xeb,
					 0xe8, 0x0f, 0x90, 0xc3, 0x41};
	uint64_t seed = 0x9e3779b97f4a7c15;
	size_t off_entry = 0;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		size_t size = next_random(&seed) % 80;
		uint8_t *code = malloc(size ? size : 1);
		struct probe_site sites[5];

		assert_non_null(code);
		for (size_t i = 0; i < size; i++)
			code[i] = next_random(&seed) % 4
					  ? common[next_random(&seed) % sizeof(common)]
					  : (uint8_t)next_random(&seed);
		for (unsigned int arguments = 0; arguments < 5; arguments++) {
			struct probe_wish wish = wish_for(arguments);
			struct probe_site *site = &sites[arguments];
			int err = probe_site_choose(code, size, next_random(&seed), &wish, site);

			if (err) {
				assert_int_equal(err, -ENOEXEC);
				*site = (struct probe_site){0};
			}
			assert_true(site->offset == 0 || (site->offset < size && site->emulated));
			assert_true(!arguments || site->offset == 0 ||
				    site->offset == site[-1].offset);
			off_entry += site->offset != 0;
		}
		free(code);
	}
	/* Otherwise the bytes were too random to say anything. */
	assert_true(off_entry > 1000);
}

#ifdef __x86_64__

/* --- the processor itself says where the arguments are --- */

uint64_t cpu_registers[16]; /* before and after; not rsp */
uint64_t cpu_stack;
const void *cpu_code; /* ends with a jump to cpu_done */
void cpu_run(void);
void cpu_done(void);

/* In the order of cpu_registers. */
asm(".macro each_register insn\n"
    ".set at, 0\n"
    ".irp reg, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15\n"
    ".ifnc \\reg, rsp\n"
    "\\insn \\reg, at\n"
    ".endif\n"
    ".set at, at + 8\n"
    ".endr\n"
    ".endm\n"
    ".macro load reg, from; mov cpu_registers + \\from(%rip), %\\reg; .endm\n"
    ".macro store reg, to; mov %\\reg, cpu_registers + \\to(%rip); .endm\n"
    "cpu_run: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, cpu_stack(%rip)\n"
    "each_register load\n"
    "jmp *cpu_code(%rip)\n"
    "cpu_done: each_register store\n"
    "mov cpu_stack(%rip), %rsp\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");

/* Instructions between two registers (mod 3), or on one if extension >= 0, without the REX byte. */
static const struct {
	uint8_t opcode[2];
	uint8_t opcode_size;
	int8_t extension;
} register_insns[] = {
	{{0x89}, 1, -1},       /* mov, to rm */
	{{0x8b}, 1, -1},       /* mov, from rm */
	{{0x88}, 1, -1},       /* mov, a byte */
	{{0x87}, 1, -1},       /* xchg */
	{{0x01}, 1, -1},       /* add */
	{{0x33}, 1, -1},       /* xor */
	{{0x39}, 1, -1},       /* cmp */
	{{0x85}, 1, -1},       /* test */
	{{0x63}, 1, -1},       /* movslq */
	{{0xf7}, 1, 2},	       /* not */
	{{0xf7}, 1, 4},	       /* mul */
	{{0xff}, 1, 0},	       /* inc */
	{{0x0f, 0xaf}, 2, -1}, /* imul */
	{{0x0f, 0x44}, 2, -1}, /* cmove */
	{{0x0f, 0x45}, 2, -1}, /* cmovne */
	{{0x0f, 0x92}, 2, 0},  /* setb */
	{{0x0f, 0xb1}, 2, -1}, /* cmpxchg */
	{{0x0f, 0xb6}, 2, -1}, /* movzx */
	{{0x0f, 0xbc}, 2, -1}, /* bsf */
	{{0x0f, 0xc1}, 2, -1}, /* xadd */
};
#define REGISTER_INSN_COUNT (sizeof(register_insns) / sizeof(*register_insns))

static uint8_t random_register(uint64_t *seed)
{
	uint8_t reg = next_random(seed) % 16;

	return reg == RSP ? RDI : reg;
}

/* Half of them are mov of whole registers, so that the arguments get around. */
static size_t write_insn(uint8_t *to, uint64_t *seed)
{
	static const uint8_t rexes[] = {0x48, 0x48, 0x40};
	bool is_mov = next_random(seed) % 2;
	size_t kind = is_mov ? next_random(seed) % 2 : next_random(seed) % REGISTER_INSN_COUNT;
	uint8_t reg = random_register(seed), rm = random_register(seed), *at = to;

	if (next_random(seed) % 10 == 0)
		*at++ = 0x66;
	if (register_insns[kind].extension >= 0)
		reg = (uint8_t)register_insns[kind].extension;
	*at++ = (is_mov ? 0x48 : rexes[next_random(seed) % 3]) | (reg >> 3) << 2 | rm >> 3;
	memcpy(at, register_insns[kind].opcode, register_insns[kind].opcode_size);
	at += register_insns[kind].opcode_size;
	*at++ = 0xc0 | (reg & 7) << 3 | (rm & 7);
	return (size_t)(at - to);
}

/* Random instructions are run up to the site, a nop: what the site is said to hold, it holds. */
static void test_the_processor_agrees(void **state)
{
	static const uint8_t jump[] = {0x90, 0xff, 0x25, 0, 0, 0, 0}; /* nop; jmp *0(%rip) */
	uint64_t seed = 0x9e3779b97f4a7c15, done = (uint64_t)(uintptr_t)cpu_done;
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int at_nop = 0, moved = 0;

	(void)state;
	assert_ptr_not_equal(code, MAP_FAILED);
	cpu_code = code;
	for (int round = 0; round < 100000; round++) {
		struct probe_wish wish = wish_for(1 + next_random(&seed) % PROBE_ARGUMENTS_MAX);
		uint64_t before[16];
		struct probe_site site;
		size_t size = 0;

		for (size_t left = next_random(&seed) % 16; left; left--)
			size += write_insn(code + size, &seed);
		memcpy(code + size, jump, sizeof(jump));
		memcpy(code + size + sizeof(jump), &done, sizeof(done));
		assert_int_equal(probe_site_choose(code, size + 1, 0, &wish, &site), 0);
		if (site.offset != size)
			continue;
		at_nop++;
		for (size_t i = 0; i < 16; i++)
			before[i] = cpu_registers[i] = next_random(&seed);
		cpu_run();
		for (size_t i = 0; i < wish.argument_count; i++) {
			assert_int_equal(cpu_registers[site.registers[i]],
					 before[argument_registers[i]]);
			moved += site.registers[i] != argument_registers[i];
		}
	}
	munmap(code, 4096);
	/* Otherwise too little has been tried. */
	assert_true(at_nop > 5000);
	assert_true(moved > 1000);
}

#else
static void test_the_processor_agrees(void **state)
{
	(void)state;
	skip();
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sites_of_real_allocators),
		cmocka_unit_test(test_what_the_kernel_emulates),
		cmocka_unit_test(test_no_site_behind_an_overwritten_argument),
		cmocka_unit_test(test_arguments_are_followed),
		cmocka_unit_test(test_only_whole_copies_count),
		cmocka_unit_test(test_the_stack_may_move_where_nothing_is_read_from_it),
		cmocka_unit_test(test_a_wish_that_no_register_holds_is_refused),
		cmocka_unit_test(test_one_call_is_one_hit),
		cmocka_unit_test(test_unseen_code_leaves_the_entry),
		cmocka_unit_test(test_an_entry_that_is_no_code_is_refused),
		cmocka_unit_test(test_addresses_may_wrap),
		cmocka_unit_test(test_aarch64_sites_are_the_entry),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_the_processor_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
