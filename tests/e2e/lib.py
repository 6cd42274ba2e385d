"""What the end-to-end tests share: targets, the tracer, profiles, and waiting for conditions.

Nothing here sleeps for luck: every wait is for a condition, with a limit that only a broken program
reaches.
"""

import contextlib
import copy
import fcntl
import glob
import gzip
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ALLOCTRACE = os.environ.get("ALLOCTRACE", os.path.join(ROOT, "alloctrace"))
TARGETS = os.environ.get("ALLOCTRACE_TARGETS", os.path.join(ROOT, "build", "targets"))

LIMIT = 60  # seconds for any single thing that is waited for

# Exit statuses of alloctrace.
OK, OTHER, USAGE, NOT_PERMITTED, NO_PROCESS, NOTHING_TO_RECORD, NOT_WRITABLE, KERNEL_TOO_OLD = range(8)
NOT_STARTED = 127
INTERRUPTED_TWICE = 130


def wait_for(condition, what, limit=LIMIT):
    """The first true value of condition()."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit} s for {what}")
        time.sleep(0.005)


def read_text(path):
    with open(path, errors="replace") as file:
        return file.read()


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def kernel_version():
    return tuple(int(n) for n in re.match(r"(\d+)\.(\d+)", os.uname().release).groups())


# The kinds of probes that this kernel has, as --attach calls them.
KINDS = [
    kind
    for kind, since in (("session", (6, 13)), ("multi", (6, 10)), ("perf", (6, 1)))
    if kernel_version() >= since
]


# Allocators as libraries that can be preloaded.
LIBRARIES = f"/usr/lib/{os.uname().machine}-linux-gnu"
JEMALLOC = f"{LIBRARIES}/libjemalloc.so.2"
TCMALLOC = f"{LIBRARIES}/libtcmalloc_minimal.so.4"
MIMALLOC = f"{LIBRARIES}/libmimalloc.so.2"


class Process:
    """A child whose output goes to files, so that it never blocks on a test that does not read."""

    def __init__(self, command, folder, stdin=subprocess.PIPE, **options):
        self.command = command
        self.out = tempfile.NamedTemporaryFile(dir=folder, prefix="stdout.", delete=False)
        self.err = tempfile.NamedTemporaryFile(dir=folder, prefix="stderr.", delete=False)
        stdout = options.pop("stdout", self.out)
        self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=self.err, **options)
        self.pid = self.process.pid
        self.lines_seen = 0

    @property
    def stdout(self):
        return read_text(self.out.name)

    @property
    def stderr(self):
        return read_text(self.err.name)

    @property
    def ended(self):
        return self.process.poll() is not None

    def describe(self):
        return (
            f"{' '.join(map(str, self.command))}\n"
            f"status {self.process.poll()}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )

    def wait_until(self, condition, what, limit=LIMIT):
        """Like wait_for, but gives up at once when the process has ended without it."""

        def value_or_end():
            ended = self.ended  # before the last look
            return condition() or (ended and "ended")

        value = wait_for(value_or_end, f"{what} of {self.describe()}", limit)
        if value == "ended":
            raise AssertionError(f"ended before {what}: {self.describe()}")
        return value

    def wait(self, limit=LIMIT):
        try:
            return self.process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit} s: {self.describe()}") from None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.out.close()
        self.err.close()


class Target(Process):
    """A program of tests/targets, which has said that it is ready."""

    def __init__(self, name, *arguments, folder, program_folder=TARGETS, **options):
        command = [os.path.join(program_folder, name), *map(str, arguments)]
        super().__init__(command, folder, **options)
        try:
            self.ready_line = self.next_line("ready")
        except AssertionError:
            self.kill()
            raise

    def next_line(self, what="a line", limit=LIMIT):
        """The next whole line on its stdout."""

        def line():
            lines = self.stdout.split("\n")[:-1]
            return lines[self.lines_seen :][:1]

        text = self.wait_until(line, what, limit)[0]
        self.lines_seen += 1
        return text

    def say(self, text="go"):
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def work(self, limit=LIMIT):
        """Lets a ledger do its work, and returns its books."""
        self.say()
        return parse_books(self.next_line("the books", limit))

    def ask_count(self, word, pid=None):
        """SIGUSR1 makes some targets, or a child that has their stdout, print 'word N ...': N."""
        os.kill(pid or self.pid, signal.SIGUSR1)
        return int(re.match(rf"{word} (\d+)", self.next_line(f"'{word} N'")).group(1))


class Tracer(Process):
    """A running alloctrace."""

    def wait_recording(self):
        """Until every probe is in and the recording is on. Needs -v."""
        self.wait_until(lambda: "alloctrace: recording\n" in self.stderr, "the recording")

    def stop(self):
        """Ends the recording as Ctrl-C does; the exit status."""
        self.signal(signal.SIGINT)
        return self.wait()


class Result:
    """What an alloctrace that has ended left behind."""

    def __init__(self, tracer):
        self.status = tracer.process.returncode
        self.stdout = tracer.stdout
        self.stdout_bytes = read_bytes(tracer.out.name)
        self.stderr = tracer.stderr
        self.text = tracer.describe()


class Case(unittest.TestCase):
    """A test with a folder of its own, whose processes end with it."""

    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="alloctrace-test.")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def target(self, name, *arguments, **options):
        target = Target(name, *arguments, folder=self.folder, **options)
        self.addCleanup(target.kill)
        return target

    def tracer(self, *arguments, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("cwd", self.folder)
        program = options.pop("program", ALLOCTRACE)
        tracer = Tracer([program, *map(str, arguments)], self.folder, **options)
        self.addCleanup(tracer.kill)
        return tracer

    def run_tracer(self, *arguments, limit=LIMIT, **options):
        """alloctrace from start to end."""
        tracer = self.tracer(*arguments, **options)
        tracer.wait(limit)
        return Result(tracer)

    def record(self, target, *options, work=None):
        """Attaches to target, lets it work, stops: (profile, what work returned, result of alloctrace)."""
        output = self.path(f"recorded.{time.monotonic_ns()}.pb.gz")
        tracer = self.tracer("-v", "-p", target.pid, "-d", "600s", "-o", output, *options)
        tracer.wait_recording()
        returned = work() if work else target.work()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        result = Result(tracer)
        result.path = output
        return Profile.read(output), returned, result

    shared = {}

    def shared_recording(self, *arguments):
        """record() of a ledger at -s 1, made once for all the tests of a file that only look at it."""
        if arguments not in Case.shared:
            recorded = self.record(self.target("ledger", *arguments), "-s", "1")
            folder = tempfile.mkdtemp(prefix="alloctrace-test.")
            unittest.addModuleCleanup(shutil.rmtree, folder, ignore_errors=True)
            recorded[2].path = shutil.copy(recorded[2].path, folder)
            Case.shared[arguments] = recorded
        return Case.shared[arguments]

    def assert_one_line(self, result):
        """One clear line on stderr, nothing else."""
        self.assertRegex(result.stderr, r"\Aalloctrace: [^\n]+\n\Z", result.text)

    def assert_books_balance(self, profile):
        """Every sampled call is accounted for: recorded, failed by itself, or lost for a named reason."""
        self.assertEqual(
            profile.counter("sampled"),
            profile.counter("recorded")
            + profile.counter("sampled calls that allocated nothing")
            + sum(profile.losses().values()),
            "\n".join(profile.comments),
        )

    def ledger(self, program, *arguments, preload=None, **options):
        """A ledger that uses the allocator that it was linked with, or one that is preloaded."""
        environment = dict(os.environ, LD_PRELOAD=preload) if preload else None
        target = self.target(program, *arguments, env=environment, **options)
        if preload:
            # A library that cannot be preloaded is no error for the loader.
            self.assertIn(os.path.realpath(preload), read_text(f"/proc/{target.pid}/maps"))
        return target

    def assert_nothing_lost(self, profile):
        self.assertEqual({name: count for name, count in profile.losses().items() if count}, {})
        self.assert_books_balance(profile)

    def assert_exact(self, profile, books):
        """The profile holds what the books hold, to the unit, and nothing else."""
        self.assert_books(profile, books)
        self.assertNotIn(None, profile.sites(), profile.unnamed())
        self.assertEqual(
            profile.totals(), tuple(map(sum, zip(*(figures[:4] for figures in books.values()))))
        )
        self.assert_nothing_lost(profile)

    def assert_books(self, profile, books, but=()):
        """Every site's four figures are those of the ledger, to the unit; sites `but` are not looked at."""
        sites = profile.sites()
        wrong = []
        for name, expected in books.items():
            if name in but:
                continue
            found = sites.get(name, (0, 0, 0, 0))
            if found != expected[:4]:
                wrong.append(f"{name}: recorded {found}, in truth {expected[:4]}")
        self.assertFalse(wrong, "\n".join(wrong))


def parse_books(line):
    """{site: (alloc objects, alloc bytes, inuse objects, inuse bytes[, the variances of these])}"""
    keys = [f"{what}_{unit}" for what in ("alloc", "inuse") for unit in ("objects", "bytes")]
    books = {}
    for site, figures in json.loads(line).items():
        variances = tuple(figures[f"{key}_variance"] for key in keys if f"{key}_variance" in figures)
        books[site] = tuple(figures[key] for key in keys) + variances
    return books


# --- profiles ------------------------------------------------------------------------------------


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def read_message(data):
    """{field number: [values]} of one protocol buffer message; varints as int, the rest as bytes."""
    fields = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = read_varint(data, at)
        elif kind == 1:
            value, at = struct.unpack_from("<Q", data, at)[0], at + 8
        elif kind == 2:
            size, at = read_varint(data, at)
            if at + size > len(data):
                raise ValueError("a field runs over the end")
            value, at = data[at : at + size], at + size
        elif kind == 5:
            value, at = struct.unpack_from("<I", data, at)[0], at + 4
        else:
            raise ValueError(f"wire type {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def integers(values):
    """A repeated integer field, packed or not."""
    found = []
    for value in values or []:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = read_varint(value, at)
            found.append(number)
    return found


class Frame:
    def __init__(self, name, system_name, file, line, address, mapping):
        self.name = name
        self.system_name = system_name
        self.file = file
        self.line = line
        self.address = address
        self.mapping = mapping

    def __repr__(self):
        return f"{self.name} {self.file}:{self.line}"


class Sample:
    def __init__(self, frames, values, labels):
        self.frames = frames  # innermost first, inlined calls too
        self.values = values
        self.labels = labels


class Profile:
    """A profile.proto, decoded here and not by pprof: an independent reader."""

    SITE = re.compile(r"^(?:path|mid|site)_(\w+)$")
    # It uses the frame pointer for something else: a walk by frame pointers ends in it.
    STAND_INS = {"strdup": "strdup", "__strdup": "strdup", "__GI___strdup": "strdup"}

    def __init__(self, data):
        fields = read_message(data)

        def one(message, number, default=0):
            return message.get(number, [default])[-1]

        self.strings = [value.decode("utf-8") for value in fields.get(6, [])]
        text = self.strings.__getitem__

        def value_type(message):
            return text(one(message, 1)), text(one(message, 2))

        self.sample_types = [value_type(read_message(m)) for m in fields.get(1, [])]
        self.drop_frames = text(one(fields, 7))
        self.time_nanos = signed(one(fields, 9))
        self.duration_nanos = signed(one(fields, 10))
        self.period_type = value_type(read_message(one(fields, 11, b"")))
        self.period = signed(one(fields, 12))
        self.comments = [text(index) for index in integers(fields.get(13))]
        self.default_sample_type = text(one(fields, 14))

        self.mappings = []
        for data in fields.get(3, []):
            m = read_message(data)
            self.mappings.append(
                {
                    "id": one(m, 1),
                    "start": one(m, 2),
                    "limit": one(m, 3),
                    "offset": one(m, 4),
                    "file": text(one(m, 5)),
                    "build_id": text(one(m, 6)),
                    "has": tuple(one(m, number) for number in (7, 8, 9, 10)),
                }
            )
        self.functions = {}
        for data in fields.get(5, []):
            m = read_message(data)
            self.functions[one(m, 1)] = {
                "name": text(one(m, 2)),
                "system_name": text(one(m, 3)),
                "file": text(one(m, 4)),
                "start_line": signed(one(m, 5)),
            }
        self.locations = {}
        self.bare_locations = []  # without any line: pprof would drop these
        for data in fields.get(4, []):
            m = read_message(data)
            frames = []
            for line in map(read_message, m.get(4, [])):
                function = self.functions[one(line, 1)]
                frames.append(
                    Frame(
                        function["name"],
                        function["system_name"],
                        function["file"],
                        signed(one(line, 2)),
                        one(m, 3),
                        one(m, 2),
                    )
                )
            if not frames:
                self.bare_locations.append(one(m, 1))
            self.locations[one(m, 1)] = frames
        self.samples = []
        for data in fields.get(2, []):
            m = read_message(data)
            labels = {}
            for label in map(read_message, m.get(3, [])):
                labels[text(one(label, 1))] = text(label[2][0]) if 2 in label else signed(one(label, 3))
            frames = [frame for id in integers(m.get(1)) for frame in self.locations[id]]
            self.samples.append(Sample(frames, tuple(map(signed, integers(m.get(2)))), labels))

    @classmethod
    def read(cls, path):
        return cls(gzip.decompress(read_bytes(path)))

    def only(self, kind):
        """The same with only the samples of one kind; of the heap for None."""
        part = copy.copy(self)
        part.samples = [sample for sample in self.samples if sample.labels.get("kind") == kind]
        return part

    def totals(self):
        return tuple(map(sum, zip(*(s.values for s in self.samples)))) or (0, 0, 0, 0)

    def sites(self):
        """{site name: its four figures}. Samples of no named site are under None."""
        found = {}
        for sample in self.samples:
            name = self.site_of(sample)
            found[name] = tuple(map(sum, zip(found.get(name, (0, 0, 0, 0)), sample.values)))
        return found

    def site_of(self, sample):
        """The name of a sample's site, or None.

        A walk by frame pointers may miss the frame or two behind a function of a stock library: any of
        the site's three functions names it, and a few library functions that only one site calls.
        """
        names = (self.SITE.match(frame.name) for frame in sample.frames)
        stand_ins = (self.STAND_INS.get(frame.system_name) for frame in sample.frames)
        return next((m.group(1) for m in names if m), next(filter(None, stand_ins), None))

    def unnamed(self):
        """The stacks of no named site, for messages."""
        return [sample.frames for sample in self.samples if self.site_of(sample) is None]

    def counters(self):
        """{name: count} of the comments '# name: count'."""
        found = {}
        for comment in self.comments:
            match = re.match(r"^# (.+): (\d+)$", comment)
            if match:
                found[match.group(1)] = int(match.group(2))
        return found

    def counter(self, name):
        return self.counters()[name]

    def losses(self):
        """{reason: count} of what was sampled and lost."""
        prefix = "lost, "
        return {
            name[len(prefix) :]: count
            for name, count in self.counters().items()
            if name.startswith(prefix)
        }


# --- the summary ----------------------------------------------------------------------------------

UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
UNIT = r"(?: ([KMGT]?i?B))?"
FIGURE = rf"([\d.,]+){UNIT} \(([\d.,]+){UNIT}-([\d.,]+){UNIT}\)"


def read_figure(value, value_unit, low, low_unit, high, high_unit):
    """(value, low, high) of '112 MiB (104-121)'; the ends as wide as their last printed digit allows."""

    def number(text, unit, rounding):
        digits = text.replace(",", "")
        decimals = len(digits.partition(".")[2])
        return (float(digits) + rounding * 0.5 * 10**-decimals) * UNITS[unit]

    # A unit that the next one has too is left out.
    high_unit = high_unit or value_unit or ""
    low_unit = low_unit or high_unit
    # Numbers of objects are rounded outwards already.
    rounding = 1 if value_unit else 0
    return number(value, value_unit or "", 0), number(low, low_unit, -rounding), number(high, high_unit, rounding)


def read_table(summary):
    """{site name: the four (value, low, high), in the order of a profile's} of a summary's table of sites."""
    found = {}
    lines = summary.split("\n")
    for i, line in enumerate(lines):
        row = re.match(rf"^ *\d+ +\S+% +{FIGURE} +{FIGURE} +{FIGURE} +{FIGURE}$", line)
        if not row:
            continue
        name = re.search(r"\b(?:path|mid|site)_(\w+)", " ".join(lines[i + 1 : i + 3]))
        live_bytes, live, alloc_bytes, allocs = [read_figure(*row.groups()[n : n + 6]) for n in range(0, 24, 6)]
        if not name or name.group(1) in found:
            raise AssertionError(f"a row of no site, or a second one: {lines[i : i + 3]}")
        found[name.group(1)] = (allocs, alloc_bytes, live, live_bytes)
    return found


def pprof(*arguments, folder, limit=LIMIT):
    """go tool pprof, without network, home or terminal: (status, stdout, stderr)."""
    environment = dict(os.environ, HOME=folder, PPROF_TMPDIR=folder, GOFLAGS="", DEBUGINFOD_URLS="")
    done = subprocess.run(
        ["go", "tool", "pprof", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=limit,
        env=environment,
        cwd=folder,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


# --- what is left in the kernel and in a target ----------------------------------------------------


def bpftool(what):
    done = subprocess.run(
        [shutil.which("bpftool") or "/usr/sbin/bpftool", "-j", what, "show"],
        capture_output=True,
        timeout=LIMIT,
    )
    return json.loads(done.stdout or b"[]") if done.returncode == 0 else []


def alive(pid):
    with contextlib.suppress(OSError):
        return read_text(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def held_in_kernel():
    """{("link" or "prog", id)} of every BPF object that some process holds a descriptor of."""
    held = set()
    for path in glob.glob("/proc/[0-9]*/fdinfo/*"):
        with contextlib.suppress(OSError):
            held |= {(what, int(id)) for what, id in re.findall(r"(link|prog)_id:\s+(\d+)", read_text(path))}
    return held


class Leftovers:
    """BPF links and programs that were not there when this was made, and that nobody holds."""

    def __init__(self):
        self.before = {(what, entry["id"]) for what in ("link", "prog") for entry in bpftool(what)}

    def find(self):
        found = [(what, entry) for what in ("link", "prog") for entry in bpftool(what)]
        held = held_in_kernel()  # after: what is made in between is not found
        return [
            (what, entry)
            for what, entry in found
            if (what, entry["id"]) not in self.before and (what, entry["id"]) not in held
        ]


def text_mappings(pid):
    """(start, end, file offset, path) of the executable mappings of files."""
    found = []
    for line in read_text(f"/proc/{pid}/maps").splitlines():
        match = re.match(r"(\w+)-(\w+) (..x.) (\w+) \S+ [1-9]\d*\s+(/.*)$", line)
        if match:
            start, end, _, offset, path = match.groups()
            found.append((int(start, 16), int(end, 16), int(offset, 16), path))
    return found


def changed_code(pid):
    """Places where a process's code is not what its files say, as [(path, file offset)]."""
    changed = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, offset, path in text_mappings(pid):
            with open(path, "rb") as file:
                file.seek(offset)
                expected = file.read(end - start)
            memory.seek(start)
            found = memory.read(len(expected))
            if found != expected:
                changed += [
                    (path, offset + i) for i, (a, b) in enumerate(zip(found, expected)) if a != b
                ]
    return changed


def kernel_threads():
    """Pids of kernel threads."""
    for path in sorted(glob.glob("/proc/[0-9]*/stat")):
        with contextlib.suppress(OSError):
            fields = read_text(path).rsplit(")", 1)[1].split()
            if int(fields[6]) & 0x00200000:  # PF_KTHREAD
                yield int(path.split("/")[2])


def full_pipe():
    """(reading end, writing end) of a pipe into which nothing more goes."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 4096)  # F_SETPIPE_SZ
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return reading, writing


def drain(fd):
    """What is left in a pipe until its writers are gone."""
    found = b""
    while select.select([fd], [], [], LIMIT)[0]:
        chunk = os.read(fd, 65536)
        if not chunk:
            return found
        found += chunk
    raise AssertionError("the pipe stays open")
