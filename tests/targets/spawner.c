/*
 * spawner: threads that live for a moment, allocate, and start children in every way there is.
 *
 *	spawner come-and-go N	N times four threads, each of which allocates, starts a child and ends
 *	spawner end-inside N	N threads that end in the middle of realloc, each followed by one that
 *				makes the same call and returns from it, with the same stack and if
 *				possible the same thread id
 *	spawner vfork N		N children that allocate and free in their parent's memory, before
 *				they execute another program
 *
 * Says "ready PID", waits for a line, works, prints "reused N" (thread ids) and its books in ledger's
 * format, waits for another line and ends. What the other children do is theirs: they are processes
 * with a memory of their own.
 */
#include "target.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define THREADS	   4
#define PER_THREAD 20
#define KEPT_MAX   (1 << 16)

struct block {
	void *start;
	size_t size;
	int site;
};

enum { THREAD, GROW, END, PARENT, VFORKED, SITES };

static const char *const names[SITES] = {"thread", "grow", "end", "parent", "vforked"};
static struct {
	long alloc_objects, alloc_bytes, inuse_objects, inuse_bytes;
} books[SITES];

static struct block kept[KEPT_MAX];
static size_t kept_count;
static char *const child_arguments[] = {"spawner", "child", NULL};
static int reused;

NAMED_SITE static void *path_thread(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_grow(void *old, size_t size)
{
	return realloc(old, size);
}

NAMED_SITE static void *path_parent(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_vforked(size_t size)
{
	return malloc(size);
}

NAMED_SITE static void *path_end(void *old, size_t size)
{
	return realloc(old, size);
}

static void count(const struct block *b, int sign)
{
	__atomic_fetch_add(&books[b->site].inuse_objects, sign, __ATOMIC_RELAXED);
	__atomic_fetch_add(&books[b->site].inuse_bytes, sign * (long)b->size, __ATOMIC_RELAXED);
	if (sign < 0)
		return;
	__atomic_fetch_add(&books[b->site].alloc_objects, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&books[b->site].alloc_bytes, (long)b->size, __ATOMIC_RELAXED);
}

static struct block booked(int site, void *start, size_t size)
{
	struct block b = {start, size, site};

	if (!start)
		target_die("out of memory\n");
	count(&b, 1);
	return b;
}

static void give_back(struct block b)
{
	free(b.start);
	count(&b, -1);
}

static void keep(struct block b)
{
	size_t at = __atomic_fetch_add(&kept_count, 1, __ATOMIC_RELAXED);

	if (at >= KEPT_MAX)
		target_die("too many\n");
	kept[at] = b;
}

/* --- come and go ------------------------------------------------------------------------------- */

static void execute_child(void)
{
	execv("/proc/self/exe", child_arguments);
	_exit(1);
}

/* A child with copies of all blocks: it frees its own, and allocates where they were. */
static void live_as_child(const struct block *blocks, int number)
{
	for (int i = 0; i < number; i++)
		free(blocks[i].start);
	for (int i = 0; i < number; i++)
		path_thread(100);
	_exit(0);
}

static pid_t start_child(unsigned int way, const struct block *blocks, int number)
{
	extern char **environ;
	pid_t child;

	switch (way % 4) {
	case 0:
		child = vfork();
		if (child == 0)
			execute_child();
		return child;
	case 1:
		return posix_spawn(&child, "/proc/self/exe", NULL, NULL, child_arguments, environ)
			       ? -1
			       : child;
	case 2:
		child = fork();
		if (child == 0)
			execute_child();
		return child;
	default:
		child = fork();
		if (child == 0)
			live_as_child(blocks, number);
		return child;
	}
}

static void *come_and_go(void *argument)
{
	unsigned int number = (unsigned int)(uintptr_t)argument;
	struct block blocks[PER_THREAD];
	pid_t child;
	int status;

	for (int i = 0; i < PER_THREAD; i++) {
		size_t size = 16 + (size_t)(number * 37 + (unsigned int)i * 101) % 3000;

		blocks[i] = booked(THREAD, path_thread(size), size);
	}
	child = start_child(number, blocks, PER_THREAD);
	for (int i = 0; i < PER_THREAD; i++) {
		struct block b = blocks[i];

		if (i % 2) {
			size_t size = b.size * 2;

			count(&b, -1);
			b = booked(GROW, path_grow(b.start, size), size);
		}
		if (i % 5 == 0)
			keep(b);
		else
			give_back(b);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		target_die("a child ended badly: %x\n", status);
	return NULL;
}

static void start(pthread_t *thread, void *(*run)(void *), void *argument)
{
	if (pthread_create(thread, NULL, run, argument))
		target_die("no thread\n");
}

static void let_come_and_go(int rounds)
{
	pthread_t threads[THREADS];

	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < THREADS; i++) {
			/* Each of the four starts each kind of child in turn. */
			uintptr_t number = (uintptr_t)(round * THREADS + i + round);

			start(&threads[i], come_and_go, (void *)number);
		}
		for (int i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
	}
}

/* --- end inside -------------------------------------------------------------------------------- */

#define NO_BLOCK ((void *)0x10) /* realloc reads the chunk's size at 8: never mapped */

static pid_t last_ended;

static void on_fault(int signal)
{
	(void)signal;
	last_ended = gettid();
	/* Not pthread_exit(), which would unwind, and free. */
	syscall(SYS_exit, 0);
}

static void *reallocate(void *old)
{
	struct block b = booked(END, path_end(old, 500), 500);

	reused += gettid() == last_ended;
	keep(b);
	return NULL;
}

/* The next thread or process gets this id, if it is free and nobody else is faster. Needs root. */
static void want_id(pid_t id)
{
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	char text[16];
	int length = snprintf(text, sizeof(text), "%d", (int)id - 1);

	if (fd < 0)
		return;
	if (write(fd, text, (size_t)length) != length)
		target_die("no choice of ids\n");
	close(fd);
}

static void let_end_inside(int rounds)
{
	struct sigaction action = {.sa_handler = on_fault};
	pthread_t thread;

	sigaction(SIGSEGV, &action, NULL);
	for (int round = 0; round < rounds; round++) {
		struct block old = booked(PARENT, path_parent(100), 100);

		start(&thread, reallocate, NO_BLOCK);
		pthread_join(thread, NULL);
		want_id(last_ended);
		start(&thread, reallocate, old.start);
		pthread_join(thread, NULL);
		count(&old, -1);
		if (round % 2)
			give_back(kept[--kept_count]);
	}
}

/* --- vfork ------------------------------------------------------------------------------------- */

/* In a function of its own, as what its variables are worth after a vfork is not certain. */
static __attribute__((noinline)) pid_t vfork_and_allocate(struct block doomed, bool kept_by_child)
{
	pid_t child = vfork();

	if (child == 0) {
		struct block made;

		give_back(doomed);
		made = booked(VFORKED, path_vforked(900), 900);
		if (kept_by_child)
			keep(made);
		else
			give_back(made);
		execute_child();
	}
	return child;
}

static void let_vfork(int rounds)
{
	int status;

	for (int round = 0; round < rounds; round++) {
		struct block doomed = booked(PARENT, path_parent(700), 700);
		pid_t child;

		keep(booked(PARENT, path_parent(700), 700));
		child = vfork_and_allocate(doomed, round % 2);
		if (child < 0 || waitpid(child, &status, 0) != child || status)
			target_die("a child ended badly: %x\n", status);
	}
}

static void print_books(void)
{
	target_say("reused %d\n{", reused);
	for (int i = 0; i < SITES; i++)
		target_say("%s\"%s\": {\"alloc_objects\": %ld, \"alloc_bytes\": %ld, "
			   "\"inuse_objects\": %ld, \"inuse_bytes\": %ld}",
			   i ? ", " : "", names[i], books[i].alloc_objects, books[i].alloc_bytes,
			   books[i].inuse_objects, books[i].inuse_bytes);
	target_say("}\n");
}

int main(int argc, char **argv)
{
	int rounds = argc == 3 ? atoi(argv[2]) : 0;

	if (argc == 2 && !strcmp(argv[1], "child"))
		return 0;
	if (rounds < 1)
		target_die("spawner come-and-go|end-inside|vfork N\n");
	target_ready();
	target_wait_line();
	if (!strcmp(argv[1], "come-and-go"))
		let_come_and_go(rounds);
	else if (!strcmp(argv[1], "end-inside"))
		let_end_inside(rounds);
	else if (!strcmp(argv[1], "vfork"))
		let_vfork(rounds);
	print_books();
	target_wait_line();
	return 0;
}
