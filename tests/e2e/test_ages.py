"""How old what is live is, and how long what was freed had lived, beside a target that knows both."""

import glob
import math
import re
import time
import unittest

from lib import KINDS, OK, USAGE, Case, Profile, Result, wait_for

SECOND = 10**9
UNITS = {"ms": 10**6, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND}


def read_duration(text):
    """ns of '1.20 ms', '58.0 s', '2 min 05 s'."""
    return sum(float(n) * UNITS[unit] for n, unit in re.findall(r"([\d.]+) (ms|s|min|h)\b", text))


class Aged:
    """A recording of the target aged, step by step."""

    def __init__(self, case, *options):
        self.case = case
        self.target = case.target("aged")
        self.output = case.path(f"{time.monotonic_ns()}.pb.gz")
        self.tracer = case.tracer("-v", "-p", self.target.pid, "-d", "600s", "-o", self.output, *options)
        before = time.monotonic_ns()
        self.tracer.wait_recording()
        self.started = (before, time.monotonic_ns())

    def step(self, *words):
        """(before, after), by the target's clock, which is time.monotonic_ns()."""
        self.target.say(" ".join(map(str, words)))
        return tuple(map(int, re.match(r"did (\d+) (\d+)$", self.target.next_line("a step")).groups()))

    def stop(self):
        """Profile and result. Ages are those at some time between ended[0] and ended[1]."""
        before = time.monotonic_ns()
        self.case.assertEqual(self.tracer.stop(), OK, self.tracer.describe())
        self.ended = (before, time.monotonic_ns())
        self.result = Result(self.tracer)
        self.profile = Profile.read(self.output)
        return self.profile

    def age(self, step):
        """(the least, the most) that what was allocated in a step is old at the end."""
        return self.ended[0] - step[1], self.ended[1] - step[0]

    def row_ages(self, site):
        """What the summary's table says about the ages of a site."""
        return re.search(
            rf"\b(?:path|mid|site)_{site} [^\n]*\n +<[^\n]*\n +ages: ([^\n]*)\n", self.result.stdout
        ).group(1)

    def older(self):
        """{bound in ns: live bytes that are older}, of the profile's comments."""
        found = {}
        for comment in self.profile.comments:
            match = re.match(r"# live bytes of all ages: (\d+)$", comment)
            if match:
                found[0] = int(match.group(1))
            match = re.match(r"# live bytes older than (.+): (\d+)$", comment)
            if match:
                found[round(read_duration(match.group(1)))] = int(match.group(2))
        return found


def wait_until(nanos):
    while time.monotonic_ns() < nanos:
        time.sleep(max(0, nanos - time.monotonic_ns()) / SECOND)


class Ages(Case):
    def aged_by_min_age(self, kind):
        """A recording in which all ages are on one side of --min-age for certain."""
        # Stopping may take long on a busy machine: then what was to be young is not for certain.
        for min_age in (3, 12, 40):
            aged = Aged(self, "-s", "1", "--min-age", f"{min_age}s", "--attach", kind)
            aged.step("alloc", 0, 100, 1000)
            aged.step("alloc", 1, 50, 200)
            aged.step("alloc", 2, 10, 30000)
            aged.step("fail", 2, 10)
            aged.step("free", 0, 10)
            old = aged.step("alloc", 3, 7, 100)
            wait_until(old[1] + min_age * SECOND)
            young = aged.step("alloc", 0, 20, 500)
            aged.step("reuse", 1, 5, 200)
            aged.step("realloc", 1, 15, 4000)
            aged.step("fail", 2, 5)
            aged.step("free", 3, 2)
            profile = aged.stop()
            if aged.age(young)[1] < min_age * SECOND:
                return aged, profile
        self.fail("it takes 40 s to stop")

    def check_min_age(self, kind):
        aged, profile = self.aged_by_min_age(kind)
        self.assert_books(
            profile,
            {
                "zero": (120, 110_000, 90, 90_000),
                # 5 have the addresses of old ones, 15 old ones are now site three's.
                "one": (55, 11_000, 30, 6_000),
                # A realloc that fails leaves a block as it was.
                "two": (10, 300_000, 10, 300_000),
                "three": (7, 700, 5, 500),
                "three_again": (15, 60_000, 0, 0),
            },
        )
        self.assert_nothing_lost(profile)
        left_out = 20 * 500 + 5 * 200 + 15 * 4000
        comment = next(c for c in profile.comments if c.startswith("inuse without"))
        self.assertTrue(comment.endswith(f": 40 objects, {left_out} bytes"), comment)
        self.assertRegex(aged.result.stdout, r"\nleft out +what was younger than [\d.]+ m?s at the end")
        # What the ages are told of is all that is live.
        self.assertEqual(aged.older()[0], 90_000 + 6_000 + 300_000 + 500 + left_out)

    def test_min_age_is_exact_with_session_probes(self):
        self.check_min_age_if("session")

    def test_min_age_is_exact_with_multi_probes(self):
        self.check_min_age_if("multi")

    def test_min_age_is_exact_with_perf_probes(self):
        self.check_min_age_if("perf")

    def check_min_age_if(self, kind):
        if kind not in KINDS:
            self.skipTest(f"this kernel has no {kind} probes")
        self.check_min_age(kind)

    def test_live_bytes_by_age_and_the_oldest(self):
        aged = Aged(self, "-s", "1")
        first = aged.step("alloc", 0, 10, 1000)
        wait_until(first[1] + 1.5 * SECOND)
        second = aged.step("alloc", 0, 30, 100)
        aged.stop()
        older = aged.older()
        self.assertEqual(older[0], 13_000)
        if aged.age(second)[1] < SECOND:  # it was stopped soon enough
            self.assertEqual(older[SECOND], 10_000)
            self.assertIn("76 % older than 1 s", aged.row_ages("zero"))
            self.assertRegex(aged.result.stdout, r"\nages +live bytes: 23 % up to 1 s, 77 % 1 s to 10 s\n")
        if aged.age(first)[1] < 10 * SECOND:
            self.assertEqual(older[10 * SECOND], 0)
        self.assertIn("none was freed", aged.row_ages("zero"))
        oldest = read_duration(re.search(r"oldest ([^;]+);", aged.row_ages("zero")).group(1))
        low, high = aged.age(first)
        # Three digits.
        self.assertGreaterEqual(oldest, low * 0.995)
        self.assertLessEqual(oldest, high * 1.005)

    def test_lifetimes_of_what_was_freed(self):
        aged = Aged(self, "-s", "1")
        long = aged.step("alloc", 0, 10, 64)
        lifetimes = []
        for _ in range(9):
            made = aged.step("alloc", 1, 10, 64)
            gone = aged.step("free", 1, 10)
            lifetimes.append((gone[0] - made[1], gone[1] - made[0]))
        wait_until(long[1] + 2 * SECOND)
        gone = aged.step("free", 0, 9)
        aged.step("alloc", 1, 1, 64)
        long = (gone[0] - long[1], gone[1] - long[0])
        aged.stop()
        # The oldest of site 0 is left. Its freed ones lived about one time, so a class tells it.
        said = read_duration(re.search(r"lived ([^(]+)\(median", aged.row_ages("zero")).group(1))
        self.assertGreaterEqual(said, long[0] / 4 * 0.99)
        self.assertLessEqual(said, long[1] * 4 * 1.01)
        said = read_duration(re.search(r"lived ([^(]+)\(median", aged.row_ages("one")).group(1))
        low, high = (sorted(ends)[len(lifetimes) // 2] for ends in zip(*lifetimes))
        self.assertGreaterEqual(said, low / 4 * 0.99)
        self.assertLessEqual(said, high * 4 * 1.01)

    def test_the_mean_lifetime_is_exact(self):
        aged = Aged(self, "-s", "1")
        long = aged.step("alloc", 0, 10, 64)
        wait_until(long[1] + 2 * SECOND)
        short = aged.step("alloc", 0, 40, 64)
        gone = aged.step("free", 0, 50)
        aged.step("alloc", 0, 1, 64)
        aged.stop()
        low = 10 * (gone[0] - long[1]) + 40 * (gone[0] - short[1])
        high = 10 * (gone[1] - long[0]) + 40 * (gone[1] - short[0])
        mean = read_duration(re.search(r"\(median\), ([^(]+)\(mean", aged.row_ages("zero")).group(1))
        self.assertGreaterEqual(mean, low / 50 * 0.99)
        self.assertLessEqual(mean, high / 50 * 1.01)

    def test_a_site_that_only_gets_older_is_told_from_one_that_turns_over(self):
        aged = Aged(self, "-s", "1")
        first = aged.step("alloc", 0, 10, 1000)
        aged.step("alloc", 1, 10, 1000)
        aged.step("alloc", 2, 10, 10)
        # The middle third of a window that ends when all of this is over, and is 3 s at least.
        wait_until(first[0] + 6 * SECOND)
        aged.step("free", 1, 1)
        aged.step("alloc", 0, 11, 1000)
        aged.step("alloc", 1, 10, 1000)
        aged.step("drop", 1, 1)
        aged.step("alloc", 2, 2, 10)
        aged.step("drop", 2, 1)
        aged.stop()
        window = aged.profile.duration_nanos
        self.assertGreater(window, 3 * SECOND)
        self.assertIn("none was freed", aged.row_ages("zero"))
        self.assertIn("freed ones lived", aged.row_ages("one"))
        self.assertRegex(aged.row_ages("two"), "freed ones lived .*, none from the first third of the window$")
        self.assertNotIn("first third", aged.row_ages("one"))
        self.assertNotRegex(aged.result.stdout.lower(), r"\bleak")

    def test_direct_mappings_have_ages(self):
        for min_age in (3, 12, 40):
            aged = Aged(self, "-s", "1", "--mmap", "--min-age", f"{min_age}s")
            old = aged.step("map", 16)
            aged.step("unmap", 4, 2)
            wait_until(old[1] + min_age * SECOND)
            young = aged.step("map", 8)
            aged.step("unmap", 0, 1)
            profile = aged.stop()
            if aged.age(young)[1] < min_age * SECOND:
                break
        self.assertEqual(
            profile.only("mmap").sites()["map"], (2, 24 * 4096, 1, (16 - 3) * 4096), profile.sites()
        )
        comment = next(c for c in profile.comments if c.startswith("inuse without"))
        self.assertTrue(comment.endswith(f": 1 objects, {8 * 4096} bytes"), comment)

    def test_numbered_profiles_leave_out_what_is_young_then(self):
        aged = Aged(self, "-s", "1", "-i", "300ms", "--min-age", "500s")
        aged.step("alloc", 0, 10, 1000)

        def numbered():
            return sorted(glob.glob(aged.output.replace(".pb.gz", ".[0-9]*.pb.gz")))

        # One that may have been begun before that, and another.
        wanted = len(numbered()) + 2
        wait_for(lambda: len(numbered()) >= wanted, "profiles of intervals")
        self.assertEqual(Profile.read(numbered()[wanted - 1]).sites()["zero"], (10, 10_000, 0, 0))
        self.assertEqual(aged.stop().sites()["zero"], (10, 10_000, 0, 0))

    def test_sampled_ages_are_unbiased(self):
        period, size, count = 4096, 1000, 20000
        aged = Aged(self, "-s", period)
        first = aged.step("alloc", 0, count, size)
        aged.step("free", 0, count // 2)
        wait_until(first[1] + 1.2 * SECOND)
        young = aged.step("alloc", 0, count // 4, size)
        aged.stop()
        p = -math.expm1(-size / period)
        older = aged.older()

        def check(found, objects):
            # 5 standard deviations of a binomial, scaled.
            sd = math.sqrt(objects * (1 - p) / p) * size
            self.assertAlmostEqual(found, objects * size, delta=5 * sd)

        check(older[0], count // 2 + count // 4)
        if aged.age(young)[1] < SECOND:
            check(older[SECOND], count // 2)

    def test_times_that_make_no_sense_are_usage_errors(self):
        for value in ("", "0", "-1s", "soon", "5x"):
            with self.subTest(value=value):
                result = self.run_tracer("-p", "1", "--min-age", value)
                self.assertEqual(result.status, USAGE, result.text)
                self.assert_one_line(result)
        result = self.run_tracer("-p", "1", "-d", "10s", "--min-age", "10s")
        self.assertEqual(result.status, USAGE, result.text)
        self.assert_one_line(result)


if __name__ == "__main__":
    unittest.main()
