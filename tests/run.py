#!/usr/bin/python3
"""Runs every test of alloctrace: the cmocka programs, the format check, and the end-to-end tests.

    tests/run.py --build build --alloctrace alloctrace [-k PATTERN] [-v]

One line per test while it runs, what a failed one printed, and as the very last line
    N passed, N failed, N skipped
The exit status is 1 if anything failed, or if nothing ran.

Every test has a time limit, after which its whole process group is killed: a hanging tracer or target
fails one test and no more. End-to-end tests run in a process of their own, one per file, which tells
over a pipe what it starts and how that ended (see run_e2e_child); when that process dies or hangs, the
test at hand has failed, and a new one goes on with the next.
"""

import argparse
import glob
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unittest

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)

UNIT_LIMIT = 120  # seconds for one cmocka program
E2E_LIMIT = 120  # seconds for one end-to-end test, unless its class says otherwise with `limit`
FORMAT_LIMIT = 120


class Results:
    """Prints as it goes, and counts."""

    def __init__(self, pattern, verbose):
        self.pattern = re.compile(pattern, re.IGNORECASE) if pattern else None
        self.verbose = verbose
        self.passed = 0
        self.failed = []
        self.skipped = 0

    def wanted(self, *names):
        return not self.pattern or any(self.pattern.search(name) for name in names)

    def add(self, name, outcome, detail="", seconds=None):
        took = f"  ({seconds:.1f} s)" if seconds is not None and seconds >= 0.1 else ""
        if outcome == "skip":
            self.skipped += 1
            reason = f": {detail.strip()}" if detail.strip() else ""
            print(f"skip  {name}{reason}", flush=True)
            return
        if outcome == "ok":
            self.passed += 1
            print(f"ok    {name}{took}", flush=True)
        else:
            self.failed.append(name)
            print(f"FAIL  {name}{took}", flush=True)
        if detail.strip() and (outcome != "ok" or self.verbose):
            for line in detail.rstrip("\n").split("\n"):
                print(f"      | {line}")
            sys.stdout.flush()

    def close(self):
        if len(self.failed) > 1:
            print("failed:")
            for name in self.failed:
                print(f"  {name}")
        if not self.passed and not self.failed:
            print("no test ran")
        print(f"{self.passed} passed, {len(self.failed)} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed or not self.passed else 0


def kill_group(pid):
    """Ends everything that was started in the process group of `pid`."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def run_limited(command, limit, **options):
    """(status or None after the limit, stdout and stderr together as text)."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **options,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        status = process.returncode
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        output, _ = process.communicate()
        status = None
    finally:
        kill_group(process.pid)
    return status, output.decode(errors="replace")


def describe(status):
    if status is None:
        return "ran into the time limit"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


# --- cmocka programs -----------------------------------------------------------------------------

RESULT = re.compile(r"^(ok|not ok) (\d+) (?:(# SKIP) ?|- )(.*)$")


def parse_tap(output):
    """(tests announced, [(name, outcome, detail)]) of what cmocka 1.1 prints with TAP.

    What a test prints comes before its line, cmocka's own findings after it, behind '#'. A skipped
    test is 'not ok N # SKIP name'. Each group of tests has a plan of its own.
    """
    announced = 0
    results = []
    before = []
    for line in output.split("\n"):
        plan = re.match(r"^1\.\.(\d+)$", line)
        result = RESULT.match(line)
        if plan:
            announced += int(plan.group(1))
        elif result:
            outcome = "skip" if result.group(3) else "ok" if result.group(1) == "ok" else "fail"
            results.append([result.group(4), outcome, "" if outcome == "skip" else "\n".join(before)])
            before = []
        elif line.startswith("# not ok - "):
            pass  # the group: its tests tell
        elif line.startswith("#") and results:
            if results[-1][1] == "fail":
                results[-1][2] += "\n" + line
        elif line:
            before.append(line)
    return announced, results, "\n".join(before)


def may_have_wanted(path, program, results):
    """Is it worth running? A program's source tells the names of its tests without running it."""
    source = os.path.join(TESTS, "unit", os.path.basename(path) + ".c")
    if results.wanted(program) or not os.path.exists(source):
        return True
    with open(source) as file:
        names = re.findall(r"cmocka_unit_test\w*\(\s*(\w+)", file.read())
    return any(results.wanted(f"{program}: {name}") for name in names)


def run_unit_program(path, results):
    program = "unit/" + os.path.basename(path)
    if not may_have_wanted(path, program, results):
        return
    started = time.monotonic()
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    status, output = run_limited([path], UNIT_LIMIT, env=environment, cwd=ROOT)
    seconds = time.monotonic() - started
    announced, tests, rest = parse_tap(output)
    for name, outcome, detail in tests:
        if results.wanted(f"{program}: {name}"):
            results.add(f"{program}: {name}", outcome, detail)
    if not results.wanted(program) and not any(results.wanted(f"{program}: {t[0]}") for t in tests):
        return
    # All that the single lines do not tell: a crash, a missing test, a failing group fixture.
    broken = None
    if status is None or status < 0:
        broken = describe(status)
    elif not announced:
        broken = f"no plan in its output, {describe(status)}"
    elif announced != len(tests):
        broken = f"{announced} tests announced, {len(tests)} reported, {describe(status)}"
    elif status and not any(t[1] == "fail" for t in tests):
        broken = f"{describe(status)} though no test failed"
    if broken:
        results.add(f"{program}: runs to its end", "fail", f"{broken}\n{rest or output}", seconds)


def run_unit_tests(build, results):
    for path in sorted(glob.glob(os.path.join(build, "tests", "test_*"))):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            run_unit_program(path, results)


# --- format --------------------------------------------------------------------------------------


def run_format_check(results):
    name = "sources are formatted"
    if not results.wanted(name):
        return
    if not shutil.which("clang-format"):
        results.add(name, "skip", "clang-format is not installed")
        return
    sources = []
    for folder in ("bpf", "include", "user", "tests"):
        for pattern in ("*.c", "*.h", "*.cc"):
            sources += glob.glob(os.path.join(ROOT, folder, "**", pattern), recursive=True)
    sources = sorted(os.path.relpath(path, ROOT) for path in sources)
    status, output = run_limited(
        ["clang-format", "--dry-run", "-Werror", *sources], FORMAT_LIMIT, cwd=ROOT
    )
    bad = sorted({line.split(":")[0] for line in output.split("\n") if "error: code should be" in line})
    if status == 0:
        results.add(name, "ok")
    elif bad:
        results.add(name, "fail", "make format would change:\n" + "\n".join(bad))
    else:
        results.add(name, "fail", f"{describe(status)}\n{output}")


# --- end-to-end tests ----------------------------------------------------------------------------


def load_tests(path):
    """Every test of a file, in the order it is written there (as far as unittest keeps it)."""
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

    def flatten(suite):
        for item in suite:
            if isinstance(item, unittest.TestSuite):
                yield from flatten(item)
            else:
                yield item

    return list(flatten(unittest.defaultTestLoader.loadTestsFromModule(module)))


def display_name(test_id):
    """test_exact.Exact.test_every_figure -> e2e/test_exact: every figure"""
    parts = test_id.split(".")
    return f"e2e/{parts[0]}: {re.sub('^test_', '', parts[-1]).replace('_', ' ')}"


class ChildResult(unittest.TestResult):
    """Sends what happens through a pipe, a line of JSON each."""

    def __init__(self, pipe):
        super().__init__()
        self.pipe = pipe
        self.details = []
        self.outcome = "ok"

    def send(self, **message):
        # How much has been printed, so that the parent, who reads this later, can tell whose it is.
        sys.stdout.flush()
        sys.stderr.flush()
        message["printed"] = os.lseek(sys.stdout.fileno(), 0, os.SEEK_CUR)
        self.pipe.write(json.dumps(message) + "\n")
        self.pipe.flush()

    def startTest(self, test):
        super().startTest(test)
        self.details = []
        self.outcome = "ok"
        self.send(start=test.id(), limit=getattr(test, "limit", E2E_LIMIT))

    def stopTest(self, test):
        super().stopTest(test)
        self.send(end=test.id(), outcome=self.outcome, detail="\n".join(self.details))

    def report(self, test, outcome, detail):
        if not isinstance(test, unittest.TestCase) and not hasattr(test, "test_case"):
            # Set-up of a whole class or file: it stands for all of its tests.
            self.send(fixture=test.id(), outcome=outcome, detail=detail)
            return
        if self.outcome != "fail":
            self.outcome = outcome
        self.details.append(detail)

    def addError(self, test, err):
        self.report(test, "fail", "".join(traceback.format_exception(*err)))

    addFailure = addError

    def addSkip(self, test, reason):
        self.report(test, "skip", reason)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.report(
                test, "fail", f"{subtest._subDescription()}\n" + "".join(traceback.format_exception(*err))
            )

    def addExpectedFailure(self, test, err):
        self.report(test, "fail", "expected failures are not used here")

    def addUnexpectedSuccess(self, test):
        self.report(test, "fail", "expected failures are not used here")


def run_e2e_child(path, pipe, wanted):
    """In the child: runs the wanted tests of one file."""
    tests = [test for test in load_tests(path) if test.id() in wanted]
    with os.fdopen(pipe, "w") as file:
        unittest.TestSuite(tests).run(ChildResult(file))


def printed(output, start, end=1 << 20):
    """What stands in a file between two positions; not all of it if it is much too much."""
    return os.pread(output.fileno(), min(max(0, end - start), 1 << 20), start).decode(errors="replace")


class E2eRun:
    """In the parent: one child after the other, until every test of the file has an outcome."""

    def __init__(self, path, ids, environment, results):
        self.path = path
        self.left = list(ids)
        self.environment = environment
        self.results = results

    def finish(self, test_id, outcome, detail, seconds=None):
        if test_id in self.left:
            self.left.remove(test_id)
            self.results.add(display_name(test_id), outcome, detail, seconds)

    def run(self):
        while self.left:
            before = len(self.left)
            self.run_child()
            if len(self.left) == before:
                for test_id in list(self.left):
                    self.finish(test_id, "fail", "did not run")

    def run_child(self):
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as output:
            child = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), "--e2e-child", self.path, str(writing), *self.left],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,
                env=self.environment,
                cwd=ROOT,
            )
            os.close(writing)
            try:
                self.follow(child, reading, output)
            finally:
                kill_group(child.pid)
                child.wait()
                os.close(reading)

    def follow(self, child, pipe, output):
        current = None
        first = 0  # where what the current test prints begins
        started = time.monotonic()
        deadline = started + E2E_LIMIT
        pending = b""
        while True:
            readable, _, _ = select.select([pipe], [], [], max(0, deadline - time.monotonic()))
            if not readable:
                self.interrupted(current, "ran into the time limit", printed(output, first), started)
                return
            chunk = os.read(pipe, 65536)
            if not chunk:
                break
            *lines, pending = (pending + chunk).split(b"\n")
            for message in map(json.loads, lines):
                if "start" in message:
                    current = message["start"]
                    first = message["printed"]
                    started = time.monotonic()
                    deadline = started + message["limit"]
                elif "end" in message:
                    seconds = time.monotonic() - started
                    detail = message["detail"]
                    text = printed(output, first, message["printed"])
                    if message["outcome"] != "skip" and text:
                        detail += "\n--- printed:\n" + text
                    self.finish(message["end"], message["outcome"], detail, seconds)
                    current = None
                    deadline = time.monotonic() + E2E_LIMIT
                else:
                    self.fixture(message)
        # It has closed the pipe, so it is at its end, or has been killed.
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            kill_group(child.pid)
            child.wait()
        if current or child.returncode:
            why = f"the test's process: {describe(child.returncode)}"
            self.interrupted(current, why, printed(output, first), started)

    def interrupted(self, current, why, text, started):
        culprit = current or (self.left[0] if self.left else None)
        if culprit:
            self.finish(culprit, "fail", f"{why}\n{text}", time.monotonic() - started)

    def fixture(self, message):
        """setUpClass (test_x.Class) or setUpModule (test_x) failed or skips: so do its tests."""
        scope = re.search(r"\((.*)\)", message["fixture"])
        scope = scope.group(1) if scope else ""
        for test_id in [t for t in self.left if t.startswith(scope + ".")]:
            self.finish(test_id, message["outcome"], message["detail"])


def run_e2e_tests(build, alloctrace, results):
    # What a killed test leaves behind goes with the folder.
    with tempfile.TemporaryDirectory(prefix="alloctrace-tests.") as folder:
        os.chmod(folder, 0o755)  # some tests run programs as somebody else
        run_e2e_files(build, alloctrace, folder, results)


def run_e2e_files(build, alloctrace, folder, results):
    environment = dict(
        os.environ,
        ALLOCTRACE=os.path.abspath(alloctrace),
        ALLOCTRACE_TARGETS=os.path.join(os.path.abspath(build), "targets"),
        TMPDIR=folder,
        PYTHONDONTWRITEBYTECODE="1",
    )
    sys.dont_write_bytecode = True
    for path in sorted(glob.glob(os.path.join(TESTS, "e2e", "test_*.py"))):
        file = os.path.splitext(os.path.basename(path))[0]
        try:
            ids = [test.id() for test in load_tests(path)]
        except Exception:
            if results.wanted(f"e2e/{file}"):
                results.add(f"e2e/{file}: loads", "fail", traceback.format_exc())
            continue
        ids = [test_id for test_id in ids if results.wanted(test_id, display_name(test_id))]
        if os.geteuid() != 0:
            for test_id in ids:
                results.add(display_name(test_id), "skip", "needs root")
        else:
            E2eRun(path, ids, environment, results).run()


def main():
    # A shell's jobs in the background ignore it, and so would all that is to be ended by it here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[1:2] == ["--e2e-child"]:
        run_e2e_child(sys.argv[2], int(sys.argv[3]), set(sys.argv[4:]))
        return 0
    parser = argparse.ArgumentParser(description="Runs every test of alloctrace.")
    parser.add_argument("--build", default="build", help="the build folder")
    parser.add_argument("--alloctrace", default="alloctrace", help="the program to be tested")
    parser.add_argument("-k", metavar="PATTERN", help="only tests whose name matches (regular expression)")
    parser.add_argument("-v", action="store_true", help="print what passing tests printed, too")
    options = parser.parse_args()

    # Ended from outside: leave no child behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results(options.k, options.v)
    run_unit_tests(options.build, results)
    run_format_check(results)
    run_e2e_tests(options.build, options.alloctrace, results)
    return results.close()


if __name__ == "__main__":
    sys.exit(main())
