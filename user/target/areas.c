#include "target/areas.h"

#include "target/pages.h"
#include "util/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Bits of a pagemap entry. */
#define PAGE_PRESENT (1ull << 63)
#define PAGE_SWAPPED (1ull << 62)
#define PAGE_OF_FILE (1ull << 61)
#define PAGE_FRAME   ((1ull << 55) - 1) /* its number; 0 without CAP_SYS_ADMIN */

/* Bits of /proc/kpageflags: the first page of a folio of several, and the others. */
#define FLAG_HEAD (1ull << 15)
#define FLAG_TAIL (1ull << 16)

struct areas {
	pid_t pid;
	FILE *smaps; /* owned */
	int pagemap;
	int flags; /* /proc/kpageflags; -1: not permitted */
	uint64_t page_size;
	uint64_t zeros; /* frame of the page of zeros; 0: unknown */
	char *line;	/* owned; */
	size_t capacity;
	bool has_next; /* the header of an area has been read already: */
	struct area next;
};

static int open_file(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 ? fd : errno == ENOENT ? -ESRCH : -errno;
}

int areas_open(pid_t pid, struct areas **out)
{
	struct areas *areas = calloc(1, sizeof(*areas));
	int fd, err = 0;

	if (!areas)
		return -ENOMEM;
	areas->pid = pid;
	areas->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	areas->zeros = pages_frame_of_zeros(areas->page_size);
	areas->pagemap = open_file(pid, "pagemap");
	areas->flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	fd = open_file(pid, "smaps");
	if (fd >= 0)
		areas->smaps = fdopen(fd, "r");
	if (areas->pagemap < 0)
		err = areas->pagemap;
	else if (!areas->smaps)
		err = fd < 0 ? fd : -ENOMEM;
	if (fd >= 0 && !areas->smaps)
		close(fd);
	if (err) {
		areas_free(areas);
		return err;
	}
	*out = areas;
	return 0;
}

void areas_free(struct areas *areas)
{
	if (!areas)
		return;
	if (areas->smaps)
		fclose(areas->smaps);
	if (areas->pagemap >= 0)
		close(areas->pagemap);
	if (areas->flags >= 0)
		close(areas->flags);
	free(areas->line);
	free(areas);
}

/* --- areas --- */

/* The kernel keeps all shared memory in file systems like tmpfs. Asking opens no file. */
static bool is_shared_memory(pid_t pid, const struct area *area)
{
	struct statfs st;
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, pid, area->start,
		 area->end);
	return !statfs(path, &st) && (st.f_type == TMPFS_MAGIC || st.f_type == HUGETLBFS_MAGIC);
}

/* "start-end perms offset major:minor inode   path" */
static bool parse_header(const struct areas *areas, struct area *area)
{
	unsigned long inode;
	int path_at = 0;
	const char *path;

	*area = (struct area){.page_size = areas->page_size};
	if (sscanf(areas->line, "%" SCNx64 "-%" SCNx64 " %*4s %*x %*x:%*x %lu %n", &area->start,
		   &area->end, &inode, &path_at) < 3 ||
	    !path_at)
		return false;
	path = areas->line + path_at;
	if (inode)
		area->kind = is_shared_memory(areas->pid, area) ? AREA_SHARED : AREA_FILE;
	else if (!strcmp(path, "[heap]\n"))
		area->kind = AREA_HEAP;
	else if (!strcmp(path, "[stack]\n"))
		area->kind = AREA_STACK;
	return true;
}

static void parse_figure(const char *line, struct area *area)
{
	uint64_t kib;

	if (sscanf(line, "Rss: %" SCNu64, &kib) == 1)
		area->resident = kib << 10;
	else if (sscanf(line, "KernelPageSize: %" SCNu64, &kib) == 1 && kib)
		area->page_size = kib << 10;
}

int areas_next(struct areas *areas, struct area *area)
{
	bool found = areas->has_next;

	*area = areas->next;
	areas->has_next = false;
	while (getline(&areas->line, &areas->capacity, areas->smaps) > 0) {
		if (!parse_header(areas, &areas->next)) {
			parse_figure(areas->line, area);
			continue;
		}
		if (found) {
			areas->has_next = true;
			return 1;
		}
		*area = areas->next;
		found = true;
	}
	return ferror(areas->smaps) ? -EIO : found;
}

/* --- pages --- */

/* `count` numbers of 64 bits from the number-th on; what cannot be read is 0. */
static void read_numbers(int fd, uint64_t number, uint64_t *to, size_t count)
{
	size_t size = count * sizeof(*to);
	ssize_t n = pread(fd, to, size, (off_t)(number * sizeof(*to)));
	size_t good = n < 0 ? 0 : (size_t)n;

	memset((uint8_t *)to + good, 0, size - good);
}

static void read_entries(const struct areas *areas, uint64_t address, uint64_t *entries,
			 size_t count)
{
	read_numbers(areas->pagemap, address / areas->page_size, entries, count);
}

bool areas_holds(struct areas *areas, uint64_t address, bool *file)
{
	uint64_t entry;

	read_entries(areas, address, &entry, 1);
	*file = (entry & PAGE_OF_FILE) != 0;
	if ((entry & PAGE_PRESENT) && areas->zeros && (entry & PAGE_FRAME) == areas->zeros)
		return false;
	return (entry & (PAGE_PRESENT | PAGE_SWAPPED)) != 0;
}

/* How many pages of its folio lie before a frame, and behind it. Folios are aligned to their size. */
static void folio_of(const struct areas *areas, uint64_t frame, uint64_t *before, uint64_t *behind)
{
	uint64_t first = frame / AREAS_FOLIO_MAX * AREAS_FOLIO_MAX, at = frame - first, end = at;
	uint64_t flags[AREAS_FOLIO_MAX];

	*before = *behind = 0;
	if (areas->flags < 0 || !frame)
		return;
	read_numbers(areas->flags, first, flags, AREAS_FOLIO_MAX);
	if (!(flags[at] & (FLAG_HEAD | FLAG_TAIL)))
		return;
	while (end + 1 < AREAS_FOLIO_MAX && (flags[end + 1] & FLAG_TAIL))
		end++;
	*behind = end - at;
	while (at > 0 && (flags[at] & FLAG_TAIL))
		at--;
	*before = frame - first - at;
}

/* Makes a block hold the pages from `before` before an address to `behind` behind it. */
static void extend(const struct areas *areas, const struct area *area, uint64_t address,
		   uint64_t before, uint64_t behind, struct areas_block *block)
{
	uint64_t page = areas->page_size;
	uint64_t start =
		before < (address - area->start) / page ? address - before * page : area->start;
	uint64_t end =
		behind < (area->end - address) / page ? address + (behind + 1) * page : area->end;

	block->start = start < block->start ? start : block->start;
	block->end = end > block->end ? end : block->end;
}

void areas_block(struct areas *areas, const struct area *area, uint64_t address, bool file,
		 struct areas_block *block)
{
	uint64_t page = areas->page_size, before, behind, entry, around;
	uint64_t entries[2 * AREAS_FOLIO_MAX];
	size_t count;

	read_entries(areas, address, &entry, 1);
	folio_of(areas, entry & PAGE_PRESENT ? entry & PAGE_FRAME : 0, &before, &behind);
	*block = (struct areas_block){.start = address, .end = address + page};
	extend(areas, area, address, before, behind, block);
	around = address / page % AREAS_AROUND;
	if (file)
		extend(areas, area, address, around, AREAS_AROUND - 1 - around, block);
	count = (size_t)((block->end - block->start) / page);
	read_entries(areas, block->start, entries, count);
	for (size_t i = 0; i < count; i++)
		block->resident += (entries[i] & PAGE_PRESENT) != 0;
}
