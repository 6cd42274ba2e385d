"""alloctrace -a on a host of more than 200 processes: who grows is found and named, and nobody else.

ALLOCTRACE_SWEEP_SECONDS and ALLOCTRACE_SWEEP_RUNS: how long the host is swept, 60 s, and how often, once;
ALLOCTRACE_SWEEP_ALONE: nothing else runs on the machine, so as many processes are traced as by default.
"""

import calendar
import contextlib
import json
import os
import re
import signal
import tempfile
import time
import unittest

import host
import lib
import test_growth
from plants import Plant, memory

SECONDS = int(os.environ.get("ALLOCTRACE_SWEEP_SECONDS", 60))
RUNS = int(os.environ.get("ALLOCTRACE_SWEEP_RUNS", 1))
CHILDREN = 10_000  # of a storm, in a sweep

# Other processes of the machine may grow meanwhile by more than a plant.
TOP = () if os.environ.get("ALLOCTRACE_SWEEP_ALONE") else ("--top-processes", "40")

GROWERS = ("heap", "slow", "mmap", "file", "shmem", "stack", "step")
IN_HEAP = ("heap", "slow")
ANONYMOUS = ("heap", "slow", "mmap", "stack", "step")
STEADY = ("heap", "slow", "mmap", "stack")
SITES = {f"site_{way}" for way in (*GROWERS, "churn", "storm", "become")}
CALLERS = r"^< grow plant\.c:\d+ < (?:.* < )?main plant\.c:\d+"  # of those in the heap
GROWTH = ("steady", "step", "uneven")  # kinds of verdicts

MEMORY_LIMIT = 100 << 20
OFTEN = 0.1  # seconds between rounds of work
SECOND = 1_000_000_000
SLACK = 512 << 10  # of memory: what the C library needs by itself, and what counts for nothing in a verdict

# What is files' and what is shared is read apart from their sum: so much may be between.
APART = 2 << 20


class Sweep:
    """One run of alloctrace -a, and what it found."""

    def __init__(self, case, *options):
        folder = tempfile.mkdtemp(prefix="sweep.", dir=case.folder)
        self.case = case
        self.peak = 0
        self.before = time.time_ns()
        self.tracer = case.tracer("-v", "-a", "--json", "-o", folder + "/", *options)
        self.tracer.wait_until(lambda: "alloctrace: sweeping\n" in self.tracer.stderr, "the sweep")
        self.after = time.time_ns()
        self.launched = time.monotonic()

    def run(self, work, until=None):
        """Works until it has ended; or until something, and then ends it. The same Sweep."""
        limit = lib.LIMIT + SECONDS
        while not self.tracer.ended:
            with contextlib.suppress(OSError, KeyError):  # at its end
                self.peak = max(self.peak, memory(self.tracer.pid)["VmHWM"])
            work(time.monotonic() - self.launched)
            if until and until():
                self.tracer.signal(signal.SIGINT)
                until = None
            if time.monotonic() > self.launched + limit + 600:
                raise AssertionError(f"still running: {self.tracer.describe()}")
            time.sleep(OFTEN)
        self.case.assertEqual(self.tracer.wait(), lib.OK, self.tracer.stderr)
        self.result = json.loads(self.tracer.stdout)
        self.rows = self.result["processes"]
        self.counts = self.result["counts"]
        return self

    def rows_of(self, pid):
        return [row for row in self.rows if row["pid"] == pid]

    def row(self, pid):
        rows = self.rows_of(pid)
        if len(rows) != 1:
            raise AssertionError(f"process {pid}: {rows}\n{self.tracer.stderr}")
        return rows[0]

    def start(self):
        """What it says of its start: time.time_ns(), to the second."""
        start = time.strptime(self.result["start"], "%Y-%m-%dT%H:%M:%SZ")
        return calendar.timegm(start) * SECOND

    def truth(self, plant, what):
        """(least, most) that a plant can have grown in the window; readings are a second apart at the most."""
        duration = int(self.result["duration_seconds"] * SECOND)
        low, _ = plant.between(self.after + SECOND, self.before + duration - SECOND, what)
        _, high = plant.between(self.before, self.after + duration, what)
        return low, high


def functions(row):
    """The functions that a process's figures and profiles name."""
    found = {row[site]["function"] for site in ("top_site", "growth_site") if row.get(site)}
    for name in ("profile", "growth_profile"):
        if row.get(name):
            profile = lib.Profile.read(row[name])
            found |= {frame.name for sample in profile.samples for frame in sample.frames}
    return found


def sites(row):
    """Those of them that are a plant's."""
    return functions(row) & SITES


def changed_pages(pid):
    """Bytes of a process's mapped code that are its own: pages with a breakpoint. To ask makes none of it resident."""
    found, code = 0, False
    for line in lib.read_text(f"/proc/{pid}/smaps").splitlines():
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ (\d+)", line)
        if head:
            code = "x" in head.group(1) and head.group(2) != "0"
        elif code and line.startswith("Anonymous:"):
            found += int(line.split()[1]) << 10
    return found


class SweepCase(lib.Case):
    limit = 300

    def plant(self, way, *arguments, **options):
        plant = Plant(way, *arguments, folder=self.folder, **options)
        self.addCleanup(plant.kill)
        return plant

    def check_reading(self, row):
        """What is said of a process adds up."""
        self.assertEqual(row["growth"], row["rss_end"] - row["rss_start"], row)
        self.assertEqual(row["growth"], row["anon_growth"] + row["shared_growth"], row)


class Recorded:
    """A sweep of the host with all plants. Profiles are read while their folder is there."""

    def __init__(self, case, here):
        empty = case.path("empty")
        with open(empty, "w") as file:
            file.truncate(1 << 30)
        self.processes = dict(here.processes)
        self.plants = {way: case.plant(way, *([empty] if way == "file" else [])) for way in (*GROWERS, "churn", "storm")}
        self.stepped = False
        self.code = None
        churn = self.plants["churn"]
        churn.wait_until(lambda: churn.ask().allocated > 200 << 20, "churning")
        self.ask()
        self.sweep = Sweep(case, "-d", f"{SECONDS}s", *TOP)
        self.sweep.run(lambda passed: self.work(here, passed))
        self.ask()
        self.rows = {way: self.sweep.row(plant.pid) for way, plant in self.plants.items()}
        self.sites = {way: sites(row) for way, row in self.rows.items()}
        self.heaps = {
            way: lib.Profile.read(row["profile"]) for way, row in self.rows.items() if row["profile"]
        }
        self.growths = {
            way: lib.Profile.read(row["growth_profile"]) for way, row in self.rows.items() if row["growth_profile"]
        }
        self.innocents = [row for row in self.sweep.rows if row["pid"] in self.processes]

    def ask(self):
        self.asked = time.monotonic()
        for plant in self.plants.values():
            plant.ask()

    def work(self, here, passed):
        here.load()
        if time.monotonic() > self.asked + 0.5:
            self.ask()
        if passed > SECONDS / 2 and not self.stepped:
            self.plants["step"].signal(signal.SIGUSR2)
            self.stepped = True
        if passed > SECONDS * 2 / 3 and self.code is None:
            # By now probes are in who grows.
            self.code = {pid: changed_pages(pid) for pid in self.processes}
            self.code_of_plants = {way: changed_pages(plant.pid) for way, plant in self.plants.items()}


class OnAHost(SweepCase):
    """Each test looks at each of RUNS sweeps."""

    limit = 300 + RUNS * (SECONDS + 60)

    @classmethod
    def record_all(cls, case):
        try:
            paths = host.programs()
        except host.Missing as reason:
            raise unittest.SkipTest(str(reason)) from None
        recorded = []
        os.chmod(case.folder, 0o755)  # some of them run as somebody else
        with host.Host(tempfile.mkdtemp(dir=case.folder), paths) as here:
            case.assertGreaterEqual(len(here.processes), 200)
            for _ in range(RUNS):
                one = Recorded(case, here)
                for plant in one.plants.values():
                    plant.kill()
                recorded.append(one)
        return recorded

    def recorded(self):
        """Each of them."""
        if "sweep" not in lib.Case.shared:
            lib.Case.shared["sweep"] = None
            lib.Case.shared["sweep"] = self.record_all(self)
        self.assertIsNotNone(lib.Case.shared["sweep"], "the sweep has failed: see the first test")
        return lib.Case.shared["sweep"]

    def ways(self, ways):
        return [(one, way, one.rows[way]) for one in self.recorded() for way in ways]

    def test_who_grows_comes_before_who_does_not(self):
        for one in self.recorded():
            ranks = {row["pid"]: rank for rank, row in enumerate(one.sweep.rows)}
            last = max(ranks[one.plants[way].pid] for way in GROWERS)
            early = [row["comm"] for row in one.innocents if ranks[row["pid"]] < last]
            self.assertEqual(early, [])
            growth = [row["growth"] for row in one.sweep.rows]
            self.assertEqual(growth, sorted(growth, reverse=True))

    def test_everybody_is_there(self):
        for one in self.recorded():
            self.assertEqual(sorted(row["pid"] for row in one.innocents), sorted(one.processes))
            for way, row in one.rows.items():
                self.assertEqual((row["comm"], row["ended"], row["uid"]), (f"plant-{way}", False, os.getuid()))

    def test_no_innocent_has_a_verdict_of_growth(self):
        for one in self.recorded():
            accused = [row for row in one.innocents if row["verdict"]["kind"] in GROWTH]
            self.assertEqual(accused, [])

    def test_no_innocent_carries_a_breakpoint(self):
        for one in self.recorded():
            self.assertEqual([row for row in one.innocents if row["zoomed"]], [])
            self.assertEqual([one.processes[pid] for pid, changed in one.code.items() if changed], [])
            self.assertGreater(one.code_of_plants["heap"], 0)

    def test_verdicts_are_what_the_plants_do(self):
        for _, way, row in self.ways(STEADY):
            self.assertEqual(row["verdict"]["kind"], "steady", row)
        for _, _, row in self.ways(["step"]):
            self.assertEqual(row["verdict"]["kind"], "step", row)
        for _, _, row in self.ways(["churn", "storm"]):
            self.assertIn(row["verdict"]["kind"], ("flat", "sawtooth"), row)
        for one in self.recorded():
            for row in one.sweep.rows:
                self.assertNotRegex(row["verdict"]["text"], r"(?i)\bleak")

    def test_growth_is_what_the_kernel_says(self):
        for one, way, row in self.ways(GROWERS):
            low, high = one.sweep.truth(one.plants[way], "rss")
            self.assertGreaterEqual(row["growth"], low - SLACK, row)
            self.assertLessEqual(row["growth"], high + SLACK, row)

    def test_growth_has_its_kind(self):
        for _, way, row in self.ways(GROWERS):
            kind = "anon_growth" if way in ANONYMOUS else f"{way}_growth"
            self.assertAlmostEqual(row[kind], row["growth"], delta=APART, msg=row)

    def test_lines_add_up_to_the_resident_memory(self):
        for one in self.recorded():
            for row in one.sweep.rows:
                self.check_reading(row)
        for _, way, row in self.ways(("file", "shmem")):
            apart = row["file_growth"] + row["shmem_growth"]
            self.assertAlmostEqual(row["shared_growth"], apart, delta=APART, msg=row)
        for _, way, row in self.ways(IN_HEAP):
            terms, total = test_growth.account("RSS " + row["account"])
            # Three digits are shown of each.
            self.assertAlmostEqual(sum(terms.values()), total, delta=0.01 * total + 4096)

    def test_heaps_are_named_by_their_sites(self):
        for one, way, row in self.ways(IN_HEAP):
            self.assertTrue(row["zoomed"], row)
            self.assertEqual(row["top_site"]["function"], f"site_{way}", row)
            self.assertEqual(os.path.basename(row["top_site"]["file"]), "plant.c", row)
            self.assertGreater(row["top_site"]["share"], 0.9, row)
            self.assertGreater(row["top_site"]["line"], 0, row)
            self.assertRegex(row["top_site"]["callers"], CALLERS, row)

    def test_growth_is_named_by_where_it_is_touched(self):
        for _, way, row in self.ways(GROWERS):
            if way == "slow" and not row["growth_profile"]:
                # On a busy machine one fault in thousands is sampled, and it has some hundred.
                continue
            self.assertTrue(row["growth_site"], row)
            self.assertEqual(row["growth_site"]["function"], f"site_{way}", row)
            self.assertEqual(os.path.basename(row["growth_site"]["file"]), "plant.c", row)
            self.assertGreater(row["growth_site"]["share"], 0.7, row)
            if way in IN_HEAP:
                self.assertRegex(row["growth_site"]["callers"], CALLERS, row)
            else:
                self.assertRegex(row["verdict"]["text"], rf"\d\d % of the sampled new pages come from site_{way}$", row)

    def test_sampled_growth_is_near_the_truth(self):
        # On a busy machine few faults are sampled, two dozen of a plant's.
        for one, way, row in self.ways(("heap", "mmap", "shmem", "stack")):
            growth = one.growths[way]
            self.assertEqual(growth.sample_types, [("growth_space", "bytes")])
            total = sum(sample.values[0] for sample in growth.samples)
            low, high = one.sweep.truth(one.plants[way], "grown")
            self.assertGreater(total, low / 2.5, row)
            self.assertLess(total, high * 2.5, row)

    def test_nobody_is_named_for_another(self):
        for one in self.recorded():
            for way, found in one.sites.items():
                self.assertLessEqual(found, {f"site_{way}"}, one.rows[way])

    def test_live_bytes_are_within_their_interval_of_the_truth(self):
        # An interval of 95 %, twice as wide here: who looks at many sees one miss by 2 deviations, not by 4.
        for one, way, row in self.ways(IN_HEAP):
            heap, live = one.heaps[way], row["live_bytes"]
            start, end = heap.time_nanos, heap.time_nanos + heap.duration_nanos
            low, high = one.plants[way].between(start, end, "allocated")
            self.assertLess(live["low"], live["high"])
            self.assertLessEqual(live["value"] - 2 * (live["value"] - live["low"]), high, row)
            self.assertGreaterEqual(live["value"] + 2 * (live["high"] - live["value"]), low, row)

    def test_the_ledger_adds_up(self):
        for one in self.recorded():
            for row in one.sweep.rows:
                ledger = row["ledger"]
                self.assertEqual(ledger is None, row["account"] is None, row)
                if ledger is None:
                    continue
                terms = ("rss_start", "stacks", "file", "shmem", "not_explained")
                found = sum(ledger[term] for term in terms) - ledger["swapped_out"] + ledger["live"]["value"]
                found += (ledger["direct_mappings"] or {"value": 0})["value"]
                self.assertEqual(found, ledger["rss_end"], row)
        for _, way, row in self.ways((*IN_HEAP, "mmap")):
            self.assertIsNotNone(row["ledger"], row)
            self.assertEqual(row["ledger"]["direct_mappings_lost"], 0, row)

    def test_direct_mappings_are_within_their_interval_of_the_truth(self):
        for one, _, row in self.ways(["mmap"]):
            profile, direct = one.heaps["mmap"], row["ledger"]["direct_mappings"]
            start, end = profile.time_nanos, profile.time_nanos + profile.duration_nanos
            low, high = one.plants["mmap"].between(start, end)
            self.assertGreater(low, 4 << 20)
            self.assertLess(direct["low"], direct["high"])
            self.assertLessEqual(direct["value"] - 2 * (direct["value"] - direct["low"]), high, row)
            self.assertGreaterEqual(direct["value"] + 2 * (direct["high"] - direct["value"]), low, row)
        for _, _, row in self.ways(IN_HEAP):
            self.assertEqual(row["ledger"]["direct_mappings"]["value"], 0, row)

    def test_a_storm_is_counted(self):
        for one in self.recorded():
            low, _ = one.sweep.truth(one.plants["storm"], "children")
            counts = one.sweep.counts
            self.assertGreaterEqual(counts["short_lived"] + counts["ended"], low, counts)

    def test_a_storm_is_named(self):
        for one in self.recorded():
            found = {(name["comm"], name["parent"]): name["count"] for name in one.sweep.result["short_lived"]}
            low, high = one.sweep.truth(one.plants["storm"], "children")
            # One in eight executes its program anew, as /proc/self/exe.
            self.assertGreater(found[("plant-storm", "plant-storm")], 0.8 * low)
            self.assertLessEqual(sum(count for (_, parent), count in found.items() if parent == "plant-storm"), high)

    def test_memory_is_bounded(self):
        for one in self.recorded():
            zoomed = {row["comm"] for row in one.sweep.rows if row["zoomed"]}
            others = zoomed - {row["comm"] for row in one.rows.values()}
            if others:
                # What the names of compilers and the like cost is no matter of the host.
                self.skipTest(f"others of the machine have grown: {', '.join(sorted(others))}")
            self.assertLess(one.sweep.peak, MEMORY_LIMIT)

    def test_the_start_is_told(self):
        for one in self.recorded():
            self.assertLessEqual(one.sweep.before - SECOND, one.sweep.start())
            self.assertLessEqual(one.sweep.start(), one.sweep.after)
            self.assertAlmostEqual(one.sweep.result["duration_seconds"], SECONDS, delta=2)


def unified_hierarchy():
    """Where cgroups of version 2 are, or None."""
    for line in lib.read_text("/proc/mounts").splitlines():
        _, path, kind = line.split()[:3]
        if kind == "cgroup2":
            return path
    return None


class Group:
    """A cgroup of version 2."""

    def __init__(self, case):
        top = unified_hierarchy()
        if not top:
            case.skipTest("no cgroups of version 2")
        self.path = tempfile.mkdtemp(prefix="alloctrace-test.", dir=top)
        self.name = "/" + os.path.relpath(self.path, top)
        self.top = top
        case.addCleanup(self.remove)

    def take(self, pid, path=None):
        with open(f"{path or self.path}/cgroup.procs", "w") as file:
            file.write(str(pid))

    def remove(self):
        if not os.path.exists(self.path):
            return

        def is_removed():
            with contextlib.suppress(OSError):  # busy while the last process ends
                os.rmdir(self.path)
                return True
            return False

        for pid in lib.read_text(f"{self.path}/cgroup.procs").split():
            self.take(pid, self.top)
        lib.wait_for(is_removed, "the end of the cgroup")


def choose_next_pid(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))


CAN_CHOOSE = os.access("/proc/sys/kernel/ns_last_pid", os.W_OK)
ENOUGH = 6 << 20  # so much growth is zoomed on, and seen for a while
CROWD = 280  # more than those whose page faults are kept at one time


class Hazards(SweepCase):
    """Processes that are not who they were: nothing is said of one that another has done."""

    def sweep(self, work, until, *options):
        return Sweep(self, "-d", "600s", *TOP, *options).run(work, until)

    def grown(self, plant, least=ENOUGH):
        return plant.ask().grown >= least

    def check_only(self, row, site):
        """It has no site but that one."""
        self.assertLessEqual(sites(row), {site}, row)

    def start_as(self, pid, way):
        """A plant with that id, or None: somebody else has been faster, and has it."""
        while not lib.alive(pid):
            choose_next_pid(pid)
            plant = self.plant(way)
            if plant.pid == pid:
                return plant
            plant.kill()
        return None

    def use_pid_again(self):
        """(a sweep, the first process with an id, the next one); None where somebody else has it."""
        first, second = self.plant("heap", 4 << 20), []

        def start_again(_):
            if not second and self.grown(first, 4 * ENOUGH):
                first.kill()
                second.append(self.start_as(first.pid, "mmap"))

        sweep = self.sweep(start_again, lambda: second and (not second[0] or self.grown(second[0])))
        return (sweep, first, second[0]) if second[0] else None

    @unittest.skipUnless(CAN_CHOOSE, "no choice of process ids")
    def test_pid_that_is_used_again(self):
        found = next(filter(None, (self.use_pid_again() for _ in range(3))), None)
        if not found:
            self.skipTest("other processes were faster")
        sweep, first, second = found
        rows = {row["comm"]: row for row in sweep.rows_of(first.pid)}
        self.assertEqual(sorted(rows), ["plant-heap", "plant-mmap"])
        heap, mapped = rows["plant-heap"], rows["plant-mmap"]
        self.assertTrue(heap["ended"])
        self.assertFalse(mapped["ended"])
        self.check_only(heap, "site_heap")
        self.check_only(mapped, "site_mmap")
        self.assertTrue(heap["top_site"], f"{heap}\n{sweep.tracer.stderr}")
        self.assertEqual(heap["top_site"]["function"], "site_heap", heap)
        self.assertLessEqual(heap["growth"], first.readings[-1].grown * 1.05 + SLACK)
        self.assertLessEqual(mapped["growth"], second.ask().grown + SLACK)
        self.assertGreaterEqual(mapped["growth"], ENOUGH - (2 << 20))

    def test_those_that_have_ended_leave_room_for_others(self):
        crowd, late = [], []

        def come_and_go(_):
            if not crowd:
                crowd.extend(self.plant("mmap") for _ in range(CROWD))
            elif not late and self.grown(crowd[-1]):
                for plant in crowd:
                    plant.kill()
                late.append(self.plant("mmap"))

        sweep = Sweep(self, "-d", "600s", "--top-processes", "1")
        sweep.run(come_and_go, lambda: late and self.grown(late[0]))
        row = sweep.row(late[0].pid)
        self.assertEqual((row["growth_site"] or {}).get("function"), "site_mmap", row)
        self.assertEqual(row["zoomed_after_seconds"] is not None, row["zoomed"], row)

    def test_who_is_not_traced_has_the_reason(self):
        fast, slow = self.plant("heap", 8 << 20), self.plant("heap", 1 << 20)
        sweep = Sweep(self, "-d", "600s", "--top-processes", "1", "--comm", "plant-heap")
        sweep.run(lambda _: None, lambda: self.grown(slow))
        self.assertEqual((sweep.row(fast.pid)["zoomed"], sweep.row(fast.pid)["reason"]), (True, None))
        row = sweep.row(slow.pid)
        self.assertEqual((row["zoomed"], row["reason"]), (False, "others have grown by more (--top-processes)"))
        self.assertEqual(row["growth_site"]["function"], "site_heap", row)

    def test_process_that_executes_another_program(self):
        heap = self.path("plant-heap")
        os.symlink(os.path.join(lib.TARGETS, "plant"), heap)
        plant = self.plant("become", heap)
        changed = []

        def change(_):
            if not changed and self.grown(plant):
                plant.signal(signal.SIGUSR2)
                self.assertEqual(plant.next_line(), f"ready {plant.pid}")
                changed.append(True)

        sweep = self.sweep(change, lambda: changed and self.grown(plant), "-s", "64KiB")
        rows = {row["comm"]: row for row in sweep.rows_of(plant.pid)}
        self.assertIn("plant-heap", rows)
        self.assertTrue(rows["plant-heap"]["zoomed"], rows)
        # A MiB a second, before and after. It was traced for twice as long as it has been what it is.
        rate = rows["plant-heap"]["alloc_bytes_per_second"] / (1 << 20)
        self.assertTrue(0.7 < rate < 1.4, rows)
        self.assertLessEqual(set(rows), {"plant-become", "plant-heap"})
        self.check_only(rows["plant-heap"], "site_heap")
        self.assertLessEqual(rows["plant-heap"]["growth"], plant.ask().grown * 1.05 + SLACK)
        if "plant-become" in rows:
            self.check_only(rows["plant-become"], "site_become")

    @unittest.skipUnless(CAN_CHOOSE, "no choice of process ids")
    def test_process_in_another_pid_namespace(self):
        """Its id there is that of an innocent here."""
        innocent = self.target("sleeper")
        os.symlink(os.path.join(lib.TARGETS, "plant"), self.path("plant-heap"))
        script = 'echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid && { "$2" & wait; }'
        inside = lib.Process(
            ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", str(innocent.pid),
             self.path("plant-heap")], self.folder,
        )  # fmt: skip
        self.addCleanup(inside.kill)
        inside.wait_until(lambda: f"ready {innocent.pid}\n" in inside.stdout, "the plant")
        shell = host.children(inside.pid)[0]
        plant = host.children(shell)[0]
        self.assertRegex(lib.read_text(f"/proc/{plant}/status"), rf"(?m)^NSpid:\s+{plant}\s+{innocent.pid}$")
        before = memory(plant)["VmRSS"]
        sweep = self.sweep(lambda _: None, lambda: memory(plant)["VmRSS"] - before >= 2 * ENOUGH)
        row = sweep.row(plant)
        self.assertEqual((row["comm"], row["verdict"]["kind"]), ("plant-heap", "steady"), row)
        self.assertEqual(row["top_site"]["function"], "site_heap", row)
        other = sweep.row(innocent.pid)
        self.assertEqual((other["comm"], other["zoomed"], other["verdict"]["kind"]), ("sleeper", False, "flat"), other)
        self.assertEqual(functions(other), set())

    def test_cgroup_that_goes_away(self):
        group = Group(self)
        mover, stayer = self.plant("heap"), self.plant("mmap")
        group.take(mover.pid)
        group.take(stayer.pid)
        gone = []

        def remove(_):
            if not gone and self.grown(mover) and self.grown(stayer):
                group.take(mover.pid, group.top)
                stayer.kill()
                group.remove()
                gone.append(mover.ask().grown)

        sweep = self.sweep(remove, lambda: gone and self.grown(mover, gone[0] + (2 << 20)))
        row, ended = sweep.row(mover.pid), sweep.row(stayer.pid)
        self.assertEqual((row["ended"], ended["ended"]), (False, True))
        self.assertEqual(row["top_site"]["function"], "site_heap", row)
        self.check_only(ended, "site_mmap")
        self.assertEqual(ended["cgroup"], group.name)
        self.assertIn(row["cgroup"], (group.name, "/"))

    def test_ten_thousand_processes_that_end_at_once(self):
        storm, grower = self.plant("storm", 1000), self.plant("heap")
        first = storm.ask().children
        sweep = self.sweep(lambda _: None, lambda: storm.ask().children - first > 1.1 * CHILDREN)
        counts = sweep.counts
        self.assertGreaterEqual(counts["short_lived"] + counts["ended"], CHILDREN, counts)
        self.assertLess(sweep.peak, MEMORY_LIMIT)
        self.assertEqual(sweep.row(grower.pid)["top_site"]["function"], "site_heap")
        for row in sweep.rows:
            if row["comm"] == "plant-storm":
                self.check_only(row, "site_storm")
            elif row["comm"] != "plant-heap":
                self.assertEqual(sites(row), set(), row)


class Narrowed(SweepCase):
    """--comm, --uid, --cgroup: nobody else is looked at."""

    def sweep(self, *options):
        return Sweep(self, "-d", "2s", *options).run(lambda _: None)

    def test_comm(self):
        plant, other = self.plant("heap"), self.plant("slow")
        sweep = self.sweep("--comm", "plant-heap")
        self.assertEqual({row["comm"] for row in sweep.rows}, {"plant-heap"})
        self.assertIn(plant.pid, [row["pid"] for row in sweep.rows])
        self.assertNotIn(other.pid, [row["pid"] for row in sweep.rows])

    def test_uid(self):
        os.chmod(self.folder, 0o755)
        plant, other = self.plant("heap", user=4242, group=4242), self.plant("slow")
        sweep = self.sweep("--uid", "4242")
        self.assertEqual([(row["pid"], row["uid"]) for row in sweep.rows], [(plant.pid, 4242)])
        self.assertNotIn(other.pid, [row["pid"] for row in sweep.rows])

    def test_cgroup(self):
        group = Group(self)
        plant, other = self.plant("heap"), self.plant("slow")
        group.take(plant.pid)
        sweep = self.sweep("--cgroup", group.name)
        self.assertEqual([(row["pid"], row["cgroup"]) for row in sweep.rows], [(plant.pid, group.name)])
        self.assertNotIn(other.pid, [row["pid"] for row in sweep.rows])

    def test_cgroup_that_goes_away(self):
        group = Group(self)
        plant = self.plant("heap")
        group.take(plant.pid)
        removed = []

        def remove(passed):
            if not removed and plant.ask().grown > 1 << 20:
                plant.kill()
                group.remove()
                removed.append(passed)

        sweep = Sweep(self, "-d", "5s", "--cgroup", group.name).run(remove)
        self.assertTrue(removed)
        self.assertEqual([(row["pid"], row["ended"]) for row in sweep.rows], [(plant.pid, True)])


if __name__ == "__main__":
    unittest.main()
