"""That the plants of a sweep grow as they say: the kernel's own account of them is the witness."""

import os
import signal
import unittest

import lib
from plants import Plant, memory

# What grows of a process by each way.
KINDS = {
    "heap": "RssAnon",
    "slow": "RssAnon",
    "mmap": "RssAnon",
    "stack": "RssAnon",
    "step": "RssAnon",
    "file": "RssFile",
    "shmem": "RssShmem",
}
# The C library's own, and pages that are partly filled; and what it has with each block.
SLACK = 256 << 10
OVERHEAD = 0.02
ENOUGH = 2 << 20


class Plants(lib.Case):
    def plant(self, way, *arguments):
        plant = Plant(way, *arguments, folder=self.folder)
        self.addCleanup(plant.kill)
        return plant

    def start_all(self):
        empty = self.path("empty")
        with open(empty, "w") as file:
            file.truncate(1 << 30)
        return {way: self.plant(way, *([empty] if way == "file" else [])) for way in KINDS}

    def test_they_grow_by_what_they_say(self):
        plants = self.start_all()
        first = {way: (plant.ask(), memory(plant.pid), plant.ask()) for way, plant in plants.items()}
        plants["step"].signal(signal.SIGUSR2)
        for way, plant in plants.items():
            least = {"slow": 64 << 10}.get(way, ENOUGH)
            plant.wait_until(lambda: plant.ask().grown - first[way][0].grown >= least, f"growth by {way}")
        for way, plant in plants.items():
            with self.subTest(way):
                before, after = plant.ask(), memory(plant.pid)
                later = plant.ask()
                for kind in ("RssAnon", "RssFile", "RssShmem"):
                    change = after[kind] - first[way][1][kind]
                    # Between two moments that are not quite those at which the kernel was asked.
                    low = before.grown - first[way][2].grown if kind == KINDS[way] else 0
                    high = later.grown - first[way][0].grown if kind == KINDS[way] else 0
                    self.assertGreaterEqual(change, low - SLACK, kind)
                    self.assertLessEqual(change, high + SLACK + OVERHEAD * high, kind)

    def test_churn_stays_as_it_is(self):
        plant = self.plant("churn")
        plant.wait_until(lambda: plant.ask().allocated > 20 << 20, "churning")
        first, before = plant.ask(), memory(plant.pid)
        plant.wait_until(lambda: plant.ask().allocated - first.allocated > 50 << 20, "churning")
        self.assertLess(abs(memory(plant.pid)["VmRSS"] - before["VmRSS"]), SLACK)

    def test_storm_has_children_that_end(self):
        plant = self.plant("storm", 1000)
        plant.wait_until(lambda: plant.ask().children > 200, "children")

    def test_one_becomes_another(self):
        plant = self.plant("become", self.path("plant-mmap"))
        os.symlink(os.path.join(lib.TARGETS, "plant"), self.path("plant-mmap"))
        plant.wait_until(lambda: plant.ask().grown > 0, "growth")
        plant.signal(signal.SIGUSR2)
        self.assertEqual(plant.next_line(), f"ready {plant.pid}")
        self.assertEqual(lib.read_text(f"/proc/{plant.pid}/comm"), "plant-mmap\n")
        plant.wait_until(lambda: plant.ask().grown > 0, "growth")
        self.assertEqual(plant.ask().allocated, 0)


if __name__ == "__main__":
    unittest.main()
