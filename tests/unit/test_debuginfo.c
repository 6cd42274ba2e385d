/* Where separate debug information is found, and that of another build is not. */
#include "scratch.h"

#include "symbol/debuginfo.h"
#include "symbol/symbolizer.h"

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	write_text("a.c", "static __attribute__((noinline, noclone)) int inner(int x)\n{\n\treturn "
			  "x * x;\n}\n"
			  "int outer(int x) { return inner(x) + 1; }\n");
	run("gcc -O1 -g -shared -fPIC -Wl,--build-id=0x1234567890 -o full.so a.c");
	run("gcc -O1 -g -shared -fPIC -Wl,--build-id=none -o anonymous.so a.c");
	return 0;
}

/* Moves the debug information of `from` to `debug`, and leaves `to` with a link to it. */
static void split(const char *from, const char *to, const char *debug)
{
	run("rm -f %s %s", to, debug);
	run("objcopy --only-keep-debug %s %s", from, debug);
	run("objcopy --strip-all --add-gnu-debuglink=%s %s %s", debug, from, to);
}

static void assert_found_below(int root, const char *name, bool dwarf, bool separate)
{
	const char *folder = in_scratch("root");
	uint64_t bytes = 1 << 20;
	const struct debug_search search = {
		.folders = &folder,
		.folder_count = 1,
		.checksum_bytes = &bytes,
	};
	struct image *image = open_image(name);
	struct debuginfo *debuginfo = NULL;

	image->root = root;
	assert_int_equal(debuginfo_open(image, &search, &debuginfo), 0);
	assert_int_equal(debuginfo->main.dwarf != NULL, dwarf);
	assert_int_equal(debuginfo->separate != NULL, separate);
	debuginfo_free(debuginfo);
	image_free(image);
}

static void assert_found(const char *name, bool dwarf, bool separate)
{
	assert_found_below(IMAGE_ROOT_OURS, name, dwarf, separate);
}

static void debug_information_in_the_image_comes_first(void **state)
{
	(void)state;
	run("rm -rf root .debug && mkdir -p root/.build-id/12 && "
	    "cp full.so root/.build-id/12/34567890.debug");
	assert_found("full.so", true, false);
}

static void a_file_named_by_the_build_id_is_found(void **state)
{
	(void)state;
	run("rm -rf root .debug && mkdir -p root/.build-id/12");
	run("objcopy --only-keep-debug full.so root/.build-id/12/34567890.debug");
	run("objcopy --strip-all full.so stripped.so");
	assert_found("stripped.so", true, true);

	/* The name alone is no proof. */
	run("gcc -O1 -g -shared -fPIC -Wl,--build-id=0x1234567891 -o other.so a.c");
	run("objcopy --only-keep-debug other.so root/.build-id/12/34567890.debug");
	assert_found("stripped.so", false, false);
}

static void a_linked_file_is_found_in_three_places(void **state)
{
	(void)state;
	run("rm -rf root .debug");
	split("full.so", "linked.so", "linked.debug");
	assert_found("linked.so", true, true);
	run("mkdir .debug && mv linked.debug .debug/");
	assert_found("linked.so", true, true);
	run("mkdir -p root/$PWD && mv .debug/linked.debug root/$PWD/");
	assert_found("linked.so", true, true);
	run("rm root/$PWD/linked.debug");
	assert_found("linked.so", false, false);
}

static void a_linked_file_must_be_the_one_that_was_meant(void **state)
{
	(void)state;
	run("rm -rf root .debug");
	/* The checksum decides where there is no build id. */
	split("anonymous.so", "linked.so", "linked.debug");
	assert_found("linked.so", true, true);
	run("printf x >> linked.debug");
	assert_found("linked.so", false, false);
	/* Nor is more read for that than a run may. */
	split("anonymous.so", "linked.so", "linked.debug");
	run("truncate -s 2M linked.debug && crc=$(python3 -c 'import zlib; "
	    "print(\"%%08x\" %% zlib.crc32(open(\"linked.debug\", \"rb\").read()))') && "
	    "objcopy --strip-all anonymous.so linked.so && "
	    "objcopy --add-gnu-debuglink=linked.debug linked.so && "
	    "objdump -sj .gnu_debuglink linked.so | grep -q $(echo $crc | fold -w2 | tac | tr -d "
	    "'\n')");
	assert_found("linked.so", false, false);
	/* A build id must match, too, even if the checksum does. */
	split("full.so", "linked.so", "linked.debug");
	run("gcc -O1 -g -shared -fPIC -Wl,--build-id=0x1234567891 -o other.so a.c");
	run("objcopy --only-keep-debug other.so linked.debug");
	run("objcopy --strip-all full.so bare.so && "
	    "objcopy --add-gnu-debuglink=linked.debug bare.so linked.so");
	assert_found("linked.so", false, false);
}

static void a_link_leads_neither_to_itself_nor_into_a_fifo(void **state)
{
	(void)state;
	run("rm -rf root .debug");
	split("full.so", "linked.so", "linked.debug");
	run("rm linked.debug && ln -s linked.so linked.debug");
	assert_found("linked.so", false, false);
	run("rm linked.debug && mkfifo linked.debug");
	assert_found("linked.so", false, false);
	run("rm linked.debug && mkdir linked.debug");
	assert_found("linked.so", false, false);
	run("rmdir linked.debug");
}

/* A path means nothing where its root could not be opened; a build id does. */
static void nothing_is_found_by_paths_of_an_unknown_root(void **state)
{
	(void)state;
	run("rm -rf root .debug && mkdir -p root/.build-id/12");
	split("full.so", "linked.so", "linked.debug");
	assert_found("linked.so", true, true);
	assert_found_below(IMAGE_ROOT_UNKNOWN, "linked.so", false, false);
	run("mv linked.debug root/.build-id/12/34567890.debug");
	assert_found_below(IMAGE_ROOT_UNKNOWN, "linked.so", true, true);

	/* Nor what is said to have been moved out of the debug information. */
	run("rm -rf root && objcopy --only-keep-debug full.so extra.debug");
	run("(printf '%%s/extra.debug\\0' $PWD && printf '\\022\\064\\126\\170\\220') > link");
	run("objcopy --add-section .gnu_debugaltlink=link anonymous.so refers.so");
	assert_found("refers.so", true, false);
	assert_found_below(IMAGE_ROOT_UNKNOWN, "refers.so", false, false);
}

static void what_dwz_moved_out_is_needed(void **state)
{
	(void)state;
	if (!have("dwz"))
		skip();
	/* Types enough for dwz to find some worth moving out. */
	run("printf 'struct point { int x, y, z; struct point *next; const char *name; };\\n"
	    "struct shape { struct point corners[8]; double weight; struct shape *parent; };\\n"
	    "int weigh(struct shape *s) { return s->corners[1].x * 3 + (int)s->weight; }\\n' > "
	    "b.c");
	run("rm -rf root && gcc -O1 -g -shared -fPIC -Wl,--build-id=0x11 -o one.so b.c");
	run("gcc -O1 -g -shared -fPIC -Wl,--build-id=0x99 -o two.so b.c");
	run("dwz -m common.debug one.so two.so && readelf -SW common.debug | grep -q debug_info");
	assert_found("one.so", true, false);
	/* It must not lead on to a third file: libdw would open that by itself. */
	run("cp common.debug kept.debug && printf '/nowhere\\000xxxxxxxxxxxxxxxxxxxx' > link "
	    "&& "
	    "objcopy --add-section .gnu_debugaltlink=link common.debug");
	assert_found("one.so", false, false);
	run("mv kept.debug common.debug");
	assert_found("one.so", true, false);
	run("rm common.debug");
	assert_found("one.so", false, false);
}

/* The whole way: a static function of a stripped library, with its line. */
static void names_and_lines_come_from_the_separate_file(void **state)
{
	struct symbolizer_options options = {0};
	struct symbolizer *symbolizer = NULL;
	struct symbol_source source;
	struct symbol_frame frames[4];
	struct image *image;
	unsigned long inner = 0;
	char *text;
	size_t size;

	(void)state;
	run("rm -rf root .debug");
	split("full.so", "linked.so", "linked.debug");
	run("nm full.so | awk '$3 == \"inner\" {print $1}' > inner");
	text = read_file("inner", &size);
	assert_int_equal(sscanf(text, "%lx", &inner), 1);
	free(text);
	image = open_image("linked.so");
	assert_int_equal(symbolizer_new(&options, &symbolizer), 0);
	assert_int_equal(symbolizer_resolve(symbolizer, image, inner, frames, 4), 1);
	assert_string_equal(frames[0].name, "inner");
	assert_string_equal(strrchr(frames[0].file, '/'), "/a.c");
	assert_in_range(frames[0].line, 2, 3);
	symbolizer_source(symbolizer, image, &source);
	assert_true(source.has_functions && source.has_lines && source.has_inlines);
	symbolizer_free(symbolizer);

	/* Without its DWARF, the file still has the symbols. */
	run("objcopy --strip-debug full.so plain.so");
	split("plain.so", "linked.so", "linked.debug");
	image_free(image);
	image = open_image("linked.so");
	assert_int_equal(symbolizer_new(&options, &symbolizer), 0);
	assert_int_equal(symbolizer_resolve(symbolizer, image, inner, frames, 4), 1);
	assert_string_equal(frames[0].name, "inner");
	assert_int_equal(frames[0].line, 0);
	symbolizer_free(symbolizer);
	image_free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(debug_information_in_the_image_comes_first),
		cmocka_unit_test(a_file_named_by_the_build_id_is_found),
		cmocka_unit_test(a_linked_file_is_found_in_three_places),
		cmocka_unit_test(a_linked_file_must_be_the_one_that_was_meant),
		cmocka_unit_test(a_link_leads_neither_to_itself_nor_into_a_fifo),
		cmocka_unit_test(nothing_is_found_by_paths_of_an_unknown_root),
		cmocka_unit_test(what_dwz_moved_out_is_needed),
		cmocka_unit_test(names_and_lines_come_from_the_separate_file),
	};

	return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
