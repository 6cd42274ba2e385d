/*
 * Are return probes safe for a process whose system calls are filtered?
 *
 * On x86-64 a return probe ends with a system call of its own since 6.11. Until 6.12.14 and 6.13.3
 * seccomp asked filters about it, and none of them knows it: a process in a container was killed, or
 * crashed where its filter made the call fail, however the probe had been attached.
 */
#ifndef ALLOCTRACE_SECCOMP_TRIAL_H
#define ALLOCTRACE_SECCOMP_TRIAL_H

/* Does seccomp kill by return probes, on this kernel? 1 yes, 0 no, or -errno of trying. */
int seccomp_trial(void);

/*
 * The trial for any system call: are filters asked about it? It is made by a child that puts itself
 * under a filter, with all arguments 0, and outside of any probe. 1, 0; -ENOSYS where the kernel
 * lacks it, or a filter that we are under ourselves says so; or -errno of trying. 1, too, where a
 * filter of our own kills the child.
 */
int seccomp_trial_of(long number);

#endif
