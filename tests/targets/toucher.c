/*
 * Touches memory that is new, by a way and in an amount that the tester gives: reads lines "WAY BYTES"
 * and says "touched BYTES" after each, bytes of whole pages that are in memory by then because of it.
 * toucher FILE: FILE is one of 64 MiB.
 *
 * It takes its time, so that it is not over before the samples are counted.
 */
#include "target.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE	   4096
#define HEAP_BLOCK 1000
#define CHUNK	   (16 * PAGE)
#define READ_CHUNK (16 * CHUNK)
#define CHUNK_NS   500000
#define HUGE	   (2 << 20)
#define FILE_SIZE  (64 << 20)
#define STACK_SIZE (48 << 20)
#define STACK_STEP 1024

static const char *file_path;

static void pause_after_chunk(void)
{
	struct timespec left = {.tv_nsec = CHUNK_NS};

	nanosleep(&left, NULL);
}

static void *map(size_t size, int flags, int fd)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (at == MAP_FAILED)
		target_die("mmap of %zu bytes\n", size);
	return at;
}

/* --- the sites: each touches one chunk --- */

NAMED_SITE static void *site_heap(size_t size)
{
	void *block = malloc(size);

	return block ? memset(block, 1, size) : NULL;
}

NAMED_SITE static void site_mapped(char *at)
{
	memset(at, 1, CHUNK);
}

NAMED_SITE static void site_loop(char *at)
{
	for (volatile char *page = at; page < at + CHUNK; page += PAGE)
		*page = 1;
}

NAMED_SITE static void site_file(char *at)
{
	memset(at, 1, CHUNK);
}

NAMED_SITE static unsigned int site_file_read(const char *at)
{
	unsigned int sum = 0;

	for (const volatile char *page = at; page < at + READ_CHUNK; page += PAGE)
		sum += (unsigned char)*page;
	return sum;
}

NAMED_SITE static void site_shared(char *at)
{
	memset(at, 1, CHUNK);
}

NAMED_SITE static void site_churn(char *at)
{
	memset(at, 1, CHUNK);
}

NAMED_SITE static unsigned int site_zeros(const char *at)
{
	return *(const volatile char *)at;
}

/* The kernel touches it. */
NAMED_SITE static void site_system_call(int fd, char *at)
{
	if (read(fd, at, CHUNK) != CHUNK)
		target_die("read\n");
}

/* One frame of STACK_STEP bytes and more in each call. */
NAMED_SITE static char *site_stack(char *end, size_t depth)
{
	volatile char frame[STACK_STEP];

	frame[0] = (char)depth;
	if ((char *)frame > end)
		end = site_stack(end, depth + 1);
	frame[STACK_STEP - 1] = end[0];
	if (depth % 64 == 0)
		pause_after_chunk();
	return end;
}

/* --- the ways --- */

static void touch_heap(size_t bytes)
{
	for (size_t done = 0; done < bytes; done += HEAP_BLOCK + 16) {
		site_heap(HEAP_BLOCK);
		if (done % CHUNK < HEAP_BLOCK)
			pause_after_chunk();
	}
}

static void in_chunks(char *at, size_t bytes, void (*touch)(char *at))
{
	for (size_t done = 0; done < bytes; done += CHUNK) {
		touch(at + done);
		pause_after_chunk();
	}
}

static int open_file(int flags)
{
	int fd = open(file_path, flags);

	if (fd < 0)
		target_die("cannot open %s\n", file_path);
	return fd;
}

/* Page by page: without reading ahead, the kernel has no reason for larger blocks. */
static void write_file(size_t bytes)
{
	char *at = map(bytes, MAP_SHARED, open_file(O_RDWR));

	madvise(at, bytes, MADV_RANDOM);
	in_chunks(at, bytes, site_file);
}

/* Through as many mappings as it takes; each has the pages of its own accord. */
static void read_file(size_t bytes)
{
	int fd = open_file(O_RDONLY);

	for (size_t mapped = 0; mapped < bytes; mapped += FILE_SIZE) {
		char *at = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

		if (at == MAP_FAILED)
			target_die("mmap of %s\n", file_path);
		madvise(at, FILE_SIZE, MADV_NOHUGEPAGE);
		for (size_t done = 0; done < FILE_SIZE; done += READ_CHUNK) {
			site_file_read(at + done);
			pause_after_chunk();
		}
	}
	close(fd);
}

static void read_zeros(size_t bytes)
{
	char *at = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	for (size_t done = 0; done < bytes; done += PAGE) {
		site_zeros(at + done);
		if (done % CHUNK == 0)
			pause_after_chunk();
	}
}

/* Given back with its mapping, and without. */
static void churn(size_t bytes)
{
	char *kept = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	for (size_t done = 0; done < bytes; done += 2 * CHUNK) {
		char *at = map(CHUNK, MAP_PRIVATE | MAP_ANONYMOUS, -1);

		site_churn(at);
		munmap(at, CHUNK);
		site_churn(kept + done);
		madvise(kept + done, CHUNK, MADV_DONTNEED);
		pause_after_chunk();
	}
}

static void touch_huge(size_t bytes)
{
	char *at = map(bytes + HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	at = (char *)(((uintptr_t)at + HUGE - 1) / HUGE * HUGE);
	madvise(at, bytes, MADV_HUGEPAGE);
	in_chunks(at, bytes, site_mapped);
}

static void touch_by_system_calls(size_t bytes)
{
	char *at = map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int fd = open("/dev/zero", O_RDONLY);

	for (size_t done = 0; done < bytes; done += CHUNK) {
		site_system_call(fd, at + done);
		pause_after_chunk();
	}
	close(fd);
}

static size_t thread_bytes;

static void *run_thread(void *context)
{
	char here;

	site_stack(&here - thread_bytes, 0);
	target_say("touched %zu\n", thread_bytes);
	for (;;)
		pause();
	return context;
}

/* The thread stays, and tells itself. */
static void touch_stack(size_t bytes)
{
	pthread_attr_t attributes;
	pthread_t thread;

	thread_bytes = bytes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	if (pthread_create(&thread, &attributes, run_thread, NULL))
		target_die("no thread\n");
}

static bool touch(const char *way, size_t bytes)
{
	int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

	if (!strcmp(way, "heap"))
		touch_heap(bytes);
	else if (!strcmp(way, "mapped"))
		in_chunks(map(bytes, anonymous, -1), bytes, site_mapped);
	else if (!strcmp(way, "loop"))
		in_chunks(map(bytes, anonymous, -1), bytes, site_loop);
	else if (!strcmp(way, "file"))
		write_file(bytes);
	else if (!strcmp(way, "file_read"))
		read_file(bytes);
	else if (!strcmp(way, "shared"))
		in_chunks(map(bytes, MAP_SHARED | MAP_ANONYMOUS, -1), bytes, site_shared);
	else if (!strcmp(way, "zeros"))
		read_zeros(bytes);
	else if (!strcmp(way, "churn"))
		churn(bytes);
	else if (!strcmp(way, "huge"))
		touch_huge(bytes);
	else if (!strcmp(way, "system_call"))
		touch_by_system_calls(bytes);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	char line[64], way[32];
	size_t bytes, length;

	file_path = argc > 1 ? argv[1] : "/dev/null";
	free(site_heap(HEAP_BLOCK));
	target_ready();
	for (;;) {
		for (length = 0; length < sizeof(line) - 1; length++) {
			if (read(STDIN_FILENO, &line[length], 1) != 1)
				return 0;
			if (line[length] == '\n')
				break;
		}
		line[length] = '\0';
		if (sscanf(line, "%31s %zu", way, &bytes) != 2)
			target_die("what is '%s'?\n", line);
		if (!strcmp(way, "stack"))
			touch_stack(bytes);
		else if (touch(way, bytes))
			target_say("touched %zu\n", bytes);
		else
			target_die("no way %s\n", way);
	}
}
