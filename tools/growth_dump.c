/*
 * growth_dump [-o FOLDER] [-w] PID...: what processes grow by, from their page faults, until a line
 * comes on stdin or it ends. Says "ready", then for each process that still runs
 *	process PID BYTES LOW HIGH FAULTED
 *	growth PID BYTES LOW HIGH HITS KIND NAME<NAME<...	innermost first, by bytes
 *	end PID WALKS REASON					how walks ended
 * and at last
 *	faults FAULTS SAMPLES UNSAMPLED LONGEST-PERIOD CPU-NANOSECONDS
 * -o: writes FOLDER/PID.pb.gz, too; -w: walks only, nothing at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "names.h"
#include "output/pprof.h"
#include "page_growth.h"
#include "target/faults.h"
#include "tracer/fault_returns.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/vec.h"

struct watched {
	struct process *process;
	struct page_growth *growth;
};

struct dump {
	const char *folder;
	struct fault_returns *returns; /* owned */
	struct page_growth_host host;
	struct {
		struct watched *items;
		size_t count, capacity;
	} processes;
};

static int visit(const struct fault *fault, void *context)
{
	struct dump *dump = context;
	struct fault known = *fault;

	vec_for_each(watched, &dump->processes) {
		if (watched->process->pid != fault->pid)
			continue;
		known.state.replaced =
			fault_returns_find(dump->returns, fault->tid, fault->address, fault->time);
		return page_growth_add(watched->growth, watched->process, &known);
	}
	return 0;
}

/* Until there is something to read on stdin. */
static int record(struct dump *dump, struct faults *faults)
{
	struct pollfd fds[] = {
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = faults_fd(faults), .events = POLLIN},
	};
	int err = 0;

	while (!err && !fds[0].revents) {
		if (poll(fds, 2, -1) < 0)
			return -errno;
		if (fds[1].revents)
			err = faults_read(faults, visit, dump);
	}
	return err ? err : faults_read(faults, visit, dump);
}

static void print_stack(const struct profile *profile, const struct profile_site *site)
{
	for (size_t i = 0; i < site->frame_count; i++) {
		const struct profile_location *at = &profile->locations.items[site->frames[i]];

		for (size_t j = 0; j < at->line_count; j++)
			printf("%s%s", i + j ? "<" : "",
			       profile->functions.items[at->lines[j].function].name);
		if (!at->line_count)
			printf("%s0x%" PRIx64, i ? "<" : "", at->address);
	}
	printf("%s\n", site->complete ? "" : "<...");
}

static void print_profile(const struct profile *profile, const struct page_growth *growth)
{
	double low, high;

	estimate_interval(&profile->growth, &low, &high);
	printf("process %d %" PRId64 " %.0f %.0f %.0f\n", profile->info.pid, profile->growth_value,
	       low, high, page_growth_faulted(growth));
	vec_for_each(part, &profile->growths) {
		estimate_interval(&part->space, &low, &high);
		printf("growth %d %" PRId64 " %.0f %.0f %" PRIu64 " %s ", profile->info.pid,
		       part->value, low, high, part->hits, profile_kind_names[part->kind]);
		print_stack(profile, &profile->sites.items[part->site]);
	}
	vec_for_each(counter, &profile->counters)
		printf("end %d %" PRIu64 " %s\n", profile->info.pid, counter->count, counter->name);
}

static int write_profile(const struct dump *dump, const struct profile *profile)
{
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	CLEANUP(cleanup_file) FILE *to = NULL;
	char path[4096];
	size_t size;
	int err = pprof_encode_growth(profile, &data, &size);

	if (err)
		return err;
	snprintf(path, sizeof(path), "%s/%d.pb.gz", dump->folder, profile->info.pid);
	to = fopen(path, "we");
	return to && fwrite(data, 1, size, to) == size ? 0 : -EIO;
}

static int report(const struct dump *dump, const struct watched *watched, struct names *names)
{
	struct profile *profile;
	int err = profile_new(&profile);

	if (err)
		return err;
	profile->info.pid = watched->process->pid;
	profile->info.comm = strdup(watched->process->comm);
	profile->info.period = FAULTS_PERIOD;
	profile->info.time_nanos = clock_now(CLOCK_REALTIME);
	err = names_add_mappings(profile, watched->process);
	if (!err)
		err = page_growth_fill(watched->growth, watched->process, profile);
	if (!err)
		err = names_give(names, profile, watched->process);
	if (!err)
		print_profile(profile, watched->growth);
	if (!err && dump->folder)
		err = write_profile(dump, profile);
	profile_free(profile);
	return err == -ESRCH ? 0 : err;
}

static int report_all(const struct dump *dump)
{
	struct settings settings = {0};
	struct names *names;
	int err = names_new(&settings, &names);

	if (err)
		return err;
	vec_for_each(watched, &dump->processes) {
		if (!err)
			err = report(dump, watched, names);
	}
	names_free(names);
	return err;
}

static int add_process(struct dump *dump, pid_t pid)
{
	struct watched watched = {0};
	int err = process_open(pid, &watched.process);

	if (!err)
		err = page_growth_new(&dump->host, &watched.growth);
	return err ? err : vec_push(&dump->processes, watched);
}

int main(int argc, char **argv)
{
	struct dump dump = {0};
	struct faults_stats stats;
	struct faults *faults;
	bool walks_only = false;
	int option, err;

	while ((option = getopt(argc, argv, "o:w")) != -1) {
		if (option == 'o')
			dump.folder = optarg;
		else if (option == 'w')
			walks_only = true;
		else
			return 2;
	}
	err = stack_walker_new(&dump.host.walker);
	for (int i = optind; i < argc && !err; i++)
		err = add_process(&dump, atoi(argv[i]));
	if (!err)
		err = faults_open(&faults);
	if (!err)
		err = fault_returns_open(&dump.returns);
	for (size_t i = 0; !err && i < faults_events(faults); i++)
		err = fault_returns_watch(dump.returns, faults_event(faults, i));
	if (!err) {
		printf("ready\n");
		fflush(stdout);
		err = record(&dump, faults);
	}
	if (!err && !walks_only)
		err = report_all(&dump);
	if (err) {
		fprintf(stderr, "growth_dump: %s\n", strerror(-err));
		return 1;
	}
	faults_stats(faults, &stats);
	printf("faults %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 "\n", stats.faults,
	       stats.samples, stats.unsampled, stats.longest, clock_now(CLOCK_PROCESS_CPUTIME_ID));
	vec_for_each(watched, &dump.processes) {
		page_growth_free(watched->growth);
		process_free(watched->process);
	}
	free(dump.processes.items);
	stack_walker_free(dump.host.walker);
	faults_free(faults);
	fault_returns_free(dump.returns);
	return 0;
}
