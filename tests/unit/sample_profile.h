/* A made-up profile of a server that leaks sessions, for the tests of what is written from one. */
#ifndef ALLOCTRACE_SAMPLE_PROFILE_H
#define ALLOCTRACE_SAMPLE_PROFILE_H

#include "profile/profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define SAMPLE_EXE  "/srv/bin/memserver"
#define SAMPLE_LIBC "/usr/lib/x86_64-linux-gnu/libc.so.6"

#define EXE_START  UINT64_C(0x555555554000)
#define LIBC_START UINT64_C(0x7ffff7c00000)

/* Addresses, by function. 0x7fff00000000 is in no mapping. */
enum {
	AT_SESSION_NEW,
	AT_PARSE,
	AT_HANDLE,
	AT_WORKER,
	AT_OPERATOR_NEW,
	AT_CACHE_PUT,
	AT_LIBC,
	AT_JIT,
	AT_COUNT,
};

static const uint64_t sample_addresses[AT_COUNT] = {
	EXE_START + 0x1100, EXE_START + 0x1200, EXE_START + 0x1300,  EXE_START + 0x1400,
	EXE_START + 0x1500, EXE_START + 0x1600, LIBC_START + 0x9000, 0x7fff00000000,
};

static inline void sample_line(struct profile *profile, int at, const char *name,
			       const char *system_name, const char *file, uint32_t line)
{
	struct profile_line to = {.line = line};

	assert_int_equal(
		profile_add_function(profile, name, system_name, file, line - 5, &to.function), 0);
	for (uint32_t i = 0; i < profile->locations.count; i++) {
		if (profile->locations.items[i].address == sample_addresses[at])
			assert_int_equal(profile_set_lines(profile, i, &to, 1), 0);
	}
}

static inline uint32_t sample_site(struct profile *profile, bool complete, size_t count,
				   const int *at)
{
	uint64_t addresses[16];
	uint32_t index;

	for (size_t i = 0; i < count; i++)
		addresses[i] = sample_addresses[at[i]];
	assert_int_equal(profile_add_site(profile, addresses, count, complete, &index), 0);
	return index;
}

static inline void sample_info(struct profile *profile, uint64_t period)
{
	struct profile_info *info = &profile->info;

	info->pid = 4321;
	info->comm = strdup("memserver");
	info->exe = strdup(SAMPLE_EXE);
	info->version = strdup("0.1.0");
	info->command_line = strdup("alloctrace -p 4321 -d 10s");
	info->kernel = strdup("6.18.0-test");
	info->attach = strdup("session");
	info->time_nanos = INT64_C(1763641981) * 1000000000;
	info->duration_nanos = INT64_C(10) * 1000000000;
	info->period = period;
	info->calls = 1204331;
	info->frees = 1104220;
	info->memory_start = (struct profile_memory){
		.known = true,
		.anon = 200 << 20,
		.file = 12 << 20,
		.shmem = 1 << 20,
		.swap = 4 << 20,
		.stacks = 136 << 10,
	};
	info->memory_end = (struct profile_memory){
		.known = true,
		.anon = 316 << 20,
		.file = 13 << 20,
		.shmem = 2 << 20,
		.swap = 5 << 20,
		.stacks = 160 << 10,
	};
	info->cpu_nanos = 2500000000;
	info->end_reason = "duration reached";
}

/* Direct mappings: three of 16 MiB of which one and a quarter are left, and one of 4 MiB. */
static inline void sample_mappings(struct profile *profile)
{
	uint32_t cache = sample_site(profile, true, 2, (int[]){AT_CACHE_PUT, AT_WORKER});
	uint32_t jit = sample_site(profile, false, 1, (int[]){AT_JIT});

	profile->info.mmap = true;
	profile->info.maps = 1250;
	profile->info.unmaps = 1233;
	profile->sites.items[cache].mapped = profile->sites.items[jit].mapped = true;
	assert_int_equal(profile_add_bucket(profile, jit, 1, 4 << 20, 1, 4 << 20), 0);
	assert_int_equal(profile_add_bucket(profile, cache, 3, 48 << 20, 2, 20 << 20), 0);
}

/* Finished; info.sampled and recorded are the hits. */
static inline struct profile *sample_profile_with(uint64_t period, bool mappings)
{
	struct profile *profile;
	uint32_t session, parse, cache, jit;

	assert_int_equal(profile_new(&profile), 0);
	sample_info(profile, period);
	assert_int_equal(profile_add_mapping(profile, EXE_START, EXE_START + 0x10000, 0x1000,
					     SAMPLE_EXE, "00aabbccddeeff", NULL),
			 0);
	assert_int_equal(profile_add_mapping(profile, LIBC_START, LIBC_START + 0x200000, 0x28000,
					     SAMPLE_LIBC, "", NULL),
			 0);
	profile->mappings.items[0].has_functions = true;
	profile->mappings.items[0].has_filenames = true;
	profile->mappings.items[0].has_line_numbers = true;
	parse = sample_site(profile, true, 4,
			    (int[]){AT_OPERATOR_NEW, AT_PARSE, AT_HANDLE, AT_WORKER});
	session = sample_site(profile, true, 3, (int[]){AT_SESSION_NEW, AT_HANDLE, AT_WORKER});
	cache = sample_site(profile, true, 3, (int[]){AT_LIBC, AT_CACHE_PUT, AT_WORKER});
	jit = sample_site(profile, false, 1, (int[]){AT_JIT});
	assert_int_equal(profile_add_bucket(profile, session, 180, 180 * 8192, 180, 180 * 8192), 0);
	assert_int_equal(profile_add_bucket(profile, session, 40, 40 * 65536, 39, 39 * 65536), 0);
	assert_int_equal(profile_add_bucket(profile, parse, 1900, 1900 * 96, 12, 12 * 96), 0);
	assert_int_equal(profile_add_bucket(profile, cache, 3, 3 << 20, 0, 0), 0);
	assert_int_equal(profile_add_bucket(profile, jit, 7, 7 * 48, 2, 2 * 48), 0);
	if (mappings)
		sample_mappings(profile);
	profile->info.sampled = profile->info.recorded = 180 + 40 + 1900 + 3 + 7 + 4 * mappings;
	assert_int_equal(profile_add_counter(profile, "live map full", 0, PROFILE_LOSS), 0);
	assert_int_equal(profile_add_counter(profile, "pending map full", 0, PROFILE_LOSS), 0);
	assert_int_equal(profile_add_counter(profile, "failed allocations", 0, PROFILE_SEEN), 0);
	assert_int_equal(profile_add_probe(profile, SAMPLE_LIBC, "C library, by its .dynsym",
					   "malloc+0 calloc+0 realloc+0 free+9",
					   "strdup: no size\n"),
			 0);
	assert_int_equal(profile_finish(profile), 0);
	sample_line(profile, AT_SESSION_NEW, "session_new", "session_new", "/src/session.c", 120);
	sample_line(profile, AT_PARSE, "http::Parser::header", "_ZN4http6Parser6headerEv",
		    "/src/parser.cc", 88);
	sample_line(profile, AT_HANDLE, "handle_request", "handle_request", "/src/server.c", 310);
	sample_line(profile, AT_WORKER, "worker_main", "worker_main", "/src/server.c", 401);
	sample_line(profile, AT_OPERATOR_NEW, "operator new", "_Znwm", "", 0);
	sample_line(profile, AT_CACHE_PUT, "cache_put", "cache_put", "/src/cache.c", 52);
	return profile;
}

static inline struct profile *sample_profile(uint64_t period)
{
	return sample_profile_with(period, false);
}

#endif
