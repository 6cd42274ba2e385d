"""Stacks are right: where gdb stops at a call of malloc, it sees the same return addresses as the walk.

gdb stops where malloc is called through, in the procedure linkage tables of the program and its libraries. In
malloc itself, past the probe, a return probe has taken the place of the return address; and on the probe, where
a hardware breakpoint could stop, gdb loses threads that it steps. Stops are spread by seeded numbers of hits that are
passed, and by letting the program run on now and then. Every call is recorded meanwhile (-s 1), so each list of
gdb's has to be among the recorded stacks, frame by frame.

ALLOCTRACE_GDB_STOPS is the number of stops over all programs (default 40); 300 and more take some minutes.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

from lib import OK, ROOT, Case, Process, Profile, Tracer, read_text, wait_for

sys.path.insert(0, os.path.join(ROOT, "tools"))

import lib  # noqa: E402
import unwind_survey  # noqa: E402  (found by the line above)
from test_unwind import build  # noqa: E402
from unwind_survey import stacks_of  # noqa: E402

FULL = 100  # from so many stops on, the large programs take part
STOPS = int(os.environ.get("ALLOCTRACE_GDB_STOPS", "40"))
FRAMES_MAX = 240

GDB = """
import gdb, gdb.unwinder, json, os, random, struct, subprocess, sys

pid, addresses, stops, seed, output, has_unruled = json.loads(os.environ["STOPS"])
argument = {"x86_64": "rdi", "aarch64": "x0"}[os.uname().machine]
for setting in ("pagination off", "debuginfod enabled off", "backtrace past-main on", "backtrace past-entry on",
                "backtrace limit unlimited", "print thread-events off", "confirm off"):
    gdb.execute("set " + setting)
for name in ("SIGUSR1", "SIGALRM", "SIGCHLD", "SIGPROF"):
    gdb.execute("handle %s nostop noprint pass" % name, to_string=True)
# Ends a run from outside. Not SIGSTOP: gdb uses that for itself.
gdb.execute("handle SIGWINCH stop print nopass", to_string=True)
gdb.execute("attach %d" % pid, to_string=True)
breakpoints = [gdb.Breakpoint("*%#x" % address) for address in addresses]
random = random.Random(seed)
stopped = False

def note(event):
    global stopped
    stopped = isinstance(event, gdb.BreakpointEvent)

gdb.events.stop.connect(note)

def alive():
    return gdb.selected_inferior().pid != 0

def go():
    # True if it stopped at the breakpoint.
    global stopped
    stopped = False
    gdb.execute("continue", to_string=True)
    return stopped

def end_run(seconds):
    return subprocess.Popen(["sh", "-c", "exec >&- 2>&-; sleep %.3f; kill -WINCH %d" % (seconds, pid)])

def run_on():
    # Somewhere else, without stops on the way.
    for breakpoint in breakpoints:
        breakpoint.enabled = False
    timer = end_run(random.uniform(0.01, 0.2))
    go()
    timer.wait()
    for breakpoint in breakpoints:
        breakpoint.enabled = True

def trampoline():
    # Where return probes make a function return to; the page comes with the first one.
    for line in open("/proc/%d/maps" % pid):
        if line.rstrip().endswith("[uprobes]"):
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            return range(start, end)
    return range(0)

def stack():
    # None where nothing is recorded of this call. It may be part of another one that allocates: then that one
    # is recorded, and its return address, which gdb would need to go on, is replaced already.
    hidden = trampoline()
    found = []
    frame = gdb.newest_frame()
    if int(frame.read_register(argument)) & 0xFFFFFFFFFFFFFFFF >= 1 << 47:
        return None  # too much to ask for: a call that fails leaves no stack
    exact = False
    while frame is not None and len(found) < %(frames)d:
        if frame.type() in (gdb.NORMAL_FRAME, gdb.SIGTRAMP_FRAME):
            # Where the first frame of a thread has pushed a 0, gdb takes that for a frame.
            if frame.pc() in hidden:
                return None
            if frame.level() > 0 and frame.pc():
                found.append([frame.pc() - (not exact), frame.name() or "?"])
            exact = frame.type() == gdb.SIGTRAMP_FRAME
        last = frame
        frame = frame.older()
    return {"frames": found, "end": gdb.frame_stop_reason_string(last.unwind_stop_reason())}

class Unruled(gdb.unwinder.Unwinder):
    # V8's code says nothing of its frames, but keeps a frame pointer; left alone, gdb guesses.
    def __init__(self):
        super().__init__("unruled")
        self.answers = {}

    def has_no_rules(self, pc):
        if pc not in self.answers:
            # Nothing is known of what it compiles, nor of its second mapping of its own built-in code.
            symbol = gdb.execute("info symbol %#x" % (pc - 1), to_string=True)
            self.answers[pc] = symbol.startswith("Builtins_") or symbol.startswith("No symbol") and any(
                pc in range(*(int(word, 16) for word in line.split()[0].split("-")))
                for line in open("/proc/%d/maps" % pid)
                if "x" in line.split()[1]
            )
        return self.answers[pc]

    def __call__(self, frame):
        pc, fp = frame.read_register("rip"), frame.read_register("rbp")
        if not int(fp) or not self.has_no_rules(int(pc)):
            return None
        at = int(fp)
        info = frame.create_unwind_info(FrameId(at + 16, int(pc)))
        for register, place in ("rbp", at), ("rip", at + 8):
            word = struct.unpack("<q", bytes(gdb.selected_inferior().read_memory(place, 8)))[0]
            info.add_saved_register(register, gdb.Value(word).cast(pc.type))
        info.add_saved_register("rsp", gdb.Value(at + 16).cast(pc.type))
        return info

class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = gdb.Value(sp), gdb.Value(pc)

if has_unruled:
    gdb.unwinder.register_unwinder(None, Unruled())
print("attached", flush=True)
sys.stdin.readline()
stacks = []
nested = 0
while len(stacks) < stops and alive():
    if random.random() < 0.3:
        run_on()
        if not alive():
            break
    for breakpoint in breakpoints:
        breakpoint.ignore_count = random.randrange(200)
    if not go():
        break
    found = stack()
    if found:
        stacks.append(found)
    else:
        nested += 1
with open(output, "w") as file:
    json.dump({'stacks': stacks, 'nested': nested}, file)
if alive():
    for breakpoint in breakpoints:
        breakpoint.delete()
    gdb.execute("detach", to_string=True)
""".replace("%(frames)d", str(FRAMES_MAX))


# --- programs that can be attached to before they work -----------------------------------------------


class Reading(unwind_survey.Attached):
    """Reads what it is to do from its stdin, until that ends."""

    def start_reading(self, command, text):
        self.text = text
        self.process = self.spawn(*command, stdin=subprocess.PIPE, cwd=self.folder)
        self.pid = self.process.pid
        read = {"x86_64": "0 0x0 ", "aarch64": "63 0x0 "}[os.uname().machine]
        self.process.wait_until(lambda: read_text(f"/proc/{self.pid}/syscall").startswith(read), "its reading")

    def load(self):
        self.process.process.stdin.write(self.text.encode())
        self.process.process.stdin.close()
        self.process.wait(unwind_survey.LIMIT)


class Sqlite(Reading):
    name = "sqlite3"
    needs = ("sqlite3",)

    def start(self):
        rows = ", ".join(f"({n}, 'text {n * 7919}')" for n in range(400))
        self.start_reading(
            [self.find("sqlite3"), "-batch", "data.db"],
            "create table t(a, b);\ncreate index i on t(b);\n"
            + f"insert into t values {rows};\nselect max(b), count(*) from t group by a % 10 order by 2, 1;\n" * 100,
        )


class Node(unwind_survey.Node):
    times = 100000  # it is ended when there are stops enough


class Clang(Reading):
    name = "clang"
    needs = ("clang++",)

    def start(self):
        source = unwind_survey.Clang(self.folder, self.full).command()[-3]
        self.start_reading(
            [self.find("clang++"), "-x", "c++", "-std=c++17", "-O2", "-c", "-", "-o", self.path("large.o")],
            read_text(source),
        )


class UnwindTarget(unwind_survey.Line):
    """One of tests/targets/unwind_*.c, without frame pointers."""

    source = arguments = None
    compiler = "cc"

    def start(self):
        self.start_line(build(self.source, self.folder, compiler=self.compiler), *self.arguments)


class Signals(UnwindTarget):
    source, arguments = "signal", ("raise", 1000000)


class SignalStack(UnwindTarget):
    source, arguments = "signal", ("altstack", 1000000)


class Threads(UnwindTarget):
    source, arguments = "thread", (3, 1000000)


class MuslThreads(Threads):
    compiler = "musl-gcc"
    needs = ("musl-gcc",)


class Assembly(UnwindTarget):
    source, arguments = "code", ("written", 1000000)


PROGRAMS = (
    unwind_survey.Ledger, unwind_survey.Redis, unwind_survey.Python, Node, Sqlite, Clang, Signals,
    SignalStack, Threads, MuslThreads, Assembly,
)  # fmt: skip


# --- where malloc is called ------------------------------------------------------------------------


def calls_of_malloc(pid):
    """Addresses of malloc's entries in the procedure linkage tables of all that a process has mapped."""
    found = []
    for start, end, offset, path in lib.text_mappings(pid):
        sections = ("-j", ".plt", "-j", ".plt.sec", "-j", ".plt.got")
        code = subprocess.run(["objdump", "-d", *sections, path], capture_output=True, text=True).stdout
        headers = subprocess.run(["readelf", "-W", "-l", path], capture_output=True, text=True, check=True).stdout
        loads = re.findall(r"^ +LOAD +(0x\w+) (0x\w+) 0x\w+ (0x\w+)", headers, re.M)
        for vaddr in re.findall(r"^(\w+) <malloc@plt>:", code, re.M):
            vaddr = int(vaddr, 16)
            for file_offset, first, size in [[int(number, 16) for number in load] for load in loads]:
                at = vaddr - first + file_offset - offset
                if first <= vaddr < first + size and 0 <= at < end - start:
                    found.append(start + at)
    return found


class Comparison:
    """One program, stopped by gdb while it is recorded."""

    def __init__(self, kind, folder, stops, seed):
        self.folder = os.path.join(folder, f"run.{seed}")
        os.mkdir(self.folder)
        self.program = kind(self.folder, full=True)
        self.stops = stops
        self.seed = seed

    def run(self):
        try:
            self.program.start()
            self.record()
        finally:
            self.program.close()
        # Functions of an interpreted language stand in for the interpreter's frames, which gdb shows.
        code = {f[0].address for f in self.profile.locations.values() if f and (f[0].mapping or not self.program.interpreter)}
        self.known = {
            tuple(address for address in addresses if address in code) for addresses, _ in stacks_of(self.profile)
        }

    def record(self):
        program, output = self.program, os.path.join(self.folder, "stops.json")
        script = program.write("stops.py", GDB)
        arguments = json.dumps([program.pid, calls_of_malloc(program.pid), self.stops, self.seed, output, isinstance(program, Node)])
        gdb = Process(
            ["gdb", "-nx", "-q", "-batch", "-x", script], self.folder, env=dict(os.environ, STOPS=arguments)
        )
        program.closers.append(gdb.kill)
        gdb.wait_until(lambda: "attached" in gdb.stdout, "gdb")
        path = os.path.join(self.folder, "profile.pb.gz")
        tracer = Tracer(
            [lib.ALLOCTRACE, "-v", "-p", str(program.pid), "-s", "1", "-o", path, "-d", "600s",
             "--max-stacks=500000"],
            self.folder, cwd=self.folder,
        )  # fmt: skip
        program.closers.append(tracer.kill)
        tracer.wait_recording()
        load = threading.Thread(target=self.load, args=(gdb,), daemon=True)
        load.start()
        gdb.process.stdin.write(b"go\n")
        gdb.process.stdin.flush()
        if gdb.wait(600) != 0:
            raise AssertionError(gdb.describe())
        wait_for(lambda: os.path.exists(output), f"the stops of {gdb.describe()}")
        # It may have ended by itself, and the recording with it. If not, it is not to end meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(program.pid, signal.SIGSTOP)
        if lib.alive(program.pid):
            tracer.signal(signal.SIGINT)
        if tracer.wait(300) != OK:
            raise AssertionError(tracer.describe())
        with open(output) as file:
            told = json.load(file)
        self.stacks, self.nested = told["stacks"], told["nested"]
        self.profile = Profile.read(path)

    def load(self, gdb):
        try:
            self.program.load()
        except (AssertionError, OSError, subprocess.SubprocessError):
            return  # it was ended with gdb's last stop, or gdb was
        # There will be no more hits: by this gdb stops, and lets go. One signal may end a run without stops.
        while not gdb.ended:
            try:
                os.kill(self.program.pid, signal.SIGWINCH)
            except ProcessLookupError:
                return
            time.sleep(0.1)

    def differences(self):
        """[text] for each stack of gdb's that was not recorded."""
        found = []
        for stack in self.stacks:
            stack["frames"] = [frame for frame in stack["frames"] if frame[1] != self.program.interpreter]
            addresses = tuple(address for address, _ in stack["frames"])
            if addresses not in self.known:
                found.append(self.explain(stack, addresses))
        return found

    def explain(self, stack, addresses):
        def common(known):
            return next((i for i, (a, b) in enumerate(zip(known, addresses)) if a != b), min(len(known), len(addresses)))

        nearest = max(self.known, key=common, default=())
        same = common(nearest)
        names = {f.address: f.name for frames in self.profile.locations.values() for f in frames}
        rest = " ".join(f"{address:#x}({name})" for address, name in stack["frames"][same : same + 6])
        recorded = " ".join(f"{address:#x}({names.get(address)})" for address in nearest[same : same + 6])
        inner = " < ".join(name for _, name in stack["frames"][max(0, same - 4) : same])
        return (
            f"{same} frames are the same (the last: {inner}); then gdb has {len(addresses) - same}: {rest or '-'} "
            f"[{stack['end']}], the nearest recorded {len(nearest) - same}: {recorded or '-'}"
        )


@unittest.skipUnless(shutil.which("gdb"), "gdb is not installed")
class GdbAgrees(Case):
    limit = 1800

    def assert_agree(self, kind):
        if kind.missing():
            self.skipTest(kind.missing())
        wanted = -(-STOPS // len(PROGRAMS))
        stopped = nested = 0
        differences = []
        for run in range(5):
            comparison = Comparison(kind, self.folder, wanted - stopped, 1000 * run + random.Random(kind.__name__).randrange(1000))
            comparison.run()
            stopped += len(comparison.stacks)
            nested += comparison.nested
            differences += comparison.differences()
            if stopped >= wanted:
                break
        print(f"{kind.__name__}: {stopped} stops, {len(differences)} differences, {nested} more in calls that are not recorded", flush=True)
        if differences:
            print("\n".join(differences), flush=True)
        self.assertGreaterEqual(stopped, wanted)
        self.assertFalse(differences, f"{len(differences)} of {stopped} stops:\n" + "\n".join(differences))

    def test_in_a_stripped_program(self):
        self.assert_agree(unwind_survey.Ledger)

    def test_in_redis(self):
        self.assert_agree(unwind_survey.Redis)

    def test_in_python(self):
        self.assert_agree(unwind_survey.Python)

    @unittest.skipIf(STOPS < FULL, f"only with ALLOCTRACE_GDB_STOPS={FULL} and more: gdb reads much")
    def test_in_node(self):
        self.assert_agree(Node)

    def test_in_sqlite(self):
        self.assert_agree(Sqlite)

    @unittest.skipIf(STOPS < FULL, f"only with ALLOCTRACE_GDB_STOPS={FULL} and more: takes minutes")
    def test_in_clang(self):
        self.assert_agree(Clang)

    def test_through_signal_handlers(self):
        self.assert_agree(Signals)

    def test_through_signal_handlers_on_a_stack_of_their_own(self):
        self.assert_agree(SignalStack)

    def test_in_threads_of_glibc(self):
        self.assert_agree(Threads)

    def test_in_threads_of_musl(self):
        self.assert_agree(MuslThreads)

    def test_through_assembly_with_a_frame_pointer(self):
        self.assert_agree(Assembly)


if __name__ == "__main__":
    unittest.main()
