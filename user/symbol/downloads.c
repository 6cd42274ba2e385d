#include "symbol/downloads.h"

#include "util/clock.h"

#include <dlfcn.h>
#include <elfutils/debuginfod.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NANOSECONDS 1000000000ll

/* What is used of the library. */
struct library {
	void *handle; /* owned */
	__typeof__(debuginfod_begin) *begin;
	__typeof__(debuginfod_end) *end;
	__typeof__(debuginfod_find_debuginfo) *find_debuginfo;
	__typeof__(debuginfod_set_progressfn) *set_progressfn;
	__typeof__(debuginfod_set_user_data) *set_user_data;
	__typeof__(debuginfod_get_user_data) *get_user_data;
};

struct downloads {
	struct library library;
	debuginfod_client *client; /* owned */
	downloads_progress_fn progress;
	int64_t spent;	   /* ns, by all before */
	uint64_t received; /* bytes, by all before */
	bool given_up;	   /* by the progress */
	/* The one on its way. */
	const char *name;
	int64_t started;
	uint64_t bytes;
	int stopped; /* -errno: by which limit; 0: by none */
};

/* The library's callback has no context but the client, and what finds its data is loaded, too. */
static __typeof__(debuginfod_get_user_data) *get_user_data;

static int on_progress(debuginfod_client *client, long a, long b)
{
	struct downloads *downloads = get_user_data(client);

	/* While it waits for an answer, b is 0, and a a counter of no meaning. */
	if (b > 0 && a >= 0) {
		downloads->bytes = (uint64_t)a;
		if (downloads->received + (uint64_t)b > DOWNLOADS_BYTES_MAX)
			downloads->stopped = -EFBIG;
	}
	if (downloads->spent + clock_now(CLOCK_MONOTONIC) - downloads->started >
	    DOWNLOADS_SECONDS_MAX * NANOSECONDS)
		downloads->stopped = -ETIME;
	if (!downloads->progress(downloads->name, downloads->bytes, b > 0 ? (uint64_t)b : 0)) {
		downloads->given_up = true;
		downloads->stopped = -EINTR;
	}
	return downloads->stopped != 0;
}

static int load(struct library *library)
{
	const struct {
		const char *name;
		void **to;
	} functions[] = {
		{"debuginfod_begin", (void **)&library->begin},
		{"debuginfod_end", (void **)&library->end},
		{"debuginfod_find_debuginfo", (void **)&library->find_debuginfo},
		{"debuginfod_set_progressfn", (void **)&library->set_progressfn},
		{"debuginfod_set_user_data", (void **)&library->set_user_data},
		{"debuginfod_get_user_data", (void **)&library->get_user_data},
	};

	library->handle = dlopen("libdebuginfod.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!library->handle)
		return -ELIBACC;
	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		*functions[i].to = dlsym(library->handle, functions[i].name);
		if (!*functions[i].to)
			return -ELIBACC;
	}
	return 0;
}

int downloads_new(downloads_progress_fn progress, struct downloads **out)
{
	const char *urls = getenv("DEBUGINFOD_URLS");
	struct downloads *downloads;
	int err;

	if (!urls || !*urls)
		return -EDESTADDRREQ;
	downloads = calloc(1, sizeof(*downloads));
	if (!downloads)
		return -ENOMEM;
	downloads->progress = progress;
	setenv("DEBUGINFOD_TIMEOUT", DOWNLOADS_STALL_SECONDS, 0);
	err = load(&downloads->library);
	if (!err) {
		get_user_data = downloads->library.get_user_data;
		downloads->client = downloads->library.begin();
		err = downloads->client ? 0 : -ENOMEM;
	}
	if (err) {
		downloads_free(downloads);
		return err;
	}
	downloads->library.set_user_data(downloads->client, downloads);
	downloads->library.set_progressfn(downloads->client, on_progress);
	*out = downloads;
	return 0;
}

void downloads_free(struct downloads *downloads)
{
	if (!downloads)
		return;
	if (downloads->client)
		downloads->library.end(downloads->client);
	if (downloads->library.handle)
		dlclose(downloads->library.handle);
	free(downloads);
}

int downloads_fetch(struct downloads *downloads, const char *name, const uint8_t *build_id,
		    size_t length)
{
	int fd;

	if (downloads->given_up)
		return -EINTR;
	if (downloads->spent > DOWNLOADS_SECONDS_MAX * NANOSECONDS)
		return -ETIME;
	downloads->name = name;
	downloads->started = clock_now(CLOCK_MONOTONIC);
	downloads->bytes = 0;
	downloads->stopped = 0;
	fd = downloads->library.find_debuginfo(downloads->client, build_id, (int)length, NULL);
	downloads->spent += clock_now(CLOCK_MONOTONIC) - downloads->started;
	downloads->received += downloads->bytes;
	return fd < 0 && downloads->stopped ? downloads->stopped : fd;
}

const char *downloads_failure_text(int err)
{
	switch (err) {
	case -ENOENT:
		return "no server has it";
	case -EINTR:
		return "interrupted";
	case -ETIME:
		return "not waited for any longer";
	case -EFBIG:
		return "larger than what is downloaded";
	case -ENOEXEC:
		return "not an ELF file of 64 bits, or a broken one";
	default:
		return strerror(-err);
	}
}
