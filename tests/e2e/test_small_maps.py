"""Maps that are too small lose samples, say so, and record nothing wrong."""

import unittest

from lib import Case


class SmallMaps(Case):
    def check(self, reasons, *options):
        target = self.target("ledger", "--rounds", "60")
        profile, books, result = self.record(target, "-s", "1", *options)
        self.assert_books_balance(profile)
        losses = profile.losses()
        lost = sum(losses.values())
        self.assertGreater(losses[reasons[0]], 0, losses)
        self.assertEqual({name for name, count in losses.items() if count} - set(reasons), set())

        # Every call was seen, whatever became of it. Five of a round's calls fail, or six where
        # reallocarray leaves it to realloc; a call whose stack is lost is lost before it can fail.
        allocated = sum(figures[0] for figures in books.values())
        self.assertIn(profile.counter("sampled"), (allocated + 5 * 60 * 4, allocated + 6 * 60 * 4))
        self.assertEqual(profile.totals()[0], profile.counter("recorded"))
        self.assertGreaterEqual(profile.totals()[0], allocated - lost)

        for name, figures in profile.sites().items():
            if name is not None:
                for found, truth in zip(figures, books[name]):
                    self.assertLessEqual(found, truth, name)
                    self.assertGreaterEqual(found, 0, name)

        # Who reads only the summary, or only the profile, is told as well.
        self.assertRegex(result.stdout, rf"(?m)^samples .* {lost:,} lost")
        self.assertIn(f"{reasons[0]}: {losses[reasons[0]]:,}", result.stdout)
        self.assertTrue([c for c in profile.comments if c.startswith("WARNING: ")], profile.comments)

    def test_full_live_map_is_a_counted_loss(self):
        self.check(["live map full"], "--max-live", "16")

    def test_full_stack_map_is_a_counted_loss(self):
        self.check(["stack map full", "count map full"], "--max-stacks", "4")

    def test_live_map_that_fills_up_now_and_then_loses_only_then(self):
        # As many blocks as this are alive at one time only towards the end.
        self.check(["live map full"], "--max-live", "1000")


if __name__ == "__main__":
    unittest.main()
