"""A target comes to no harm: not from 200 recordings, and not from a tracer that is killed."""

import os
import re
import signal
import unittest

from lib import (
    OK,
    TARGETS,
    Case,
    Leftovers,
    alive,
    bpftool,
    changed_code,
    held_in_kernel,
    read_text,
    wait_for,
)

ROUNDS = 200
KILL_ONE_IN = 8

TRACEFS = "/sys/kernel/tracing"


class Unharmed(Case):
    limit = 420

    def churn(self, threads):
        # It takes every CPU there is, but lets the tracer and the test go first.
        return self.target("churn", threads, preexec_fn=lambda: os.nice(10))

    def assert_nothing_left(self, target, leftovers):
        wait_for(lambda: not leftovers.find(), f"links and programs to go: {leftovers.find()}")
        # The breakpoints go a moment after the links.
        wait_for(lambda: not changed_code(target.pid), "the code to be what the files say")
        for name in ("uprobe_events", "uprobe_profile"):
            if os.path.exists(f"{TRACEFS}/{name}"):
                self.assertNotIn("alloctrace", read_text(f"{TRACEFS}/{name}"))

    def assert_going_strong(self, target):
        before = target.ask_count("ops")
        wait_for(lambda: target.ask_count("ops") > before + 1000, "the target to make progress")
        target.signal(signal.SIGTERM)
        # It compares every byte of every block with what it wrote there.
        self.assertEqual(target.wait(), 0, target.describe())
        self.assertEqual(target.stderr, "")

    def test_two_hundred_recordings_leave_no_trace(self):
        leftovers = Leftovers()
        target = self.churn(4)
        killed = finished = 0
        for i in range(ROUNDS):
            output = self.path(f"{i}.pb.gz")
            tracer = self.tracer("-v", "-p", target.pid, "-d", "20ms", "-o", output)
            if i % KILL_ONE_IN == 0:
                self.kill_somewhere(tracer, i // KILL_ONE_IN)
                killed += 1
            else:
                self.assertEqual(tracer.wait(), OK, tracer.describe())
                self.assertGreater(os.path.getsize(output), 0)
                finished += 1
            self.assertTrue(alive(target.pid), target.describe())
            tracer.kill()
        self.assertEqual((killed, finished), (25, 175))
        self.assert_nothing_left(target, leftovers)
        self.assert_going_strong(target)

    def kill_somewhere(self, tracer, step):
        """SIGKILL while it loads, while it attaches, while it records, while it leaves."""
        if step % 3 == 0:
            tracer.wait_recording()
        elif step % 3 == 1:
            # It has opened its first BPF object: it is about to load or to attach.
            def has_bpf():
                try:
                    files = os.listdir(f"/proc/{tracer.pid}/fd")
                    links = [os.readlink(f"/proc/{tracer.pid}/fd/{fd}") for fd in files]
                except OSError:
                    return True
                return any(re.search("bpf", link) for link in links)

            wait_for(lambda: tracer.ended or has_bpf(), "its first BPF object")
        else:
            wait_for(lambda: tracer.ended or "recording" in tracer.stderr, "the recording")
        tracer.signal(signal.SIGKILL)
        tracer.wait()

    def test_killed_tracer_leaves_the_target_running_and_no_probe(self):
        leftovers = Leftovers()
        target = self.churn(2)
        self.assertEqual(changed_code(target.pid), [])
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-d", "600s")
        tracer.wait_recording()
        # The proof proves something: while it runs, there is something to be seen.
        self.assertNotEqual(changed_code(target.pid), [])
        held = held_in_kernel()
        mine = {(what, entry["id"]) for what in ("link", "prog") for entry in bpftool(what)} - leftovers.before
        self.assertTrue(mine & held)
        tracer.signal(signal.SIGKILL)
        tracer.wait()
        self.assert_nothing_left(target, leftovers)
        self.assert_going_strong(target)

    def test_killed_tracer_leaves_no_half_written_file(self):
        target = self.churn(1)
        tracer = self.tracer("-v", "-p", target.pid, "-d", "600s", "-o", self.path("p.pb.gz"))
        tracer.wait_recording()
        tracer.signal(signal.SIGKILL)
        tracer.wait()
        left = [name for name in os.listdir(self.folder) if not name.startswith("std")]
        self.assertEqual(left, [])
        self.assert_going_strong(target)

    def test_killed_tracer_of_a_command_leaves_the_command_running(self):
        tracer = self.tracer("-v", "-d", "600s", "--", f"{TARGETS}/churn", "2")
        tracer.wait_recording()
        line = tracer.wait_until(
            lambda: re.search(r"^ready (\d+)$", tracer.stdout, re.MULTILINE), "the command"
        )
        pid = int(line.group(1))
        self.addCleanup(lambda: alive(pid) and os.kill(pid, signal.SIGKILL))
        tracer.signal(signal.SIGKILL)
        tracer.wait()
        self.assertTrue(alive(pid))
        wait_for(lambda: not changed_code(pid), "the code to be what the files say")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid), "the command to end")
        self.assertRegex(tracer.stdout, r"(?m)^ops \d+$")

    def test_every_kind_of_probe_leaves_the_code_as_it_was(self):
        for kind in ("session", "multi", "perf"):
            with self.subTest(kind):
                leftovers = Leftovers()
                target = self.churn(2)
                tracer = self.tracer(
                    "-v", "-p", target.pid, "-d", "600s", "--attach", kind, "-o", self.path(f"{kind}.pb.gz")
                )
                try:
                    tracer.wait_recording()
                except AssertionError:
                    if "kernel" in tracer.stderr and tracer.ended:
                        continue  # lacks this kind; test_kinds tells
                    raise
                self.assertEqual(tracer.stop(), OK, tracer.describe())
                self.assert_nothing_left(target, leftovers)
                self.assert_going_strong(target)


if __name__ == "__main__":
    unittest.main()
