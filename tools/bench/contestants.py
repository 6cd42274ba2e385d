"""Who slows them down. An attached contestant comes to a running target and goes; a preloaded one has a
target of its own, started in its environment.

    attached(pid)   context: the tracer is in; its pid, or None where there is none
    environment()   context: what a target is to be started with, and whoever listens to it
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess

from setting import CHILD, SOURCES, Missing, find_program, lib

SAMPLE = "512KiB"  # what alloctrace does by default, and jemalloc's profiler
BPFTRACE_KEYS = 256 * 1024  # as many blocks as alloctrace follows by default


class Contestant:
    """The target alone."""

    name = "untraced"
    title = "untraced"
    preloaded = False

    def __init__(self, run):
        self.run = run

    def serves(self, library):
        """None, or why it makes no sense where the target's malloc comes from this library."""
        return None

    @contextlib.contextmanager
    def attached(self, pid):
        yield None

    @contextlib.contextmanager
    def environment(self):
        yield {}


class Holder(Contestant):
    """A program of ours that says 'attached' and holds its probes until its input ends."""

    @contextlib.contextmanager
    def attached(self, pid):
        holder = lib.Process([self.run.tool(self.name), str(pid)], self.run.folder, **CHILD)
        try:
            holder.wait_until(lambda: re.match(r"attached [1-9]\d*\n", holder.stdout), "the probes")
            yield holder.pid
            holder.process.stdin.close()
            if holder.wait():
                raise AssertionError(holder.describe())
        finally:
            holder.kill()


class Floor(Holder):
    name = "floor"
    title = "empty BPF programs, same probe sites: the floor"

    def __init__(self, run):
        super().__init__(run)
        if lib.kernel_version() < (6, 13):
            raise Missing("needs session probes, Linux 6.13")


class Usual(Holder):
    name = "usual"
    title = "alloctrace's programs, first instruction, return probes"


class Alloctrace(Contestant):
    name = "alloctrace"
    title = "alloctrace"
    options = ()

    @contextlib.contextmanager
    def attached(self, pid):
        output = self.run.path("bench.pb.gz")
        tracer = lib.Tracer(
            [self.run.alloctrace, "-v", "-p", str(pid), "-o", output, *self.options],
            self.run.folder, stdin=subprocess.DEVNULL, **CHILD,
        )  # fmt: skip
        try:
            tracer.wait_recording()
            yield tracer.pid
            if tracer.stop() != lib.OK:
                raise AssertionError(tracer.describe())
            self.profile = lib.Profile.read(output)
        finally:
            tracer.kill()


class AlloctraceAll(Alloctrace):
    name = "alloctrace-s1"
    title = "alloctrace -s 1: every allocation"
    options = ("-s", "1")


class Bpftrace(Contestant):
    name = "bpftrace"
    title = "bpftrace, a memleak script"

    def __init__(self, run):
        super().__init__(run)
        self.program = find_program("bpftrace")

    @contextlib.contextmanager
    def attached(self, pid):
        script = self.run.path("memleak.bt")
        with open(script, "w") as file:
            text = lib.read_text(os.path.join(SOURCES, "memleak.bt"))
            file.write(text.replace("LIBRARY", self.run.allocator_of(pid)))
        tracer = lib.Process(
            [self.program, "-p", str(pid), script], self.run.folder, stdin=subprocess.DEVNULL,
            env={**os.environ, "BPFTRACE_MAP_KEYS_MAX": str(BPFTRACE_KEYS)}, **CHILD,
        )  # fmt: skip
        try:
            tracer.wait_until(lambda: {"first", "last"} <= set(tracer.stdout.split()), "its probes")
            yield tracer.pid
            tracer.signal(signal.SIGINT)
            tracer.wait()
        finally:
            tracer.kill()


class Heaptrack(Contestant):
    """As the script `heaptrack` does it: the target writes to a pipe, which is read, condensed, compressed."""

    name = "heaptrack"
    title = "heaptrack, preloaded"
    preloaded = True

    def __init__(self, run):
        super().__init__(run)
        prefix = os.path.dirname(os.path.dirname(os.path.realpath(find_program("heaptrack"))))
        self.library = os.path.join(prefix, "lib", "heaptrack", "libheaptrack_preload.so")
        self.interpreter = os.path.join(prefix, "lib", "heaptrack", "libexec", "heaptrack_interpret")
        self.compressor = shutil.which("zstd") or find_program("gzip")
        if not os.path.exists(self.library) or not os.path.exists(self.interpreter):
            raise Missing(f"not found under {prefix}/lib/heaptrack")

    @contextlib.contextmanager
    def environment(self):
        fifo = self.run.path("heaptrack.fifo")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fifo)
        os.mkfifo(fifo)
        reading, writing = os.pipe()
        with contextlib.ExitStack() as stack:
            # A shell opens the pipe: that waits for the target to do the same.
            interpreter = lib.Process(
                ["/bin/sh", "-c", 'exec "$0" <"$1"', self.interpreter, fifo],
                self.run.folder, stdin=subprocess.DEVNULL, stdout=writing, **CHILD,
            )  # fmt: skip
            stack.callback(interpreter.kill)
            os.close(writing)
            compressor = lib.Process([self.compressor, "-c"], self.run.folder, stdin=reading, **CHILD)
            stack.callback(compressor.kill)
            os.close(reading)
            yield {"LD_PRELOAD": self.library, "DUMP_HEAPTRACK_OUTPUT": fifo}


class Jemalloc(Contestant):
    name = "jemalloc"
    title = "jemalloc instead of glibc's malloc, untraced"
    preloaded = True

    def __init__(self, run):
        super().__init__(run)
        self.library = run.library("libjemalloc.so.2")

    def serves(self, library):
        return "jemalloc already" if library == self.library else None

    @contextlib.contextmanager
    def environment(self):
        yield {"LD_PRELOAD": self.library}


class JemallocProfiler(Jemalloc):
    name = "jemalloc-prof"
    title = "jemalloc's own profiler, preloaded"
    configuration = "prof:true,prof_final:false,lg_prof_sample:19"

    def __init__(self, run):
        super().__init__(run)
        # One that was built without it says so, and goes on without it.
        said = subprocess.run(
            [find_program("true")], capture_output=True, text=True,
            env=run.environment({"LD_PRELOAD": self.library, "MALLOC_CONF": self.configuration}),
        )  # fmt: skip
        if "prof" in said.stderr:
            raise Missing("built without its profiler")

    def serves(self, library):
        return None

    @contextlib.contextmanager
    def environment(self):
        yield {"LD_PRELOAD": self.library, "MALLOC_CONF": self.configuration}


CONTESTANTS = (
    Contestant,
    Floor,
    Alloctrace,
    AlloctraceAll,
    Usual,
    Bpftrace,
    Heaptrack,
    Jemalloc,
    JemallocProfiler,
)
