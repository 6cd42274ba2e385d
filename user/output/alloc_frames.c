#include "output/alloc_frames.h"

#include <stddef.h>
#include <string.h>

/*
 * One list, which malloc heads, for the regular expression and for the comparison. "__GI_" is how
 * glibc names its functions to itself.
 */
#define NAMES(X)                                                                                   \
	X("calloc")                                                                                \
	X("realloc")                                                                               \
	X("reallocarray")                                                                          \
	X("free")                                                                                  \
	X("posix_memalign")                                                                        \
	X("aligned_alloc")                                                                         \
	X("memalign")                                                                              \
	X("valloc")                                                                                \
	X("pvalloc")                                                                               \
	X("__libc_malloc")                                                                         \
	X("__libc_calloc")                                                                         \
	X("__libc_realloc")                                                                        \
	X("__libc_reallocarray")                                                                   \
	X("__libc_free")                                                                           \
	X("__libc_memalign")                                                                       \
	X("__libc_valloc")                                                                         \
	X("__libc_pvalloc")                                                                        \
	X("__posix_memalign")

#define ALTERNATIVE(name) "|" name
const char alloc_frames_regex[] = "operator new(\\[\\])?|(__GI_)?(malloc" NAMES(ALTERNATIVE) ")";

bool alloc_frames_match(const char *name)
{
#define ITEM(name) name,
	static const char *const names[] = {"operator new", "operator new[]", "malloc",
					    NAMES(ITEM)};
	size_t length;

	if (!strncmp(name, "__GI_", 5))
		name += 5;
	length = strcspn(name, "(");
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (strlen(names[i]) == length && !memcmp(name, names[i], length))
			return true;
	}
	return false;
}

bool alloc_frames_plumbing(const char *name)
{
	static const char *const beginnings[] = {
		"std::allocator<",
		"std::allocator_traits<",
		"std::__new_allocator<",
		"__gnu_cxx::new_allocator<",
		"__gnu_cxx::__alloc_traits<",
		"std::_Vector_base<",
		"std::__1::allocator<",
		"std::__1::allocator_traits<",
		"std::__1::__libcpp_",
		"__rust_alloc",
		"__rust_realloc",
		"__rdl_",
		"alloc::alloc::",
		"<alloc::alloc::Global",
		"PyMem_",
		"_PyMem_",
		"PyObject_Malloc",
		"PyObject_Calloc",
		"PyObject_Realloc",
		"_PyObject_Malloc",
		"_PyObject_Calloc",
		"_PyObject_Realloc",
		"_PyObject_GC_",
		"PyType_GenericAlloc",
		"_PyType_AllocNoTrack",
	};

	for (size_t i = 0; i < sizeof(beginnings) / sizeof(*beginnings); i++) {
		if (!strncmp(name, beginnings[i], strlen(beginnings[i])))
			return true;
	}
	return alloc_frames_match(name);
}

bool alloc_frames_touch(const char *name)
{
	static const char *const beginnings[] = {
		"memset",
		"__memset",
		"memcpy",
		"__memcpy",
		"memmove",
		"__memmove",
		"mempcpy",
		"__mempcpy",
		"strcpy",
		"__strcpy",
		"stpcpy",
		"__stpcpy",
		"_int_malloc",
		"_int_realloc",
		"_int_free",
		"_int_memalign",
		"sysmalloc",
		"new_heap",
		"alloc_new_heap",
		"systrim",
		"alloc_perturb",
		"unlink_chunk",
		"malloc_consolidate",
		"tcache_",
		"pymalloc_",
		"allocate_from_new_pool",
		"new_arena",
		"_PyObject_Arena",
	};

	for (size_t i = 0; i < sizeof(beginnings) / sizeof(*beginnings); i++) {
		if (!strncmp(name, beginnings[i], strlen(beginnings[i])))
			return true;
	}
	return alloc_frames_plumbing(name);
}
