/*
 * Links are closed by threads of their own, several at a time: the kernel waits for a grace period at
 * each, some 40 ms, in which whoever closes them stands still. Those that are waited for side by side
 * are over together.
 */
#ifndef ALLOCTRACE_CLOSING_H
#define ALLOCTRACE_CLOSING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLOSING_THREADS 32

struct bpf_link;

/*
 * When a link is to be closed. A return that an exception has passed stays pending until the thread meets a
 * return probe that is no deeper; and while it meets deeper ones, ten times a second and more, the kernel does not give
 * up waiting for it. So who may be passed stays until those that it calls have gone.
 */
enum closing_phase {
	CLOSING_FIRST,
	CLOSING_THROWING, /* returns of functions that may throw, each by itself */
	CLOSING_LAST,	  /* what guards all others */
	CLOSING_PHASES,
};

/* One attached probe, or several of one program: a raw link by descriptor, or libbpf's. */
struct probe_link {
	int fd;		       /* owned; -1: none */
	struct bpf_link *link; /* owned; NULL: none */
	uint32_t slot;	       /* whose it is */
	enum closing_phase phase;
};

struct closing {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct {
		struct probe_link *items;
		size_t count, capacity;
	} queue;
	pthread_t threads[CLOSING_THREADS];
	size_t thread_count, idle;
	bool finishing;
};

void closing_init(struct closing *closing);
void closing_deinit(struct closing *closing);

/* Takes a link over and closes it soon. */
void closing_add(struct closing *closing, struct probe_link link);

/* When it returns, all links that were added are closed. */
void closing_finish(struct closing *closing);

#endif
