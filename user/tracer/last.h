/* A descriptor that the kernel lets go of after all others of this process, however it ends. */
#ifndef ALLOCTRACE_LAST_H
#define ALLOCTRACE_LAST_H

/*
 * Keeps what fd leads to; fd itself may be closed. Out comes a descriptor whose close(2) gives it up. 0
 * or -errno.
 */
int last_keep(int fd, int *out);

#endif
