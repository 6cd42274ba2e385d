"""Numbered profiles while a recording runs: each holds all that was recorded until then."""

import glob
import os
import re
import shutil
import subprocess
import time

from lib import NOT_WRITABLE, OK, USAGE, Case, Profile, Result, wait_for


class Intervals(Case):
    def start(self, target, *options):
        tracer = self.tracer("-v", "-s", "1", "-i", "100ms", "-p", target.pid, *options)
        tracer.wait_recording()
        return tracer

    def numbers(self):
        names = (re.search(r"\d+\.(\d+)\.pb\.gz$", path) for path in glob.glob(self.path("out/*")))
        return sorted(int(name.group(1)) for name in names if name)

    def next_whole_interval(self):
        """The number of a profile that was begun after this call."""
        last = (self.numbers() or [0])[-1]
        return wait_for(lambda: [n for n in self.numbers() if n >= last + 2], "two more profiles")[0]

    def read(self, target, number):
        return Profile.read(self.path(f"out/alloctrace.ledger.{target.pid}.{number:04}.pb.gz"))

    def test_each_holds_what_was_recorded_until_then(self):
        os.mkdir(self.path("out"))
        target = self.target("ledger", "--rounds", "20")
        tracer = self.start(target, "-o", self.path("out"))
        before = self.next_whole_interval()
        books = target.work()
        after = self.next_whole_interval()
        self.assertEqual(tracer.stop(), OK, tracer.describe())

        first, second = self.read(target, before), self.read(target, after)
        self.assertEqual(first.totals(), (0, 0, 0, 0))
        self.assert_exact(second, books)
        final = Profile.read(self.path(f"out/alloctrace.ledger.{target.pid}.pb.gz"))
        self.assert_exact(final, books)
        # One start, and ever longer.
        self.assertEqual(first.time_nanos, second.time_nanos)
        self.assertLess(first.duration_nanos, second.duration_nanos)
        self.assertLess(second.duration_nanos, final.duration_nanos)
        self.assertEqual(self.numbers(), list(range(1, self.numbers()[-1] + 1)))
        # The summary is told once.
        self.assertEqual(len(re.findall(r"^allocated ", Result(tracer).stdout, re.M)), 1)

    def test_pprof_shows_what_came_between_two(self):
        os.mkdir(self.path("out"))
        target = self.target("ledger", "--rounds", "20")
        tracer = self.start(target, "-o", self.path("out"))
        before = self.next_whole_interval()
        books = target.work()
        after = self.next_whole_interval()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        paths = [self.path(f"out/alloctrace.ledger.{target.pid}.{n:04}.pb.gz") for n in (before, after)]
        for index, kind in enumerate(("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")):
            shown = subprocess.run(
                ["go", "tool", "pprof", "-top", "-unit=B" if "space" in kind else "-unit=count",
                 f"-sample_index={kind}", "-base", *paths],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            total = re.search(r"of (\d+)B? total", shown).group(1)
            self.assertEqual(int(total), sum(figures[index] for figures in books.values()), shown)

    def test_profiles_that_are_left_out_are_told(self):
        """A pipe that nobody reads takes longer to write than the interval."""
        os.mkdir(self.path("out"))
        target = self.target("ledger")
        pipe = self.path(f"out/alloctrace.ledger.{target.pid}.0001.pb.gz")
        os.mkfifo(pipe)
        tracer = self.start(target, "-o", self.path("out"))
        started = time.monotonic()
        wait_for(lambda: time.monotonic() - started > 1, "a second")
        with open(pipe, "rb") as file:
            self.assertTrue(file.read())
        self.next_whole_interval()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        # The numbers go on where they were.
        self.assertEqual(self.numbers(), list(range(1, self.numbers()[-1] + 1)))
        told = re.search(r"(\d+) numbered profiles were left out", Result(tracer).stdout)
        self.assertIsNotNone(told, tracer.describe())
        self.assertGreaterEqual(int(told.group(1)), 5)

    def test_extension_keeps_its_place(self):
        target = self.target("ledger")
        tracer = self.start(target, "-o", self.path("a.pb.gz"))
        wait_for(lambda: os.path.exists(self.path("a.0001.pb.gz")), "a profile")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        tracer = self.start(target, "-o", self.path("plain"), "-f", "folded")
        wait_for(lambda: os.path.exists(self.path("plain.0001")), "a profile")
        self.assertEqual(tracer.stop(), OK, tracer.describe())

    def test_what_makes_no_sense_is_a_usage_error(self):
        for options in (("-i", "0"), ("-i", "99ms"), ("-i", "x")):
            result = self.run_tracer(*options, "-p", "1")
            self.assertEqual(result.status, USAGE, result.text)
            self.assert_one_line(result)
        target = self.target("sleeper")
        for options in (("-o", "-"), ("-f", "text")):
            result = self.run_tracer("-i", "1s", *options, "-p", target.pid)
            self.assertEqual(result.status, USAGE, result.text)
            self.assert_one_line(result)

    def test_profile_that_cannot_be_written_ends_nothing(self):
        os.mkdir(self.path("out"))
        os.mkdir(self.path("tmp"))
        target = self.target("ledger", "--rounds", "20")
        environment = dict(os.environ, TMPDIR=self.path("tmp"))
        tracer = self.tracer(
            "-v", "-s", "1", "-i", "100ms", "-p", target.pid, "-o", self.path("out"), env=environment
        )
        tracer.wait_recording()
        shutil.rmtree(self.path("out"))
        tracer.wait_until(lambda: "alloctrace: cannot write " in tracer.stderr, "a failure")
        books = target.work()
        self.assertEqual(tracer.stop(), NOT_WRITABLE, tracer.describe())
        self.assert_exact(Profile.read(self.path(f"tmp/alloctrace.ledger.{target.pid}.pb.gz")), books)
