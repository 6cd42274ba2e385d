"""What benchmarks print, and write as JSON."""

import os
import re
import subprocess
import sys
import time

from setting import lib


def say(text):
    print(text, file=sys.stderr, flush=True)


def format_ns(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def format_ratio(ratio):
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def as_table(rows):
    """Lines of a table as Markdown has it, which also reads well as it is."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in lines]


def judge_limit(what, value, limit):
    return {"what": what, "value": value, "limit": limit, "holds": value <= limit}


def describe_limit(limit):
    verdict = "holds" if limit["holds"] else "DOES NOT HOLD"
    return f"{limit['what']}: {limit['value']:.3f} (limit {limit['limit']:.2f}): {verdict}"


def describe_machine(alloctrace):
    cpu = re.search(r"^model name\s*:\s*(.*)$", lib.read_text("/proc/cpuinfo"), re.M)
    version = subprocess.run([alloctrace, "-V"], capture_output=True, text=True, timeout=lib.LIMIT).stdout
    return {
        "alloctrace": version.split("\n")[0],
        "kernel": os.uname().release,
        "cpu": cpu.group(1) if cpu else os.uname().machine,
        "cpus": os.cpu_count(),
        "virtual_machine": bool(re.search(r"^flags\s*:.*\bhypervisor\b", lib.read_text("/proc/cpuinfo"), re.M)),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
