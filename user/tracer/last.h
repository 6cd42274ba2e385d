/* A descriptor that the kernel lets go of after others of this process, however it ends. */
#ifndef ALLOCTRACE_LAST_H
#define ALLOCTRACE_LAST_H

/*
 * Links are given up in the first round, and what they alone held in the one behind it. So those that are to
 * wait for others of them come two rounds later at least.
 */
#define LAST_AFTER_MOST 1 /* links in the second round, what they held in the third */
#define LAST_OF_ALL	3 /* in the fourth */

/*
 * Keeps what fd leads to, for so many rounds more than what the process holds itself; fd itself may be closed.
 * Out comes a descriptor whose close(2) gives it up. 0 or -errno.
 */
int last_keep(int fd, unsigned int rounds, int *out);

#endif
