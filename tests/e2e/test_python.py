"""Python functions in stacks: those that the interpreter itself tells of, with their files and lines."""

import glob
import json
import os
import re
import shutil
import subprocess
import unittest

from lib import LIMIT, OK, ROOT, Case, Profile, pprof, wait_for

VERSIONS = ("3.11", "3.12", "3.13")
SCRIPT = os.path.join(ROOT, "tests", "targets", "python_ledger.py")


def interpreters():
    """{path: version} of what there is, each once: in PATH, and of pyenv."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    names = [f"/usr/bin/python{version}" for version in VERSIONS]
    names += [shutil.which(f"python{version}") for version in VERSIONS]
    names += sorted(glob.glob(f"{pyenv}/versions/3.1[123].*/bin/python3"))
    program = "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2])"
    found = {}
    for name in names:
        if not name or not os.path.exists(name):
            continue
        done = subprocess.run([name, "-c", program], capture_output=True, text=True, timeout=LIMIT)
        if done.returncode == 0:
            path, version = done.stdout.split()
            found[os.path.realpath(path)] = version
    return found


class Python(Case):
    def interpreters(self):
        found = [path for path, version in interpreters().items() if version in VERSIONS]
        if not found:
            self.skipTest(f"no Python {', '.join(VERSIONS)}")
        return found

    def start(self, interpreter, count):
        folder, name = os.path.split(interpreter)
        return self.target(name, SCRIPT, count, program_folder=folder)

    def work(self, target):
        target.say()
        return json.loads(target.next_line("the books"))

    def assert_stacks(self, profile, books):
        wrong = []
        for entry in books:
            samples = [sample for sample in profile.samples if sample.labels["bytes"] == entry["size"]]
            count = sum(sample.values[0] for sample in samples)
            if count != entry["count"]:
                wrong.append(f"{entry['size']}: {count} of {entry['count']}")
            expected = [tuple(frame) for frame in entry["stack"]]
            for sample in samples:
                found = [
                    (frame.name, frame.file, frame.line)
                    for frame in sample.frames
                    if frame.file.endswith(".py") or frame.file.startswith("<")
                ]
                if len(expected) > 500:  # more than are kept
                    self.assertGreater(len(found), 200)
                    expected = expected[: len(found)]
                if found != expected:
                    wrong.append(f"{entry['size']}: {found}, in truth {expected}")
                evaluating = [frame for frame in sample.frames if frame.name == "_PyEval_EvalFrameDefault"]
                if evaluating:
                    wrong.append(f"{entry['size']}: a frame of the interpreter's loop is left")
        self.assertFalse(wrong, "\n".join(wrong))
        self.assertEqual(len(books), 17)

    def test_stacks_are_those_of_the_interpreter(self):
        for interpreter in self.interpreters():
            with self.subTest(interpreter):
                target = self.start(interpreter, 30)
                profile, books, _ = self.record(target, "-s", "1", work=lambda: self.work(target))
                self.assert_stacks(profile, books)
                self.assert_nothing_lost(profile)

    def test_functions_of_a_process_that_has_ended_have_names(self):
        for interpreter in self.interpreters():
            with self.subTest(interpreter):
                target = self.start(interpreter, 30)
                output = self.path("ended.pb.gz")
                tracer = self.tracer("-v", "-p", target.pid, "-d", "600s", "-s", "1", "-o", output)
                tracer.wait_recording()
                books = self.work(target)
                names = {(name, file) for entry in books for name, file, _ in entry["stack"]}
                tracer.wait_until(lambda: self.known(tracer) >= len(names), "the names to be known")
                target.say()
                self.assertEqual(target.wait(), 0, target.describe())
                self.assertEqual(tracer.wait(), OK, tracer.describe())
                self.assert_stacks(Profile.read(output), books)

    def known(self, tracer):
        """How many functions it says that it knows."""
        counts = re.findall(r"process \d+: (\d+) Python functions\n", tracer.stderr)
        return max(map(int, counts), default=0)

    def test_a_python_that_is_started_by_alloctrace_has_names(self):
        for interpreter in self.interpreters():
            with self.subTest(interpreter):
                output = self.path("started.pb.gz")
                command = (interpreter, SCRIPT, "3")
                tracer = self.tracer("-s", "1", "-o", output, "--", *command, stdin=subprocess.PIPE)
                wait_for(lambda: "ready" in tracer.stdout, "the command")
                tracer.process.stdin.write(b"go\n")
                tracer.process.stdin.flush()
                line = tracer.wait_until(lambda: re.findall(r"^\[.*\n", tracer.stdout, re.M), "the books")[0]
                books = json.loads(line)
                self.assertEqual(tracer.stop(), OK, tracer.describe())
                profile = Profile.read(output)
                self.assert_stacks(profile, books)

    def test_summary_names_python_functions_not_those_of_the_interpreter(self):
        for interpreter in self.interpreters():
            with self.subTest(interpreter):
                target = self.start(interpreter, 10)
                _, books, result = self.record(target, "-s", "1", "-T", "1000", work=lambda: self.work(target))
                for entry in books:
                    name, file, line = entry["stack"][0]
                    self.assertRegex(result.stdout, rf"(?m)^ {{8}}{re.escape(name)}  {re.escape(file)}:{line}$")

    def test_pprof_shows_functions_and_lines(self):
        for interpreter in self.interpreters():
            with self.subTest(interpreter):
                target = self.start(interpreter, 10)
                _, books, result = self.record(target, "-s", "1", work=lambda: self.work(target))
                status, stdout, stderr = pprof(
                    "-sample_index=alloc_objects", "-list=^Shop.method$", result.path, folder=self.folder
                )
                self.assertEqual((status, stderr), (0, ""))
                self.assertIn(f"ROUTINE ======================== Shop.method in {SCRIPT}", stdout)
                self.assertRegex(stdout, r"\n +\. +\d+ +\d+: +note\(bytearray\(20000\)\)")
                status, stdout, stderr = pprof(
                    "-sample_index=alloc_objects", "-top", "-nodecount=5000", "-nodefraction=0",
                    result.path, folder=self.folder
                )
                self.assertEqual((status, stderr), (0, ""))
                names = ("<module>", "nested.<locals>.inner", "recurse.<locals>.<lambda>", "grüße", "made", "far")
                for name in names:
                    self.assertRegex(stdout, rf"\s{name.replace('.', '[.]')}\n")


if __name__ == "__main__":
    unittest.main()
