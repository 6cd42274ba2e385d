"""Two threads that do nothing but allocate and free, for long: is anything lost, and what does alloctrace use?"""

import contextlib
import glob
import os
import re
import subprocess
import time

from setting import CHILD, lib
from workloads import read_loop

THREADS = 2
PERIODS = ("512KiB", "4KiB")
CPU_LIMIT = 2.0  # % of one core
MEMORY_LIMIT = 64 * 1024  # KiB

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """utime + stime of a process that may have ended, but has not been waited for."""
    fields = lib.read_text(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_kib(pid):
    """Peak resident memory; 0 of a process that has ended."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", lib.read_text(f"/proc/{pid}/status"), re.M)
    return int(match.group(1)) if match else 0


def map_bytes(pid):
    """What the BPF maps that a process holds take in the kernel, each once."""
    maps = {}
    for path in glob.glob(f"/proc/{pid}/fdinfo/*"):
        with contextlib.suppress(OSError):
            fields = dict(re.findall(r"^(\w+):\s+(\d+)$", lib.read_text(path), re.M))
            if "map_id" in fields:
                maps[fields["map_id"]] = int(fields["memlock"])
    return sum(maps.values())


def wait_unreaped(tracer):
    """Until a process has ended; its peak on the way. It stays a zombie, which still tells its times."""
    peak = 0
    deadline = time.monotonic() + lib.LIMIT
    while lib.alive(tracer.pid):
        peak = max(peak, peak_kib(tracer.pid))
        if time.monotonic() > deadline:
            raise AssertionError(f"still running: {tracer.describe()}")
        time.sleep(0.002)
    return peak


def soak(run, period, seconds):
    """One recording of THREADS threads; all its figures."""
    with contextlib.ExitStack() as stack:
        target = lib.Target(
            "loop", THREADS, seconds * 1000,
            folder=run.folder, program_folder=run.tools, env=run.environment(), **CHILD,
        )  # fmt: skip
        stack.callback(target.kill)
        output = run.path("soak.pb.gz")
        tracer = lib.Tracer(
            [run.alloctrace, "-v", "-s", period, "-p", str(target.pid), "-o", output],
            run.folder, stdin=subprocess.DEVNULL, **CHILD,
        )  # fmt: skip
        stack.callback(tracer.kill)
        tracer.wait_recording()
        cpu_start, started = cpu_seconds(tracer.pid), time.monotonic()
        target.say()
        lines = lib.wait_for(lambda: target.stdout.split("\n")[1:-1], "the loop's result", seconds + lib.LIMIT)
        elapsed = time.monotonic() - started
        cpu_end = cpu_seconds(tracer.pid)
        peak, maps = peak_kib(tracer.pid), map_bytes(tracer.pid)
        tracer.signal(2)
        peak = max(peak, wait_unreaped(tracer))
        cpu_all = cpu_seconds(tracer.pid)
        if tracer.wait() != lib.OK:
            raise AssertionError(tracer.describe())
        counters = lib.Profile.read(output).counters()
        losses = lib.Profile.read(output).losses()
    loop = read_loop(lines[0])
    return {
        "period": period,
        "seconds": round(elapsed, 2),
        "pairs": loop.units,
        "ns_a_pair": round(loop.ns / loop.units, 2),
        "sampled": counters["sampled"],
        "recorded": counters["recorded"],
        "lost": sum(losses.values()),
        "losses": {name: count for name, count in losses.items() if count},
        "cpu_percent": round(100 * (cpu_end - cpu_start) / elapsed, 2),
        "cpu_percent_with_start_and_end": round(100 * cpu_all / elapsed, 2),
        "peak_kib": peak,
        "maps_kib": maps // 1024,
    }


def holds(found):
    return (
        found["lost"] == 0
        and found["sampled"] > 0
        and found["cpu_percent_with_start_and_end"] < CPU_LIMIT
        and found["peak_kib"] < MEMORY_LIMIT
    )


def main(run, seconds):
    """(what was found for each period, whether all limits hold); prints as it goes."""
    results = []
    print(f"{THREADS} threads in malloc and free for {seconds} s")
    for period in PERIODS:
        found = soak(run, period, seconds)
        found["holds"] = holds(found)
        results.append(found)
        print(
            f"-s {period:7} {found['pairs']:,} pairs, {found['sampled']:,} samples, {found['lost']} lost (limit 0)\n"
            f"           alloctrace: {found['cpu_percent']:.2f} % of a core while recording, "
            f"{found['cpu_percent_with_start_and_end']:.2f} % with its start and end (limit {CPU_LIMIT:.0f} %)\n"
            f"           peak memory {found['peak_kib'] / 1024:.1f} MiB (limit {MEMORY_LIMIT // 1024} MiB), "
            f"maps in the kernel {found['maps_kib'] / 1024:.1f} MiB\n"
            f"           {'holds' if found['holds'] else 'DOES NOT HOLD'}",
            flush=True,
        )
    return results, all(found["holds"] for found in results)
