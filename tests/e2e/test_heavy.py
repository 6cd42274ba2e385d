"""Ten million operations by sixteen threads, at -s 1: what is live at the end is what the ledger says.

Blocks pass from thread to thread: one allocates, another frees or reallocates, a third gets the address.
"""

import unittest

from lib import Case

THREADS = 16
ROUNDS = 5600
LIVE = 500  # blocks in each of a thread's lists: the other ones come and go


class Heavy(Case):
    limit = 600

    def test_ten_million_operations_of_sixteen_threads_equal_their_ledger(self):
        target = self.target("ledger", "--threads", THREADS, "--rounds", ROUNDS, "--live", LIVE)
        profile, books, _ = self.record(
            target, "-s", "1", work=lambda: target.work(limit=self.limit - 60)
        )
        self.assert_exact(profile, books)
        allocated, _, live, _ = profile.totals()
        self.assertGreater(allocated + (allocated - live), 10_000_000)


if __name__ == "__main__":
    unittest.main()
