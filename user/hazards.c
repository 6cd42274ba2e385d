#include "hazards.h"

#include "binary/go_text.h"
#include "target/shadow_stack.h"
#include "util/log.h"
#include "util/units.h"
#include "util/vec.h"

#include <string.h>

int hazards_refuse(const struct target_record *target)
{
	if (!shadow_stack_forbids_returns(target->process->pid))
		return EXIT_OK;
	log_error("process %d has a shadow stack, of which this kernel's return probes know "
		  "nothing: they would end it (Linux 6.11 is safe)",
		  target->process->pid);
	return EXIT_KERNEL;
}

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

/* Probed functions of an image that lie in anonymous memory as the process is mapped now. */
static size_t count_moved(const struct process *process, const struct probed_image *item)
{
	size_t count = 0;

	for (size_t i = 0; i < item->allocator->function_count; i++) {
		uint64_t offset = item->allocator->functions[i].site_offset;

		vec_for_each(mapping, &process->mappings)
			count += mapping->moved && mapping->image == item->image &&
				 offset >= mapping->offset &&
				 offset - mapping->offset < mapping->end - mapping->start;
	}
	return count;
}

static int warn_of_moved_code(const struct target_record *target, struct profile *profile)
{
	int err = 0;

	vec_for_each(item, &target->images) {
		size_t moved = item->allocator ? count_moved(target->process, item) : 0;

		if (moved && !err)
			err = profile_add_warning(
				profile,
				"%s has been moved to anonymous memory, where probes do not fire: "
				"%zu of its %zu probed functions are there, and not seen",
				item->image->path, moved, item->allocator->function_count);
	}
	return err;
}

int hazards_warn(const struct target_record *target, struct profile *profile)
{
	int64_t cpu_time = profile->info.cpu_nanos;
	char text[UNITS_TEXT_MAX];
	int err = warn_of_moved_code(target, profile);

	if (!err && is_go(target->process))
		err = profile_add_warning(
			profile, "it is a Go program: figures are of its C code only; Go's heap is "
				 "in its own profile (net/http/pprof)");
	if (!err && !profile->info.calls && !profile->info.maps && cpu_time >= PROFILE_BUSY_NANOS)
		err = profile_add_warning(profile,
					  "it used %s of CPU time, and not one call of a probed "
					  "function was seen",
					  units_format_duration(cpu_time, text));
	return err;
}
