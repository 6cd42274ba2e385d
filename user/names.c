#include "names.h"

#include "jit_names.h"
#include "output/frame.h"
#include "output/text.h"
#include "symbol/downloads.h"
#include "symbol/symbolizer.h"
#include "target/python.h"
#include "util/cleanup.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Levels of inlining resolved for one address. */
#define INLINE_FRAMES_MAX 64
/* "[libfoo.so+0x1234]" */
#define STAND_IN_MAX (FRAME_STAND_IN_MAX + 20)

/* A Python function whose name is not known. */
#define NAMELESS_PYTHON "[python]"

struct names {
	struct symbolizer *symbolizer; /* owned */
	struct downloads *downloads;   /* owned; NULL: none wanted, or none to be had */
};

/* --- what is told on the way --- */

static void say_looked(void *context, const struct image *image, const char *where, bool in_target,
		       const char *outcome)
{
	CLEANUP(cleanup_free) char *path = text_escaped(image->path);
	CLEANUP(cleanup_free) char *place = text_escaped(where);

	(void)context;
	if (path && place)
		log_verbose("debug information of %s: %s%s: %s", path, place,
			    in_target ? " (in its root)" : "", outcome);
}

/* Ctrl-C ends the waiting for servers, not the writing of profiles. */
static bool is_interrupted(void)
{
	sigset_t set;

	return !sigpending(&set) && (sigismember(&set, SIGINT) || sigismember(&set, SIGTERM));
}

static bool say_progress(const char *name, uint64_t bytes, uint64_t of)
{
	CLEANUP(cleanup_free) char *text = text_escaped(name);
	char done[UNITS_TEXT_MAX], all[UNITS_TEXT_MAX];

	if (of)
		log_progress("debug information of %s: %s of %s", text ? text : "",
			     units_format_size((double)bytes, done),
			     units_format_size((double)of, all));
	else
		log_progress("debug information of %s: asking", text ? text : "");
	return !is_interrupted();
}

/* Waits for signals from here on to be asked for; *before: what was. */
static void hold_signals(sigset_t *before)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, before);
}

/*
 * What came meanwhile has had its effect. Not so where signals were held before: somebody waits for them,
 * and while a recording runs, they end that, too.
 */
static void release_signals(const sigset_t *before)
{
	const struct timespec now = {0};
	sigset_t set;

	sigemptyset(&set);
	if (!sigismember(before, SIGINT))
		sigaddset(&set, SIGINT);
	if (!sigismember(before, SIGTERM))
		sigaddset(&set, SIGTERM);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
	sigprocmask(SIG_SETMASK, before, NULL);
}

static void open_downloads(struct names *names)
{
	int err = downloads_new(say_progress, &names->downloads);

	if (err == -EDESTADDRREQ)
		log_warning("--debuginfod: DEBUGINFOD_URLS is empty: nothing is fetched");
	else if (err == -ELIBACC)
		log_warning(
			"--debuginfod: libdebuginfod.so.1 is not installed: nothing is fetched");
	else if (err)
		log_warning("--debuginfod: %s: nothing is fetched", strerror(-err));
}

int names_new(const struct settings *settings, struct names **out)
{
	struct symbolizer_options options = {
		.no_demangle = settings->no_demangle,
		.search =
			{
				.folders = (const char *const *)settings->debug_folders.items,
				.folder_count = settings->debug_folders.count,
				.looked = settings->log_level == LOG_VERBOSE ? say_looked : NULL,
			},
	};
	struct names *names = calloc(1, sizeof(*names));
	int err;

	if (!names)
		return -ENOMEM;
	if (settings->debuginfod)
		open_downloads(names);
	options.search.server = names->downloads;
	err = symbolizer_new(&options, &names->symbolizer);
	if (err) {
		names_free(names);
		return err;
	}
	*out = names;
	return 0;
}

void names_free(struct names *names)
{
	if (!names)
		return;
	symbolizer_free(names->symbolizer);
	downloads_free(names->downloads);
	free(names);
}

/* --- mappings --- */

static void build_id_text(const struct image *image, char text[2 * IMAGE_BUILD_ID_MAX + 1])
{
	static const char digits[] = "0123456789abcdef";
	size_t length = image ? image->build_id_len : 0;

	for (size_t i = 0; i < length; i++) {
		text[2 * i] = digits[image->build_id[i] >> 4];
		text[2 * i + 1] = digits[image->build_id[i] & 15];
	}
	text[2 * length] = '\0';
}

int names_add_mappings(struct profile *profile, const struct process *process)
{
	int err = 0;

	for (int main_only = 1; main_only >= 0; main_only--) {
		vec_for_each(mapping, &process->mappings) {
			char build_id[2 * IMAGE_BUILD_ID_MAX + 1];
			bool is_main = *mapping->path && strcmp(mapping->path, process->exe) == 0;

			if (is_main != (bool)main_only || err)
				continue;
			build_id_text(mapping->image, build_id);
			err = profile_add_mapping(
				profile, mapping->start, mapping->end, mapping->offset,
				*mapping->path ? mapping->path : "[jit]", build_id, NULL);
		}
	}
	return err;
}

/* --- the names --- */

/* In code without a symbol: its image, and where in it, as addr2line and objdump count. */
static int name_by_offset(struct profile *profile, const struct mapping *mapping, uint64_t vaddr,
			  uint32_t index)
{
	char name[STAND_IN_MAX], file[FRAME_STAND_IN_MAX];
	struct profile_line line = {0};
	int err;

	frame_stand_in(mapping->path, file);
	snprintf(name, sizeof(name), "%.*s+0x%" PRIx64 "]", (int)strlen(file) - 1, file, vaddr);
	err = profile_add_function(profile, name, name, "", 0, &line.function);
	return err ? err : profile_set_lines(profile, index, &line, 1);
}

/* Does a stack have a Python function without a name? */
static bool has_nameless_python(const struct profile *profile, const struct profile_site *site)
{
	for (size_t i = 0; i < site->frame_count; i++) {
		const struct profile_location *location =
			&profile->locations.items[site->frames[i]];

		if (location->line_count &&
		    !strcmp(profile->functions.items[location->lines[0].function].name,
			    NAMELESS_PYTHON))
			return true;
	}
	return false;
}

/* Those whose code objects were gone before they could be read. 0 or -ENOMEM. */
static int warn_of_nameless_python(struct profile *profile)
{
	uint64_t nameless = 0, all = 0;

	vec_for_each(bucket, &profile->buckets) {
		all += bucket->alloc_hits;
		if (has_nameless_python(profile, &profile->sites.items[bucket->site]))
			nameless += bucket->alloc_hits;
	}
	if (!nameless || 100 * nameless < all)
		return 0;
	return profile_add_warning(
		profile,
		"%.0f %% of the samples have Python functions that were gone before their names "
		"could be read: " NAMELESS_PYTHON,
		100.0 * (double)nameless / (double)all);
}

/* A Python function; its location gets an address that is one. */
static int name_python(struct profile *profile, const struct process *process, uint32_t index)
{
	uint64_t *address = &profile->locations.items[index].address, frame = *address;
	struct python_function function = {.name = NAMELESS_PYTHON, .file = ""};
	struct profile_line line = {0};
	int err;

	profile->locations.items[index].interpreted = true;
	if (process->python) {
		python_name(process->python, frame, &function);
		*address = python_address(process->python, frame);
	}
	/* Nothing was mangled: where a name is also the system's, pprof takes brackets from it. */
	err = profile_add_function(profile, function.name, "", function.file, function.first_line,
				   &line.function);
	line.line = function.line;
	return err ? err : profile_set_lines(profile, index, &line, 1);
}

/* The names at one location. 0 or -ENOMEM; nothing is set where none is known. */
static int name_location(struct names *names, struct profile *profile, struct jit_names *jit_names,
			 uint32_t index)
{
	uint64_t address = profile->locations.items[index].address, vaddr;
	const struct mapping *mapping = process_find(jit_names->process, address);
	struct symbol_frame frames[INLINE_FRAMES_MAX];
	struct profile_line lines[INLINE_FRAMES_MAX];
	int count, err;

	if (address & FRAME_PYTHON)
		return name_python(profile, jit_names->process, index);
	if (!mapping || !mapping->image)
		return jit_names_set(jit_names, profile, index);
	if (!image_offset_to_vaddr(mapping->image, address - mapping->start + mapping->offset,
				   &vaddr))
		return 0;
	count = symbolizer_resolve(names->symbolizer, mapping->image, vaddr, frames,
				   INLINE_FRAMES_MAX);
	if (count < 0)
		return count;
	if (!count)
		return name_by_offset(profile, mapping, vaddr, index);
	for (int i = 0; i < count; i++) {
		err = profile_add_function(profile, frames[i].name, frames[i].system_name,
					   frames[i].file, frames[i].start_line,
					   &lines[i].function);
		if (err)
			return err;
		lines[i].line = frames[i].line;
	}
	return profile_set_lines(profile, index, lines, (size_t)count);
}

/* Does any location lie in that mapping? Only then its file was, or will be, looked into. */
static bool *find_used(const struct profile *profile)
{
	bool *used = calloc(profile->mappings.count + 1, sizeof(*used));

	for (size_t i = 0; used && i < profile->locations.count; i++) {
		if (profile->locations.items[i].mapping >= 0)
			used[profile->locations.items[i].mapping] = true;
	}
	return used;
}

/* What the debug information of a file lacks. 0 or -ENOMEM. */
static int warn_of_source(struct profile *profile, const char *path,
			  const struct symbol_source *source)
{
	int err = 0;

	if (source->split_missing)
		err = profile_add_warning(profile,
					  "%s: %u .dwo files (-gsplit-dwarf) were not found: no "
					  "inlined calls there",
					  path, source->split_missing);
	if (!err && source->split_stale)
		err = profile_add_warning(profile,
					  "%s: %u .dwo files (-gsplit-dwarf) are of another "
					  "compilation: no inlined calls there",
					  path, source->split_stale);
	if (!err && source->limited)
		err = profile_add_warning(
			profile,
			"%s: its debug information takes too much time or memory, or is made to: "
			"not all of it was used",
			path);
	return err;
}

/* Is it the first of the mappings of its file that are used? */
static bool is_first_of_image(const struct profile *profile, const struct process *process,
			      const bool *used, const struct mapping *mapping)
{
	for (size_t i = 0; i < profile->mappings.count; i++) {
		const struct mapping *first =
			used[i] ? process_find(process, profile->mappings.items[i].start) : NULL;

		if (first && first->image == mapping->image)
			return first == mapping;
	}
	return false;
}

/* pprof does not look for symbols itself where a mapping says that it has them. */
static int flag_mappings(struct names *names, struct profile *profile,
			 const struct process *process)
{
	CLEANUP(cleanup_free) bool *used = find_used(profile);

	if (!used)
		return -ENOMEM;
	for (size_t i = 0; i < profile->mappings.count; i++) {
		struct profile_mapping *flagged = &profile->mappings.items[i];
		const struct mapping *mapping = process_find(process, flagged->start);
		struct symbol_source source;

		/* There is no file to look into. */
		flagged->has_functions = mapping && mapping_is_made_at_run_time(mapping);
		flagged->is_interpreter = mapping && mapping->image && process->python &&
					  mapping->image == python_image(process->python);
		if (!used[i] || !mapping || !mapping->image)
			continue;
		symbolizer_source(names->symbolizer, mapping->image, &source);
		flagged->has_functions = source.has_functions;
		flagged->has_filenames = source.has_lines;
		flagged->has_line_numbers = source.has_lines;
		flagged->has_inline_frames = source.has_inlines;
		if ((source.split_missing || source.split_stale || source.limited) &&
		    is_first_of_image(profile, process, used, mapping)) {
			int err = warn_of_source(profile, mapping->path, &source);

			if (err)
				return err;
		}
	}
	return 0;
}

static int name_locations(struct names *names, struct profile *profile,
			  const struct process *process)
{
	struct jit_names jit_names;
	int err = 0;

	jit_names_init(&jit_names, process);
	for (uint32_t i = 0; i < profile->locations.count && !err; i++)
		err = name_location(names, profile, &jit_names, i);
	if (!err)
		err = jit_names_warn(&jit_names, profile);
	if (!err && process->python)
		err = warn_of_nameless_python(profile);
	jit_names_deinit(&jit_names);
	return err;
}

int names_give(struct names *names, struct profile *profile, const struct process *process)
{
	sigset_t before;
	int err;

	if (names->downloads)
		hold_signals(&before);
	err = name_locations(names, profile, process);
	if (!err)
		err = flag_mappings(names, profile, process);
	if (names->downloads) {
		log_progress_clear();
		release_signals(&before);
	}
	return err;
}
