"""Growth has the right site, kind and amount, from page faults alone: no probe is placed.

The target touches a known number of bytes in one way; what is estimated has to be within what samples allow (four
standard errors), and the function that did it has to be the stack's innermost one that has a site's name.
"""

import os
import unittest

from lib import ROOT, TARGETS, Case, Process, Profile

DUMP = os.path.join(TARGETS, "..", "growth_dump")
MIB = 1 << 20
PAGE = 4096
THREAD_STACK = 40 * MIB


class Growths:
    """What growth_dump printed of one process."""

    def __init__(self, text, pid):
        self.bytes = self.low = self.high = 0
        self.sites = []  # (bytes, low, high, hits, kind, [names])
        self.ends = {}
        for line in text.splitlines():
            words = line.split(" ")
            if words[1:2] != [str(pid)]:
                continue
            if words[0] == "process":
                self.bytes, self.low, self.high, self.faulted = (int(word) for word in words[2:6])
            elif words[0] == "growth":
                names = " ".join(words[7:]).split("<")
                self.sites.append((*(int(word) for word in words[2:6]), words[6], names))
            elif words[0] == "end":
                self.ends[" ".join(words[3:])] = int(words[2])

    def by(self, site, kind):
        """(bytes, least standard error, names of the stacks) of all that a function has made it grow by."""
        found = [part for part in self.sites if part[4] == kind and site in part[5]]
        error = sum(((part[2] - part[1]) / 3.92) ** 2 for part in found) ** 0.5
        return sum(part[0] for part in found), error, [part[5] for part in found]


class Touching(Case):
    program = "toucher"
    heap = "heap"  # what kind of memory malloc() hands out
    inner = ("malloc",)  # a name within malloc(); and within memset()
    memset = ("__memset", "memset")
    complete = True

    def load_by_pages(self, path):
        """Has a file in memory, in pages by themselves: of large blocks one fault brings hundreds."""
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            while file.read(PAGE):
                pass

    def prepare(self, target):
        """Before its faults are sampled."""

    def touch(self, way, size, *options):
        path = self.path("touched.file")
        with open(path, "wb") as file:
            file.truncate(64 * MIB)
            if way == "file_read":
                self.load_by_pages(path)
        target = self.target(self.program, path)
        self.prepare(target)
        dump = Process([DUMP, *options, str(target.pid)], self.folder)
        self.addCleanup(dump.kill)
        dump.wait_until(lambda: "ready" in dump.stdout, "its start")
        target.say(f"{way} {size}")
        self.assertEqual(target.next_line("the end of it", limit=60), f"touched {size}")
        dump.process.stdin.write(b"\n")
        dump.process.stdin.flush()
        self.assertEqual(dump.wait(), 0, dump.describe())
        self.growths = Growths(dump.stdout, target.pid)
        self.text = dump.stdout
        return self.growths

    def assert_grown(self, way, site, kind, size=48 * MIB, slack=256 << 10):
        growths = self.touch(way, size)
        grown, error, stacks = growths.by(site, kind)
        self.assertGreater(grown, 0, self.text)
        self.assertLess(abs(grown - size), 4 * error + slack, f"{grown} of {size}, standard error {error:.0f}\n{self.text}")
        self.assertLess(error, size, self.text)
        # Nothing else grows, but for what starts up.
        self.assertLess(growths.bytes - grown, 4 * error + MIB, self.text)
        return stacks

    def assert_complete(self, stacks, *callers):
        """The stacks go all the way, and the callers are on it in this order."""
        for names in stacks:
            if self.complete:
                self.assertNotEqual(names[-1], "...", self.text)
            places = [names.index(caller) for caller in callers]
            self.assertEqual(places, sorted(places), names)

    def check_heap(self):
        self.assert_complete(self.assert_grown("heap", "site_heap", self.heap), *self.inner, "site_heap", "main")


class PageGrowth(Touching):
    def test_heap(self):
        self.check_heap()

    def test_what_a_library_touches_without_a_frame(self):
        stacks = self.assert_grown("mapped", "site_mapped", "anonymous")
        self.assert_complete(stacks, "site_mapped", "main")
        for names in stacks:
            self.assertTrue(names[0].startswith(self.memset), names)

    def test_what_a_loop_touches(self):
        stacks = self.assert_grown("loop", "site_loop", "anonymous")
        self.assert_complete(stacks, "site_loop", "main")
        for names in stacks:
            self.assertEqual(names[0], "site_loop")

    def test_what_the_kernel_touches(self):
        self.assert_complete(self.assert_grown("system_call", "site_system_call", "anonymous"), "site_system_call", "main")

    def test_file_that_is_written(self):
        self.assert_complete(self.assert_grown("file", "site_file", "file"), "site_file", "main")

    def test_file_that_is_read(self):
        # One fault brings 16 pages: fewer hits.
        self.assert_complete(self.assert_grown("file_read", "site_file_read", "file", 768 * MIB), "site_file_read", "main")

    def test_shared_memory(self):
        self.assert_complete(self.assert_grown("shared", "site_shared", "shared"), "site_shared", "main")

    def test_stack_of_a_thread(self):
        stacks = self.assert_grown("stack", "site_stack", "stack", THREAD_STACK)
        for names in stacks:
            self.assertEqual(names[0], "site_stack")

    def test_churn_is_no_growth(self):
        growths = self.touch("churn", 48 * MIB)
        self.assertGreater(growths.faulted, 24 * MIB, self.text)
        self.assertLess(growths.bytes, MIB, self.text)

    def test_memory_that_was_only_read_is_no_growth(self):
        growths = self.touch("zeros", 48 * MIB)
        self.assertGreater(growths.faulted, 24 * MIB, self.text)
        self.assertLess(growths.bytes, MIB, self.text)

    def test_huge_pages(self):
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            if "[never]" in file.read():
                self.skipTest("there are no huge pages on this system")
        # 512 pages for one fault: in some runs there is no hit at all, and a few say little of the amount. But
        # it is never more than what is there.
        size = 512 * MIB
        growths = self.touch("huge", size)
        grown, _, stacks = growths.by("site_mapped", "anonymous")
        self.assertLess(grown, size + 4 * MIB, self.text)
        self.assert_complete(stacks, "site_mapped", "main")


class PageGrowthWithReturnProbes(Touching):
    """Pages of a heap are touched in malloc, whose return address is the trampoline of a return probe."""

    def prepare(self, target):
        # The kernel awaits the return of every call where another process has a probe of the same function, too.
        others = [self.target(self.program, self.path("touched.file")) for _ in range(2)]
        pids = ",".join(str(process.pid) for process in (target, *others))
        tracer = self.tracer("-v", "-p", pids, "-d", "600s", "-o", self.path("%p.pb.gz"))
        tracer.wait_recording()

    def test_heap(self):
        self.check_heap()
        self.assertNotIn("return address replaced by a return probe", self.growths.ends, self.text)

    def test_heap_of_a_static_program(self):
        self.program = "toucher_static"
        self.check_heap()

    def test_heap_with_musl(self):
        self.program, self.heap, self.inner, self.complete = "toucher_musl", "anonymous", (), False
        self.check_heap()


class PageGrowthOfStaticProgram(PageGrowth):
    program = "toucher_static"


class PageGrowthWithMusl(PageGrowth):
    """Its library has neither unwind information nor frame pointers, nor names: what has called it is found."""

    program = "toucher_musl"
    heap = "anonymous"
    inner = ()
    memset = ("memset", "[libc.so+")
    complete = False


class PageGrowthOfStaticProgramWithMusl(PageGrowthWithMusl):
    program = "toucher_musl_static"
    inner = ("__libc_malloc_impl",)


if __name__ == "__main__":
    unittest.main()
