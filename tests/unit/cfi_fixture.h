/*
 * What the tests of call frame information share: a scratch folder, programs compiled there, images
 * opened by path, and what readelf says about them, as the independent source.
 */
#ifndef TESTS_CFI_FIXTURE_H
#define TESTS_CFI_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "binary/image.h"
#include "util/cleanup.h"

static char scratch[64];

static inline int scratch_make(void **state)
{
	(void)state;
	snprintf(scratch, sizeof(scratch), "/tmp/alloctrace-cfi-XXXXXX");
	return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", scratch);
	return system(command) ? -1 : 0;
}

__attribute__((format(printf, 1, 2))) static inline bool run(const char *format, ...)
{
	char command[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command) == 0;
}

/* Writes text to a file of the scratch folder; its path goes to `path`. */
static inline void scratch_file(const char *name, const char *text, char *path, size_t size)
{
	FILE *file;

	snprintf(path, size, "%s/%s", scratch, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* Compiles source text (name says its language) and leaves the program's path in `out`. */
static inline void compile(const char *name, const char *text, const char *flags, char *out,
			   size_t size)
{
	char source[96];

	scratch_file(name, text, source, sizeof(source));
	snprintf(out, size, "%s.out", source);
	if (!run("cc -w -o %s %s %s", out, source, flags))
		fail_msg("cannot compile %s with %s", name, flags);
}

static inline void cleanup_image(struct image **image)
{
	image_free(*image);
}

/* NULL where there is no such file. */
static inline struct image *open_path(const char *path)
{
	struct image *image = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	assert_int_equal(image_open(fd, path, &image), 0);
	return image;
}

/* The first that exists. */
static inline const char *first_of(const char *const *paths, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (access(paths[i], R_OK) == 0)
			return paths[i];
	}
	return NULL;
}

#define FIRST_OF(...)                                                                              \
	first_of((const char *const[]){__VA_ARGS__},                                               \
		 sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static inline const char *libc_path(void)
{
	return FIRST_OF("/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6",
			"/lib64/libc.so.6", "/usr/lib/libc.so.6");
}

static inline const char *libstdcxx_path(void)
{
	return FIRST_OF("/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
			"/usr/lib/aarch64-linux-gnu/libstdc++.so.6", "/usr/lib64/libstdc++.so.6");
}

static inline const char *python_path(void)
{
	return FIRST_OF("/usr/bin/python3.11", "/usr/bin/python3");
}

/* Debian's libc6-arm64-cross, or wherever the environment says. */
static inline const char *aarch64_libc_path(void)
{
	const char *path = getenv("AARCH64_LIBC");

	return path ? path : FIRST_OF("/usr/aarch64-linux-gnu/lib/libc.so.6");
}

/*
 * Programs that make compilers emit what is rare: alloca and variable arrays (CFA from rbp), stack
 * realignment (CFA by expression), and assembly by hand.
 */
static const char source_frames[] =
	"#include <alloca.h>\n"
	"#include <string.h>\n"
	"#include <stdio.h>\n"
	"#include <stdlib.h>\n"
	"typedef double wide __attribute__((vector_size(64)));\n"
	"__attribute__((noinline)) void use(void *p, int n) { memset(p, n, 1); puts(p); }\n"
	"__attribute__((noinline)) int with_alloca(int n) {\n"
	"	char *p = alloca(n); use(p, n); return p[0]; }\n"
	"__attribute__((noinline)) int realigned(int n) {\n"
	"	wide w; char *p = alloca(n); use(&w, n); use(p, n); return ((char *)&w)[0]; }\n"
	"__attribute__((noinline)) int plain(int n) { char b[300]; use(b, n); return b[n]; }\n"
	"__attribute__((noinline)) int big(int n) { char b[3000000]; use(b, n); return b[n]; }\n"
	"__attribute__((noinline)) int many(int a, int b, int c, int d, int e, int f, int g, int "
	"h) {\n"
	"	return plain(a + g) + plain(b + h) + plain(c) + plain(d) + plain(e) + plain(f); }\n"
	"int main(int argc, char **argv) {\n"
	"	void *p = malloc(argc); free(p);\n"
	"	return with_alloca(argc) + realigned(argc) + plain(argc) + big(argc) +\n"
	"	       many(argc, 2, 3, 4, 5, 6, 7, 8); }\n";

/*
 * x86-64. outermost: return address undefined. branchy: remember and restore. handler_return: a
 * signal frame as glibc's. lazy_frame: CFA in rbx. no_cfi: a call where no information is.
 * trampoline: musl's signal return. waits: a system call in the middle of a frame.
 */
static const char source_asm[] =
	"	.text\n"
	"	.globl main, outermost, branchy, handler_return, lazy_frame, no_cfi, waits\n"
	"main:	.cfi_startproc\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"	.skip 32, 0x90\n"
	"outermost: .cfi_startproc\n"
	"	.cfi_undefined rip\n"
	"	call branchy\n"
	"	hlt\n"
	"	.cfi_endproc\n"
	"branchy: .cfi_startproc\n"
	"	push %rbp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_offset rbp, -16\n"
	"	sub $64, %rsp\n"
	"	.cfi_adjust_cfa_offset 64\n"
	"	test %eax, %eax\n"
	"	.cfi_remember_state\n"
	"	jz 1f\n"
	"	add $64, %rsp\n"
	"	.cfi_adjust_cfa_offset -64\n"
	"	pop %rbp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore rbp\n"
	"	ret\n"
	"1:	.cfi_restore_state\n"
	"	call *%rax\n"
	"	.cfi_escape 0x2e, 0x10\n"
	"	call *16(%rax,%rbx,8)\n"
	"	hlt\n"
	"	.cfi_endproc\n"
	"	nop\n"
	"	.cfi_startproc\n"
	"	.cfi_signal_frame\n"
	"	.cfi_escape 0x0f, 4, 0x77, 0xa0, 1, 0x06\n" /* CFA = *(rsp + 160) */
	"	.cfi_escape 0x10, 6, 3, 0x77, 0xf8, 0\n"    /* rbp at rsp + 120 */
	"	.cfi_escape 0x10, 16, 3, 0x77, 0xa8, 1\n"   /* rip at rsp + 168 */
	"	nop\n"
	"handler_return:\n"
	"	mov $15, %rax\n"
	"	syscall\n"
	"	.cfi_endproc\n"
	"lazy_frame: .cfi_startproc\n"
	"	push %rbx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_offset rbx, -16\n"
	"	mov %rsp, %rbx\n"
	"	.cfi_def_cfa_register rbx\n"
	"	and $-64, %rsp\n"
	"	call branchy\n"
	"	hlt\n"
	"	.cfi_endproc\n"
	"	.skip 32, 0x90\n"
	"no_cfi:\n"
	"	push %rbx\n"
	"	call branchy\n"
	"	pop %rbx\n"
	"	ret\n"
	"	.skip 32, 0x90\n"
	"trampoline:\n"
	"	mov $15, %eax\n"
	"	syscall\n"
	"	.skip 32, 0x90\n"
	"waits:	.cfi_startproc\n"
	"	push %rbp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_offset rbp, -16\n"
	"	sub $160, %rsp\n"
	"	.cfi_adjust_cfa_offset 160\n"
	"	mov $1, %eax\n"
	"	syscall\n"
	"	add $160, %rsp\n"
	"	.cfi_adjust_cfa_offset -160\n"
	"	pop %rbp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore rbp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"	.section .note.GNU-stack,\"\",@progbits\n";

/* Address of a label, function or not, by nm. */
static inline uint64_t label(const char *path, const char *name)
{
	char command[256];
	unsigned long long vaddr = 0;
	FILE *nm;

	snprintf(command, sizeof(command), "nm %s | awk '$3 == \"%s\" {print $1}'", path, name);
	nm = popen(command, "r");
	assert_non_null(nm);
	assert_int_equal(fscanf(nm, "%llx", &vaddr), 1);
	pclose(nm);
	return vaddr;
}

#endif
