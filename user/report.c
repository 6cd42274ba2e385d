#include "report.h"

#include "coverage.h"
#include "follow.h"
#include "hazards.h"
#include "names.h"
#include "targets.h"
#include "output/pprof.h"
#include "output/text.h"
#include "target/python.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/units.h"
#include "util/vec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

static const char *const extensions[] = {
	[FORMAT_PPROF] = "pb.gz",
	[FORMAT_TEXT] = "txt",
	[FORMAT_FOLDED] = "folded",
};

/* --- where it goes --- */

/* -f text writes nothing but the summary, and that to stdout unless told otherwise. */
static bool writes_to_stdout(const struct settings *settings)
{
	if (settings->output)
		return strcmp(settings->output, "-") == 0;
	return settings->format == FORMAT_TEXT;
}

static int say_output_error(const char *path, int err)
{
	if (err == -ELOOP)
		log_error("cannot write %s: it is a symbolic link that belongs to somebody else",
			  path);
	else
		log_error("cannot write %s: %s", path, strerror(-err));
	return EXIT_OUTPUT;
}

static int say_one_file(void)
{
	log_error("--output: several processes need several files (%%p stands for the pid)");
	return EXIT_USAGE;
}

static int say_pattern(void)
{
	log_error("--output: only %%p (pid), %%c (command) and %%%% stand for something");
	return EXIT_USAGE;
}

static bool is_taken(const struct recording *recording, const struct target_record *target)
{
	vec_for_each(other, &recording->targets) {
		if (other != target && other->output && strcmp(other->output, target->output) == 0)
			return true;
	}
	return false;
}

/* Two processes of one recording can have had the same id, one after the other. */
static int make_unique(struct target_record *target)
{
	char *path;

	if (asprintf(&path, "%s.%u", target->output, target->slot) < 0)
		return -ENOMEM;
	free(target->output);
	target->output = path;
	return 0;
}

static int prepare_output(struct recording *recording, struct target_record *target)
{
	const struct settings *settings = recording->settings;
	int err = output_path(settings->output, target->process->comm, target->process->pid,
			      extensions[settings->format], &target->output);

	if (err == -EINVAL)
		return say_pattern();
	if (err)
		return say_output_error("the profile", err);
	if (is_taken(recording, target)) {
		if (!target->followed && !settings->all)
			return say_one_file();
		err = make_unique(target);
	}
	if (!err)
		err = output_check(target->output, &settings->owner);
	return err ? say_output_error(target->output, err) : EXIT_OK;
}

/* Would two processes of the same name get the same file? */
static bool is_one_file(const struct settings *settings)
{
	CLEANUP(cleanup_free) char *one = NULL;
	CLEANUP(cleanup_free) char *other = NULL;

	return !output_path(settings->output, "", 1, "", &one) &&
	       !output_path(settings->output, "", 2, "", &other) && strcmp(one, other) == 0;
}

int report_prepare_many(const struct settings *settings)
{
	CLEANUP(cleanup_free) char *path = NULL;
	int err;

	if (writes_to_stdout(settings)) {
		log_error("--output: several profiles need files");
		return EXIT_USAGE;
	}
	err = output_path(settings->output, "x", 1, extensions[settings->format], &path);
	if (err == -EINVAL)
		return say_pattern();
	if (err)
		return say_output_error("the profiles", err);
	if (is_one_file(settings))
		return say_one_file();
	err = output_check(path, &settings->owner);
	/* The path is one of many: what was given says more. */
	return err ? say_output_error(settings->output ? settings->output : path, err) : EXIT_OK;
}

int report_prepare(struct recording *recording)
{
	const struct settings *settings = recording->settings;
	bool several = settings->follow || recording->targets.count > 1;
	int code = EXIT_OK;

	if (writes_to_stdout(settings)) {
		if (settings->interval) {
			log_error("--interval: several profiles need files (--output)");
			return EXIT_USAGE;
		}
		if (settings->format == FORMAT_PPROF && several) {
			log_error("--output: only one profile fits on stdout");
			return EXIT_USAGE;
		}
		return EXIT_OK;
	}
	if (settings->follow && is_one_file(settings))
		return say_one_file();
	vec_for_each(target, &recording->targets) {
		if (code == EXIT_OK)
			code = prepare_output(recording, target);
	}
	return code;
}

/* --- the profile --- */

static bool has_blocks(const struct profile *profile)
{
	vec_for_each(bucket, &profile->buckets) {
		if (bucket->alloc_hits && !profile->sites.items[bucket->site].mapped)
			return true;
	}
	return false;
}

static int add_warnings(struct profile *profile, const struct recording *recording,
			const struct target_record *target)
{
	struct tracer_tables tables;
	int err = 0;

	if (target->executions)
		err = profile_add_warning(
			profile, "it executed another program while it was recorded: all figures "
				 "are of the last one");
	/* A sweep watches them as it does all others. */
	if (!err && target->children && !recording->settings->follow && !recording->settings->all)
		err = profile_add_warning(
			profile, "it started %u processes of its own, which were not traced",
			target->children);
	if (!err && recording->intervals.missed)
		err = profile_add_warning(
			profile,
			"%u numbered profiles were left out: those before took longer to write "
			"than the interval",
			recording->intervals.missed);
	if (!err && target->process->dropped)
		err = profile_add_warning(profile,
					  "%zu executable mappings too many: no names there",
					  target->process->dropped);
	tracer_tables(recording->tracer, &tables);
	if (!err && tables.full)
		err = profile_add_warning(
			profile,
			"no room for %llu unwind tables of files loaded since: there, "
			"stacks go by frame pointers",
			(unsigned long long)tables.full);
	if (!err && tables.unusable)
		err = profile_add_warning(
			profile,
			"%llu mapped files have unwind information that is too large or "
			"broken: there, stacks go by frame pointers",
			(unsigned long long)tables.unusable);
	if (!err && target->process->python && python_target(target->process->python)->runtime &&
	    !tracer_walks_python(recording->tracer))
		err = profile_add_warning(
			profile, "Python functions are not shown: this kernel does not load the "
				 "program that looks for them");
	if (!err && target->memory_end.direct_lost)
		err = profile_add_warning(
			profile,
			"%llu events of mappings were lost: the figure of direct mappings in the "
			"account of the RSS may be wrong by what they would have said",
			(unsigned long long)target->memory_end.direct_lost);
	if (!err && target->memory_end.direct_crowded)
		err = profile_add_warning(
			profile,
			"direct mappings were at too many places to be measured: the account of "
			"the RSS does not have them");
	if (!err && profile->info.frees == 0 && has_blocks(profile))
		err = profile_add_warning(
			profile, "not one free was seen: live figures hold all that was allocated");
	return err ? err : hazards_warn(target, profile);
}

static char *copy_or_empty(const char *text)
{
	return strdup(text ? text : "");
}

/* When a profile is made, and what cannot be read back any more then, or is still moving. */
struct moment {
	int64_t time; /* ns, CLOCK_MONOTONIC: until when it is recorded */
	uint64_t calls, frees;
	const char *reason;
};

static struct moment at_the_end(const struct recording *recording,
				const struct target_record *target)
{
	return (struct moment){
		.time = target->ended_at ? target->ended_at : recording->ended,
		.calls = target->calls,
		.frees = target->frees,
		.reason = target->ended_at ? "process ended" : recording->end_reason,
	};
}

static struct moment right_now(const struct recording *recording,
			       const struct target_record *target)
{
	struct moment now = {.time = clock_now(CLOCK_MONOTONIC), .reason = "it goes on"};

	targets_read_seen(recording, target, &now.calls, &now.frees);
	now.calls -= target->calls;
	now.frees -= target->frees;
	return now;
}

/* Of every target that is recorded; of the others it has no length. */
int report_read_ages(struct recording *recording)
{
	CLEANUP(cleanup_free) struct age_window *windows = NULL;
	int64_t now = clock_now(CLOCK_MONOTONIC);
	char text[UNITS_TEXT_MAX];
	int err;

	windows = calloc(tracer_slots(recording->tracer), sizeof(*windows));
	if (!windows)
		return EXIT_OTHER;
	vec_for_each(target, &recording->targets) {
		int64_t end = recording->ended ? recording->ended : now;

		if (!target->started)
			continue;
		windows[target->slot] = (struct age_window){
			.start = target->begun,
			.end = target->ended_at ? target->ended_at : end,
			.min_age = recording->settings->min_age,
		};
	}
	err = tracer_read_ages(recording->tracer, windows);
	if (!err) {
		log_verbose("ages of what is live: read in %s",
			    units_format_duration(clock_now(CLOCK_MONOTONIC) - now, text));
		return EXIT_OK;
	}
	log_error("cannot read the ages of live blocks: %s", strerror(-err));
	return EXIT_OTHER;
}

static int fill_info(const struct recording *recording, const struct target_record *target,
		     const struct moment *moment, struct profile *profile)
{
	struct profile_info *info = &profile->info;
	struct utsname system;

	uname(&system);
	info->pid = target->process->pid;
	info->comm = copy_or_empty(target->process->comm);
	info->exe = copy_or_empty(target->process->exe);
	info->version = copy_or_empty(ALLOCTRACE_VERSION);
	info->command_line = copy_or_empty(recording->settings->command_line);
	info->kernel = copy_or_empty(system.release);
	info->attach = copy_or_empty(tracer_kind_names[tracer_chosen_kind(recording->tracer)]);
	info->time_nanos = target->started_realtime + (target->begun - target->started);
	info->duration_nanos = moment->time - target->begun;
	info->period = recording->settings->period;
	info->mmap = recording->settings->mmap;
	info->memory_start = target->memory_start;
	info->memory_end = target->memory_end;
	info->growth = verdict_of(&target->readings);
	info->cpu_nanos = target->cpu_start >= 0 && target->cpu_end >= target->cpu_start
				  ? target->cpu_end - target->cpu_start
				  : -1;
	info->end_reason = moment->reason;
	if (target->followed &&
	    asprintf(&info->origin, "%.1f ms after it was started by process %d",
		     (double)(target->started - target->forked_at) / 1e6, target->parent) < 0) {
		info->origin = NULL;
		return -ENOMEM;
	}
	if (follow_describe(target, &info->children))
		return -ENOMEM;
	return info->comm && info->exe && info->version && info->command_line && info->kernel &&
			       info->attach
		       ? 0
		       : -ENOMEM;
}

/* How the walks ended. That they are complete the summary says as a share. */
static int add_walks(struct profile *profile, const struct tracer_walks *walks)
{
	static const char *const texts[] = {
#define X(id, text) [id] = "stacks: " text,
		WALK_ENDS(X)
#undef X
	};
	int err = profile_add_counter(profile, "stacks: with a frame found without a rule",
				      walks->unsure, PROFILE_DETAIL);

	for (int i = 0; i < WALK_END_COUNT && !err; i++)
		err = profile_add_counter(profile, texts[i], walks->samples[i],
					  i == WALK_COMPLETE ? PROFILE_DETAIL : PROFILE_SEEN);
	return err;
}

static int build_profile(const struct recording *recording, const struct target_record *target,
			 const struct moment *moment, struct profile **out)
{
	struct profile *profile;
	struct tracer_walks walks;
	int err = profile_new(&profile);

	if (err)
		return err;
	err = fill_info(recording, target, moment, profile);
	if (!err)
		err = names_add_mappings(profile, target->process);
	if (!err)
		err = tracer_readback(recording->tracer, target->slot, profile, &walks);
	if (!err) {
		profile->info.calls = moment->calls;
		profile->info.frees = moment->frees;
		err = add_walks(profile, &walks);
	}
	if (!err)
		err = coverage_report(recording, target, profile);
	if (!err)
		err = add_warnings(profile, recording, target);
	if (!err)
		err = profile_finish(profile);
	if (err) {
		profile_free(profile);
		return err;
	}
	*out = profile;
	return 0;
}

/* --- the files --- */

/* A profile in its format, as bytes. */
static int encode(const struct profile *profile, const struct settings *settings, uint8_t **data,
		  size_t *size)
{
	char *text = NULL;
	FILE *to;
	int err;

	if (settings->format == FORMAT_PPROF)
		return pprof_encode(profile, data, size);
	to = open_memstream(&text, size);
	if (!to)
		return -ENOMEM;
	err = settings->format == FORMAT_FOLDED ? folded_write(profile, to)
						: text_write_summary(profile, settings->top, to);
	if (fclose(to) && !err)
		err = -ENOMEM;
	if (err)
		free(text);
	else
		*data = (uint8_t *)text;
	return err;
}

/* Where the chosen place fails (a full disk), the recording is not lost if there is another. */
static void save_elsewhere(const char *chosen, const struct settings *settings, const void *data,
			   size_t size)
{
	const char *folder = getenv("TMPDIR"), *name = strrchr(chosen, '/');
	CLEANUP(cleanup_free) char *path = NULL;

	if (asprintf(&path, "%s/%s", folder && *folder ? folder : "/tmp",
		     name ? name + 1 : chosen) < 0)
		return;
	if (strcmp(path, chosen) != 0 && !output_write(path, &settings->owner, data, size))
		log_error("the profile was written to %s instead", path);
}

static int write_profile(const struct profile *profile, const struct settings *settings,
			 const char *path)
{
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	size_t size;
	int err = encode(profile, settings, &data, &size);

	if (err) {
		log_error("cannot make the profile: %s", strerror(-err));
		return EXIT_OTHER;
	}
	if (writes_to_stdout(settings)) {
		if (fwrite(data, 1, size, stdout) == size && !fflush(stdout))
			return EXIT_OK;
		return say_output_error("to stdout", -errno);
	}
	err = output_write(path, &settings->owner, data, size);
	if (!err)
		return EXIT_OK;
	say_output_error(path, err);
	save_elsewhere(path, settings, data, size);
	return EXIT_OUTPUT;
}

/* A profile with names. An exit code; what is wrong has been said. */
static int make_profile(struct recording *recording, const struct target_record *target,
			const struct moment *moment, struct profile **out)
{
	struct profile *profile = NULL;
	int err = build_profile(recording, target, moment, &profile);

	if (!err && !recording->names)
		err = names_new(recording->settings, &recording->names);
	if (!err)
		err = names_give(recording->names, profile, target->process);
	if (!err) {
		*out = profile;
		return EXIT_OK;
	}
	profile_free(profile);
	log_error("cannot read the recording of process %d: %s", target->process->pid,
		  strerror(-err));
	return EXIT_OTHER;
}

int report_interval(struct recording *recording, struct target_record *target, unsigned int number)
{
	const struct settings *settings = recording->settings;
	const struct moment now = right_now(recording, target);
	CLEANUP(cleanup_free) char *path = NULL;
	struct profile *profile;
	int code = EXIT_OK;

	if (!target->output)
		code = prepare_output(recording, target);
	if (code == EXIT_OK)
		code = make_profile(recording, target, &now, &profile);
	if (code != EXIT_OK)
		return code;
	if (output_numbered(target->output, extensions[settings->format], number, &path))
		code = EXIT_OTHER;
	else
		code = write_profile(profile, settings, path);
	profile_free(profile);
	return code;
}

int report_profile(struct recording *recording, struct target_record *target,
		   struct profile **profile)
{
	const struct settings *settings = recording->settings;
	const struct moment end = at_the_end(recording, target);
	int code = EXIT_OK;

	*profile = NULL;
	if (!target->output)
		code = prepare_output(recording, target);
	if (code == EXIT_OK)
		code = make_profile(recording, target, &end, profile);
	if (code == EXIT_OK)
		code = write_profile(*profile, settings, target->output);
	return code;
}

int report_target(struct recording *recording, struct target_record *target)
{
	const struct settings *settings = recording->settings;
	const struct moment end = at_the_end(recording, target);
	FILE *to = writes_to_stdout(settings) ? stderr : stdout;
	struct profile *profile;
	int code = EXIT_OK;

	if (!target->output && !writes_to_stdout(settings))
		code = prepare_output(recording, target);
	if (code == EXIT_OK)
		code = make_profile(recording, target, &end, &profile);
	if (code != EXIT_OK)
		return code;
	code = write_profile(profile, settings, target->output);
	if (settings->log_level != LOG_QUIET && settings->format != FORMAT_TEXT) {
		text_write_summary(profile, settings->top, to);
		if (code == EXIT_OK && !writes_to_stdout(settings)) {
			fputs("profile: ", to);
			text_escape(to, target->output);
			fputc('\n', to);
		}
		if (fflush(to) && code == EXIT_OK)
			code = say_output_error("the summary", -errno);
	}
	profile_free(profile);
	return code;
}
