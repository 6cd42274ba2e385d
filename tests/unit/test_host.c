/* The processes of this host, and some that are made to grow, end, and be mistaken for one another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "target/host.h"
#include "target/watch.h"
#include "util/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1u << 20)
/* What a process does on its own between two readings, and how far counters lag on some kernels. */
#define NOISE (MIB / 2)

/* As many as a process can be in. */
#define GROUPS 65536

/* --- a process that does as it is told, a letter at a time, and answers each with the same --- */

/* A name that nobody else's processes have, not even those of another run of this test. */
static char own_name[HOST_COMM_SIZE];

struct puppet {
	pid_t pid;
	int to, from;
};

static void grow(size_t bytes)
{
	char *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		_exit(2);
	memset(memory, 1, bytes);
}

static _Noreturn void play(int from, int to);

static void *play_on(void *fds)
{
	play(((int *)fds)[0], ((int *)fds)[1]);
}

static void obey(char order, int from, int to)
{
	static gid_t groups[GROUPS];
	static int fds[2];
	pthread_t thread;

	switch (order) {
	case 'g':
		grow(8 * MIB);
		break;
	case 'm': /* in many groups */
		for (gid_t i = 0; i < GROUPS; i++)
			groups[i] = 1000000000 + i;
		if (setgroups(GROUPS, groups))
			_exit(2);
		break;
	case 'n':
		prctl(PR_SET_NAME, "a) Z 1\n(\x1b[2J\x07)");
		break;
	case 'o': /* our own */
		prctl(PR_SET_NAME, own_name);
		break;
	case 'u':
		if (setresuid(54321, 54321, 54321) || prctl(PR_SET_PDEATHSIG, SIGKILL))
			_exit(2);
		break;
	case 'x': /* sleep answers nothing: the pipe's end does, which closes on exec */
		fcntl(to, F_SETFD, FD_CLOEXEC);
		execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(2);
	case 't': /* its first thread ends, another one obeys */
		fds[0] = from;
		fds[1] = to;
		if (pthread_create(&thread, NULL, play_on, fds))
			_exit(2);
		pthread_exit(NULL);
	default:
		break;
	}
}

static _Noreturn void play(int from, int to)
{
	char order = 'r'; /* ready */

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (write(to, &order, 1) != 1 || read(from, &order, 1) != 1)
			_exit(0);
		obey(order, from, to);
	}
}

static void wait_for(const struct puppet *puppet, char answer)
{
	char got = 0;
	ssize_t n = read(puppet->from, &got, 1);

	if (answer) {
		assert_int_equal(n, 1);
		assert_int_equal(got, answer);
	} else {
		assert_int_equal(n, 0);
	}
}

static void tell(const struct puppet *puppet, char order)
{
	assert_int_equal(write(puppet->to, &order, 1), 1);
	if (order == 't')
		wait_for(puppet, 'r');
	else
		wait_for(puppet, order == 'x' ? 0 : order);
}

/* A new process, of this id if it is not 0; false: the id is taken. */
static bool make(struct puppet *puppet, pid_t wanted)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (uint64_t)(uintptr_t)&wanted,
		.set_tid_size = 1,
	};
	int orders[2], answers[2];

	assert_int_equal(pipe(orders), 0);
	assert_int_equal(pipe(answers), 0);
	puppet->pid = wanted ? (pid_t)syscall(SYS_clone3, &args, sizeof(args)) : fork();
	if (puppet->pid == 0) {
		close(orders[1]);
		close(answers[0]);
		play(orders[0], answers[1]);
	}
	close(orders[0]);
	close(answers[1]);
	puppet->to = orders[1];
	puppet->from = answers[0];
	if (puppet->pid < 0) {
		assert_int_equal(errno, EEXIST);
		close(puppet->to);
		close(puppet->from);
		return false;
	}
	wait_for(puppet, 'r');
	return true;
}

static void end_puppet(const struct puppet *puppet)
{
	kill(puppet->pid, SIGKILL);
	assert_int_equal(waitpid(puppet->pid, NULL, 0), puppet->pid);
	close(puppet->to);
	close(puppet->from);
}

/* --- the host and its events --- */

struct scene {
	struct host *host;
	struct watch *watch;
	bool lost;
};

static int open_scene(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	struct rlimit limit;

	assert_non_null(scene);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (watch_open(&scene->watch))
		scene->watch = NULL;
	*state = scene;
	return 0;
}

static int close_scene(void **state)
{
	struct scene *scene = *state;

	host_free(scene->host);
	watch_free(scene->watch);
	free(scene);
	return 0;
}

/* Begins to watch; without a filter all. */
static void look(struct scene *scene, struct host_filter *filter)
{
	struct host_filter all = {0};

	assert_int_equal(host_open(filter ? filter : &all, &scene->host), 0);
}

static void tell_events(struct scene *scene)
{
	static const struct watch_event lost = {.type = WATCH_LOST};
	const struct watch_event *events = &lost;
	size_t count = 1;

	if (scene->watch)
		assert_int_equal(watch_read(scene->watch, &events, &count), 0);
	for (size_t i = 0; i < count; i++) {
		scene->lost |= events[i].type == WATCH_LOST;
		assert_int_equal(host_event(scene->host, &events[i]), 0);
	}
}

static void tick(struct scene *scene)
{
	tell_events(scene);
	assert_int_equal(host_read(scene->host, clock_now(CLOCK_MONOTONIC)), 0);
}

static struct host_process *find_watched(const struct scene *scene, pid_t pid)
{
	struct host_process *process = host_find(scene->host, pid);

	assert_non_null(process);
	assert_int_equal(process->state, HOST_WATCHED);
	return process;
}

/* "Anonymous:" of smaps_rollup, which counts page by page: an independent source. */
static uint64_t count_anonymous(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) && sscanf(line, "Anonymous: %llu", &kib) != 1)
		;
	fclose(f);
	return kib * 1024;
}

static void assert_near(uint64_t a, uint64_t b)
{
	assert_true((a > b ? a - b : b - a) <= NOISE);
}

/* --- what is to hold --- */

static void a_process_that_grows_is_found(void **state)
{
	const struct host_grown grown = {.bytes = 4 * MIB};
	const struct host_process *process;
	struct host_process *found[64];
	struct scene *scene = *state;
	struct puppet puppet, other;
	struct memory memory;
	size_t count, at = 0;

	assert_true(make(&puppet, 0));
	assert_true(make(&other, 0));
	look(scene, NULL);
	process = find_watched(scene, puppet.pid);
	assert_near(host_memory_anon(&process->first), count_anonymous(puppet.pid));
	assert_int_equal(process->parent, getpid());
	assert_int_equal(process->user, geteuid());
	tell(&puppet, 'g');
	tick(scene);
	tell(&puppet, 'g');
	tick(scene);
	assert_ptr_equal(find_watched(scene, puppet.pid), process);
	assert_near((uint64_t)host_growth(process), 16 * MIB);
	assert_near(host_memory_anon(&process->latest), count_anonymous(puppet.pid));
	assert_int_equal(process->highest, host_memory_anon(&process->latest));
	assert_int_equal(process->readings.count, 3);
	count = host_growers(scene->host, &grown, found, 64);
	while (at < count && found[at] != process) {
		assert_true(host_growth(found[at]) >= host_growth(process));
		assert_int_not_equal(found[at]->pid, other.pid);
		at++;
	}
	assert_true(at < count);
	assert_int_equal(host_read_detail(process, &memory), 0);
	assert_near(memory.anon, host_memory_anon(&process->latest));
	end_puppet(&puppet);
	end_puppet(&other);
}

static void only_the_largest_growth_is_found_where_there_is_no_room(void **state)
{
	const struct host_grown grown = {.bytes = MIB};
	struct host_filter filter = {0};
	struct host_process *found[2];
	struct scene *scene = *state;
	struct puppet puppets[3];

	assert_int_equal(host_filter_add_comm(&filter, own_name), 0);
	for (int i = 0; i < 3; i++) {
		assert_true(make(&puppets[i], 0));
		tell(&puppets[i], 'o');
	}
	look(scene, &filter);
	for (int i = 0; i < 3; i++)
		for (int n = 0; n <= i; n++)
			tell(&puppets[i], 'g');
	tick(scene);
	assert_int_equal(host_growers(scene->host, &grown, found, 2), 2);
	assert_int_equal(found[0]->pid, puppets[2].pid);
	assert_int_equal(found[1]->pid, puppets[1].pid);
	assert_int_equal(host_growers(scene->host, &grown, found, 1), 1);
	assert_int_equal(found[0]->pid, puppets[2].pid);
	for (int i = 0; i < 3; i++)
		end_puppet(&puppets[i]);
}

static void an_end_is_seen_with_and_without_its_event(void **state)
{
	const struct host_grown grown = {.bytes = 4 * MIB, .ended = true};
	struct host_process *process, *zombie, *found[64];
	struct puppet puppet, unreaped;
	struct scene *scene = *state;
	int64_t before, after;
	size_t count, at = 0;

	assert_true(make(&puppet, 0));
	assert_true(make(&unreaped, 0));
	look(scene, NULL);
	process = find_watched(scene, puppet.pid);
	zombie = find_watched(scene, unreaped.pid);
	tell(&puppet, 'g');
	tick(scene);
	before = clock_now(CLOCK_MONOTONIC);
	end_puppet(&puppet);
	after = clock_now(CLOCK_MONOTONIC);
	tick(scene);
	assert_int_equal(process->state, HOST_ENDED);
	assert_null(host_find(scene->host, puppet.pid));
	if (scene->watch && !scene->lost)
		assert_in_range(process->ended_at, before, after);
	/* What was seen of it is still there. */
	assert_near((uint64_t)host_growth(process), 8 * MIB);
	count = host_growers(scene->host, &grown, found, 64);
	while (at < count && found[at] != process)
		at++;
	assert_true(at < count);

	kill(unreaped.pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)unreaped.pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	assert_int_equal(host_read(scene->host, clock_now(CLOCK_MONOTONIC)), 0);
	assert_int_equal(zombie->state, HOST_ENDED);
	end_puppet(&unreaped);
}

/* Another process gets the id of one that was watched. */
static void an_id_that_is_used_again_is_another_process(void **state, bool events)
{
	struct host_process *first, *second;
	struct puppet puppet, successor;
	struct scene *scene = *state;

	/* Somebody else may get the id in between: then once more. */
	for (;;) {
		assert_true(make(&puppet, 0));
		if (scene->host)
			host_free(scene->host);
		look(scene, NULL);
		first = find_watched(scene, puppet.pid);
		end_puppet(&puppet);
		if (make(&successor, puppet.pid))
			break;
	}
	tell(&successor, 'g');
	if (events)
		tell_events(scene);
	else
		scene->host->rescan = true;
	assert_int_equal(host_read(scene->host, clock_now(CLOCK_MONOTONIC)), 0);
	assert_int_equal(first->state, HOST_ENDED);
	assert_int_equal(host_growth(first), 0);
	second = find_watched(scene, successor.pid);
	assert_ptr_not_equal(first, second);
	assert_near(host_memory_anon(&second->latest), count_anonymous(successor.pid));
	assert_int_equal(second->readings.count, 1);
	assert_int_equal(second->forked_at != 0, events);
	if (events)
		assert_string_equal(second->parent_comm, "test_host");
	end_puppet(&successor);
}

static void an_id_that_is_used_again_is_told_by_events(void **state)
{
	const struct scene *scene = *state;

	if (!scene->watch)
		skip();
	an_id_that_is_used_again_is_another_process(state, true);
}

static void an_id_that_is_used_again_is_found_in_proc(void **state)
{
	an_id_that_is_used_again_is_another_process(state, false);
}

/* A name that was to be read anew is not the next owner's. */
static void names_are_not_those_of_the_next_owner(void **state)
{
	struct host_process *process;
	struct puppet puppet, successor;
	struct scene *scene = *state;

	for (;;) {
		assert_true(make(&puppet, 0));
		if (scene->host)
			host_free(scene->host);
		look(scene, NULL);
		process = find_watched(scene, puppet.pid);
		end_puppet(&puppet);
		if (make(&successor, puppet.pid))
			break;
	}
	tell(&successor, 'n');
	process->renew = true;
	assert_int_equal(host_read(scene->host, clock_now(CLOCK_MONOTONIC)), 0);
	assert_int_equal(process->state, HOST_ENDED);
	assert_string_equal(process->comm, "test_host");
	end_puppet(&successor);
}

static void growth_starts_over_with_an_exec(void **state)
{
	struct host_process *process;
	struct scene *scene = *state;
	struct puppet puppet;

	if (!scene->watch)
		skip();
	assert_true(make(&puppet, 0));
	look(scene, NULL);
	process = find_watched(scene, puppet.pid);
	assert_string_equal(process->comm, "test_host");
	tell(&puppet, 'g');
	tick(scene);
	assert_near((uint64_t)host_growth(process), 8 * MIB);
	assert_int_equal(host_read_detail(process, &process->noted_memory), 0);
	process->noted = true;
	tick(scene);
	assert_true(process->noted);
	tell(&puppet, 'x');
	tick(scene);
	tick(scene);
	assert_false(process->noted);
	assert_ptr_equal(find_watched(scene, puppet.pid), process);
	assert_string_equal(process->comm, "sleep");
	assert_int_equal(process->executions, 1);
	assert_true(process->executed_at > process->seen_at);
	assert_near(host_memory_anon(&process->first), 0);
	assert_true(process->highest < MIB);
	assert_int_equal(process->readings.count, 2);
	end_puppet(&puppet);
}

static void memory_is_read_of_one_in_many_groups(void **state)
{
	struct memory memory;
	struct puppet puppet;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_true(make(&puppet, 0));
	tell(&puppet, 'm');
	assert_int_equal(memory_read(puppet.pid, &memory), 0);
	assert_true(memory.anon > 0);
	end_puppet(&puppet);
}

static void a_new_process_is_watched_from_the_next_tick_on(void **state)
{
	const struct host_process *process;
	struct scene *scene = *state;
	struct puppet puppet;

	look(scene, NULL);
	assert_true(make(&puppet, 0));
	tell_events(scene);
	if (scene->watch && !scene->lost) {
		process = host_find(scene->host, puppet.pid);
		assert_non_null(process);
		assert_int_equal(process->state, HOST_NEW);
	}
	assert_int_equal(host_read(scene->host, clock_now(CLOCK_MONOTONIC)), 0);
	process = find_watched(scene, puppet.pid);
	assert_int_equal(process->readings.count, 1);
	tell(&puppet, 'g');
	tick(scene);
	assert_near((uint64_t)host_growth(process), 8 * MIB);
	end_puppet(&puppet);
}

/* Threads that go on without the first one are a process still. */
static void a_process_without_its_first_thread_is_watched(void **state)
{
	const struct host_process *process;
	struct puppet puppet, late;
	struct scene *scene = *state;

	assert_true(make(&puppet, 0));
	assert_true(make(&late, 0));
	tell(&late, 't');
	look(scene, NULL);
	process = find_watched(scene, puppet.pid);
	tell(&puppet, 't');
	tell(&puppet, 'g');
	tick(scene);
	assert_ptr_equal(find_watched(scene, puppet.pid), process);
	assert_near((uint64_t)host_growth(process), 8 * MIB);
	assert_near(host_memory_anon(&find_watched(scene, late.pid)->latest),
		    host_memory_anon(&process->first));
	end_puppet(&puppet);
	end_puppet(&late);
	tick(scene);
	assert_int_equal(process->state, HOST_ENDED);
}

static void any_name_is_read_as_it_is(void **state)
{
	struct scene *scene = *state;
	struct host_process *process;
	struct puppet puppet, later;

	assert_true(make(&puppet, 0));
	assert_true(make(&later, 0));
	tell(&puppet, 'n');
	look(scene, NULL);
	process = find_watched(scene, puppet.pid);
	assert_string_equal(process->comm, "a) Z 1\n(\x1b[2J\x07)");
	assert_int_equal(process->user, geteuid());
	assert_int_equal(process->parent, getpid());
	/* One that was given later is read when it is asked for. */
	process = find_watched(scene, later.pid);
	tell(&later, 'n');
	tick(scene);
	assert_string_equal(process->comm, "test_host");
	process->renew = true;
	tick(scene);
	assert_string_equal(process->comm, "a) Z 1\n(\x1b[2J\x07)");
	end_puppet(&puppet);
	end_puppet(&later);
}

static void only_processes_are_watched_and_not_we(void **state)
{
	struct scene *scene = *state;
	struct puppet puppet;
	char comm[32] = "";
	int fd = open("/proc/2/comm", O_RDONLY);

	assert_true(make(&puppet, 0));
	kill(puppet.pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)puppet.pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	look(scene, NULL);
	assert_int_equal(host_find(scene->host, getpid())->state, HOST_LEFT_OUT);
	assert_null(host_find(scene->host, puppet.pid));
	assert_true(scene->host->zombies >= 1);
	if (fd >= 0 && read(fd, comm, sizeof(comm) - 1) > 0 && strcmp(comm, "kthreadd\n") == 0) {
		assert_null(host_find(scene->host, 2));
		assert_int_equal(scene->host->kernel_parent, 2);
		assert_true(scene->host->kernel_threads > 1);
	}
	close(fd);
	for (size_t i = 0; i < scene->host->processes.count; i++)
		assert_true(scene->host->processes.items[i]->pid > 0);
	end_puppet(&puppet);
}

static void what_was_lost_is_read_from_proc(void **state)
{
	const struct watch_event lost = {.type = WATCH_LOST};
	struct scene *scene = *state;
	struct puppet puppet;

	look(scene, NULL);
	assert_true(make(&puppet, 0));
	assert_int_equal(host_read(scene->host, clock_now(CLOCK_MONOTONIC)), 0);
	assert_null(host_find(scene->host, puppet.pid));
	assert_int_equal(host_event(scene->host, &lost), 0);
	assert_int_equal(host_read(scene->host, clock_now(CLOCK_MONOTONIC)), 0);
	find_watched(scene, puppet.pid);
	end_puppet(&puppet);
}

/* --- filters --- */

static void a_user_is_filtered(void **state)
{
	struct host_filter filter = {0};
	struct scene *scene = *state;
	struct puppet puppet, other;

	if (geteuid())
		skip();
	assert_int_equal(host_filter_add_user(&filter, "54321"), 0);
	assert_true(make(&puppet, 0));
	assert_true(make(&other, 0));
	tell(&puppet, 'u');
	look(scene, &filter);
	assert_int_equal(find_watched(scene, puppet.pid)->user, 54321);
	assert_int_equal(host_find(scene->host, other.pid)->state, HOST_LEFT_OUT);
	/* It may become that user later, which no event tells. */
	tick(scene);
	tell(&other, 'u');
	for (int i = 0; i < 16; i++)
		tick(scene);
	find_watched(scene, other.pid);
	end_puppet(&puppet);
	end_puppet(&other);
}

static void a_name_is_filtered_also_after_an_exec(void **state)
{
	struct host_filter filter = {0};
	struct scene *scene = *state;
	struct puppet puppet, other, leaving;

	if (!scene->watch)
		skip();
	assert_int_equal(host_filter_add_comm(&filter, "sleep"), 0);
	assert_true(make(&puppet, 0));
	assert_true(make(&other, 0));
	look(scene, &filter);
	assert_int_equal(host_find(scene->host, puppet.pid)->state, HOST_LEFT_OUT);
	tell(&puppet, 'x');
	tick(scene);
	assert_string_equal(find_watched(scene, puppet.pid)->comm, "sleep");
	assert_int_equal(host_find(scene->host, other.pid)->state, HOST_LEFT_OUT);

	/* The other way round. */
	host_free(scene->host);
	scene->host = NULL;
	assert_int_equal(host_filter_add_comm(&filter, "test_host"), 0);
	assert_true(make(&leaving, 0));
	look(scene, &filter);
	assert_int_equal(host_find(scene->host, puppet.pid)->state, HOST_LEFT_OUT);
	find_watched(scene, leaving.pid);
	tell(&leaving, 'x');
	tick(scene);
	assert_int_equal(host_find(scene->host, leaving.pid)->state, HOST_LEFT_OUT);
	end_puppet(&puppet);
	end_puppet(&other);
	end_puppet(&leaving);
}

/* --- many --- */

#define STORM	 10000
#define STORM_GO 100

/* Of its own, because what a vfork() returns to keeps nothing in registers. */
__attribute__((noinline)) static bool one_child(void)
{
	pid_t child = vfork(); /* with sanitizers a fork takes milliseconds */

	if (child == 0)
		_exit(0);
	return child > 0 && waitpid(child, NULL, 0) == child;
}

/* Forks as fast as it can, a hundred at a word, so that no event is lost, and says when they are done. */
static _Noreturn void storm(int from, int to)
{
	char go;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, own_name);
	for (int i = 0; i < STORM; i++) {
		if (i % STORM_GO == 0 && (write(to, "r", 1) != 1 || read(from, &go, 1) != 1))
			_exit(1);
		if (!one_child())
			_exit(1);
	}
	_exit(write(to, "r", 1) != 1);
}

static uint64_t count_children_of(const struct host *host, const char *parent, uint64_t *kept)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < host->short_lived.count; i++)
		if (strcmp(host->short_lived.items[i].parent, parent) == 0)
			sum += host->short_lived.items[i].count;
	*kept = 0;
	for (size_t i = 0; i < host->processes.count; i++)
		*kept += strcmp(host->processes.items[i]->parent_comm, parent) == 0;
	return sum;
}

static void every_process_of_a_storm_is_counted(void **state)
{
	struct scene *scene = *state;
	struct host_process *process;
	uint64_t seen, kept;
	int status, go[2], ready[2];
	pid_t pid;

	if (!scene->watch)
		skip();
	look(scene, NULL);
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		storm(go[0], ready[1]);
	}
	close(go[0]);
	wait_for(&(struct puppet){.from = ready[0]}, 'r');
	tick(scene);
	process = find_watched(scene, pid);
	process->kept = true;
	for (int i = 0; i < STORM / STORM_GO; i++) {
		struct pollfd done = {.fd = ready[0], .events = POLLIN};

		assert_int_equal(write(go[1], "g", 1), 1);
		while (!poll(&done, 1, 0))
			tick(scene);
		wait_for(&(struct puppet){.from = ready[0]}, 'r');
		/* None of those that have ended is left behind. */
		assert_true(scene->host->processes.count < HOST_ENDED_MAX + 2000);
	}
	tick(scene);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(go[1]);
	close(ready[0]);
	close(ready[1]);
	tick(scene);
	seen = count_children_of(scene->host, own_name, &kept);
	if (scene->lost || scene->host->forgotten) {
		assert_true(seen + kept <= STORM);
	} else {
		assert_int_equal(seen + kept, STORM);
		assert_int_equal(process->children, STORM);
	}
}

/* How many more short-lived processes are counted after one of our own. */
static uint64_t count_an_own_child(struct scene *scene)
{
	uint64_t before = scene->host->short_lived_total;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	tick(scene);
	tick(scene);
	return scene->host->short_lived_total - before;
}

static void own_children_are_not_counted_where_that_is_asked(void **state)
{
	struct host_filter filter = {0};
	struct scene *scene = *state;

	if (!scene->watch)
		skip();
	assert_int_equal(host_filter_add_comm(&filter, "test_host"), 0);
	look(scene, &filter);
	assert_int_equal(count_an_own_child(scene), 1);
	scene->host->ignores_own = true;
	assert_int_equal(count_an_own_child(scene), 0);
}

static void of_many_that_have_ended_those_that_grew_are_kept(void **state)
{
	const struct host_grown grown = {.bytes = 4 * MIB, .ended = true};
	const int batch = 500, batches = HOST_ENDED_MAX / 500 + 1;
	struct host_process *found[64], *grower, *held = NULL;
	struct scene *scene = *state;
	struct puppet puppet;
	size_t ended = 0, still = 0, at = 0, count;

	assert_true(make(&puppet, 0));
	look(scene, NULL);
	grower = find_watched(scene, puppet.pid);
	tell(&puppet, 'g');
	tick(scene);
	end_puppet(&puppet);
	for (int i = 0; i < batches; i++) {
		pid_t *pids = calloc((size_t)batch, sizeof(*pids));

		assert_non_null(pids);
		for (int n = 0; n < batch; n++) {
			pids[n] = fork();
			if (pids[n] == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				pause();
				_exit(0);
			}
		}
		tick(scene);
		if (i ==
		    batches / 2 + 1) { /* of those that come so late none has its place by itself */
			held = find_watched(scene, pids[0]);
			held->kept = true;
		}
		for (int n = 0; n < batch; n++)
			assert_int_equal(kill(pids[n], SIGKILL), 0);
		for (int n = 0; n < batch; n++)
			assert_int_equal(waitpid(pids[n], NULL, 0), pids[n]);
		tick(scene);
		free(pids);
	}
	for (size_t i = 0; i < scene->host->processes.count; i++) {
		ended += scene->host->processes.items[i]->state == HOST_ENDED;
		still += scene->host->processes.items[i] == held;
	}
	assert_true(ended <= HOST_ENDED_MAX);
	assert_true(scene->host->forgotten >= HOST_ENDED_MAX / 2);
	assert_int_equal(still, 1);
	assert_int_equal(held->state, HOST_ENDED);
	count = host_growers(scene->host, &grown, found, 64);
	while (at < count && found[at] != grower)
		at++;
	assert_true(at < count);
	assert_int_equal(grower->pid, puppet.pid);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_scene, close_scene)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_process_that_grows_is_found),
		TEST(only_the_largest_growth_is_found_where_there_is_no_room),
		TEST(an_end_is_seen_with_and_without_its_event),
		TEST(an_id_that_is_used_again_is_told_by_events),
		TEST(an_id_that_is_used_again_is_found_in_proc),
		TEST(names_are_not_those_of_the_next_owner),
		TEST(growth_starts_over_with_an_exec),
		TEST(memory_is_read_of_one_in_many_groups),
		TEST(a_new_process_is_watched_from_the_next_tick_on),
		TEST(a_process_without_its_first_thread_is_watched),
		TEST(any_name_is_read_as_it_is),
		TEST(only_processes_are_watched_and_not_we),
		TEST(what_was_lost_is_read_from_proc),
		TEST(a_user_is_filtered),
		TEST(a_name_is_filtered_also_after_an_exec),
		TEST(every_process_of_a_storm_is_counted),
		TEST(own_children_are_not_counted_where_that_is_asked),
		TEST(of_many_that_have_ended_those_that_grew_are_kept),
	};

	snprintf(own_name, sizeof(own_name), "own%d", getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
