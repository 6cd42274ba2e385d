#!/usr/bin/python3
"""What it takes to name addresses: alloctrace beside llvm-symbolizer.

    tools/symbols_bench.py [--programs NAME,...] [--rounds N] [--count N] [--quick] [--output FILE]

Each round gives both the same addresses of one program, in turn who is first. Times are those on a CPU, from the
start of the process to its end, what it reads and prints included; memory is the most that was resident. alloctrace
is symbols_dump: its symbolizer, and nothing else. It also says what a second look at the same addresses takes, as the
next profile of the same process needs it. And the answers are compared, as tools/symbols_compare.py does it.

The large programs are built once, which takes minutes, and kept in the build folder.

Exit status: 0; 1 where a limit does not hold (with --quick none is looked at), or something failed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
sys.path.insert(0, os.path.join(ROOT, "tools", "bench"))

import symbols_compare as compare  # noqa: E402  (found by the lines above)
import symbols_programs as programs  # noqa: E402
from report import as_table, describe_limit, describe_machine, format_ns, format_ratio, judge_limit, say  # noqa: E402
from setting import Missing, lib  # noqa: E402

LIMIT = 300  # seconds for one run of a symbolizer
SECOND_LOOK = 3  # passes of symbols_dump, of which the last one prints

# The most that each may be.
TIME_LIMIT, MEMORY_LIMIT, AGAIN_LIMIT = 1.0, 0.6, 0.01


def kept(name, build):
    """A function that builds a program, or takes what an earlier run has built from the same source."""

    def get(folder, *sizes):
        marker = os.path.join(folder, f"{name}_{'_'.join(map(str, sizes))}.path")
        source = os.path.join(programs.SOURCES, "inlines_many.cc")
        if not os.path.exists(marker) or os.path.getmtime(marker) < os.path.getmtime(source):
            path = build(folder, *sizes)
            with open(marker, "w") as file:
                file.write(path)
        return lib.read_text(marker)

    return get


def found(path):
    if not path:
        raise Missing("not installed, or without its debug information")
    return path


# name: (title, how to get it in a folder; quick).
PROGRAMS = {
    "clang": ("C++ of clang, -O2 -g", lambda folder, quick: kept("clang", programs.build_many)(
        folder, *((2, 2) if quick else (32, 10)))),
    "dwz": ("C++ of gcc, after dwz", lambda folder, quick: kept("dwz", programs.build_dwz)(
        folder, *((2, 2) if quick else (24, 4)))),
    "jvm": ("libjvm.so of OpenJDK", lambda folder, quick: found(programs.find_jvm())),
    "libc": ("libc", lambda folder, quick: found(programs.find_libc())),
    "python": ("python3", lambda folder, quick: found(programs.find_python())),
    "rust": ("Rust, -O -g", lambda folder, quick: programs.build_rust(folder)),
}  # fmt: skip


class Results:
    """What one program gave, by round."""

    def __init__(self, title, path):
        self.title = title
        self.size = os.path.getsize(compare.debug_file(path))
        self.time = {"alloctrace": [], "llvm-symbolizer": []}
        self.elapsed = {"alloctrace": [], "llvm-symbolizer": []}
        self.memory = {"alloctrace": [], "llvm-symbolizer": []}
        self.again = []  # a second look's part of the first
        self.answers = None  # a Comparison

    @staticmethod
    def ratio(rounds):
        return statistics.median(a / b for a, b in zip(rounds["alloctrace"], rounds["llvm-symbolizer"]))

    def as_json(self):
        return {
            "title": self.title,
            "bytes": self.size,
            "cpu_ns": self.time,
            "elapsed_ns": self.elapsed,
            "memory_kib": self.memory,
            "time_of_llvm": self.ratio(self.time),
            "memory_of_llvm": self.ratio(self.memory),
            "second_look": statistics.median(self.again),
            "answers": {
                "compared": self.answers.count,
                "in_inlined_calls": self.answers.inlined,
                "same": self.answers.same,
                "by_rule": dict(self.answers.rules),
                "unexplained": self.answers.unexplained,
            },
        }


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.input = os.path.join(folder, "addresses")

    @staticmethod
    def streams(addresses):
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return {"stdin": addresses, **output, "text": True, "timeout": LIMIT}

    def measure(self, results, name, command):
        """One run of a symbolizer: time on a CPU and memory."""
        report = os.path.join(self.folder, "spent")
        with open(self.input) as addresses:
            done = subprocess.run([self.options.spent, report, *command], **self.streams(addresses))
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        elapsed, on_cpu, memory = map(int, lib.read_text(report).split())
        results.elapsed[name].append(elapsed)
        results.time[name].append(on_cpu)
        results.memory[name].append(memory)

    def measure_again(self, results, path):
        with open(self.input) as addresses:
            command = [self.options.dump, "-t", "-n", str(SECOND_LOOK), path]
            done = subprocess.run(command, check=True, **self.streams(addresses))
        passes = re.findall(r"^pass \d+ (\d+) (\d+)$", done.stderr, re.M)
        # Instructions, where they can be counted.
        first, second = (int(count) or int(ns) for ns, count in passes[:2])
        results.again.append(second / first)

    def run(self, name):
        title, get = PROGRAMS[name]
        say(f"{name}: {title}")
        path = get(self.folder if self.options.quick else self.options.keep, self.options.quick)
        addresses = compare.sample(path, self.options.count)
        with open(self.input, "w") as file:
            file.write(compare.as_input(addresses))
        results = Results(title, path)
        contestants = [
            ("alloctrace", [self.options.dump, path]),
            ("llvm-symbolizer", ["llvm-symbolizer", f"--obj={path}"]),
        ]
        for number in range(self.options.rounds):
            for contestant in contestants if number % 2 else contestants[::-1]:
                self.measure(results, *contestant)
            self.measure_again(results, path)
            times = (f"{who} {format_ns(times[-1])}" for who, times in results.time.items())
            say(f"  round {number + 1} of {self.options.rounds}: {', '.join(times)}")
        results.answers = compare.compare(path, addresses, self.options.dump)
        say(f"  {results.answers.describe()}")
        return results


# --- what is printed -------------------------------------------------------------------------------


def table(all_results, count):
    rows = [[
        f"{count} addresses of", "MB", "alloctrace", "llvm-symbolizer", "ratio", "MiB", "MiB", "ratio", "second look",
        "same", "by rule", "unexplained",
    ]]  # fmt: skip
    for results in all_results.values():
        times = [format_ns(statistics.median(times)) for times in results.time.values()]
        sizes = [f"{statistics.median(sizes) / 1024:.0f}" for sizes in results.memory.values()]
        answers = results.answers
        unexplained = len(answers.unexplained)
        rows.append([
            results.title, f"{results.size / 1e6:.0f}",
            *times, format_ratio(results.ratio(results.time)),
            *sizes, format_ratio(results.ratio(results.memory)),
            f"{100 * statistics.median(results.again):.2f} %",
            str(answers.same), str(answers.count - answers.same - unexplained), str(unexplained),
        ])  # fmt: skip
    return as_table(rows)


def judge(all_results):
    limits = []
    for name, results in all_results.items():
        limits.append(judge_limit(f"{name}: time / llvm-symbolizer's", results.ratio(results.time), TIME_LIMIT))
        limits.append(judge_limit(f"{name}: memory / llvm-symbolizer's", results.ratio(results.memory), MEMORY_LIMIT))
        limits.append(judge_limit(f"{name}: second look / first", statistics.median(results.again), AGAIN_LIMIT))
        limits.append(judge_limit(f"{name}: unexplained differences", len(results.answers.unexplained), 0))
    return limits


def parse_arguments():
    parser = argparse.ArgumentParser(description="What it takes to name addresses.")
    build = os.path.join(ROOT, "build")
    parser.add_argument("--alloctrace", default=lib.ALLOCTRACE)
    parser.add_argument("--dump", default=compare.DUMP, help="the built symbols_dump")
    parser.add_argument("--spent", default=os.path.join(build, "bench", "spent"), help="the built spent")
    parser.add_argument("--keep", default=os.path.join(build, "bench"), help="folder for the large programs")
    parser.add_argument("--programs", default="", help=f"of {','.join(PROGRAMS)}; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=2000, help="of addresses")
    parser.add_argument("--quick", action="store_true", help="one round, small programs: does everything run?")
    parser.add_argument("--output", default=os.path.join(build, "bench-symbols.json"), help="the figures as JSON")
    options = parser.parse_args()
    options.programs = options.programs.replace(",", " ").split() or list(PROGRAMS)
    if set(options.programs) - set(PROGRAMS):
        parser.error(f"unknown: {', '.join(sorted(set(options.programs) - set(PROGRAMS)))}")
    if options.quick:
        options.rounds = 1
    if options.rounds < 1 or options.count < 1:
        parser.error("at least 1")
    return options


def main():
    options = parse_arguments()
    machine = describe_machine(os.path.abspath(options.alloctrace))
    version = re.search(r"LLVM version \S+", compare.run(["llvm-symbolizer", "--version"]))[0]
    print(f"{machine['alloctrace']}, {version}, {machine['cpus']} CPUs, {machine['cpu']}")
    all_results, missing = {}, {}
    with tempfile.TemporaryDirectory(prefix="alloctrace-bench.") as folder:
        bench = Bench(options, folder)
        for name in options.programs:
            try:
                all_results[name] = bench.run(name)
            except Missing as reason:
                say(f"{name}: {reason}")
                missing[name] = {"missing": str(reason)}
    for line in table(all_results, options.count):
        print(line)
    limits = [] if options.quick else judge(all_results)
    for limit in limits:
        print(describe_limit(limit))
    figures = {
        "llvm": version,
        "quick": options.quick,
        "programs": {**{name: results.as_json() for name, results in all_results.items()}, **missing},
        "limits": limits,
    }
    with open(options.output, "w") as file:
        json.dump({**machine, **figures}, file, indent=1)
        file.write("\n")
    print(f"figures: {os.path.relpath(options.output)}")
    return 0 if all_results and all(limit["holds"] for limit in limits) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
