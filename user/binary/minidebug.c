#include "binary/minidebug.h"

#include "util/cleanup.h"

#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Fedora's are some 1 % of the image. What a hostile one unpacks to, and takes for that, is limited. */
#define PACKED_MAX   ((size_t)64 << 20)
#define UNPACKED_MAX ((size_t)256 << 20)
#define MEMORY_MAX   ((uint64_t)256 << 20)

static int write_all(int fd, const uint8_t *bytes, size_t n)
{
	while (n) {
		ssize_t done = write(fd, bytes, n);

		if (done <= 0)
			return -EIO;
		bytes += done;
		n -= (size_t)done;
	}
	return 0;
}

static int unpack_with(lzma_stream *stream, const uint8_t *data, size_t size, int fd)
{
	uint8_t buffer[1 << 16];
	lzma_ret ret = LZMA_OK;

	stream->next_in = data;
	stream->avail_in = size;
	while (ret == LZMA_OK) {
		stream->next_out = buffer;
		stream->avail_out = sizeof(buffer);
		ret = lzma_code(stream, LZMA_FINISH);
		if (stream->total_out > UNPACKED_MAX)
			return -E2BIG;
		if (write_all(fd, buffer, sizeof(buffer) - stream->avail_out))
			return -EIO;
	}
	return ret == LZMA_STREAM_END ? 0 : ret == LZMA_MEMLIMIT_ERROR ? -E2BIG : -EINVAL;
}

int minidebug_open(const struct image *image, struct image **out)
{
	lzma_stream stream = LZMA_STREAM_INIT;
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	CLEANUP(cleanup_fd) int fd = -1;
	struct image *found;
	uint64_t vaddr;
	size_t size;
	int err = image_section(image, ".gnu_debugdata", PACKED_MAX, &data, &size, &vaddr),
	    unpacked;

	if (err)
		return err;
	fd = memfd_create("gnu_debugdata", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (lzma_stream_decoder(&stream, MEMORY_MAX, 0) != LZMA_OK)
		return -ENOMEM;
	err = unpack_with(&stream, data, size, fd);
	lzma_end(&stream);
	if (err)
		return err;
	unpacked = fd;
	fd = -1; /* image_open() takes it over */
	err = image_open(unpacked, image->path, &found);
	if (err)
		return err;
	/* What it names in turn is where the image is. */
	found->root = image->root;
	found->root_prefix = image->root_prefix;
	*out = found;
	return 0;
}
