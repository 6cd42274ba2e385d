#include "target/pages.h"

#include "util/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Bits of a pagemap entry. */
#define PAGE_PRESENT (1ull << 63)
#define PAGE_OF_FILE (1ull << 61)
#define PAGE_FRAME   ((1ull << 55) - 1) /* its number; 0 without CAP_SYS_ADMIN */

/* Entries that are read at once. */
#define AT_ONCE 4096

/* linux/fs.h of 6.7, for older headers. */
struct scan_region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN		  _IOWR('f', 16, struct scan)
#define SCAN_OF_FILE	  (1 << 2)
#define SCAN_PRESENT	  (1 << 3)
#define SCAN_ZEROS	  (1 << 5)
#define SCAN_REGIONS	  (AT_ONCE * sizeof(uint64_t) / sizeof(struct scan_region))
#define SCAN_PAGES_ATMOST (1 << 18) /* in one go, in which the process cannot map anything */

uint64_t pages_frame_of_zeros(uint64_t page_size)
{
	CLEANUP(cleanup_fd) int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	volatile const uint8_t *page =
		mmap(NULL, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t entry = 0;

	if (page == MAP_FAILED)
		return 0;
	(void)*page;
	if (fd >= 0 && pread(fd, &entry, sizeof(entry),
			     (off_t)((uintptr_t)page / page_size * sizeof(entry))) != sizeof(entry))
		entry = 0;
	munmap((void *)(uintptr_t)page, page_size);
	return entry & PAGE_FRAME;
}

/* The next resident pages of anonymous memory from `start` on: regions, and how far it went. Their number or -errno. */
static int scan(struct pages *pages, uint64_t start, uint64_t end, uint64_t *walked)
{
	struct scan scan = {
		.size = sizeof(scan),
		.start = start,
		.end = end,
		.regions = (uintptr_t)pages->buffer,
		.region_count = SCAN_REGIONS,
		.max_pages = SCAN_PAGES_ATMOST,
		.category_mask = SCAN_PRESENT | SCAN_OF_FILE | SCAN_ZEROS,
		.category_inverted = SCAN_OF_FILE | SCAN_ZEROS,
		.return_mask = SCAN_PRESENT,
	};
	int count = ioctl(pages->pagemap, SCAN, &scan);

	*walked = scan.walk_end;
	return count < 0 ? -errno : count;
}

int pages_open(pid_t pid, struct pages *pages)
{
	uint64_t walked;
	char path[64];

	*pages = (struct pages){
		.size = (uint64_t)sysconf(_SC_PAGESIZE),
		.left = PAGES_MAX,
		.buffer = malloc(AT_ONCE * sizeof(*pages->buffer)),
	};
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pages->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pages->pagemap < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (!pages->buffer)
		return -ENOMEM;
	pages->scans = scan(pages, 0, pages->size, &walked) >= 0;
	if (!pages->scans)
		pages->zeros = pages_frame_of_zeros(pages->size);
	return 0;
}

void pages_deinit(struct pages *pages)
{
	if (pages->pagemap >= 0)
		close(pages->pagemap);
	free(pages->buffer);
}

/* Entries from the page at `start` on, at most AT_ONCE and up to `end`: how many, 0 at the end of memory. */
static size_t read_entries(struct pages *pages, uint64_t start, uint64_t end)
{
	uint64_t wanted = (end - start) / pages->size;
	ssize_t n = pread(pages->pagemap, pages->buffer,
			  (wanted < AT_ONCE ? wanted : AT_ONCE) * sizeof(*pages->buffer),
			  (off_t)(start / pages->size * sizeof(*pages->buffer)));

	return n < 0 ? 0 : (size_t)n / sizeof(*pages->buffer);
}

uint64_t pages_present(struct pages *pages, uint64_t start, uint64_t end)
{
	uint64_t present = 0;
	size_t count;

	for (; start < end && (count = read_entries(pages, start, end));
	     start += count * pages->size) {
		for (size_t i = 0; i < count; i++)
			present += (pages->buffer[i] & PAGE_PRESENT) != 0;
	}
	return present * pages->size;
}

/* Before 6.7: by a look at each page. */
static int read_anonymous(struct pages *pages, uint64_t start, uint64_t end, uint64_t *bytes)
{
	uint64_t found = 0;
	size_t count;

	if ((end - start) / pages->size > pages->left)
		return -E2BIG;
	pages->left -= (end - start) / pages->size;
	for (; start < end && (count = read_entries(pages, start, end));
	     start += count * pages->size) {
		for (size_t i = 0; i < count; i++) {
			uint64_t entry = pages->buffer[i];

			found += (entry & PAGE_PRESENT) && !(entry & PAGE_OF_FILE) &&
				 !(pages->zeros && (entry & PAGE_FRAME) == pages->zeros);
		}
	}
	*bytes = found * pages->size;
	return 0;
}

int pages_anonymous(struct pages *pages, uint64_t start, uint64_t end, uint64_t *bytes)
{
	const struct scan_region *regions = (const void *)pages->buffer;
	uint64_t found = 0;

	if (!pages->scans)
		return read_anonymous(pages, start, end, bytes);
	while (start < end) {
		uint64_t walked, before = found;
		int count = scan(pages, start, end, &walked);

		if (count < 0)
			return count;
		for (int i = 0; i < count; i++)
			found += regions[i].end - regions[i].start;
		if ((found - before) / pages->size > pages->left)
			return -E2BIG;
		pages->left -= (found - before) / pages->size;
		if (walked <= start)
			break;
		start = walked;
	}
	*bytes = found;
	return 0;
}
