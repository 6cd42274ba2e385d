/*
 * Which pages of a process are resident, by /proc/PID/pagemap (admin-guide/mm/pagemap.rst in the kernel's
 * documentation). Nothing is stopped.
 */
#ifndef ALLOCTRACE_PAGES_H
#define ALLOCTRACE_PAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * How many pages are looked at for one process, of which each costs some nanoseconds. From Linux 6.7 on those
 * that are resident count, before that all that there could be.
 */
#define PAGES_MAX (1ull << 24)

struct pages {
	int pagemap;
	bool scans;	  /* the kernel finds what is resident (PAGEMAP_SCAN, 6.7) */
	uint64_t size;	  /* of a page */
	uint64_t zeros;	  /* frame of the page of zeros; 0: unknown */
	uint64_t left;	  /* that may be looked at */
	uint64_t *buffer; /* owned */
};

/* All zero but for `pagemap`, -1, is a closed one. 0; -ESRCH, -EACCES, -ENOMEM, -errno. */
int pages_open(pid_t pid, struct pages *pages);
void pages_deinit(struct pages *pages);

/* Bytes of [start, end) that are resident, of whatever kind. Whole pages; no limit. */
uint64_t pages_present(struct pages *pages, uint64_t start, uint64_t end);

/*
 * Bytes of [start, end) that are resident anonymous memory: not of a file, unless written to privately, nor shared,
 * nor the page of zeros that stands for what was read but never written. 0, -E2BIG (PAGES_MAX), -errno.
 */
int pages_anonymous(struct pages *pages, uint64_t start, uint64_t end, uint64_t *bytes);

/* The frame of the page of zeros; 0: unknown (CAP_SYS_ADMIN). */
uint64_t pages_frame_of_zeros(uint64_t page_size);

#endif
