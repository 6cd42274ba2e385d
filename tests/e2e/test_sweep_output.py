"""What a sweep puts out of the processes that it finds, beside what these know and the kernel says of them."""

import bisect
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
