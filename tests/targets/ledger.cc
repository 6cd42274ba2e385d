/*
 * ledger: allocates in every way there is, from sites with names, and keeps the books.
 *
 *	ledger [--threads N] [--rounds N] [--seed S] [--sizes mixed] [--period R]
 *
 * Says "ready PID", waits for a line, works, prints the books as one line of JSON
 *	{"malloc": {"alloc_objects": 1, "alloc_bytes": 1, "inuse_objects": 1, "inuse_bytes": 1}, ...}
 * waits for another line, so that a tracer can leave while everything is still alive, and ends.
 * The end of stdin counts as a line.
 *
 * Between the first line and the last nothing here allocates but the sites: the books are in static
 * memory, one set per thread, and are added up at the end. What counts:
 * - sizes are those asked for: calloc(3, 5) is one object of 15 bytes, malloc(0) one of 0 bytes;
 * - a successful realloc is a free of the old block and an allocation at the realloc's site;
 * - realloc(p, 0) frees p and allocates nothing;
 * - a call that fails changes nothing.
 *
 * Without --sizes every round visits every site once, with sizes from a few bytes to beyond the
 * mmap threshold. With --sizes mixed it is the "bulk" sites that work, some 24 MB a round, and the
 * books also hold the variance of each figure's estimate when allocations are sampled every R bytes:
 * a sum of (1-p)/p for objects and s^2 (1-p)/p for bytes, p = 1 - exp(-s/R).
 */
#include "target.h"

#include <cmath>
#include <cstdint>
#include <malloc.h>
#include <new>
#include <pthread.h>

namespace
{

const int MAX_THREADS = 16;
const size_t MAX_KEPT = 1 << 18;   /* per thread */
const size_t RING = 512;	   /* blocks of --sizes mixed that live for a while, per thread */
const size_t TOO_LARGE = ~0ul / 4; /* no allocator can have that */
const unsigned int KEEP_ONE_IN = 8;

struct request {
	size_t size;
	size_t count;	  /* calloc, reallocarray */
	size_t alignment; /* posix_memalign, aligned_alloc, memalign */
	void *old;	  /* realloc */
	const char *text; /* strdup */
};

void *call_posix_memalign(const request &q)
{
	void *block = nullptr;

	return posix_memalign(&block, q.alignment, q.size) ? nullptr : block;
}

} // namespace

/*
 * Every site: its name, what it calls, what gives the block back. Three functions each: a frame or
 * two may be lost where a walk by frame pointers passes a libc or libstdc++ built without them.
 */
#define EXACT_SITES(X)                                                                             \
	X(malloc, malloc(q.size), free)                                                            \
	X(malloc_zero, malloc(0), free)                                                            \
	X(malloc_fail, malloc(TOO_LARGE), free)                                                    \
	X(malloc_large, malloc(q.size), free)                                                      \
	X(calloc, calloc(q.count, q.size), free)                                                   \
	X(calloc_overflow, calloc(TOO_LARGE, 16), free)                                            \
	X(realloc_null, realloc(nullptr, q.size), free)                                            \
	X(realloc_grow_old, malloc(q.size), free)                                                  \
	X(realloc_grow, realloc(q.old, q.size), free)                                              \
	X(realloc_shrink_old, malloc(q.size), free)                                                \
	X(realloc_shrink, realloc(q.old, q.size), free)                                            \
	X(realloc_large_old, malloc(q.size), free)                                                 \
	X(realloc_large, realloc(q.old, q.size), free)                                             \
	X(realloc_zero_old, malloc(q.size), free)                                                  \
	X(realloc_zero, realloc(q.old, 0), free)                                                   \
	X(realloc_fail_old, malloc(q.size), free)                                                  \
	X(realloc_fail, realloc(q.old, TOO_LARGE), free)                                           \
	X(posix_memalign, call_posix_memalign(q), free)                                            \
	X(posix_memalign_16, call_posix_memalign(q), free)                                         \
	X(posix_memalign_einval, call_posix_memalign(q), free)                                     \
	X(aligned_alloc, aligned_alloc(q.alignment, q.size), free)                                 \
	X(aligned_alloc_16, aligned_alloc(q.alignment, q.size), free)                              \
	X(memalign, memalign(q.alignment, q.size), free)                                           \
	X(valloc, valloc(q.size), free)                                                            \
	X(reallocarray_null, reallocarray(nullptr, q.count, q.size), free)                         \
	X(reallocarray, reallocarray(q.old, q.count, q.size), free)                                \
	X(reallocarray_overflow, reallocarray(q.old, TOO_LARGE, 16), free)                         \
	X(strdup, strdup(q.text), free)                                                            \
	X(new, operator new(q.size), operator delete)                                              \
	X(new_array, operator new[](q.size), operator delete[])                                    \
	X(new_nothrow, operator new(q.size, std::nothrow), operator delete)                        \
	X(new_aligned, operator new(q.size, std::align_val_t(64)), free)                           \
	X(remote, malloc(q.size), free)

/* name, call, release, middle size in bytes, allocations a round */
#define BULK_SITES(X)                                                                              \
	X(bulk_24, malloc(q.size), free, 24, 8192)                                                 \
	X(bulk_64, operator new(q.size), operator delete, 64, 4096)                                \
	X(bulk_128, malloc(q.size), free, 128, 3000)                                               \
	X(bulk_256, calloc(1, q.size), free, 256, 4096)                                            \
	X(bulk_384, malloc(q.size), free, 384, 2730)                                               \
	X(bulk_512, realloc(nullptr, q.size), free, 512, 2048)                                     \
	X(bulk_768, malloc(q.size), free, 768, 1365)                                               \
	X(bulk_1k, operator new[](q.size), operator delete[], 1024, 1024)                          \
	X(bulk_1k5, malloc(q.size), free, 1536, 683)                                               \
	X(bulk_2k, call_posix_memalign(q), free, 2048, 512)                                        \
	X(bulk_3k, malloc(q.size), free, 3072, 341)                                                \
	X(bulk_4k, malloc(q.size), free, 4096, 256)                                                \
	X(bulk_6k, aligned_alloc(q.alignment, q.size), free, 6144, 170)                            \
	X(bulk_8k, malloc(q.size), free, 8192, 128)                                                \
	X(bulk_12k, calloc(4, q.size / 4), free, 12288, 85)                                        \
	X(bulk_16k, malloc(q.size), free, 16384, 64)                                               \
	X(bulk_24k, malloc(q.size), free, 24576, 42)                                               \
	X(bulk_32k, realloc(nullptr, q.size), free, 32768, 32)                                     \
	X(bulk_48k, malloc(q.size), free, 49152, 21)                                               \
	X(bulk_64k, malloc(q.size), free, 65536, 16)                                               \
	X(bulk_96k, operator new(q.size), operator delete, 98304, 10)                              \
	X(bulk_128k, malloc(q.size), free, 131072, 8)                                              \
	X(bulk_256k, malloc(q.size), free, 262144, 4)                                              \
	X(bulk_512k, malloc(q.size), free, 524288, 2)                                              \
	X(bulk_1m, malloc(q.size), free, 1048576, 1)

#define DEFINE_SITE(name, call, release, ...)                                                      \
	extern "C" NAMED_SITE void *site_##name(const request &q)                                  \
	{                                                                                          \
		(void)q;                                                                           \
		return call;                                                                       \
	}                                                                                          \
	extern "C" NAMED_SITE void *mid_##name(const request &q)                                   \
	{                                                                                          \
		return site_##name(q);                                                             \
	}                                                                                          \
	extern "C" NAMED_SITE void *path_##name(const request &q)                                  \
	{                                                                                          \
		return mid_##name(q);                                                              \
	}                                                                                          \
	static void release_##name(void *block)                                                    \
	{                                                                                          \
		release(block);                                                                    \
	}
EXACT_SITES(DEFINE_SITE)
BULK_SITES(DEFINE_SITE)
#undef DEFINE_SITE

namespace
{

enum site_id {
#define SITE_ID(name, ...) SITE_##name,
	EXACT_SITES(SITE_ID) BULK_SITES(SITE_ID) SITES,
#undef SITE_ID
	BULK_FIRST = SITE_bulk_24,
};

const struct {
	const char *name;
	void *(*call)(const request &q);
	void (*release)(void *block);
	size_t bulk_size;
	unsigned int bulk_count;
} sites[] = {
#define SITE_ROW(name, call, release) {#name, path_##name, release_##name, 0, 0},
	EXACT_SITES(SITE_ROW)
#undef SITE_ROW
#define SITE_ROW(name, call, release, size, count)                                                 \
	{#name, path_##name, release_##name, size, count},
		BULK_SITES(SITE_ROW)
#undef SITE_ROW
};

struct figures {
	int64_t alloc_objects, alloc_bytes, inuse_objects, inuse_bytes;
	double alloc_objects_variance, alloc_bytes_variance;
	double inuse_objects_variance, inuse_bytes_variance;
};

struct block {
	void *start;
	size_t size;
	uint32_t site;
};

struct options {
	int threads = 4;
	unsigned int rounds = 100;
	uint64_t seed = 1;
	bool mixed = false;
	double period = 0;
} options;

/* One thread's books and blocks. Static, so that keeping books never allocates. */
struct worker {
	int number;
	uint64_t random;
	figures books[SITES];
	block kept[MAX_KEPT];
	size_t kept_count;
	block handed[MAX_KEPT]; /* for the next thread to free */
	size_t handed_count;
	block ring[RING];
	char text[4096];
} workers[MAX_THREADS];

pthread_barrier_t start_line, all_allocated, finish_line;

/* splitmix64: the same numbers from the same seed, on every machine. */
uint64_t draw(worker &w)
{
	uint64_t z = (w.random += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

void book(worker &w, const block &b, bool allocated)
{
	figures &f = w.books[b.site];
	int sign = allocated ? 1 : -1;

	f.inuse_objects += sign;
	f.inuse_bytes += sign * (int64_t)b.size;
	if (allocated) {
		f.alloc_objects += 1;
		f.alloc_bytes += (int64_t)b.size;
	}
	if (options.period > 0) {
		double size = b.size ? (double)b.size : 1;
		double p = -expm1(-size / options.period);
		double objects = (1 - p) / p;

		f.inuse_objects_variance += sign * objects;
		f.inuse_bytes_variance += sign * objects * size * size;
		if (allocated) {
			f.alloc_objects_variance += objects;
			f.alloc_bytes_variance += objects * size * size;
		}
	}
}

block allocate(worker &w, site_id site, const request &q, size_t size)
{
	block b = {sites[site].call(q), size, (uint32_t)site};

	if (!b.start)
		target_die("%s of %zu bytes failed\n", sites[site].name, size);
	if (size) {
		((volatile char *)b.start)[0] = 1;
		((volatile char *)b.start)[size - 1] = 1;
	}
	book(w, b, true);
	return b;
}

void must_fail(site_id site, const request &q)
{
	if (sites[site].call(q))
		target_die("%s succeeded\n", sites[site].name);
}

void give_back(worker &w, const block &b)
{
	sites[b.site].release(b.start);
	book(w, b, false);
}

void put(block *list, size_t *count, const block &b)
{
	if (*count == MAX_KEPT)
		target_die("too many live blocks: fewer rounds, please\n");
	list[(*count)++] = b;
}

/* A block's further life: freed at once, by the next thread, or never. */
void dispose(worker &w, const block &b)
{
	switch (draw(w) % 4) {
	case 0:
	case 1:
		give_back(w, b);
		break;
	case 2:
		put(w.kept, &w.kept_count, b);
		break;
	default:
		put(w.handed, &w.handed_count, b);
	}
}

void plain(worker &w, site_id site, const request &q, size_t size)
{
	dispose(w, allocate(w, site, q, size));
}

/* One malloc, then one call that takes it over. */
void reallocate(worker &w, site_id from, size_t size, site_id to, size_t count, size_t new_size)
{
	request first = {size, 1, 0, nullptr, nullptr};
	block old = allocate(w, from, first, size);
	request second = {new_size, count, 0, old.start, nullptr};
	block grown = allocate(w, to, second, count * new_size);

	book(w, old, false);
	dispose(w, grown);
}

void exact_round(worker &w)
{
	size_t size = 1 + draw(w) % 2000;
	size_t count = 1 + draw(w) % 8;
	size_t large =
		(100 << 10) + draw(w) % (400 << 10); /* on both sides of the mmap threshold */
	request q = {size, count, 0, nullptr, nullptr};
	block old;

	plain(w, SITE_malloc, q, size);
	plain(w, SITE_malloc_zero, q, 0);
	must_fail(SITE_malloc_fail, q);
	q.size = large;
	plain(w, SITE_malloc_large, q, large);
	q.size = size;

	plain(w, SITE_calloc, q, count * size);
	must_fail(SITE_calloc_overflow, q);

	plain(w, SITE_realloc_null, q, size);
	reallocate(w, SITE_realloc_grow_old, size, SITE_realloc_grow, 1, size * 3 + 1);
	reallocate(w, SITE_realloc_shrink_old, size, SITE_realloc_shrink, 1, size / 2 + 1);
	if (draw(w) % 2)
		reallocate(w, SITE_realloc_large_old, size, SITE_realloc_large, 1, large);
	else
		reallocate(w, SITE_realloc_large_old, large, SITE_realloc_large, 1, size);
	old = allocate(w, SITE_realloc_zero_old, q, size);
	q.old = old.start;
	must_fail(SITE_realloc_zero, q); /* NULL is what glibc returns for it */
	book(w, old, false);
	old = allocate(w, SITE_realloc_fail_old, q, size);
	q.old = old.start;
	must_fail(SITE_realloc_fail, q);
	must_fail(SITE_reallocarray_overflow, q);
	dispose(w, old);

	q.alignment = 32u << draw(w) % 8;
	plain(w, SITE_posix_memalign, q, size);
	plain(w, SITE_memalign, q, size);
	q.alignment = 16;
	plain(w, SITE_posix_memalign_16, q, size);
	plain(w, SITE_aligned_alloc_16, q, size);
	q.alignment = 3;
	must_fail(SITE_posix_memalign_einval, q);
	q.alignment = 64;
	q.size = (size + 63) & ~63ul;
	plain(w, SITE_aligned_alloc, q, q.size);
	plain(w, SITE_new_aligned, q,
	      q.size); /* libstdc++ asks aligned_alloc for whole multiples */
	q.size = size;
	plain(w, SITE_valloc, q, size);

	plain(w, SITE_reallocarray_null, q, count * size);
	reallocate(w, SITE_realloc_grow_old, size, SITE_reallocarray, count + 1, size);

	memset(w.text, 'x', size);
	w.text[size] = '\0';
	q.text = w.text;
	plain(w, SITE_strdup, q, size + 1);

	plain(w, SITE_new, q, size);
	plain(w, SITE_new_array, q, size);
	plain(w, SITE_new_nothrow, q, size);

	put(w.handed, &w.handed_count, allocate(w, SITE_remote, q, size));
}

void bulk_allocate(worker &w, site_id site)
{
	size_t middle = sites[site].bulk_size;
	/* A multiple of 4: one of the sites allocates four quarters. */
	size_t size = (middle / 2 + draw(w) % middle + 4) & ~3ul;
	request q = {size, 1, 64, nullptr, nullptr};
	block b = allocate(w, site, q, size);
	block *slot = &w.ring[draw(w) % RING];

	if (draw(w) % KEEP_ONE_IN == 0) {
		put(w.kept, &w.kept_count, b);
		return;
	}
	if (slot->start)
		give_back(w, *slot);
	*slot = b;
}

void bulk_round(worker &w)
{
	for (int site = BULK_FIRST; site < SITES; site++)
		for (unsigned int i = 0; i < sites[site].bulk_count; i++)
			bulk_allocate(w, (site_id)site);
}

void *work(void *argument)
{
	worker &w = *(worker *)argument;
	worker &previous = workers[(w.number + options.threads - 1) % options.threads];
	unsigned int rounds = options.rounds;

	if (options.mixed) /* shared out, so that the volume does not depend on the threads */
		rounds = rounds / options.threads +
			 ((unsigned int)w.number < rounds % options.threads);
	pthread_barrier_wait(&start_line);
	for (unsigned int i = 0; i < rounds; i++)
		options.mixed ? bulk_round(w) : exact_round(w);
	pthread_barrier_wait(&all_allocated);
	for (size_t i = 0; i < previous.handed_count; i++)
		give_back(w, previous.handed[i]);
	pthread_barrier_wait(&finish_line);
	/* Ending would free what the C library keeps for a thread: stay. */
	for (;;)
		pause();
}

/* In a function of its own, and without stdio: printing must not allocate either. */
void print_books()
{
	static char line[1 << 16];
	size_t at = 0;

	line[at++] = '{';
	for (int site = 0; site < SITES; site++) {
		figures sum = {};

		if (options.mixed != (site >= BULK_FIRST))
			continue;
		for (int i = 0; i < options.threads; i++) {
			const figures &f = workers[i].books[site];

			sum.alloc_objects += f.alloc_objects;
			sum.alloc_bytes += f.alloc_bytes;
			sum.inuse_objects += f.inuse_objects;
			sum.inuse_bytes += f.inuse_bytes;
			sum.alloc_objects_variance += f.alloc_objects_variance;
			sum.alloc_bytes_variance += f.alloc_bytes_variance;
			sum.inuse_objects_variance += f.inuse_objects_variance;
			sum.inuse_bytes_variance += f.inuse_bytes_variance;
		}
		at += (size_t)snprintf(line + at, sizeof(line) - at,
				       "%s\"%s\": {\"alloc_objects\": %lld, \"alloc_bytes\": %lld, "
				       "\"inuse_objects\": %lld, \"inuse_bytes\": %lld",
				       at > 1 ? ", " : "", sites[site].name,
				       (long long)sum.alloc_objects, (long long)sum.alloc_bytes,
				       (long long)sum.inuse_objects, (long long)sum.inuse_bytes);
		if (options.period > 0)
			at += (size_t)snprintf(line + at, sizeof(line) - at,
					       ", \"alloc_objects_variance\": %.0f, "
					       "\"alloc_bytes_variance\": %.0f, "
					       "\"inuse_objects_variance\": %.0f, "
					       "\"inuse_bytes_variance\": %.0f",
					       sum.alloc_objects_variance, sum.alloc_bytes_variance,
					       sum.inuse_objects_variance,
					       sum.inuse_bytes_variance);
		line[at++] = '}';
	}
	line[at++] = '}';
	line[at++] = '\n';
	target_write(STDOUT_FILENO, line, at);
}

void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--threads"))
			options.threads = atoi(value);
		else if (!strcmp(argv[i], "--rounds"))
			options.rounds = (unsigned int)atoi(value);
		else if (!strcmp(argv[i], "--seed"))
			options.seed = strtoull(value, nullptr, 10);
		else if (!strcmp(argv[i], "--period"))
			options.period = atof(value);
		else if (!strcmp(argv[i], "--sizes") && !strcmp(value, "mixed"))
			options.mixed = true;
		else
			target_die("unknown: %s %s\n", argv[i], value);
	}
	if (options.threads < 1 || options.threads > MAX_THREADS || options.rounds < 1)
		target_die("--threads 1..%d, --rounds 1..\n", MAX_THREADS);
}

} // namespace

int main(int argc, char **argv)
{
	parse(argc, argv);
	pthread_barrier_init(&start_line, nullptr, (unsigned int)options.threads + 1);
	pthread_barrier_init(&all_allocated, nullptr, (unsigned int)options.threads);
	pthread_barrier_init(&finish_line, nullptr, (unsigned int)options.threads + 1);
	/* Before "ready": starting a thread allocates. */
	for (int i = 0; i < options.threads; i++) {
		pthread_t thread;

		workers[i].number = i;
		workers[i].random = options.seed * 1000003 + (uint64_t)i;
		if (pthread_create(&thread, nullptr, work, &workers[i]))
			target_die("no thread\n");
	}
	target_ready();
	target_wait_line();
	pthread_barrier_wait(&start_line);
	pthread_barrier_wait(&finish_line);
	print_books();
	target_wait_line();
	return 0;
}
