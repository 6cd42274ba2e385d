/* Names for the locations of a profile: from images, by the symbolizer, and from perf maps (see
 * jit_names.h); what is looked for on the way is told with -v. */
#ifndef ALLOCTRACE_NAMES_H
#define ALLOCTRACE_NAMES_H

#include "cli.h"
#include "profile/profile.h"
#include "target/process.h"

struct names;

/* settings is borrowed. 0 or -ENOMEM; that a server cannot be asked is said. */
int names_new(const struct settings *settings, struct names **out);
void names_free(struct names *names);

/*
 * Adds all executable mappings of a process to a new profile, the program's first: pprof takes that
 * for the program. 0 or -ENOMEM.
 */
int names_add_mappings(struct profile *profile, const struct process *process);

/*
 * Names the locations of a finished profile, and tells its mappings what is known of them. What has
 * been read of a file is kept, for the next profile, too: the process, or at least its images, must
 * stay until names_free(). 0 or -ENOMEM.
 */
int names_give(struct names *names, struct profile *profile, const struct process *process);

#endif
