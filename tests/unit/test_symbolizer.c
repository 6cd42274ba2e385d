/* Names, files and lines of every address of compiled programs, compared with addr2line. */
#include "scratch.h"

#include "symbol/symbolizer.h"

#include <ctype.h>
#include <errno.h>

#define LEVELS	      32
#define ADDRESSES_MAX 20000
#define POSITION_MAX  65536

static const char c_program[] =
	"#include <stdlib.h>\n"
	"#include <stdio.h>\n"
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
	"static __attribute__((noinline)) void *site(int n)\n"
	"{\n"
	"	if (n > 3) {\n"
	"		size_t m = n;\n"
	"		return grab_two(m * 2);\n"
	"	}\n"
	"	return grab(n);\n"
	"}\n"
	"__attribute__((noinline)) void visible(int n)\n"
	"{\n"
	"	for (int i = 0; i < n; i++)\n"
	"		free(site(i));\n"
	"}\n"
	"int main(int argc, char **argv)\n"
	"{\n"
	"	(void)argv;\n"
	"	visible(argc);\n"
	"	free(grab_two(argc));\n"
	"	puts(\"done\");\n"
	"	return 0;\n"
	"}\n";

static const char cxx_program[] =
	"#include <algorithm>\n"
	"#include <map>\n"
	"#include <memory>\n"
	"#include <string>\n"
	"#include <vector>\n"
	"namespace shop {\n"
	"struct item { std::string name; double price; };\n"
	"template <typename T> struct shelf {\n"
	"	std::vector<T> items;\n"
	"	void put(T x) { items.push_back(std::move(x)); }\n"
	"	template <typename F> void each(F f) { for (auto &i : items) f(i); }\n"
	"};\n"
	"namespace { __attribute__((noinline)) int hidden(int n) { return std::max(n, 3); } }\n"
	"class till {\n"
	"	std::map<std::string, std::shared_ptr<item>> sold;\n"
	"public:\n"
	"	virtual ~till() {}\n"
	"	virtual double add(const item &i)\n"
	"	{\n"
	"		sold[i.name] = std::make_shared<item>(i);\n"
	"		double sum = 0;\n"
	"		for (auto &s : sold)\n"
	"			sum += s.second->price + s.first.size();\n"
	"		return sum;\n"
	"	}\n"
	"};\n"
	"}\n"
	"int main(int argc, char **argv)\n"
	"{\n"
	"	struct local { int operator()(int x) const { return shop::hidden(x) + 1; } };\n"
	"	shop::shelf<shop::item> shelf;\n"
	"	for (int i = 0; i < argc + 3; i++)\n"
	"		shelf.put({std::string(argv[0]) + std::to_string(i), i * 1.5});\n"
	"	std::sort(shelf.items.begin(), shelf.items.end(),\n"
	"		  [](auto &a, auto &b) { return a.price < b.price; });\n"
	"	shop::till till;\n"
	"	double sum = local()(argc);\n"
	"	shelf.each([&](shop::item &i) { sum += till.add(i); });\n"
	"	return sum > 1000;\n"
	"}\n";

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	write_text("c.c", c_program);
	write_text("cxx.cc", cxx_program);
	return 0;
}

static struct symbolizer *new_symbolizer(bool no_demangle)
{
	struct symbolizer_options options = {.no_demangle = no_demangle};
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

/* --- against addr2line --- */

/* Lists every address of every function that nm knows a size of. */
static size_t list_addresses(const char *program, uint64_t *addresses)
{
	FILE *f, *list;
	unsigned long vaddr, size;
	size_t count = 0;

	run("nm -S %s | awk 'NF == 4 && $3 ~ /[tTwW]/ {print $1, $2}' > sizes", program);
	f = fopen(in_scratch("sizes"), "r");
	list = fopen(in_scratch("addresses"), "w");
	assert_non_null(f);
	assert_non_null(list);
	while (fscanf(f, "%lx %lx", &vaddr, &size) == 2) {
		for (unsigned long i = 0; i < size && count < ADDRESSES_MAX; i++) {
			addresses[count++] = vaddr + i;
			fprintf(list, "%#lx\n", vaddr + i);
		}
	}
	fclose(f);
	fclose(list);
	return count;
}

/* Paths may differ in ./ and ../ only. */
static bool same_path(const char *a, const char *b)
{
	char real_a[PATH_MAX], real_b[PATH_MAX];

	return !strcmp(a, b) ||
	       (realpath(a, real_a) && realpath(b, real_b) && !strcmp(real_a, real_b));
}

/* LLVM prefers the symbol for the physical function: another alias, or with .isra.0 at its end. */
static bool other_aliases;

/*
 * Where the DWARF has a bare name only, we take the symbol for the physical function: "hidden" is
 * _ZN4shop12_GLOBAL__N_16hiddenEi. addr2line does so for the innermost level, and there even if
 * that is an inlined call, to which the symbol does not belong.
 */
static bool same_name(const struct symbol_frame *frames, int level, int levels,
		      const char *expected)
{
	const char *actual = frames[level].system_name, *physical = frames[levels - 1].system_name;

	if (!strcmp(actual, expected) || (other_aliases && level == levels - 1))
		return true;
	if (other_aliases)
		return false;
	if (level == 0 && levels > 1 && !strncmp(expected, physical, strlen(physical)))
		return true;
	return level == levels - 1 && !strncmp(actual, "_Z", 2) && strncmp(expected, "_Z", 2) &&
	       strstr(actual, expected);
}

/* position: file:line, with ? and ?? for what is not known, and perhaps a discriminator. */
static void assert_level_is(const struct symbol_frame *frames, int level, int levels,
			    uint64_t vaddr, const char *name, char *position)
{
	const struct symbol_frame *frame = &frames[level];
	char *colon = strrchr(position, ':');
	unsigned int line;

	assert_non_null(colon);
	line = isdigit((unsigned char)colon[1]) ? (unsigned int)atoi(colon + 1) : 0;
	*colon = 0;
	if (!same_name(frames, level, levels, name) || frame->line != line ||
	    (line && !same_path(frame->file, position)))
		fail_msg("%#lx: %s %s:%u, but it should be %s %s:%u", vaddr, frame->system_name,
			 frame->file, frame->line, name, position, line);
}

static size_t compared, compared_inlined;

/* All addresses of a program. The number of those that have more than one level. */
static size_t compare_with(const char *tool, const char *program)
{
	static uint64_t addresses[ADDRESSES_MAX];
	static char name[POSITION_MAX], position[POSITION_MAX];
	struct symbolizer *symbolizer = new_symbolizer(true);
	struct image *image = open_image(program);
	size_t count = list_addresses(program, addresses), inlined = 0;
	FILE *f;

	assert_true(count > 100);
	run("%s -a -f -i -e %s < addresses > answers", tool, program);
	f = fopen(in_scratch("answers"), "r");
	assert_non_null(f);
	assert_non_null(fgets(name, sizeof(name), f));
	for (size_t i = 0; i < count; i++) {
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
				assert_level_is(frames, level, levels, addresses[i], name,
						position);
		}
		if (level != levels)
			fail_msg("%#lx: %d levels, but it should be %d", addresses[i], levels,
				 level);
	}
	assert_true(feof(f));
	fclose(f);
	symbolizer_free(symbolizer);
	image_free(image);
	compared += count;
	compared_inlined += inlined;
	return inlined;
}

static void compile_and_compare(const char *compiler, const char *source, const char *flags)
{
	size_t inlined;

	if (!have(compiler))
		return;
	run("%s %s -o program $PWD/%s", compiler, flags, source);
	/*
	 * binutils 2.40 takes file 1 of a DWARF 5 table for file 0, which are the same in what gcc
	 * writes alone, and misses inlined calls with several ranges in what clang writes.
	 */
	if (!strstr(flags, "-flto") &&
	    (strncmp(compiler, "clang", 5) || !strstr(flags, "-gdwarf-5"))) {
		inlined = compare_with("addr2line", "program");
		assert_true(inlined > 0);
	}
	if (have("llvm-symbolizer")) {
		other_aliases = true;
		inlined =
			compare_with("llvm-symbolizer --output-style=GNU --no-demangle", "program");
		assert_true(inlined > 0);
		other_aliases = false;
	}
}

static void chains_are_those_of_addr2line(void **state)
{
	static const char *const formats[] = {"-g -gdwarf-4", "-g -gdwarf-5"};
	char flags[64];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		compile_and_compare("gcc", "c.c", formats[i]);
		compile_and_compare("clang", "c.c", formats[i]);
		snprintf(flags, sizeof(flags), "%s -O2", formats[i]);
		compile_and_compare("gcc", "c.c", flags);
		compile_and_compare("clang", "c.c", flags);
		compile_and_compare("g++", "cxx.cc", flags);
		compile_and_compare("clang++", "cxx.cc", flags);
	}
	compile_and_compare("g++", "cxx.cc", "-g -O2 -ffunction-sections -Wl,--gc-sections");
	compile_and_compare("gcc", "c.c", "-g -O2 -gz=zlib");
	compile_and_compare("gcc", "c.c", "-g -O2 -flto");
	compile_and_compare("gcc", "c.c", "-g -O2 -no-pie");
	print_message("%zu addresses, %zu of them in inlined calls\n", compared, compared_inlined);
}

/* --- the one address that matters: a call in inlined code --- */

static void assert_grab_chain(const char *program)
{
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct image *image = open_image(program);
	uint64_t start = address_of(program, "main");
	struct symbol_frame frames[LEVELS];
	bool found = false;

	for (uint64_t at = start; at < start + 200 && !found; at++) {
		int levels = symbolizer_resolve(symbolizer, image, at, frames, LEVELS);

		found = levels == 3 && !strcmp(frames[0].name, "grab") && frames[0].line == 5 &&
			frames[0].start_line == 3 && !strcmp(frames[1].name, "grab_two") &&
			frames[1].line == 11 && frames[1].start_line == 9 &&
			!strcmp(frames[2].name, "main") && frames[2].line == 32 &&
			frames[2].start_line == 28;
		if (found)
			assert_int_equal(symbolizer_resolve(symbolizer, image, at, frames, 1), 1);
	}
	assert_true(found);
	assert_string_equal(frames[0].name, "grab");
	assert_string_equal(strrchr(frames[0].file, '/'), "/c.c");
	symbolizer_free(symbolizer);
	image_free(image);
}

static void inlined_calls_are_levels_of_their_own(void **state)
{
	(void)state;
	run("gcc -O2 -g -gdwarf-4 -o four c.c && gcc -O2 -g -gdwarf-5 -o five c.c");
	assert_grab_chain("four");
	assert_grab_chain("five");
}

static void sources_are_told_apart(void **state)
{
	static const struct {
		const char *program;
		bool functions, lines;
	} cases[] = {{"full", true, true}, {"plain", true, false}, {"bare", false, false}};
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct symbol_source source;
	struct image *images[3];

	(void)state;
	run("gcc -O2 -g -o full c.c && gcc -O2 -o plain c.c && gcc -O2 -s -o bare c.c");
	for (size_t i = 0; i < 3; i++) {
		images[i] = open_image(cases[i].program);
		symbolizer_source(symbolizer, images[i], &source);
		assert_int_equal(source.has_functions, cases[i].functions);
		assert_int_equal(source.has_lines, cases[i].lines);
		assert_int_equal(source.has_inlines, cases[i].lines);
	}
	symbolizer_free(symbolizer);
	for (size_t i = 0; i < 3; i++)
		image_free(images[i]);
}

/* --- symbols only --- */

/* The name at an address, "" for none; checks that there is nothing but a name. */
static const char *name_at(struct symbolizer *symbolizer, struct image *image, uint64_t vaddr)
{
	struct symbol_frame frames[LEVELS];
	int levels = symbolizer_resolve(symbolizer, image, vaddr, frames, LEVELS);

	if (!levels)
		return "";
	assert_int_equal(levels, 1);
	assert_string_equal(frames[0].file, "");
	assert_int_equal(frames[0].line, 0);
	return frames[0].name;
}

static void without_debug_information_there_are_symbols(void **state)
{
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct image *image;
	uint64_t site;

	(void)state;
	run("gcc -O2 -shared -fPIC -o lib.so c.c");
	site = address_of("lib.so", "site");
	image = open_image("lib.so");
	assert_string_equal(name_at(symbolizer, image, site + 2), "site");
	assert_string_equal(name_at(symbolizer, image, address_of("lib.so", "main")), "main");
	symbolizer_free(symbolizer);
	image_free(image);
}

static void a_stripped_function_does_not_take_its_neighbours_name(void **state)
{
	struct symbolizer *symbolizer = new_symbolizer(false);
	uint64_t site, visible;
	struct image *image;

	(void)state;
	run("gcc -O2 -shared -fPIC -o lib.so c.c && strip -o stripped.so lib.so");
	site = address_of("lib.so", "site");
	visible = address_of("lib.so", "visible");
	image = open_image("stripped.so");
	assert_string_equal(name_at(symbolizer, image, visible), "visible");
	assert_string_equal(name_at(symbolizer, image, site), "");
	assert_string_equal(name_at(symbolizer, image, site + 3), "");
	assert_string_equal(name_at(symbolizer, image, 1), "");
	assert_string_equal(name_at(symbolizer, image, UINT64_MAX), "");
	symbolizer_free(symbolizer);
	image_free(image);
}

/* Every stub that objdump names, at its first and last byte; their number. */
static int compare_stubs(const char *program)
{
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct image *image = open_image(program);
	unsigned long vaddr;
	char name[64];
	int count = 0;
	FILE *labels;

	run("objdump -d %s | sed -n 's/^\\([0-9a-f]*\\) <\\(.*@plt\\)>:$/\\1 \\2/p' > labels",
	    program);
	labels = fopen(in_scratch("labels"), "r");
	assert_non_null(labels);
	while (fscanf(labels, "%lx %63s", &vaddr, name) == 2) {
		assert_string_equal(name_at(symbolizer, image, vaddr), name);
		assert_string_equal(name_at(symbolizer, image, vaddr + 7), name);
		count++;
	}
	fclose(labels);
	symbolizer_free(symbolizer);
	image_free(image);
	return count;
}

static void entries_of_the_linkage_table_are_named_by_where_they_lead(void **state)
{
	static const char *const flags[] = {
		"",
		"-fcf-protection -Wl,-z,ibtplt",
		"-Wl,-z,now",
		"-no-pie -fno-pie",
		"-fuse-ld=lld -Wl,-z,lazy",
	};

	(void)state;
	write_text("calls.c", "#include <stdio.h>\n#include <stdlib.h>\n"
			      "int main(int argc, char **argv) {\n"
			      "\tvoid *(*volatile get)(size_t) = malloc;\n"
			      "\tchar *p = realloc(get(argc), 100);\n"
			      "\tsnprintf(p, 100, \"%%s\", argv[0]); puts(p); free(p);\n"
			      "\treturn atexit(abort) + malloc(7) != 0; }\n");
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		run("gcc -w -O1 %s -o calls calls.c && strip calls", flags[i]);
		assert_true(compare_stubs("calls") >= 5);
	}
}

static void symbols_without_a_size_end_with_the_next_or_the_section(void **state)
{
	static const char source[] = ".section .first, \"ax\"\n"
				     ".type a, @function\n.globl a\na: .skip 16, 0x90\n"
				     ".type b, @function\n.globl b\nb: .skip 16, 0x90\n.size b, 8\n"
				     ".section .second, \"ax\"\n.skip 64, 0x90\n"
				     ".type c, @function\n.globl c\nc: .skip 16, 0x90\n"
				     ".section .third, \"ax\"\n.skip 16, 0x90\n"
				     ".section .note.GNU-stack, \"\"\n";
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct image *image;
	uint64_t a, b, c;

	(void)state;
	write_text("sizes.s", source);
	run("gcc -shared -nostdlib -o sizes.so sizes.s");
	a = address_of("sizes.so", "a");
	b = address_of("sizes.so", "b");
	c = address_of("sizes.so", "c");
	image = open_image("sizes.so");
	assert_string_equal(name_at(symbolizer, image, a - 1), "");
	assert_string_equal(name_at(symbolizer, image, a), "a");
	assert_string_equal(name_at(symbolizer, image, a + 15), "a");
	assert_string_equal(name_at(symbolizer, image, b + 7), "b");
	assert_string_equal(name_at(symbolizer, image, b + 8), "");
	assert_string_equal(name_at(symbolizer, image, c - 1), "");
	assert_string_equal(name_at(symbolizer, image, c + 15), "c");
	assert_string_equal(name_at(symbolizer, image, c + 16), "");
	symbolizer_free(symbolizer);
	image_free(image);
}

static const char alias_program[] =
	"void *__libc_malloc(unsigned long n) { return (void *)n; }\n"
	"extern __typeof(__libc_malloc) malloc __attribute__((alias(\"__libc_malloc\")));\n"
	"static __typeof(__libc_malloc) a __attribute__((alias(\"__libc_malloc\"), "
	"used));\n"
	"int __write(int fd) { return fd; }\n"
	"extern __typeof(__write) write __attribute__((weak, alias(\"__write\")));\n"
	"int strong(int x) { return -x; }\n"
	"extern __typeof(strong) soft __attribute__((weak, alias(\"strong\")));\n";

static void a_symbol_without_a_size_ends_where_a_stripped_function_begins(void **state)
{
	static const char source[] =
		"asm(\".globl bare\\n.type bare, @function\\nbare: .skip 40, 0x90\\nret\\n\");\n"
		"static __attribute__((noinline, used)) int hidden(int x) { return x * 3; }\n"
		"asm(\".globl told\\n.type told, @function\\ntold: .cfi_startproc\\n.skip 40, "
		"0x90\\n\"\n"
		"    \"ret\\n.cfi_endproc\\n\");\n"
		"static __attribute__((noinline, used)) int other(int x) { return x * 5; }\n";
	struct symbolizer *symbolizer = new_symbolizer(false);
	uint64_t bare, hidden, told, other;
	struct image *image;

	(void)state;
	write_text("bare.c", source);
	run("gcc -O1 -fno-toplevel-reorder -shared -fPIC -o bare.so bare.c && strip -o "
	    "bare-stripped.so "
	    "bare.so");
	bare = address_of("bare.so", "bare");
	hidden = address_of("bare.so", "hidden");
	told = address_of("bare.so", "told");
	other = address_of("bare.so", "other");
	assert_true(bare < hidden && hidden < told && told < other);
	image = open_image("bare-stripped.so");
	assert_string_equal(name_at(symbolizer, image, bare + 20), "bare");
	assert_string_equal(name_at(symbolizer, image, hidden), "");
	assert_string_equal(name_at(symbolizer, image, hidden + 2), "");
	assert_string_equal(name_at(symbolizer, image, told + 20), "told");
	assert_string_equal(name_at(symbolizer, image, other + 2), "");
	symbolizer_free(symbolizer);
	image_free(image);
}

static void of_several_names_the_usual_one_is_shown(void **state)
{
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct image *image;

	(void)state;
	write_text("alias.c", alias_program);
	run("gcc -w -O2 -fno-builtin -shared -fPIC -o alias.so alias.c");
	image = open_image("alias.so");
	assert_string_equal(name_at(symbolizer, image, address_of("alias.so", "malloc")), "malloc");
	assert_string_equal(name_at(symbolizer, image, address_of("alias.so", "__write")), "write");
	assert_string_equal(name_at(symbolizer, image, address_of("alias.so", "soft")), "strong");
	symbolizer_free(symbolizer);
	image_free(image);
}

/* The function at an address, which has a line. */
static const char *function_at(struct symbolizer *symbolizer, struct image *image, uint64_t vaddr)
{
	struct symbol_frame frames[LEVELS];

	assert_int_equal(symbolizer_resolve(symbolizer, image, vaddr, frames, LEVELS), 1);
	assert_true(frames[0].line > 0);
	return frames[0].name;
}

/* Also at addresses within. But a clone has its function's name. */
static void the_usual_name_is_the_same_with_debug_information(void **state)
{
	static const char clones[] =
		"__attribute__((noinline)) static int twice(int x, int how)\n"
		"{ return how ? x * 2 : -x; }\n"
		"__attribute__((noinline, cold)) void give_up(void) { __builtin_trap(); }\n"
		"int ask(int x) { if (x < 0) { give_up(); give_up(); } return twice(x, 1); }\n";
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct image *image;

	(void)state;
	write_text("alias.c", alias_program);
	run("gcc -g -w -O2 -fno-builtin -shared -fPIC -o debug.so alias.c");
	image = open_image("debug.so");
	for (uint64_t i = 0; i < 3; i++) {
		assert_string_equal(
			function_at(symbolizer, image, address_of("debug.so", "malloc") + i),
			"malloc");
		assert_string_equal(
			function_at(symbolizer, image, address_of("debug.so", "__write") + i),
			"write");
		assert_string_equal(
			function_at(symbolizer, image, address_of("debug.so", "soft") + i),
			"strong");
	}
	image_free(image);
	symbolizer_free(symbolizer);
	symbolizer = new_symbolizer(false);
	write_text("clones.c", clones);
	run("gcc -g -O2 -fipa-cp-clone -shared -fPIC -o clones.so clones.c");
	image = open_image("clones.so");
	assert_string_equal(
		function_at(symbolizer, image, address_of("clones.so", "twice.constprop.0")),
		"twice");
	assert_string_equal(function_at(symbolizer, image, address_of("clones.so", "ask.cold")),
			    "ask");
	image_free(image);
	symbolizer_free(symbolizer);
}

/* What a build maps away from all paths: the root of its sources. */
static void paths_under_a_mapped_root_begin_there(void **state)
{
	static const struct {
		const char *function, *file, *file_with_dot;
	} cases[] = {{"beside", "app/a.c", "./app/a.c"},
		     {"below", NULL, "./app/sub/b.c"},
		     {"outside", "app/../lib/l.c", "./app/../lib/l.c"},
		     {"absolute", "lib/m.c", "./lib/m.c"}};

	(void)state;
	run("mkdir -p tree/lib tree/app/sub"
	    " && echo 'int beside(int x) { return x * 3; }' > tree/app/a.c"
	    " && echo 'int below(int x) { return x * 7; }' > tree/app/sub/b.c"
	    " && echo 'int outside(int x) { return x * 5; }' > tree/lib/l.c"
	    " && echo 'int absolute(int x) { return x * 6; }' > tree/lib/m.c");
	for (int i = 0; i < 4; i++) {
		struct symbolizer *symbolizer = new_symbolizer(false);
		bool dot = i % 2;
		struct image *image;

		run("root=$PWD/tree && cd tree/app && gcc -g -gdwarf-%d -O1 -shared -fPIC "
		    "-ffile-prefix-map=%s a.c sub/b.c ../lib/l.c $root/lib/m.c -o ../../mapped.so",
		    i < 2 ? 4 : 5, dot ? "$root=." : "$root/=");
		image = open_image("mapped.so");
		for (size_t j = 0; j < sizeof(cases) / sizeof(cases[0]); j++) {
			const char *file = dot ? cases[j].file_with_dot : cases[j].file;
			struct symbol_frame frame;

			if (!file)
				continue; /* cannot be told from one that begins at the root */
			assert_int_equal(
				symbolizer_resolve(symbolizer, image,
						   address_of("mapped.so", cases[j].function),
						   &frame, 1),
				1);
			assert_string_equal(frame.file, file);
		}
		symbolizer_free(symbolizer);
		image_free(image);
	}
}

static void names_are_readable_and_raw(void **state)
{
	struct symbolizer *symbolizer = new_symbolizer(false), *raw = new_symbolizer(true);
	struct symbol_frame frame;
	struct image *image;
	uint64_t vaddr;

	(void)state;
	run("g++ -O0 -g -o cxx cxx.cc && objcopy --strip-debug cxx cxx-plain");
	for (int i = 0; i < 2; i++) {
		const char *program = i ? "cxx-plain" : "cxx";

		vaddr = address_of(program, "_ZN4shop4till3addERKNS_4itemE");
		image = open_image(program);
		assert_int_equal(symbolizer_resolve(symbolizer, image, vaddr, &frame, 1), 1);
		assert_string_equal(frame.name, "shop::till::add");
		assert_string_equal(frame.system_name, "_ZN4shop4till3addERKNS_4itemE");
		assert_int_equal(frame.start_line, i ? 0 : 18);
		assert_int_equal(symbolizer_resolve(raw, image, vaddr, &frame, 1), 1);
		assert_string_equal(frame.name, "_ZN4shop4till3addERKNS_4itemE");
		image_free(image);
		/* By address: a new image may get the old one's. */
		symbolizer_free(symbolizer);
		symbolizer_free(raw);
		symbolizer = new_symbolizer(false);
		raw = new_symbolizer(true);
	}
	symbolizer_free(symbolizer);
	symbolizer_free(raw);
}

/* --- asked again --- */

/* Also where fewer levels are asked for first, and where there are none. */
static void answers_are_the_same_when_asked_again(void **state)
{
	struct symbolizer *once = new_symbolizer(false), *often = new_symbolizer(false);
	size_t several = 0, none = 0;
	struct image *image;
	uint64_t start;

	(void)state;
	run("gcc -O2 -g -o again c.c");
	image = open_image("again");
	start = address_of("again", "main");
	for (uint64_t at = start - 300; at < start + 300; at++) {
		struct symbol_frame right[LEVELS], frames[LEVELS];
		int levels = symbolizer_resolve(once, image, at, right, LEVELS);

		several += levels > 1;
		none += !levels;
		for (size_t max = 1; max <= 4; max++) {
			int found = symbolizer_resolve(often, image, at, frames, max);

			assert_int_equal(found, levels < (int)max ? levels : (int)max);
			for (int i = 0; i < found; i++) {
				assert_string_equal(frames[i].name, right[i].name);
				assert_string_equal(frames[i].file, right[i].file);
				assert_int_equal(frames[i].line, right[i].line);
				assert_int_equal(frames[i].start_line, right[i].start_line);
			}
		}
	}
	assert_true(several && none);
	symbolizer_free(once);
	symbolizer_free(often);
	image_free(image);
}

/* --- what could go wrong --- */

/* The linker leaves the DWARF of functions that it throws away, at address 0. */
static void functions_thrown_away_claim_no_address(void **state)
{
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct symbol_frame frames[LEVELS];
	struct image *image;
	uint64_t kept;

	(void)state;
	write_text("gc.c", "int gone(int x) { __asm__(\".skip 0x4000, 0x90\"); return x; }\n"
			   "__attribute__((noipa)) int kept(int x) { return x + 1; }\n"
			   "void _start(void) { volatile int x = kept(1); for (;;) x++; }\n");
	run("gcc -g -O1 -fno-inline -ffunction-sections -nostdlib -static -Wl,--gc-sections "
	    "-Wl,-Ttext-segment=0x1000 -o gc gc.c");
	kept = address_of("gc", "kept");
	assert_true(kept < 0x4000);
	image = open_image("gc");
	assert_int_equal(symbolizer_resolve(symbolizer, image, kept, frames, LEVELS), 1);
	assert_string_equal(frames[0].name, "kept");
	assert_int_equal(symbolizer_resolve(symbolizer, image, 16, frames, LEVELS), 0);
	symbolizer_free(symbolizer);
	image_free(image);
}

/* A function that is an instance of itself, and calls inlined into each other. */
static void cyclic_references_end(void **state)
{
	static const char source[] =
		".text\n.globl f\n.type f, @function\nf: .skip 16, 0x90\n.Lend:\n.size f, . - f\n"
		".section .debug_abbrev, \"\", @progbits\n"
		".uleb128 1\n.uleb128 0x11\n.byte 1\n" /* compile unit: low_pc, high_pc */
		".uleb128 0x11\n.uleb128 1\n.uleb128 0x12\n.uleb128 7\n.byte 0, 0\n"
		".uleb128 2\n.uleb128 0x2e\n.byte 1\n" /* subprogram: also abstract_origin */
		".uleb128 0x11\n.uleb128 1\n.uleb128 0x12\n.uleb128 7\n"
		".uleb128 0x31\n.uleb128 0x13\n.byte 0, 0\n"
		".uleb128 3\n.uleb128 0x1d\n.byte 1\n" /* inlined subroutine, the same,
							  specification */
		".uleb128 0x11\n.uleb128 1\n.uleb128 0x12\n.uleb128 7\n"
		".uleb128 0x47\n.uleb128 0x13\n.byte 0, 0\n.byte 0\n"
		".section .debug_info, \"\", @progbits\n.Lcu: .long .Lcu_end - "
		".Lcu_start\n.Lcu_start:\n"
		".short 4\n.long 0\n.byte 8\n"
		".uleb128 1\n.quad f\n.quad 16\n"
		".La: .uleb128 2\n.quad f\n.quad 16\n.long .La - .Lcu\n"
		".Lb: .uleb128 3\n.quad f\n.quad 16\n.long .Lc - .Lcu\n"
		".Lc: .uleb128 3\n.quad f\n.quad 8\n.long .Lb - .Lcu\n"
		".byte 0, 0, 0, 0\n.Lcu_end:\n"
		".section .note.GNU-stack, \"\"\n";
	struct symbolizer *symbolizer = new_symbolizer(false);
	struct symbol_frame frames[LEVELS];
	struct image *image;
	uint64_t f;

	(void)state;
	write_text("cycle.s", source);
	run("gcc -shared -nostdlib -o cycle.so cycle.s");
	f = address_of("cycle.so", "f");
	image = open_image("cycle.so");
	assert_int_equal(symbolizer_resolve(symbolizer, image, f, frames, LEVELS), 3);
	assert_string_equal(frames[0].name, "[unknown]");
	assert_string_equal(frames[2].name, "f");
	assert_int_equal(symbolizer_resolve(symbolizer, image, f + 8, frames, LEVELS), 2);
	symbolizer_free(symbolizer);
	image_free(image);
}

static void damaged_files_do_no_harm(void **state)
{
	size_t size, opened = 0, named = 0;
	uint64_t start;
	char *bytes;

	(void)state;
	run("gcc -O2 -g -shared -fPIC -o damaged c.c");
	start = address_of("damaged", "site");
	bytes = read_file("damaged", &size);
	for (unsigned int i = 0; i < 800; i++) {
		struct symbolizer *symbolizer = new_symbolizer(false);
		struct symbol_frame frames[LEVELS];
		struct image *image = NULL;

		write_damaged(bytes, size, i);
		if (try_open(in_scratch("broken"), &image) == 0) {
			opened++;
			for (uint64_t at = start; at < start + 256; at++)
				named += symbolizer_resolve(symbolizer, image, at, frames, LEVELS) >
					 0;
		}
		symbolizer_free(symbolizer);
		image_free(image);
	}
	free(bytes);
	assert_true(opened > 200 && opened < 800);
	assert_true(named > 0 && named < opened * 256);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains_are_those_of_addr2line),
		cmocka_unit_test(inlined_calls_are_levels_of_their_own),
		cmocka_unit_test(sources_are_told_apart),
		cmocka_unit_test(without_debug_information_there_are_symbols),
		cmocka_unit_test(a_stripped_function_does_not_take_its_neighbours_name),
		cmocka_unit_test(entries_of_the_linkage_table_are_named_by_where_they_lead),
		cmocka_unit_test(symbols_without_a_size_end_with_the_next_or_the_section),
		cmocka_unit_test(a_symbol_without_a_size_ends_where_a_stripped_function_begins),
		cmocka_unit_test(of_several_names_the_usual_one_is_shown),
		cmocka_unit_test(the_usual_name_is_the_same_with_debug_information),
		cmocka_unit_test(paths_under_a_mapped_root_begin_there),
		cmocka_unit_test(names_are_readable_and_raw),
		cmocka_unit_test(answers_are_the_same_when_asked_again),
		cmocka_unit_test(functions_thrown_away_claim_no_address),
		cmocka_unit_test(cyclic_references_end),
		cmocka_unit_test(damaged_files_do_no_harm),
	};

	return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
