"""A sweep of a host with a thousand idle processes: what do those pay who do not grow, and what does it use?

Each round measures a workload three times, in all orders by turns: without a sweep, once more without, and beside one,
which is compared with the mean of the other two. What those are of each other says what a difference means here.
It is beside the first seconds of a sweep: who grows for longer has probes, and pays more.
"""

import contextlib
import itertools
import json
import math
import os
import re
import resource
import socket
import statistics
import subprocess
import time

import setting
import soak
from setting import CHILD, Measurement, find_program, lib
from workloads import Compile as Compilations
from workloads import Redis as RedisRuns

IDLE = 1000
SECONDS = 60  # of the sweep of which the own cost is measured
ROUNDS = 30
COMPILE_ROUNDS = 102  # they differ by 3 %
REDIS_ROUNDS = 204  # on a virtual machine a part of it differs by some 5 % from the next one
REDIS_SECONDS = 1  # as the ticks of a sweep
SETTLE = 0.5  # seconds before each part; a sweep's first tick comes after it
COST_LIMIT = 1.01  # times untraced
CPU_LIMIT = 1.0  # % of one core
MEMORY_LIMIT = 100 * 1024  # KiB

UNTRACED, AGAIN, SWEPT = "untraced", "untraced again", "swept"
CONTESTANTS = (UNTRACED, AGAIN, SWEPT)
ORDERS = tuple(itertools.permutations(CONTESTANTS))

# Small files, as most of a build: each compiler lives for less than two ticks.
FILES = 12
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{functions}
"""
FUNCTION = """
int f{n}(const char *text) {{ char *copy = strdup(text); int sum = 0;
  for (size_t i = 0; copy[i]; i++) sum += copy[i] * {n} ^ (int)i; free(copy); printf("%d", sum); return sum; }}
"""


class Redis(RedisRuns):
    """One client that goes on and on, on a CPU of its own, so that parts of its time can be compared: two runs of it,
    and two ways of sharing the CPUs, differ by more than is looked for here."""

    rounds = REDIS_ROUNDS
    repeats = 1

    def start(self, environment):
        server = super().start(environment)
        kill = server.kill
        try:
            client = lib.Process(
                [self.client, "-h", "127.0.0.1", "-p", str(server.port), "-t", "set", "-P", "16", "-c", "16", "-d", "64",
                 "-r", str(self.KEYS), "-l", "-n", "1000000000", "-q"],
                self.run.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **CHILD,
            )  # fmt: skip
            server.kill = lambda: (client.kill(), kill())
            os.sched_setaffinity(server.pid, {0})
            os.sched_setaffinity(client.pid, {1})
            server.wait_until(lambda: self.commands(server) > 10 * self.KEYS, "its keys")
        except BaseException:
            server.kill()
            raise
        return server

    @staticmethod
    def commands(server):
        """How many it has carried out."""
        with socket.create_connection(("127.0.0.1", server.port), lib.LIMIT) as connection:
            connection.sendall(b"INFO stats\r\n")
            answer = b""
            while not (found := re.search(rb"total_commands_processed:(\d+)\r\n", answer)):
                answer += connection.recv(4096)
        return int(found.group(1))

    def measure(self, server):
        def now():
            return self.commands(server), *setting.scheduled(server.pid)

        before = now()
        time.sleep(self.run.milliseconds / 1000)
        return Measurement(*(b - a for a, b in zip(before, now())))


class Build:
    """Many compilers one after the other, each for a moment: CPU time of all of them."""

    name = "build"
    rounds = ROUNDS
    repeats = 3
    title = f"cc -O1 of {FILES} files, one after the other"
    unit = "file"
    fresh = False

    def __init__(self, run):
        self.run = run
        self.compiler = find_program("cc")
        self.folder = run.path("build")
        os.mkdir(self.folder)
        functions = "".join(FUNCTION.format(n=n) for n in range(40))
        self.sources = [os.path.join(self.folder, f"{n}.c") for n in range(FILES)]
        for source in self.sources:
            with open(source, "w") as file:
                file.write(SOURCE.format(functions=functions))

    def start(self, _):
        return None

    def measure(self, _):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for source in self.sources:
            subprocess.run(
                [self.compiler, "-O1", "-c", source, "-o", source + ".o"], check=True, stdin=subprocess.DEVNULL, **CHILD
            )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Measurement(FILES, int(seconds * 1e9), 0)


class Compile(Compilations):
    rounds = COMPILE_ROUNDS
    repeats = 2


WORKLOADS = {kind.name: kind for kind in (Redis, Build, Compile)}


class Sweep:
    """A running alloctrace -a, which ends with the block; then `result` is what it found."""

    def __init__(self, run):
        self.run = run
        self.folder = run.path("swept")

    def __enter__(self):
        os.makedirs(self.folder, exist_ok=True)
        self.tracer = lib.Tracer(
            [self.run.alloctrace, "-v", "-a", "--json", "-d", "3600s", "-o", self.folder + "/"],
            self.run.folder, stdin=subprocess.DEVNULL, **CHILD,
        )  # fmt: skip
        try:
            self.tracer.wait_until(lambda: "alloctrace: sweeping\n" in self.tracer.stderr, "the sweep")
        except BaseException:
            self.tracer.kill()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.end()
        finally:
            self.tracer.kill()

    def end(self):
        self.tracer.signal(2)
        self.peak = soak.wait_unreaped(self.tracer)
        self.cpu_all = soak.cpu_seconds(self.tracer.pid)
        if self.tracer.wait() != lib.OK:
            raise AssertionError(self.tracer.describe())
        self.result = json.loads(self.tracer.stdout)


@contextlib.contextmanager
def idle_processes(count):
    """Processes that do nothing."""
    started = []
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        started += [subprocess.Popen(["sleep", "infinity"], **quiet, **CHILD) for _ in range(count)]
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


# --- what the others pay ---


@contextlib.contextmanager
def at_work(run, workload):
    """A target that can be measured once, or any number of times."""
    target = workload.start(run.environment())
    try:
        yield target
    finally:
        if target:
            target.kill()


def measure_part(run, workload, shared):
    """Nanoseconds a unit."""
    time.sleep(SETTLE)
    measured = []
    for _ in range(workload.repeats):
        with at_work(run, workload) if workload.fresh else contextlib.nullcontext(shared) as target:
            measured.append(workload.measure(target))
    return sum(one.ns for one in measured) / sum(one.units for one in measured)


def measure(run, workload, shared, name):
    """(nanoseconds a unit, commands that had probes)"""
    if name != SWEPT:
        return measure_part(run, workload, shared), []
    with Sweep(run) as sweep:
        ns = measure_part(run, workload, shared)
    return ns, [row["comm"] for row in sweep.result["processes"] if row["zoomed"]]


def ratio(times, name):
    """What a contestant's times are of those untraced in the same round: the median, and its standard error."""
    controls = [times[UNTRACED]] if name == AGAIN else [times[UNTRACED], times[AGAIN]]
    ratios = [measured / statistics.mean(untraced) for measured, *untraced in zip(times[name], *controls)]
    if len(ratios) < 2:
        return ratios[0], float("inf")
    low, median, high = statistics.quantiles(ratios, n=4)
    # Of a normal distribution, by its quartiles: they do not mind a round that somebody else has spoilt.
    deviation = (high - low) / 1.349
    return median, 1.253 * deviation / math.sqrt(len(ratios))


def judge(median, error):
    """A difference that the machine's own noise hides is none that holds."""
    if median - 2 * error > COST_LIMIT:
        return "DOES NOT HOLD"
    return "holds" if median <= COST_LIMIT and error < COST_LIMIT - 1 else "CANNOT BE TOLD, others are too busy"


def run_pairs(run, workload, rounds):
    """What one workload gave."""
    times = {name: [] for name in CONTESTANTS}
    zoomed = set()
    with contextlib.ExitStack() as stack:
        shared = None if workload.fresh else stack.enter_context(at_work(run, workload))
        if not workload.fresh:
            workload.measure(shared)  # what comes first takes longer
        for number in range(rounds):
            for name in ORDERS[number % len(ORDERS)]:
                ns, probed = measure(run, workload, shared, name)
                times[name].append(ns)
                zoomed |= set(probed)
    ratios = {name: ratio(times, name) for name in (AGAIN, SWEPT)}
    return {
        "title": workload.title,
        "unit": workload.unit,
        "ns": {name: [round(ns, 1) for ns in found] for name, found in times.items()},
        "times_untraced": {name: [round(number, 4) for number in found] for name, found in ratios.items()},
        "zoomed": sorted(zoomed),
        "verdict": judge(*ratios[SWEPT]),
    }


def say_pairs(name, found):
    texts = ("{} {:.4f} (+-{:.4f})".format(name, *found["times_untraced"][name]) for name in (AGAIN, SWEPT))
    print(f"{name}: times untraced: {', '.join(texts)} (limit {COST_LIMIT:.2f}): {found['verdict']}", flush=True)
    if found["zoomed"]:
        print(f"{' ' * len(name)}  probes were placed into: {', '.join(found['zoomed'])}", flush=True)


# --- what it uses itself ---


def own_cost(run, seconds):
    with Sweep(run) as sweep:
        pid = sweep.tracer.pid
        cpu, started = soak.cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - started
        cpu = soak.cpu_seconds(pid) - cpu
        peak = soak.peak_kib(pid)
    peak = max(peak, sweep.peak)
    found = {
        "seconds": round(elapsed, 2),
        "processes": sweep.result["counts"]["processes"],
        "cpu_percent": round(100 * cpu / elapsed, 3),
        "cpu_percent_with_start_and_end": round(100 * sweep.cpu_all / elapsed, 3),
        "peak_kib": peak,
    }
    found["holds"] = (
        found["processes"] >= IDLE
        and found["cpu_percent_with_start_and_end"] < CPU_LIMIT
        and peak < MEMORY_LIMIT
    )
    return found


def say_cost(found):
    print(
        f"alloctrace -a: {found['processes']} processes, {found['seconds']:.0f} s: {found['cpu_percent']:.2f} % of a core, "
        f"{found['cpu_percent_with_start_and_end']:.2f} % with its start and end (limit {CPU_LIMIT:.0f} %), "
        f"peak memory {found['peak_kib'] / 1024:.1f} MiB (limit {MEMORY_LIMIT // 1024} MiB): "
        f"{'holds' if found['holds'] else 'DOES NOT HOLD'}",
        flush=True,
    )


def main(run, seconds, workloads, rounds, quick):
    """(the figures, whether all limits hold, which with `quick` does not matter); prints as it goes."""
    run.milliseconds = 200 if quick else 1000 * REDIS_SECONDS
    chosen = [WORKLOADS[name](run) for name in dict.fromkeys(workloads)]
    with idle_processes(IDLE):
        cost = own_cost(run, seconds)
        say_cost(cost)
        pairs = {}
        for workload in chosen:
            pairs[workload.name] = run_pairs(run, workload, rounds or workload.rounds)
            say_pairs(workload.name, pairs[workload.name])
    fine = cost["holds"] and all(found["verdict"] == "holds" for found in pairs.values())
    return {"cost": cost, "pairs": pairs}, fine or quick
