/* Readable names, compared with c++filt, and what hostile names may cost. */
#include "scratch.h"

#include "symbol/demangle.h"

static void assert_name(struct demangler *demangler, const char *mangled, const char *expected)
{
	const char *first = demangler_name(demangler, mangled);

	assert_string_equal(first, expected);
	/* The second time it comes from memory. */
	assert_ptr_equal(demangler_name(demangler, mangled), first);
}

static void names_of_cxx_and_rust_become_readable(void **state)
{
	struct demangler *demangler;

	(void)state;
	assert_int_equal(demangler_new(&demangler), 0);
	assert_name(demangler, "_ZN4shop4till3addERKNS_4itemE", "shop::till::add");
	assert_name(demangler, "_Znwm", "operator new");
	assert_name(demangler, "_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write");
	assert_name(demangler, "_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar");
	assert_name(demangler, "_RINvNtC3std3mem8align_ofdE", "std::mem::align_of::<f64>");
	demangler_free(demangler);
}

static void other_names_stay_as_they_are(void **state)
{
	static const char *const names[] = {"",	     "malloc", "_",  "_start", "__libc_start_main",
					    "_Z",    "_ZN",    "_R", "_exit",  "_Zbroken",
					    "Z3foov"};
	struct demangler *demangler;

	(void)state;
	assert_int_equal(demangler_new(&demangler), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_ptr_equal(demangler_name(demangler, names[i]), names[i]);
	demangler_free(demangler);
}

/* Every function of the C++ library: c++filt is libiberty's own idea of the same. */
static void the_names_of_a_library_are_those_of_cxxfilt(void **state)
{
	struct demangler *demangler;
	char mangled[4096], expected[65536];
	FILE *f, *g;
	size_t count = 0;

	(void)state;
	run("nm -D --defined-only $(g++ -print-file-name=libstdc++.so.6) | sed -n "
	    "'s/^[0-9a-f]* [TWi] \\(_Z[^@]*\\).*/\\1/p' | sort -u > names");
	run("c++filt -p -i < names > readable");
	f = fopen(in_scratch("names"), "r");
	g = fopen(in_scratch("readable"), "r");
	assert_true(f && g);
	assert_int_equal(demangler_new(&demangler), 0);
	while (fgets(mangled, sizeof(mangled), f) && fgets(expected, sizeof(expected), g)) {
		mangled[strcspn(mangled, "\n")] = 0;
		expected[strcspn(expected, "\n")] = 0;
		assert_string_equal(demangler_name(demangler, mangled), expected);
		count++;
	}
	assert_true(count > 2000);
	demangler_free(demangler);
	fclose(f);
	fclose(g);
}

/* f<p<int, int>, p<that, that>, p<that, that>, ...>: each argument is twice as long as the last. */
static void write_bomb(char *name, int levels)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

	/* S_ stands for f, S0_ for p, S1_ for p<int, int>, and so on. */
	name += sprintf(name, "_Z1fI1pIiiE");
	for (int i = 1; i <= levels; i++)
		name += sprintf(name, "S0_IS%c_S%c_E", digits[i], digits[i]);
	sprintf(name, "Evv");
}

static void a_name_that_would_explode_stays_mangled(void **state)
{
	struct demangler *demangler;
	char bomb[512];

	(void)state;
	assert_int_equal(demangler_new(&demangler), 0);
	write_bomb(bomb, 1);
	assert_string_equal(demangler_name(demangler, bomb),
			    "f<p<int, int>, p<p<int, int>, p<int, int> > >");
	write_bomb(bomb, 10);
	assert_in_range(strlen(demangler_name(demangler, bomb)), 10000, DEMANGLE_MAX);
	write_bomb(bomb, 30); /* some 30 GB */
	assert_ptr_equal(demangler_name(demangler, bomb), bomb);
	demangler_free(demangler);
}

static void deep_and_long_names_are_survived(void **state)
{
	static const char *const units[] = {"P",      "S_", "I",  "N",	"F",  "R",  "K", "NvC1a",
					    "INvC1a", "T_", "XL", "cl", "Dp", "1a", "_"};
	static const char *const starts[] = {"_Z", "_ZN", "_Z1f", "_R", "_RNv", "_RIN", "_RYN"};
	static const size_t sizes[] = {4096, DEMANGLE_MAX - 8, DEMANGLE_MAX + 100};
	struct demangler *demangler;
	char *name = malloc(DEMANGLE_MAX + 200);

	(void)state;
	assert_non_null(name);
	assert_int_equal(demangler_new(&demangler), 0);
	for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
		for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
			for (size_t i = 0; i < 3; i++) {
				size_t at = (size_t)sprintf(name, "%s", starts[s]);

				while (at < sizes[i])
					at += (size_t)sprintf(name + at, "%s", units[u]);
				assert_non_null(demangler_name(demangler, name));
			}
		}
	}
	demangler_free(demangler);
	free(name);
}

static void damaged_names_do_no_harm(void **state)
{
	static const char alphabet[] = "_ZNKRSTIELPvicjmabdfx0123456789CDX.$";
	struct demangler *demangler;
	uint64_t seed = 42;
	size_t changed = 0;

	(void)state;
	assert_int_equal(demangler_new(&demangler), 0);
	for (int i = 0; i < 20000; i++) {
		char name[128] =
			"_ZNSt6vectorIN4shop4itemESaIS1_EE17_M_realloc_insertIJS1_EEEvN9__gnu_"
			"cxx17__normal_iteratorIPS1_S3_EEDpOT_";
		size_t length = strlen(name);

		if (i % 2)
			length = (size_t)sprintf(
				name, "_RINvNtC3std3memINvB2_8align_ofdERNvB2_1aTmTmKh_EE");
		for (uint64_t n = 1 + noise(&seed) % 4; n; n--)
			name[2 + noise(&seed) % (length - 2)] =
				alphabet[noise(&seed) % (sizeof(alphabet) - 1)];
		changed += demangler_name(demangler, name) != name;
	}
	assert_true(changed > 100 && changed < 20000);
	demangler_free(demangler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_cxx_and_rust_become_readable),
		cmocka_unit_test(other_names_stay_as_they_are),
		cmocka_unit_test(the_names_of_a_library_are_those_of_cxxfilt),
		cmocka_unit_test(a_name_that_would_explode_stays_mangled),
		cmocka_unit_test(deep_and_long_names_are_survived),
		cmocka_unit_test(damaged_names_do_no_harm),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
