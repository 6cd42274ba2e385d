/* Which processes of a host are of interest: by name, control group and user, as the user asks. */
#ifndef ALLOCTRACE_HOST_FILTER_H
#define ALLOCTRACE_HOST_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A process's name, with its NUL: the kernel cuts it (TASK_COMM_LEN). */
#define HOST_COMM_SIZE 16

/* All zero takes every process. Of each kind one has to fit, of several kinds each. */
struct host_filter {
	struct {
		char **items; /* owned; as the kernel has them */
		size_t count, capacity;
	} comms;
	struct {
		char **items; /* owned; as in /proc/PID/cgroup */
		size_t count, capacity;
	} cgroups;
	struct {
		uid_t *items;
		size_t count, capacity;
	} users;
};

void host_filter_deinit(struct host_filter *filter);

/* --comm NAME: exactly that, or its first 15 bytes where it is longer. 0, -EINVAL (empty), -ENOMEM. */
int host_filter_add_comm(struct host_filter *filter, const char *name);

/* --cgroup PATH, which cgroup_parse() explains. 0, -EINVAL, -ENOMEM. */
int host_filter_add_cgroup(struct host_filter *filter, const char *path);

/* --uid UID, or a user's name: the effective one. 0, -EINVAL (no number that is an id), -ENOENT (no such user), -ENOMEM. */
int host_filter_add_user(struct host_filter *filter, const char *user);

bool host_filter_takes_comm(const struct host_filter *filter, const char *comm);

/* What a child has from its parent: the user and the groups; `cgroups` is cgroup_read()'s text. */
bool host_filter_takes_rest(const struct host_filter *filter, uid_t user, const char *cgroups);

/* Does it ask for users or groups at all? */
bool host_filter_has_rest(const struct host_filter *filter);

#endif
