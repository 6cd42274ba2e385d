"""Allocators that no table knows, named on the command line: to the unit, and without harm."""

import signal
import unittest

from lib import KINDS, Case, wait_for

NAMED = (
    "--allocator", "ledger_own:own_",
    "--symbol", "alloc:pool_get:arg2",
    "--symbol", "realloc:pool_resize:arg2:arg3",
    "--symbol", "free:pool_put:arg2",
    "--symbol", "alloc:jump_get:arg2",
    "--symbol", "realloc:jump_resize",
)  # fmt: skip


class Pools(Case):
    def test_pools_named_on_the_command_line_are_exact(self):
        for kind in KINDS:
            with self.subTest(kind):
                target = self.ledger("ledger_own", "--rounds", "300")
                profile, books, _ = self.record(target, "-s", "1", "--attach", kind, *NAMED)
                target.kill()
                self.assert_exact(profile, books)

    def test_what_is_named_and_not_there_is_said(self):
        target = self.ledger("ledger_own", "--rounds", "1")
        names = (
            "--symbol", "alloc:no_such_get",
            "--symbol", "alloc:bad\nname",
            "--allocator", "/no/such:x_",
            "--allocator", "ledger_own:x_",
        )  # fmt: skip
        profile, _, result = self.record(target, "-s", "1", *names, *NAMED)
        for missing in ("--symbol no_such_get:", "--allocator /no/such:x_:", "--allocator ledger_own:x_:"):
            self.assertEqual(len([c for c in profile.comments if missing in c]), 1, profile.comments)
        self.assertIn("--symbol bad\\x0Aname: no mapped file", result.text)
        self.assertFalse([c for c in profile.comments if "pool_get: no mapped" in c])

    def test_a_pool_through_which_exceptions_pass_does_not_end_its_process(self):
        for kind in KINDS:
            with self.subTest(kind):
                target = self.target("throws_pool")

                def work():
                    first = target.ask_count("caught")
                    wait_for(lambda: target.ask_count("caught") >= first + 500, "exceptions to be caught")

                symbols = ("--symbol", "alloc:pool_get", "--symbol", "free:pool_put")
                profile, _, _ = self.record(target, "-s", "1", "--attach", kind, *symbols, work=work)
                guarded = [c for c in profile.comments if c.endswith("what may throw is guarded")]
                left_out = [c for c in profile.comments if "pool_get: an exception may pass through it" in c]
                self.assertTrue(guarded or left_out, profile.comments)
                self.assert_books_balance(profile)
                if guarded:
                    self.assertGreaterEqual(profile.counter("sampled calls that allocated nothing"), 500)
                target.signal(signal.SIGTERM)
                self.assertEqual(target.wait(), 0, target.describe())


if __name__ == "__main__":
    unittest.main()
