/* The books of a ledger, its threads and its options: see ledger.h. */
#include "ledger.h"

#include <math.h>
#include <pthread.h>

#define MAX_GROUPS  4
#define MAX_SITES   256
#define MAX_KEPT    (1 << 18) /* per thread and list */
#define RING	    512	      /* blocks of --sizes mixed that live for a while, per thread */
#define SWAP_SLOTS  32
#define KEEP_ONE_IN 8

struct figures {
	int64_t alloc_objects, alloc_bytes, inuse_objects, inuse_bytes;
	double alloc_objects_variance, alloc_bytes_variance;
	double inuse_objects_variance, inuse_bytes_variance;
};

struct block_list {
	struct ledger_block blocks[MAX_KEPT];
	size_t count;
};

/* Static, so that keeping books never allocates. */
static struct ledger_worker {
	int number;
	uint64_t random;
	struct figures books[MAX_SITES];
	struct block_list kept;
	struct block_list handed; /* for the next thread to free */
	struct ledger_block ring[RING];
} workers[LEDGER_THREADS];

static struct {
	pthread_mutex_t lock;
	struct ledger_block block;
} swap_slots[SWAP_SLOTS];

static struct {
	const struct ledger_group *group;
	size_t first; /* its first site's place in the books */
} groups[MAX_GROUPS];
static size_t group_count, site_count;

static struct {
	int threads;
	unsigned int rounds;
	uint64_t seed;
	size_t live;
	bool mixed;
	double period;
} options = {.threads = 4, .rounds = 100, .seed = 1, .live = MAX_KEPT};

static pthread_barrier_t prepared, start_line, all_allocated, finish_line;

void ledger_add(const struct ledger_group *group)
{
	if (group_count == MAX_GROUPS || site_count + group->site_count > MAX_SITES)
		target_die("more sites than the books have pages\n");
	groups[group_count].group = group;
	groups[group_count++].first = site_count;
	site_count += group->site_count;
}

int ledger_thread(const struct ledger_worker *w)
{
	return w->number;
}

/* splitmix64: the same numbers from the same seed, on every machine. */
uint64_t ledger_draw(struct ledger_worker *w)
{
	uint64_t z = (w->random += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

size_t ledger_draw_large(struct ledger_worker *w)
{
	if (ledger_draw(w) % 8)
		return 5000 + ledger_draw(w) % 20000;
	return (100 << 10) + ledger_draw(w) % (400 << 10);
}

static struct figures *figures_of(struct ledger_worker *w, const struct ledger_site *site)
{
	for (size_t i = 0; i < group_count; i++) {
		const struct ledger_group *group = groups[i].group;

		if (site >= group->sites && site < group->sites + group->site_count)
			return &w->books[groups[i].first + (size_t)(site - group->sites)];
	}
	target_die("a site of no group\n");
}

static void book(struct ledger_worker *w, const struct ledger_block *b, bool allocated)
{
	struct figures *f = figures_of(w, b->site);
	int sign = allocated ? 1 : -1;

	f->inuse_objects += sign;
	f->inuse_bytes += sign * (int64_t)b->size;
	if (allocated) {
		f->alloc_objects += 1;
		f->alloc_bytes += (int64_t)b->size;
	}
	if (options.period > 0) {
		double size = b->size ? (double)b->size : 1;
		double p = -expm1(-size / options.period);
		double objects = (1 - p) / p;

		f->inuse_objects_variance += sign * objects;
		f->inuse_bytes_variance += sign * objects * size * size;
		if (allocated) {
			f->alloc_objects_variance += objects;
			f->alloc_bytes_variance += objects * size * size;
		}
	}
}

bool ledger_try(struct ledger_worker *w, const struct ledger_site *site,
		const struct ledger_request *q, size_t size, struct ledger_block *out)
{
	struct ledger_block b = {site->call(q), size, site};

	if (!b.start)
		return false;
	if (size) {
		((volatile char *)b.start)[0] = 1;
		((volatile char *)b.start)[size - 1] = 1;
	}
	book(w, &b, true);
	*out = b;
	return true;
}

struct ledger_block ledger_allocate(struct ledger_worker *w, const struct ledger_site *site,
				    const struct ledger_request *q, size_t size)
{
	struct ledger_block b;

	if (!ledger_try(w, site, q, size, &b))
		target_die("%s of %zu bytes failed\n", site->name, size);
	return b;
}

void ledger_must_fail(const struct ledger_site *site, const struct ledger_request *q)
{
	if (site->call(q))
		target_die("%s succeeded\n", site->name);
}

void ledger_give_back(struct ledger_worker *w, struct ledger_block b)
{
	b.site->release(b.start, b.size);
	book(w, &b, false);
}

void ledger_freed(struct ledger_worker *w, struct ledger_block b)
{
	book(w, &b, false);
}

/* Where the list is as long as it may be, any one of its blocks makes room. */
static void put(struct ledger_worker *w, struct block_list *list, struct ledger_block b)
{
	struct ledger_block *place;

	if (list->count < options.live) {
		list->blocks[list->count++] = b;
		return;
	}
	place = &list->blocks[ledger_draw(w) % list->count];
	ledger_give_back(w, *place);
	*place = b;
}

void ledger_hand_over(struct ledger_worker *w, struct ledger_block b)
{
	put(w, &w->handed, b);
}

void ledger_dispose(struct ledger_worker *w, struct ledger_block b)
{
	switch (ledger_draw(w) % 4) {
	case 0:
	case 1:
		ledger_give_back(w, b);
		break;
	case 2:
		put(w, &w->kept, b);
		break;
	default:
		put(w, &w->handed, b);
	}
}

bool ledger_swap(struct ledger_worker *w, struct ledger_block b, struct ledger_block *out)
{
	size_t slot = ledger_draw(w) % SWAP_SLOTS;
	struct ledger_block taken;

	pthread_mutex_lock(&swap_slots[slot].lock);
	taken = swap_slots[slot].block;
	swap_slots[slot].block = b;
	pthread_mutex_unlock(&swap_slots[slot].lock);
	*out = taken;
	return taken.start;
}

void ledger_plain(struct ledger_worker *w, const struct ledger_site *site,
		  const struct ledger_request *q, size_t size)
{
	ledger_dispose(w, ledger_allocate(w, site, q, size));
}

void ledger_maybe(struct ledger_worker *w, const struct ledger_site *site,
		  const struct ledger_request *q, size_t size)
{
	struct ledger_block b;

	if (ledger_try(w, site, q, size, &b))
		ledger_dispose(w, b);
}

void ledger_take_over(struct ledger_worker *w, struct ledger_block old,
		      const struct ledger_site *site, const struct ledger_request *q, size_t size)
{
	struct ledger_block taken;

	if (ledger_try(w, site, q, size, &taken)) {
		book(w, &old, false);
		ledger_dispose(w, taken);
	} else if (size == 0) {
		book(w, &old, false);
	} else {
		ledger_dispose(w, old);
	}
}

void ledger_reallocate(struct ledger_worker *w, const struct ledger_site *from, size_t size,
		       const struct ledger_site *to, size_t count, size_t new_size)
{
	struct ledger_request first = {.size = size, .count = 1};
	struct ledger_block old = ledger_allocate(w, from, &first, size);
	struct ledger_request second = {.size = new_size, .count = count, .old = old.start};

	ledger_take_over(w, old, to, &second, count * new_size);
}

static void bulk_allocate(struct ledger_worker *w, const struct ledger_site *site)
{
	size_t middle = site->bulk_size;
	/* A multiple of 4: one of the sites allocates four quarters. */
	size_t size = (middle / 2 + ledger_draw(w) % middle + 4) & ~3ul;
	struct ledger_request q = {.size = size, .count = 1, .alignment = 64};
	struct ledger_block b = ledger_allocate(w, site, &q, size);
	struct ledger_block *slot = &w->ring[ledger_draw(w) % RING];

	if (ledger_draw(w) % KEEP_ONE_IN == 0) {
		put(w, &w->kept, b);
		return;
	}
	if (slot->start)
		ledger_give_back(w, *slot);
	*slot = b;
}

static void bulk_round(struct ledger_worker *w, const struct ledger_group *group)
{
	for (size_t site = 0; site < group->site_count; site++)
		for (unsigned int i = 0; i < group->sites[site].bulk_count; i++)
			bulk_allocate(w, &group->sites[site]);
}

static void do_round(struct ledger_worker *w)
{
	for (size_t i = 0; i < group_count; i++) {
		if (options.mixed)
			bulk_round(w, groups[i].group);
		else
			groups[i].group->round(w);
	}
}

static void *work(void *argument)
{
	struct ledger_worker *w = argument;
	int before = (w->number + options.threads - 1) % options.threads;
	const struct block_list *handed = &workers[before].handed;
	unsigned int rounds = options.rounds;

	if (options.mixed) /* shared out, so that the volume does not depend on the threads */
		rounds = rounds / (unsigned int)options.threads +
			 ((unsigned int)w->number < rounds % (unsigned int)options.threads);
	for (size_t i = 0; i < group_count; i++)
		if (groups[i].group->prepare)
			groups[i].group->prepare(w);
	pthread_barrier_wait(&prepared);
	pthread_barrier_wait(&start_line);
	for (unsigned int i = 0; i < rounds; i++)
		do_round(w);
	pthread_barrier_wait(&all_allocated);
	for (size_t i = 0; i < handed->count; i++)
		ledger_give_back(w, handed->blocks[i]);
	pthread_barrier_wait(&finish_line);
	/* Ending would free what the C library keeps for a thread: stay. */
	for (;;)
		pause();
	return NULL;
}

static struct figures sum_of(size_t site)
{
	struct figures sum = {0};

	for (int i = 0; i < options.threads; i++) {
		const struct figures *f = &workers[i].books[site];

		sum.alloc_objects += f->alloc_objects;
		sum.alloc_bytes += f->alloc_bytes;
		sum.inuse_objects += f->inuse_objects;
		sum.inuse_bytes += f->inuse_bytes;
		sum.alloc_objects_variance += f->alloc_objects_variance;
		sum.alloc_bytes_variance += f->alloc_bytes_variance;
		sum.inuse_objects_variance += f->inuse_objects_variance;
		sum.inuse_bytes_variance += f->inuse_bytes_variance;
	}
	return sum;
}

/* One site's entry; how long it is. */
static size_t print_figures(char *line, size_t size, const char *name, const struct figures *f)
{
	size_t at;

	at = (size_t)snprintf(line, size,
			      "\"%s\": {\"alloc_objects\": %lld, \"alloc_bytes\": %lld, "
			      "\"inuse_objects\": %lld, \"inuse_bytes\": %lld",
			      name, (long long)f->alloc_objects, (long long)f->alloc_bytes,
			      (long long)f->inuse_objects, (long long)f->inuse_bytes);
	if (options.period > 0)
		at += (size_t)snprintf(
			line + at, size - at,
			", \"alloc_objects_variance\": %.0f, \"alloc_bytes_variance\": %.0f, "
			"\"inuse_objects_variance\": %.0f, \"inuse_bytes_variance\": %.0f",
			f->alloc_objects_variance, f->alloc_bytes_variance,
			f->inuse_objects_variance, f->inuse_bytes_variance);
	line[at++] = '}';
	return at;
}

/* In a function of its own, and without stdio: printing must not allocate either. */
static void print_books(void)
{
	static char line[1 << 17];
	size_t at = 0;

	line[at++] = '{';
	for (size_t i = 0; i < group_count; i++) {
		const struct ledger_group *group = groups[i].group;

		for (size_t site = 0; site < group->site_count; site++) {
			struct figures sum = sum_of(groups[i].first + site);

			if (options.mixed != (group->sites[site].bulk_count != 0))
				continue;
			if (at > 1) {
				line[at++] = ',';
				line[at++] = ' ';
			}
			at += print_figures(line + at, sizeof(line) - at, group->sites[site].name,
					    &sum);
		}
	}
	line[at++] = '}';
	line[at++] = '\n';
	target_write(STDOUT_FILENO, line, at);
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--threads"))
			options.threads = atoi(value);
		else if (!strcmp(argv[i], "--rounds"))
			options.rounds = (unsigned int)atoi(value);
		else if (!strcmp(argv[i], "--seed"))
			options.seed = strtoull(value, NULL, 10);
		else if (!strcmp(argv[i], "--live"))
			options.live = strtoull(value, NULL, 10);
		else if (!strcmp(argv[i], "--period"))
			options.period = atof(value);
		else if (!strcmp(argv[i], "--sizes") && !strcmp(value, "mixed"))
			options.mixed = true;
		else
			target_die("unknown: %s %s\n", argv[i], value);
	}
	if (options.threads < 1 || options.threads > LEDGER_THREADS || options.rounds < 1 ||
	    options.live < 1 || options.live > MAX_KEPT)
		target_die("--threads 1..%d, --rounds 1.., --live 1..%d\n", LEDGER_THREADS,
			   MAX_KEPT);
}

static void start_threads(void)
{
	for (int i = 0; i < options.threads; i++) {
		pthread_t thread;

		workers[i].number = i;
		workers[i].random = options.seed * 1000003 + (uint64_t)i;
		if (pthread_create(&thread, NULL, work, &workers[i]))
			target_die("no thread\n");
	}
}

int ledger_main(int argc, char **argv)
{
	parse(argc, argv);
	for (size_t i = 0; i < SWAP_SLOTS; i++)
		pthread_mutex_init(&swap_slots[i].lock, NULL);
	pthread_barrier_init(&prepared, NULL, (unsigned int)options.threads + 1);
	pthread_barrier_init(&start_line, NULL, (unsigned int)options.threads + 1);
	pthread_barrier_init(&all_allocated, NULL, (unsigned int)options.threads);
	pthread_barrier_init(&finish_line, NULL, (unsigned int)options.threads + 1);
	/* Before "ready": starting a thread allocates. */
	start_threads();
	pthread_barrier_wait(&prepared);
	target_ready();
	target_wait_line();
	pthread_barrier_wait(&start_line);
	pthread_barrier_wait(&finish_line);
	print_books();
	target_wait_line();
	return 0;
}
