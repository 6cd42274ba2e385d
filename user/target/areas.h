/*
 * The memory areas of a process, of all kinds, and which of their pages are there: /proc/PID/smaps
 * and /proc/PID/pagemap (proc(5); admin-guide/mm/pagemap.rst in the kernel's documentation). Nothing
 * is stopped; what changes meanwhile is seen before or after the change.
 */
#ifndef ALLOCTRACE_AREAS_H
#define ALLOCTRACE_AREAS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Pages that the kernel maps around one that is read from a file, at most (fault_around_bytes). */
#define AREAS_AROUND 16
/* Pages of the largest folio, a block of pages that the kernel handles as one: a huge page. */
#define AREAS_FOLIO_MAX 512
/* The largest area that is taken for a thread's stack. */
#define AREAS_STACK_MAX (64ull << 20)

enum area_kind {
	AREA_ANON,
	AREA_HEAP,  /* [heap] */
	AREA_STACK, /* [stack] */
	AREA_FILE,  /* of a file; its private pages are anonymous memory once they are written to */
	AREA_SHARED, /* shared memory, tmpfs */
};

struct area {
	uint64_t start, end;
	enum area_kind kind;
	uint64_t resident;  /* bytes */
	uint64_t page_size; /* more than usual: hugetlbfs */
};

struct areas;

/* 0; -ESRCH: it has ended, or has no memory; -EACCES, -ENOMEM, -errno. */
int areas_open(pid_t pid, struct areas **out);
void areas_free(struct areas *areas);

/* The next area, by rising address: 1; 0 at the end; -errno. */
int areas_next(struct areas *areas, struct area *area);

/*
 * Is memory there at an address? Resident or swapped out, and not the page of zeros that stands for
 * what was read but never written. *file: the page is one of a file or shared.
 */
bool areas_holds(struct areas *areas, uint64_t address, bool *file);

/*
 * What one fault may have brought: the pages of the area around an address that are of one folio (a
 * huge page is one) or, of a file, were mapped along; and how many of them are resident. Of what folio
 * a page is, only CAP_SYS_ADMIN may know: without, each is by itself.
 */
struct areas_block {
	uint64_t start, end;
	unsigned int resident;
};

void areas_block(struct areas *areas, const struct area *area, uint64_t address, bool file,
		 struct areas_block *block);

#endif
