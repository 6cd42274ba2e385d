/*
 * The control group of a process, and the container that it stands for. Both texts are made of folder
 * names, which whoever may make groups chooses: escape them before printing.
 */
#ifndef ALLOCTRACE_CGROUP_H
#define ALLOCTRACE_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What is looked at of /proc/PID/cgroup; a line that is cut off by it counts for nothing. */
#define CGROUP_TEXT_MAX 16384
/* A container's id, with its NUL: 64 hexadecimal digits at most. */
#define CGROUP_ID_MAX 65

/*
 * The lines of /proc/PID/cgroup (cgroups(7): "ID:CONTROLLERS:/PATH", one for each hierarchy), read from
 * a descriptor of it. The text, owned by the caller, in *out. 0; -ESRCH: it has ended; -errno.
 */
int cgroup_read(int fd, char **out);

/*
 * The path that says most of the lines: that in the v2 hierarchy, or, where all is in its root, in v1's
 * memory hierarchy, or any other. As seen from our cgroup namespace: "/..." and above it "/../...". Its
 * length, *path leads into the text; 0 if there is none.
 */
size_t cgroup_best_path(const char *lines, const char **path);

/* Does the path in any of the hierarchies equal `folder`, or lie below it? For "/" it always does. */
bool cgroup_is_below(const char *lines, const char *folder);

/*
 * The id of the innermost container whose runtime names its group after it: docker-ID.scope,
 * cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope, or (all with the cgroupfs driver) a folder
 * that is named ID alone, 64 hexadecimal digits. The group of a container's monitor (libpod-conmon-ID)
 * is not its container's. Behind a runtime's name an id may be shorter, down to 12 digits. False: there is none, id is untouched.
 */
bool cgroup_container(const char *path, size_t length, char id[CGROUP_ID_MAX]);

/*
 * A group as users write it: "/system.slice/x.service", the same without its slash, or its folder below
 * /sys/fs/cgroup. The path as it is in /proc/PID/cgroup, owned by the caller, in *out. 0, -EINVAL: not a
 * path of a group; -ENOMEM.
 */
int cgroup_parse(const char *text, char **out);

#endif
