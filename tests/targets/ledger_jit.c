/*
 * The ledger of code that is made at run time.
 *
 *	ledger_jit map|no-map anonymous|shared [options of a ledger]
 *
 * Each site is two pieces of code that keep frame pointers, one of which calls the other and that
 * malloc. They lie in memory of no file, or in one that is shared with itself, as .NET's compiler has
 * it. map: their names are in /tmp/perf-PID.map, as its own pid namespace counts, among others: that
 * of code which was at the same place before, lines that are broken, and those of no code at all.
 */
#include "ledger.h"

#include <sys/mman.h>

#define PIECE_SIZE 64
#define AREA_SIZE  4096

/*
 * The last eight bytes of a piece are the address that it calls, with its own argument or with the
 * size that this points to.
 */
#ifdef __x86_64__
#define CODE_BEGIN "push %rbp\n mov %rsp, %rbp\n"
#define CODE_LOAD  "mov (%rdi), %rdi\n"
#define CODE_END   "call *1f(%rip)\n pop %rbp\n ret\n .balign 8\n 1: .quad 0\n"
#else
#define CODE_BEGIN "stp x29, x30, [sp, #-16]!\n mov x29, sp\n"
#define CODE_LOAD  "ldr x0, [x0]\n"
#define CODE_END   "ldr x9, 1f\n blr x9\n ldp x29, x30, [sp], #16\n ret\n .balign 8\n 1: .quad 0\n"
#endif

__asm__(".pushsection .rodata\n"
	".balign 8\n calls_piece: " CODE_BEGIN CODE_END "calls_piece_end:\n"
	".balign 8\n calls_malloc: " CODE_BEGIN CODE_LOAD CODE_END "calls_malloc_end:\n"
	".popsection\n");

extern const char calls_piece[], calls_piece_end[], calls_malloc[], calls_malloc_end[];

static void release(void *block, size_t size)
{
	(void)size;
	free(block);
}

static struct ledger_site sites[] = {
	{"jit_small", NULL, release, 0, 0},
	{"jit_other", NULL, release, 0, 0},
	{"jit_last", NULL, release, 0, 0},
};

#define SITES (sizeof(sites) / sizeof(*sites))

static void jit_round(struct ledger_worker *w)
{
	for (size_t i = 0; i < SITES; i++) {
		struct ledger_request q = {.size = 16 + ledger_draw(w) % 3000};

		ledger_plain(w, &sites[i], &q, q.size);
	}
}

static const struct ledger_group group = {sites, SITES, NULL, jit_round};

/* --- the code --- */

static void make_piece(char *at, const char *code, const char *end, uintptr_t callee)
{
	size_t size = (size_t)(end - code);

	memcpy(at, code, size);
	memcpy(at + size - sizeof(callee), &callee, sizeof(callee));
}

/* Where code is written, and where it is run: twice the same place, or twice the same memory. */
static void make_area(bool shared, char **writable, char **executable)
{
	int fd = shared ? memfd_create("ledger_jit", 0) : -1;

	if (!shared) {
		*writable = *executable = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
					       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	} else if (!ftruncate(fd, AREA_SIZE)) {
		*writable = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		*executable = mmap(NULL, AREA_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	}
	if (*writable == MAP_FAILED || *executable == MAP_FAILED)
		target_die("no memory for code\n");
}

static void make_code(char *writable, char *executable)
{
	for (size_t i = 0; i < SITES; i++) {
		size_t outer = 2 * i * PIECE_SIZE, inner = outer + PIECE_SIZE;

		make_piece(writable + outer, calls_piece, calls_piece_end,
			   (uintptr_t)(executable + inner));
		make_piece(writable + inner, calls_malloc, calls_malloc_end, (uintptr_t)malloc);
		*(void **)&sites[i].call = executable + outer;
	}
	__builtin___clear_cache(executable, executable + AREA_SIZE);
}

/* The names of the sites' inner pieces say nothing of the sites: those of the outer ones have to. */
static void write_map(const char *code)
{
	char path[64];
	FILE *map;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	map = fopen(path, "w");
	if (!map)
		target_die("cannot write %s\n", path);
	fprintf(map, "%lx %x path_freed_before\n", (long)code, AREA_SIZE);
	fprintf(map, "not a line\n%lx\nffffffffffffffff 10 over_the_end\n", (long)code);
	for (size_t i = 0; i < SITES; i++) {
		const char *outer = code + 2 * i * PIECE_SIZE;

		fprintf(map, "%lx %x path_%s\n", (long)outer, PIECE_SIZE, sites[i].name);
		fprintf(map, "0x%lx 0x%x Object.<init> [\x01\xff] (a::b)\n",
			(long)outer + PIECE_SIZE, PIECE_SIZE);
	}
	fprintf(map, "%lx %x path_beside_it", (long)code - AREA_SIZE, AREA_SIZE);
	fclose(map);
}

int main(int argc, char **argv)
{
	char *writable = MAP_FAILED, *executable = MAP_FAILED;

	if (argc < 3)
		target_die("ledger_jit map|no-map anonymous|shared [options]\n");
	make_area(!strcmp(argv[2], "shared"), &writable, &executable);
	make_code(writable, executable);
	if (!strcmp(argv[1], "map"))
		write_map(executable);
	ledger_add(&group);
	return ledger_main(argc - 2, argv + 2);
}
