"""--mmap: what a program maps by itself, to the unit, and nothing of what its allocator maps.

The target keeps books of every mapping (tests/targets/mapper.c), while its allocator maps, unmaps and
remaps as much as it can.
"""

import os
import signal
import subprocess
import unittest

from lib import JEMALLOC, KINDS, LIBRARIES, MIMALLOC, OK, TARGETS, TCMALLOC, Case, Profile
from lib import changed_code, parse_books, pprof, wait_for

MAPPING_FUNCTIONS = ("mmap", "munmap", "mremap", "brk")
LOST = "mapping that could not be reported"
NOT_KNOWN = "mapping by code that was not known yet"


def code_ranges(path, names):
    """{name: (first, last file offset)} of functions of a library, by nm; text is mapped as it lies there."""
    lines = subprocess.run(["nm", "-D", "-S", path], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in lines.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[3].split("@")[0] in names:
            start, size = int(fields[0], 16), int(fields[1], 16)
            found[fields[3].split("@")[0]] = (start, start + size - 1)
    return found


class Mappings(Case):
    def check(self, program="mapper", preload=None, kinds=KINDS, unnamed=(), rounds=30):
        """By every kind of probe, with the allocator at work beside it."""
        for kind in kinds:
            with self.subTest(kind):
                target = self.ledger(program, "--load", "3", "--rounds", rounds, preload=preload)
                profile, books, _ = self.record(target, "-s", "1", "--mmap", "--attach", kind)
                target.kill()
                self.assert_mapped(profile, books, unnamed)
                self.assert_nothing_lost(profile)
                # The load has allocated, and its allocator asked for memory.
                self.assertGreater(profile.only(None).sites()["load"][0], 300)
                self.assertGreater(profile.counter("sampled calls that were part of another"), 0)

    def assert_mapped(self, profile, books, unnamed=()):
        """The direct mappings are those of the books, and no others; sites `unnamed` have lost their name."""
        mapped = profile.only("mmap")
        sites = mapped.sites()
        lost = [books.pop(name) for name in unnamed]
        if lost:
            self.assertEqual(sites.pop(None), tuple(map(sum, zip(*lost))))
        self.assertNotIn(None, sites, mapped.unnamed())
        self.assertEqual(sites, {name: figures for name, figures in books.items() if figures[0]})
        self.assertTrue(set(profile.only(None).sites()) <= {"load", "stack", "large_stack"} | {None})

    def test_every_mapping_is_exact_beside_glibcs_own(self):
        self.check()

    def test_static_glibc(self):
        self.check("mapper_static")

    def test_musl(self):
        # Its stacks end inside of it: who started a thread is not to be seen.
        self.check("mapper_musl", unnamed=("stack", "large_stack"))

    def test_musl_static(self):
        self.check("mapper_musl_static", unnamed=("stack", "large_stack"))

    def test_jemalloc(self):
        self.check(preload=JEMALLOC)

    def test_tcmalloc(self):
        # It has an mmap of its own in front of the libc's, and uses brk.
        self.check(preload=TCMALLOC)

    def test_mimalloc(self):
        self.check(preload=MIMALLOC)

    def test_a_command_from_its_start(self):
        # The loader's own mappings are not the program's, nor are those of the allocator's constructor.
        for program in ("mapper", "mapper_jemalloc", "mapper_tcmalloc", "mapper_mimalloc"):
            with self.subTest(program):
                output = self.path("p.pb.gz")
                command = [f"{TARGETS}/{program}", "--rounds", "10"]
                result = self.run_tracer("-s", "1", "--mmap", "-o", output, "--", *command)
                self.assertEqual(result.status, OK, result.text)
                books = parse_books(next(line for line in result.stdout.split("\n") if line.startswith("{")))
                profile = Profile.read(output)
                mapped = profile.only("mmap")
                self.assert_books(mapped, books)
                self.assert_nothing_lost(profile)
                # The threads that it maps in were started before its books were opened.
                for frames in mapped.unnamed():
                    self.assertEqual([f.name for f in frames if f.name == "main"], ["main"], frames)
                    self.assertIn("pthread_create", " ".join(f.name for f in frames))
                self.assertEqual(mapped.sites()[None][0], 3)

    def test_an_exec_is_seen_through(self):
        # Until the new program's code is known, who maps cannot be told: a loss, and no guess.
        for preload in (None, JEMALLOC, TCMALLOC, MIMALLOC):
            with self.subTest(preload):
                output = self.path("p.pb.gz")
                command = ["env", f"LD_PRELOAD={preload}" if preload else "A=B", f"{TARGETS}/mapper"]
                result = self.run_tracer("-s", "1", "--mmap", "-o", output, "--", *command, "--load", "2")
                self.assertEqual(result.status, OK, result.text)
                profile = Profile.read(output)
                books = parse_books(next(line for line in result.stdout.split("\n") if line.startswith("{")))
                self.assert_books_balance(profile)
                self.assertGreater(profile.losses()[NOT_KNOWN], 0)
                # What is mapped before its code is known has no name.
                self.assertEqual(set(profile.only("mmap").sites()) - set(books) - {None}, set())

    def test_no_mapping_is_recorded_without_the_option(self):
        target = self.target("mapper", "--load", "2")
        libc = os.path.realpath(f"{LIBRARIES}/libc.so.6")
        ranges = code_ranges(libc, MAPPING_FUNCTIONS)
        self.assertEqual(set(ranges), set(MAPPING_FUNCTIONS))

        def probed():
            """The mapping functions that hold a breakpoint."""
            offsets = [offset for path, offset in changed_code(target.pid) if path == libc]
            return {name for name, (first, last) in ranges.items() if any(first <= o <= last for o in offsets)}

        tracer = self.tracer("-v", "-p", target.pid, "-o", self.path("with.pb.gz"), "--mmap", "-d", "600s")
        tracer.wait_recording()
        self.assertEqual(probed(), set(MAPPING_FUNCTIONS))
        self.assertEqual(tracer.stop(), OK)
        self.assertEqual(probed(), set())

        seen = {}

        def work():
            seen["probed"] = probed()
            return target.work()

        profile, _, result = self.record(target, "-s", "1", work=work)
        # What they map is measured, for the account of the RSS.
        self.assertEqual(seen["probed"], {"mmap", "mremap"})
        self.assertEqual(profile.only("mmap").samples, [])
        self.assert_nothing_lost(profile)
        self.assertGreater(profile.only(None).sites()["load"][0], 0)
        for text in (result.stdout, "\n".join(profile.comments)):
            self.assertNotRegex(text, r"\bmunmap\+|=mmap|# mmap|mapping call|in direct mapping|\nmapped ")

    def test_the_text_tells_heap_and_mappings_apart(self):
        target = self.target("mapper", "--load", "1", "--rounds", "20")
        profile, books, result = self.record(target, "-s", "1", "--mmap")
        objects = sum(figures[2] for figures in books.values())
        self.assertRegex(result.stdout, rf"\nmapped     \S+ MiB in {objects:,} direct mappings, beside")
        live = profile.only(None).totals()[2]
        self.assertRegex(result.stdout, rf"\nlive       \S+ \S+ in {live:,} objects")
        heap, mapped = result.stdout.split("SITES BY DIRECTLY MAPPED BYTES")
        self.assertIn("SITES BY LIVE BYTES", heap)
        self.assertIn("site_load", heap)
        self.assertNotIn("site_load", mapped)
        self.assertIn("site_moved", mapped)
        self.assertIn("mmap+", heap)
        # pprof's own way to tell them apart.
        for option, mapped in (("-tagfocus", True), ("-tagignore", False)):
            status, text, errors = pprof(
                "-traces", f"{option}=mmap", "-sample_index=alloc_objects", result.path, folder=self.folder
            )
            self.assertEqual(status, 0, errors)
            self.assertEqual("site_moved" in text, mapped)
            self.assertEqual("site_load" in text, not mapped)

    def test_folded_stacks_end_in_a_mark(self):
        target = self.target("mapper", "--rounds", "5")
        output = self.path("p.folded")
        tracer = self.tracer("-v", "-s", "1", "--mmap", "-f", "folded", "-o", output, "-p", target.pid)
        tracer.wait_recording()
        books = target.work()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        with open(output) as file:
            lines = [line.rsplit(" ", 1) for line in file.read().splitlines()]
        marked = sum(int(size) for stack, size in lines if stack.endswith(";[mmap]"))
        self.assertEqual(marked, sum(figures[3] for figures in books.values()))

    def test_what_cannot_be_reported_is_a_named_loss(self):
        # alloctrace is stopped, so that nobody reads what is reported, until there is no room for it.
        target = self.target("mapper", "--threads", "4", "--rounds", "1500")
        output = self.path("p.pb.gz")
        tracer = self.tracer("-v", "-s", "1", "--mmap", "-o", output, "-p", target.pid)
        tracer.wait_recording()
        tracer.signal(signal.SIGSTOP)
        wait_for(lambda: b"T" in open(f"/proc/{tracer.pid}/stat", "rb").read().rsplit(b")", 1)[1][:3], "SIGSTOP")
        books = target.work()
        tracer.signal(signal.SIGCONT)
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        profile = Profile.read(output)
        self.assert_books_balance(profile)
        self.assertGreater(profile.losses()[LOST], 0)
        self.assertGreater(profile.counter("unmappings that could not be reported"), 0)
        recorded = profile.only("mmap").totals()[0]
        self.assertEqual(recorded + profile.losses()[LOST], sum(figures[0] for figures in books.values()))

    def test_sampled_mappings(self):
        # 64 MiB are sure to be seen at one sample in 1 MiB: p = 1 - exp(-64). A page hardly is, but what
        # it takes away from those is gone.
        for kind in KINDS:
            with self.subTest(kind):
                target = self.target("mapper", "--threads", "0")
                profile, books, _ = self.record(target, "-s", "1MiB", "--mmap", "--attach", kind)
                sites = profile.only("mmap").sites()
                for name in ("large", "large_stack"):
                    self.assertEqual(sites[name], books[name])
                self.assertLess(profile.counter("sampled"), 50)
                self.assert_nothing_lost(profile)


if __name__ == "__main__":
    unittest.main()
