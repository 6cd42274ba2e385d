"""Direct mappings in the account of the RSS, without --mmap: what of them is resident, and nothing of what an
allocator maps in places that were given back unseen (tests/targets/parts.c)."""

import re
import signal
import unittest

from lib import KINDS, OK, Case, Profile, Result, wait_for
from test_growth import Growth, account, size

WARNING = "events of mappings were lost"


class Direct(Case):
    def parts(self, *options, count=40):
        """One recording of it: (truth, terms of the account, result)."""
        target = self.target("parts", count)

        def work():
            target.say()
            return dict(re.findall(r"(\w+) (\d+)", target.next_line("what it has mapped")))

        profile, truth, result = self.record(target, *options, work=work)
        self.assert_nothing_lost(profile)
        self.assertEqual(profile.only("mmap").samples == [], "--mmap" not in options)
        truth = {name: int(value) for name, value in truth.items()}
        # Else it proves nothing.
        self.assertGreater(truth["reused"], count // 8, truth)
        return truth, account(result.stdout)[0], result

    def check_exact(self, *options):
        truth, terms, result = self.parts("-s", "1", *options)
        # Below 1000 KiB three digits are exact to the page.
        self.assertLess(truth["direct"], 1000 << 10)
        self.assertEqual(terms["direct mappings"], truth["direct"], result.stdout)
        self.assertAlmostEqual(terms["live"], truth["heap"], delta=0.05 * truth["heap"], msg=result.stdout)
        self.assertGreaterEqual(terms["stacks"], truth["stack"], result.stdout)
        self.assertLess(terms["stacks"], truth["stack"] + (64 << 10), result.stdout)
        self.assertLess(abs(terms["not explained"]), Growth.SLACK, result.stdout)
        self.assertNotIn(WARNING, result.stdout)

    def test_resident_parts_are_exact_to_the_page(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.check_exact("--attach", kind)

    def test_and_so_they_are_with_mmap(self):
        self.check_exact("--mmap")

    def test_sampled_mappings_are_within_their_interval(self):
        # An interval of 95 %, twice as wide here: one of several hundred runs may miss it.
        for _ in range(3):
            truth, _, result = self.parts("-s", "32KiB", count=2000)
            text = re.search(r" \+ ([\d.]+) (\w+) \(([\d.]+)(?: (\w+))?-([\d.]+)(?: (\w+))?\) direct mappings", result.stdout)
            value, unit, low, low_unit, high, high_unit = text.groups()
            value, low, high = size(value, unit), size(low, low_unit or high_unit or unit), size(high, high_unit or unit)
            self.assertLess(low, value)
            self.assertLess(value, high)
            self.assertGreater(truth["direct"], value - 2 * (value - low), text)
            self.assertLess(truth["direct"], value + 2 * (high - value), text)

    def test_what_could_not_be_reported_is_said(self):
        # alloctrace is stopped, so that nobody reads what is reported, until there is no room for it.
        target = self.target("mapper", "--threads", "4", "--rounds", "1500")
        output = self.path("p.pb.gz")
        tracer = self.tracer("-v", "-s", "1", "-o", output, "-p", target.pid)
        tracer.wait_recording()
        tracer.signal(signal.SIGSTOP)
        wait_for(lambda: b"T" in open(f"/proc/{tracer.pid}/stat", "rb").read().rsplit(b")", 1)[1][:3], "SIGSTOP")
        target.work()
        tracer.signal(signal.SIGCONT)
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        profile, summary = Profile.read(output), Result(tracer).stdout
        lost = profile.counter("mappings that the account of the RSS lacks")
        self.assertGreater(lost, 0)
        self.assertIn(f"WARNING    {lost} {WARNING}", summary.replace(",", ""))
        self.assert_nothing_lost(profile)

    def test_a_wanderer_holds_nobody_up(self):
        # It makes places faster than they could be kept in order: they are given up, and the recording ends.
        target = self.target("wander")

        def work():
            target.say()
            self.assertEqual(target.next_line("its rounds"), "wandered")

        profile, _, result = self.record(target, "-s", "64KiB", work=work)
        self.assertIn("direct mappings were at too many places to be measured", result.stdout)
        self.assertNotIn(" direct mappings -", result.stdout)
        self.assert_nothing_lost(profile)


if __name__ == "__main__":
    unittest.main()
