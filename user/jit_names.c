#include "jit_names.h"

#include "util/cleanup.h"
#include "util/vec.h"

#include <errno.h>
#include <string.h>

/* Nameless code that fewer of a hundred allocations pass through is not worth a warning. */
#define NAMELESS_PERCENT_MIN 1

/* How some runtimes are made to write a map, by the name of their executable. */
static const struct {
	const char *program;
	const char *advice;
} advices[] = {
	{"node", "node writes it when started with --perf-basic-prof"},
	{"nodejs", "node writes it when started with --perf-basic-prof"},
	{"java", "\"jcmd PID Compiler.perfmap\" makes it be written, from JDK 17 on"},
	{"dotnet", ".NET writes it when started with DOTNET_PerfMapEnabled=1"},
	{"beam.smp", "Erlang writes it when started with +JPperf true"},
};

void jit_names_init(struct jit_names *names, const struct process *process)
{
	*names = (struct jit_names){.process = process};
}

void jit_names_deinit(struct jit_names *names)
{
	perf_map_free(names->map);
}

/* 0 or -ENOMEM; that there is no map is no error. */
static int look_for_map(struct jit_names *names)
{
	const struct process_root *root = process_root_now(names->process);
	struct perf_map_owner owner = {
		.pid = names->process->inner_pid,
		.user = names->process->user,
		.group = names->process->group,
	};
	int err;

	names->looked = true;
	if (!root)
		return 0;
	owner.root = root->fd;
	err = perf_map_read(&owner, &names->map, &names->refusal);
	return err == -ENOMEM ? err : 0;
}

int jit_names_set(struct jit_names *names, struct profile *profile, uint32_t location)
{
	struct profile_line line = {0};
	const char *name;
	int err = names->looked ? 0 : look_for_map(names);

	if (err || !names->map)
		return err;
	name = perf_map_find(names->map, profile->locations.items[location].address);
	if (!name)
		return 0;
	/* Nothing was mangled: where a name is also the system's, pprof takes brackets from it. */
	err = profile_add_function(profile, name, "", "", 0, &line.function);
	return err ? err : profile_set_lines(profile, location, &line, 1);
}

/* --- what is to be said --- */

static bool is_made_at_run_time(const struct jit_names *names,
				const struct profile_location *location)
{
	const struct mapping *mapping = process_find(names->process, location->address);

	return mapping && mapping_is_made_at_run_time(mapping);
}

/* Does a stack have a frame in code made at run time? nameless: in such code without a name? */
static bool passes_through(const struct jit_names *names, const struct profile *profile,
			   const struct profile_site *site, bool nameless)
{
	for (size_t i = 0; i < site->frame_count; i++) {
		const struct profile_location *location =
			&profile->locations.items[site->frames[i]];

		if (!(nameless && location->line_count) && is_made_at_run_time(names, location))
			return true;
	}
	return false;
}

/* The share of the recorded allocations, in percent, whose stacks pass through such code. */
static double share(const struct jit_names *names, const struct profile *profile, bool nameless)
{
	uint64_t through = 0, all = 0;
	uint32_t site = UINT32_MAX;
	bool passes = false;

	vec_for_each(bucket, &profile->buckets) {
		if (bucket->site != site) {
			site = bucket->site;
			passes = passes_through(names, profile, &profile->sites.items[site],
						nameless);
		}
		all += bucket->alloc_hits;
		through += passes ? bucket->alloc_hits : 0;
	}
	return all ? 100.0 * (double)through / (double)all : 0;
}

/* What can be done about it, or "". */
static const char *find_advice(const struct process *process)
{
	const char *slash = strrchr(process->exe, '/');
	const char *program = slash ? slash + 1 : process->exe;

	for (size_t i = 0; i < sizeof(advices) / sizeof(*advices); i++) {
		if (!strcmp(advices[i].program, program))
			return advices[i].advice;
	}
	return "many runtimes write it when they are asked to";
}

static int warn_of_nameless(const struct jit_names *names, const char *path,
			    struct profile *profile)
{
	double percent = share(names, profile, true);

	if (percent < NAMELESS_PERCENT_MIN)
		return 0;
	if (names->map)
		return profile_add_warning(
			profile,
			"%.0f %% of the samples pass through code made at run time that %s "
			"does not name",
			percent, path);
	return profile_add_warning(
		profile,
		"%.0f %% of the samples pass through code made at run time, whose names are not "
		"known: the process has no %s (%s)",
		percent, path, find_advice(names->process));
}

int jit_names_warn(const struct jit_names *names, struct profile *profile)
{
	size_t broken = names->map ? perf_map_broken(names->map) : 0;
	char path[PERF_MAP_PATH_MAX];
	int err = 0;

	perf_map_path(names->process->inner_pid, path);
	if (names->refusal)
		return share(names, profile, false) > 0
			       ? profile_add_warning(profile,
						     "no names of code made at run time: the "
						     "process's %s is not used, because it %s",
						     path, names->refusal)
			       : 0;
	if (broken)
		err = profile_add_warning(
			profile,
			"%zu lines of the process's %s are not START SIZE NAME in hex: "
			"left out",
			broken, path);
	return err ? err : warn_of_nameless(names, path, profile);
}
