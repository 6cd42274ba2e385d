/*
 * Programs compiled with -gsplit-dwarf: every address of theirs has the chain that llvm-symbolizer
 * gives it, and that the same code has when it is compiled without; and what becomes of it when the
 * .dwo files are not what they should be.
 */
#include "scratch.h"

#include "symbol/symbolizer.h"

#include <ctype.h>
#include <sys/inotify.h>

#define LEVELS	      32
#define ADDRESSES_MAX 60000
#define POSITION_MAX  65536

static const char shop[] =
	"#include \"shop.h\"\n"
	"#include <algorithm>\n"
	"namespace shop {\n"
	"namespace { __attribute__((noinline)) int hidden(int n) { return std::max(n, 3); } }\n"
	"double till::add(const item &i)\n"
	"{\n"
	"	sold[i.name] = std::make_shared<item>(i);\n"
	"	double sum = hidden(sold.size());\n"
	"	for (auto &s : sold)\n"
	"		sum += s.second->price + s.first.size();\n"
	"	if (sum > 100000)\n"
	"		throw std::runtime_error(\"too much: \" + std::to_string(sum));\n"
	"	return sum;\n"
	"}\n"
	"void sort(std::vector<item> &items)\n"
	"{\n"
	"	std::sort(items.begin(), items.end(),\n"
	"		  [](auto &a, auto &b) { return a.price < b.price; });\n"
	"}\n"
	"}\n";

static const char shop_header[] =
	"#include <map>\n"
	"#include <memory>\n"
	"#include <stdexcept>\n"
	"#include <string>\n"
	"#include <vector>\n"
	"namespace shop {\n"
	"struct item { std::string name; double price; };\n"
	"class till {\n"
	"	std::map<std::string, std::shared_ptr<item>> sold;\n"
	"public:\n"
	"	virtual ~till() {}\n"
	"	virtual double add(const item &i);\n"
	"};\n"
	"void sort(std::vector<item> &items);\n"
	"template <typename T> struct shelf {\n"
	"	std::vector<T> items;\n"
	"	void put(T x) { items.push_back(std::move(x)); }\n"
	"	template <typename F> void each(F f) { for (auto &i : items) f(i); }\n"
	"};\n"
	"}\n"
	"extern \"C\" void *site(int n);\n";

static const char main_program[] =
	"#include \"shop.h\"\n"
	"#include <cstdlib>\n"
	"int main(int argc, char **argv)\n"
	"{\n"
	"	struct local { int operator()(int x) const { return rand() + x; } };\n"
	"	shop::shelf<shop::item> shelf;\n"
	"	for (int i = 0; i < argc + 3; i++)\n"
	"		shelf.put({std::string(argv[0]) + std::to_string(i), i * 1.5});\n"
	"	shop::sort(shelf.items);\n"
	"	shop::till till;\n"
	"	double sum = local()(argc);\n"
	"	try {\n"
	"		shelf.each([&](shop::item &i) { sum += till.add(i); });\n"
	"	} catch (const std::exception &e) {\n"
	"		return e.what()[0];\n"
	"	}\n"
	"	free(site(argc));\n"
	"	return sum > 1000;\n"
	"}\n";

/* In a folder, and with a path of its own. */
static const char site_program[] =
	"#include <stdlib.h>\n"
	"static inline __attribute__((always_inline)) void *grab(size_t n)\n"
	"{\n"
	"	void *p = malloc(n);\n"
	"	__asm__ volatile(\"\" : \"+r\"(p));\n"
	"	return p;\n"
	"}\n"
	"static inline __attribute__((always_inline)) void *grab_two(size_t n)\n"
	"{\n"
	"	void *p = grab(n);\n"
	"	free(grab(n + 1));\n"
	"	return p;\n"
	"}\n"
	"static __attribute__((noinline)) void refuse(int n)\n"
	"{\n"
	"	if (!getenv(\"ALLOCTRACE\"))\n"
	"		exit(n);\n"
	"	abort();\n"
	"}\n"
	"void *site(int n)\n"
	"{\n"
	"	if (__builtin_expect(n < 0, 0))\n"
	"		refuse(n);\n"
	"	if (n > 3) {\n"
	"		size_t m = n;\n"
	"		return grab_two(m * 2);\n"
	"	}\n"
	"	return grab(n);\n"
	"}\n";

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	run("mkdir src");
	write_text("shop.h", shop_header);
	write_text("shop.cc", shop);
	write_text("main.cc", main_program);
	write_text("src/site.c", site_program);
	return 0;
}

/* Compiles the three files into `program`, with either compiler; each object beside its .dwo. */
static void build(const char *program, const char *c, const char *cxx, const char *flags)
{
	run("rm -rf %s.d %s && mkdir %s.d", program, program, program);
	run("%s %s -c shop.cc -o %s.d/shop.o", cxx, flags, program);
	run("%s %s -c $PWD/main.cc -o %s.d/main.o", cxx, flags, program);
	run("cd src && %s %s -c site.c -o ../%s.d/site.o", c, flags, program);
	run("%s %s %s.d/*.o -o %s", cxx, flags, program, program);
}

static struct symbolizer *new_symbolizer(void)
{
	struct symbolizer_options options = {.no_demangle = true};
	struct symbolizer *symbolizer = NULL;

	assert_int_equal(symbolizer_new(&options, &symbolizer), 0);
	return symbolizer;
}

static uint64_t address_of(const char *program, const char *symbol)
{
	unsigned long vaddr = 0;
	char *text;
	size_t size;

	run("nm %s | awk '$3 == \"%s\" {print $1}' > address", program, symbol);
	text = read_file("address", &size);
	assert_int_equal(sscanf(text, "%lx", &vaddr), 1);
	free(text);
	return vaddr;
}

/* Every address of every function that nm knows a size of. */
static uint64_t addresses[ADDRESSES_MAX];
static size_t address_count;

static void list_addresses(const char *program)
{
	FILE *f, *list;
	unsigned long vaddr, size;

	address_count = 0;
	run("nm -S %s | awk 'NF == 4 && $3 ~ /[tTwW]/ {print $1, $2}' > sizes", program);
	f = fopen(in_scratch("sizes"), "r");
	list = fopen(in_scratch("addresses"), "w");
	assert_non_null(f);
	assert_non_null(list);
	while (fscanf(f, "%lx %lx", &vaddr, &size) == 2) {
		for (unsigned long i = 0; i < size && address_count < ADDRESSES_MAX; i++) {
			addresses[address_count++] = vaddr + i;
			fprintf(list, "%#lx\n", vaddr + i);
		}
	}
	fclose(f);
	fclose(list);
	assert_in_range(address_count, 1000, ADDRESSES_MAX - 1);
}

/* --- against llvm-symbolizer --- */

/* Paths may differ in ./ and ../ only. */
static bool same_path(const char *a, const char *b)
{
	char real_a[PATH_MAX], real_b[PATH_MAX];

	return !strcmp(a, b) ||
	       (realpath(a, real_a) && realpath(b, real_b) && !strcmp(real_a, real_b));
}

/* position: file:line, perhaps with a discriminator; ??:0 and file:? for what is not known. */
static void assert_level_is(const struct symbol_frame *frame, bool physical, uint64_t vaddr,
			    const char *name, char *position)
{
	char *colon = strrchr(position, ':');
	unsigned int line;

	assert_non_null(colon);
	line = isdigit((unsigned char)colon[1]) ? (unsigned int)atoi(colon + 1) : 0;
	*colon = 0;
	/* For the physical function, LLVM prefers the symbol: another alias, or with .isra.0. */
	if ((!physical && strcmp(frame->system_name, name) != 0) || frame->line != line ||
	    (line && !same_path(frame->file, position)))
		fail_msg("%#lx: %s %s:%u, but it should be %s %s:%u", vaddr, frame->system_name,
			 frame->file, frame->line, name, position, line);
}

static size_t compared, compared_inlined;

static void compare_with_llvm(const char *program)
{
	static char name[POSITION_MAX], position[POSITION_MAX];
	struct symbolizer *symbolizer = new_symbolizer();
	struct image *image = open_image(program);
	size_t inlined = 0;
	FILE *f;

	run("llvm-symbolizer --output-style=GNU --no-demangle -a -f -i -e %s < addresses > "
	    "answers",
	    program);
	f = fopen(in_scratch("answers"), "r");
	assert_non_null(f);
	assert_non_null(fgets(name, sizeof(name), f));
	for (size_t i = 0; i < address_count; i++) {
		struct symbol_frame frames[LEVELS];
		int levels = symbolizer_resolve(symbolizer, image, addresses[i], frames, LEVELS),
		    level;

		assert_int_equal(strtoul(name, NULL, 16), addresses[i]);
		assert_true(levels > 0);
		inlined += levels > 1;
		for (level = 0; fgets(name, sizeof(name), f) && strncmp(name, "0x", 2); level++) {
			assert_non_null(fgets(position, sizeof(position), f));
			name[strcspn(name, "\n")] = 0;
			if (level < levels)
				assert_level_is(&frames[level], level == levels - 1, addresses[i],
						name, position);
		}
		if (level != levels)
			fail_msg("%#lx: %d levels, but it should be %d", addresses[i], levels,
				 level);
	}
	fclose(f);
	symbolizer_free(symbolizer);
	image_free(image);
	assert_true(inlined > 20);
	compared += address_count;
	compared_inlined += inlined;
}

/* --- against the same code, compiled without -gsplit-dwarf --- */

static void compare_programs(const char *split, const char *whole)
{
	struct symbolizer *symbolizer = new_symbolizer();
	struct image *a = open_image(split), *b = open_image(whole);
	struct symbol_source source;

	for (size_t i = 0; i < address_count; i++) {
		struct symbol_frame x[LEVELS], y[LEVELS];
		int levels = symbolizer_resolve(symbolizer, a, addresses[i], x, LEVELS);

		assert_int_equal(symbolizer_resolve(symbolizer, b, addresses[i], y, LEVELS),
				 levels);
		for (int j = 0; j < levels; j++) {
			assert_string_equal(x[j].system_name, y[j].system_name);
			assert_string_equal(x[j].file, y[j].file);
			assert_int_equal(x[j].line, y[j].line);
			assert_int_equal(x[j].start_line, y[j].start_line);
		}
	}
	symbolizer_source(symbolizer, a, &source);
	assert_int_equal(source.split_missing, 0);
	assert_int_equal(source.split_stale, 0);
	symbolizer_free(symbolizer);
	image_free(a);
	image_free(b);
}

/* LLVM 14 does not find a unit behind type units in sections of their own, as gcc writes them. */
static bool is_read_by_llvm(const char *c, const char *flags)
{
	return have("llvm-symbolizer") &&
	       (strcmp(c, "gcc") != 0 || !strstr(flags, "-fdebug-types-section"));
}

static void build_and_compare(const char *c, const char *cxx, const char *flags, const char *split)
{
	char with[256];

	if (!have(c) || !have(cxx))
		return;
	snprintf(with, sizeof(with), "%s %s", flags, split);
	build("split", c, cxx, with);
	list_addresses("split");
	if (is_read_by_llvm(c, flags))
		compare_with_llvm("split");
	build("whole", c, cxx, flags);
	run("nm -S split | grep -v ' [bBdDrR] ' > a && nm -S whole | grep -v ' [bBdDrR] ' > b && "
	    "cmp a b");
	compare_programs("split", "whole");
}

static void chains_are_those_of_llvm_and_of_whole_units(void **state)
{
	static const char *const formats[] = {"-g -gdwarf-4", "-g -gdwarf-5"};
	char flags[128];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		snprintf(flags, sizeof(flags), "%s -O2", formats[i]);
		build_and_compare("gcc", "g++", flags, "-gsplit-dwarf");
		build_and_compare("clang", "clang++", flags, "-gsplit-dwarf");
	}
	snprintf(flags, sizeof(flags), "%s -O2 -ffunction-sections -gz", formats[1]);
	build_and_compare("gcc", "g++", flags, "-gsplit-dwarf");
	/* Both halves in the object file. */
	build_and_compare("clang", "clang++", flags, "-gsplit-dwarf=single");
	build_and_compare("gcc", "g++", "-g -O1 -no-pie -fdebug-types-section -gz",
			  "-gsplit-dwarf");
	build_and_compare("clang", "clang++", "-g -O1 -fdebug-types-section", "-gsplit-dwarf");
	print_message("%zu addresses, %zu of them in inlined calls\n", compared, compared_inlined);
}

/* --- .dwo files that are not there, or not what they should be --- */

/* Resolves the call to malloc in site(), inlined or not, and tells what became of its .dwo file. */
static void assert_site(const char *program, int levels, uint32_t missing, uint32_t stale)
{
	struct symbolizer *symbolizer = new_symbolizer();
	struct image *image = open_image(program);
	uint64_t start = address_of(program, "site");
	struct symbol_frame frames[LEVELS];
	struct symbol_source source;
	int most = 0;

	for (uint64_t at = start; at < start + 64; at++) {
		int found = symbolizer_resolve(symbolizer, image, at, frames, LEVELS);

		if (found > most)
			most = found;
		if (at > start)
			continue;
		assert_string_equal(frames[0].system_name, "site");
		assert_string_equal(strrchr(frames[0].file, '/'), "/site.c");
		assert_int_equal(frames[0].line, 21);
		assert_int_equal(frames[0].start_line, levels > 1 ? 20 : 0);
	}
	assert_int_equal(most, levels);
	symbolizer_source(symbolizer, image, &source);
	assert_true(source.has_functions && source.has_lines);
	assert_int_equal(source.split_missing, missing);
	assert_int_equal(source.split_stale, stale);
	symbolizer_free(symbolizer);
	image_free(image);
}

static void a_file_that_is_missing_is_counted(void **state)
{
	(void)state;
	for (int version = 4; version <= 5; version++) {
		char flags[64];

		snprintf(flags, sizeof(flags), "-O2 -g -gdwarf-%d -gsplit-dwarf", version);
		build("split", "gcc", "g++", flags);
		assert_site("split", 3, 0, 0);
		run("mv split.d/site.dwo kept.dwo");
		assert_site("split", 1, 1, 0);

		/* Beside the image: by its name alone, and as it is named. */
		run("rm -rf moved && mkdir moved && cp split moved/ && cp kept.dwo moved/site.dwo");
		assert_site("moved/split", 3, 0, 0);
		run("rm -rf moved && mkdir -p moved/bin moved/split.d && "
		    "cp split moved/bin/ && cp kept.dwo moved/split.d/site.dwo");
		assert_site("moved/bin/split", 3, 0, 0);
	}
}

static void a_file_of_another_compilation_is_not_used(void **state)
{
	(void)state;
	for (int version = 4; version <= 5; version++) {
		char flags[64];

		snprintf(flags, sizeof(flags), "-O2 -g -gdwarf-%d -gsplit-dwarf", version);
		build("split", "gcc", "g++", flags);
		run("sed 's/n > 3/n > 4/' src/site.c > src/new.c && gcc %s -c src/new.c -o new.o "
		    "&& "
		    "cp new.dwo split.d/site.dwo",
		    flags);
		assert_site("split", 1, 0, 1);
		/* Nor one of the other units, nor one without any. */
		run("cp split.d/main.dwo split.d/site.dwo");
		assert_site("split", 1, 0, 1);
		run("cp split.d/site.o split.d/site.dwo");
		assert_site("split", 1, 1, 0);
	}
}

/* How often the file of this name has been opened since inotify_add_watch(). */
static size_t opened(int watch)
{
	char events[4096] __attribute__((aligned(8)));
	ssize_t got = read(watch, events, sizeof(events));

	return got > 0 ? (size_t)got : 0;
}

static void nothing_but_a_regular_file_is_opened(void **state)
{
	static const char *const commands[] = {
		"mkfifo split.d/site.dwo",
		"mknod split.d/site.dwo c 1 3",
		"mkdir split.d/site.dwo",
		"ln -s site.dwo split.d/site.dwo",
	};

	(void)state;
	for (int version = 4; version <= 5; version++) {
		char flags[64];

		snprintf(flags, sizeof(flags), "-O2 -g -gdwarf-%d -gsplit-dwarf", version);
		build("split", "gcc", "g++", flags);
		for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
			int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

			run("rm -rf split.d/site.dwo");
			if (!try_run("%s", commands[i]))
				continue; /* a device, where that is not allowed */
			if (i < 2)
				assert_true(inotify_add_watch(watch, in_scratch("split.d/site.dwo"),
							      IN_OPEN) >= 0);
			alarm(60);
			assert_site("split", 1, 1, 0);
			alarm(0);
			assert_int_equal(opened(watch), 0);
			close(watch);
		}
		run("rm -rf split.d/site.dwo");
	}
}

/* The first 64 bytes of site(), in the program as it is, with one of its two files damaged. */
static size_t resolve_damaged(const char *file, const char *program, bool *whole)
{
	uint64_t start = address_of("split", "site");
	size_t size, inlined = 0;
	char *bytes;

	run("cp %s kept", file);
	bytes = read_file("kept", &size);
	*whole = true;
	for (unsigned int i = 0; i < 400; i++) {
		struct symbolizer *symbolizer = new_symbolizer();
		struct symbol_frame frames[LEVELS];
		struct image *image = NULL;

		write_damaged(bytes, size, i);
		assert_int_equal(rename(in_scratch("broken"), in_scratch(file)), 0);
		if (try_open(in_scratch(program), &image) == 0) {
			struct symbol_source source;

			for (uint64_t at = start; at < start + 64; at++)
				inlined += symbolizer_resolve(symbolizer, image, at, frames,
							      LEVELS) > 1;
			symbolizer_source(symbolizer, image, &source);
			*whole &= !source.split_missing && !source.split_stale;
		}
		symbolizer_free(symbolizer);
		image_free(image);
	}
	run("mv kept %s", file);
	free(bytes);
	return inlined;
}

static void damaged_files_do_no_harm(void **state)
{
	(void)state;
	for (int version = 4; version <= 5; version++) {
		char flags[64];
		bool whole;

		/* Small, so that the damage is where it is looked at. */
		snprintf(flags, sizeof(flags), "-O2 -g -gdwarf-%d -gsplit-dwarf", version);
		run("rm -rf split.d && mkdir split.d && "
		    "gcc %s -c src/site.c -o split.d/site.o && "
		    "gcc -shared split.d/site.o -o split",
		    flags);
		assert_site("split", 3, 0, 0);
		assert_in_range(resolve_damaged("split.d/site.dwo", "split", &whole), 1000,
				64 * 400);
		assert_false(whole);
		assert_in_range(resolve_damaged("split", "split", &whole), 1000, 64 * 400);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains_are_those_of_llvm_and_of_whole_units),
		cmocka_unit_test(a_file_that_is_missing_is_counted),
		cmocka_unit_test(a_file_of_another_compilation_is_not_used),
		cmocka_unit_test(nothing_but_a_regular_file_is_opened),
		cmocka_unit_test(damaged_files_do_no_harm),
	};

	return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
