"""Threads and children that come and go: the counts stay right, or the loss has a name."""

import contextlib
import glob
import os
import re
import subprocess
import unittest

from lib import KINDS, OK, Case, Profile, parse_books, read_text, wait_for

ABANDONED = "call left by a jump, never returned"
IN_FLIGHT = "call not finished at the end"


class Processes(Case):
    def spawn(self, kind, *arguments):
        """(profile, books, how many thread ids were reused)"""
        target = self.target("spawner", *arguments)

        def work():
            target.say()
            reused = int(re.match(r"reused (\d+)$", target.next_line("its report")).group(1))
            return parse_books(target.next_line("the books")), reused

        profile, (books, reused), _ = self.record(target, "-s", "1", "--attach", kind, work=work)
        target.say()
        self.assertEqual(target.wait(), 0, target.describe())
        self.assert_books_balance(profile)
        return profile, books, reused

    def assert_only_thread_starts_are_unnamed(self, profile):
        for frames in profile.unnamed():
            names = [frame.name for frame in frames]
            self.assertTrue([name for name in names if "pthread_create" in name], names)

    def test_threads_that_start_children_and_end_are_exact(self):
        for kind in KINDS:
            with self.subTest(kind):
                profile, books, _ = self.spawn(kind, "come-and-go", "60")
                self.assertEqual(books["thread"][0], 60 * 4 * 20)
                self.assert_books(profile, books)
                self.assert_nothing_lost(profile)
                self.assert_only_thread_starts_are_unnamed(profile)

    def test_threads_that_end_inside_malloc_are_counted_as_lost(self):
        for kind in KINDS:
            with self.subTest(kind):
                profile, books, reused = self.spawn(kind, "end-inside", "200")
                if os.access("/proc/sys/kernel/ns_last_pid", os.W_OK):
                    self.assertGreater(reused, 0, "no thread id was used again")
                self.assert_books(profile, books)
                losses = {name: count for name, count in profile.losses().items() if count}
                # A call is found to be abandoned when another one of that thread id takes its place.
                abandoned = losses.pop(ABANDONED, 0)
                self.assertGreaterEqual(abandoned, reused)
                self.assertEqual(abandoned + losses.pop(IN_FLIGHT, 0), 200)
                self.assertEqual(losses, {})
                self.assert_only_thread_starts_are_unnamed(profile)

    def test_what_a_vforked_child_frees_is_noticed_when_the_address_comes_again(self):
        # Its memory is its parent's, its process is not, and the kernel's filter goes by that. Such a
        # child may only execute or exit, by the standard; what it allocates is not seen.
        for kind in KINDS:
            with self.subTest(kind):
                profile, books, _ = self.spawn(kind, "vfork", "100")
                recorded, truth = profile.sites()["parent"], books["parent"]
                self.assertEqual(recorded[:2], truth[:2])
                noticed = profile.counter("blocks seen again without their free")
                self.assertGreater(noticed, 90)
                self.assertEqual(recorded[2] - truth[2] + noticed, 100)
                self.assertNotIn("vforked", profile.sites())
                self.assert_nothing_lost(profile)

    def probe_links(self, tracer):
        """How many links to probes a tracer holds."""
        count = 0
        for path in glob.glob(f"/proc/{tracer.pid}/fdinfo/*"):
            with contextlib.suppress(OSError):
                kind = re.search(r"link_type:\s+(\S+)", read_text(path))
                count += bool(kind) and kind.group(1) != "raw_tracepoint"
        return count

    def test_links_of_processes_that_ended_are_closed_while_others_are_recorded(self):
        for kind in KINDS:
            with self.subTest(kind):
                targets = [self.target("sleeper") for _ in range(3)]
                pids = ",".join(str(target.pid) for target in targets)
                tracer = self.tracer("-v", "-p", pids, "--attach", kind, "-o", self.path("%p.pb.gz"))
                tracer.wait_recording()
                before = self.probe_links(tracer)
                self.assertGreaterEqual(before, 3 * 2)
                for target in targets[:2]:
                    target.process.stdin.close()
                wait_for(lambda: self.probe_links(tracer) == before / 3, "the links of two processes to be closed")
                self.assertEqual(tracer.stop(), OK, tracer.describe())

    def start_with_id(self, pid, command):
        """Runs a command as a process of that id, which must be free."""
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        process = subprocess.Popen(command)
        process.wait()
        return process.pid == pid

    @unittest.skipUnless(os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), "no choice of process ids")
    def test_process_that_gets_the_id_of_one_that_ended_changes_nothing(self):
        first, other = self.target("exits_soon"), self.target("sleeper")
        tracer = self.tracer("-v", "-p", f"{first.pid},{other.pid}", "-s", "1", "-o", self.path("%p.pb.gz"))
        tracer.wait_recording()
        first.say()
        first.wait()
        tracer.wait_until(lambda: f"process {first.pid}: ended\n" in tracer.stderr, "the end of the first")
        wait_for(lambda: self.start_with_id(first.pid, ["/bin/true"]), "the same id again")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        profile = Profile.read(self.path(f"{first.pid}.pb.gz"))
        self.assertEqual(profile.sites()["last_words"], (100, 100000, 60, 60000))
        self.assert_nothing_lost(profile)


if __name__ == "__main__":
    unittest.main()
