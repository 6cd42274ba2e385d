"""At -s 1 every figure equals the target's own ledger, to the unit, whatever allocator the target uses.

By every kind of probe: a kernel without sessions has to give the same figures.
"""

import unittest

from lib import JEMALLOC, KINDS, MIMALLOC, TCMALLOC, Case


class Allocators(Case):
    def check(self, program, preload=None):
        for kind in KINDS:
            with self.subTest(kind):
                target = self.ledger(program, "--rounds", "60", preload=preload)
                profile, books, _ = self.record(target, "-s", "1", "--attach", kind)
                target.kill()
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
        self.check("ledger_mimalloc")

    def test_functions_of_tcmalloc_are_exact(self):
        self.check("ledger_tcmalloc")


if __name__ == "__main__":
    unittest.main()
