/*
 * Page faults of all processes of a host, sampled by the kernel's software event, each with the
 * thread's registers and the top of its stack. No probe: who does not fault pays
 * nothing, and who does pays for a sample in some dozen to thousands of faults.
 *
 * What limits the cost: a ring holds two or three dozen samples, and is emptied when faults_fd() says
 * so, ten times a second and when it is half full. When a CPU has more samples than its share, its
 * period becomes longer, and shorter again afterwards. What finds no room is not lost to the sums:
 * the kernel counts all faults of a CPU, and the samples that are read together, of one period,
 * stand for all that it has counted meanwhile.
 *
 * What that does not tell: a change of the period begins a new count to it, so of the faults up to the
 * next sample none had a chance. A CPU that has few of them after a storm is seen too little until its
 * period is short again.
 */
#ifndef ALLOCTRACE_FAULTS_H
#define ALLOCTRACE_FAULTS_H

#include "target/stack_walk.h"

#include <stdint.h>
#include <sys/types.h>

/*
 * Faults per sample, at first and at best. Primes, as all periods here: programs fault in blocks of
 * 2^n pages, and one with such a period would always meet the same page of them.
 */
#define FAULTS_PERIOD 17

/* Bytes of stack that are copied with a sample. */
#define FAULTS_STACK 16384

struct fault {
	int64_t time; /* ns of CLOCK_MONOTONIC */
	pid_t pid, tid;
	uint64_t address;
	double faults; /* that it stands for: the mean over those that were read with it, of one period */
	struct stack_state
		state; /* of the thread in user space; its stack is valid during the visit */
};

struct faults_stats {
	uint64_t faults;       /* counted by the kernel, on all CPUs */
	uint64_t samples;      /* read */
	uint64_t no_registers; /* of them: without user registers (32-bit programs): left out */
	uint64_t
		unsampled; /* samples that found no room, or came while the kernel paused: others stand for them */
	uint64_t longest; /* the longest period of any CPU so far, in faults */
};

struct faults;

/* 0, -EACCES or -EPERM (not permitted), -ENOENT/-EOPNOTSUPP (no perf events), -ENOMEM, -errno. */
int faults_open(struct faults **out);
void faults_free(struct faults *faults);

/* Readable when it is time to read. */
int faults_fd(const struct faults *faults);

/* The perf event of one CPU: a program may be attached to it. */
size_t faults_events(const struct faults *faults);
int faults_event(const struct faults *faults, size_t number);

/*
 * Visits what has been sampled since the last call; by CPU, not in order of time. Non-zero of visit
 * ends it, what is left in that ring is gone then, and it is returned. Else 0.
 */
int faults_read(struct faults *faults, int (*visit)(const struct fault *fault, void *context),
		void *context);

void faults_stats(const struct faults *faults, struct faults_stats *out);

#endif
