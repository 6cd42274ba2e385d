// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * alloctrace: heap profiles of running processes, by sampling their allocations in the kernel.
 *
 * Data flows one way, from a pid to a profile; a file knows only what stands above it in this list:
 *
 *   util/      bounded reads, growing arrays, units, messages
 *   binary/    ELF files: image, which functions allocate, which instruction is probed, unwind tables
 *   target/    processes: who they are and what they map (process), what happens to them (watch), a
 *              command held until it can be traced (launch), all of a host and their memory (host),
 *              where Python keeps its functions (python)
 *   profile/   plain data and arithmetic: sites, weights and their errors, the gaps between samples
 *   tracer/    the only code that touches BPF: load (tracer), links (attach), unwind tables (tables),
 *              maps -> profile (readback)
 *   symbol/    addresses -> names: of files (symbolizer), and of code made at run time (perf_map)
 *   output/    profile -> bytes: pprof, summary, folded stacks; and where they go (file)
 *   targets.c  the processes of a recording: opened, probed, kept up with
 *   session.c  what every recording needs: signals, the watch, the tracer, an end
 *   intervals.c  numbered profiles meanwhile: when they are due
 *   command.c  a command started as a target
 *   jit_names.c  the names of a target's code that was made at run time
 *   names.c    the locations of a profile -> names
 *   report.c   one target's recording -> profile, names, files
 *   record.c   one recording: open, attach, wait, detach, report
 *   sweep.c    a sweep of the host: watch all, join those that grow, tell (sweep_result, sweep_rows);
 *              where they grow by page faults (sweep_pages, page_growth, sweep_growth); numbered
 *              profiles meanwhile (sweep_intervals)
 *   cli.c      the command line
 *
 * The kernel side is in bpf/, what both sides share in include/.
 */
#include "cli.h"
#include "record.h"
#include "sweep.h"

int main(int argc, char **argv)
{
	struct settings settings;
	int code;

	if (cli_parse(argc, argv, &settings, &code)) {
		log_set_level(settings.log_level);
		code = settings.all ? sweep_run(&settings) : record_run(&settings);
	}
	settings_deinit(&settings);
	return code;
}
