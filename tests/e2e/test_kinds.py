"""Each way of attaching gives the same exact figures."""

import unittest

from lib import Case, kernel_version


class Kinds(Case):
    def check(self, kind, since):
        if kernel_version() < since:
            self.skipTest(f"needs a kernel from {since[0]}.{since[1]} on")
        target = self.target("ledger", "--rounds", "40")
        profile, books, _ = self.record(target, "-s", "1", "--attach", kind)
        self.assertEqual([c for c in profile.comments if "attached by" in c], [f"# attached by: {kind}"])
        self.assert_books(profile, books)
        self.assert_books_balance(profile)
        self.assertEqual(sum(profile.losses().values()), 0, profile.losses())
        self.assertNotIn(None, profile.sites(), profile.unnamed())

    def test_session_probes_give_exact_figures(self):
        self.check("session", (6, 13))

    def test_multi_probes_give_exact_figures(self):
        self.check("multi", (6, 10))

    def test_perf_probes_give_exact_figures(self):
        self.check("perf", (6, 1))


if __name__ == "__main__":
    unittest.main()
