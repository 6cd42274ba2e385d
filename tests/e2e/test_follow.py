"""--follow: what the targets start is traced too, each process with a profile of its own."""

import glob
import os
import re
import signal
import unittest

from lib import (
    KINDS,
    OK,
    TARGETS,
    USAGE,
    Case,
    Leftovers,
    Process,
    Profile,
    Target,
    alive,
    parse_books,
    read_text,
    text_mappings,
    wait_for,
)

EXECUTED = "recorded before another program was executed"
CHILDREN = r"(\d+) process(?:es)? started: (.*)"


class Follow(Case):
    def shell(self):
        shell = Shell(self.folder)
        self.addCleanup(shell.kill)
        self.addCleanup(os.killpg, shell.pid, signal.SIGKILL)
        return shell

    def follow(self, pid, *options):
        """A tracer of a process and of what it starts, which records."""
        tracer = self.tracer("-v", "--follow", "-p", pid, "-o", f"{self.folder}/%p.pb.gz", *options)
        tracer.wait_recording()
        return tracer

    def wait_followed(self, tracer, pid):
        tracer.wait_until(lambda: f"alloctrace: process {pid}: followed, " in tracer.stderr, f"{pid} to be followed")

    def wait_known(self, tracer, pid, executes=False):
        """Until the tracer knows all code that the process has mapped, if need be since it executed a program.

        Only that tells a static program from the shell that it was. A larger one has more code than a shell.
        """

        def known():
            said = tracer.stderr.rpartition(f"process {pid}: executes another program\n")
            places = re.findall(rf"process {pid}: .*code at (\d+) places", said[2])
            return places and int(places[-1]) > len(text_mappings(pid)) and (said[1] or not executes)

        tracer.wait_until(known, f"the mappings of {pid} to be known")

    def profile(self, pid):
        return Profile.read(self.path(f"{pid}.pb.gz"))

    def assert_ends_well(self, tracer):
        self.assertEqual(tracer.wait(), OK, tracer.describe())

    def children(self, profile):
        """{what became of them: how many} of the processes that a target has started."""
        found = [re.fullmatch(f"children: {CHILDREN}", comment) for comment in profile.comments]
        sum_text, parts = next(filter(None, found)).groups()
        counts = {text: int(count) for count, text in (part.split(" ", 1) for part in parts.split(", "))}
        self.assertEqual(sum(counts.values()), int(sum_text))
        return counts

    def summary_of(self, tracer, pid):
        """The lines about one process on stdout."""
        return re.search(rf"(?ms)^alloctrace \S+ [^\n]*, pid {pid}, .*?(?=^profile: )", tracer.stdout).group(0)

    # --- forks ---

    def live(self, target, tracer, generations):
        """[(pid, its books)] of a target of generations, from the last to the first."""
        pids = [target.pid]
        for _ in range(generations - 1):
            target.say()
            pids.append(int(target.next_line("the next generation").split()[1]))
            self.wait_followed(tracer, pids[-1])
        books = []
        target.say()
        for pid in reversed(pids):
            books.append((pid, parse_books(target.next_line("the books"))))
            target.say()
        return books

    def check_generations(self, kind, count):
        target = self.target("generations", count)
        tracer = self.follow(target.pid, "-s", "1", "--attach", kind)
        books = self.live(target, tracer, count)
        self.assert_ends_well(tracer)  # by itself: they have all ended
        for pid, book in books:
            self.assert_exact(self.profile(pid), {name: figures for name, figures in book.items() if figures[0]})
        self.assertEqual(self.children(self.profile(target.pid)), {"traced": count - 1})
        return target, tracer, books

    def test_child_and_parent_are_exact(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.check_generations(kind, 2)

    def test_grandchild_is_exact(self):
        target, tracer, books = self.check_generations(KINDS[0], 3)
        parents = [pid for pid, _ in books[1:]]
        for (pid, _), parent in zip(books, parents):
            summary = self.summary_of(tracer, pid)
            self.assertRegex(summary, rf"followed from [\d.]+ ms after it was started by process {parent}; ")
            self.assertNotIn("\nchildren", summary)
        self.assertRegex(self.summary_of(tracer, target.pid), r"(?m)^children +2 processes started: 2 traced$")
        self.assertNotIn("WARNING", tracer.stdout)

    def test_child_outlives_its_parent(self):
        target = self.target("generations", "2", "orphan")
        tracer = self.follow(target.pid, "-s", "1")
        target.say()
        lines = [target_line(target) for _ in range(2)]  # the parent may have ended by now
        child = next(int(line.split()[1]) for line in lines if line.startswith("ready"))
        parent_books = next(parse_books(line) for line in lines if not line.startswith("ready"))
        self.wait_followed(tracer, child)
        self.assertEqual(target.wait(), 0, target.describe())
        tracer.wait_until(lambda: f"process {target.pid}: ended\n" in tracer.stderr, "the parent's end")
        # The recording goes on. The child works only now.
        target.say()
        child_books = parse_books(target_line(target))
        self.assertTrue(alive(tracer.pid), tracer.describe())
        target.say()
        self.assert_ends_well(tracer)
        self.assert_exact(self.profile(target.pid), {"first": parent_books["first"]})
        self.assert_exact(self.profile(child), child_books)

    def test_without_follow_children_are_only_counted(self):
        target = self.target("generations", "2")
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", f"{self.folder}/%p.pb.gz")
        tracer.wait_recording()
        target.say()
        child = int(target.next_line("the child").split()[1])
        target.say()
        target.next_line("the child's books")
        target.say()
        target.next_line("the parent's books")
        target.say()
        self.assert_ends_well(tracer)
        self.assertIn("it started 1 processes of its own, which were not traced", tracer.stdout)
        self.assertFalse(os.path.exists(self.path(f"{child}.pb.gz")))

    # --- other programs ---

    def start(self, shell, program):
        """A program that a shell starts: its pid, and the pipe that it will have as stdin.

        The shell opens that in the child, before it executes the program, and waits for who writes.
        """
        gate = self.path(f"gate.{len(glob.glob(self.path('gate.*')))}")
        os.mkfifo(gate)
        shell.say(f"{program} <{gate} >{gate}.out & echo pid $!")
        return int(shell.next_line("the pid").split()[1]), gate

    def work(self, tracer, pid, gate, executes=False):
        """Lets a ledger that is followed work and end; its books."""
        with open(gate, "w") as stdin:
            wait_for(lambda: written(gate), "the ledger")
            self.wait_known(tracer, pid, executes)
            stdin.write("go\n")
            stdin.flush()
            wait_for(lambda: len(written(gate)) == 2, "the books")
        return parse_books(written(gate)[1])

    def assert_ledger(self, pid, books):
        """The ledger's sites are exact; what was lost is of the shell that it was before."""
        profile = self.profile(pid)
        self.assert_books(profile, books)
        self.assert_books_balance(profile)
        self.assertEqual({reason for reason, count in profile.losses().items() if count} - {EXECUTED}, set())

    def check_program(self, program, *options):
        shell = self.shell()
        tracer = self.follow(shell.pid, "-s", "1", *options)
        pid, gate = self.start(shell, f"{TARGETS}/{program} --rounds 20")
        self.wait_followed(tracer, pid)
        books = self.work(tracer, pid, gate, executes=True)
        shell.process.stdin.close()
        self.assert_ends_well(tracer)
        self.assert_ledger(pid, books)
        summary = self.summary_of(tracer, pid)
        self.assertIn(f", pid {pid}, {TARGETS}/{program}\n", summary)
        self.assertIn("it executed another program", summary)
        self.assertEqual(self.children(self.profile(shell.pid)), {"traced": 1})
        return summary

    def test_program_that_a_child_executes_is_exact(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.check_program("ledger", "--attach", kind)

    def test_allocator_that_only_the_child_s_program_has_is_exact(self):
        # The shell's C library is the second one's too, and not the first one's.
        for program, others in (("ledger_static", set()), ("ledger_jemalloc_static", {"libc.so.6"})):
            with self.subTest(program):
                summary = self.check_program(program)
                allocators = re.findall(r"(?m)^(?:allocator| {9}) +(/\S+) \(", summary)
                self.assertEqual({os.path.basename(path) for path in allocators}, {program} | others, summary)

    def test_program_is_recorded_from_its_first_allocation_on(self):
        shell = self.shell()
        tracer = self.follow(shell.pid, "-s", "1")
        # When it is taken up it has no C library: that it will have its parent's one is an expectation.
        tracer.signal(signal.SIGSTOP)
        pid, gate = self.start(shell, f"{TARGETS}/exec_self_static {TARGETS}/ledger --rounds 20")
        with open(gate, "w") as stdin:
            wait_for(lambda: written(gate), "the static program")
            tracer.signal(signal.SIGCONT)
            self.wait_followed(tracer, pid)
            print("go", file=stdin, flush=True)
            wait_for(lambda: len(written(gate)) == 2, "the ledger")
            self.wait_known(tracer, pid, executes=True)
            print("go", file=stdin, flush=True)
            wait_for(lambda: len(written(gate)) == 3, "the books")
        shell.process.stdin.close()
        self.assert_ends_well(tracer)
        books = parse_books(written(gate)[2])
        self.assert_ledger(pid, books)
        profile = self.profile(pid)
        self.assertEqual(profile.losses()[EXECUTED], 100)
        # libstdc++ has allocated before main().
        self.assertGreater(profile.totals()[0], sum(figures[0] for figures in books.values()))

    def test_program_without_an_allocator_has_no_profile(self):
        shell = self.shell()
        tracer = self.follow(shell.pid, "-s", "1")
        pid, gate = self.start(shell, f"{TARGETS}/static_no_malloc")
        self.wait_followed(tracer, pid)
        with open(gate, "w"):
            wait_for(lambda: written(gate), "the program")
            self.wait_known(tracer, pid, executes=True)
        shell.process.stdin.close()
        self.assert_ends_well(tracer)
        self.assertEqual(self.children(self.profile(shell.pid)), {"without a known allocator": 1})
        self.assertFalse(os.path.exists(self.path(f"{pid}.pb.gz")))
        self.assertNotIn(f"pid {pid},", tracer.stdout)

    def test_given_process_without_an_allocator_may_start_others(self):
        target = self.target("static_no_malloc")
        tracer = self.follow(target.pid)
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        self.assertRegex(self.summary_of(tracer, target.pid), r"(?m)^allocator +none probed$")

    def test_everything_that_make_starts(self):
        names = ["one", "two", "three"]
        with open(self.path("Makefile"), "w") as file:
            file.write(f"all: {' '.join(names)}\n")
            for name in names:
                os.mkfifo(self.path(name + ".in"))
                file.write(f"{name}:\n\t@true; {TARGETS}/ledger --rounds 10 <{name}.in >{name}.in.out; true\n")
        tracer = self.tracer(
            "-v", "--follow", "-s", "1", "-o", f"{self.folder}/%p.pb.gz", "--", "make", "-j3", "-f", "Makefile"
        )
        books = {}
        for name in names:
            gate = self.path(name + ".in")
            with open(gate, "w"):
                pid = int(wait_for(lambda: written(gate), "a ledger")[0].split()[1])
                self.wait_followed(tracer, pid)
                books[pid] = self.work(tracer, pid, gate)
        self.assert_ends_well(tracer)
        for pid, book in books.items():
            self.assert_ledger(pid, book)
        make = int(re.search(r"(?m)^alloctrace \S+ make, pid (\d+), ", tracer.stdout).group(1))
        counts = self.children(self.profile(make))
        # A shell for each rule, and the ledger that it starts; what else there is ends at once.
        self.assertGreaterEqual(sum(counts.values()), 6)
        self.assertGreaterEqual(counts["traced"], 6)
        self.assertLessEqual(set(counts), {"traced", "ended too soon"})
        self.assertEqual(len(glob.glob(self.path("*.pb.gz"))), counts["traced"] + 1)

    # --- many ---

    def test_hundreds_of_short_lived_children(self):
        leftovers = Leftovers()
        for kind in KINDS:
            with self.subTest(kind):
                target = self.target("spawner", "come-and-go", "50")
                tracer = self.follow(target.pid, "-s", "1", "--attach", kind)
                target.say()
                self.assertRegex(target.next_line("its report"), r"reused \d+$")
                books = parse_books(target.next_line("the books"))
                target.say()
                self.assertEqual(target.wait(), 0, target.describe())
                self.assert_ends_well(tracer)
                profile = self.profile(target.pid)
                self.assert_books(profile, books)
                self.assert_nothing_lost(profile)
                counts = self.children(profile)
                self.assertEqual(sum(counts.values()), 200)
                self.assertLessEqual(set(counts), {"traced", "ended too soon"})
                profiles = glob.glob(self.path("*.pb.gz"))
                self.assertEqual(len(profiles), counts.get("traced", 0) + 1)
                for path in profiles:
                    self.assert_books_balance(Profile.read(path))
                    os.remove(path)
        wait_for(lambda: not leftovers.find(), "the links to be closed")

    def test_more_than_there_is_room_for(self):
        shell = self.shell()
        tracer = self.follow(shell.pid)
        shell.say("i=0; while [ $i -lt 270 ]; do sleep 1000 & i=$((i+1)); done; echo started")
        self.assertEqual(shell.next_line(), "started")
        tracer.wait_until(lambda: tracer.stderr.count(": followed, ") == 255, "255 to be followed")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        self.assertEqual(self.children(self.profile(shell.pid)), {"traced": 255, "over the limit of 256": 15})

    @unittest.skipUnless(os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), "no choice of process ids")
    def test_process_with_the_id_of_a_child_that_ended_is_not_taken_for_it(self):
        shell = self.shell()
        tracer = self.follow(shell.pid)
        tracer.signal(signal.SIGSTOP)
        children = []
        stranger = wait_for(lambda: self.outlive_child(shell, children), "the same id again")
        tracer.signal(signal.SIGCONT)
        tracer.wait_until(lambda: tracer.stderr.count(": not followed: ") == len(children), "them to be passed over")
        self.assertTrue(alive(stranger.pid))
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        self.assertEqual(self.children(self.profile(shell.pid)), {"ended too soon": len(children)})
        self.assertFalse(os.path.exists(self.path(f"{stranger.pid}.pb.gz")))

    def outlive_child(self, shell, children):
        """A process of our own with the id of a child of the shell that has ended, if nobody else is faster."""
        shell.say("/bin/true & wait; echo pid $!")
        children.append(int(shell.next_line("the pid").split()[1]))
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(children[-1] - 1))
        process = Process(["sleep", "1000"], self.folder)
        if process.pid == children[-1]:
            self.addCleanup(process.kill)
            return process
        process.kill()
        return None

    # --- the command line ---

    def test_one_file_for_several_processes_is_refused(self):
        target = self.target("sleeper")
        for options in (["-o", "one.pb.gz"], ["-o", "%c.pb.gz"], ["-o", "-"], ["-o", "%%p"]):
            with self.subTest(options):
                result = self.run_tracer("--follow", "-p", target.pid, "-d", "1s", *options)
                self.assertEqual(result.status, USAGE, result.text)
                self.assert_one_line(result)
        for options in (["-o", self.folder], ["-f", "text"], ["-f", "folded", "-o", "-"]):
            with self.subTest(options):
                result = self.run_tracer("--follow", "-p", target.pid, "-d", "100ms", *options)
                self.assertEqual(result.status, OK, result.text)


class Shell(Target):
    """A shell that takes commands from its stdin."""

    def __init__(self, folder):
        Process.__init__(self, ["/bin/sh"], folder, start_new_session=True, cwd=folder)
        self.say("echo ready")
        self.next_line("the shell")


def written(gate):
    """The whole lines that the program behind a gate has written."""
    return read_text(f"{gate}.out").split("\n")[:-1] if os.path.exists(f"{gate}.out") else []


def target_line(target):
    """The next line of a target's child, when the target itself has ended."""
    line = wait_for(lambda: target.stdout.split("\n")[:-1][target.lines_seen :][:1], "a line")[0]
    target.lines_seen += 1
    return line


if __name__ == "__main__":
    unittest.main()
