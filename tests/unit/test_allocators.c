/*
 * What allocator_find() says about real files: this machine's libc, static programs, and small
 * libraries that are compiled here so that the answer is known. The other source is binutils: nm
 * for addresses, objdump for the instructions.
 */
#include "binary/allocators.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "pieces.h"

static char folder[] = "/tmp/test_allocators.XXXXXX";

/* --- binutils --- */

struct line {
	uint64_t address;
	char mnemonic[16];
	uint64_t target; /* of a direct branch; 0: none */
};

struct listing {
	struct line *lines; /* owned; in order of address */
	size_t count;
};

static FILE *run(const char *format, const char *argument)
{
	char command[1024];
	FILE *pipe;

	snprintf(command, sizeof(command), format, argument);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	return pipe;
}

/* "  98930:	push   %r12" or "  9945b:	call   98930 <malloc>" */
static bool parse_line(char *text, struct line *line)
{
	char *end, *operand;

	*line = (struct line){0};
	line->address = strtoull(text, &end, 16);
	if (end == text || *end != ':' || end[1] != '\t')
		return false;
	end += 2;
	/* Prefixes stand before the mnemonic. */
	while (!strncmp(end, "bnd ", 4) || !strncmp(end, "notrack ", 8))
		end = strchr(end, ' ') + 1;
	operand = end + strcspn(end, " \n");
	snprintf(line->mnemonic, sizeof(line->mnemonic), "%.*s", (int)(operand - end), end);
	operand += strspn(operand, " ");
	if (line->mnemonic[0] == 'j' || !strcmp(line->mnemonic, "call")) {
		char *after;

		line->target = strtoull(operand, &after, 16);
		if (after == operand || (*after != ' ' && *after != '\n'))
			line->target = 0;
	}
	return true;
}

static struct listing disassemble(const char *path)
{
	FILE *pipe = run("objdump -d --no-show-raw-insn '%s'", path);
	struct listing listing = {0};
	size_t capacity = 0;
	char text[1024];

	while (fgets(text, sizeof(text), pipe)) {
		struct line line;

		if (!parse_line(text, &line))
			continue;
		if (listing.count == capacity) {
			capacity = capacity ? capacity * 2 : 4096;
			listing.lines = realloc(listing.lines, capacity * sizeof(line));
			assert_non_null(listing.lines);
		}
		listing.lines[listing.count++] = line;
	}
	assert_int_equal(pclose(pipe), 0);
	assert_true(listing.count > 0);
	return listing;
}

static void listing_free(struct listing *listing)
{
	free(listing->lines);
}

static int compare_lines(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	return (x->address > y->address) - (x->address < y->address);
}

static const struct line *line_at(const struct listing *listing, uint64_t address)
{
	struct line key = {.address = address};

	return bsearch(&key, listing->lines, listing->count, sizeof(key), compare_lines);
}

/* The address and size of a function by nm; false where it has none. */
static bool nm_lookup(const char *path, bool dynamic, const char *name, uint64_t *vaddr,
		      uint64_t *size)
{
	FILE *pipe = run(dynamic ? "nm -D -S '%s' 2>/dev/null" : "nm -S '%s' 2>/dev/null", path);
	char text[4096], found[1024], type;
	uint64_t address, bytes;
	bool is_found = false;

	while (fgets(text, sizeof(text), pipe)) {
		if (sscanf(text, "%lx %lx %c %1023s", &address, &bytes, &type, found) != 4 ||
		    !strchr("TtWi", type))
			continue;
		found[strcspn(found, "@")] = 0;
		if (!is_found && !strcmp(found, name)) {
			*vaddr = address;
			*size = bytes;
			is_found = true;
		}
	}
	pclose(pipe);
	return is_found;
}

/* --- what is tested --- */

static int find_with(const char *path, const struct allocator_extras *extras,
		     struct allocator **out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;
	struct image *image;

	assert_true(fd >= 0);
	assert_int_equal(image_open(fd, path, &image), 0);
	err = allocator_find(image, NULL, extras, out);
	image_free(image);
	return err;
}

static int find(const char *path, struct allocator **out)
{
	return find_with(path, NULL, out);
}

static const struct allocator_extras with_mappings = {.mappings = true};

static const struct allocator_function *function_named(const struct allocator *allocator,
						       const char *name)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		if (!strcmp(allocator->functions[i].name, name))
			return &allocator->functions[i];
	}
	return NULL;
}

static bool allocates_at(const struct allocator *allocator, uint64_t vaddr)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		if (allocator->functions[i].vaddr == vaddr)
			return allocator->functions[i].shape != SHAPE_FREE;
	}
	return false;
}

static bool nests_at(const struct allocator *allocator, uint64_t address)
{
	for (size_t i = 0; i < allocator->nested_return_count; i++) {
		if (allocator->nested_returns[i].vaddr == address)
			return true;
	}
	return false;
}

static bool hands_over_at(const struct allocator *allocator, uint64_t address)
{
	for (size_t i = 0; i < allocator->handovers.count; i++) {
		if (allocator->handovers.items[i].vaddr == address)
			return true;
	}
	return false;
}

/* Does the function, or what is between it and the next one, hand over? */
static bool hands_over(const struct allocator *allocator, const struct allocator_function *function)
{
	for (size_t i = 0; i < allocator->handovers.count; i++) {
		if (allocator->handovers.items[i].vaddr - function->vaddr < function->size)
			return true;
	}
	return false;
}

static bool is_left_out(const struct allocator *allocator, const char *name)
{
	for (size_t i = 0; i < allocator->left_out.count; i++) {
		if (!strcmp(allocator->left_out.items[i].name, name))
			return true;
	}
	return false;
}

static bool kernel_emulates(const char *mnemonic)
{
	return !strcmp(mnemonic, "push") || !strcmp(mnemonic, "nop") || !strcmp(mnemonic, "call") ||
	       (mnemonic[0] == 'j' && strcmp(mnemonic, "jrcxz") != 0);
}

/* Each function against nm, each site against objdump. */
static void check_functions(const char *path, bool dynamic, const struct listing *listing,
			    const struct allocator *allocator)
{
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		const struct line *site = line_at(listing, function->site);
		uint64_t vaddr = 0, size = 0;

		assert_true(nm_lookup(path, dynamic, function->name, &vaddr, &size));
		assert_int_equal(function->vaddr, vaddr);
		assert_int_equal(function->size, size);
		assert_non_null(site);
		assert_true(function->site >= vaddr && function->site < vaddr + size);
		assert_int_equal(function->emulated, kernel_emulates(site->mnemonic));
		/* Nothing before the site leaves the straight line. */
		for (const struct line *line = line_at(listing, vaddr); line < site; line++)
			assert_false(kernel_emulates(line->mnemonic));
		assert_true(function->emulated || function->site == vaddr);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(function->vaddr, allocator->functions[j].vaddr);
	}
}

/*
 * Each nested return is the address behind a call; and each direct call or jump that objdump shows
 * from one allocating function to another is known.
 */
static void check_nesting(const struct listing *listing, const struct allocator *allocator)
{
	for (size_t i = 0; i < allocator->nested_return_count; i++) {
		const struct allocator_return *nested = &allocator->nested_returns[i];
		const struct line *line = line_at(listing, nested->vaddr);

		assert_non_null(line);
		assert_true(line > listing->lines);
		assert_string_equal(line[-1].mnemonic, "call");
		assert_true(i == 0 || nested[-1].vaddr < nested->vaddr);
	}
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		const struct line *end = listing->lines + listing->count;

		for (const struct line *line = line_at(listing, function->vaddr);
		     line < end && line->address < function->vaddr + function->size; line++) {
			if (function->shape == SHAPE_FREE || !allocates_at(allocator, line->target))
				continue;
			if (line->mnemonic[0] == 'j')
				assert_true(hands_over_at(allocator, line->address));
			else
				assert_true(nests_at(allocator, line[1].address));
		}
	}
}

/* Every name of the family that nm knows is probed, if only under another name of its address. */
static void check_complete(const char *path, bool dynamic, const struct allocator *allocator)
{
	static const char *const names[] = {"malloc",	      "calloc", "realloc", "aligned_alloc",
					    "memalign",	      "valloc", "pvalloc", "free",
					    "posix_memalign", "cfree"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		uint64_t vaddr, size;
		bool is_probed = false;

		if (!nm_lookup(path, dynamic, names[i], &vaddr, &size))
			continue;
		for (size_t j = 0; j < allocator->function_count; j++)
			is_probed |= allocator->functions[j].vaddr == vaddr;
		assert_true(is_probed || is_left_out(allocator, names[i]));
	}
}

static void check_file(const char *path, bool dynamic, struct allocator **out)
{
	struct allocator *allocator = NULL;
	struct listing listing;

	assert_int_equal(find(path, &allocator), 0);
	listing = disassemble(path);
	assert_non_null(function_named(allocator, "malloc"));
	assert_non_null(function_named(allocator, "free"));
	check_functions(path, dynamic, &listing, allocator);
	check_nesting(&listing, allocator);
	check_complete(path, dynamic, allocator);
	listing_free(&listing);
	*out = allocator;
}

/* In glibc 2.36 as Debian 12 builds it; the static one is compiled a little differently. */
static void check_glibc_2_36(const struct allocator *allocator)
{
	static const struct {
		const char *name;
		uint64_t site;
	} expected[] = {
		{"malloc", 0},	       {"calloc", 0}, {"realloc", 0}, {"aligned_alloc", 7},
		{"posix_memalign", 7}, {"valloc", 7}, {"pvalloc", 7}, {"free", 3},
	};

	assert_int_equal(allocator->function_count, 8);
	for (size_t i = 0; i < 8; i++) {
		const struct allocator_function *function =
			function_named(allocator, expected[i].name);

		assert_non_null(function);
		assert_int_equal(function->site - function->vaddr, expected[i].site);
		assert_true(function->emulated);
		assert_false(function->throws);
	}
	/* realloc of NULL, and _mid_memalign, to which all four that align jump or call. */
	assert_int_equal(allocator->handovers.count, 2);
	assert_true(hands_over(allocator, function_named(allocator, "realloc")));
	assert_int_equal(allocator->left_out.count, 0);
}

static void test_this_machines_libc(void **state)
{
	struct allocator *allocator;
	Dl_info info;

	(void)state;
	assert_int_not_equal(dladdr((void *)getppid, &info), 0);
	check_file(info.dli_fname, true, &allocator);
	if (!strcmp(gnu_get_libc_version(), "2.36"))
		check_glibc_2_36(allocator);
	allocator_free(allocator);
}

/* What aarch64 kernels simulate, of the instruction at an address as llvm-objdump names it. */
static bool aarch64_simulates(const char *path, uint64_t address)
{
	static const char *const simulated[] = {"b",   "bl",   "cbz", "cbnz", "tbz", "tbnz",
						"adr", "adrp", "br",  "blr",  "ret"};
	char command[256], text[1024];
	struct line line = {0};
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "llvm-objdump -d --no-show-raw-insn --start-address=%lu --stop-address=%lu '%%s'",
		 address, address + 4);
	pipe = run(command, path);
	while (fgets(text, sizeof(text), pipe)) {
		/* "   8f5d4:      	cbz	x0, 0x8f6e4 <free+0x110>" */
		if (sscanf(text, " %lx: %15s", &line.address, line.mnemonic) == 2)
			break;
	}
	pclose(pipe);
	assert_int_equal(line.address, address);
	for (size_t i = 0; i < sizeof(simulated) / sizeof(*simulated); i++) {
		if (!strcmp(line.mnemonic, simulated[i]))
			return true;
	}
	return !strncmp(line.mnemonic, "b.", 2);
}

/* Before anything else is done to x30 and sp. */
static void test_aarch64_sites_are_entries(void **state)
{
	const char *path = "/usr/aarch64-linux-gnu/lib/libc.so.6";
	struct allocator *allocator;

	(void)state;
	if (access(path, R_OK))
		skip(); /* libc6-arm64-cross is not installed */
	assert_int_equal(find(path, &allocator), 0);
	check_complete(path, true, allocator);
	for (size_t i = 0; i < allocator->function_count; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		uint64_t vaddr = 0, size = 0;

		assert_true(nm_lookup(path, true, function->name, &vaddr, &size));
		assert_int_equal(function->vaddr, vaddr);
		assert_int_equal(function->site, vaddr);
		assert_int_equal(function->emulated, aarch64_simulates(path, vaddr));
		for (size_t j = 0; j < shape_operands(function->shape); j++)
			assert_int_equal(function->registers[j], function->arguments[j]);
	}
	allocator_free(allocator);
}

/* --- files that are compiled here --- */

static void write_file(const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* Runs a command in the folder; true if it succeeded. */
static bool in_folder(const char *command)
{
	char line[1024];

	snprintf(line, sizeof(line), "cd %s && %s", folder, command);
	return system(line) == 0;
}

static char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void test_static_programs(void **state)
{
	static const char *const flags[] = {"-static", "-static-pie"};

	(void)state;
	write_file("static.c",
		   "#include <stdlib.h>\nint main(void){free(calloc(3, 3));return 0;}\n");
	for (size_t i = 0; i < 2; i++) {
		struct allocator *allocator;
		char command[128];

		snprintf(command, sizeof(command), "gcc -O1 %s static.c -o static 2>/dev/null",
			 flags[i]);
		if (!in_folder(command))
			skip(); /* no libc.a here */
		check_file(path_of("static"), false, &allocator);
		if (!strcmp(gnu_get_libc_version(), "2.36"))
			check_glibc_2_36(allocator);
		allocator_free(allocator);
	}
}

/*
 * Each function makes at most one call. Nested: those of posix_memalign (of a helper that jumps to
 * malloc) and memalign (of a helper, whose helper calls malloc). Not nested: the calls that
 * the helpers make, and that of a stranger.
 */
static const char nesting_source[] =
	"#include <stddef.h>\n"
	"#define API __attribute__((noipa, visibility(\"default\")))\n"
	"#define HELPER static __attribute__((noipa))\n"
	"static char arena[1 << 20];\n"
	"static size_t used;\n"
	"API void *malloc(size_t n)\n"
	"{ size_t at = used; used += n; return at < sizeof(arena) ? arena + at : 0; }\n"
	"API void free(void *p) { if (p) used--; }\n"
	"API void *calloc(size_t n, size_t m) { char *p = malloc(n * m); if (p) *p = 0; return p; "
	"}\n"
	"API void *realloc(void *p, size_t n) { if (!p) return malloc(n); used += n; return p; }\n"
	"HELPER void *jumps(size_t n) { used++; return malloc(n); }\n"
	"API int posix_memalign(void **out, size_t a, size_t n)\n"
	"{ void *p = jumps(n + a); if (!p) return 12; *out = p; return 0; }\n"
	"HELPER void *two(size_t n) { char *p = malloc(n); if (p) *p = 1; return p; }\n"
	"HELPER void *one(size_t n) { char *p = two(n + 1); if (p) *p = 2; return p; }\n"
	"API void *memalign(size_t a, size_t n) { char *p = one(n + a); if (p) *p = 3; return p; "
	"}\n"
	"API void *aligned_alloc(size_t a, size_t n) { return memalign(a, n + 1); }\n"
	"API void *stranger(size_t n) { char *p = malloc(n); if (p) *p = 4; return p; }\n"
	"API void *_Znwm(size_t n) { return stranger(n + 1); }\n";

/* The address behind the only call in a function. */
static uint64_t return_in(const char *path, const struct listing *listing, const char *name)
{
	const struct line *end = listing->lines + listing->count;
	uint64_t vaddr = 0, size = 0, found = 0;

	assert_true(nm_lookup(path, false, name, &vaddr, &size));
	for (const struct line *line = line_at(listing, vaddr);
	     line < end && line->address < vaddr + size; line++) {
		if (strcmp(line->mnemonic, "call") != 0)
			continue;
		assert_int_equal(found, 0);
		found = line[1].address;
	}
	assert_int_not_equal(found, 0);
	return found;
}

static bool in_function(const char *path, const char *name, uint64_t address)
{
	uint64_t vaddr = 0, size = 0;

	assert_true(nm_lookup(path, false, name, &vaddr, &size));
	return address - vaddr < size;
}

static void check_nesting_library(const char *path, const struct listing *listing,
				  const char *unstripped)
{
	struct allocator *allocator;

	assert_int_equal(find(path, &allocator), 0);
	assert_int_equal(allocator->function_count, 5);
	assert_true(nests_at(allocator, return_in(unstripped, listing, "posix_memalign")));
	assert_true(nests_at(allocator, return_in(unstripped, listing, "memalign")));
	/* Not the stranger's: what the program itself calls it for counts. */
	assert_int_equal(allocator->nested_return_count, 2);
	assert_int_equal(allocator->handovers.count, 1);
	assert_true(hands_over(allocator, function_named(allocator, "realloc")));
	/* Whatever way is taken in these, malloc or memalign does the work. */
	assert_true(is_left_out(allocator, "calloc"));
	assert_true(is_left_out(allocator, "aligned_alloc"));
	assert_true(is_left_out(allocator, "_Znwm"));
	allocator_free(allocator);
}

/* Called directly, by a PLT, by the GOT; with symbols, with unwind tables only, with neither. */
static void test_nested_calls_of_a_library(void **state)
{
	static const char *const linkings[] = {"-Wl,-Bsymbolic", "-Wl,-z,lazy", "-fno-plt",
					       "-fcf-protection -Wl,-z,ibtplt"};
	static const char *const unwindings[] = {"-fasynchronous-unwind-tables",
						 "-fno-asynchronous-unwind-tables"};

	(void)state;
	write_file("nesting.c", nesting_source);
	for (size_t i = 0; i < 8; i++) {
		struct listing listing;
		char command[512], path[256];

		snprintf(command, sizeof(command),
			 "gcc -O2 -fno-builtin -fPIC -shared -nostdlib -fvisibility=hidden %s %s"
			 " nesting.c -o nesting.so && strip nesting.so -o stripped.so",
			 linkings[i / 2], unwindings[i % 2]);
		assert_true(in_folder(command));
		snprintf(path, sizeof(path), "%s", path_of("nesting.so"));
		listing = disassemble(path);
		check_nesting_library(path, &listing, path);
		check_nesting_library(path_of("stripped.so"), &listing, path);
		listing_free(&listing);
	}
}

/* Assembles a shared library. */
static const char *assemble(const struct piece *pieces, size_t count)
{
	write_file("code.s", pieces_text(pieces, count));
	assert_true(in_folder("gcc -shared -nostdlib code.s -o code.so"));
	return path_of("code.so");
}
#define ASSEMBLE(...)                                                                              \
	assemble((const struct piece[]){__VA_ARGS__},                                              \
		 sizeof((const struct piece[]){__VA_ARGS__}) / sizeof(struct piece))

static uint64_t site_of(const struct allocator *allocator, const char *name)
{
	const struct allocator_function *function = function_named(allocator, name);

	assert_non_null(function);
	assert_int_equal(function->site_offset - function->site,
			 allocator->functions[0].site_offset - allocator->functions[0].site);
	return function->site - function->vaddr;
}

/* The way to the site is within a loop whose end is in the function's cold part. */
static void test_a_cold_part_that_jumps_back(void **state)
{
	struct allocator *allocator;
	const char *path;

	(void)state;
	path = ASSEMBLE({"calloc", "mov %rdi, %rax; test %rax, %rax; js 5f; 6: ret", FUNCTION},
			{"malloc", "mov %rdi, %rax; 1: test %rax, %rax; js 2f; ret", FUNCTION},
			{"free", "mov %rdi, %rax; 3: test %rax, %rax; js 4f; ret", FUNCTION},
			{"malloc.cold", "2: mov $1, %eax; jmp 1b", LOCAL},
			{"free.cold", "4: mov $1, %eax; jmp 3b", LOCAL},
			{"calloc.cold", "5: mov $1, %eax; jmp 6b", LOCAL});
	assert_int_equal(find(path, &allocator), 0);
	assert_int_equal(site_of(allocator, "malloc"), 0);
	assert_false(function_named(allocator, "malloc")->emulated);
	assert_int_equal(site_of(allocator, "free"), 0);
	assert_false(function_named(allocator, "free")->emulated);
	/* Its cold part jumps to behind the site, where it does no harm. */
	assert_int_equal(site_of(allocator, "calloc"), 6);
	assert_true(function_named(allocator, "calloc")->emulated);
	assert_int_equal(allocator->handovers.count, 0);
	allocator_free(allocator);
}

/* A cold part is the function itself: what it calls nests, and so do its tail jumps; not in free.
 */
static void test_a_cold_part_that_allocates(void **state)
{
	struct allocator *allocator;
	struct listing listing;
	const char *path;

	(void)state;
	path = ASSEMBLE(
		plain_malloc, {"free", "test %rdi, %rdi; je 3f; ret", FUNCTION},
		{"calloc", "test %rdi, %rdi; je 1f; ret", FUNCTION},
		{"realloc", "test %rdi, %rdi; je 2f; ret", FUNCTION},
		{"valloc", "test %rdi, %rdi; js 4f; ret", FUNCTION},
		{"valloc.cold", "4: js 5f; push %rbx; call malloc@PLT; pop %rbx; 5: ret", LOCAL},
		{"free.cold", "3: push %rbx; call malloc@PLT; pop %rbx; ret", LOCAL},
		{"calloc.cold", "1: push %rbx; call malloc@PLT; pop %rbx; ret", LOCAL},
		{"realloc.cold", "nop; 2: jmp malloc@PLT", LOCAL});
	assert_int_equal(find(path, &allocator), 0);
	listing = disassemble(path);
	/*
	 * On the way through calloc's malloc does the work: so it is handed over where that begins.
	 * realloc's might free a block before it gets there.
	 */
	assert_int_equal(allocator->nested_return_count, 1);
	assert_true(nests_at(allocator, return_in(path, &listing, "valloc.cold")));
	assert_int_equal(allocator->handovers.count, 2);
	assert_int_equal(allocator->handovers.items[0].condition, 4);
	assert_true(in_function(path, "calloc", allocator->handovers.items[0].vaddr));
	assert_int_equal(allocator->handovers.items[1].condition, HANDOVER_ALWAYS);
	assert_true(in_function(path, "realloc.cold", allocator->handovers.items[1].vaddr));
	listing_free(&listing);
	allocator_free(allocator);
}

/* A call of oneself nests, a jump to one's own entry is a tail call; helpers in a circle end. */
static void test_recursion(void **state)
{
	struct allocator *allocator;
	struct listing listing;
	const char *path;

	(void)state;
	path = ASSEMBLE(
		plain_malloc, plain_free,
		{"calloc", "js 3f; push %rbx; call calloc@PLT; pop %rbx; 3: ret", FUNCTION},
		{"realloc", "test %rdi, %rdi; je realloc@PLT; ret", FUNCTION},
		{"valloc", "1: test %rdi, %rdi; je 1b; ret", FUNCTION},
		{"pvalloc", "1: test %rdi, %rdi; 2: dec %rdi; jne 2b; ret", FUNCTION},
		{"memalign", "jmp ping@PLT", FUNCTION},
		{"ping", "push %rbx; call pong@PLT; pop %rbx; jmp pong@PLT", FUNCTION},
		{"pong", "test %rdi, %rdi; je 1f; jmp ping@PLT; 1: jmp malloc@PLT", FUNCTION});
	assert_int_equal(find(path, &allocator), 0);
	listing = disassemble(path);
	assert_int_equal(allocator->nested_return_count, 2);
	assert_true(nests_at(allocator, return_in(path, &listing, "calloc")));
	assert_true(nests_at(allocator, return_in(path, &listing, "ping")));
	assert_int_equal(allocator->handovers.count, 3);
	for (size_t i = 0; i < 3; i++) {
		const struct allocator_handover *handover = &allocator->handovers.items[i];
		bool is_branch = !in_function(path, "pong", handover->vaddr);

		assert_true(!is_branch || in_function(path, "realloc", handover->vaddr) ||
			    in_function(path, "valloc", handover->vaddr));
		/* je is 0x74, or 0x0f 0x84 */
		assert_int_equal(handover->condition, is_branch ? 4 : HANDOVER_ALWAYS);
	}
	listing_free(&listing);
	allocator_free(allocator);
}

/* A helper of which only a call tells that it exists: it ends where no branch leads further. */
static void test_helpers_that_nothing_describes(void **state)
{
	struct allocator *allocator;
	struct listing listing;
	const char *path;

	(void)state;
	path = ASSEMBLE(
		plain_malloc, plain_free,
		{"calloc", "push %rbx; call .Lone; pop %rbx; ret", FUNCTION},
		{"one", "test %rdi, %rdi; je 1f; ret; 1: push %rbx; call malloc@PLT", LABEL},
		{"one_rest", "pop %rbx; ret", LABEL},
		{"stranger", "push %rbx; call malloc@PLT; pop %rbx; ret", LABEL},
		{"valloc", "push %rbx; call .Ltwo; pop %rbx; ret", FUNCTION},
		{"pvalloc", "jmp 2f", FUNCTION},
		{"two", "push %rbx; 2: call malloc@PLT; pop %rbx; ret", LABEL});
	assert_int_equal(find(path, &allocator), 0);
	listing = disassemble(path);
	/* The calls of the helpers; what pvalloc jumps into is sure to call malloc. */
	assert_int_equal(allocator->nested_return_count, 2);
	assert_true(is_left_out(allocator, "pvalloc"));
	check_nesting(&listing, allocator);
	listing_free(&listing);
	allocator_free(allocator);
}

/* Without a size in the symbol the unwind table bounds the function; else only the entry is safe.
 */
static void test_functions_without_a_size(void **state)
{
	struct allocator *allocator;
	const char *path;

	(void)state;
	path = ASSEMBLE(
		{"malloc", ".cfi_startproc; test %rdi, %rdi; js 1f; 1: ret; .cfi_endproc",
		 SIZELESS},
		{"calloc", "test %rdi, %rdi; js 1f; 1: ret", SIZELESS},
		{"free", ".cfi_startproc; test %rdi, %rdi; je 1f; 1: ret; .cfi_endproc", SIZELESS},
		{"last", ".cfi_startproc; ret; .cfi_endproc", FUNCTION});
	assert_int_equal(find(path, &allocator), 0);
	assert_int_equal(site_of(allocator, "malloc"), 3);
	assert_true(function_named(allocator, "malloc")->emulated);
	assert_true(function_named(allocator, "malloc")->size >= 6);
	assert_int_equal(site_of(allocator, "calloc"), 0);
	assert_int_equal(function_named(allocator, "calloc")->size, 0);
	assert_false(function_named(allocator, "calloc")->emulated);
	assert_int_equal(site_of(allocator, "free"), 3);
	allocator_free(allocator);
}

static void test_aliases_are_one_function(void **state)
{
	struct allocator *allocator;
	const char *path;

	(void)state;
	path = ASSEMBLE({"__libc_malloc", "", SIZELESS}, plain_malloc, {"cfree", "", SIZELESS},
			plain_free, {"memalign", "", SIZELESS}, {"aligned_alloc", "ret", FUNCTION});
	assert_int_equal(find(path, &allocator), 0);
	assert_int_equal(allocator->function_count, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(allocator->functions[i].size, 1);
	assert_non_null(function_named(allocator, "malloc"));
	assert_non_null(function_named(allocator, "free"));
	assert_non_null(function_named(allocator, "aligned_alloc"));
	allocator_free(allocator);
}

static void test_this_machines_libc_maps(void **state)
{
	static const struct {
		const char *name;
		enum allocator_shape shape;
	} expected[] = {
		{"mmap", SHAPE_MMAP},
		{"mremap", SHAPE_MREMAP},
		{"brk", SHAPE_BRK},
		{"munmap", SHAPE_MUNMAP},
	};
	struct allocator *without, *allocator;
	struct listing listing;
	size_t calls = 0;
	Dl_info libc;

	(void)state;
	assert_true(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &libc));
	assert_int_equal(find(libc.dli_fname, &without), 0);
	assert_int_equal(find_with(libc.dli_fname, &with_mappings, &allocator), 0);
	listing = disassemble(libc.dli_fname);
	assert_int_equal(allocator->function_count,
			 without->function_count + sizeof(expected) / sizeof(*expected));
	check_functions(libc.dli_fname, true, &listing, allocator);
	for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
		const struct allocator_function *function =
			function_named(allocator, expected[i].name);

		assert_null(function_named(without, expected[i].name));
		assert_non_null(function);
		assert_int_equal(function->shape, expected[i].shape);
		/* The kernel has not been asked yet. */
		for (const struct line *line = line_at(&listing, function->vaddr);
		     line->address < function->site; line++)
			assert_string_not_equal(line->mnemonic, "syscall");
	}
	/* What matters to allocations is the same. */
	for (size_t i = 0; i < allocator->nested_return_count; i++) {
		if (allocator->nested_returns[i].allocates) {
			assert_true(nests_at(without, allocator->nested_returns[i].vaddr));
			calls++;
		}
	}
	assert_int_equal(calls, without->nested_return_count);
	assert_true(allocator->nested_return_count > calls);
	listing_free(&listing);
	allocator_free(without);
	allocator_free(allocator);
}

/* Is this the return address of a call that matters to mappings only? */
static bool nests_mappings_at(const struct allocator *allocator, uint64_t address)
{
	for (size_t i = 0; i < allocator->nested_return_count; i++) {
		if (allocator->nested_returns[i].vaddr == address)
			return !allocator->nested_returns[i].allocates;
	}
	return false;
}

/* Inside of what allocates, frees or maps; and, where no walk gets through, what it leads to. */
static void test_mappings_of_the_allocator(void **state)
{
#define PUSHED(body)                                                                               \
	".cfi_startproc; push %rbx; .cfi_adjust_cfa_offset 8;" body "; ret; .cfi_endproc"
	const struct piece pieces[] = {
		{"malloc", "push %rbx; call grow@PLT; pop %rbx; ret", FUNCTION},
		{"free", "push %rbx; call shrink@PLT; pop %rbx; ret", FUNCTION},
		{"mmap", "push %rbx; call *%rax; pop %rbx; ret", FUNCTION},
		{"munmap", "test %rdi, %rdi; ret", FUNCTION},
		{"grow", "push %rbx; call take@PLT; pop %rbx; ret", FUNCTION},
		{"take", "test %rdi, %rdi; jmp more@PLT", FUNCTION},
		{"more", "push %rbx; call mmap@PLT; pop %rbx; ret", FUNCTION},
		{"shrink", "push %rbx; call mmap@PLT; pop %rbx; ret", FUNCTION},
		{"described", PUSHED("call mmap@PLT; pop %rbx"), FUNCTION},
		{"calloc", PUSHED("call described@PLT; pop %rbx"), FUNCTION},
		{"stranger", "push %rbx; call mmap@PLT; pop %rbx; ret", FUNCTION},
	};
	struct allocator *allocator;
	struct listing listing;
	const char *path;

	(void)state;
	path = assemble(pieces, sizeof(pieces) / sizeof(*pieces));
	assert_int_equal(find_with(path, &with_mappings, &allocator), 0);
	listing = disassemble(path);
	assert_int_equal(allocator->nested_return_count, 6);
	assert_false(nests_mappings_at(allocator, return_in(path, &listing, "malloc")));
	assert_true(nests_at(allocator, return_in(path, &listing, "malloc")));
	assert_true(nests_at(allocator, return_in(path, &listing, "calloc")));
	assert_true(nests_mappings_at(allocator, return_in(path, &listing, "free")));
	assert_true(nests_mappings_at(allocator, return_in(path, &listing, "mmap")));
	assert_true(nests_mappings_at(allocator, return_in(path, &listing, "more")));
	assert_true(nests_mappings_at(allocator, return_in(path, &listing, "shrink")));
	assert_non_null(function_named(allocator, "munmap"));
	assert_int_equal(site_of(allocator, "mmap"), 0);
	allocator_free(allocator);
	/* Nobody has asked for mappings. */
	assert_int_equal(find(path, &allocator), 0);
	assert_int_equal(allocator->nested_return_count, 2);
	assert_null(function_named(allocator, "mmap"));
	listing_free(&listing);
	allocator_free(allocator);
	/* Functions that map are no allocator; nor do they need a companion's companion. */
	assert_int_equal(find_with(ASSEMBLE({"mmap", "ret", FUNCTION}, {"munmap", "ret", FUNCTION},
					    {"_Znwm", "ret", FUNCTION}),
				   &with_mappings, &allocator),
			 -ENOENT);
}

static void expect_no_allocator(const char *what, const char *path)
{
	struct allocator *allocator = NULL;
	int err;

	for (int stripped = 0; stripped < 2; stripped++) {
		err = find(path, &allocator);
		if (err != -ENOENT || allocator)
			fail_msg("%s: %d", what, err);
		assert_true(in_folder("strip code.so"));
	}
}

static void test_images_that_are_no_allocator(void **state)
{
	const struct piece xmalloc = {"xmalloc", "ret", FUNCTION},
			   xfree = {"xfree", "ret", FUNCTION};
	const struct piece opens = {"_dl_open", "ret", FUNCTION};
	struct allocator *allocator = NULL;

	(void)state;
	expect_no_allocator("no free", ASSEMBLE(plain_malloc));
	expect_no_allocator("no malloc", ASSEMBLE(plain_free));
	expect_no_allocator("other names", ASSEMBLE(xmalloc, xfree));
	expect_no_allocator("undefined",
			    ASSEMBLE({"f", "call malloc@PLT; jmp free@PLT", FUNCTION}));
	expect_no_allocator("in data", ASSEMBLE({NULL, ".data", TEXT}, plain_malloc, plain_free));
	expect_no_allocator("no code", ASSEMBLE({"malloc", ".byte 6", FUNCTION}, plain_free));
	expect_no_allocator("a resolver",
			    ASSEMBLE(plain_free, {NULL,
						  ".globl malloc\n"
						  ".type malloc,@gnu_indirect_function\n"
						  "malloc: ret",
						  TEXT}));
	expect_no_allocator("glibc's dynamic linker",
			    ASSEMBLE(plain_malloc, plain_free, opens,
				     {NULL,
				      ".data; .globl _rtld_global; .type _rtld_global,@object\n"
				      "_rtld_global: .quad 0; .size _rtld_global, 8",
				      TEXT}));
	/* It is the variable that tells, and only where it is defined. */
	assert_int_equal(
		find(ASSEMBLE(plain_malloc, plain_free, opens,
			      {"f", "mov _rtld_global@GOTPCREL(%rip), %rax; ret", FUNCTION}),
		     &allocator),
		0);
	allocator_free(allocator);
	allocator_free(NULL);
}

/* Damage anywhere in the file: any answer but a crash. */
static void test_damaged_files(void **state)
{
	uint8_t *bytes = NULL;
	uint64_t seed = 88172645463325252;
	long size;
	FILE *file;

	(void)state;
	write_file("nesting.c", nesting_source);
	assert_true(
		in_folder("gcc -O2 -fno-builtin -fPIC -shared -nostdlib nesting.c -o whole.so"));
	file = fopen(path_of("whole.so"), "r");
	assert_non_null(file);
	assert_int_equal(fseek(file, 0, SEEK_END), 0);
	size = ftell(file);
	rewind(file);
	bytes = malloc((size_t)size);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
	fclose(file);
	for (int round = 0; round < 2000; round++) {
		int fd = open(path_of("damaged.so"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		struct allocator *allocator = NULL;
		struct image *image;

		assert_true(fd >= 0);
		assert_int_equal(write(fd, bytes, (size_t)size), size);
		for (int i = 0; i < 8; i++) {
			uint8_t byte;

			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			byte = (uint8_t)(seed >> 56);
			/* Not the identification, which is refused at once. */
			assert_int_equal(
				pwrite(fd, &byte, 1, 16 + (off_t)(seed % (uint64_t)(size - 16))),
				1);
		}
		if (!image_open(fd, "damaged", &image)) {
			if (!allocator_find(image, NULL, NULL, &allocator))
				allocator_free(allocator);
			image_free(image);
		}
	}
	free(bytes);
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_this_machines_libc),
		cmocka_unit_test(test_aarch64_sites_are_entries),
		cmocka_unit_test(test_static_programs),
		cmocka_unit_test(test_nested_calls_of_a_library),
		cmocka_unit_test(test_a_cold_part_that_jumps_back),
		cmocka_unit_test(test_a_cold_part_that_allocates),
		cmocka_unit_test(test_recursion),
		cmocka_unit_test(test_helpers_that_nothing_describes),
		cmocka_unit_test(test_functions_without_a_size),
		cmocka_unit_test(test_aliases_are_one_function),
		cmocka_unit_test(test_this_machines_libc_maps),
		cmocka_unit_test(test_mappings_of_the_allocator),
		cmocka_unit_test(test_images_that_are_no_allocator),
		cmocka_unit_test(test_damaged_files),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
