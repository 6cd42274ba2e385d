"""What a sweep puts out of the processes that it finds, beside what these know and the kernel says of them."""

import bisect
import contextlib
import glob
import os
import pty
import re
import signal
import subprocess
import tempfile
import threading
import time

import lib
from lib import USAGE, Profile, Target
from plants import memory
from test_sweep import SECOND, SITES, SLACK, Sweep, SweepCase

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
        self.assertGreater(min(series["parts_seconds"]), 0)
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


class OnATerminal(SweepCase):
    """The table that is renewed in its place."""

    def watch(self, done):
        """The text that a terminal got, until done(text) ended the sweep."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        text = ""
        tracer = self.tracer(
            "-a", "--comm", "plant-heap", "-d", "600s", "-o", self.folder + "/", stdout=theirs,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while chunk := os.read(ours, 65536):
                text += chunk.decode().replace("\r\n", "\n")
                if done(text):
                    tracer.signal(signal.SIGINT)
                    done = lambda _: False
        self.assertEqual(tracer.wait(), lib.OK, tracer.stderr)
        return text

    def test_figures_of_heaps_are_there_while_it_runs(self):
        plant = self.plant("heap", 4 * MIB)
        row = re.compile(rf"(?m)^ *{plant.pid} plant-heap .*? ([0-9.]+) MiB +[0-9.]+ MiB/s +(?:steady|too short) *(\S*)$")
        text = self.watch(lambda text: len(row.findall(text)) >= 3)
        live = [(float(figure), site) for figure, site in row.findall(text)]
        self.assertEqual([site for _, site in live], [""] * (len(live) - 1) + ["site_heap"])
        figures = [figure for figure, _ in live]
        self.assertEqual(figures, sorted(figures))
        self.assertLess(figures[-1], plant.ask().allocated / MIB * 2)
        # Each table goes up by the lines of the one before it, and erases these.
        tables = re.split(r"\x1b\[(\d+)A\x1b\[J", text)
        self.assertGreater(len(tables), 3)
        for table, lines in zip(tables[::2], tables[1::2]):
            self.assertEqual(table.count("\n"), int(lines))


class Losses(SweepCase):
    def sweep(self, *options):
        """What is said of a plant whose heap was recorded for a while."""
        plant, grown = self.plant("heap", 4 * MIB), []

        def has_grown():
            grown.append(plant.ask().allocated)
            return grown[-1] > grown[0] + 32 * MIB

        sweep = Sweep(self, "-d", "600s", "--comm", "plant-heap", "-s", "4096", *options)
        return sweep.run(lambda _: None, has_grown).row(plant.pid)

    def test_they_are_those_of_the_profile(self):
        row = self.sweep("--max-live", "64")
        comments = "\n".join(Profile.read(row["profile"]).comments)
        lost, sampled = map(int, re.search(r"WARNING: (\d+) of (\d+) samples were lost", comments).groups())
        self.assertEqual((row["lost_samples"], row["samples"]), (lost, sampled), row)
        self.assertGreater(lost, 1000)
        self.assertRegex(row["losses"], r"^live map full: [\d,.]+[kM]?$")

    def test_without_any(self):
        row = self.sweep()
        self.assertEqual((row["lost_samples"], row["losses"]), (0, None), row)
        self.assertGreater(row["samples"], 1000)


class Shares(SweepCase):
    """What memory is a process's own, where others have it too."""

    def sweep(self, *options):
        """A plant that has stopped by the end, and shares 3/4 of its memory; what is said of it; its shares."""
        plant, seen, first = self.plant("common"), [], []

        def stop(_):
            first.append(memory(plant.pid)["RssShmem"])
            if not seen and first[-1] >= first[0] + 64 * MIB:
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
            self.assertAlmostEqual(other["shmem_growth"], other["shared_growth"], delta=SLACK, msg=other)
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


class Intervals(SweepCase):
    """Numbered profiles of who has grown: each holds all that was recorded until then."""

    def numbered(self, path):
        """{number: path} beside a final profile."""
        stem = re.escape(path.removesuffix(".pb.gz"))
        found = (re.fullmatch(rf"{stem}\.(\d{{4}})\.pb\.gz", other) for other in glob.glob(f"{os.path.dirname(path)}/*"))
        return {int(match.group(1)): match.group(0) for match in found if match}

    def total(self, profile, kind):
        index = [name for name, _ in profile.sample_types].index(kind)
        return sum(sample.values[index] for sample in profile.samples)

    def test_each_holds_what_was_recorded_until_then(self):
        early, late = self.plant("heap", 4 * MIB), []

        def work(passed):
            if passed > 8 and not late:
                late.append(self.plant("heap", 4 * MIB))
            for plant in (early, *late):
                plant.ask()

        sweep = Sweep(self, "-d", "20s", "-i", "2s", "--comm", "plant-heap")
        sweep.run(work)
        intervals, first = sweep.result["intervals"], []
        self.assertEqual(intervals["seconds"], 2)
        self.assertGreater(intervals["longest_write_seconds"], 0)
        for plant in (early, *late):
            plant.ask()
            row = sweep.row(plant.pid)
            first.append(self.check_heap(sweep, plant, row))
            self.check_growth(sweep, plant, row)
        self.assertLess(first[0], first[1])

    def check_heap(self, sweep, plant, row):
        """The number of the first one."""
        paths = self.numbered(row["profile"])
        self.assertEqual(sorted(paths), list(range(min(paths), max(paths) + 1)))
        self.assertLessEqual(max(paths), sweep.result["intervals"]["last_number"])
        self.assertGreaterEqual(len(paths), 3, paths)
        profiles = [Profile.read(path) for _, path in sorted(paths.items())] + [Profile.read(row["profile"])]
        self.assertEqual({profile.time_nanos for profile in profiles}, {profiles[0].time_nanos})
        for before, after in zip(profiles, profiles[1:]):
            self.assertLess(before.duration_nanos, after.duration_nanos)
            self.assertLessEqual(self.total(before, "alloc_space"), self.total(after, "alloc_space"))
        for profile in profiles:
            # Of samples of 512 KiB: five standard deviations.
            start, end = profile.time_nanos, profile.time_nanos + profile.duration_nanos
            low, high = plant.between(start, end, "allocated")
            found, slack = self.total(profile, "inuse_space"), 5 * (high * profile.period) ** 0.5
            self.assertGreaterEqual(found, low - slack)
            self.assertLessEqual(found, high + slack)
        return min(paths)

    def check_growth(self, sweep, plant, row):
        paths = self.numbered(row["growth_profile"])
        self.assertGreaterEqual(len(paths), 3, paths)
        profiles = [Profile.read(path) for _, path in sorted(paths.items())] + [Profile.read(row["growth_profile"])]
        for before, after in zip(profiles, profiles[1:]):
            self.assertLess(before.duration_nanos, after.duration_nanos)
        for profile in profiles:
            self.assertEqual(profile.sample_types, [("growth_space", "bytes")])
            self.assertEqual(profile.time_nanos, profiles[0].time_nanos)
            found = self.total(profile, "growth_space")
            # What is sampled is rough, more so of little.
            most = max(r.grown for r in plant.readings if r.before <= profile.time_nanos + profile.duration_nanos + SECOND)
            self.assertLess(found, 2.5 * most + 4 * MIB)
        self.assertGreater(self.total(profiles[-1], "growth_space"), self.total(profiles[0], "growth_space"))

    def test_pprof_shows_what_came_between_two(self):
        target = Aged(self.folder)
        self.addCleanup(target.kill)
        state = {}

        def work(_):
            traced = f"alloctrace: process {target.pid}: grown by" in sweep.tracer.stderr
            last = max(map(int, re.findall(r"interval (\d+): profiles written", sweep.tracer.stderr)), default=0)
            if not state:
                target.grow()
                state["grown"] = True
            elif traced and "before" not in state:
                target.step("alloc", 0, 100, 1000)
                state["before"] = last + 2
            elif "before" in state and last >= state["before"] and "after" not in state:
                target.step("alloc", 1, 10, 500)
                target.step("free", 0, 40)
                state["after"] = last + 2
            elif "after" in state and last >= state["after"]:
                state["done"] = True

        sweep = Sweep(self, "-s", "1", "-d", "600s", "-i", "500ms", "--comm", "aged")
        sweep.run(work, lambda: "done" in state)
        paths = self.numbered(sweep.row(target.pid)["profile"])
        pair = [paths[state["before"]], paths[state["after"]]]
        for kind, difference in (("alloc_space", 5000), ("inuse_space", 5000 - 40_000), ("alloc_objects", 10)):
            shown = subprocess.run(
                ["go", "tool", "pprof", "-raw", f"-sample_index={kind}", "-base", *pair],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            header, samples = re.search(r"(?s)Samples:\n(.*?)\n(.*)Locations\n", shown).groups()
            index = [word.split("/")[0] for word in header.split()].index(kind)
            values = (line.split(":")[0].split() for line in samples.splitlines() if re.match(r" +-?\d", line))
            self.assertEqual(sum(int(value[index]) for value in values), difference, shown)

    def test_what_writing_takes_from_the_sweep_is_told(self):
        """A pipe that nobody reads for a while holds all of it up."""
        plant, seen = self.plant("heap", 4 * MIB), {}
        folder = tempfile.mkdtemp(prefix="piped.", dir=self.folder)
        pipe = f"{folder}/alloctrace.plant-heap.{plant.pid}.growth"

        for number in range(1, 100):
            os.mkfifo(f"{pipe}.{number:04}.pb.gz")

        def work(_):
            grown = plant.ask().grown
            seen.setdefault("first", grown)
            # A process has profiles when it has grown by one MiB, or two.
            if "read" not in seen and grown > seen["first"] + 40 * MIB:
                for path in glob.glob(f"{pipe}.*"):
                    threading.Thread(target=lib.read_bytes, args=(path,), daemon=True).start()
                seen["read"] = grown

        sweep = Sweep(self, "-d", "600s", "-i", "500ms", "--comm", "plant-heap", "-o", folder)
        sweep.run(work, lambda: "read" in seen and plant.ask().grown > seen["read"] + 16 * MIB)
        intervals = sweep.result["intervals"]
        self.assertGreaterEqual(intervals["missed"], 4, sweep.result)
        self.assertGreater(intervals["longest_write_seconds"], 2)
        self.assertGreaterEqual(sweep.counts["readings_missed"], 2, sweep.counts)
        # It goes on afterwards.
        self.assertEqual(sweep.row(plant.pid)["verdict"]["kind"], "steady")

    def test_names_of_processes_that_come_and_go(self):
        """Names may lead to images of processes that have ended: those are kept, but not for ever."""
        plants, pids = [], []

        def is_written(plant):
            return glob.glob(self.path(f"sweep.*/alloctrace.plant-mmap.{plant.pid}.growth.0*"))

        def are_written():
            return plants and all(map(is_written, plants))

        def work(_):
            if plants and (len(pids) >= 24 or not are_written()):
                return
            for plant in plants:
                plant.kill()
            plants[:] = [self.plant("mmap") for _ in range(6)]
            pids.extend(plant.pid for plant in plants)

        sweep = Sweep(self, "-d", "600s", "-i", "300ms", "--comm", "plant-mmap", "--top-processes", "1")
        sweep.run(work, lambda: len(pids) >= 24 and "that have ended are let go" in sweep.tracer.stderr and are_written())
        for path in glob.glob(self.path("sweep.*/*.growth.*")):
            found = {frame.name for sample in Profile.read(path).samples for frame in sample.frames}
            self.assertLessEqual(found & SITES, {"site_mmap"}, path)
        for plant in plants:
            self.assertEqual(sweep.row(plant.pid)["growth_site"]["function"], "site_mmap")

    def test_without_an_interval_there_are_none(self):
        result = self.run_tracer("-a", "-i", "99ms")
        self.assertEqual(result.status, USAGE, result.text)
        self.assert_one_line(result)
        sweep = Sweep(self, "-d", "2s", "--comm", "nobody").run(lambda _: None)
        self.assertIsNone(sweep.result["intervals"])
