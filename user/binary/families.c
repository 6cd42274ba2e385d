#include "binary/families.h"

#include <string.h>

/*
 * ISO C, POSIX and what C libraries add. In the order in which aliases at one address are named:
 * the first is shown. reallocarray is not here: wherever it was looked at it hands over to realloc.
 */
#define C_FUNCTIONS                                                                                \
	{.name = "malloc", .shape = SHAPE_MALLOC, .arguments = {0}},                               \
		{.name = "calloc", .shape = SHAPE_CALLOC, .arguments = {0, 1}},                    \
		{.name = "realloc", .shape = SHAPE_REALLOC, .arguments = {0, 1}},                  \
		{.name = "aligned_alloc", .shape = SHAPE_MALLOC, .arguments = {1}},                \
		{.name = "memalign", .shape = SHAPE_MALLOC, .arguments = {1}},                     \
		{.name = "posix_memalign", .shape = SHAPE_POSIX_MEMALIGN, .arguments = {0, 2}},    \
		{.name = "valloc", .shape = SHAPE_MALLOC, .arguments = {0}},                       \
		{.name = "pvalloc", .shape = SHAPE_PVALLOC, .arguments = {0}},                     \
		{.name = "free", .shape = SHAPE_FREE, .arguments = {0}},                           \
		{.name = "cfree", .shape = SHAPE_FREE, .arguments = {0}},                          \
		{.name = "free_sized", .shape = SHAPE_FREE, .arguments = {0}},                     \
	{                                                                                          \
		.name = "free_aligned_sized", .shape = SHAPE_FREE, .arguments = { 0 }              \
	}

static const struct family_function c_functions[] = {C_FUNCTIONS, {0}};

/* jemalloc(3), "non-standard API". */
static const struct family_function jemalloc_functions[] = {
	C_FUNCTIONS,
	{.name = "mallocx", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "rallocx", .shape = SHAPE_REALLOC, .arguments = {0, 1}},
	{.name = "dallocx", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "sdallocx", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "xallocx", .shape = SHAPE_XALLOCX, .arguments = {0, 1}},
	{0},
};

/* gperftools, gperftools/tcmalloc.h; the plain names are aliases of these. */
static const struct family_function tcmalloc_functions[] = {
	C_FUNCTIONS,
	{.name = "malloc_skip_new_handler", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "new", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "newarray", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "new_nothrow", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "newarray_nothrow", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "new_aligned", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "newarray_aligned", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "new_aligned_nothrow", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "newarray_aligned_nothrow", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "delete", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "deletearray", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "delete_nothrow", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "deletearray_nothrow", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "delete_sized", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "deletearray_sized", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "delete_aligned", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "deletearray_aligned", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "delete_sized_aligned", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "deletearray_sized_aligned", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "delete_aligned_nothrow", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "deletearray_aligned_nothrow", .shape = SHAPE_FREE, .arguments = {0}},
	{0},
};

static const char no_size[] = "its size is not among its arguments";
static const char frees_many[] = "frees blocks without naming them: they stay live here";

/* mimalloc.h. Inlining makes any of them a way of its own, so all of them stand here. */
static const struct family_function mimalloc_functions[] = {
	C_FUNCTIONS,
	{.name = "malloc_small", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "zalloc", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "zalloc_small", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "mallocn", .shape = SHAPE_CALLOC, .arguments = {0, 1}},
	{.name = "reallocn", .shape = SHAPE_REALLOCARRAY, .arguments = {0, 1, 2}},
	{.name = "reallocarray", .shape = SHAPE_REALLOCARRAY, .arguments = {0, 1, 2}},
	{.name = "expand", .shape = SHAPE_REALLOC, .arguments = {0, 1}},
	{.name = "rezalloc", .shape = SHAPE_REALLOC, .arguments = {0, 1}},
	{.name = "recalloc", .shape = SHAPE_REALLOCARRAY, .arguments = {0, 1, 2}},
	{.name = "malloc_aligned", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "malloc_aligned_at", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "zalloc_aligned", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "zalloc_aligned_at", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "calloc_aligned", .shape = SHAPE_CALLOC, .arguments = {0, 1}},
	{.name = "calloc_aligned_at", .shape = SHAPE_CALLOC, .arguments = {0, 1}},
	{.name = "realloc_aligned", .shape = SHAPE_REALLOC, .arguments = {0, 1}},
	{.name = "realloc_aligned_at", .shape = SHAPE_REALLOC, .arguments = {0, 1}},
	{.name = "rezalloc_aligned", .shape = SHAPE_REALLOC, .arguments = {0, 1}},
	{.name = "rezalloc_aligned_at", .shape = SHAPE_REALLOC, .arguments = {0, 1}},
	{.name = "recalloc_aligned", .shape = SHAPE_REALLOCARRAY, .arguments = {0, 1, 2}},
	{.name = "recalloc_aligned_at", .shape = SHAPE_REALLOCARRAY, .arguments = {0, 1, 2}},
	{.name = "heap_malloc", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "heap_malloc_small", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "heap_zalloc", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "heap_calloc", .shape = SHAPE_CALLOC, .arguments = {1, 2}},
	{.name = "heap_mallocn", .shape = SHAPE_CALLOC, .arguments = {1, 2}},
	{.name = "heap_realloc", .shape = SHAPE_REALLOC, .arguments = {1, 2}},
	{.name = "heap_reallocn", .shape = SHAPE_REALLOCARRAY, .arguments = {1, 2, 3}},
	{.name = "heap_rezalloc", .shape = SHAPE_REALLOC, .arguments = {1, 2}},
	{.name = "heap_recalloc", .shape = SHAPE_REALLOCARRAY, .arguments = {1, 2, 3}},
	{.name = "heap_malloc_aligned", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "heap_malloc_aligned_at", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "heap_zalloc_aligned", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "heap_zalloc_aligned_at", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "heap_calloc_aligned", .shape = SHAPE_CALLOC, .arguments = {1, 2}},
	{.name = "heap_calloc_aligned_at", .shape = SHAPE_CALLOC, .arguments = {1, 2}},
	{.name = "heap_realloc_aligned", .shape = SHAPE_REALLOC, .arguments = {1, 2}},
	{.name = "heap_realloc_aligned_at", .shape = SHAPE_REALLOC, .arguments = {1, 2}},
	{.name = "heap_rezalloc_aligned", .shape = SHAPE_REALLOC, .arguments = {1, 2}},
	{.name = "heap_rezalloc_aligned_at", .shape = SHAPE_REALLOC, .arguments = {1, 2}},
	{.name = "heap_recalloc_aligned", .shape = SHAPE_REALLOCARRAY, .arguments = {1, 2, 3}},
	{.name = "heap_recalloc_aligned_at", .shape = SHAPE_REALLOCARRAY, .arguments = {1, 2, 3}},
	{.name = "new", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "new_n", .shape = SHAPE_CALLOC, .arguments = {0, 1}, .throws = true},
	{.name = "new_nothrow", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "new_aligned", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "new_aligned_nothrow", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "new_realloc", .shape = SHAPE_REALLOC, .arguments = {0, 1}, .throws = true},
	{.name = "new_reallocn",
	 .shape = SHAPE_REALLOCARRAY,
	 .arguments = {0, 1, 2},
	 .throws = true},
	{.name = "heap_alloc_new", .shape = SHAPE_MALLOC, .arguments = {1}, .throws = true},
	{.name = "heap_alloc_new_n", .shape = SHAPE_CALLOC, .arguments = {1, 2}, .throws = true},
	{.name = "free_size", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "free_size_aligned", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "free_aligned", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "strdup", .unprobed = no_size},
	{.name = "strndup", .unprobed = no_size},
	{.name = "realpath", .unprobed = no_size},
	{.name = "heap_strdup", .unprobed = no_size},
	{.name = "heap_strndup", .unprobed = no_size},
	{.name = "heap_realpath", .unprobed = no_size},
	{.name = "heap_destroy", .unprobed = frees_many},
	{0},
};

/* snmalloc, src/snmalloc/override/rust.cc; its override of the C library has the plain names. */
static const struct family_function snmalloc_functions[] = {
	C_FUNCTIONS,
	{.name = "rust_alloc", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "rust_alloc_zeroed", .shape = SHAPE_MALLOC, .arguments = {1}},
	{.name = "rust_realloc", .shape = SHAPE_REALLOC, .arguments = {0, 3}},
	{.name = "rust_dealloc", .shape = SHAPE_FREE, .arguments = {0}},
	{0},
};

/* The replaceable operators of C++17, [new.delete], in the Itanium ABI's mangling. */
static const struct family_function cxx_functions[] = {
	{.name = "_Znwm", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "_Znam", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "_ZnwmRKSt9nothrow_t", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "_ZnamRKSt9nothrow_t", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "_ZnwmSt11align_val_t", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "_ZnamSt11align_val_t", .shape = SHAPE_MALLOC, .arguments = {0}, .throws = true},
	{.name = "_ZnwmSt11align_val_tRKSt9nothrow_t", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "_ZnamSt11align_val_tRKSt9nothrow_t", .shape = SHAPE_MALLOC, .arguments = {0}},
	{.name = "_ZdlPv", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdaPv", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdlPvm", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdaPvm", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdlPvRKSt9nothrow_t", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdaPvRKSt9nothrow_t", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdlPvSt11align_val_t", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdaPvSt11align_val_t", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdlPvmSt11align_val_t", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdaPvmSt11align_val_t", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdlPvSt11align_val_tRKSt9nothrow_t", .shape = SHAPE_FREE, .arguments = {0}},
	{.name = "_ZdaPvSt11align_val_tRKSt9nothrow_t", .shape = SHAPE_FREE, .arguments = {0}},
	{0},
};

/*
 * How a program maps memory by itself. sbrk is not here: it calls brk. Nor are the names that glibc
 * has for its own use, which are at the same addresses.
 */
static const struct family_function mapping_functions[] = {
	{.name = "mmap", .shape = SHAPE_MMAP, .arguments = {1, 3}},
	{.name = "mmap64", .shape = SHAPE_MMAP, .arguments = {1, 3}},
	{.name = "mremap", .shape = SHAPE_MREMAP, .arguments = {0, 1, 2, 3}},
	{.name = "brk", .shape = SHAPE_BRK, .arguments = {0}},
	{.name = "munmap", .shape = SHAPE_MUNMAP, .arguments = {0, 1}},
	{0},
};

const struct family families[FAMILY_COUNT] = {
	{.name = "C library", .prefix = "", .functions = jemalloc_functions},
	{.name = "jemalloc", .prefix = "je_", .functions = jemalloc_functions},
	{.name = "jemalloc of Rust", .prefix = "_rjem_", .functions = jemalloc_functions},
	{.name = "tcmalloc", .prefix = "tc_", .functions = tcmalloc_functions},
	{.name = "mimalloc", .prefix = "mi_", .functions = mimalloc_functions},
	{.name = "snmalloc", .prefix = "sn_", .functions = snmalloc_functions},
	{.name = "C library", .prefix = "__libc_", .functions = c_functions},
	{.name = "C++ operators", .prefix = "", .functions = cxx_functions, .companion = true},
	[FAMILY_MAPPINGS] = {.name = "direct mappings",
			     .prefix = "",
			     .functions = mapping_functions,
			     .companion = true},
};

size_t shape_operands(enum allocator_shape shape)
{
	static const uint8_t operands[SHAPE_COUNT] = {
		[SHAPE_MALLOC] = 1,
		[SHAPE_CALLOC] = 2,
		[SHAPE_REALLOC] = 2,
		[SHAPE_REALLOCARRAY] = 3,
		[SHAPE_POSIX_MEMALIGN] = 2,
		[SHAPE_FREE] = 1,
		[SHAPE_PVALLOC] = 1,
		[SHAPE_XALLOCX] = 2,
		[SHAPE_MMAP] = 2,
		[SHAPE_MREMAP] = 4,
		[SHAPE_BRK] = 1,
		[SHAPE_MUNMAP] = 2,
	};

	return operands[shape];
}

bool shape_allocates(enum allocator_shape shape)
{
	return shape < SHAPE_FREE;
}

bool shape_maps(enum allocator_shape shape)
{
	return shape == SHAPE_MMAP || shape == SHAPE_MREMAP || shape == SHAPE_BRK;
}

bool shape_unmaps(enum allocator_shape shape)
{
	return shape == SHAPE_MUNMAP;
}

const struct family_function *family_find(const struct family *family, const char *prefix,
					  const char *name)
{
	size_t length = strlen(prefix);

	if (strncmp(name, prefix, length) != 0)
		return NULL;
	for (const struct family_function *function = family->functions; function->name;
	     function++) {
		if (strcmp(name + length, function->name) == 0)
			return function;
	}
	return NULL;
}
