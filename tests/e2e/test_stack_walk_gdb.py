"""The walk in user space is right at any instruction: gdb sees the same frames of a thread that is stopped.

Programs are stopped at random times, wherever they are by then. gdb's frames, by the same call frame information but
read by other code, have to be those of the walk from the registers and the memory at that time.

ALLOCTRACE_GDB_STOPS is the number of stops of each program (default 25).
"""

import json
import os
import shutil
import sys
import unittest

from lib import ROOT, TARGETS, Case, Process, read_text

sys.path.insert(0, os.path.join(ROOT, "tools"))

from test_unwind import build  # noqa: E402  (found by the line above)

DUMP = os.path.join(TARGETS, "..", "stack_walk_dump")
STOPS = int(os.environ.get("ALLOCTRACE_GDB_STOPS", "25"))

GDB = """
import gdb, json, os, random, subprocess

pid, stops, dump, output = json.loads(os.environ["STOPS"])
for setting in ("pagination off", "debuginfod enabled off", "backtrace past-main on", "backtrace past-entry on",
                "backtrace limit unlimited", "print thread-events off", "confirm off", "print inferior-events off"):
    gdb.execute("set " + setting)
for name in ("SIGUSR1", "SIGALRM", "SIGCHLD", "SIGPROF", "SIGPIPE"):
    gdb.execute("handle %s nostop noprint pass" % name, to_string=True)
gdb.execute("handle SIGWINCH stop print nopass", to_string=True)
gdb.execute("attach %d" % pid, to_string=True)
walker = subprocess.Popen([dump], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
random = random.Random(pid)

def register(frame, name):
    return int(frame.read_register(name)) & 0xFFFFFFFFFFFFFFFF

def trampoline():
    for line in open("/proc/%d/maps" % pid):
        if line.rstrip().endswith("[uprobes]"):
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            return range(start, end)
    return range(0)

def stack():
    # None where a return probe of somebody else has put its trampoline in place of a return address.
    hidden = trampoline()
    found = []
    frame = gdb.newest_frame()
    exact = True
    while frame is not None and len(found) < 128:
        if frame.type() in (gdb.NORMAL_FRAME, gdb.SIGTRAMP_FRAME):
            if frame.pc() in hidden:
                return None
            if frame.pc():
                found.append([frame.pc() - (not exact), frame.name() or "?"])
            exact = frame.type() == gdb.SIGTRAMP_FRAME
        last = frame
        frame = frame.older()
    return {"frames": found, "end": gdb.frame_stop_reason_string(last.unwind_stop_reason())}

def walk():
    frame = gdb.newest_frame()
    while frame.type() == gdb.INLINE_FRAME:
        frame = frame.older()
    numbers = [register(frame, name) for name in ("rip", "rsp", "rbp")]
    walker.stdin.write("%d %x %x %x\\n" % (pid, *numbers))
    walker.stdin.flush()
    return walker.stdout.readline().strip()

told = []
tries = 0
while len(told) < stops and tries < 20 * stops and gdb.selected_inferior().pid:
    timer = subprocess.Popen(["sh", "-c", "exec >&- 2>&-; sleep %.4f; kill -WINCH %d" % (random.uniform(0.001, 0.05), pid)])
    gdb.execute("continue", to_string=True)
    timer.wait()
    if not gdb.selected_inferior().pid:
        break
    threads = gdb.selected_inferior().threads()
    random.choice(threads).switch()
    tries += 1
    found = stack()
    if found:
        told.append({"walk": walk(), **found})
with open(output, "w") as file:
    json.dump(told, file)
walker.stdin.close()
if gdb.selected_inferior().pid:
    gdb.execute("kill", to_string=True)
"""


@unittest.skipUnless(shutil.which("gdb"), "gdb is not installed")
@unittest.skipUnless(os.uname().machine == "x86_64", "the names of registers are those of x86-64")
class GdbAgrees(Case):
    limit = 600

    def stops_of(self, process):
        script, output = self.path("stops.py"), self.path("stops.json")
        with open(script, "w") as file:
            file.write(GDB)
        arguments = json.dumps([process.pid, STOPS, DUMP, output])
        gdb = Process(
            ["gdb", "-nx", "-q", "-batch", "-x", script], self.folder, env=dict(os.environ, STOPS=arguments)
        )
        self.addCleanup(gdb.kill)
        gdb.wait(500)
        self.assertTrue(os.path.exists(output), gdb.describe())
        with open(output) as file:
            return json.load(file)

    def assert_agree(self, *command, ready=None, unlike=lambda stop, walk: False):
        if not shutil.which(command[0]):
            self.skipTest(f"{command[0]} is not installed")
        process = Process(list(command), self.folder, cwd=self.folder)
        self.addCleanup(process.kill)
        process.wait_until(lambda: ready in process.stdout if ready else len(read_text(f"/proc/{process.process.pid}/maps")) > 1000, "its start")
        process.pid = process.process.pid
        if ready:
            process.process.stdin.write(b"go\n")
            process.process.stdin.flush()
        stops = self.stops_of(process)
        different, places = [], set()
        for stop in stops:
            words = stop["walk"].split(" ")
            walked = []
            for word in words[1:]:
                if not all(letter in "0123456789abcdef" for letter in word):
                    break
                walked.append(int(word, 16))
            wanted = [address for address, _ in stop["frames"]]
            places.add(wanted[0])
            if walked != wanted and not unlike(stop, walked):
                same = next((i for i, (a, b) in enumerate(zip(walked, wanted)) if a != b), min(len(walked), len(wanted)))
                different.append(
                    f"{same} of {len(wanted)} frames are the same; then gdb "
                    + " ".join(f"{address:#x}({name})" for address, name in stop["frames"][same : same + 4])
                    + f" [{stop['end']}], behind {stop['frames'][max(0, same - 1)][1]}; the walk "
                    + " ".join(f"{address:#x}" for address in walked[same : same + 4])
                    + f" [{' '.join(words[len(walked) + 1 :])}]"
                )
        print(f"{os.path.basename(command[0])}: {len(stops)} stops at {len(places)} places, {len(different)} differences", flush=True)
        if different:
            print("\n".join(different), flush=True)
        self.assertGreaterEqual(len(stops), STOPS, "stops")
        self.assertEqual(different, [])

    def test_in_python(self):
        self.assert_agree("/usr/bin/python3", "-c", "import json\nwhile True: json.loads(json.dumps(sorted([str(i) for i in range(500)])))")

    def test_in_perl(self):
        self.assert_agree("/usr/bin/perl", "-e", "while (1) { my %h = map { $_ => join(',', sort ($_..$_+9)) } 1..300; }")

    def test_in_a_shell(self):
        self.assert_agree("/bin/bash", "-c", "while :; do x=${x:1}abc; y=${x//b/cd}; [[ $y =~ c+d ]]; x=${y:0:80}; done")

    def test_in_sqlite(self):
        self.assert_agree(
            "sqlite3", ":memory:",
            "with recursive n(i) as (select 1 union all select i+1 from n limit 100000000) "
            "select count(*), max(hex(i) || printf('%d', i * 7)) from n",
        )  # fmt: skip

    def test_in_assembly_of_openssl(self):
        self.assert_agree("openssl", "speed", "-seconds", "60", "sha256", "rsa2048")

    def test_in_a_compiler(self):
        source = os.path.join(ROOT, "tests", "targets", "inlines_many.cc")
        self.assert_agree("clang++", "-O2", "-g", "-c", "-std=c++17", "-DCOUNT=64", "-o", self.path("many.o"), source)

    def test_in_a_compressor(self):
        self.assert_agree("/bin/sh", "-c", "exec xz -9 -c -T2 /dev/zero > /dev/null")

    def test_in_signal_handlers(self):
        self.assert_agree(build("signal", self.folder), "raise", "100000000", ready="ready")

    def test_in_threads(self):
        self.assert_agree(build("thread", self.folder), "3", "100000000", ready="ready")


if __name__ == "__main__":
    unittest.main()
