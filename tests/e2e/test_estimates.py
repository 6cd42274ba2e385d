"""At the default rate figures are estimates: without bias, and as exact as their intervals say.

The target's books hold the truth and, from the sampling design alone, the variance that each figure's
estimate must have. So each estimate's distance from the truth is known in standard errors.
"""

import math
import unittest

from lib import Case, read_table

PERIOD = 512 << 10
RUNS = 12
FIGURES = ["alloc objects", "alloc bytes", "inuse objects", "inuse bytes"]


class Run:
    """One recording of a ledger: {site: [(estimate, truth, variance) of the four figures]}, and its summary."""

    def __init__(self, case, seed, program="ledger", preload=None, rounds=60):
        target = case.ledger(
            program, "--sizes", "mixed", "--threads", "2", "--rounds", rounds,
            "--seed", seed, "--period", PERIOD, preload=preload,
        )  # fmt: skip
        profile, books, result = case.record(target, "-T", "1000")
        target.kill()
        case.assertEqual(profile.period, PERIOD)
        case.assert_nothing_lost(profile)
        sites = profile.sites()
        case.assertEqual(set(sites) - set(books), set(), profile.unnamed())
        self.figures = {
            site: list(zip(sites.get(site, (0, 0, 0, 0)), truth[:4], truth[4:]))
            for site, truth in books.items()
        }
        self.profile = profile
        self.summary = result.stdout

    @property
    def table(self):
        return read_table(self.summary)


def distance(figures):
    """How far the sum of estimates is from the sum of truths, in standard errors."""
    estimate, truth, variance = map(sum, zip(*figures))
    return (estimate - truth) / math.sqrt(variance)


class Estimates(Case):
    limit = 300

    runs = []  # made by the first test, looked at by all

    def recorded(self, count=RUNS):
        while len(self.runs) < count:
            self.runs.append(Run(self, len(self.runs) + 1))
        return self.runs[:count]

    def test_totals_are_within_three_standard_errors_of_the_truth(self):
        for index, name in enumerate(FIGURES):
            with self.subTest(name):

                def total(runs):
                    return distance([run.figures[site][index] for run in runs for site in run.figures])

                found = total(self.recorded())
                if abs(found) > 3:
                    # Once in 370 times that is chance. A bias would show in other runs as well.
                    found = total(self.recorded(2 * RUNS)[RUNS:])
                self.assertLess(abs(found), 3, f"{name}: {found:.2f} standard errors off")

    def test_every_site_is_as_near_to_the_truth_as_it_should_be(self):
        runs = self.recorded()
        for index, name in enumerate(FIGURES):
            with self.subTest(name):
                sites = {
                    site: distance([run.figures[site][index] for run in runs]) for site in runs[0].figures
                }
                report = ", ".join(f"{site} {value:+.1f}" for site, value in sites.items())
                worst = max(sites.values(), key=abs)
                self.assertLess(abs(worst), 4.5, report)
                # Together they must scatter as the design says: neither more, nor less, which would
                # mean that these are no independent samples.
                spread = math.sqrt(sum(value**2 for value in sites.values()) / len(sites))
                self.assertLess(spread, 1.7, report)
                self.assertGreater(spread, 0.4, report)

    def test_printed_intervals_cover_the_truth_in_90_to_99_percent(self):
        covered = cases = 0
        missed = []
        for run in self.recorded():
            table = run.table
            self.assertEqual(len(table), len(run.profile.sites()))
            for site, row in table.items():
                for (value, low, high), (_, truth, _) in zip(row, run.figures[site]):
                    cases += 1
                    if low <= truth <= high:
                        covered += 1
                    else:
                        missed.append(f"{site}: {low:.0f}-{high:.0f}, in truth {truth}")
                    self.assertTrue(low <= value <= high, f"{site}: {value} ({low}-{high})")
        self.assertGreater(cases, 500)
        self.assertGreater(covered / cases, 0.90, f"of {cases}, these are not covered: {missed}")
        self.assertLess(covered / cases, 0.99, f"only {len(missed)} of {cases} are not covered: {missed}")

    def test_table_shows_the_profile_s_figures(self):
        run = self.recorded(1)[0]
        sites = run.profile.sites()
        for site, row in run.table.items():
            for (value, _, _), expected in zip(row, sites[site]):
                # Three digits are printed of bytes, all of them of objects.
                self.assertLessEqual(abs(value - expected), max(0.5, expected * 0.006), site)


if __name__ == "__main__":
    unittest.main()
