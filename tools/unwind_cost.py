#!/usr/bin/python3
"""What a frame of a stack costs, as the kernel's own statistics of BPF programs tell.

    tools/unwind_cost.py [--alloctrace PATH] [--calls N] [--depths A,B,...]

A target allocates again and again below stacks of known depth while every call is recorded, so everything the
walk reads is hot. The time of a call is the run time of all programs, at malloc's entry and return and at
free; a frame costs the slope over the depths. Each depth is measured several times: the least is what counts.
"""

import argparse
import contextlib
import glob
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.dont_write_bytecode = True

import lib  # noqa: E402  (found by the line above)

REPEATS = 5
STATS = "/proc/sys/kernel/bpf_stats_enabled"


@contextlib.contextmanager
def statistics():
    before = lib.read_text(STATS)
    with open(STATS, "w") as file:
        file.write("1")
    try:
        yield
    finally:
        with open(STATS, "w") as file:
            file.write(before)


def run_time(pid):
    """Nanoseconds that the programs which process pid has loaded have run. Only malloc's and free's are hit here."""
    programs = {}
    for path in glob.glob(f"/proc/{pid}/fdinfo/*"):
        with contextlib.suppress(FileNotFoundError):
            fields = dict(re.findall(r"^(\w+):\s+(\d+)$", lib.read_text(path), re.M))
            if "run_time_ns" in fields:
                programs[fields["prog_id"]] = int(fields["run_time_ns"])
    return sum(programs.values())


def measure(alloctrace, depths, calls, folder):
    """{depth: least nanoseconds of one malloc and its free}"""
    source = os.path.join(ROOT, "tests", "targets", "unwind_deep.c")
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-fomit-frame-pointer", "-fno-builtin", "-D_GNU_SOURCE", source, "-o",
         os.path.join(folder, "deep")],
        check=True,
    )  # fmt: skip
    target = lib.Target("deep", folder=folder, program_folder=folder)
    tracer = lib.Tracer(
        [alloctrace, "-v", "-p", str(target.pid), "-s", "1", "-o", os.path.join(folder, "p.pb.gz")], folder
    )
    try:
        tracer.wait_recording()
        least = {}
        for _ in range(REPEATS):
            for depth in depths:
                before = run_time(tracer.pid)
                target.say(f"{depth} {calls}")
                target.next_line("done")
                each = (run_time(tracer.pid) - before) / calls
                least[depth] = min(each, least.get(depth, each))
        tracer.stop()
        profile = lib.Profile.read(os.path.join(folder, "p.pb.gz"))
    finally:
        tracer.kill()
        target.kill()
    counters = profile.counters()
    if counters["stacks: complete"] != counters["recorded"] or sum(profile.losses().values()):
        raise AssertionError("not all was walked to its end:\n" + "\n".join(profile.comments))
    return least


def slope(points):
    """Least squares: (per frame, at no frame)."""
    n = len(points)
    mean_x = sum(points) / n
    mean_y = sum(points.values()) / n
    each = sum((x - mean_x) * (y - mean_y) for x, y in points.items()) / sum((x - mean_x) ** 2 for x in points)
    return each, mean_y - each * mean_x


def main():
    parser = argparse.ArgumentParser(description="What a frame costs, hot.")
    parser.add_argument("--alloctrace", default=lib.ALLOCTRACE)
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--depths", default="10,40,70,100,115")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root")
    depths = [int(depth) for depth in options.depths.split(",")]
    with statistics(), tempfile.TemporaryDirectory(prefix="alloctrace-cost.") as folder:
        least = measure(os.path.abspath(options.alloctrace), depths, options.calls, folder)
    for depth, each in least.items():
        print(f"{depth:4} frames of recursion: {each:8.0f} ns for a sampled malloc (entry and return) and its free")
    frame, rest = slope(least)
    print(f"{frame:.1f} ns a frame, {rest:.0f} ns for everything else")
    return 0


if __name__ == "__main__":
    sys.exit(main())
