"""At the chosen sites this machine's kernel sees each call once, with its arguments, and where it returns to.

The kernel's own trace of uprobes is the witness, without any of our programs: an event at the site with
the registers that are said to hold the arguments, and one on return. It runs the libraries of several
releases of Debian, in a process of their own: each glibc with its own loader, and the other allocators
preloaded into it.
"""

import collections
import contextlib
import glob
import itertools
import os
import re
import shutil
import struct
import subprocess
import unittest

from debs import FAMILY, fetch, libraries_in, sites_of
from lib import ROOT, Case, alive, read_bytes, read_text

PRELOADED = r"libjemalloc\.so|libtcmalloc(_minimal)?\.so|libmimalloc\.so|librpmalloc\.so|libtbbmalloc_proxy\.so"
MASK = (1 << 64) - 1
TRACEFS = "/sys/kernel/tracing"
GROUP = "alloctrace_test_"


def file_offset(path, address):
    data = read_bytes(path)
    headers, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for i in range(count):
        kind, _, offset, vaddr, _, file_size, _, _ = struct.unpack_from("<IIQQQQQQ", data, headers + i * size)
        if kind == 1 and vaddr <= address < vaddr + file_size:
            return address - vaddr + offset
    raise AssertionError(f"{path}: no file offset of {address:x}")


def write(path, text):
    """Without O_TRUNC, which would take away everybody's probes."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def kind_of(site):
    """The C library's function that one of an allocator's own is like."""
    return re.sub("^(mi|tc)_", "", site.name)


def in_trace(register):
    """The kernel's name of a register: di, r8."""
    return register if register[1:].isdigit() else register[1:]


class Trace:
    """Events at sites, in a buffer of their own."""

    LINE = re.compile(r" (site|back)_(\d+): \((0x[0-9a-f]+)(?: <- 0x[0-9a-f]+)?\)(.*)$", re.M)
    numbers = itertools.count()

    def __init__(self, sites):
        self.group = f"{GROUP}{os.getpid()}_{next(self.numbers)}"
        self.buffer = f"{TRACEFS}/instances/{self.group}"
        self.sites = sites

    def __enter__(self):
        try:
            for i, site in enumerate(self.sites):
                place = f"{site.path}:{file_offset(site.path, site.address):#x}"
                values = " ".join(f"a{argument}=%{in_trace(register)}:x64" for argument, register in site.places)
                write(f"{TRACEFS}/uprobe_events", f"p:{self.group}/site_{i} {place} {values} to=+0(%sp):x64\n")
                if not site.frees:
                    write(f"{TRACEFS}/uprobe_events", f"r:{self.group}/back_{i} {place} result=$retval:x64\n")
            os.mkdir(self.buffer)
            write(f"{self.buffer}/buffer_size_kb", "8192")
            write(f"{self.buffer}/events/{self.group}/enable", "1")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        remove(self.group)

    def take(self, i):
        """What has been seen since the last time of site i: ([its calls], [its returns]), as {field: value}."""
        text = read_text(f"{self.buffer}/trace")
        kept, written = re.search(r"entries-in-buffer/entries-written: (\d+)/(\d+)", text).groups()
        if kept != written:
            raise AssertionError(f"{written} events, of which {kept} fitted into the buffer")
        with open(f"{self.buffer}/trace", "w"):
            pass  # this empties it
        found = {"site": [], "back": []}
        for what, number, address, fields in self.LINE.findall(text):
            if int(number) == i:
                event = {name: int(value, 16) for name, value in re.findall(r"(\w+)=(0x[0-9a-f]+)", fields)}
                found[what].append({"address": int(address, 16), **event})
        return found["site"], found["back"]


def remove(group):
    """Takes back all that a Trace has made; also one whose test was killed."""
    buffer = f"{TRACEFS}/instances/{group}"
    with contextlib.suppress(OSError):
        write(f"{buffer}/events/{group}/enable", "0")
    with contextlib.suppress(OSError):
        os.rmdir(buffer)
    for name in re.findall(rf"^[pr]:{group}/(\w+) ", read_text(f"{TRACEFS}/uprobe_events"), re.M):
        write(f"{TRACEFS}/uprobe_events", f"-:{group}/{name}\n")


def setUpModule():
    if os.uname().machine != "x86_64":
        raise unittest.SkipTest("the sites of x86-64 can be reached on x86-64 only")
    if not os.path.exists(f"{TRACEFS}/uprobe_events"):
        if subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS], capture_output=True).returncode:
            raise unittest.SkipTest("no tracefs")
        unittest.addModuleCleanup(subprocess.run, ["umount", TRACEFS])
    if not os.path.exists(f"{TRACEFS}/uprobe_events"):
        raise unittest.SkipTest("the kernel has no uprobe events")
    for folder in glob.glob(f"{TRACEFS}/instances/{GROUP}*"):
        group = os.path.basename(folder)
        if not alive(int(group[len(GROUP) :].split("_")[0])):
            remove(group)


class Hits(Case):
    limit = 1800  # downloads

    def build(self, compiler):
        program = self.path(f"family-{compiler}")
        source = os.path.join(ROOT, "tests", "targets", "family.c")
        flags = ["-std=gnu11", "-O2", "-fno-builtin", "-D_GNU_SOURCE"]
        done = subprocess.run([compiler, *flags, source, "-o", program], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return program

    def check_site(self, target, gate, trace, i):
        """What the target says it has done with one function is what the trace shows. How many calls."""
        site = trace.sites[i]
        trace.take(i)
        target.say(f"{site.name} {kind_of(site)}")
        line = target.next_line("its calls").split()
        if line[1] == "missing":
            return 0  # only old programs can call it
        if not site.frees:
            target.next_line("its calls of free")
        _, calls, *sums, results = line[0], *map(int, line[1:])
        at_site, at_return = trace.take(i)
        # The allocator's own calls return to elsewhere. It has none of free here, where rsp may have moved.
        ours = [event for event in at_site if event["to"] == gate or site.frees]
        self.assertEqual(len(ours), calls, "calls, as seen at the site")
        for argument, register in site.places:
            seen = sum(event[f"a{argument}"] for event in ours) & MASK
            self.assertEqual(seen, sums[argument], f"argument {argument}, in {register}")
        if not site.frees:
            returned = [event for event in at_return if event["address"] == gate]
            self.assertEqual(len(returned), calls, "returns to where the call came from")
            self.assertEqual(sum(event["result"] for event in returned) & MASK, results, "results")
            self.assertEqual(len(at_return), len(at_site), "returns, wherever to")
        return calls

    def check_library(self, library, command):
        """All sites of one library, while command runs with it. The number of sites seen."""
        sites = [site for site in sites_of([library])[0] if kind_of(site) in FAMILY]
        with Trace(sites) as trace:
            target = self.target_of(command)
            gate = int(target.ready_line.split()[2])
            seen = 0
            for i, site in enumerate(sites):
                with self.subTest(f"{os.path.basename(library)} {site.name}+{site.offset}"):
                    calls = self.check_site(target, gate, trace, i)
                    seen += calls > 0
                    print(f"{os.path.basename(library):32} {site.name:15} +{site.offset:<3} {calls:4} calls")
            target.process.stdin.close()
            self.assertEqual(target.wait(), 0, target.describe())
        return seen

    def target_of(self, command):
        return self.target(command[0], *command[1:], program_folder="/")

    def check_suite(self, suite):
        found, missing = fetch(suite, "amd64")
        by_name = collections.defaultdict(list)
        for package, _, folder in found:
            for path in libraries_in(folder):
                by_name[package].append(path)
        if not by_name["libc6"]:
            self.skipTest("; ".join(missing))
        libc = next(path for path in by_name["libc6"] if re.search(r"/libc[.-][^/]*so", path))
        loader = next(path for path in by_name["libc6"] if re.search(r"/ld-[^/]*so", path))
        folders = ":".join(sorted({os.path.dirname(path) for paths in by_name.values() for path in paths}))
        family = self.build("cc")
        with_libc = [loader, "--library-path", folders]
        seen = self.check_library(libc, [*with_libc, family])
        self.assertGreaterEqual(seen, 6, libc)
        for path in itertools.chain.from_iterable(by_name.values()):
            if re.match(PRELOADED, os.path.basename(path)):
                seen = self.check_library(path, [*with_libc, "--preload", path, family])
                self.assertGreaterEqual(seen, 3, path)
        for path in by_name["musl"] if shutil.which("musl-gcc") else ():
            seen = self.check_library(path, [path, self.build("musl-gcc")])
            self.assertGreaterEqual(seen, 3, path)
        if missing:
            self.skipTest("; ".join(missing))

    def test_hits_equal_calls_in_bookworm(self):
        self.check_suite("bookworm")

    def test_hits_equal_calls_in_trixie(self):
        self.check_suite("trixie")

    def test_hits_equal_calls_in_sid(self):
        self.check_suite("sid")


if __name__ == "__main__":
    unittest.main()
