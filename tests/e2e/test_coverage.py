"""Which allocators are found, what of them is probed, and what is said of the rest."""

import os
import re
import subprocess
import unittest

from lib import KINDS, MIMALLOC, NOTHING_TO_RECORD, OK, TARGETS, TCMALLOC, Case, Profile, parse_books

POOL = ("--symbol", "alloc:pool_get:arg2", "--symbol", "free:pool_put:arg2", "--symbol",
        "alloc:wrap_get:arg2", "--allocator", "ledger_pool:my_")  # fmt: skip


class Coverage(Case):
    def test_allocators_that_the_user_names_are_exact(self):
        # The pool's chunks and the blocks that headers are put before are parts of what is handed out.
        for kind in KINDS:
            with self.subTest(kind):
                target = self.ledger("ledger_pool", "--rounds", "60")
                profile, books, _ = self.record(target, "-s", "1", "--attach", kind, *POOL)
                self.assert_exact(profile, books)
                self.assertFalse([c for c in profile.comments if "--symbol" in c and "no mapped" in c])

    def test_what_the_user_does_not_name_is_what_malloc_says(self):
        target = self.ledger("ledger_pool", "--rounds", "60")
        profile, books, _ = self.record(target, "-s", "1")
        self.assertNotEqual(profile.sites().get("pool"), books["pool"][:4])
        objects, space = profile.sites()["prefixed"][:2]
        self.assertEqual((objects, space), (books["prefixed"][0], books["prefixed"][1] + 16 * objects))
        # snmalloc's names are in the table.
        for name in ("sn", "sn_old", "sn_realloc"):
            self.assertEqual(profile.sites()[name], books[name][:4])

    def test_names_that_are_not_found_are_warned_of(self):
        target = self.target("ledger")
        _, _, result = self.record(
            target, "-s", "1", "--symbol", "alloc:no_such_function", "--allocator", "libno.so:no_"
        )
        self.assertRegex(result.stdout, r"WARNING +--symbol no_such_function: no mapped file")
        self.assertRegex(result.stdout, r"WARNING +--allocator libno.so:no_: no such file is mapped")

    def test_functions_that_do_not_make_sense_are_usage_errors(self):
        for option, value in (
            ("--symbol", "alloc"), ("--symbol", "alloc:"), ("--symbol", "lend:f"), ("--symbol", "alloc:f:arg0"),
            ("--symbol", "alloc:f:arg7"), ("--symbol", "alloc:f:arg1:arg2"), ("--symbol", "realloc:f:arg1"),
            ("--symbol", "free:f:argx"), ("--allocator", "x"), ("--allocator", ":x"), ("--allocator", "x:"),
        ):  # fmt: skip
            with self.subTest(value):
                result = self.run_tracer(option, value, "-p", "1")
                self.assertEqual(result.status, 2, result.text)
                self.assert_one_line(result)

    def test_allocator_that_is_loaded_later_is_picked_up(self):
        for library, prefix in ((MIMALLOC, "mi_"), (TCMALLOC, "tc_")):
            with self.subTest(library):
                target = self.target("late", library, prefix)
                output = self.path("late.pb.gz")
                tracer = self.tracer("-v", "-s", "1", "-p", target.pid, "-o", output)
                tracer.wait_recording()
                target.say()
                self.assertEqual(target.next_line(), "loaded")
                file = os.path.realpath(library)
                tracer.wait_until(lambda: f"probes in {file}\n" in tracer.stderr, "the new probes")
                target.say()
                books = parse_books(target.next_line("the books"))
                self.assertEqual(tracer.stop(), OK, tracer.describe())
                self.assert_books(Profile.read(output), books)

    def test_two_allocators_of_one_process_are_both_told(self):
        target = self.ledger("ledger", "--rounds", "10", preload=MIMALLOC)
        _, _, result = self.record(target, "-s", "1")
        allocators = re.findall(r"^allocator +(\S+) \((.*); attach: session\)$", result.stdout, re.M)
        names = {os.path.basename(path): text for path, text in allocators}
        self.assertEqual(names["libc.so.6"], "C library, by its .dynsym")
        self.assertRegex(names[os.path.basename(os.path.realpath(MIMALLOC))], r"^mimalloc, by its .dynsym")
        self.assertRegex(result.stdout, r"not probed mi_strdup, .*: its size is not among its arguments")

    def test_each_function_that_is_probed_is_told_with_its_site(self):
        # Offsets as FACTS of glibc 2.36 have them, and as bpf sees them: each name once.
        target = self.target("ledger", "--rounds", "10")
        profile, _, result = self.record(target, "-s", "1")
        line = next(c for c in profile.comments if c.startswith("# probes in") and "libc.so.6" in c)
        functions = re.findall(r"(\w+)\+\d+", line)
        self.assertEqual(len(functions), len(set(functions)))
        for name in ("malloc", "calloc", "realloc", "free", "posix_memalign"):
            self.assertIn(name, functions)
            self.assertRegex(result.stdout, rf"\b{name}\+\d+")

    def test_symbols_that_a_file_carries_compressed_are_read(self):
        # As Fedora ships its libraries: stripped, with .gnu_debugdata.
        program = self.path("ledger_mini")
        debug, stripped = self.path("debug"), self.path("stripped")
        static = f"{TARGETS}/ledger_static"
        for command in (
            ["objcopy", "--only-keep-debug", "--strip-debug", static, debug],
            ["xz", "-q", debug],
            ["objcopy", "--strip-all", "--add-section", f".gnu_debugdata={debug}.xz", static, stripped],
        ):
            subprocess.run(command, check=True)
        os.rename(stripped, program)
        target = self.target("ledger_mini", "--rounds", "20", program_folder=self.folder)
        profile, books, result = self.record(target, "-s", "1")
        # Without other debug information sites have no names: the sums have to do.
        sums = tuple(map(sum, zip(*(figures[:4] for figures in books.values()))))
        self.assertEqual(profile.totals(), sums)
        self.assertIn("by its .gnu_debugdata", result.stdout)

    def test_stripped_static_program_is_refused_with_a_reason(self):
        stripped = self.path("bare")
        subprocess.run(["strip", "-o", stripped, f"{TARGETS}/ledger_static"], check=True)
        target = self.target("bare", program_folder=self.folder)
        result = self.run_tracer("-p", target.pid, "-d", "1s")
        self.assertEqual(result.status, NOTHING_TO_RECORD, result.text)
        self.assert_one_line(result)


if __name__ == "__main__":
    unittest.main()
