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

#include <cmocka.h>

#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define RET	   0xc3

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
		struct probe_site site = {.offset = 999};
		int err;

		err = probe_site_choose(cases[i].code, cases[i].size, 0x401000, cases[i].arguments,
					&site);
		if (err || site.offset != cases[i].offset || site.emulated != cases[i].emulated)
			fail_msg("%s: error %d, offset %zu %s, expected %zu %s", cases[i].what, err,
				 site.offset, site.emulated ? "emulated" : "stepped",
				 cases[i].offset, cases[i].emulated ? "emulated" : "stepped");
	}
}
#define CHECK_CASES(cases) check_cases(cases, sizeof(cases) / sizeof(*(cases)))

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
		{"mimalloc 2.0.9 malloc: the size is in rsi when the branch comes",
		 BYTES(0x48, 0x8b, 0x05, 0x49, 0xb4, 0x00, 0x00, 0x48, 0x89, 0xfe, 0x64, 0x48, 0x8b,
		       0x38, 0x48, 0x81, 0xfe, 0x00, 0x04, 0x00, 0x00, 0x77, 0x29, RET),
		 1, 0, false},
		{"mimalloc 2.0.9 free: mov; test; je",
		 BYTES(0x48, 0x89, 0xf9, 0x48, 0x85, 0xff, 0x74, 0x20, RET), 1, 6, true},
		{"musl 1.2.3 malloc: jmp", BYTES(0xe9, 0xab, 0xff, 0xff, 0xff), 1, 0, true},
		{"musl 1.2.3 calloc: push %r12", BYTES(0x41, 0x54, 0x49, 0x89, 0xf4, RET), 2, 0,
		 true},
		{"musl 1.2.3 valloc: mov %rdi,%rsi; mov $4096,%edi; jmp",
		 BYTES(0x48, 0x89, 0xfe, 0xbf, 0x00, 0x10, 0x00, 0x00, 0xe9, 1, 0, 0, 0), 1, 0,
		 false},
	};

	(void)state;
	CHECK_CASES(cases);
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
		{"four arguments cannot be shown intact", BYTES(MOV_RAX_RDI, 0x55, RET), 4, 0,
		 false},
	};

	(void)state;
	CHECK_CASES(cases);
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
	uint8_t line[100];
	struct probe_site site;

	(void)state;
	CHECK_CASES(cases);

	/* push at 63, the last offset within reach, and at 66. */
	memset(line, RET, sizeof(line));
	for (size_t at = 0; at < 66; at += 3)
		memcpy(line + at, (const uint8_t[]){MOV_RAX_RDI}, 3);
	line[66] = 0x55;
	assert_int_equal(probe_site_choose(line, sizeof(line), 0, 1, &site), 0);
	assert_int_equal(site.offset, 0);
	assert_false(site.emulated);
	line[63] = 0x55;
	line[64] = line[65] = 0x5d;
	assert_int_equal(probe_site_choose(line, sizeof(line), 0, 1, &site), 0);
	assert_int_equal(site.offset, 63);
	assert_true(site.emulated);
}

static void test_an_entry_that_is_no_code_is_refused(void **state)
{
	const uint8_t invalid[] = {0x06, 0x55, RET}, cut[] = {0x48};
	struct probe_site site = {.offset = 999};

	(void)state;
	assert_int_equal(probe_site_choose(invalid, sizeof(invalid), 0, 1, &site), -ENOEXEC);
	assert_int_equal(probe_site_choose(cut, sizeof(cut), 0, 1, &site), -ENOEXEC);
	assert_int_equal(site.offset, 999);
}

/* Addresses at the ends of the address space must not wrap into the function. */
static void test_addresses_may_wrap(void **state)
{
	const uint8_t code[] = {MOV_RAX_RDI, 0x74, 0x80, RET};
	const uint64_t addresses[] = {0, 1, UINT64_MAX, UINT64_MAX - 3, INT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(addresses) / sizeof(*addresses); i++) {
		struct probe_site site = {0};

		assert_int_equal(probe_site_choose(code, sizeof(code), addresses[i], 1, &site), 0);
		assert_int_equal(site.offset, 3);
	}
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
			struct probe_site *site = &sites[arguments];
			int err =
				probe_site_choose(code, size, next_random(&seed), arguments, site);

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sites_of_real_allocators),
		cmocka_unit_test(test_what_the_kernel_emulates),
		cmocka_unit_test(test_no_site_behind_an_overwritten_argument),
		cmocka_unit_test(test_one_call_is_one_hit),
		cmocka_unit_test(test_unseen_code_leaves_the_entry),
		cmocka_unit_test(test_an_entry_that_is_no_code_is_refused),
		cmocka_unit_test(test_addresses_may_wrap),
		cmocka_unit_test(test_random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
