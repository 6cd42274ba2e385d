/*
 * plant-WAY [RATE | PROGRAM]: a program that is found in a sweep of a host, or is not to be: what it does is
 * what it is called by, and so what its process is called. Each way has a function of its own:
 *
 *	heap	site_heap()	small blocks that are never freed, RATE bytes a second (1 MiB)
 *	slow	site_slow()	the same, 50 KiB a second
 *	mmap	site_mmap()	mappings of 64 KiB past any allocator
 *	file	site_file()	reads ever more of PROGRAM, a file, through a mapping
 *	shmem	site_shmem()	ever more of a shared mapping without a file
 *	common	site_shmem()	the same at 8 MiB/s until SIGUSR2, with three children that touch it all, too
 *	stack	site_stack()	calls itself, in a second thread, and does not come back
 *	step	site_step()	32 MiB in small blocks, once, on SIGUSR2
 *	churn	site_churn()	100 MiB/s of small blocks, of which as many are freed
 *	storm	site_storm()	RATE (200) children a second, each of which allocates and ends
 *	become	site_become()	as heap; executes PROGRAM on SIGUSR2
 *
 * Prints "ready PID", and on SIGUSR1 "grown BYTES allocated BYTES children NUMBER": what has been added and
 * touched, what an allocator was asked for, and how many children have ended, so far. All memory is touched in
 * the functions themselves, which so are where its page faults come from.
 */
#include "target.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define PAGE	     4096
#define BLOCK	     1024
#define MMAP_BYTES   (64 << 10)
#define REGION_BYTES (1UL << 30) /* files and shared memory: the most that they grow */
#define FRAME_BYTES  (64 << 10)
#define STACK_BYTES  (512UL << 20)
#define STEP_BYTES   (32 << 20)
#define LIVE_BLOCKS  4096
#define CHURN_RATE   (100 << 20)
#define CHILD_BYTES  (64 << 10)
#define TICK_NS	     10000000L
#define EXEC_EVERY   8 /* children */

static atomic_ulong grown, allocated, children;
static atomic_bool told;
static int64_t started;

static void tell(int signal)
{
	(void)signal;
	target_say("grown %lu allocated %lu children %lu\n", atomic_load(&grown),
		   atomic_load(&allocated), atomic_load(&children));
}

static void be_told(int signal)
{
	(void)signal;
	told = true;
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void wait_a_tick(void)
{
	struct timespec left = {.tv_nsec = TICK_NS};

	while (nanosleep(&left, &left)) /* questions interrupt it */
		;
}

/* Until `rate` a second since the start are more than have been done. */
static void wait_until_due(unsigned long done, unsigned long rate)
{
	while ((double)(now() - started) / 1e9 * (double)rate <= (double)done)
		wait_a_tick();
}

/* A macro, so that it is a part of whoever does it, by the debug information too. */
#define TOUCH(start, size)                                                                         \
	for (size_t at_ = 0; at_ < (size); at_ += PAGE)                                            \
	((volatile char *)(start))[at_] = 1

static void *check_block(void *made, size_t size)
{
	if (!made)
		target_die("out of memory\n");
	atomic_fetch_add(&allocated, size);
	return made;
}

static void *check_mapping(void *start)
{
	if (start == MAP_FAILED)
		target_die("no mapping\n");
	return start;
}

NAMED_SITE static void site_heap(void)
{
	char *made = check_block(malloc(BLOCK), BLOCK);

	TOUCH(made, BLOCK);
}

NAMED_SITE static void site_slow(void)
{
	char *made = check_block(malloc(BLOCK), BLOCK);

	TOUCH(made, BLOCK);
}

NAMED_SITE static void site_become(void)
{
	char *made = check_block(malloc(BLOCK), BLOCK);

	TOUCH(made, BLOCK);
}

NAMED_SITE static void site_step(void)
{
	char *made = check_block(malloc(BLOCK), BLOCK);

	TOUCH(made, BLOCK);
}

NAMED_SITE static void *site_churn(void)
{
	char *made = check_block(malloc(BLOCK), BLOCK);

	TOUCH(made, BLOCK);
	return made;
}

NAMED_SITE static void site_storm(void)
{
	char *made = check_block(malloc(CHILD_BYTES), CHILD_BYTES);

	TOUCH(made, CHILD_BYTES);
}

NAMED_SITE static void site_mmap(void)
{
	char *made = check_mapping(
		mmap(NULL, MMAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	TOUCH(made, MMAP_BYTES);
}

NAMED_SITE static char site_file(const volatile char *page)
{
	return *page;
}

NAMED_SITE static void site_shmem(char *page)
{
	TOUCH(page, PAGE);
}

/* What it calls touches the page after its own: a small part of so large a frame. */
NAMED_SITE static void site_stack(unsigned long depth, unsigned long rate)
{
	char frame[FRAME_BYTES];

	TOUCH(frame, sizeof(frame));
	atomic_fetch_add(&grown, sizeof(frame));
	wait_until_due(grown, rate);
	if (depth)
		site_stack(depth - 1, rate);
	TOUCH(frame, sizeof(frame));
}

/* --- ways ---------------------------------------------------------------------------------------- */

static void grow(void (*site)(void), size_t size, unsigned long rate)
{
	while (!told) {
		site();
		atomic_fetch_add(&grown, size);
		wait_until_due(grown, rate);
	}
}

static void grow_file(const char *path, unsigned long rate)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *start = check_mapping(mmap(NULL, REGION_BYTES, PROT_READ, MAP_SHARED, fd, 0));

	/* Pages come one by one, as they are asked for. */
	if (madvise(start, REGION_BYTES, MADV_RANDOM))
		target_die("madvise\n");
	while (grown < REGION_BYTES) {
		site_file(start + grown);
		atomic_fetch_add(&grown, PAGE);
		wait_until_due(grown, rate);
	}
}

static void grow_shared(unsigned long rate)
{
	char *start = check_mapping(mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	while (grown < REGION_BYTES) {
		site_shmem(start + grown);
		atomic_fetch_add(&grown, PAGE);
		wait_until_due(grown, rate);
	}
}

#define SHARERS 3

/* In a child: touches what its parent has touched, as long as there is a parent. */
static void share(char *start, const atomic_ulong *pages, atomic_ulong *touched)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		for (unsigned long page = *touched; page < *pages; page++)
			site_shmem(start + page * PAGE);
		atomic_store(touched, atomic_load(pages));
		wait_a_tick();
	}
}

static void grow_in_common(unsigned long rate)
{
	const int flags = MAP_SHARED | MAP_ANONYMOUS;
	char *start = check_mapping(mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0));
	atomic_ulong *pages = check_mapping(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, flags, -1, 0));
	bool all = false;

	for (int child = 1; child <= SHARERS; child++) {
		if (fork() == 0)
			share(start, pages, pages + child);
	}
	while (!told && grown < REGION_BYTES) {
		site_shmem(start + grown);
		atomic_fetch_add(&grown, PAGE);
		atomic_store(pages, grown / PAGE);
		wait_until_due(grown, rate);
	}
	while (!all) {
		wait_a_tick();
		all = true;
		for (int child = 1; child <= SHARERS; child++)
			all &= pages[child] == *pages;
	}
	target_say("shared\n");
}

static void *run_stack(void *rate)
{
	site_stack(STACK_BYTES / FRAME_BYTES - 2, (unsigned long)(uintptr_t)rate);
	return NULL;
}

static void grow_stack(unsigned long rate)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	if (pthread_attr_setstacksize(&attributes, STACK_BYTES) ||
	    pthread_create(&thread, &attributes, run_stack, (void *)(uintptr_t)rate))
		target_die("no thread\n");
	pthread_join(thread, NULL);
}

static void grow_once(void)
{
	while (!told)
		wait_a_tick();
	for (int i = 0; i < STEP_BYTES / BLOCK; i++)
		site_step();
	atomic_fetch_add(&grown, STEP_BYTES);
}

static void churn(void)
{
	static void *live[LIVE_BLOCKS];
	unsigned int at, random = 1;

	for (at = 0; at < LIVE_BLOCKS; at++)
		live[at] = site_churn();
	at = 0;
	for (;;) {
		free(live[at]);
		live[at] = site_churn();
		random = random * 1103515245 + 12345;
		at = random / 65536 % LIVE_BLOCKS;
		wait_until_due(allocated, CHURN_RATE);
	}
}

static void live_as_child(const char *program, bool execute)
{
	if (execute)
		execl("/proc/self/exe", program, "child", NULL);
	site_storm();
	_exit(0);
}

static void storm(const char *program, unsigned long rate)
{
	for (;;) {
		pid_t child = fork();
		int status;

		if (child == 0)
			live_as_child(program, children % EXEC_EVERY == 0);
		if (child < 0)
			target_die("no process\n");
		while (waitpid(child, &status, 0) < 0) /* questions interrupt it */
			;
		atomic_fetch_add(&children, 1);
		wait_until_due(children, rate);
	}
}

/* What it has been called by, after "plant-". */
static const char *way_of(const char *program)
{
	const char *name = strrchr(program, '/');
	const char *way = strchr(name ? name : program, '-');

	return way ? way + 1 : "";
}

static bool live(const char *program, const char *argument)
{
	const char *way = way_of(program);
	unsigned long rate = strtoul(argument, NULL, 0);

	if (!strcmp(way, "heap"))
		grow(site_heap, BLOCK, rate ? rate : 1 << 20);
	else if (!strcmp(way, "slow"))
		grow(site_slow, BLOCK, 50 << 10);
	else if (!strcmp(way, "mmap"))
		grow(site_mmap, MMAP_BYTES, 1 << 20);
	else if (!strcmp(way, "file"))
		grow_file(argument, 1 << 20);
	else if (!strcmp(way, "shmem"))
		grow_shared(1 << 20);
	else if (!strcmp(way, "common"))
		grow_in_common(8 << 20);
	else if (!strcmp(way, "stack"))
		grow_stack(1 << 20);
	else if (!strcmp(way, "step"))
		grow_once();
	else if (!strcmp(way, "churn"))
		churn();
	else if (!strcmp(way, "storm"))
		storm(program, rate ? rate : 200);
	else if (!strcmp(way, "become"))
		grow(site_become, BLOCK, 1 << 20);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	struct sigaction telling = {.sa_handler = tell}, being_told = {.sa_handler = be_told};
	const char *argument = argc > 1 ? argv[1] : "";

	if (!strcmp(argument, "child"))
		live_as_child(argv[0], false);
	sigaction(SIGUSR1, &telling, NULL);
	sigaction(SIGUSR2, &being_told, NULL);
	started = now();
	target_ready();
	if (!live(argv[0], argument))
		target_die("plant-WAY: which?\n");
	if (!strcmp(way_of(argv[0]), "become"))
		execl(argument, argument, NULL);
	for (;;)
		pause();
}
