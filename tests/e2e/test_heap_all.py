"""alloctrace -a --heap-all: the heaps of all, by links that are in files; what is recorded of one is its own.

Such a link puts breakpoints into every process that maps its file. The targets here have a C library of their own,
a copy, and names that no other process has: so none gets any that these tests do not know of.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import unittest

import lib
from test_sweep import CAN_CHOOSE, SweepCase, changed_pages, choose_next_pid, sites

LIBC = f"/lib/{os.uname().machine}-linux-gnu/libc.so.6"
MANY = ("--top", "1000", "--top-processes", "64")  # all get a profile
MIB = 1 << 20
OWN = f"{os.getpid():x}"  # what all names begin with
ROOM = 2048  # processes in one window


def links(pid):
    """The program of each uprobe_multi link that a process holds."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(OSError):
            info = lib.read_text(f"/proc/{pid}/fdinfo/{name}")
            if re.search(r"^link_type:\s+uprobe_multi", info, re.M):
                found.append(int(re.search(r"^prog_id:\s+(\d+)", info, re.M).group(1)))
    return found


class HeapAllCase(SweepCase):
    def setUp(self):
        super().setUp()
        if "multi" not in lib.KINDS:
            self.skipTest("no uprobe_multi links")
        self.names = []
        self.libraries = self.copy_of_libc("lib")

    def copy_of_libc(self, name):
        folder = self.path(name)
        os.mkdir(folder)
        shutil.copy(LIBC, folder)
        return folder

    def environment(self, libraries=None, **more):
        return dict(os.environ, LD_LIBRARY_PATH=libraries or self.libraries, **more)

    def program(self, name, called, *arguments, env=None):
        """A program of tests/targets under another name, by which it is chosen."""
        called = f"{OWN}-{called}"
        path = self.path(called)
        if not os.path.exists(path):
            os.symlink(os.path.join(lib.TARGETS, name), path)
        if called not in self.names:
            self.names.append(called)
        target = lib.Target(
            called, *arguments, folder=self.folder, program_folder=self.folder, env=env or self.environment()
        )
        self.addCleanup(target.kill)
        return target

    def ledger(self, seed, env=None):
        return self.program("ledger", "ledger", "--threads", "3", "--rounds", "50", "--seed", seed, env=env)

    def plant(self, way, *arguments, **options):
        if f"{OWN}-{way}" not in self.names:
            self.names.append(f"{OWN}-{way}")
        return super().plant(way, *arguments, env=self.environment(), called=OWN, **options)

    def sweep(self, *options, names=None):
        """alloctrace, which has placed its probes."""
        only = [option for name in names or self.names for option in ("--comm", name)]
        tracer = self.tracer("-v", "-a", "--heap-all", "--json", "-o", self.folder + "/", *only, *options)
        tracer.wait_until(lambda: "alloctrace: sweeping\n" in tracer.stderr, "the sweep")
        return tracer

    def wait_joined(self, tracer, pid):
        said = rf"^alloctrace: process {pid}: grown by .*: probes placed$"
        tracer.wait_until(lambda: re.search(said, tracer.stderr, re.M), f"probes in {pid}")

    def rows(self, tracer):
        """Ends it: {pid: rows}."""
        self.assertEqual(tracer.stop(), lib.OK, tracer.describe())
        self.result = json.loads(tracer.stdout)
        found = {}
        for row in self.result["processes"]:
            found.setdefault(row["pid"], []).append(row)
        return found

    def row(self, rows, pid):
        self.assertEqual(len(rows.get(pid, [])), 1, rows.get(pid))
        return rows[pid][0]

    def assert_ledger(self, row, books):
        self.assertTrue(row["zoomed"], row)
        self.assert_exact(lib.Profile.read(row["profile"]), books)


class Heaps(HeapAllCase):
    def test_each_heap_is_its_own_to_the_unit(self):
        ledgers = [self.ledger(seed) for seed in (1, 2, 3)]
        other = self.program("ledger_rust", "other", "--threads", "2", "--rounds", "30")
        idle = self.program("sleeper", "idle")
        tracer = self.sweep("-s", "1", *MANY)
        for target in (*ledgers, other):  # all at once
            target.say()
        books = {target.pid: lib.parse_books(target.next_line("the books")) for target in (*ledgers, other)}
        rows = self.rows(tracer)
        for target in (*ledgers, other):
            row = self.row(rows, target.pid)
            self.assert_ledger(row, books[target.pid])
            self.assertEqual(row["zoomed_after_seconds"], 0)
        self.assertNotEqual(books[ledgers[0].pid], books[ledgers[1].pid])
        row = self.row(rows, idle.pid)
        self.assertTrue(row["zoomed"], row)
        self.assertEqual((row["live_bytes"]["value"], row["alloc_bytes_per_second"]), (0, 0))

    def test_figures_without_a_profile_are_the_same(self):
        ledgers = [self.ledger(seed) for seed in (1, 2)]
        tracer = self.sweep("-s", "1", "--top", "0", "--min-growth", "1TiB")
        books = {target.pid: target.work() for target in ledgers}
        rows = self.rows(tracer)
        for target in ledgers:
            row = self.row(rows, target.pid)
            allocated, live = (sum(site[at] for site in books[target.pid].values()) for at in (1, 3))
            self.assertIsNone(row["profile"])
            self.assertEqual(row["live_bytes"], {"value": live, "low": live, "high": live})
            self.assertLessEqual(allocated / row["alloc_bytes_per_second"], self.result["duration_seconds"] + 5)
            self.assertGreaterEqual(allocated / row["alloc_bytes_per_second"], self.result["duration_seconds"] - 1)

    def test_process_that_starts_in_the_window(self):
        first = self.ledger(1)
        tracer = self.sweep("-s", "1", *MANY)
        late = self.ledger(2)
        self.wait_joined(tracer, late.pid)
        books = {target.pid: target.work() for target in (first, late)}
        rows = self.rows(tracer)
        for target in (first, late):
            self.assert_ledger(self.row(rows, target.pid), books[target.pid])
        self.assertEqual(self.row(rows, first.pid)["zoomed_after_seconds"], 0)
        # It is read once a second, and has been three times.
        self.assertGreater(self.row(rows, late.pid)["zoomed_after_seconds"], 1.5)

    def test_image_that_is_first_seen_in_a_later_process(self):
        self.ledger(1)
        tracer = self.sweep("-s", "1", *MANY)
        self.assertEqual(len(links(tracer.pid)), len(set(links(tracer.pid))))
        before = len(links(tracer.pid))
        late = self.ledger(2, env=self.environment(self.copy_of_libc("other")))
        self.wait_joined(tracer, late.pid)
        self.assertEqual(len(links(tracer.pid)), 2 * before)
        books = late.work()
        self.assert_ledger(self.row(self.rows(tracer), late.pid), books)

    def test_children_of_a_storm_are_nobodys(self):
        storm, ledger = self.plant("storm", 1000), self.ledger(1)
        tracer = self.sweep("-s", "1", *MANY)
        first = storm.ask().children
        books = ledger.work()
        tracer.wait_until(lambda: storm.ask().children - first > 3000, "3000 children")
        rows = self.rows(tracer)
        self.assert_ledger(self.row(rows, ledger.pid), books)
        row = self.row(rows, storm.pid)
        self.assertTrue(row["zoomed"], row)
        # They allocate at site_storm, as does it not.
        self.assertEqual(sites(row), set(), row)
        others = {pid for pid, found in rows.items() if any(row["zoomed"] for row in found)}
        self.assertLess(len(others), 100)

    def test_process_that_executes_another_program(self):
        heap = self.path(f"{OWN}-heap")
        os.symlink(os.path.join(lib.TARGETS, "plant"), heap)
        plant = self.plant("become", heap)
        tracer = self.sweep("-s", "1", *MANY, names=[f"{OWN}-become", f"{OWN}-heap"])
        start = plant.ask().grown
        tracer.wait_until(lambda: plant.ask().grown > start + MIB, "growth")
        plant.signal(signal.SIGUSR2)
        self.assertEqual(plant.next_line(), f"ready {plant.pid}")
        tracer.wait_until(lambda: plant.ask().grown > 3 * MIB, "growth of the other program")
        low = plant.ask().allocated
        row = self.row(self.rows(tracer), plant.pid)
        self.assertEqual((row["comm"], sites(row)), (f"{OWN}-heap", {"site_heap"}))
        # From its first allocation on: the same C library carries the link already.
        self.assertGreaterEqual(row["live_bytes"]["value"], low)
        self.assertLessEqual(row["live_bytes"]["value"], plant.ask().allocated + MIB)

    def use_pid_again(self):
        """(alloctrace, a process, the next one with its id): while it does not look. None: somebody else has it."""
        first = self.plant("heap", 4 * MIB)
        tracer = self.sweep("-s", "1", *MANY, names=[f"{OWN}-heap", f"{OWN}-slow"])
        start = first.ask().grown
        tracer.wait_until(lambda: first.ask().grown > start + MIB, "growth")
        tracer.signal(signal.SIGSTOP)
        first.kill()
        choose_next_pid(first.pid)
        second = self.plant("slow")
        if second.pid == first.pid:
            second.wait_until(lambda: second.ask().allocated > 64 << 10, "growth")
        tracer.signal(signal.SIGCONT)
        if second.pid == first.pid:
            return tracer, first, second
        tracer.stop()
        second.kill()
        return None

    @unittest.skipUnless(CAN_CHOOSE, "no choice of process ids")
    def test_pid_that_is_used_again(self):
        found = next(filter(None, (self.use_pid_again() for _ in range(5))), None)
        if not found:
            self.skipTest("other processes were faster")
        tracer, first, second = found
        said = rf"^alloctrace: process {second.pid}: grown by .*: probes placed$"
        tracer.wait_until(lambda: len(re.findall(said, tracer.stderr, re.M)) == 2, "probes in the second one")
        joined = second.ask().allocated
        tracer.wait_until(lambda: second.ask().allocated > joined + (64 << 10), "growth")
        rows = {row["comm"]: row for row in self.rows(tracer)[first.pid]}
        self.assertEqual(sorted(rows), [f"{OWN}-heap", f"{OWN}-slow"])
        self.assertTrue(rows[f"{OWN}-heap"]["ended"])
        # None: at an address that was another's.
        for way in ("heap", "slow"):
            self.assertEqual(set(lib.Profile.read(rows[f"{OWN}-{way}"]["profile"]).sites()), {way})
        # What it allocated before it was joined is not known.
        self.assertLess(rows[f"{OWN}-slow"]["live_bytes"]["value"], second.ask().allocated - (64 << 10))

    def test_two_mounts_of_one_file_are_one(self):
        """What overlays show are two files; the breakpoints are in the one below."""
        merged = []
        for name in ("one", "two"):
            for part in (f"{name}", f"{name}.empty"):
                os.mkdir(self.path(part))
            options = f"lowerdir={self.libraries}:{self.path(name)}.empty"
            done = subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", self.path(name)], check=False)
            if done.returncode:
                self.skipTest("no overlays")
            self.addCleanup(subprocess.run, ["umount", "-l", self.path(name)], check=False)
            merged.append(self.path(name))
        ledgers = [self.ledger(seed, env=self.environment(path)) for seed, path in enumerate(merged, 1)]
        ledgers.append(self.ledger(3))
        tracer = self.sweep("-s", "1", *MANY)
        self.assertEqual(len(links(tracer.pid)), len(set(links(tracer.pid))))
        books = {target.pid: target.work() for target in ledgers}
        rows = self.rows(tracer)
        for target in ledgers:
            self.assert_ledger(self.row(rows, target.pid), books[target.pid])

    def test_other_kinds_of_links(self):
        target = self.ledger(1)
        tracer = self.sweep("-s", "1", "--attach", "multi", "--mmap", *MANY)
        books = target.work()
        row = self.row(self.rows(tracer), target.pid)
        self.assert_exact(lib.Profile.read(row["profile"]).only(None), books)


class Links(HeapAllCase):
    def count(self, processes):
        for _ in range(processes):
            self.program("sleeper", "idle")
        tracer = self.sweep()
        found = links(tracer.pid)
        self.rows(tracer)
        return found

    def test_a_file_has_one_link_of_each_program(self):
        few, many = self.count(2), self.count(20)
        # Those for what allocates and what maps, each with its return where there are no sessions; and the one that frees.
        kinds = 3 if "session" in lib.KINDS else 5
        self.assertEqual((len(few), len(set(few))), (kinds, kinds))
        self.assertEqual((len(many), len(set(many))), (kinds, kinds))

    def test_who_is_not_watched_has_breakpoints_and_nothing_else(self):
        ledger = self.ledger(1)
        other = self.program("ledger", "stranger", "--threads", "3", "--rounds", "50", "--seed", "2")
        tracer = self.sweep("-s", "1", *MANY, names=[f"{OWN}-ledger"])
        self.assertGreater(changed_pages(other.pid), 0)
        other.say()
        books = ledger.work()
        other.next_line("the books")
        rows = self.rows(tracer)
        self.assertEqual(list(rows), [ledger.pid])
        self.assert_ledger(self.row(rows, ledger.pid), books)
        self.assertFalse([at for at in self.int3s(other.pid) if at])

    def int3s(self, pid):
        """Bytes of the C library's code in a process that are not those of the file: none once the links are gone."""
        different = []
        for line in lib.read_text(f"/proc/{pid}/maps").splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xp ([0-9a-f]+) \S+ \d+ +(\S+/libc.so.6)$", line)
            if not found:
                continue
            start, end, offset = (int(found.group(n), 16) for n in (1, 2, 3))
            with open(f"/proc/{pid}/mem", "rb") as memory, open(found.group(4), "rb") as file:
                memory.seek(start)
                file.seek(offset)
                different.append(memory.read(end - start) != file.read(end - start))
        self.assertTrue(different)
        return different

    def test_what_may_throw_is_left_out_and_named(self):
        if not os.path.exists(lib.TCMALLOC):
            self.skipTest("no tcmalloc")
        copy = shutil.copy(lib.TCMALLOC, self.libraries)
        env = self.environment(LD_PRELOAD=copy)
        target = self.program("ledger", "tcmalloc", "--threads", "2", "--rounds", "20", env=env)
        watched, other = (self.program("throws", name, env=env) for name in ("throws", "stranger"))
        tracer = self.sweep("-s", "1", *MANY, names=[f"{OWN}-tcmalloc", f"{OWN}-throws"])
        for thrower in (watched, other):
            self.assertGreater(changed_pages(thrower.pid), 0)
            caught = thrower.ask_count("caught")
            thrower.wait_until(lambda: thrower.ask_count("caught") > caught + 100, "exceptions")  # noqa: B023
        books = target.work()
        profile = lib.Profile.read(self.row(self.rows(tracer), target.pid)["profile"])
        self.assertTrue([c for c in profile.comments if "may pass through it" in c], profile.comments)
        self.assertFalse([c for c in profile.comments if "(may throw)" in c], profile.comments)
        self.assertEqual(profile.sites().get("malloc"), books["malloc"][:4])

    def test_more_than_there_is_room_for_have_a_reason(self):
        command = [self.path(f"{OWN}-crowd"), "600"]
        shutil.copy("/bin/sleep", command[0])
        try:
            for _ in range(ROOM + 20):
                crowd = subprocess.Popen(command, env=self.environment(), stdin=subprocess.DEVNULL)
                self.addCleanup(crowd.wait)
                self.addCleanup(crowd.kill)
        except OSError as reason:
            self.skipTest(f"no room for so many processes: {reason}")
        tracer = self.sweep(names=[f"{OWN}-crowd"])
        rows = [row for found in self.rows(tracer).values() for row in found]
        self.assertEqual(len(rows), ROOM + 20)
        self.assertEqual(sum(row["zoomed"] for row in rows), ROOM)
        self.assertEqual(sum("no room" in (row["reason"] or "") for row in rows), 20)


    def test_more_than_descriptors_are_left_for_have_a_reason(self):
        """A process of which not all files could be opened might seem to have no allocator."""
        ledger = self.ledger(1)
        limits = ("--bounding-set", "-sys_resource", "prlimit", "--nofile=1050:1050", lib.ALLOCTRACE)
        tracer = self.tracer(
            *limits, "-v", "-a", "--heap-all", "--json", "-o", self.folder + "/", "--comm", f"{OWN}-ledger",
            program="setpriv",
        )  # fmt: skip
        tracer.wait_until(lambda: "alloctrace: sweeping\n" in tracer.stderr, "the sweep")
        row = self.row(self.rows(tracer), ledger.pid)
        self.assertFalse(row["zoomed"], row)
        self.assertIn("too many files", row["reason"])


class Refusals(lib.Case):
    def test_probes_that_are_each_for_one_process(self):
        result = self.run_tracer("-a", "--heap-all", "--attach", "perf", "-o", self.folder + "/", "-d", "1s")
        self.assertEqual(result.status, lib.KERNEL_TOO_OLD, result.text)
        self.assert_one_line(result)
        self.assertIn("--heap-all", result.stderr)

    def test_without_a_sweep(self):
        result = self.run_tracer("--heap-all", "-p", os.getpid())
        self.assertEqual(result.status, lib.USAGE, result.text)
        self.assert_one_line(result)

    def test_functions_of_which_nothing_is_known(self):
        for options in (("--symbol", "alloc:pool_get"), ("--allocator", "/lib/libpool.so:my_")):
            with self.subTest(options):
                result = self.run_tracer("-a", "--heap-all", *options)
                self.assertEqual(result.status, lib.USAGE, result.text)
                self.assert_one_line(result)


if __name__ == "__main__":
    unittest.main()
