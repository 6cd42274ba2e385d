/*
 * When a process ends, the kernel gives up its descriptors in rounds: what one of them alone held, a
 * perf event that a link held, say, has its turn when all that the process held itself is gone. So
 * what is to be later is sent through a socket, and the socket through another: it waits there for
 * one round more than there are sockets.
 *
 * Nothing promises that order; without it, all is as it would be without this.
 */
#include "tracer/last.h"

#include "util/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Puts a descriptor into a socket, from which it is never taken. */
static int send_descriptor(int to, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(fd))] = {0};
	struct iovec content = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &content,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(to, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* A socket in which fd is. */
static int wrap(int fd, int *out)
{
	int ends[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	err = send_descriptor(ends[0], fd);
	close(ends[0]);
	if (err)
		close(ends[1]);
	else
		*out = ends[1];
	return err;
}

int last_keep(int fd, unsigned int rounds, int *out)
{
	int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (kept < 0)
		return -errno;
	for (unsigned int i = 0; i < rounds; i++) {
		int wrapped = -1, err = wrap(kept, &wrapped);

		close(kept);
		if (err)
			return err;
		kept = wrapped;
	}
	*out = kept;
	return 0;
}
