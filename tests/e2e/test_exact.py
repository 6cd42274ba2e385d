"""At -s 1 every figure is exact: it equals the target's own ledger, to the unit."""

import unittest

from lib import OK, TARGETS, Case, Profile, parse_books


class Exact(Case):
    def test_every_site_equals_its_ledger(self):
        profile, books, _ = self.shared_recording()
        self.assert_books(profile, books)
        self.assert_books_balance(profile)
        self.assertEqual(sum(profile.losses().values()), 0, profile.losses())

    def test_nothing_is_recorded_that_did_not_happen(self):
        # Calls inside libc (realloc -> malloc, posix_memalign -> malloc) would show here as well.
        profile, books, _ = self.shared_recording()
        self.assertNotIn(None, profile.sites(), profile.unnamed())
        self.assertEqual(set(profile.sites()) - set(books), set())
        self.assertEqual(
            profile.totals(), tuple(map(sum, zip(*(figures[:4] for figures in books.values()))))
        )

    def test_one_thread_equals_its_ledger(self):
        profile, books, _ = self.shared_recording("--threads", "1", "--rounds", "500")
        self.assert_books(profile, books)
        self.assert_books_balance(profile)

    def test_sixteen_threads_equal_their_ledger(self):
        target = self.target("ledger", "--threads", "16", "--rounds", "60", "--seed", "3")
        profile, books, _ = self.record(target, "-s", "1")
        self.assert_books(profile, books)
        self.assert_books_balance(profile)

    def test_failing_calls_are_counted_as_failed(self):
        profile, _, _ = self.shared_recording("--threads", "1", "--rounds", "500")
        # malloc, calloc, realloc, realloc to 0 and posix_memalign, once a round. reallocarray may see
        # the overflow before it calls anything.
        failed = profile.counter("sampled calls that allocated nothing")
        self.assertIn(failed, (5 * 500, 6 * 500))

    def test_every_stack_goes_from_the_site_outwards(self):
        profile, books, _ = self.shared_recording()
        for sample in profile.samples:
            names = [frame.name for frame in sample.frames]
            if "site_malloc" in names:
                self.assertEqual(names[:3], ["site_malloc", "mid_malloc", "path_malloc"])
                self.assertIn("c_round", " ".join(names))
                break
        else:
            self.fail("no stack of site_malloc")
        self.assertTrue(books)

    def test_files_and_lines_are_those_of_the_source(self):
        profile, _, _ = self.shared_recording()
        named = [f for s in profile.samples for f in s.frames if f.name == "path_malloc"]
        self.assertTrue(named)
        for frame in named:
            self.assertRegex(frame.file, r"ledger_c\.c$")
            self.assertGreater(frame.line, 0)

    def test_object_size_label_agrees_with_the_figures(self):
        profile, _, _ = self.shared_recording()
        for sample in profile.samples:
            objects, space, live, live_space = sample.values
            size = sample.labels["bytes"]
            self.assertGreater(objects, 0)
            # A class is at most 1/64 wide.
            self.assertAlmostEqual(space / objects, size, delta=1 + size / 64)
            if live:
                self.assertAlmostEqual(live_space / live, size, delta=1 + size / 64)

    def test_memory_from_before_the_recording_is_not_in_it(self):
        # The first recording frees nothing, so what it saw is live; the second one sees only sleep.
        target = self.target("ledger")
        first, books, _ = self.record(target, "-s", "1")
        self.assert_books(first, books)
        second, _, _ = self.record(target, "-s", "1", work=lambda: None)
        self.assertEqual(second.totals(), (0, 0, 0, 0))

    def test_children_are_not_mixed_up_with_their_parent(self):
        # They free their copies of the parent's blocks, and allocate at the same addresses.
        target = self.target("forker")
        profile, books, _ = self.record(target, "-s", "1")
        self.assertEqual(profile.sites(), {name: figures[:4] for name, figures in books.items()})
        self.assert_books_balance(profile)

    def test_started_command_is_traced_from_its_first_allocation(self):
        output = self.path("p.pb.gz")
        result = self.run_tracer("-s", "1", "-o", output, "--", f"{TARGETS}/ledger")
        self.assertEqual(result.status, OK, result.text)
        line = next(line for line in result.stdout.split("\n") if line.startswith('{"malloc"'))
        profile = Profile.read(output)
        self.assert_books(profile, parse_books(line))
        self.assert_books_balance(profile)
        # The threads' stacks and libstdc++'s emergency pool were there before "ready".
        others = profile.sites().get(None, (0, 0, 0, 0))
        self.assertGreaterEqual(others[0], 5, profile.unnamed())


if __name__ == "__main__":
    unittest.main()
