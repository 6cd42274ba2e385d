#!/usr/bin/python3
"""Boots kernels with an initramfs that traces the ledger, and judges what comes back.

    boot.py FOLDER

FOLDER has initramfs.gz and kernels.list, whose lines are NAME, PATH of an image (or nothing), and WHY there
is none, between tabs. Each kernel's consoles stay in FOLDER/NAME.console and FOLDER/NAME.results.
"""

import base64
import concurrent.futures
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

from lib import KERNEL_TOO_OLD, OK, Case, Profile, parse_books  # noqa: E402

LIMIT = 600  # seconds for one machine, from power on to power off

# Since when kernels have what each way of attaching needs. uprobe_multi came with 6.6, but its filter let
# one thread through only until 6.10; stable kernels in between may or may not have the correction.
OLDEST = (6, 1)
SINCE = {"session": (6, 13), "multi": (6, 10), "perf": OLDEST}
MAYBE_SINCE = {"multi": (6, 6)}
KINDS = ("session", "multi", "perf")
RUNS = KINDS + ("auto", "mmap", "watched", "command", "followed", "heap_all")

# What is traced by every kind of probes that there is, with an allocator preloaded that has operators new
# itself.
GUARDED_RUNS = (
    "tcmalloc_ledger",
    "tcmalloc_ledger_throws",
    "jemalloc_ledger_throws",
    "tcmalloc_throws",
    "tcmalloc_killed",
)
GUARDED = "what may throw is guarded"

# What a kernel says when something in it is wrong, whoever is to blame.
KERNEL_COMPLAINTS = re.compile(r"BUG:|WARNING: |Oops|general protection|Kernel panic|UBSAN|KASAN|Call Trace")


def boot(image, initramfs, console, results):
    """True if the machine switched itself off in time."""
    # Not left behind if this process is killed.
    command = ["setpriv", "--pdeathsig", "KILL"]
    command += ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
    # Emulated: KVM may not be there, and where it is nested it may hang. One thread for all processors,
    # because breakpoints, which uprobes are, are not safe against other threads of the emulator. Without
    # cmpxchg16b: with it, kernels on QEMU 7.2 now and then find garbage in their flags, and crash at boot.
    command += ["-accel", "tcg,thread=single", "-cpu", "max,-cx16", "-smp", "2", "-m", "1024"]
    command += ["-kernel", image, "-initrd", initramfs, "-append", "console=ttyS0 panic=-1 quiet"]
    command += ["-serial", f"file:{console}", "-serial", f"file:{results}"]
    with open(f"{console}.qemu", "w") as errors:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=errors, timeout=LIMIT)
            return done.returncode == 0
        except subprocess.TimeoutExpired:
            return False


def read_results(path):
    """{name of a run: {name of a file: its bytes}} of the runs that were handed over whole."""
    with open(path, errors="replace") as file:
        text = file.read().replace("\r", "")
    found = {}
    for name, encoded in re.findall(r"^begin (\w+)\n(.*?)^end \1$", text, re.MULTILINE | re.DOTALL):
        archive = tarfile.open(fileobj=io.BytesIO(base64.b64decode(encoded)))
        found[name] = {
            os.path.basename(member.name): archive.extractfile(member).read()
            for member in archive.getmembers()
            if member.isfile()
        }
    return found


class Failure(Exception):
    pass


def shortened(text, lines=10):
    found = text.split("\n")
    more = [f"and {len(found) - lines} lines more"] if len(found) > lines else []
    return "\n".join(found[:lines] + more)


class Run:
    """One run of the tracer in the machine."""

    def __init__(self, name, files):
        self.name = name
        self.files = files
        self.status = int(self.text("status"))

    def text(self, name):
        return self.files.get(name, b"").decode(errors="replace")

    def details(self):
        parts = [f"exit status {self.status}"]
        for name in ("stderr", "stderr.plain"):
            if self.text(name).strip():
                parts.append(f"--- {name}\n{self.text(name).strip()}")
        return "\n".join(parts)

    def require(self, condition, what):
        if not condition:
            raise Failure(f"{what}\n{self.details()}")

    def refused(self):
        """Was this way of attaching refused as it should be: own exit status, one line, nothing else?"""
        self.require(self.status == KERNEL_TOO_OLD, f"exit status {self.status} and not {KERNEL_TOO_OLD}")
        self.require(int(self.text("status.plain")) == KERNEL_TOO_OLD, "another exit status without -v")
        plain = self.text("stderr.plain")
        self.require(re.fullmatch(r"alloctrace: [^\n]+\n", plain), "not one line on stderr")
        self.require(not self.text("stdout.plain"), "something on stdout")
        return "refused"

    def profile(self):
        self.require(self.status == OK, "failed")
        self.require("profile.pb.gz" in self.files, "no profile")
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.files["profile.pb.gz"])
            file.flush()
            return Profile.read(file.name)

    def books(self):
        books = [line for line in self.text("books").split("\n") if line.startswith("{")]
        self.require(books, "no books of the ledger")
        return parse_books(books[0])

    def exact(self, kinds):
        """Did it attach by one of these kinds, with the ledger's figures and whole stacks?"""
        profile = self.profile()
        kind = next((c[len("# attached by: ") :] for c in profile.comments if "# attached by: " in c), None)
        self.require(kind in kinds, f"attached by {kind} and not by {' or '.join(kinds)}")
        self.check_figures(profile, self.books())
        self.check_stacks(profile)
        return kind

    def guarded(self, program):
        """Did a program live whose allocator lets exceptions pass, and was all of it counted?"""
        # How each ends on the signal that it is sent when all is over.
        expected = 128 + signal.SIGTERM if "ledger" in program else 0
        end = int(self.text("target.status"))
        self.require(end == expected, f"the target's status: {end}\n{self.text('target.err')}")
        if program == "killed":
            self.require(self.status == 128 + signal.SIGKILL, "the tracer was not killed")
            self.require("alloctrace: recording\n" in self.text("stderr"), "it was not recorded")
            self.require(int(self.text("caught")), "no exception was caught")
            return
        profile = self.profile()
        self.require([c for c in profile.comments if c.endswith(GUARDED)], f"no allocator of which {GUARDED}")
        if program == "throws":
            self.check_throws(profile)
            return
        books = self.books()
        self.check_figures(profile, books)
        self.check_stacks(profile)
        if program == "ledger_throws":
            # Twice a round calm, 8 times failing.
            rounds = books["calm"][0] / 2
            failed = profile.counter("sampled calls that allocated nothing")
            self.require(failed == 8 * rounds, f"{failed} calls failed in {rounds} rounds")
            watched = int(self.text("watched") or rounds)
            self.require(watched == rounds, f"another tracer has seen {watched} of {rounds} returns")

    def check_throws(self, profile):
        """It was in the middle of something when the recording began, and when it ended."""
        sites, losses = profile.sites(), profile.losses()
        lost = sum(losses.values())
        unfinished = losses["call not finished at the end"]
        self.require(lost == unfinished <= 1, f"lost: {losses}")
        failed = profile.counter("sampled calls that allocated nothing")
        calm = sites.get("calm", (0, 0, 0, 0))
        self.require(failed >= 100, f"failed: {failed}")
        self.require(abs(calm[0] - failed) <= 2, f"calm: {calm}, failed: {failed}")
        self.require(calm[2] <= 1, f"calm: {calm}")

    def check_figures(self, profile, books):
        checks = Case()
        checks.longMessage = False
        if self.name == "mmap":
            heap, profile = profile.only(None), profile.only("mmap")
            self.require("load" in heap.sites(), "the load has allocated nothing")
        lost = {reason: count for reason, count in profile.losses().items() if count}
        try:
            checks.assert_books(profile, books)
            checks.assert_books_balance(profile)
        except AssertionError as error:
            raise Failure(f"lost: {lost}\n{shortened(str(error))}\n{self.details()}") from None
        self.require(not lost, f"lost: {lost}")
        # Only a program's own start allocates outside of the ledger's sites, and who throws: what is thrown.
        others = [name for name in profile.sites() if name not in books]
        for name in [name for name in others if name and name.startswith("fail_")]:
            figures = profile.sites()[name]
            self.require(figures[2] == 0, f"{name}: {figures}")
            others.remove(name)
        allowed = ([], [None]) if self.name in ("command", "followed") else ([],)
        self.require(others in allowed, f"other sites: {others}, {profile.unnamed()}")

    def check_stacks(self, profile):
        complete, recorded = profile.counter("stacks: complete"), profile.counter("recorded")
        ends = {name: count for name, count in profile.counters().items() if name.startswith("stacks: ")}
        walks = "\n".join(f"{name}: {count}" for name, count in ends.items() if count)
        # What a followed program does before its code is known has no stack.
        if self.name != "followed":
            self.require(complete == recorded, f"of {recorded} stacks {complete} are complete\n{walks}")
        self.require(not profile.counter("stacks: with a frame found without a rule"), walks)
        for sample in profile.samples:
            name = profile.site_of(sample)
            frames = [frame.name for frame in sample.frames]
            path = [f"site_{name}"] if self.name == "mmap" else [f"site_{name}", f"mid_{name}", f"path_{name}"]
            if name and name.startswith("fail_"):
                path.remove(f"mid_{name}")
            whole = any(frames[i : i + len(path)] == path for i in range(len(frames)))
            self.require(name is None or whole, f"a stack of {name}: {frames}")


def has(kind, release, runs):
    """Has the kernel this way of attaching? Where it may or may not, the tracer's own word has to do."""
    if release >= SINCE[kind]:
        return True
    works = runs.get(kind, {}).get("status", b"").strip() == b"0"
    return release >= MAYBE_SINCE.get(kind, SINCE[kind]) and works


def judge_guarded(name, program, runs):
    if name not in runs:
        raise Failure("did not come to its end")
    Run(name, runs[name]).guarded(program)


def judge(name, release, runs):
    """What became of one run, in a word or two. Raises Failure."""
    if name not in runs:
        raise Failure("did not come to its end")
    run = Run(name, runs[name])
    if release < OLDEST:
        return run.refused()
    if name == "watched":
        run.guarded("ledger_throws")
        return "by another tracer too"
    if name == "heap_all" and not any(has(kind, release, runs) for kind in ("session", "multi")):
        return run.refused()
    if name not in KINDS:
        # Without a wish it takes the best that there is.
        return run.exact([next(kind for kind in KINDS if has(kind, release, runs))])
    if has(name, release, runs):
        return run.exact([name]) and "exact"
    return run.refused()


def tail(path, lines=25):
    with open(path, errors="replace") as file:
        return "\n".join(file.read().replace("\r", "").rstrip().split("\n")[-lines:])


class Verdict:
    """What a kernel was found to do: its line, what is wrong, and how many runs were as they should be."""

    def __init__(self, name):
        self.name = name
        self.said = []
        self.wrong = []
        self.passed = 0

    def add(self, run, judged):
        """True if judged(), which may return what there is to say, finds nothing wrong with a run."""
        try:
            said = judged()
            if said:
                self.said.append(f"{run} {said}")
            self.passed += 1
            return True
        except Failure as failure:
            self.wrong.append(f"{run}: {failure}")
        except Exception:  # results that cannot be read: a failure of this run, not of the whole test
            self.wrong.append(f"{run}: {traceback.format_exc()}")
        self.said.append(f"{run} FAILED")
        return False

    def add_guarded(self, release, runs):
        """All that is traced with allocators that let exceptions pass: one word if nothing is wrong."""
        good = 0
        for kind in (kind for kind in KINDS if has(kind, release, runs)):
            for run in GUARDED_RUNS:
                name, program = f"{kind}_{run}", run.partition("_")[2]
                good += self.add(name, lambda: judge_guarded(name, program, runs))
        self.said.append(f"{good} guarded")

    def print(self, seconds):
        outcome = "FAIL" if self.wrong else "ok  "
        print(f"{outcome}  vm/{self.name}: {', '.join(self.said) or 'no result'}  ({seconds:.1f} s)")
        for what in self.wrong:
            for line in what.rstrip("\n").split("\n"):
                print(f"      | {line}")
        sys.stdout.flush()


def test_kernel(name, image, folder):
    """Boots one kernel: (its verdict, seconds that it took)."""
    base = os.path.join(folder, re.sub(r"[^\w.+-]", "_", name))
    console, results = f"{base}.console", f"{base}.results"
    for path in (console, results):
        open(path, "w").close()
    started = time.monotonic()
    ended = boot(image, os.path.join(folder, "initramfs.gz"), console, results)
    seconds = time.monotonic() - started
    runs = read_results(results)
    verdict = Verdict(name)

    kernel = runs.get("kernel")
    if not ended or not kernel:
        how = "switched itself off early" if ended else f"not switched off after {LIMIT} s, or not started"
        ends = f"{tail(console)}\n{tail(console + '.qemu')}"
        verdict.wrong.append(f"the machine: {how}; the end of {console}:\n{ends}")
    if kernel:
        release = tuple(map(int, re.match(r"(\d+)\.(\d+)", kernel["release"].decode()).groups()))
        for run in RUNS:
            verdict.add(run, lambda: judge(run, release, runs))
        verdict.add_guarded(release, runs)
        log = kernel["log"].decode(errors="replace")
        complaints = [line for line in log.split("\n") if KERNEL_COMPLAINTS.search(line)]
        if complaints:
            verdict.wrong.append("the kernel:\n" + "\n".join(complaints))
    return verdict, seconds


def main():
    folder = sys.argv[1]
    passed = failed = skipped = 0
    with open(os.path.join(folder, "kernels.list")) as file:
        kernels = [line.rstrip("\n").split("\t") for line in file]
    # An emulated machine keeps one processor busy.
    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count(), 4)) as pool:
        tests = [image and pool.submit(test_kernel, name, image, folder) for name, image, _ in kernels]
        for (name, image, why), test in zip(kernels, tests):
            if not image:
                skipped += 1
                print(f"skip  vm/{name}: {why}", flush=True)
                continue
            verdict, seconds = test.result()
            verdict.print(seconds)
            passed += verdict.passed
            failed += len(verdict.wrong)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not (passed or skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
