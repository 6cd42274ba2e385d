"""Stacks are complete, on stock binaries and where unwinding is hard: they reach the thread's first frame.

What is hard is built here, and without frame pointers: tests/targets/Makefile keeps them in all that it builds.
"""

import os
import re
import shutil
import subprocess
import sys
import unittest

from lib import OK, ROOT, Case, Profile, read_text, wait_for

sys.path.insert(0, os.path.join(ROOT, "tools"))

import unwind_survey  # noqa: E402  (found by the line above)
from unwind_survey import Recorded, Walks, stacks_of  # noqa: E402

NO_CODE = "no code known at the return address"
NO_RULE = "no unwind rule, and no frame pointer"
TOO_DEEP = "deeper than the frame limit"
FRAMES_MAX = 240

FLAGS = [
    "-std=gnu11", "-O2", "-g", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-fno-builtin", "-pthread",
    "-D_GNU_SOURCE",
]  # fmt: skip


def build(name, folder, *options, compiler="cc", program=None):
    """Builds tests/targets/unwind_NAME.c without frame pointers; the path of the program."""
    program = os.path.join(folder, program or name)
    source = os.path.join(ROOT, "tests", "targets", f"unwind_{name}.c")
    done = subprocess.run([compiler, *FLAGS, *options, source, "-o", program], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    return program


class StockPrograms(Case):
    """Weighted by samples."""

    limit = 300

    def assert_complete(self, kind, cut=0):
        """All but a thousandth; `cut` is the share that may be deeper than what is kept of a stack."""
        if kind.missing():
            self.skipTest(kind.missing())
        with Recorded(kind) as (_, profile):
            walks = Walks(profile)
        self.assertGreaterEqual(walks.count, 10000, walks)
        if cut:
            self.assertLessEqual(walks.incomplete.pop(TOO_DEEP, 0), cut * walks.count, walks)
        self.assertLessEqual(sum(walks.incomplete.values()), (1 - kind.least) * walks.count, walks)
        self.assert_books_balance(profile)

    def test_stacks_of_a_stripped_program_are_complete(self):
        self.assert_complete(unwind_survey.Ledger)

    def test_stacks_of_redis_are_complete(self):
        self.assert_complete(unwind_survey.Redis)

    def test_stacks_of_python_are_complete(self):
        self.assert_complete(unwind_survey.Python)

    def test_stacks_of_sqlite_are_complete(self):
        self.assert_complete(unwind_survey.Sqlite)

    def test_stacks_of_nginx_are_complete(self):
        self.assert_complete(unwind_survey.Nginx)

    def test_stacks_of_a_postgres_backend_are_complete(self):
        self.assert_complete(unwind_survey.Postgres)

    def test_stacks_of_clang_are_complete(self):
        self.assert_complete(unwind_survey.Clang, cut=0.01)

    def test_stacks_of_node_are_complete(self):
        self.assert_complete(unwind_survey.Node)


class HardFrames(Case):
    def start(self, name, *arguments, options=(), **build_options):
        program = build(name, self.folder, *options, **build_options)
        return self.target(os.path.basename(program), *arguments, program_folder=self.folder)

    def record_until_done(self, target):
        """(profile, its walks) of all that the target does after its first line."""

        def work():
            target.say()
            self.assertEqual(target.next_line("done"), "done")

        profile, _, _ = self.record(target, "-s", "1", work=work)
        self.assert_books_balance(profile)
        return profile, Walks(profile)

    def stacks(self, profile, site):
        """{names of a stack that holds `site`, innermost first: allocations}"""
        found = {}
        for sample in profile.samples:
            names = tuple(frame.name for frame in sample.frames)
            if site in names:
                found[names] = found.get(names, 0) + sample.values[0]
        return found

    def assert_path(self, names, path):
        """`path` is in `names` in this order, at its start, and next to each other up to the first '...'."""
        left = list(names)
        skips = False
        for name in path:
            if name == "...":
                skips = True
                continue
            while skips and left and left[0] != name:
                left.pop(0)
            self.assertTrue(left and left[0] == name, f"{name} is not at its place in {names}")
            left.pop(0)
            skips = False

    def assert_only_path(self, profile, site, count, path):
        stacks = self.stacks(profile, site)
        self.assertEqual(sum(stacks.values()), count, stacks)
        for names in stacks:
            self.assert_path(names, path)
            self.assertTrue(names[-1] in ("_start", "_start_c"), names)

    # --- signals

    def test_stacks_go_through_signal_handlers_to_what_was_interrupted(self):
        for how in ("raise", "altstack"):
            with self.subTest(how):
                target = self.start("signal", how, "500")
                profile, walks = self.record_until_done(target)
                self.assertEqual(walks.incomplete, {})
                self.assertEqual(walks.count, 500)
                path = ("path_handler", "on_signal", "...", "path_raiser", "path_outer", "main")
                self.assert_only_path(profile, "path_handler", 500, path)

    def test_stacks_through_an_interrupt_anywhere_are_right_or_marked(self):
        target = self.start("signal", "timer", "400")
        profile, walks = self.record_until_done(target)
        right = 0
        for names, count in self.stacks(profile, "path_handler").items():
            self.assert_path(names, ("path_handler", "on_signal"))
            right += count if "path_outer" in names and names[-1] == "_start" else 0
        self.assertGreaterEqual(walks.count, 400)
        # The rest may be wrong, but says so.
        self.assertGreaterEqual(walks.unsure + sum(walks.incomplete.values()), walks.count - right)

    # --- threads

    def assert_threads_are_told_apart(self, *options, **build_options):
        target = self.start("thread", 3, 500, options=options, **build_options)
        profile, walks = self.record_until_done(target)
        in_threads = in_main = 0
        for names, count in self.stacks(profile, "path_site").items():
            self.assert_path(names, ("path_site", "path_middle"))
            in_threads += count if names[2] == "path_thread" else 0
            in_main += count if names[2] == "main" else 0
        self.assertEqual((in_threads, in_main), (1500, 500))
        return walks

    def test_threads_of_glibc_are_complete(self):
        self.assertEqual(self.assert_threads_are_told_apart().incomplete, {})

    def test_threads_of_a_static_program_are_complete(self):
        self.assertEqual(self.assert_threads_are_told_apart("-static").incomplete, {})

    # Its segments share pages of the file: a mapping begins in what belongs to another one.

    def test_threads_of_a_program_linked_by_lld_are_complete(self):
        self.assertEqual(self.assert_threads_are_told_apart("-fuse-ld=lld").incomplete, {})

    # musl says nothing of its own frames: a stack has all of the program's, and ends where musl called it.

    @unittest.skipUnless(shutil.which("musl-gcc"), "musl-gcc is not installed")
    def test_threads_of_musl_have_all_frames_of_the_program(self):
        self.assert_threads_are_told_apart(compiler="musl-gcc")

    @unittest.skipUnless(shutil.which("musl-gcc"), "musl-gcc is not installed")
    def test_threads_of_a_static_program_of_musl_have_all_frames_of_the_program(self):
        self.assert_threads_are_told_apart("-static", compiler="musl-gcc")

    # --- code that nothing is said about

    def test_code_without_rules_is_passed_by_its_frame_pointer_and_marked(self):
        for how in ("anonymous", "written"):
            with self.subTest(how):
                target = self.start("code", how, "500")
                profile, walks = self.record_until_done(target)
                self.assertEqual(walks.incomplete, {})
                self.assertEqual((walks.complete, walks.unsure), (500, 500))
                middle = "written_framed" if how == "written" else "..."
                self.assert_only_path(profile, "path_site", 500, ("path_site", middle, "path_caller", "main"))

    def test_code_without_rules_and_frame_pointer_ends_a_stack_with_its_reason(self):
        target = self.start("code", "bare", "500")
        profile, walks = self.record_until_done(target)
        self.assertEqual(walks.incomplete, {NO_RULE: 500})
        self.assertEqual(self.stacks(profile, "path_site"), {("path_site", "written_bare"): 500})

    # --- deep stacks

    def deep(self, target, depth):
        """(profile, walks) of ten allocations at this depth."""

        def work():
            target.say(f"{depth} 10")
            self.assertEqual(target.next_line("done"), "done")

        profile, _, _ = self.record(target, "-s", "1", work=work)
        return profile, Walks(profile)

    def test_stacks_are_cut_at_the_frame_limit_and_say_so(self):
        target = self.start("deep")
        profile, walks = self.deep(target, 50)
        self.assertEqual(walks.incomplete, {})
        [(addresses, _)] = stacks_of(profile)
        around = len(addresses) - 50
        # The deepest that fits, and one more.
        _, walks = self.deep(target, FRAMES_MAX - around)
        self.assertEqual((walks.complete, walks.incomplete), (10, {}))
        for depth in (FRAMES_MAX - around + 1, 1000):
            profile, walks = self.deep(target, depth)
            self.assertEqual((walks.complete, walks.incomplete), (0, {TOO_DEEP: 10}))
            [(addresses, sample)] = stacks_of(profile)
            self.assertEqual(len(addresses), FRAMES_MAX)
            names = [frame.name for frame in sample.frames]
            self.assertEqual(set(names[: FRAMES_MAX - around]), {"path_recurse"})

    # --- libraries that come later

    def wait_until_looked(self, tracer):
        """Until the tracer has been through its loop twice since now: it then knows what is mapped now."""
        for _ in range(2):
            before = self.switches(tracer)
            wait_for(lambda: self.is_polling(tracer) and self.switches(tracer) > before, "the tracer's next look")

    @staticmethod
    def switches(tracer):
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", read_text(f"/proc/{tracer.pid}/status"), re.M)[1])

    @staticmethod
    def is_polling(tracer):
        ppoll = {"x86_64": "271", "aarch64": "73"}[os.uname().machine]
        return read_text(f"/proc/{tracer.pid}/syscall").split()[0] == ppoll

    def load_plugins(self, *plugins):
        """(profile, where each was loaded)"""
        target = self.start("dlopen", *plugins)
        output = self.path("p.pb.gz")
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-d", "600s", "-o", output)
        tracer.wait_recording()
        places = []
        for _ in plugins:
            target.say()
            places.append(re.fullmatch("loaded (0x[0-9a-f]+)", target.next_line("loaded"))[1])
            self.wait_until_looked(tracer)
            target.say()
            self.assertEqual(target.next_line("done"), "done")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        return Profile.read(output), places

    def test_libraries_loaded_while_recording_get_complete_stacks(self):
        plugin = build("plugin", self.folder, "-shared", "-fPIC", program="plugin.so")
        profile, _ = self.load_plugins(plugin)
        self.assert_only_path(
            profile, "path_second", 1000, ("path_site", "path_second", "plugin_allocate", "main")
        )
        # What came before the library was known is there, and says why it is short.
        walks = Walks(profile)
        self.assertEqual(set(walks.incomplete) - {NO_CODE, "mappings changed during the walk"}, set(), walks)
        self.assertLessEqual(sum(walks.incomplete.values()), 100 + walks.count - 1100, walks)
        self.assertGreaterEqual(profile.totals()[0], 1100)

    def test_libraries_that_replace_others_get_complete_stacks(self):
        plugins = [
            build("plugin", self.folder, "-shared", "-fPIC", *wide, program=f"plugin{len(wide)}.so")
            for wide in ((), ("-DWIDE",))
        ]
        profile, places = self.load_plugins(*plugins)
        if places[0] != places[1]:
            self.skipTest("the second library was not loaded where the first had been")
        self.assert_only_path(
            profile, "path_second", 2000, ("path_site", "path_second", "plugin_allocate", "main")
        )


if __name__ == "__main__":
    unittest.main()
