#include "target/host_filter.h"

#include "target/cgroup.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

/* For the texts of one user's entry. */
#define USER_ENTRY_MAX (1 << 20)

void host_filter_deinit(struct host_filter *filter)
{
	vec_for_each(comm, &filter->comms)
		free(*comm);
	free(filter->comms.items);
	vec_for_each(cgroup, &filter->cgroups)
		free(*cgroup);
	free(filter->cgroups.items);
	free(filter->users.items);
	*filter = (struct host_filter){0};
}

int host_filter_add_comm(struct host_filter *filter, const char *name)
{
	char *copy;
	int err;

	if (!*name)
		return -EINVAL;
	copy = strndup(name, HOST_COMM_SIZE - 1);
	if (!copy)
		return -ENOMEM;
	err = vec_push(&filter->comms, copy);
	if (err)
		free(copy);
	return err;
}

int host_filter_add_cgroup(struct host_filter *filter, const char *path)
{
	char *parsed;
	int err = cgroup_parse(path, &parsed);

	if (err)
		return err;
	err = vec_push(&filter->cgroups, parsed);
	if (err)
		free(parsed);
	return err;
}

/* A user's id by name. */
static int find_user(const char *name, uid_t *uid)
{
	CLEANUP(cleanup_free) char *texts = NULL;
	struct passwd entry, *found = NULL;
	int err = ERANGE;

	for (size_t size = 4096; err == ERANGE && size <= USER_ENTRY_MAX; size *= 2) {
		free(texts);
		texts = malloc(size);
		if (!texts)
			return -ENOMEM;
		err = getpwnam_r(name, &entry, texts, size, &found);
	}
	if (err == ENOMEM)
		return -ENOMEM;
	if (!found)
		return -ENOENT;
	*uid = found->pw_uid;
	return 0;
}

int host_filter_add_user(struct host_filter *filter, const char *user)
{
	uid_t uid;
	int err;

	if (!*user)
		return -EINVAL;
	if (strspn(user, "0123456789") == strlen(user)) {
		uintmax_t number;

		errno = 0;
		number = strtoumax(user, NULL, 10);
		/* The last one means nobody in system calls. */
		if (errno || number >= (uid_t)-1)
			return -EINVAL;
		return vec_push(&filter->users, (uid_t)number);
	}
	err = find_user(user, &uid);
	return err ? err : vec_push(&filter->users, uid);
}

bool host_filter_takes_comm(const struct host_filter *filter, const char *comm)
{
	vec_for_each(wanted, &filter->comms) {
		if (strcmp(*wanted, comm) == 0)
			return true;
	}
	return !filter->comms.count;
}

static bool takes_user(const struct host_filter *filter, uid_t user)
{
	vec_for_each(wanted, &filter->users) {
		if (*wanted == user)
			return true;
	}
	return !filter->users.count;
}

bool host_filter_takes_rest(const struct host_filter *filter, uid_t user, const char *cgroups)
{
	if (!takes_user(filter, user))
		return false;
	vec_for_each(wanted, &filter->cgroups) {
		if (cgroup_is_below(cgroups, *wanted))
			return true;
	}
	return !filter->cgroups.count;
}

bool host_filter_has_rest(const struct host_filter *filter)
{
	return filter->users.count || filter->cgroups.count;
}
