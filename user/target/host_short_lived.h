/* Processes that live too briefly to be looked at: counted by their names. */
#ifndef ALLOCTRACE_HOST_SHORT_LIVED_H
#define ALLOCTRACE_HOST_SHORT_LIVED_H

#include "target/host.h"

/* One that was new has ended. 0 or -ENOMEM. */
int host_count_short_lived(struct host *host, const struct host_process *process);

#endif
