"""What a sweep puts out of the processes that it finds, beside what these know and the kernel says of them."""

import bisect
import re
import signal
import time

import lib
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
