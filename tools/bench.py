#!/usr/bin/python3
"""What tracing costs the traced: alloctrace beside the least that uprobes can cost, and beside its neighbours.

    tools/bench.py [--workloads NAME,...] [--contestants NAME,...] [--rounds N] [--quick] [--output FILE]
    tools/bench.py --soak [SECONDS]
    tools/bench.py --sweep [SECONDS] [--rounds N]

Every round measures all contestants on one workload, each round in another order, so that what changes on the
machine meanwhile changes all of them. A contestant that attaches does so to one and the same process in all
rounds (but cc1plus, which lives for one compilation); one that is preloaded has a process of its own. A ratio
is the median over the rounds of the ratio within a round. Times are those of the target's threads, without
what they waited for a CPU, so a busy machine can be measured on; a quiet one gives better figures.

--soak: two threads allocate and free for a minute, at the default rate and with 4 KiB between samples: what was
lost, what alloctrace itself used.

--sweep: alloctrace -a beside a thousand idle processes: what it used, and what redis-server and compilers pay.

Exit status: 0; 1 where a limit does not hold (with --quick none is looked at), or something failed.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools", "bench"))

import contestants  # noqa: E402  (found by the line above)
import programs  # noqa: E402
import soak  # noqa: E402
import sweep  # noqa: E402
from report import as_table, describe_limit, describe_machine, format_ns, format_ratio, judge_limit, say  # noqa: E402
from setting import Missing, Setting, lib  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

MILLISECONDS = 1000  # of a measurement that can be as long as one likes
TIME_LIMIT = 2 * 3600  # seconds for everything

# (a contestant, another, the most that the first may be of the second), on the loops.
LIMITS = (("alloctrace", "floor", 1.10), ("alloctrace", "bpftrace", 0.10))


class Results:
    """What one workload gave: {contestant: [nanoseconds a unit, by round]}, and what else is known of each."""

    def __init__(self, workload):
        self.workload = workload
        self.rounds = {}
        self.waited = {}  # contestant: by round, the part of the time that its threads waited for a CPU
        self.missing = {}  # contestant: why
        self.programs = {}  # contestant: (runs of its BPF programs a unit, nanoseconds of them a unit)

    def add(self, name, measured):
        self.rounds[name].append(measured.ns / measured.units)
        self.waited[name].append(measured.waited / (measured.ns + measured.waited))

    def ratio(self, name, base):
        """The median over the rounds of one contestant's time in another's; None where one is missing."""
        if not self.rounds.get(name) or not self.rounds.get(base):
            return None
        return statistics.median(a / b for a, b in zip(self.rounds[name], self.rounds[base]))

    def as_json(self):
        found = {}
        for name, rounds in self.rounds.items():
            found[name] = {
                "ns": [round(value, 2) for value in rounds],
                "waited": [round(value, 3) for value in self.waited[name]],
                "median_ns": round(statistics.median(rounds), 2),
                "times_untraced": self.ratio(name, "untraced"),
                "times_floor": self.ratio(name, "floor"),
            }
            if name in self.programs:
                found[name]["bpf_runs"], found[name]["bpf_ns"] = (round(n, 3) for n in self.programs[name])
        for name, reason in self.missing.items():
            found[name] = {"missing": reason}
        return {"title": self.workload.title, "unit": self.workload.unit, "contestants": found}


class Workbench:
    """One workload and the process that the attached contestants share."""

    def __init__(self, run, workload):
        self.run = run
        self.workload = workload
        self.shared = None

    def __enter__(self):
        if not self.workload.fresh:
            self.shared = self.start({})
        return self

    def __exit__(self, *_):
        if self.shared:
            self.shared.kill()

    def library(self):
        """The file that serves the untraced target's malloc."""
        with contextlib.ExitStack() as stack:
            return self.run.allocator_of(self.target(stack, {}).pid)

    def target(self, stack, environment):
        if self.shared and not environment:
            return self.shared
        target = self.start(environment)
        stack.callback(target.kill)
        return target

    def start(self, environment):
        """A target that has done its work once, if it can do so again: what comes first takes longer."""
        target = self.workload.start(self.run.environment(environment))
        try:
            if not self.workload.fresh:
                self.workload.measure(target)
        except BaseException:
            target.kill()
            raise
        return target

    def measure(self, contestant):
        return self.measure_with(contestant, lambda pid: None)[0]

    def measure_programs(self, contestant):
        """(Runs of its BPF programs a unit, nanoseconds of them, the kernel's taking of the time included); None."""
        with programs.statistics():
            measured, held = self.measure_with(contestant, lambda pid: pid and programs.Programs(pid))
        if not held:
            return None
        spent = held.since()
        held.close()
        return [number / measured.units for number in spent]

    def measure_with(self, contestant, look):
        """(a Measurement, what look(pid of the tracer) returned before)."""
        with contextlib.ExitStack() as stack:
            environment = stack.enter_context(contestant.environment())
            target = self.target(stack, environment)
            tracer = stack.enter_context(contestant.attached(target.pid))
            seen = look(tracer)
            return self.workload.measure(target), seen


def choose(run, wanted):
    """([contestants that can run here], {name of another: why not})."""
    found, missing = [], {}
    for kind in contestants.CONTESTANTS:
        if wanted and kind.name not in wanted:
            continue
        try:
            found.append(kind(run))
        except Missing as reason:
            missing[kind.name] = str(reason)
    return found, missing


def run_workload(run, workload, wanted, rounds):
    results = Results(workload)
    racing, results.missing = choose(run, wanted)
    say(f"{workload.name}: {workload.title}")
    with Workbench(run, workload) as bench:
        library = bench.library()
        results.missing.update({c.name: c.serves(library) for c in racing if c.serves(library)})
        racing = [c for c in racing if c.name not in results.missing]
        results.rounds = {c.name: [] for c in racing}
        results.waited = {c.name: [] for c in racing}
        for number in range(rounds):
            first = number % len(racing)
            for contestant in racing[first:] + racing[:first]:
                results.add(contestant.name, bench.measure(contestant))
            times = (f"{name} {format_ns(times[-1])}" for name, times in results.rounds.items())
            say(f"  round {number + 1} of {rounds}: {', '.join(times)}")
        for contestant in racing:
            spent = bench.measure_programs(contestant)
            if spent is not None:
                results.programs[contestant.name] = spent
    return results


# --- what is printed -------------------------------------------------------------------------------


def cell(results, name):
    if name in results.missing:
        return results.missing[name]
    if not results.rounds.get(name):
        return ""
    if name == "untraced":
        return f"{format_ns(statistics.median(results.rounds[name]))} a {results.workload.unit}"
    ratios = [results.ratio(name, base) for base in ("untraced", "floor")]
    text = "" if ratios[0] is None else format_ratio(ratios[0])
    return text if ratios[1] is None or name == "floor" else f"{text} ({format_ratio(ratios[1])})"


def table(all_results, wanted):
    rows = [["times untraced (times the floor)", *(results.workload.name for results in all_results)]]
    for kind in contestants.CONTESTANTS:
        if not wanted or kind.name in wanted:
            rows.append([kind.title, *(cell(results, kind.name) for results in all_results)])
    return as_table(rows)


def program_times(all_results):
    for results in all_results:
        times = (f"{name} {format_ns(ns)} in {runs:.3g}" for name, (runs, ns) in results.programs.items())
        if results.programs:
            yield f"runs of BPF programs, a {results.workload.unit} of {results.workload.name}: {', '.join(times)}"


def judge(all_results):
    """[{what, value, limit, holds}] of the limits that could be looked at."""
    found = []
    for results in all_results:
        if not results.workload.name.startswith("loop"):
            continue
        for name, base, limit in LIMITS:
            ratio = results.ratio(name, base)
            if ratio is not None:
                found.append(judge_limit(f"{results.workload.name}: {name} / {base}", ratio, limit))
    return found


# --- the command -----------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(description="What tracing costs the traced.")
    parser.add_argument("--alloctrace", default=lib.ALLOCTRACE)
    parser.add_argument("--tools", default=os.path.join(ROOT, "build", "bench"), help="folder of the built programs")
    known = f"of {','.join(WORKLOADS)}, with --sweep of {','.join(sweep.WORKLOADS)}; default: all"
    parser.add_argument("--workloads", default="", help=known)
    names = [kind.name for kind in contestants.CONTESTANTS]
    parser.add_argument("--contestants", default="", help=f"of {','.join(names)}; default: all")
    parser.add_argument("--rounds", type=int, help="of each workload; default: 9 of the loops, 5 of the others, 30 and more with --sweep")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything run?")
    parser.add_argument("--soak", type=int, nargs="?", const=60, metavar="SECONDS")
    parser.add_argument("--sweep", type=int, nargs="?", const=sweep.SECONDS, metavar="SECONDS")
    parser.add_argument(
        "--output", default="", help="the figures as JSON; default: build/bench.json, bench-soak.json, bench-sweep.json"
    )
    options = parser.parse_args()
    workloads = WORKLOADS if options.sweep is None else sweep.WORKLOADS
    options.workloads = options.workloads.replace(",", " ").split() or list(workloads)
    options.contestants = options.contestants.replace(",", " ").split()
    for chosen, known in ((options.workloads, workloads), (options.contestants, names)):
        if set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(set(chosen) - set(known)))}")
    if os.geteuid() != 0:
        parser.error("needs root")
    if options.quick:
        options.rounds = 1
    if any(number is not None and number < 1 for number in (options.rounds, options.soak, options.sweep)):
        parser.error("at least 1")
    options.alloctrace = os.path.abspath(options.alloctrace)
    default = "bench.json"
    for mode in ("soak", "sweep"):
        if getattr(options, mode) is not None:
            default = f"bench-{mode}.json"
    options.output = options.output or os.path.join(ROOT, "build", default)
    return options


def run_bench(run, options):
    """(the figures, whether all limits hold)."""
    all_results, left_out = [], {}
    for name in options.workloads:
        try:
            workload = WORKLOADS[name](run)
        except Missing as reason:
            say(f"{name}: {reason}")
            left_out[name] = {"missing": str(reason)}
            continue
        all_results.append(run_workload(run, workload, options.contestants, options.rounds or workload.rounds))
    for line in [*table(all_results, options.contestants), *program_times(all_results)]:
        print(line)
    waited = statistics.mean(part for results in all_results for parts in results.waited.values() for part in parts)
    print(f"targets waited for a CPU in {100 * waited:.0f} % of the time (not counted)")
    limits = [] if options.quick else judge(all_results)
    for limit in limits:
        print(describe_limit(limit))
    figures = {
        "quick": options.quick,
        "waited": round(waited, 3),
        "workloads": {**{results.workload.name: results.as_json() for results in all_results}, **left_out},
        "limits": limits,
    }
    return figures, all(limit["holds"] for limit in limits)


def end(number, _):
    raise SystemExit(f"ended by {signal.Signals(number).name}")


def main():
    options = parse_arguments()
    # Whatever ends this unwinds the stack, which ends every process that was started.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    signal.signal(signal.SIGALRM, end)
    signal.alarm(TIME_LIMIT)
    machine = describe_machine(options.alloctrace)
    print(f"{machine['alloctrace']}, Linux {machine['kernel']}, {machine['cpus']} CPUs, {machine['cpu']}")
    with tempfile.TemporaryDirectory(prefix="alloctrace-bench.") as folder:
        milliseconds = 100 if options.quick else MILLISECONDS
        run = Setting(folder, options.alloctrace, os.path.abspath(options.tools), milliseconds)
        if options.soak is not None:
            results, fine = soak.main(run, options.soak)
            figures = {"soak": results}
        elif options.sweep is not None:
            results, fine = sweep.main(run, options.sweep, options.workloads, options.rounds, options.quick)
            figures = {"sweep": results}
        else:
            figures, fine = run_bench(run, options)
    with open(options.output, "w") as file:
        json.dump({**machine, **figures}, file, indent=1)
        file.write("\n")
    print(f"figures: {os.path.relpath(options.output)}")
    return 0 if fine else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
