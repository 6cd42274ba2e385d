"""Separate debug files: --debug-dir, and what -v tells of the search."""

import os
import re
import shutil
import subprocess
import unittest

from lib import NOTHING_TO_RECORD, OK, ROOT, TARGETS, USAGE, Case, Profile, read_bytes

FLAGS = ["-std=gnu11", "-O2", "-g", "-fno-optimize-sibling-calls", "-fno-builtin", "-D_GNU_SOURCE"]
BUILD_ID = "c0ffee" + 17 * "5a"
PLACE = f".build-id/{BUILD_ID[:2]}/{BUILD_ID[2:]}.debug"
DEBUG = "/usr/lib/debug"
# In a file's name: a line of our own, colours, a C1 control, the direction of writing, no UTF-8 at all.
HOSTILE = b"box\nalloctrace: \x1b[31mforged\x07 \xc2\x9b1m \xe2\x80\xae \xff\x9b\\n"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{command}: {done.stderr}")


class DebugFiles(Case):
    def build(self, build_id=BUILD_ID):
        """boxed: full, its debug file, and without both."""
        source = os.path.join(ROOT, "tests", "targets", "boxed.c")
        full, debug, image = (self.path(name) for name in ("full", "debug", "boxed"))
        run("cc", *FLAGS, f"-Wl,--build-id={'0x' + build_id if build_id else 'none'}", source, "-o", full)
        run("objcopy", "--only-keep-debug", full, debug)
        run("objcopy", "--strip-all", full, image)
        return full, debug, image

    def folder_of_debug_files(self, name, debug):
        path = self.path(f"{name}/{PLACE}")
        os.makedirs(os.path.dirname(path))
        shutil.copy(debug, path)
        return self.path(name)

    def record_boxed(self, *options, program="boxed"):
        target = self.target(program, program_folder=self.folder)

        def work():
            target.say("work")
            self.assertEqual(target.next_line(), "done")

        profile, _, result = self.record(target, "-s", "1", *options, work=work)
        return profile, result

    def names(self, profile):
        return {frame.name for sample in profile.samples for frame in sample.frames}

    def looks(self, result, image):
        """[(place, what came of it)]."""
        found = re.findall(r"^alloctrace: debug information of (.*?): (.*): (.*)$", result.stderr, re.M)
        return [(place, outcome) for path, place, outcome in found if path == image]

    # --- --debug-dir ---

    def test_folder_by_any_path(self):
        _, debug, image = self.build()
        folder = self.folder_of_debug_files("mine", debug)
        os.symlink(folder, self.path("link"))
        os.mkdir(self.path("empty"))
        for given, shown in (
            (folder, folder),
            (folder + "/", folder),
            ("mine", folder),
            ("./empty/../mine", folder),
            ("link", folder),
        ):
            with self.subTest(given):
                profile, result = self.record_boxed("--debug-dir", given)
                self.assertIn("plain_inner", self.names(profile))
                self.assertEqual(
                    self.looks(result, image), [("the file itself", "none"), (f"{shown}/{PLACE}", "found")]
                )

    def test_folders_in_the_order_in_which_they_are_given(self):
        _, debug, image = self.build()
        first = self.folder_of_debug_files("first", self.other_build())
        second = self.folder_of_debug_files("second", debug)
        profile, result = self.record_boxed("--debug-dir", first, f"--debug-dir={second}")
        self.assertIn("plain_inner", self.names(profile))
        self.assertEqual(
            self.looks(result, image)[1:],
            [(f"{first}/{PLACE}", "of another build"), (f"{second}/{PLACE}", "found")],
        )

    def other_build(self):
        os.mkdir(self.path("other"))
        other = self.path("other/debug")
        run("cc", *FLAGS, "-Wl,--build-id=0x1234", os.path.join(ROOT, "tests", "targets", "boxed.c"), "-o", other)
        return other

    def test_what_is_no_folder_is_a_usage_error(self):
        target = self.target("sleeper")
        open(self.path("file"), "w").close()
        os.symlink("nowhere", self.path("dangling"))
        os.mkfifo(self.path("fifo"))
        for given, message in (
            ("none", "No such file or directory"),
            ("/no/such/folder", "No such file or directory"),
            ("", "No such file or directory"),
            ("dangling", "No such file or directory"),
            ("file", "not a folder"),
            ("file/", "Not a directory"),
            ("fifo", "not a folder"),
            ("/dev/null", "not a folder"),
        ):
            with self.subTest(given):
                result = self.run_tracer("-p", target.pid, "-d", "600s", "--debug-dir", given)
                self.assertEqual(result.status, USAGE, result.text)
                self.assert_one_line(result)
                self.assertEqual(result.stderr, f"alloctrace: --debug-dir: {message}: '{given}'\n")
                self.assertEqual(result.stdout, "")
        result = self.run_tracer("-p", target.pid, "--debug-dir")
        self.assertEqual(result.status, USAGE, result.text)
        self.assert_one_line(result)

    def test_allocator_of_a_stripped_static_program_is_found_there(self):
        static, stripped = f"{TARGETS}/ledger_static", self.path("bare")
        run("objcopy", "--strip-all", static, stripped)
        notes = subprocess.run(["readelf", "-n", static], capture_output=True, text=True, check=True).stdout
        build_id = re.search(r"Build ID: (\w+)", notes).group(1)
        path = self.path(f"mine/.build-id/{build_id[:2]}/{build_id[2:]}.debug")
        os.makedirs(os.path.dirname(path))
        run("objcopy", "--only-keep-debug", static, path)
        target = self.target("bare", "--rounds", "10", program_folder=self.folder)
        self.assertEqual(self.run_tracer("-p", target.pid, "-d", "1s").status, NOTHING_TO_RECORD)
        profile, books, _ = self.record(target, "-s", "1", "--debug-dir", self.path("mine"))
        self.assert_exact(profile, books)

    # --- -v ---

    def test_each_place_is_told_with_what_came_of_it(self):
        full, debug, image = self.build()
        folder = self.folder
        run("objcopy", "--strip-all", "--add-gnu-debuglink=" + debug, full, self.path("linked"))
        run("objcopy", "--strip-debug", full, self.path("symbols"))
        os.unlink(debug)
        nothing = [("the file itself", "none"), (f"{DEBUG}/{PLACE}", "not there")]
        for program, expected in (
            ("full", [("the file itself", "found")]),
            ("boxed", nothing),
            ("symbols", nothing),
            (
                "linked",
                [
                    *nothing,
                    (f"{folder}/debug", "not there"),
                    (f"{folder}/.debug/debug", "not there"),
                    (f"{DEBUG}{folder}/debug", "not there"),
                ],
            ),
        ):
            with self.subTest(program):
                _, result = self.record_boxed(program=program)
                self.assertEqual(self.looks(result, self.path(program)), expected)

    def test_file_without_lines_is_told(self):
        full, debug, image = self.build()
        run("objcopy", "--only-keep-debug", "--strip-debug", full, debug)
        folder = self.folder_of_debug_files("mine", debug)
        profile, result = self.record_boxed("--debug-dir", folder)
        self.assertIn("plain_outer", self.names(profile))
        self.assertEqual(
            self.looks(result, image),
            [("the file itself", "none"), (f"{folder}/{PLACE}", "found"), ("lines in what was found", "none")],
        )

    def test_compressed_symbols_are_told(self):
        full, debug, image = self.build()
        run("objcopy", "--only-keep-debug", "--strip-debug", full, debug)
        run("xz", "-q", debug)
        for contents, outcomes in (
            (debug + ".xz", [(".gnu_debugdata", "found"), ("lines in what was found", "none")]),
            (full, [(".gnu_debugdata", "broken")]),
        ):
            with self.subTest(outcomes[0][1]):
                program = f"carries_{outcomes[0][1]}"
                run("objcopy", "--add-section", f".gnu_debugdata={contents}", image, self.path(program))
                _, result = self.record_boxed(program=program)
                self.assertEqual(self.looks(result, self.path(program))[2:], outcomes)

    def test_nothing_is_told_without_it(self):
        self.build()
        target = self.target("boxed", program_folder=self.folder)
        result = self.run_tracer("-p", target.pid, "-d", "100ms", "-o", self.path("out.pb.gz"))
        self.assertEqual((result.status, result.stderr), (OK, ""), result.text)

    # --- hostile names ---

    def assert_harmless(self, text, context):
        """Nothing in it steers a terminal, or begins a line that is not ours."""
        text = text.decode("utf-8")  # and it is valid
        self.assertEqual(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), [], context)
        self.assertNotRegex(text, r"(?m)^alloctrace: .?forged")

    def test_names_of_files_cannot_steer_a_terminal(self):
        # The program, its library, their folder, and the debug file that it names.
        full, debug, _ = self.build()
        # /proc/PID/maps shows a line feed as \\012, and a backslash as it is: such a folder is not found again.
        folder = os.path.join(os.fsencode(self.folder), HOSTILE.replace(b"\n", b" "))
        os.mkdir(folder)
        os.rename(debug, os.path.join(folder, HOSTILE))
        program = os.path.join(folder, HOSTILE[:100] + b".bin")
        run("objcopy", "--strip-all", b"--add-gnu-debuglink=" + os.path.join(folder, HOSTILE), full, program)
        library = os.path.join(folder, HOSTILE + b".so")
        shutil.copy(f"{TARGETS}/boxed_library.so", library)
        run("objcopy", "--strip-all", library)
        for place in ("beside", "gone"):
            for form, options in (("pprof", []), ("text", ["-f", "text"]), ("folded", ["-f", "folded"])):
                with self.subTest(f"{place}, {form}"):
                    if place == "gone" and os.path.exists(os.path.join(folder, HOSTILE)):
                        os.unlink(os.path.join(folder, HOSTILE))
                    target = self.target(os.fsdecode(program), os.fsdecode(library), program_folder="/")
                    output = self.path(f"out.{place}.{form}")
                    tracer = self.tracer("-v", "-s", "1", "-d", "600s", "-p", target.pid, "-o", output, *options)
                    tracer.wait_recording()
                    target.say("work")
                    self.assertEqual(target.next_line(), "done")
                    self.assertEqual(tracer.stop(), OK, tracer.describe())
                    errors = read_bytes(tracer.err.name)
                    self.assert_harmless(errors, "stderr")
                    self.assert_harmless(read_bytes(tracer.out.name), "stdout")
                    self.assertIn(b"debug information of ", errors)
                    self.assertIn(b"\\x1B[31mforged\\x07 \\xC2\\x9B1m \\xE2\\x80\\xAE \\xFF\\x9B\\\\n", errors)
                    if form == "pprof":
                        profile = Profile.read(output)
                        self.assertEqual("plain_inner" in self.names(profile), place == "beside")
                        for name in self.names(profile):
                            self.assert_harmless(name.encode(), "a name")
                    else:
                        self.assert_harmless(read_bytes(output), "the output")

    def test_name_of_an_allocator_cannot_steer_a_terminal(self):
        program = os.path.join(os.fsencode(self.folder), HOSTILE)
        shutil.copy(f"{TARGETS}/ledger_static", program)
        target = self.target(os.fsdecode(program), program_folder="/")
        tracer = self.tracer("-v", "-s", "1", "-d", "600s", "-p", target.pid, "-o", self.path("out.pb.gz"))
        tracer.wait_recording()
        target.work()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        errors = read_bytes(tracer.err.name)
        self.assert_harmless(errors, "stderr")
        self.assert_harmless(read_bytes(tracer.out.name), "stdout")
        self.assertRegex(errors, rb"(?m)^alloctrace: process \d+: probes in .*\\x1B\[31mforged")


if __name__ == "__main__":
    unittest.main()
