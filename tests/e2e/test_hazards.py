"""Targets that jump, throw, fork and execute: they live, and what cannot be known is a named loss."""

import os
import re
import signal
import time
import unittest

from lib import (
    NOTHING_TO_RECORD,
    OK,
    TARGETS,
    UNITS,
    Case,
    changed_code,
    kernel_version,
    parse_books,
    read_text,
    wait_for,
)

ABANDONED = "call left by a jump, never returned"
IN_FLIGHT = "call not finished at the end"
NO_RETURN_PROBE = "no return probe left in the thread"
EXECUTED = "recorded before another program was executed"

KINDS = [
    kind
    for kind, since in (("session", (6, 13)), ("multi", (6, 10)), ("perf", (6, 1)))
    if kernel_version() >= since
]


def cpu_ticks(pid):
    """What a process has used, in user and system time."""
    fields = read_text(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Hazards(Case):
    def assert_ends_well(self, target):
        target.signal(signal.SIGTERM)
        self.assertEqual(target.wait(), 0, target.describe())

    def grows(self, target, word, by):
        """Lets the target run until its counter has grown."""
        first = target.ask_count(word)
        wait_for(lambda: target.ask_count(word) >= first + by, f"{word} to grow by {by}")

    def test_exceptions_pass_through_probed_calls(self):
        for kind in KINDS:
            with self.subTest(kind):
                target = self.target("throws")
                profile, _, _ = self.record(
                    target, "-s", "1", "--attach", kind, work=lambda: self.grows(target, "caught", 500)
                )
                self.assert_books_balance(profile)
                sites = profile.sites()
                self.assertGreaterEqual(sites["calm"][0], 500)
                self.assertLessEqual(sites["calm"][2], 1)
                # What is thrown is allocated too; what was asked for was not.
                thrown = sites["throw"][0] + sites["throw_array"][0]
                failed = profile.counter("sampled calls that allocated nothing")
                self.assertGreaterEqual(failed, 500)
                self.assertLessEqual(abs(thrown - failed), 1)
                self.assertLessEqual(sites["throw"][3] + sites["throw_array"][3], 1000)
                self.assert_ends_well(target)

    def test_calls_left_by_a_jump_are_counted_as_lost(self):
        for kind in KINDS:
            with self.subTest(kind):
                target = self.target("longjmp", "crash", "300")
                profile, books, _ = self.record(target, "-s", "1", "--attach", kind)
                self.assert_books_balance(profile)
                self.assert_books(profile, books)
                losses = profile.losses()
                self.assertEqual(losses[ABANDONED] + losses[IN_FLIGHT], 300, losses)
                self.assertEqual(sum(losses.values()), 300, losses)
                self.assertNotIn("wild", profile.sites())
                target.say()
                self.assertEqual(target.wait(), 0, target.describe())

    @unittest.skipUnless(os.uname().machine == "x86_64", "knows x86-64's malloc only")
    def test_jumps_out_of_signal_handlers_inside_malloc_do_no_harm(self):
        for kind in KINDS:
            with self.subTest(kind):
                target = self.target("longjmp", "timer")
                profile, _, _ = self.record(
                    target, "-s", "1", "--attach", kind, work=lambda: self.grows(target, "abandoned", 100)
                )
                self.assert_books_balance(profile)
                # A handler that is entered before the probe is hit leaves nothing to be lost.
                losses = profile.losses()
                self.assertEqual(
                    {name for name, count in losses.items() if count} - {ABANDONED, IN_FLIGHT}, set()
                )
                self.assertGreater(losses[ABANDONED], 0)
                interrupted = profile.sites()["interrupted"]
                self.assertLessEqual(interrupted[2], 1, interrupted)
                self.assert_ends_well(target)

    def check_recursion(self, kind, *arguments):
        """{reason: count} of what was lost; the books are exact without."""
        target = self.target("recurse", *arguments)
        profile, books, _ = self.record(target, "-s", "1", "--attach", kind)
        self.assert_books(profile, books)
        self.assertEqual(set(profile.sites()), set(books))
        self.assert_books_balance(profile)
        target.say()
        self.assertEqual(target.wait(), 0, target.describe())
        return {reason: count for reason, count in profile.losses().items() if count}

    def test_calls_nested_deeper_than_the_kernel_follows_are_counted_as_lost(self):
        for kind in KINDS:
            with self.subTest(kind):
                # Ten times a hundred, of which the kernel sees the return of 64.
                self.assertEqual(self.check_recursion(kind, "deep"), {NO_RETURN_PROBE: 360})

    def test_a_hundred_nested_calls_left_by_one_jump_are_counted_as_lost(self):
        for kind in KINDS:
            with self.subTest(kind):
                # The kernel keeps the 64 that will never return: all later calls of that thread are lost.
                # Those of another one are exact; what pthread_create allocates is the first one's.
                losses = self.check_recursion(kind, "jump")
                self.assertEqual(losses[ABANDONED] + losses[IN_FLIGHT], 64, losses)
                self.assertGreaterEqual(losses[NO_RETURN_PROBE], 36 + 100, losses)
                self.assertEqual(set(losses), {ABANDONED, IN_FLIGHT, NO_RETURN_PROBE})

    def test_return_of_an_inner_call_is_not_taken_for_one_that_was_left_by_a_jump(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.assertEqual(self.check_recursion(kind, "inner"), {ABANDONED: 512})

    def check_filtered(self, mode, when, *options):
        target = self.target("seccomp", mode, when)
        profile, books, _ = self.record(target, "-s", "1", *options)
        self.assert_books(profile, books)
        self.assert_books_balance(profile)
        self.assertEqual(sum(profile.losses().values()), 0, profile.losses())
        # It was filtered: what it is not allowed to do is refused still.
        target.say()
        ends = {"strict": -signal.SIGKILL, "kill": -signal.SIGSYS, "errno": 0}
        self.assertEqual(target.wait(), ends[mode], target.describe())

    def test_process_under_seccomp_lives(self):
        for mode in ("strict", "kill", "errno"):
            for when in ("before", "after"):
                with self.subTest(mode=mode, when=when):
                    self.check_filtered(mode, when)

    def test_process_under_seccomp_lives_with_each_kind_of_probe(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.check_filtered("kill", "after", "--attach", kind)

    def test_go_program_without_c_is_left_alone(self):
        # Some of its functions are called malloc and free: a return probe in them would end it.
        target = self.target("go_names")
        result = self.run_tracer("-p", target.pid, "-s", "1", "-d", "1s")
        self.assertEqual(result.status, NOTHING_TO_RECORD, result.text)
        self.assert_one_line(result)
        self.assertIn("is a Go program", result.stderr)
        self.assertEqual(changed_code(target.pid), [])
        target.say()
        self.assertEqual(target.next_line(), "done 4995000", target.describe())
        target.say()
        self.assertEqual(target.wait(), 0, target.describe())

    def test_go_names_are_not_probed_when_a_command_is_started(self):
        result = self.run_tracer("-s", "1", "--", f"{TARGETS}/go_names")
        self.assertEqual(result.status, NOTHING_TO_RECORD, result.text)
        self.assert_one_line(result)

    def test_c_code_of_a_go_program_is_recorded(self):
        for kind in KINDS:
            with self.subTest(kind):
                target = self.target("go_cgo")
                profile, books, result = self.record(target, "-s", "1", "--attach", kind)
                self.assert_books(profile, books)
                self.assert_books_balance(profile)
                self.assertEqual(sum(profile.losses().values()), 0, profile.losses())
                self.assertRegex(result.stdout, r"(?m)^WARNING +it is a Go program: ")
                target.say()
                self.assertEqual(target.wait(), 0, target.describe())

    def record_moved(self, program, *arguments):
        """A target that has moved its code, and uses more CPU time than an idle process."""
        target = self.target(program, *arguments)

        def work():
            books, before = target.work(), cpu_ticks(target.pid)
            wait_for(lambda: cpu_ticks(target.pid) > before + 20, "CPU time to be used")
            return books

        profile, books, result = self.record(target, "-s", "1", work=work)
        self.assert_books_balance(profile)
        target.say()
        self.assertEqual(target.wait(), 0, target.describe())
        return profile, books, result

    MOVED = r"(?m)^WARNING +(\S+) has been moved to anonymous memory, .*: (\d+) of its (\d+) probed functions"
    BUSY = r"(?m)^WARNING +it used .+ of CPU time, and not one call"

    def test_code_moved_to_anonymous_memory_is_named(self):
        profile, _, result = self.record_moved("moved_text_static", "before", "all")
        self.assertEqual(profile.totals(), (0, 0, 0, 0))
        path, moved, all_of_them = re.search(self.MOVED, result.stdout).groups()
        self.assertEqual(path, f"{TARGETS}/moved_text_static")
        self.assertEqual(moved, all_of_them)
        # An empty profile of a busy process is a warning, in the profile too.
        self.assertRegex(result.stdout, self.BUSY)
        self.assertTrue([c for c in profile.comments if "not one call" in c], profile.comments)
        self.assertIn("NOTHING RECORDED", result.stdout)

    def test_code_moved_in_part_is_named_with_what_is_missing(self):
        # The page with malloc stays where it was: calls are seen, and frees are not.
        profile, books, result = self.record_moved("moved_text_static", "before", "but")
        self.assertEqual(profile.sites()["moved"][:2], books["moved"][:2])
        _, moved, all_of_them = re.search(self.MOVED, result.stdout).groups()
        self.assertTrue(0 < int(moved) < int(all_of_them))
        self.assertNotRegex(result.stdout, self.BUSY)

    def test_stacks_lead_through_moved_code(self):
        # The allocator is in a library, which stays where it is.
        for when in ("before", "after"):
            with self.subTest(when):
                profile, books, result = self.record_moved("moved_text", when, "all")
                self.assert_books(profile, books)
                self.assertEqual(profile.counter("stacks: complete"), 500)
                self.assertFalse(profile.counter("stacks: with a frame found without a rule"))
                names = [frame.name for frame in profile.samples[0].frames][:2]
                self.assertEqual(names, ["path_moved", "main"])
                self.assertNotRegex(result.stdout, self.MOVED)

    def test_idle_process_is_no_warning(self):
        target = self.target("sleeper")
        result = self.run_tracer("-p", target.pid, "-d", "300ms", "-f", "text")
        self.assertIn("NOTHING RECORDED", result.stdout)
        self.assertNotRegex(result.stdout, r"(?m)^WARNING")

    def assert_only_the_last_program(self, profile):
        """The blocks of the program before are gone with it, and its addresses mean nothing any more."""
        self.assertEqual(profile.losses()[EXECUTED], 100)
        self.assertTrue([c for c in profile.comments if "executed another program" in c], profile.comments)

    def test_program_that_executes_another_goes_on(self):
        target = self.target("exec_self", f"{TARGETS}/ledger", "--rounds", "20")

        def work():
            target.say()
            self.assertTrue(target.next_line("ready again").startswith("ready"))
            target.say()
            return parse_books(target.next_line("the books"))

        profile, books, result = self.record(target, "-s", "1", work=work)
        self.assert_books_balance(profile)
        # What the program before had is not what this one had.
        self.assertRegex(result.stdout, r"(?m)^RSS +\S+ \S+ = 0 B before \+ ")
        # Its first calls may come before its mappings are known, and then have a stack without names.
        for name, figures in profile.sites().items():
            if name:
                for found, truth in zip(figures, books[name]):
                    self.assertLessEqual(found, truth, name)
        self.assertGreaterEqual(profile.totals()[0], sum(figures[0] for figures in books.values()))
        self.assert_only_the_last_program(profile)
        target.say()
        self.assertEqual(target.wait(), 0, target.describe())

    def test_figures_of_a_program_are_of_the_time_since_it_was_executed(self):
        target = self.target("exec_self", f"{TARGETS}/ledger", "--rounds", "20")
        times = []

        def work():
            started = time.monotonic()
            wait_for(lambda: time.monotonic() - started > 2, "a while before that")
            times.append(time.time_ns())
            target.say()
            self.assertTrue(target.next_line("ready again").startswith("ready"))
            times.append(time.time_ns())
            target.say()
            return parse_books(target.next_line("the books"))

        profile, _, result = self.record(target, "-s", "1", work=work)
        ended = time.time_ns()
        before, after = times
        # The kernel's time of the exec is one of another clock: both were read at the start, one after the other.
        slack = 100_000_000
        self.assertGreaterEqual(profile.time_nanos, before - slack)
        self.assertLessEqual(profile.time_nanos, after + slack)
        self.assertLessEqual(profile.duration_nanos, ended - before)
        number, unit = re.search(r"(?m)^allocated +(\S+) (\S+)/s", result.stdout).groups()
        truth = profile.totals()[1] / (profile.duration_nanos / 1e9)
        self.assertAlmostEqual(float(number) * UNITS[unit], truth, delta=0.01 * truth)

    def test_program_that_executes_one_without_an_allocator_goes_on(self):
        target = self.target("exec_self", f"{TARGETS}/static_no_malloc")

        def work():
            target.say()
            self.assertEqual(target.next_line(), "ready")

        profile, _, _ = self.record(target, "-s", "1", work=work)
        self.assert_books_balance(profile)
        self.assertEqual(profile.totals(), (0, 0, 0, 0))
        self.assert_only_the_last_program(profile)
        target.process.stdin.close()
        self.assertEqual(target.wait(), 0, target.describe())

    def test_parent_of_many_children_goes_on(self):
        target = self.target("forker")
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", self.path("p.pb.gz"))
        tracer.wait_recording()
        books = target.work()
        self.assertEqual(books["parent"][0], 500)
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        target.say()
        self.assertEqual(target.wait(), 0, target.describe())


if __name__ == "__main__":
    unittest.main()
