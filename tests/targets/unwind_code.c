/*
 * unwind_code: allocates through a function that has no call frame information.
 *
 *	unwind_code anonymous|written|bare N
 *
 * anonymous: code made at run time, in memory of no file, that keeps a frame pointer, as
 * just-in-time compilers do. written: hand-written assembly that keeps one. bare: hand-written
 * assembly that does not, and that leaves 0 in the frame pointer. Says "ready PID", waits for a
 * line, allocates N times, says "done", waits for another line, ends.
 */
#include "target.h"

#include <sys/mman.h>

#ifdef __x86_64__
#define FRAMED_CODE "push %rbp\n mov %rsp, %rbp\n call *%rdi\n pop %rbp\n ret\n"
#define BARE_CODE   "push %rbp\n xor %ebp, %ebp\n call *%rdi\n pop %rbp\n ret\n"
#else
#define FRAMED_CODE                                                                                \
	"stp x29, x30, [sp, #-16]!\n mov x29, sp\n blr x0\n ldp x29, x30, [sp], #16\n ret\n"
#define BARE_CODE                                                                                  \
	"stp x29, x30, [sp, #-16]!\n mov x29, #0\n blr x0\n ldp x29, x30, [sp], #16\n ret\n"
#endif

/* The compiler says nothing about these in .eh_frame: they are of another section, without .cfi. */
__asm__(".pushsection .text.written, \"ax\", @progbits\n"
	".globl written_framed, written_framed_end, written_bare\n"
	".type written_framed, @function\n"
	".type written_bare, @function\n"
	"written_framed:\n" FRAMED_CODE "written_framed_end:\n"
	".size written_framed, . - written_framed\n"
	"written_bare:\n" BARE_CODE ".size written_bare, . - written_bare\n"
	".popsection\n");

void written_framed(void (*callee)(void));
void written_bare(void (*callee)(void));
extern const char written_framed_end[];

NAMED_SITE static void path_site(void)
{
	free(malloc(100));
}

NAMED_SITE static void path_caller(void (*code)(void (*)(void)), int count)
{
	for (int i = 0; i < count; i++)
		code(path_site);
}

static void *make_code(void)
{
	size_t size = (size_t)(written_framed_end - (const char *)written_framed);
	void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (code == MAP_FAILED)
		target_die("no memory for code\n");
	memcpy(code, (const void *)written_framed, size);
	__builtin___clear_cache((char *)code, (char *)code + size);
	return code;
}

int main(int argc, char **argv)
{
	void (*code)(void (*)(void)) = NULL;

	if (argc == 3 && !strcmp(argv[1], "anonymous"))
		*(void **)&code = make_code();
	else if (argc == 3 && !strcmp(argv[1], "written"))
		code = written_framed;
	else if (argc == 3 && !strcmp(argv[1], "bare"))
		code = written_bare;
	else
		target_die("unwind_code anonymous|written|bare N\n");
	target_ready();
	target_wait_line();
	path_caller(code, atoi(argv[2]));
	target_say("done\n");
	target_wait_line();
	return 0;
}
