"""What workloads and contestants share: where things are, and processes that end with the benchmark."""

import collections
import ctypes
import os
import re
import select
import shutil
import signal
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = os.path.join(ROOT, "tools", "bench")
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import lib  # noqa: E402  (found by the line above)

LIMIT = 300  # seconds for one measurement; bpftrace's take longest

# Libraries with an allocator that a workload may use, from the one that serves it to the one behind.
ALLOCATORS = ("libjemalloc.so.2", "libc.so.6")
MULTIARCH = f"{os.uname().machine}-linux-gnu"
LIBRARY_FOLDERS = (f"/lib/{MULTIARCH}", f"/usr/lib/{MULTIARCH}", "/lib64", "/usr/lib64")


# Units of work, the nanoseconds they took the target's threads, and those that these spent waiting for a CPU,
# which are not among the first: other processes of the machine are no tracer's doing.
Measurement = collections.namedtuple("Measurement", "units ns waited")


class Missing(Exception):
    """A workload or contestant that cannot run here, with the reason."""


def die_with_parent():
    """In a child, before it executes: it is killed when this process ends, in whatever way."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# For every process that is started. A session of its own: a terminal's Ctrl-C reaches only us.
CHILD = {"preexec_fn": die_with_parent, "start_new_session": True}


def find_program(name):
    """The path of a program, or Missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Missing("not installed")
    return path


def find_library(name):
    for folder in LIBRARY_FOLDERS:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    raise Missing("not installed")


class Setting:
    """The files of one run of the benchmark, and the environment of its targets.

    Targets have copies of the allocators' libraries for themselves. bpftrace 0.17 puts its breakpoints into
    every process that has the file mapped, whatever its -p says: so they hit no process but the target.
    """

    def __init__(self, folder, alloctrace, tools, milliseconds):
        self.folder = folder
        self.alloctrace = alloctrace
        self.tools = tools
        self.milliseconds = milliseconds  # of a measurement that can be as long as one likes
        self.libraries = os.path.join(folder, "lib")
        os.mkdir(self.libraries)
        for name in ALLOCATORS:
            try:
                shutil.copy(find_library(name), self.libraries)
            except Missing:
                pass  # whoever needs it will say so

    def path(self, name):
        return os.path.join(self.folder, name)

    def tool(self, name):
        return os.path.join(self.tools, name)

    def library(self, name):
        path = os.path.join(self.libraries, name)
        if not os.path.exists(path):
            raise Missing("not installed")
        return path

    def environment(self, extra=()):
        return {**os.environ, "LC_ALL": "C", "LD_LIBRARY_PATH": self.libraries, **dict(extra)}

    def allocator_of(self, pid):
        """The file that serves a process's malloc, as the process has it mapped."""
        maps = lib.read_text(f"/proc/{pid}/maps")
        for name in ALLOCATORS:
            path = os.path.join(self.libraries, name)
            if re.search(rf" {re.escape(path)}$", maps, re.M):
                return path
        raise AssertionError(f"process {pid} uses no allocator of {self.libraries}:\n{maps}")


def scheduled(pid):
    """Nanoseconds that a process's main thread has been on a CPU, and waiting for one. Also of a zombie."""
    running, waiting, _ = lib.read_text(f"/proc/{pid}/schedstat").split()
    return int(running), int(waiting)


def time_work(pid, work):
    """A Measurement of what a process with one thread does in work(), which returns the moment of its end."""
    waited = scheduled(pid)[1]
    started = time.monotonic_ns()
    elapsed = work() - started
    waited = scheduled(pid)[1] - waited
    return Measurement(1, elapsed - waited, waited)


def wait_ended(process, limit=LIMIT):
    """Waits for a child's end, without reaping it; returns the moment."""
    pidfd = os.pidfd_open(process.pid)
    try:
        if not select.select([pidfd], [], [], limit)[0]:
            raise AssertionError(f"still running after {limit} s: {process.describe()}")
        return time.monotonic_ns()
    finally:
        os.close(pidfd)


def check_status(process):
    if process.wait():
        raise AssertionError(f"failed: {process.describe()}")


def read_until(file, mark, limit=LIMIT):
    """Reads from a pipe up to a line that says `mark`; returns the moment it comes."""
    seen = b""
    deadline = time.monotonic() + limit
    while not re.search(rb"^%s$" % re.escape(mark), seen, re.M):
        if not select.select([file], [], [], max(0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"no '{mark.decode()}' after {limit} s")
        chunk = os.read(file.fileno(), 65536)
        if not chunk:
            raise AssertionError(f"ended before '{mark.decode()}'")
        seen = (seen + chunk)[-65536:]
    return time.monotonic_ns()
