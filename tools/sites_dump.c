/*
 * sites_dump FILE...: where alloctrace would probe the allocators that ELF files define. A line for
 * each function, with addresses as linked:
 *	FILE FUNCTION SHAPE ENTRY SIZE SITE emulated|stepped ARGUMENT=REGISTER,...
 * which tells of each argument (0 = the first) that is wanted where it is at the site; or, for one
 * that is not probed,
 *	FILE FUNCTION left out: REASON
 * Files without an allocator are passed over.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "binary/allocators.h"
#include "binary/image.h"
#include "util/vec.h"

static const char *const shapes[SHAPE_COUNT] = {
	[SHAPE_MALLOC] = "malloc",
	[SHAPE_CALLOC] = "calloc",
	[SHAPE_REALLOC] = "realloc",
	[SHAPE_REALLOCARRAY] = "reallocarray",
	[SHAPE_POSIX_MEMALIGN] = "posix_memalign",
	[SHAPE_FREE] = "free",
};

static void print_register(uint16_t machine, uint8_t number)
{
	static const char *const x86[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					  "r8",	 "r9",	"r10", "r11", "r12", "r13", "r14", "r15"};

	if (machine == EM_X86_64 && number < sizeof(x86) / sizeof(*x86))
		printf("%s", x86[number]);
	else
		printf("x%u", number);
}

static void print_function(const struct image *image, const char *path,
			   const struct allocator_function *function)
{
	printf("%s %s %s %" PRIx64 " %" PRIu64 " %" PRIx64 " %s ", path, function->name,
	       shapes[function->shape], function->vaddr, function->size, function->site,
	       function->emulated ? "emulated" : "stepped");
	for (size_t i = 0; i < shape_operands(function->shape); i++) {
		printf("%s%u=", i ? "," : "", function->arguments[i]);
		print_register(image->machine, function->registers[i]);
	}
	printf("\n");
}

/* 0, also without an allocator; -errno. */
static int dump(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct allocator *allocator;
	struct image *image;
	int err = fd < 0 ? -errno : image_open(fd, path, &image);

	if (err)
		return err;
	err = allocator_find(image, NULL, NULL, &allocator);
	if (!err) {
		for (size_t i = 0; i < allocator->function_count; i++)
			print_function(image, path, &allocator->functions[i]);
		vec_for_each(left_out, &allocator->left_out)
			printf("%s %s left out: %s\n", path, left_out->name, left_out->reason);
		allocator_free(allocator);
	}
	image_free(image);
	return err == -ENOENT ? 0 : err;
}

int main(int argc, char **argv)
{
	int status = 0;

	for (int i = 1; i < argc; i++) {
		int err = dump(argv[i]);

		if (err) {
			fprintf(stderr, "sites_dump: %s: %s\n", argv[i], strerror(-err));
			status = 1;
		}
	}
	return status;
}
