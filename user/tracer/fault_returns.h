/*
 * Return addresses that return probes have replaced on the stacks of threads whose page faults are
 * sampled (target/faults.h): a BPF program on the event of each CPU tells them. Needs no tracer, and
 * where the kernel does not load it, those stacks end at the probe.
 */
#ifndef ALLOCTRACE_FAULT_RETURNS_H
#define ALLOCTRACE_FAULT_RETURNS_H

#include "replaced_returns.h"

#include <stdint.h>
#include <sys/types.h>

struct fault_returns;

/* 0, -ENOMEM or libbpf's -errno. */
int fault_returns_open(struct fault_returns **out);
void fault_returns_free(struct fault_returns *returns);

/* From now on tells of the samples of a perf event, which is borrowed, until that is closed. 0 or -errno. */
int fault_returns_watch(struct fault_returns *returns, int event);

/*
 * Those of the thread when that fault was sampled (ns of CLOCK_MONOTONIC); valid until the next call.
 * NULL: it had none, or they are not known.
 */
const struct replaced_returns *fault_returns_find(struct fault_returns *returns, pid_t tid,
						  uint64_t address, int64_t time);

#endif
