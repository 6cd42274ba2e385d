#include "tracer/mapped_file.h"

#include "util/cleanup.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <unistd.h>

#define AT_ONCE 64

/* The kernel writes whole ones. */
static int read_until(int fd, uint64_t start, struct mapped_file *out)
{
	struct mapped_file files[AT_ONCE];
	ssize_t size;

	while ((size = read(fd, files, sizeof(files))) != 0) {
		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0)
			return -errno;
		for (size_t i = 0; i < (size_t)size / sizeof(*files); i++) {
			if (files[i].start == start) {
				*out = files[i];
				return 0;
			}
		}
	}
	return -ENOENT;
}

int mapped_file_find(const struct bpf_program *program, pid_t pid, uint64_t start,
		     struct mapped_file *out)
{
	/* One thread, all of which have the same mappings. */
	union bpf_iter_link_info info = {.task.tid = (uint32_t)pid};
	LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &info,
		    .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(program, &options);
	CLEANUP(cleanup_fd) int fd = -1;
	int err;

	if (!link)
		return -errno;
	fd = bpf_iter_create(bpf_link__fd(link));
	err = fd < 0 ? -errno : read_until(fd, start, out);
	bpf_link__destroy(link);
	return err;
}
