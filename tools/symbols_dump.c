/*
 * symbols_dump [-r] [-s] [-n PASSES] [-t] FILE: what alloctrace finds at addresses of an ELF file.
 * Reads addresses as linked, in hex, one a line; prints each as llvm-symbolizer does, innermost
 * level first:
 *	FUNCTION
 *	FILE:LINE:0
 * and a blank line behind the last level. ?? stands for what is not known; columns are not looked
 * at.
 *	-r	names as they are in the file
 *	-s	in place of the column, the line where the function is declared
 *	-n	looks everything up so many times, with one symbolizer, and prints the last answers
 *	-t	tells on stderr, for each pass, the nanoseconds and (where the kernel counts them,
 *		else 0) the instructions, in the last pass with those of printing:
 *			pass NUMBER NANOSECONDS INSTRUCTIONS
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "binary/image.h"
#include "symbol/symbolizer.h"
#include "util/cleanup.h"
#include "util/vec.h"

#define LEVELS_MAX 256

struct addresses {
	uint64_t *items; /* owned */
	size_t count, capacity;
};

struct request {
	const char *path;
	bool raw, starts, timed;
	unsigned long passes;
};

static int read_addresses(struct addresses *addresses)
{
	CLEANUP(cleanup_free) char *line = NULL;
	size_t size = 0;

	while (getline(&line, &size, stdin) > 0) {
		char *end;
		uint64_t address = strtoull(line, &end, 16);
		int err = 0;

		if (end != line)
			err = vec_push(addresses, address);
		if (err)
			return err;
	}
	return 0;
}

static void print_levels(const struct symbol_frame *frames, int levels, bool starts)
{
	for (int i = 0; i < levels; i++) {
		const struct symbol_frame *frame = &frames[i];

		printf("%s\n%s:%" PRIu32 ":%" PRIu32 "\n", frame->name,
		       frame->file[0] ? frame->file : "??", frame->line,
		       starts ? frame->start_line : 0);
	}
	if (!levels)
		printf("??\n??:0:0\n");
	printf("\n");
}

static int resolve_all(const struct request *request, struct symbolizer *symbolizer,
		       const struct image *image, const struct addresses *addresses, bool print)
{
	static struct symbol_frame frames[LEVELS_MAX];

	vec_for_each(address, addresses) {
		int levels = symbolizer_resolve(symbolizer, image, *address, frames, LEVELS_MAX);

		if (levels < 0)
			return levels;
		if (print)
			print_levels(frames, levels, request->starts);
	}
	return 0;
}

/* --- the time it takes --- */

static int open_counter(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.exclude_kernel = 1,
	};

	return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* 0 where nothing counts. */
static uint64_t counted(int counter)
{
	uint64_t count;

	return counter >= 0 && read(counter, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --- all of it --- */

static int resolve_passes(const struct request *request, struct symbolizer *symbolizer,
			  const struct image *image, const struct addresses *addresses)
{
	CLEANUP(cleanup_fd) int counter = open_counter();
	int err = 0;

	for (unsigned long pass = 1; !err && pass <= request->passes; pass++) {
		uint64_t from = nanoseconds(), instructions = counted(counter);

		err = resolve_all(request, symbolizer, image, addresses, pass == request->passes);
		if (!err && request->timed)
			fprintf(stderr, "pass %lu %" PRIu64 " %" PRIu64 "\n", pass,
				nanoseconds() - from, counted(counter) - instructions);
	}
	return err;
}

static int dump(const struct request *request)
{
	struct symbolizer_options options = {.no_demangle = request->raw};
	struct symbolizer *symbolizer = NULL;
	struct addresses addresses = {0};
	struct image *image = NULL;
	int fd = open(request->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int err = fd < 0 ? -errno : image_open(fd, request->path, &image);

	if (!err)
		err = read_addresses(&addresses);
	if (!err)
		err = symbolizer_new(&options, &symbolizer);
	if (!err)
		err = resolve_passes(request, symbolizer, image, &addresses);
	symbolizer_free(symbolizer);
	image_free(image);
	free(addresses.items);
	return err;
}

static bool parse(int argc, char **argv, struct request *request)
{
	int option;

	*request = (struct request){.passes = 1};
	while ((option = getopt(argc, argv, "rstn:")) != -1) {
		if (option == 'r')
			request->raw = true;
		else if (option == 's')
			request->starts = true;
		else if (option == 't')
			request->timed = true;
		else if (option == 'n')
			request->passes = strtoul(optarg, NULL, 10);
		else
			return false;
	}
	request->path = argv[optind];
	return optind == argc - 1 && request->passes > 0;
}

int main(int argc, char **argv)
{
	struct request request;
	int err;

	if (!parse(argc, argv, &request)) {
		fprintf(stderr,
			"usage: symbols_dump [-r] [-s] [-n PASSES] [-t] FILE < ADDRESSES\n");
		return 2;
	}
	err = dump(&request);
	if (err)
		fprintf(stderr, "symbols_dump: %s: %s\n", request.path, strerror(-err));
	return err ? 1 : 0;
}
