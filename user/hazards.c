#include "hazards.h"

#include "binary/go_text.h"
#include "util/vec.h"

#include <string.h>

/* Is the target's executable a Go program? */
static bool is_go(const struct process *process)
{
	vec_for_each(image, &process->images) {
		if (!strcmp((*image)->path, process->exe))
			return go_text_exists(*image);
	}
	return false;
}

void hazards_say_nothing_to_probe(const struct target_record *target)
{
	int pid = target->process->pid;

	if (is_go(target->process))
		log_error("process %d is a Go program without C code that allocates: its heap is "
			  "Go's own, and so is the profile to look at (net/http/pprof)",
			  pid);
	else
		log_error("process %d has no allocator that is known (no mapped file defines "
			  "malloc and free)",
			  pid);
}

int hazards_warn(const struct target_record *target, struct profile *profile)
{
	if (!is_go(target->process))
		return 0;
	return profile_add_warning(profile, "it is a Go program: figures are of its C code only; "
					    "Go's heap is in its own profile (net/http/pprof)");
}
