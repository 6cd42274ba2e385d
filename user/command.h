/* A command to be traced from its first allocation on, as the only target of a recording. */
#ifndef ALLOCTRACE_COMMAND_H
#define ALLOCTRACE_COMMAND_H

#include "record.h"

/*
 * Starts the command of the settings and holds it where its allocator is mapped and nothing of it
 * has run. An exit code; what is wrong has been said.
 */
int command_start(struct recording *recording, pid_t *pid);

/*
 * With the probes in and the recording switched on: lets the command's loader do the rest of its
 * work, while the walk is told of what it maps, and then lets it go. 0 or -errno.
 */
int command_release(struct recording *recording, pid_t pid);

#endif
