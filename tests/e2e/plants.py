"""Programs that grow in known ways (tests/targets/plant.c), and what became of them from time to time."""

import collections
import os
import re
import signal
import time

from lib import TARGETS, Target, read_text

# What a plant said, and what the kernel says of it: bytes, by time.time_ns() before it was asked and after.
Reading = collections.namedtuple("Reading", "before after grown allocated children rss")


def memory(pid):
    """{name: bytes} of /proc/PID/status."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", read_text(f"/proc/{pid}/status"), re.M)
    return {name: int(kib) << 10 for name, kib in found}


class Plant(Target):
    """plant-WAY, in a folder of its own: what it is called by, behind the last -, decides what it does."""

    def __init__(self, way, *arguments, folder, called="plant", **options):
        self.way = way
        name = f"{called}-{way}"
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            os.symlink(os.path.join(TARGETS, "plant"), path)
        self.readings = []
        super().__init__(name, *arguments, folder=folder, program_folder=folder, **options)

    def ask(self):
        """A Reading, which is kept."""
        before = time.time_ns()
        os.kill(self.pid, signal.SIGUSR1)
        line = self.next_line("what it has grown")
        figures = map(int, re.match(r"grown (\d+) allocated (\d+) children (\d+)$", line).groups())
        rss = memory(self.pid)["VmRSS"]
        self.readings.append(Reading(before, time.time_ns(), *figures, rss))
        return self.readings[-1]

    def between(self, start, end, what="grown"):
        """(least, most) that it can have grown from one moment to another (ns), by its readings around them."""

        def around(moment):
            """(least, most) that it can have had then."""
            earlier = [getattr(r, what) for r in self.readings if r.after <= moment]
            later = [getattr(r, what) for r in self.readings if r.before >= moment]
            if not earlier or not later:
                raise AssertionError(f"{self.way}: no reading before or after {moment}")
            return max(earlier), min(later)

        (low_start, high_start), (low_end, high_end) = around(start), around(end)
        return low_end - high_start, high_end - low_start
