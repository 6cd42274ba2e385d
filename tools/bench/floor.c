/*
 * floor PID: empty BPF programs at the very probe sites that alloctrace uses in that process, and
 * attached in the same way: the least that a tracer by uprobes can cost.
 *
 * A session that returns 1 at the entry of what allocates, so that no return probe fires; a plain
 * entry for what frees. Needs a kernel with sessions (6.13). Says "attached N", holds the probes
 * until the end of its input, and prints nothing else but errors.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "binary/allocators.h"
#include "target/process.h"
#include "tracer/links.h"
#include "util/cleanup.h"

/* The probe sites of one kind in an image, as a link takes them. */
struct sites {
	uint64_t *offsets; /* owned */
	uint32_t count;
};

static void sites_deinit(struct sites *sites)
{
	free(sites->offsets);
}

/* return VALUE; nothing more. Its descriptor, or -errno. */
static int load_empty(uint32_t attach_type, int value)
{
	const struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = value},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = attach_type);

	return bpf_prog_load(BPF_PROG_TYPE_KPROBE, "floor", "GPL", program,
			     sizeof(program) / sizeof(*program), &options);
}

/* The link stays for as long as this process does. 0 or -errno. */
static int attach(int program, uint32_t attach_type, const struct image *image,
		  const struct sites *sites, pid_t pid)
{
	char path[64];
	struct uprobe_multi_attr attr = {
		.prog_fd = (uint32_t)program,
		.attach_type = attach_type,
		.path = (uintptr_t)path,
		.offsets = (uintptr_t)sites->offsets,
		.count = sites->count,
		.pid = (uint32_t)pid,
	};
	int fd;

	if (!sites->count)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", image->fd);
	fd = uprobe_multi_create(&attr);
	return fd < 0 ? fd : 0;
}

/* Probes into one image, if it is one of an allocator; adds their number to *probes. */
static int attach_image(const struct image *image, pid_t pid, int session, int entry,
			uint32_t *probes)
{
	CLEANUP(sites_deinit) struct sites allocate = {0};
	CLEANUP(sites_deinit) struct sites release = {0};
	struct allocator *allocator;
	int err = allocator_find(image, NULL, NULL, &allocator);

	if (err)
		return err == -ENOENT ? 0 : err;
	allocate.offsets = calloc(allocator->function_count, sizeof(*allocate.offsets));
	release.offsets = calloc(allocator->function_count, sizeof(*release.offsets));
	if (!allocate.offsets || !release.offsets)
		err = -ENOMEM;
	for (size_t i = 0; i < allocator->function_count && !err; i++) {
		const struct allocator_function *function = &allocator->functions[i];
		struct sites *sites = function->shape == SHAPE_FREE ? &release : &allocate;

		sites->offsets[sites->count++] = function->site_offset;
	}
	allocator_free(allocator);
	if (!err)
		err = attach(entry, ATTACH_UPROBE_MULTI, image, &release, pid);
	if (!err)
		err = attach(session, ATTACH_UPROBE_SESSION, image, &allocate, pid);
	*probes += allocate.count + release.count;
	return err;
}

static int attach_process(pid_t pid, uint32_t *probes)
{
	CLEANUP(cleanup_fd) int session = load_empty(ATTACH_UPROBE_SESSION, 1);
	CLEANUP(cleanup_fd) int entry = load_empty(ATTACH_UPROBE_MULTI, 0);
	struct process *process;
	int err;

	if (session < 0 || entry < 0)
		return session < 0 ? session : entry;
	err = process_open(pid, &process);
	if (err)
		return err;
	for (size_t i = 0; i < process->images.count && !err; i++)
		err = attach_image(process->images.items[i], pid, session, entry, probes);
	process_free(process);
	return err;
}

int main(int argc, char **argv)
{
	uint32_t probes = 0;
	char byte;
	int err;

	if (argc != 2) {
		fprintf(stderr, "usage: floor PID\n");
		return 2;
	}
	err = attach_process(atoi(argv[1]), &probes);
	if (err) {
		fprintf(stderr, "floor: %s\n", strerror(-err));
		return 1;
	}
	printf("attached %u\n", probes);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
