"""The command line: what it accepts, what it refuses and how, and what it leaves behind."""

import gzip
import os
import re
import shutil
import signal
import stat
import subprocess
import time
import unittest

from lib import (
    ALLOCTRACE,
    INTERRUPTED_TWICE,
    KERNEL_TOO_OLD,
    LIMIT,
    NO_PROCESS,
    NOT_PERMITTED,
    NOT_STARTED,
    NOT_WRITABLE,
    NOTHING_TO_RECORD,
    OK,
    TARGETS,
    USAGE,
    Case,
    Profile,
    Result,
    drain,
    full_pipe,
    kernel_threads,
    parse_books,
    read_bytes,
    read_text,
    wait_for,
)

NOBODY = 65534


def free_pid():
    """A pid that no process has, and that none gets soon."""
    last = int(read_text("/proc/sys/kernel/pid_max")) - 1
    while os.path.exists(f"/proc/{last}"):
        last -= 1
    return last


class Usage(Case):
    def assert_usage_error(self, *arguments):
        result = self.run_tracer(*arguments)
        self.assertEqual(result.status, USAGE, result.text)
        self.assert_one_line(result)
        self.assertEqual(result.stdout, "")

    def test_nonsense_is_a_usage_error_in_one_line(self):
        target = self.target("sleeper")
        pid = str(target.pid)
        for arguments in (
            [],
            ["--no-such-option"],
            ["-Z"],
            ["-p"],
            ["-p", ""],
            ["-p", "abc"],
            ["-p", "0"],
            ["-p", "-1"],
            ["-p", "12x"],
            ["-p", f"{pid},"],
            ["-p", "99999999999999999999"],
            ["-p", pid, "-d", "soon"],
            ["-p", pid, "-d", "0"],
            ["-p", pid, "-d", "-5"],
            ["-p", pid, "-d", "10 parsecs"],
            ["-p", pid, "-d", "1e300"],
            ["-p", pid, "-d", "99999999999999999999h"],
            ["-p", pid, "-s", "0"],
            ["-p", pid, "-s", "-1"],
            ["-p", pid, "-s", "many"],
            ["-p", pid, "-s", "12QiB"],
            ["-p", pid, "-s", "99999999999999999999GiB"],
            ["-p", pid, "-f", "xml"],
            ["-p", pid, "-T", "-1"],
            ["-p", pid, "-T", "x"],
            ["-p", pid, "-o", ""],
            ["-p", pid, "-o", "%q.pb.gz"],
            ["-p", pid, "--attach", "glue"],
            ["-p", pid, "--max-live", "0"],
            ["-p", pid, "--max-stacks", "-7"],
            ["-p", pid, "stray"],
            ["stray"],
            ["-p", pid, "--", "true"],
            ["--"],
        ):
            with self.subTest(" ".join(arguments)):
                self.assert_usage_error(*arguments)

    def test_two_profiles_do_not_go_to_one_place(self):
        first, second = self.target("sleeper"), self.target("sleeper")
        for output in ("-", self.path("one.pb.gz")):
            with self.subTest(output):
                self.assert_usage_error("-p", f"{first.pid},{second.pid}", "-d", "1", "-o", output)

    def test_help_names_every_option(self):
        result = self.run_tracer("-h")
        self.assertEqual(result.status, OK, result.text)
        self.assertEqual(result.stderr, "")
        for option in (
            "--pid --duration --sample-bytes --output --format --top --quiet --verbose --version --help "
            "--max-live --max-stacks --attach"
        ).split():
            self.assertIn(option, result.stdout)
        self.assertEqual(self.run_tracer("--help").stdout, result.stdout)

    def test_version_is_one_line(self):
        for option in ("-V", "--version"):
            result = self.run_tracer(option)
            self.assertEqual(result.status, OK, result.text)
            self.assertRegex(result.stdout, r"\Aalloctrace \d+\.\d+\.\d+\n\Z")
            self.assertEqual(result.stderr, "")


class Refusals(Case):
    """Each bad situation has one clear line and its own exit status, at once and not after the duration."""

    def assert_refused(self, status, *arguments, **options):
        result = self.run_tracer("-d", "600s", *arguments, **options)
        self.assertEqual(result.status, status, result.text)
        self.assert_one_line(result)
        self.assertEqual(result.stdout, "")
        return result

    def test_no_such_process(self):
        self.assert_refused(NO_PROCESS, "-p", free_pid())

    def test_one_of_two_processes_does_not_exist(self):
        target = self.target("sleeper")
        result = self.assert_refused(NO_PROCESS, "-p", f"{target.pid},{free_pid()}")
        self.assertIn(str(free_pid()), result.stderr)

    def test_zombie(self):
        zombie = subprocess.Popen(["true"])
        wait_for(lambda: ") Z" in read_text(f"/proc/{zombie.pid}/stat"), "a zombie")
        result = self.assert_refused(NO_PROCESS, "-p", zombie.pid)
        self.assertIn("zombie", result.stderr)
        zombie.wait()

    def test_kernel_thread(self):
        thread = next(kernel_threads(), None)
        if thread is None:
            self.skipTest("no kernel threads to be seen")
        result = self.assert_refused(NO_PROCESS, "-p", thread)
        self.assertIn("kernel thread", result.stderr)

    def test_process_without_an_allocator(self):
        target = self.target("static_no_malloc")
        self.assert_refused(NOTHING_TO_RECORD, "-p", target.pid)

    def test_alloctrace_itself(self):
        # The shell becomes alloctrace, and so knows its pid.
        tracer = self.tracer("-c", f"exec {ALLOCTRACE} -p $$ -d 600s", program="/bin/sh")
        tracer.wait()
        self.assertEqual(tracer.process.returncode, NO_PROCESS, tracer.describe())

    def as_nobody(self):
        """Options that run alloctrace without any privilege, from where everybody may read it."""
        os.chmod(self.folder, 0o755)
        program = shutil.copy(ALLOCTRACE, self.path("alloctrace"))
        os.chmod(program, 0o755)
        folder = self.path("writable")
        os.mkdir(folder)
        os.chmod(folder, 0o777)
        return {"program": program, "cwd": folder, "user": NOBODY, "group": NOBODY, "extra_groups": []}

    def test_not_permitted_to_trace_anybody(self):
        target = self.target("sleeper")
        self.assert_refused(NOT_PERMITTED, "-p", target.pid, **self.as_nobody())

    def test_not_permitted_to_trace_even_ones_own(self):
        target = self.target("sleeper", user=NOBODY, group=NOBODY, extra_groups=[])
        self.assert_refused(NOT_PERMITTED, "-p", target.pid, **self.as_nobody())

    def test_not_permitted_to_trace_a_command(self):
        self.assert_refused(NOT_PERMITTED, "--", "/bin/true", **self.as_nobody())

    def test_command_that_does_not_exist(self):
        result = self.assert_refused(NOT_STARTED, "--", "/no/such/command")
        self.assertIn("/no/such/command", result.stderr)

    def test_command_that_may_not_be_executed(self):
        with open(self.path("data"), "w") as file:
            file.write("not a program\n")
        self.assert_refused(NOT_STARTED, "--", self.path("data"))

    def test_command_without_an_allocator(self):
        self.assert_refused(NOTHING_TO_RECORD, "--", f"{TARGETS}/static_no_malloc")

    def test_kernel_without_type_information(self):
        script = (
            "mount -t tmpfs none /sys/kernel/btf && exec "
            f"{ALLOCTRACE} -p {self.target('sleeper').pid} -d 600s"
        )
        tracer = self.tracer("-m", "sh", "-c", script, program="unshare")
        tracer.wait()
        if tracer.process.returncode == OK:
            self.skipTest("found the kernel's BTF elsewhere")
        result = Result(tracer)
        self.assertEqual(result.status, KERNEL_TOO_OLD, result.text)
        self.assert_one_line(result)

    def test_kernel_without_bpf(self):
        # EPERM would be a missing privilege; a kernel without the system call says ENOSYS.
        target = self.target("sleeper")
        blocker = shutil.which("strace")
        if not blocker:
            self.skipTest("strace is not installed")
        tracer = self.tracer(
            "-f", "-o", "/dev/null", "-e", "trace=bpf", "-e", "inject=bpf:error=ENOSYS",
            ALLOCTRACE, "-p", target.pid, "-d", "600s", program=blocker,
        )  # fmt: skip
        tracer.wait()
        result = Result(tracer)
        self.assertEqual(result.status, KERNEL_TOO_OLD, result.text)
        self.assert_one_line(result)

    def test_kernel_without_uprobes(self):
        target = self.target("sleeper")
        blocker = shutil.which("strace")
        if not blocker:
            self.skipTest("strace is not installed")
        # No BPF links, no perf events: nothing to attach by.
        tracer = self.tracer(
            "-f", "-o", "/dev/null", "-e", "trace=perf_event_open", "-e",
            "inject=perf_event_open:error=ENOENT",
            ALLOCTRACE, "-p", target.pid, "-d", "600s", "--attach", "perf", program=blocker,
        )  # fmt: skip
        tracer.wait()
        result = Result(tracer)
        self.assertEqual(result.status, KERNEL_TOO_OLD, result.text)
        self.assert_one_line(result)


class Outputs(Case):
    """Where profiles go, and what happens when they cannot."""

    def assert_cannot_write(self, *arguments, **options):
        result = self.run_tracer("-d", "600s", *arguments, limit=20, **options)
        self.assertEqual(result.status, NOT_WRITABLE, result.text)
        self.assert_one_line(result)
        return result

    def files(self):
        return sorted(name for name in os.listdir(self.folder) if not name.startswith("std"))

    def test_unwritable_places_are_refused_before_the_recording(self):
        target = self.target("sleeper")
        with open(self.path("file"), "w") as file:
            file.write("a file")
        for output in (
            self.path("no/such/folder/p.pb.gz"),
            self.path("file") + "/p.pb.gz",
            self.path("no-such-folder") + "/",
            "/proc/p.pb.gz",
        ):
            with self.subTest(output):
                self.assert_cannot_write("-p", target.pid, "-o", output)
        result = self.assert_cannot_write("-a", "-o", self.path("no-such-folder") + "/")
        self.assertIn("no-such-folder/: No such file or directory", result.stderr)

    def test_read_only_file_system_is_refused_before_the_recording(self):
        target = self.target("sleeper")
        os.mkdir(self.path("ro"))
        script = (
            f"mount -t tmpfs -o ro none {self.path('ro')} && exec "
            f"{ALLOCTRACE} -p {target.pid} -d 600s -o {self.path('ro')}/p.pb.gz"
        )
        tracer = self.tracer("-m", "sh", "-c", script, program="unshare")
        tracer.wait()
        result = Result(tracer)
        self.assertEqual(result.status, NOT_WRITABLE, result.text)
        self.assert_one_line(result)

    def test_symbolic_link_of_somebody_else_is_not_followed(self):
        target = self.target("sleeper")
        victim, link = self.path("victim"), self.path("link.pb.gz")
        with open(victim, "w") as file:
            file.write("precious")
        os.symlink(victim, link)
        os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
        self.assert_cannot_write("-p", target.pid, "-o", link)
        self.assertEqual(read_text(victim), "precious")
        self.assertTrue(os.path.islink(link))

    def test_symbolic_link_of_ones_own_leads_to_the_profile(self):
        target = self.target("ledger", "--rounds", "2")
        link = self.path("link.pb.gz")
        os.symlink(self.path("real.pb.gz"), link)
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", link)
        tracer.wait_recording()
        books = target.work()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        self.assert_books(Profile.read(link), books)

    def full_disk(self, target, folder):
        """Records onto a file system without a free page; (result, the folder's listing, old.pb.gz)."""
        os.mkdir(folder)
        script = (
            f"mount -t tmpfs -o size=64k none {folder} && cd {folder} && echo old >old.pb.gz && "
            "{ dd if=/dev/zero of=filler bs=4k 2>/dev/null; true; } && "
            f"{ALLOCTRACE} -v -p {target.pid} -s 1 -d 600s -o {folder}/old.pb.gz; status=$?; "
            f"ls -A >{self.path('listing')}; cat old.pb.gz >{self.path('old')}; exit $status"
        )
        tracer = self.tracer("-m", "sh", "-c", script, program="unshare")
        tracer.wait_recording()
        target.work()
        # The shell's child is alloctrace.
        children = read_text(f"/proc/{tracer.pid}/task/{tracer.pid}/children").split()
        os.kill(int(children[0]), signal.SIGINT)
        tracer.wait()
        return Result(tracer), read_text(self.path("listing")).split(), read_text(self.path("old"))

    def test_full_disk_leaves_the_old_file_as_it_was(self):
        target = self.target("ledger", "--rounds", "10")
        result, listing, old = self.full_disk(target, self.path("full"))
        self.assertEqual(result.status, NOT_WRITABLE, result.text)
        self.assertRegex(result.stderr, r"(?m)^alloctrace: .*old\.pb\.gz.*No space left")
        self.assertEqual(listing, ["filler", "old.pb.gz"])
        self.assertEqual(old, "old\n")
        # What was recorded is not lost as far as it can be told.
        self.assertIn("ledger", result.stdout)

    def test_full_device(self):
        target = self.target("ledger", "--rounds", "2")
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", "/dev/full")
        tracer.wait_recording()
        target.work()
        self.assertEqual(tracer.stop(), NOT_WRITABLE, tracer.describe())
        self.assertRegex(tracer.stderr, r"(?m)^alloctrace: .*No space left")
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/full").st_mode))

    def test_full_standard_output(self):
        target = self.target("ledger", "--rounds", "2")
        with open("/dev/full", "wb") as full:
            tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", "-", stdout=full)
            tracer.wait_recording()
            target.work()
            self.assertEqual(tracer.stop(), NOT_WRITABLE, tracer.describe())

    def test_summary_that_cannot_be_written_is_not_a_success(self):
        target = self.target("ledger", "--rounds", "2")
        output = self.path("p.pb.gz")
        with open("/dev/full", "wb") as full:
            tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", output, stdout=full)
            tracer.wait_recording()
            books = target.work()
            self.assertNotEqual(tracer.stop(), OK, tracer.describe())
        self.assert_books(Profile.read(output), books)

    def test_closed_pipe_does_not_cost_the_profile(self):
        target = self.target("ledger", "--rounds", "2")
        output = self.path("p.pb.gz")
        reading, writing = os.pipe()
        os.close(reading)
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", output, stdout=writing)
        os.close(writing)
        tracer.wait_recording()
        books = target.work()
        self.assertNotIn(tracer.stop(), (-signal.SIGPIPE, 128 + signal.SIGPIPE), tracer.describe())
        self.assert_books(Profile.read(output), books)

    def test_one_profile_that_cannot_be_written_does_not_cost_the_others(self):
        first, second = self.target("ledger", "--rounds", "2"), self.target("ledger", "--rounds", "2")
        for target in (first, second):
            os.mkdir(self.path(str(target.pid)))
        tracer = self.tracer(
            "-v", "-p", f"{first.pid},{second.pid}", "-s", "1", "-o", self.path("%p") + "/p.pb.gz"
        )
        tracer.wait_recording()
        first.work()
        books = second.work()
        shutil.rmtree(self.path(str(first.pid)))
        self.assertEqual(tracer.stop(), NOT_WRITABLE, tracer.describe())
        self.assert_books(Profile.read(self.path(f"{second.pid}/p.pb.gz")), books)

    def test_existing_file_is_replaced_at_once(self):
        target = self.target("ledger", "--rounds", "2")
        output = self.path("p.pb.gz")
        with open(output, "w") as file:
            file.write("old")
        inode = os.stat(output).st_ino
        with open(output) as still_open:
            tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", output)
            tracer.wait_recording()
            books = target.work()
            self.assertEqual(read_text(output), "old")
            self.assertEqual(tracer.stop(), OK, tracer.describe())
            # Who had it open reads on what was there.
            self.assertEqual(still_open.read(), "old")
        self.assertNotEqual(os.stat(output).st_ino, inode)
        self.assert_books(Profile.read(output), books)
        self.assertEqual(self.files(), ["p.pb.gz"])

    def record_to(self, target, *arguments, **options):
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", *arguments, **options)
        tracer.wait_recording()
        books = target.work()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        return books, Result(tracer)

    def test_default_name_is_in_the_current_folder(self):
        target = self.target("ledger", "--rounds", "2")
        books, result = self.record_to(target)
        name = f"alloctrace.ledger.{target.pid}.pb.gz"
        self.assertEqual(self.files(), [name])
        self.assertIn(name, result.stdout)
        self.assert_books(Profile.read(self.path(name)), books)

    def test_folder_gets_the_default_name(self):
        for number, suffix in enumerate(("", "/")):
            with self.subTest(suffix):
                target = self.target("ledger", "--rounds", "2")
                folder = self.path(f"folder{number}")
                os.mkdir(folder)
                self.record_to(target, "-o", folder + suffix)
                self.assertEqual(os.listdir(folder), [f"alloctrace.ledger.{target.pid}.pb.gz"])

    def test_patterns_stand_for_pid_and_command(self):
        target = self.target("ledger", "--rounds", "2")
        self.record_to(target, "-o", self.path("x-%c-%p-100%%.pb.gz"))
        self.assertEqual(self.files(), [f"x-ledger-{target.pid}-100%.pb.gz"])

    def test_strange_command_name_cannot_lead_elsewhere(self):
        # Not a slash, which no file's name has, but all else that is trouble.
        shutil.copy(f"{TARGETS}/ledger", self.path("..\x1b[31m %p"))
        target = self.target("..\x1b[31m %p", "--rounds", "2", program_folder=self.folder)
        folder = self.path("out")
        os.mkdir(folder)
        books, result = self.record_to(target, "-o", f"{folder}/%c.pb.gz")
        self.assertNotIn("\x1b", result.stdout + result.stderr)
        found = os.listdir(folder)
        self.assertEqual(len(found), 1)
        self.assertRegex(found[0], r"^[\w.+-]+$")
        self.assert_books(Profile.read(f"{folder}/{found[0]}"), books)

    def test_dash_gives_nothing_but_the_profile_on_stdout(self):
        target = self.target("ledger", "--rounds", "2")
        books, result = self.record_to(target, "-o", "-")
        profile = Profile(gzip.decompress(result.stdout_bytes))
        self.assert_books(profile, books)
        # The summary then goes to stderr.
        self.assertIn("ledger", result.stderr)
        self.assertRegex(result.stderr, r"(?m)^sampling +every allocation")
        self.assertEqual(self.files(), [])

    def test_profile_goes_through_a_pipe(self):
        target = self.target("ledger", "--rounds", "2")
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-o", fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        tracer.wait_recording()
        books = target.work()
        tracer.signal(signal.SIGINT)
        # Until it opens the pipe, reading says "end of file".
        data = b""

        def whole():
            nonlocal data
            try:
                data += os.read(reader, 65536)
            except BlockingIOError:
                pass
            return tracer.ended

        wait_for(whole, "the profile")
        whole()
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        self.assert_books(Profile(gzip.decompress(data)), books)

    def test_text_is_the_summary(self):
        target = self.target("ledger", "--rounds", "2")
        output = self.path("p.txt")
        self.record_to(target, "-f", "text", "-o", output)
        text = read_text(output)
        self.assertIn("every allocation: figures are exact", text)
        self.assertRegex(text, r"\b0 lost")
        self.assertIn("site_malloc", text)

    def test_folded_stacks_add_up_to_what_is_live(self):
        target = self.target("ledger", "--rounds", "2")
        output = self.path("p.folded")
        books, _ = self.record_to(target, "-f", "folded", "-o", output)
        total = 0
        for line in read_text(output).splitlines():
            stack, _, value = line.rpartition(" ")
            self.assertTrue(stack)
            total += int(value)
        self.assertEqual(total, sum(figures[3] for figures in books.values()))
        self.assertRegex(read_text(output), r"(?m)path_malloc;mid_malloc;site_malloc \d+$")

    def test_quiet_says_nothing(self):
        target = self.target("ledger", "--rounds", "2")
        output = self.path("p.pb.gz")
        result = self.run_tracer("-q", "-p", target.pid, "-d", "50ms", "-o", output)
        self.assertEqual(result.status, OK, result.text)
        self.assertEqual((result.stdout, result.stderr), ("", ""))
        self.assertTrue(os.path.exists(output))

    def test_without_terminal_there_is_no_progress_line(self):
        target = self.target("ledger", "--rounds", "2")
        result = self.run_tracer("-p", target.pid, "-d", "1100ms")
        self.assertEqual(result.status, OK, result.text)
        self.assertEqual(result.stderr, "")
        self.assertNotIn("\r", result.stdout)
        self.assertNotIn("\x1b", result.stdout)

    def test_top_limits_the_sites_of_the_summary(self):
        target = self.target("ledger", "--rounds", "5")
        _, result = self.record_to(target, "-T", "3", "-o", self.path("a.pb.gz"))
        three = len(set(re.findall(r"site_\w+", result.stdout)))
        self.assertGreater(three, 0)
        self.assertLessEqual(three, 3)
        target = self.target("ledger", "--rounds", "5")
        _, result = self.record_to(target, "-T", "100", "-o", self.path("b.pb.gz"))
        self.assertGreater(len(set(re.findall(r"site_\w+", result.stdout))), 20)

    def test_sample_bytes_are_the_profile_s_period(self):
        target = self.target("churn", "1")
        for text, period in (("64KiB", 65536), ("1MiB", 1 << 20), ("100000", 100000), (None, 512 << 10)):
            with self.subTest(text):
                output = self.path(f"{period}.pb.gz")
                options = ["-s", text] if text else []
                result = self.run_tracer("-p", target.pid, "-d", "50ms", "-o", output, *options)
                self.assertEqual(result.status, OK, result.text)
                self.assertEqual(Profile.read(output).period, period)

    def test_duration_is_the_profile_s(self):
        target = self.target("churn", "1")
        output = self.path("p.pb.gz")
        result = self.run_tracer("-p", target.pid, "-d", "300ms", "-o", output)
        self.assertEqual(result.status, OK, result.text)
        self.assertGreaterEqual(Profile.read(output).duration_nanos, 300_000_000)
        self.assertLess(abs(time.time_ns() - Profile.read(output).time_nanos), LIMIT * 10**9)


class Ends(Case):
    """What ends a recording, and what is left then."""

    def test_interrupt_ends_it_with_a_profile(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                target = self.target("ledger", "--rounds", "2")
                output = self.path(f"{number.name}.pb.gz")
                tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-d", "600s", "-o", output)
                tracer.wait_recording()
                books = target.work()
                tracer.signal(number)
                self.assertEqual(tracer.wait(), OK, tracer.describe())
                profile = Profile.read(output)
                self.assert_books(profile, books)
                self.assertIn("# ended: interrupted", profile.comments)

    def test_second_interrupt_gives_up(self):
        # Its output goes into a pipe that nobody empties, so there is a time between the two.
        target = self.target("ledger", "--rounds", "20")
        reading, writing = full_pipe()
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-d", "600s", "-o", "-", stdout=writing)
        os.close(writing)
        tracer.wait_recording()
        target.work()
        tracer.signal(signal.SIGINT)
        tracer.wait_until(
            lambda: "pipe" in read_text(f"/proc/{tracer.pid}/wchan"), "it to wait for the pipe"
        )
        tracer.signal(signal.SIGINT)
        self.assertEqual(tracer.wait(), INTERRUPTED_TWICE, tracer.describe())
        drain(reading)
        os.close(reading)

    def test_target_that_ends_half_way_leaves_its_profile(self):
        target = self.target("exits_soon")
        output = self.path("p.pb.gz")
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-d", "600s", "-o", output)
        tracer.wait_recording()
        target.say()
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        profile = Profile.read(output)
        self.assertEqual(profile.sites(), {"last_words": (100, 100000, 60, 60000)})
        self.assertIn("# ended: process ended", profile.comments)

    def test_killed_target_leaves_its_profile(self):
        target = self.target("ledger", "--rounds", "5")
        output = self.path("p.pb.gz")
        tracer = self.tracer("-v", "-p", target.pid, "-s", "1", "-d", "600s", "-o", output)
        tracer.wait_recording()
        books = target.work()
        target.signal(signal.SIGKILL)
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        self.assert_books(Profile.read(output), books)

    def test_target_that_ends_during_attach_gets_a_clear_answer(self):
        # Its end is spread over the whole of the tracer's start; which answer comes does not matter.
        started = time.monotonic()
        self.run_tracer("-q", "-p", self.target("sleeper").pid, "-d", "1ms")
        length = time.monotonic() - started
        for step in range(16):
            target = self.target("exits_soon")
            output = self.path(f"{step}.pb.gz")
            tracer = self.tracer("-p", target.pid, "-s", "1", "-d", "600s", "-o", output)
            delay = length * step / 16
            with self.subTest(delay):
                deadline = time.monotonic() + delay
                wait_for(lambda: time.monotonic() >= deadline or tracer.ended, "the moment")
                target.say()
                # The tracer may be holding a half-made link to it: it must get away all the same.
                self.assertEqual(target.wait(), 7, target.describe())
                status = tracer.wait()
                result = Result(tracer)
                self.assertIn(status, (OK, NO_PROCESS, NOTHING_TO_RECORD), result.text)
                if status == OK:
                    self.assertTrue(os.path.exists(output), result.text)
                    self.assertEqual(result.stderr, "", result.text)
                else:
                    self.assert_one_line(result)

    def test_each_of_several_processes_gets_its_profile(self):
        first = self.target("ledger", "--rounds", "5", "--seed", "1")
        second = self.target("ledger", "--rounds", "5", "--seed", "2")
        os.mkdir(self.path("out"))
        for pids in ([f"{first.pid},{second.pid}"], [first.pid, "-p", second.pid, "-p", first.pid]):
            with self.subTest(pids):
                tracer = self.tracer("-v", "-p", *pids, "-s", "1", "-o", self.path("out"))
                tracer.wait_recording()
                books = {}
                for target in (first, second):
                    if pids[0] == f"{first.pid},{second.pid}":
                        books[target.pid] = target.work()
                self.assertEqual(tracer.stop(), OK, tracer.describe())
                self.assertEqual(
                    sorted(os.listdir(self.path("out"))),
                    sorted(f"alloctrace.ledger.{t.pid}.pb.gz" for t in (first, second)),
                )
                for pid, expected in books.items():
                    profile = Profile.read(self.path(f"out/alloctrace.ledger.{pid}.pb.gz"))
                    self.assert_books(profile, expected)
                    self.assert_books_balance(profile)
                    self.assertEqual({s.labels["pid"] for s in profile.samples}, {str(pid)})

    def test_one_of_two_processes_ends_and_the_other_goes_on(self):
        first, second = self.target("exits_soon"), self.target("ledger", "--rounds", "5")
        os.mkdir(self.path("out"))
        tracer = self.tracer(
            "-v", "-p", f"{first.pid},{second.pid}", "-s", "1", "-o", self.path("out") + "/%c.pb.gz"
        )
        tracer.wait_recording()
        first.say()
        self.assertEqual(first.wait(), 7)
        books = second.work()
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        profile = Profile.read(self.path("out/exits_soon.pb.gz"))
        self.assertEqual(profile.sites(), {"last_words": (100, 100000, 60, 60000)})
        self.assert_books(Profile.read(self.path("out/ledger.pb.gz")), books)


class Commands(Case):
    """alloctrace -- COMMAND"""

    def test_command_is_traced_from_start_to_end(self):
        output = self.path("p.pb.gz")
        result = self.run_tracer("-s", "1", "-o", output, "--", f"{TARGETS}/exits_soon")
        # Its own status is 7; the recording was a success.
        self.assertEqual(result.status, OK, result.text)
        self.assertIn("ready", result.stdout)
        sites = Profile.read(output).sites()
        self.assertEqual(sites["last_words"], (100, 100000, 60, 60000))

    def test_command_gets_its_arguments_untouched(self):
        result = self.run_tracer(
            "-q", "-o", self.path("p.pb.gz"), "--", "/bin/echo", "-p", "1", "--", "a  b", "-h"
        )
        self.assertEqual(result.status, OK, result.text)
        self.assertEqual(result.stdout, "-p 1 -- a  b -h\n")

    def test_command_is_found_in_the_path(self):
        result = self.run_tracer("-q", "-o", self.path("p.pb.gz"), "--", "echo", "found")
        self.assertEqual((result.status, result.stdout), (OK, "found\n"), result.text)

    def test_command_reads_our_stdin(self):
        tracer = self.tracer(
            "-v", "-s", "1", "-o", self.path("p.pb.gz"), "--", f"{TARGETS}/ledger", "--rounds", "3",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        tracer.wait_recording()
        tracer.process.stdin.write(b"go\nend\n")
        tracer.process.stdin.flush()
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        line = next(line for line in tracer.stdout.split("\n") if line.startswith('{"malloc"'))
        self.assert_books(Profile.read(self.path("p.pb.gz")), parse_books(line))

    def test_duration_ends_the_recording_and_not_the_command(self):
        tracer = self.tracer(
            "-d", "100ms", "-o", self.path("p.pb.gz"), "--", f"{TARGETS}/sleeper", stdin=subprocess.PIPE
        )
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        pid = int(re.search(r"ready (\d+)", tracer.stdout).group(1))
        comm = read_text(f"/proc/{pid}/comm")
        tracer.process.stdin.close()
        self.assertEqual(comm, "sleeper\n")
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the command to end")

    def sudo(self, **more):
        return dict(os.environ, SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_USER="nobody", **more)

    def test_command_runs_as_who_called_sudo(self):
        os.chmod(self.folder, 0o755)
        result = self.run_tracer(
            "-q", "-o", self.path("p.pb.gz"), "--", "/bin/sh", "-c",
            "id -u; id -g; id -G; grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status",
            env=self.sudo(),
        )  # fmt: skip
        self.assertEqual(result.status, OK, result.text)
        ids, capabilities = result.stdout.split("\n")[:3], result.stdout.split("\n")[3:-1]
        self.assertEqual(ids, [str(NOBODY)] * 3)
        self.assertEqual([line.split()[1] for line in capabilities], ["0" * 16] * 4, result.stdout)

    def test_profile_belongs_to_who_called_sudo(self):
        target = self.target("ledger", "--rounds", "2")
        output = self.path("p.pb.gz")
        result = self.run_tracer("-p", target.pid, "-d", "50ms", "-o", output, env=self.sudo())
        self.assertEqual(result.status, OK, result.text)
        status = os.stat(output)
        self.assertEqual((status.st_uid, status.st_gid), (NOBODY, NOBODY))

    def test_link_of_who_called_sudo_may_not_point_at_what_is_root_s(self):
        # Else "sudo alloctrace" in one's own folder would write anywhere, and give it away.
        target = self.target("sleeper")
        victim, link = self.path("victim"), self.path("link.pb.gz")
        with open(victim, "w") as file:
            file.write("precious")
        os.symlink(victim, link)
        os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
        self.run_tracer("-q", "-p", target.pid, "-d", "50ms", "-o", link, env=self.sudo())
        self.assertEqual(read_text(victim), "precious")
        self.assertEqual(os.stat(victim).st_uid, 0)


if __name__ == "__main__":
    unittest.main()
