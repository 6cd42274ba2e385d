/*
 * Which ways of attaching this kernel has, by trying. libbpf 1.1 knows no uprobe_multi, so those links are made
 * by bpf(2) itself.
 */
#include "tracer/links.h"

#include "alloctrace.skel.h"
#include "tracer/internal.h"
#include "util/cleanup.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const tracer_kind_names[TRACER_KINDS] = {
	[TRACER_SESSION] = "session",
	[TRACER_MULTI] = "multi",
	[TRACER_PERF] = "perf",
};

int uprobe_multi_create(struct uprobe_multi_attr *attr)
{
	int fd = (int)syscall(SYS_bpf, BPF_LINK_CREATE, attr, sizeof(*attr));

	return fd < 0 ? -errno : fd;
}

static uint32_t attach_type(enum tracer_kind kind)
{
	return kind == TRACER_SESSION ? ATTACH_UPROBE_SESSION : ATTACH_UPROBE_MULTI;
}

bool attach_kind_exists(enum tracer_kind kind)
{
	/* r0 = 0; exit */
	const struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	uint64_t offset = 0;
	int err;

	if (kind == TRACER_PERF)
		return access("/sys/bus/event_source/devices/uprobe/type", F_OK) == 0;
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = attach_type(kind));
	CLEANUP(cleanup_fd)
	int fd = bpf_prog_load(BPF_PROG_TYPE_KPROBE, "probe_kind", "GPL", program,
			       sizeof(program) / sizeof(*program), &options);
	if (fd < 0)
		return false;
	struct uprobe_multi_attr attr = {
		.prog_fd = (uint32_t)fd,
		.attach_type = attach_type(kind),
		/* A folder cannot be probed: a kernel that knows the type gets as far as saying
		   that. */
		.path = (uintptr_t) "/",
		.offsets = (uintptr_t)&offset,
		.count = 1,
	};
	err = uprobe_multi_create(&attr);
	if (err >= 0)
		close(err);
	return err == -EBADF;
}

bool attach_can_guard(void)
{
	/* bpf_probe_write_user(0, stack, 1); never run */
	const struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = 1},
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_2, .src_reg = BPF_REG_10},
		{.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = BPF_REG_2, .imm = -8},
		{.code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = BPF_REG_10, .off = -8},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_1},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_probe_write_user},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	CLEANUP(cleanup_fd)
	int fd = bpf_prog_load(BPF_PROG_TYPE_KPROBE, "probe_write", "GPL", program,
			       sizeof(program) / sizeof(*program), NULL);

	return fd >= 0;
}

static volatile unsigned int self_test_calls;

/* The function that attach_sees_threads() probes. */
__attribute__((noinline)) static void *self_test_function(void *unused)
{
	self_test_calls++;
	return unused;
}

/* File offset of an address in our own executable: its segment is in the first object of the list.
 */
static int own_offset(struct dl_phdr_info *info, size_t size, void *context)
{
	uint64_t *offset = context, address = *offset - info->dlpi_addr;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

		if (segment->p_type == PT_LOAD && address >= segment->p_vaddr &&
		    address - segment->p_vaddr < segment->p_filesz) {
			*offset = address - segment->p_vaddr + segment->p_offset;
			return 1;
		}
	}
	return -1;
}

int attach_sees_threads(struct tracer *tracer)
{
	uint64_t offset = (uintptr_t)self_test_function;
	pthread_t thread;
	CLEANUP(cleanup_fd) int fd = -1;

	if (dl_iterate_phdr(own_offset, &offset) != 1)
		return -ENOEXEC;
	struct uprobe_multi_attr attr = {
		.prog_fd = (uint32_t)bpf_program__fd(tracer->bpf->progs.count_hit),
		.attach_type = ATTACH_UPROBE_MULTI,
		.path = (uintptr_t) "/proc/self/exe",
		.offsets = (uintptr_t)&offset,
		.count = 1,
		.pid = (uint32_t)getpid(),
	};
	fd = uprobe_multi_create(&attr);
	if (fd < 0)
		return fd;
	if (pthread_create(&thread, NULL, self_test_function, NULL))
		return -EAGAIN;
	pthread_join(thread, NULL);
	return tracer->bpf->bss->self_test_hits > 0;
}
