#include "heap_all.h"

#include "sweep.h"
#include "sweep_rows.h"
#include "targets.h"
#include "target/shadow_stack.h"
#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>

/* A slot takes 0.2 KiB on each CPU: where there are hundreds of these, there are less slots. */
#define SLOTS_MAX      2048
#define CPU_BYTES_MAX  (64U << 20)
#define SLOT_MAPPINGS  64	  /* executable ones of a target, on average at the most */
#define FILES_MAX      (1U << 20) /* fs.nr_open, unless somebody has changed that */
#define FILES_LEFT     1024	  /* descriptors that one more target may take */
#define JOINS_AT_ONCE  64
#define USAGES_AT_ONCE 64
#define ROWS	       (4 * 1024 * 1024)

int heap_all_refuse(const struct settings *settings)
{
	if (settings->attach == TRACER_PERF) {
		log_error("--heap-all: 'perf' probes are each for one process; it takes those of "
			  "uprobe_multi (Linux 6.10)");
		return EXIT_KERNEL;
	}
	if (shadow_stack_is_possible() && shadow_stack_breaks_returns()) {
		log_error("--heap-all: a process may have a shadow stack here, of which this "
			  "kernel's return probes know nothing: they would end it (Linux 6.11 is "
			  "safe)");
		return EXIT_KERNEL;
	}
	return EXIT_OK;
}

void heap_all_make_room(struct session_room *room)
{
	const struct rlimit files = {FILES_MAX, FILES_MAX};
	uint32_t slots = tracer_slots_for(CPU_BYTES_MAX);

	setrlimit(RLIMIT_NOFILE, &files);
	room->targets = slots < SLOTS_MAX ? slots : SLOTS_MAX;
	room->mappings = room->targets * SLOT_MAPPINGS;
	room->more_rows = ROWS;
}

/* Whoever maps the same file has asked all there is to ask of it. */
static void let_images_rest(const struct sweep *sweep, const struct host_process *process)
{
	const struct sweep_zoom *zoom = sweep_find_zoom(sweep, process);

	if (!zoom || zoom->reason)
		return;
	vec_for_each(image, &sweep->recording.targets.items[zoom->slot].process->images)
		image_rest(*image);
}

/*
 * Are there descriptors for one more? A process of which not all files can be opened would seem to have no
 * allocator. The lowest that is free tells: none is closed while this goes on but those of a target as a whole.
 */
static bool has_files(void)
{
	CLEANUP(cleanup_fd) int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct rlimit files;

	return lowest >= 0 && !getrlimit(RLIMIT_NOFILE, &files) &&
	       (rlim_t)lowest + FILES_LEFT < files.rlim_cur;
}

int heap_all_join(struct sweep *sweep, unsigned int readings, bool *more)
{
	unsigned int joined = 0;
	int err = 0;

	if (more)
		*more = false;
	vec_for_each(item, &sweep->host->processes) {
		struct host_process *process = *item;

		if (process->state != HOST_WATCHED || sweep_find_zoom(sweep, process) ||
		    process->readings.count < readings)
			continue;
		if (!sweep_has_slot(sweep))
			return 0;
		sweep->files_full = !has_files();
		if (sweep->files_full)
			return 0;
		if (joined++ == JOINS_AT_ONCE) {
			if (more)
				*more = true;
			return 0;
		}
		err = sweep_zoom_on(sweep, process);
		if (err)
			return err;
		let_images_rest(sweep, process);
	}
	return 0;
}

void heap_all_read_usage(struct sweep *sweep)
{
	size_t count = sweep->recording.targets.count;

	for (size_t i = 0; i < USAGES_AT_ONCE && i < count; i++) {
		size_t at = sweep->next_usage++ % count;

		targets_read_usage(&sweep->recording, &sweep->recording.targets.items[at], false);
	}
}

const char *heap_all_reason(const struct sweep *sweep)
{
	if (!sweep_has_slot(sweep))
		return "no room: too many processes in one window";
	if (sweep->files_full)
		return "no room: too many files would be open (ulimit -Hn)";
	return "it ran for too short a time";
}

bool heap_all_gets_profile(struct sweep *sweep, size_t rank, bool grown)
{
	if (rank < sweep->settings->top)
		return true;
	if (!grown || sweep->profiles >= sweep->settings->top_processes * SWEEP_ZOOMS_PER_TOP)
		return false;
	sweep->profiles++;
	return true;
}
