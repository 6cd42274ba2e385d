"""At -s 1 every figure equals the target's own ledger, to the unit, whatever allocator the target uses.

By every kind of probe: a kernel without sessions has to give the same figures.
"""

import functools
import os
import re
import resource
import signal
import unittest

from lib import JEMALLOC, KINDS, MIMALLOC, TCMALLOC, Case, changed_code, wait_for


class Allocators(Case):
    def check(self, program, preload=None, unseen=()):
        """Sites `unseen` are of functions that are known not to be probed: the summary has to say so."""
        for kind in KINDS:
            with self.subTest(kind):
                target = self.ledger(program, "--rounds", "60", preload=preload)
                # Only sessions tell calls apart that cannot fail; no call of a ledger's new does.
                risk = [] if kind == "session" else ["--probe-throwing"]
                profile, books, _ = self.record(target, "-s", "1", "--attach", kind, *risk)
                target.kill()
                for site in unseen:
                    reason = f"{site}: its size is not among its arguments"
                    self.assertTrue([c for c in profile.comments if c.endswith(reason)], reason)
                    del books[site]
                self.assert_exact(profile, books)

    def test_glibc_is_exact(self):
        self.check("ledger")

    def test_glibc_static_is_exact(self):
        self.check("ledger_static")

    def test_glibc_static_pie_is_exact(self):
        self.check("ledger_static_pie")

    def test_glibc_static_without_symbols_but_with_a_debug_file_is_exact(self):
        self.check("ledger_stripped")

    def test_musl_is_exact(self):
        self.check("ledger_musl")

    def test_musl_static_is_exact(self):
        self.check("ledger_musl_static")

    def test_jemalloc_preloaded_is_exact(self):
        self.check("ledger", preload=JEMALLOC)

    def test_tcmalloc_preloaded_is_exact(self):
        self.check("ledger", preload=TCMALLOC)

    def test_mimalloc_preloaded_is_exact(self):
        self.check("ledger", preload=MIMALLOC)

    def test_jemalloc_linked_statically_is_exact(self):
        self.check("ledger_jemalloc_static")

    def test_jemalloc_linked_statically_by_lld_is_exact(self):
        self.check("ledger_jemalloc_lld")

    def test_rust_is_exact(self):
        self.check("ledger_rust")

    # What allocators have beyond the C library's functions.

    def test_functions_of_jemalloc_are_exact(self):
        self.check("ledger_jemalloc")

    def test_functions_of_jemalloc_with_a_prefix_are_exact(self):
        self.check("ledger_jemalloc_prefix")

    def test_functions_of_jemalloc_in_a_rust_program_are_exact(self):
        self.check("ledger_rust_jemalloc")

    def test_functions_of_mimalloc_are_exact(self):
        names = ("mi_strdup", "mi_strndup", "mi_heap_strdup", "mi_heap_strndup")
        self.check("ledger_mimalloc", unseen=names)

    def test_functions_of_tcmalloc_are_exact(self):
        self.check("ledger_tcmalloc")

    # mimalloc's operators new end the process themselves where there is no memory.

    def test_exceptions_pass_through_operators_new_of_allocators(self):
        for preload in (JEMALLOC, TCMALLOC):
            for kind in KINDS:
                with self.subTest(preload, kind=kind):
                    self.check_exceptions(preload, kind)

    def test_exceptions_pass_in_a_process_that_may_not_have_more_memory(self):
        # Of a size that any process gets that has no limit.
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

        for kind in KINDS:
            with self.subTest(kind):
                self.check_exceptions(TCMALLOC, kind, str(1 << 30), limited=True, preexec_fn=limit)

    def test_child_that_the_target_forks_may_throw(self):
        # It has a copy of the target's breakpoints, and none of the programs behind them.
        for kind in KINDS:
            with self.subTest(kind):
                target = self.ledger("throws", preload=TCMALLOC)
                profile, _, _ = self.record(target, "-s", "1", "--attach", kind, work=lambda: None)
                throwing = sum(comment.count("(may throw)") for comment in profile.comments)
                if throwing:
                    work = functools.partial(self.check_child, target, 0 if kind == "perf" else throwing)
                    self.record(target, "-s", "1", "--attach", kind, work=work)

    def check_child(self, target, throwing):
        """A child lives that is forked and, once so many breakpoints have gone from it, throws."""
        probed = set(changed_code(target.pid))
        target.signal(signal.SIGUSR2)
        child = int(re.match(r"child (\d+)", target.next_line("'child PID'")).group(1))
        try:
            wait_for(lambda: len(probed - set(changed_code(child))) >= throwing, "breakpoints to go")
            os.kill(child, signal.SIGCONT)
            wait_for(lambda: target.ask_count("caught", child) >= 100, "exceptions to be caught")
        finally:
            os.kill(child, signal.SIGKILL)

    def check_exceptions(self, preload, kind, *arguments, limited=False, **options):
        target = self.ledger("throws", *arguments, preload=preload, **options)

        def work():
            first = target.ask_count("caught")
            wait_for(lambda: target.ask_count("caught") >= first + 500, "exceptions to be caught")

        profile, _, _ = self.record(target, "-s", "1", "--attach", kind, work=work)
        sites = profile.sites()
        losses = {name: count for name, count in profile.losses().items() if count}
        self.assertLessEqual(losses.pop("call not finished at the end", 0), 1)
        self.assert_books_balance(profile)
        self.assertLess(sum(figures[1] for figures in sites.values()), 1 << 29)
        if [c for c in profile.comments if c.endswith("what may throw is guarded")]:
            self.assertEqual(losses, {})
            self.assertGreaterEqual(profile.counter("sampled calls that allocated nothing"), 500)
            self.assertGreaterEqual(sites["calm"][0], 500)
        elif kind == "session" and not limited:
            # Nothing is known to guard it: what might fail is not watched, and that is said.
            self.assertEqual(set(losses), {"too large to watch a call that might throw"})
            self.assertGreaterEqual(sum(losses.values()), 500)
            self.assertGreaterEqual(sites["calm"][0], 500)
            self.assertLessEqual(sites["calm"][2], 1)
        else:
            self.assertNotIn("calm", sites)
            self.assertTrue([c for c in profile.comments if "may pass through it" in c])
            self.assertEqual(losses, {})
        target.signal(signal.SIGTERM)
        self.assertEqual(target.wait(), 0, target.describe())


if __name__ == "__main__":
    unittest.main()
