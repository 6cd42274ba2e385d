"""At the default rate the estimates are without bias, whatever allocator the target uses.

What would bias them: a call that is counted twice, because it is part of another one whose sample was
not taken (calloc that calls malloc), or not at all; a size that is not the one asked for.
"""

import math
import unittest

from lib import JEMALLOC, MIMALLOC, TCMALLOC, Case
from test_estimates import FIGURES, Run, distance

RUNS = 3
ROUNDS = 16


class AllocatorEstimates(Case):
    def worst(self, runs):
        """{figure: the site whose estimates are farthest from the truth, in standard errors, and all of them}"""
        found = {}
        for index, name in enumerate(FIGURES):
            sites = {site: distance([run.figures[site][index] for run in runs]) for site in runs[0].figures}
            total = distance([run.figures[site][index] for run in runs for site in run.figures])
            found[name] = (total, max(sites.values(), key=abs), sites)
        return found

    def check(self, program, preload=None):
        runs = [Run(self, seed, program, preload, ROUNDS) for seed in range(1, RUNS + 1)]
        found = self.worst(runs)
        if any(abs(total) > 3 or abs(site) > 4.5 for total, site, _ in found.values()):
            # Chance, now and then. A bias would show in other runs as well.
            runs = [Run(self, seed, program, preload, ROUNDS) for seed in range(100, 100 + 2 * RUNS)]
            found = self.worst(runs)
        for name, (total, worst, sites) in found.items():
            report = ", ".join(f"{site} {value:+.1f}" for site, value in sites.items())
            self.assertLess(abs(total), 3, f"{name} in all: {total:.2f} standard errors off; {report}")
            self.assertLess(abs(worst), 4.5, f"{name}: {report}")
            spread = math.sqrt(sum(value**2 for value in sites.values()) / len(sites))
            self.assertLess(spread, 2, f"{name}: {report}")

    def test_glibc_static_is_without_bias(self):
        self.check("ledger_static")

    def test_musl_is_without_bias(self):
        self.check("ledger_musl")

    def test_musl_static_is_without_bias(self):
        self.check("ledger_musl_static")

    def test_jemalloc_preloaded_is_without_bias(self):
        self.check("ledger", preload=JEMALLOC)

    def test_tcmalloc_preloaded_is_without_bias(self):
        self.check("ledger", preload=TCMALLOC)

    def test_mimalloc_preloaded_is_without_bias(self):
        self.check("ledger", preload=MIMALLOC)

    def test_rust_is_without_bias(self):
        self.check("ledger_rust")

    def test_functions_of_jemalloc_are_without_bias(self):
        self.check("ledger_jemalloc_prefix")

    def test_functions_of_mimalloc_are_without_bias(self):
        self.check("ledger_mimalloc")

    def test_functions_of_tcmalloc_are_without_bias(self):
        self.check("ledger_tcmalloc")


if __name__ == "__main__":
    unittest.main()
