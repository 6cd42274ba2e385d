"""What a sweep puts out of the processes that it finds, beside what these know and the kernel says of them."""

import bisect
import re
import signal
import time

import lib
from lib import Target
from plants import memory
from test_sweep import SECOND, SLACK, Sweep, SweepCase

MIB = 1 << 20


def anonymous(pid):
    """A Reading's two times around what the kernel says: (before, after, bytes)."""
    before = time.time_ns()
    size = memory(pid)["RssAnon"]
    return before, time.time_ns(), size


class Series(SweepCase):
    """The anonymous memory of a process, in the parts of the window that its verdict counts."""

    def around(self, readings, start, end):
        """(least, most) of a memory that only grows between two times."""
        first = bisect.bisect([after for _, after, _ in readings], start) - 1
        last = bisect.bisect_left([before for before, _, _ in readings], end)
        self.assertGreaterEqual(first, 0)
        self.assertLess(last, len(readings))
        return readings[first][2], readings[last][2]

    def test_ends_of_parts_are_what_the_kernel_said(self):
        plant, flat = self.plant("heap", 4 * MIB), self.target("sleeper")
        readings = [anonymous(plant.pid)]
        sweep = Sweep(self, "-d", "15s", "--comm", "plant-heap", "--comm", "sleeper")
        sweep.run(lambda _: readings.append(anonymous(plant.pid)))
        over = time.time_ns()
        lib.wait_for(lambda: time.time_ns() > over + SECOND, "a reading after all of the sweep's")
        readings.append(anonymous(plant.pid))

        row = sweep.row(plant.pid)
        series, verdict = row["series"], row["verdict"]
        self.assertEqual(verdict["kind"], "steady", row)
        self.assertEqual(len(series["parts_bytes"]), verdict["parts"])
        self.assertEqual(len(series["parts_seconds"]), verdict["parts"])
        self.assertGreaterEqual(min(series["parts_seconds"]), 0.5)
        # The profile of its growth has the start of the sweep to the nanosecond.
        start = lib.Profile.read(row["growth_profile"]).time_nanos
        at = start + int(series["start_seconds"] * SECOND)
        ends = [(at, series["start_bytes"])]
        for seconds, size in zip(series["parts_seconds"], series["parts_bytes"]):
            at += int(seconds * SECOND)
            ends.append((at, size))
        # Readings are taken soon after their time: those of all processes are told by one.
        for at, size in ends:
            low, high = self.around(readings, at - SECOND // 20, at + SECOND // 2)
            self.assertGreaterEqual(size, low - SLACK, (at, series))
            self.assertLessEqual(size, high + SLACK, (at, series))
        sizes = [size for _, size in ends]
        self.assertEqual(sum(a < b for a, b in zip(sizes, sizes[1:])), verdict["grown"])
        self.assertEqual(sizes[-1] - sizes[0], row["anon_growth"])
        self.assertIsNone(sweep.row(flat.pid)["series"])


def shares(pid):
    """(Pss, SwapPss) of a process, bytes: the sums over its mappings."""
    text = lib.read_text(f"/proc/{pid}/smaps")
    return tuple(sum(map(int, re.findall(rf"(?m)^{name}: +(\d+) kB$", text))) << 10 for name in ("Pss", "SwapPss"))


class Shares(SweepCase):
    """What memory is a process's own, where others have it too."""

    def sweep(self, *options):
        """A plant that has stopped by the end, and shares 3/4 of its memory; what is said of it; its shares."""
        plant, seen = self.plant("common"), []

        def stop(_):
            if not seen and memory(plant.pid)["RssShmem"] >= 64 * MIB:
                plant.signal(signal.SIGUSR2)
                self.assertEqual(plant.next_line(), "shared")
                seen.append(shares(plant.pid))

        sweep = Sweep(self, "-d", "600s", "--comm", "plant-common", *options)
        sweep.run(stop, lambda: seen)
        return plant, sweep, seen[0]

    def test_share_is_the_sum_over_its_mappings(self):
        plant, sweep, (pss, swap_pss) = self.sweep()
        row = sweep.row(plant.pid)
        self.assertLess(pss, row["rss_end"] / 2)
        # Others map the C library too, now more of them and now fewer.
        self.assertAlmostEqual(row["pss"], pss, delta=MIB, msg=row)
        self.assertAlmostEqual(row["swap_pss"], swap_pss, delta=MIB, msg=row)
        workers = [other for other in sweep.rows if other["pid"] != plant.pid]
        self.assertEqual(len(workers), 3)
        # Each of them has grown by all of it.
        for other in workers:
            self.assertGreater(other["shared_growth"], 32 * MIB, other)
            self.assertAlmostEqual(other["pss"], pss, delta=MIB, msg=other)

    def test_share_of_who_stays_as_he_was_is_not_read(self):
        target = self.target("sleeper")
        row = Sweep(self, "-d", "2s", "--comm", "sleeper").run(lambda _: None).row(target.pid)
        self.assertEqual((row["pss"], row["swap_pss"]), (None, None))


class Aged(Target):
    """tests/targets/aged.c, which has grown enough to be traced."""

    def __init__(self, folder):
        super().__init__("aged", folder=folder)

    def grow(self):
        self.step("alloc", 3, 4000, 1000)

    def step(self, *words):
        """(before, after), by the target's clock, which is time.monotonic_ns()."""
        self.say(" ".join(map(str, words)))
        return tuple(map(int, re.match(r"did (\d+) (\d+)$", self.next_line("a step")).groups()))


class Ages(SweepCase):
    """What a heap keeps and what it turns over, as the programs themselves know."""

    def aged(self):
        target = Aged(self.folder)
        self.addCleanup(target.kill)
        return target

    def record(self):
        """(sweep, keeper, turner, idle, their steps, (before the end, after it))"""
        targets = keeper, turner, idle = [self.aged() for _ in range(3)]
        steps, end = {}, []

        def zoomed(target):
            return f"alloctrace: process {target.pid}: grown by" in sweep.tracer.stderr

        def work(_):
            now = time.monotonic_ns()
            if not steps:
                for target in targets:
                    target.grow()
                steps["grown"] = now
            elif "old" not in steps and all(map(zoomed, targets)):
                for target in targets:
                    steps["old", target] = target.step("alloc", 0, 100, 1000)
                steps["old"] = now
            elif "old" in steps and "young" not in steps and now > steps["old"] + 6 * SECOND:
                # The last third of a window that ends with this.
                steps["young", keeper] = keeper.step("alloc", 0, 30, 500)
                steps["gone", turner] = turner.step("free", 0, 20)
                steps["young", turner] = turner.step("alloc", 0, 30, 500)
                steps["young"] = now
                end.append(time.monotonic_ns())

        sweep = Sweep(self, "-s", "1", "-d", "600s", "--comm", "aged")
        sweep.run(work, lambda: "young" in steps)
        end.append(time.monotonic_ns())
        return sweep, keeper, turner, idle, steps, end

    def check_older(self, ages, parts, end):
        """parts: (when, bytes) of what is live at a time between the two of end."""
        for name, bound in (("1s", 1), ("10s", 10), ("1min", 60), ("10min", 600)):
            sure = sum(size for (_, after), size in parts if end[0] - after >= bound * SECOND)
            possible = sum(size for (before, _), size in parts if end[1] - before >= bound * SECOND)
            self.assertLessEqual(sure, ages[f"older_than_{name}"], ages)
            self.assertGreaterEqual(possible, ages[f"older_than_{name}"], ages)

    def test_ages_are_what_the_program_knows(self):
        sweep, keeper, turner, idle, steps, end = self.record()
        rows = {target: sweep.row(target.pid) for target in (keeper, turner, idle)}
        sites = {target: row["top_site"]["ages"] for target, row in rows.items()}
        for target, row in rows.items():
            self.assertEqual(row["top_site"]["function"], "path_zero", row)
            live = [(steps["old", target], 80_000 if target is turner else 100_000)]
            if target is not idle:
                live.append((steps["young", target], 15_000))
            self.assertEqual(row["live_bytes"]["value"], sum(size for _, size in live))
            self.check_older(row["ages"], live, end)
            self.check_older(sites[target], live, end)
        self.assertEqual([sites[target]["keeps"] for target in (keeper, turner, idle)], [True, False, None])
        self.assertEqual([sites[target]["freed_samples"] for target in (keeper, turner, idle)], [0, 20, 0])
        for target in (keeper, idle):
            self.assertIsNone(sites[target]["median_lifetime_seconds"])
            self.assertIsNone(sites[target]["mean_lifetime_seconds"])
        (made, made_by), (gone, gone_by) = steps["old", turner], steps["gone", turner]
        mean, median = (sites[turner][f"{kind}_lifetime_seconds"] * SECOND for kind in ("mean", "median"))
        self.assertGreaterEqual(mean, (gone - made_by) * 0.999)
        self.assertLessEqual(mean, (gone_by - made) * 1.001)
        # A class, of a factor of four.
        self.assertGreaterEqual(median, (gone - made_by) / 4)
        self.assertLessEqual(median, (gone_by - made) * 4)
        self.assertRegex(sites[keeper]["text"], "older than .*; none was freed$")
        self.assertRegex(sites[turner]["text"], r"older than .*; freed ones lived [\d.]+ s \(median\)$")

    def test_who_is_not_traced_has_no_ages(self):
        target = self.target("sleeper")
        row = Sweep(self, "-d", "2s", "--comm", "sleeper").run(lambda _: None).row(target.pid)
        self.assertEqual((row["ages"], row["top_site"]), (None, None))
