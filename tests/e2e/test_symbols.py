"""Names are right: functions, inlined calls, files and lines are those of llvm-symbolizer.

What may differ, and why, is in tools/symbols_compare.py. Each call of a small program is compared, built in all the
ways that change what its debug information looks like; and samples of large ones.
"""

import json
import os
import re
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

import lib
from lib import ALLOCTRACE, ROOT, TARGETS, Case

sys.path.insert(0, os.path.join(ROOT, "tools"))

import symbols_compare as compare  # noqa: E402  (found by the line above)
import symbols_programs as programs  # noqa: E402
from symbols_compare import Level  # noqa: E402

BUILD = os.path.dirname(TARGETS)
DUMP = os.path.join(BUILD, "symbols_dump")
UNITS = (("plain", "c"), ("main", "cc"), ("stock", "cc"))
COMPILERS = {"gcc": "g++", "clang": "clang++"}

# Ways to compile the three units: {name: (compiler, options)}.
COMPILED = {
    "gcc4": ("gcc", "-gdwarf-4"),
    "gcc5": ("gcc", "-gdwarf-5"),
    "clang4": ("clang", "-gdwarf-4"),
    "clang5": ("clang", "-gdwarf-5"),
    "clang-aranges": ("clang", "-gdwarf-5 -gdwarf-aranges"),
    "gcc-sections": ("gcc", "-ffunction-sections"),
    "clang-sections": ("clang", "-ffunction-sections"),
    "gcc-lto": ("gcc", "-flto"),
    "clang-lto": ("clang", "-flto"),
}


def compile_unit(folder, way, unit, suffix):
    compiler, options = COMPILED[way]
    source = os.path.join(programs.SOURCES, f"inlines_{unit}.{suffix}")
    command = compiler if suffix == "c" else COMPILERS[compiler]
    target = os.path.join(folder, f"{way}.{unit}.o")
    programs.run(command, "-O2", "-g", *options.split(), "-c", source, "-o", target)


def names_of(path):
    """{address: names of functions}, of the symbol table."""
    return compare.Symbols(path).names


class Comparisons(Case):
    limit = 300

    def assert_same(self, path, addresses, least_inlined, reference=None):
        found = compare.compare(path, addresses, DUMP, reference)
        print(f"{os.path.basename(path)}: {found.describe()}")
        self.assertEqual(found.unexplained, [], f"{path}: {found.describe()}")
        self.assertGreaterEqual(found.count, 100, path)
        self.assertGreaterEqual(found.inlined, least_inlined * found.count, path)


class InlinedCalls(Comparisons):
    """Every call of a small program."""

    @classmethod
    def setUpClass(cls):
        cls.objects = tempfile.TemporaryDirectory(prefix="alloctrace-test.")
        cls.addClassCleanup(cls.objects.cleanup)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(compile_unit, cls.objects.name, way, *unit) for way in COMPILED for unit in UNITS]
        for job in jobs:
            job.result()

    def link(self, way, name, *options):
        objects = [os.path.join(self.objects.name, f"{way}.{unit}.o") for unit, _ in UNITS]
        path = self.path(name)
        programs.run(COMPILERS[COMPILED[way][0]], "-O2", "-g", *objects, *options, "-o", path)
        return path

    def sections(self, path):
        return set(re.findall(r"\] (\.\S+)", programs.run("readelf", "-SW", path)))

    def assert_all_same(self, path, reference=None):
        """Two of three calls are in inlined functions, at least."""
        self.assert_same(path, compare.call_sites(path), 2 / 3, reference)

    def test_gcc(self):
        for way in ("gcc4", "gcc5"):
            path = self.link(way, way)
            self.assertIn(".debug_aranges", self.sections(path))
            self.assertTrue(any(name.endswith(".cold") for names in names_of(path).values() for name in names))
            self.assert_all_same(path)

    def test_clang(self):
        for way in ("clang4", "clang5"):
            path = self.link(way, way)
            self.assertNotIn(".debug_aranges", self.sections(path))
            self.assert_all_same(path)

    def test_lines_of_declarations(self):
        for way in ("gcc4", "gcc5", "clang5"):
            path = self.link(way, way)
            sites = compare.call_sites(path)
            theirs = compare.starts_of_llvm(path, sites)
            self.assertGreater(sum(all(levels) for levels in theirs), 0.9 * len(sites))
            self.assertEqual(compare.starts_of_alloctrace(path, sites, DUMP), theirs)

    def test_with_and_without_aranges(self):
        path = self.link("clang-aranges", "with")
        self.assertIn(".debug_aranges", self.sections(path))
        self.assert_all_same(path)
        without = self.path("without")
        programs.run("objcopy", "--remove-section=.debug_aranges", self.link("gcc5", "gcc"), without)
        self.assertNotIn(".debug_aranges", self.sections(without))
        self.assert_all_same(without)

    def test_functions_that_the_linker_throws_away(self):
        for way, options in (("gcc-sections", ()), ("clang-sections", ("-fuse-ld=lld",))):
            path = self.link(way, way, *options, "-Wl,--gc-sections")
            self.assertNotIn("shop_c_unused", {name for names in names_of(path).values() for name in names})
            self.assert_all_same(path)

    def test_functions_that_the_linker_folds_into_one(self):
        """Which one of them an address has is open, but the lines are to be of the same."""
        path = self.link("clang-sections", "folded", "-fuse-ld=lld", "-Wl,--icf=all")
        names = {"_ZN4shop8same_oneEi", "_ZN4shop8same_twoEi"}
        symbols = compare.Symbols(path)
        [start] = [start for start, found in symbols.names.items() if names <= found]
        self.assert_all_same(path)
        everywhere = list(range(start, symbols.ends[start]))
        source = lib.read_text(os.path.join(programs.SOURCES, "inlines_stock.cc")).split("\n")
        for levels in compare.ask_alloctrace(path, everywhere, DUMP):
            function = re.search(r"same_\w+(?=Ei)", levels[-1].function)[0]
            first = next(number for number, line in enumerate(source, 1) if function in line)
            self.assertIn(levels[-1].line, range(first, first + 4), levels)

    def test_link_time_optimization(self):
        self.assert_all_same(self.link("gcc-lto", "gcc-lto", "-flto"))
        self.assert_all_same(self.link("clang-lto", "clang-lto", "-flto", "-fuse-ld=lld"))

    def test_what_several_units_share_moved_by_dwz(self):
        for way in ("gcc4", "gcc5"):
            before, path = self.link(way, "before"), self.link(way, "after")
            programs.run("dwz", path)
            self.assertIn("DW_TAG_partial_unit", programs.run("readelf", "--debug-dump=info", path))
            self.assert_all_same(path, before)

    def test_what_several_files_share_moved_by_dwz(self):
        before, path, other = (self.link("gcc5", name) for name in ("before", "after", "other"))
        programs.run("dwz", "-m", self.path("common"), path, other)
        self.assertIn(".gnu_debugaltlink", self.sections(path))
        self.assert_all_same(path, before)

    def test_compressed_sections(self):
        before = self.link("gcc5", "before")
        for way in ("zlib", "zlib-gnu", "zstd"):
            path = self.path(way)
            programs.run("objcopy", f"--compress-debug-sections={way}", before, path)
            self.assertLess(os.path.getsize(path), os.path.getsize(before))
            self.assert_all_same(path, before)


class Samples(Comparisons):
    """Addresses all over large programs."""

    def assert_sample_same(self, path, least_inlined):
        self.assertIsNotNone(path, "not installed, or without its debug information")
        self.assert_same(path, compare.sample(path, 2000), least_inlined)

    def test_a_cxx_program_of_clang(self):
        self.assert_sample_same(programs.build_many(self.folder, 2, 4), 0.5)

    def test_a_rust_program(self):
        self.assert_sample_same(programs.build_rust(self.folder), 0.3)

    def test_libc(self):
        self.assert_sample_same(programs.find_libc(), 0.1)

    def test_python(self):
        self.assert_sample_same(programs.find_python(), 0.3)


class Bench(Case):
    def test_both_are_measured_and_compared(self):
        output = self.path("bench.json")
        command = [sys.executable, os.path.join(ROOT, "tools", "symbols_bench.py"), "--quick", "--programs", "libc"]
        tools = ["--alloctrace", ALLOCTRACE, "--dump", DUMP, "--spent", os.path.join(BUILD, "bench", "spent")]
        print(programs.run(*command, *tools, "--count", "200", "--output", output))
        with open(output) as file:
            found = json.load(file)["programs"]["libc"]
        for name in ("alloctrace", "llvm-symbolizer"):
            self.assertGreater(found["cpu_ns"][name][0], 0)
            self.assertGreater(found["memory_kib"][name][0], 4096)
        self.assertGreater(found["second_look"], 0)
        self.assertLess(found["second_look"], 1)
        answers = found["answers"]
        self.assertEqual(answers["compared"], 200)
        self.assertEqual(answers["unexplained"], [])


class Rules(unittest.TestCase):
    """What is no rule's business is not explained."""

    def test_wrong_answers_are_noticed(self):
        symbols = compare.Symbols(programs.find_libc())
        address = next(at for at, names in symbols.names.items() if "malloc" in names) + 1
        right = [Level("take", "/src/a.h", 3), Level("malloc", "/src/a.c", 5)]
        self.assertEqual(compare.explain(symbols, address, right, list(right)), [])
        for wrong in (
            [right[0], Level("calloc", "/src/a.c", 5)],  # another function
            [right[0], Level(compare.UNKNOWN, "/src/a.c", 5)],
            [Level("grab", "/src/a.h", 3), right[1]],
            [right[0], Level("malloc", "/src/a.c", 6)],
            [right[0], Level("malloc", "/src/b.c", 5)],
            [Level("take", "src/a.h", 3), right[1]],
            right[1:],  # a level less
            right[::-1],
            [Level(compare.UNKNOWN, compare.UNKNOWN, 0)],
        ):
            self.assertIsNone(compare.explain(symbols, address, wrong, right), wrong)
            self.assertIsNone(compare.explain(symbols, address, right, wrong), wrong)
        # What is known is not padding.
        nothing = [Level(compare.UNKNOWN, compare.UNKNOWN, 0)]
        self.assertIsNone(compare.explain(symbols, address, nothing, [Level(compare.UNKNOWN, "/src/a.c", 5)]))

    def test_the_usual_name_is_an_alias(self):
        symbols = compare.Symbols(programs.find_libc())
        address = next(at for at, names in symbols.names.items() if "malloc" in names) + 1
        ours, theirs = [Level("malloc", "/src/a.c", 5)], [Level("__libc_malloc", "/src/a.c", 5)]
        self.assertEqual(len(compare.explain(symbols, address, ours, theirs)), 1)
