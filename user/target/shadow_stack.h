/*
 * Shadow stacks: the processor keeps a second copy of every return address and ends a process whose
 * return does not match. A return probe replaces the address on the stack; only a kernel that
 * replaces the copy too (6.11, or a backport) may put one into a process with a shadow stack.
 */
#ifndef ALLOCTRACE_SHADOW_STACK_H
#define ALLOCTRACE_SHADOW_STACK_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Has the process a shadow stack? Then nobody but the kernel may put a return address back: the copy
 * would keep the other.
 */
bool shadow_stack_exists(pid_t pid);

/* And a kernel whose return probes would end it? */
bool shadow_stack_forbids_returns(pid_t pid);

/* Of any process, also of one that is yet to start: may it get one here, and would such a kernel end it? */
bool shadow_stack_is_possible(void);
bool shadow_stack_breaks_returns(void);

/* Of these: does the text of /proc/PID/status tell of a shadow stack, that of /proc/cpuinfo that there may be? */
bool shadow_stack_in_status(const char *status);
bool shadow_stack_in_cpuinfo(const char *cpuinfo);

/* The same of the file /proc/PID/status, which groups make long. True also where there is no memory to read it. */
bool shadow_stack_in_status_file(const char *path);

#endif
