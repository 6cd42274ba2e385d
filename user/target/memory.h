/*
 * The resident memory of a process by kind, as the kernel counts it: the Rss... and VmSwap lines of
 * /proc/PID/status (proc(5)). They add up to its RSS. On kernels from 6.2 to 6.15 each may be short of
 * the truth by some hundred KiB per CPU.
 */
#ifndef ALLOCTRACE_MEMORY_H
#define ALLOCTRACE_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes. */
struct memory {
	uint64_t anon;	/* heap, stacks, anonymous and private written-to file pages */
	uint64_t file;	/* pages of files */
	uint64_t shmem; /* shared memory, tmpfs */
	uint64_t swap;	/* anonymous memory that is swapped out: not resident */
};

/* 0; -ESRCH: it has ended, or has no memory (a zombie, a kernel thread); -errno. */
int memory_read(pid_t pid, struct memory *out);

/*
 * What a process has of its resident memory if each page that others map too is shared out among all who
 * do (Pss and SwapPss of /proc/PID/smaps_rollup, proc(5)), bytes.
 */
struct memory_share {
	uint64_t pss, swap_pss;
};

/*
 * The kernel looks at each page of the process for that, which takes some 10 ms for a GiB; it does not stop
 * it, and gives way when it wants to map something. 0; -ESRCH as memory_read(); -errno.
 */
int memory_read_share(pid_t pid, struct memory_share *out);

static inline uint64_t memory_rss(const struct memory *memory)
{
	return memory->anon + memory->file + memory->shmem;
}

/* Threads looked at, and the largest mapping that is taken for a stack. */
#define MEMORY_THREADS_MAX 4096
#define MEMORY_STACK_MAX   (64ull << 20)

/* A part of the address space, and what of it is resident anonymous memory, but in no thread's stack: bytes. */
struct memory_part {
	uint64_t start, end;
	uint64_t resident;
};

/*
 * Resident bytes of the stacks of all threads: of the mapping that the kernel calls [stack], and of
 * those that hold the stack pointer of a thread that sleeps (that of one that runs cannot be read); and
 * of `parts`, which are sorted, without overlaps, and resident nowhere at first. No page is in both.
 * Neither stops nor slows the process. 0; 1: parts cannot be told, they have too many pages (PAGES_MAX);
 * -ESRCH, -ENOMEM, -errno.
 */
int memory_read_parts(pid_t pid, struct memory_part *parts, size_t count, uint64_t *stacks);

#endif
