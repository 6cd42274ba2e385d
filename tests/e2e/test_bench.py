"""make bench: that it measures what it says it does, and leaves nothing behind. How long anything takes is no test."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import lib

BENCH = os.path.join(lib.ROOT, "tools", "bench.py")
TOOLS = os.environ.get("ALLOCTRACE_BENCH", os.path.join(os.path.dirname(lib.TARGETS), "bench"))

# What each needs to be measured.
NEEDS = {
    "untraced": None,
    "floor": None,
    "alloctrace": None,
    "alloctrace-s1": None,
    "usual": None,
    "bpftrace": "bpftrace",
    "heaptrack": "heaptrack",
}

# Runs of BPF programs for a malloc and its free: entries, and returns where those are probed. alloctrace has one more
# for each sample, of which there is none in a thousand calls here.
RUNS = {"floor": 2, "alloctrace": 2, "alloctrace-s1": 3, "usual": 3, "bpftrace": 3}


def is_working(pid):
    """Has it been on a CPU for longer than it takes to start?"""
    try:
        return int(lib.read_text(f"/proc/{pid}/schedstat").split()[0]) > 200e6
    except OSError:
        return False


def children(pid):
    """Pids of a process's children, and of theirs."""
    try:
        direct = [int(child) for child in lib.read_text(f"/proc/{pid}/task/{pid}/children").split()]
    except OSError:
        return []
    return direct + [pid for child in direct for pid in children(child)]


@unittest.skipIf(lib.kernel_version() < (6, 13), "the floor needs session probes (Linux 6.13)")
class Bench(lib.Case):
    def start(self, *arguments):
        folder = tempfile.mkdtemp(dir=self.folder)
        bench = lib.Process(
            [sys.executable, BENCH, "--quick", "--alloctrace", lib.ALLOCTRACE, "--tools", TOOLS,
             "--output", self.path("bench.json"), *arguments],
            self.folder, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": folder},
        )  # fmt: skip
        self.addCleanup(bench.kill)
        return bench, folder

    def test_all_are_measured_and_seen_at_work(self):
        leftovers = lib.Leftovers()
        bench, folder = self.start("--workloads", "loop1")
        self.assertEqual(bench.wait(), 0, bench.describe())
        self.assertEqual(os.listdir(folder), [])
        lib.wait_for(lambda: not leftovers.find(), "the end of probes")
        found = json.loads(lib.read_text(self.path("bench.json")))["workloads"]["loop1"]["contestants"]
        for name, program in NEEDS.items():
            if program and not shutil.which(program):
                self.assertEqual(found[name], {"missing": "not installed"})
                continue
            self.assertGreater(found[name]["times_untraced"], 0, name)
            self.assertGreater(found[name]["times_floor"], 0, name)
        for name, runs in RUNS.items():
            if "missing" not in found[name]:
                self.assertAlmostEqual(found[name]["bpf_runs"], runs, delta=0.01, msg=f"{name}: {found[name]}")

    def test_nothing_is_left_when_it_is_ended(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal.Signals(number).name):
                leftovers = lib.Leftovers()
                bench, folder = self.start("--soak", "600")
                # The loop, which runs for 600 s once it has begun, and alloctrace.
                bench.wait_until(
                    lambda: len(children(bench.pid)) == 2 and is_working(children(bench.pid)[0]), "the recording"
                )
                started = children(bench.pid)
                bench.signal(number)
                bench.wait()
                lib.wait_for(lambda: not any(map(lib.alive, started)), f"the end of {started}")
                # The kernel takes them out a little after the process that held them has gone.
                lib.wait_for(lambda: not leftovers.find(), "the end of probes")
                if number != signal.SIGKILL:
                    self.assertEqual(os.listdir(folder), [])


if __name__ == "__main__":
    unittest.main()
