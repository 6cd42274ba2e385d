/*
 * A process: who it is, what it has mapped executable, and the files behind that, held open from
 * the moment they are seen. Everything it says of itself (comm, paths) is hostile text: escape it
 * before printing.
 */
#ifndef ALLOCTRACE_PROCESS_H
#define ALLOCTRACE_PROCESS_H

#include "binary/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* No process maps more executable areas than this; what comes after is counted in `dropped`. */
#define PROCESS_MAPPINGS_MAX 65536

struct mapping {
	uint64_t start, end, offset; /* as in /proc/PID/maps */
	dev_t dev;
	ino_t inode; /* 0: anonymous */
	char *path;  /* owned; "", "[vdso]", a path of the target's root; may end in " (deleted)" */
	struct image
		*image; /* borrowed from the process; NULL: not an ELF file, or not to be opened */
	/*
	 * Anonymous memory where the image's code should be: the process has moved it, into huge
	 * pages as a rule. offset and path are those of what was there; probes do not fire in it.
	 */
	bool moved;
};

/* A root folder that a process has, or had: held open, so that it outlives the process. */
struct process_root {
	int fd;	    /* owned; O_PATH; -1: it could not be opened */
	char *path; /* owned; as we see it: "/" of a mount namespace, "/srv/jail" after chroot */
};

struct process {
	pid_t pid;
	int pidfd;	 /* owned; readable when the process has ended */
	char *comm;	 /* owned */
	char *exe;	 /* owned; "" where unreadable */
	pid_t inner_pid; /* its id in its innermost pid namespace */
	uid_t user;	 /* its effective ids, as we see them, */
	gid_t group;	 /* when they were last read */
	bool ended;
	struct python *python; /* owned; NULL: not looked for. See target/python.h */
	struct {
		struct process_root *items; /* owned; the last is its own now */
		size_t count, capacity;
	} roots;
	struct {
		struct mapping *items; /* executable ones; sorted by start, without overlaps */
		size_t count, capacity;
	} mappings;
	struct {
		struct image **items; /* owned; each file once, kept though its mappings may go */
		size_t count, capacity;
	} images;
	size_t dropped; /* mappings over the limit */
	size_t areas;	/* mappings of all kinds, when they were last read */
};

/*
 * Opens a process by pid (of a thread: its process) and reads its mappings. 0, -ESRCH (no such
 * process), -ECHILD (a zombie), -ENXIO (a kernel thread), -EACCES or -EPERM (may not look at it),
 * -ENOMEM.
 */
int process_open(pid_t pid, struct process **out);
void process_free(struct process *process);

/*
 * Reads /proc/PID/maps again and adds what it has. What is not mapped any more stays, unless
 * something else is there now: stacks recorded earlier still lead into it. 0; -ESRCH: it has ended;
 * or -errno.
 */
int process_refresh(struct process *process);

/* Adds one mapping that was reported; it replaces what it overlaps. path is copied. 0 or -ENOMEM.
 */
int process_add_mapping(struct process *process, const struct mapping *mapping);

/*
 * Makes a file known that the process may map later, as another one has: what is to be done with it
 * can be done before. 0 or -errno.
 */
int process_expect_image(struct process *process, const struct image *image);

/*
 * The process executes another program: forgets mappings (images are kept), reads comm and exe anew.
 * Of a process that is gone by now no more is known than comm, as it was reported; exe then is the
 * first file that is mapped. 0 or -ENOMEM.
 */
int process_exec(struct process *process, const char *comm);

/* It is running no more; a zombie has ended. */
bool process_has_ended(const struct process *process);

/* The mapping that holds address, or NULL. */
const struct mapping *process_find(const struct process *process, uint64_t address);

/*
 * Memory whose code was made while the process ran: anonymous, or of a file that was made for it and
 * is no ELF file. What the kernel maps by itself ("[vdso]") is not.
 */
bool mapping_is_made_at_run_time(const struct mapping *mapping);

/* The root that the process has now, or had last; NULL: it could not be opened. */
const struct process_root *process_root_now(const struct process *process);

/*
 * Can the process be refused memory that the machine has? By limits of its own (setrlimit), by the
 * kernel's accounting (vm.overcommit_memory 2), for too many mappings, or by a limit that tcmalloc
 * was given. Also true where that cannot be read.
 */
bool process_memory_is_limited(const struct process *process);

/* CPU time that all its threads have used, in ns; -1 where the process is gone. */
int64_t process_cpu_time(const struct process *process);

#endif
