"""Code that is made at run time: its names are those of its perf map, and where there are none, that is said."""

import contextlib
import os
import re
import shutil
import subprocess
import unittest

from lib import LIMIT, OK, Case, Profile, pprof, read_text

INNER = "Object.<init> [\ufffd\ufffd] (a::b)"
OTHER_USER = 54321


def map_path(pid):
    return f"/tmp/perf-{pid}.map"


def warnings(profile):
    """Those about names: a call that is under way at the end is lost, which is another matter."""
    found = [comment for comment in profile.comments if comment.startswith("WARNING")]
    return [comment for comment in found if " samples were lost" not in comment]


class Jit(Case):
    def start(self, with_map="map", memory="anonymous"):
        target = self.ledger("ledger_jit", with_map, memory, "--rounds", "50")
        self.remove_later(map_path(target.pid))
        return target

    def remove_later(self, path):
        def remove():
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)

        self.addCleanup(remove)

    def assert_named(self, profile, books):
        self.assertEqual(sorted(books), ["jit_last", "jit_other", "jit_small"])
        self.assert_exact(profile, books)
        for sample in profile.samples:
            self.assertEqual(sample.frames[0].name, INNER)
            self.assertRegex(sample.frames[1].name, r"^path_jit_\w+$")
        # Of the map's lines three are none.
        self.assertEqual(len(warnings(profile)), 1, profile.comments)
        self.assertIn("WARNING: 3 lines of the process's /tmp/perf-", warnings(profile)[0])

    def assert_nameless(self, profile, books, warning):
        self.assertEqual(profile.totals(), tuple(map(sum, zip(*(f[:4] for f in books.values())))))
        for sample in profile.samples:
            self.assertEqual([frame.name for frame in sample.frames[:2]], ["[jit]", "[jit]"])
        self.assertEqual(len(warnings(profile)), 1, profile.comments)
        self.assertRegex(warnings(profile)[0], warning)

    def test_code_made_at_run_time_has_the_names_of_its_map(self):
        for memory in ("anonymous", "shared"):
            with self.subTest(memory):
                profile, books, result = self.record(self.start(memory=memory), "-s", "1")
                self.assert_named(profile, books)
                self.assertIn("path_jit_small", result.stdout)
                self.assertIn("Object.<init> [\\x01\\xFF] (a::b)", result.stdout)

    def test_pprof_shows_the_names(self):
        for with_map in ("map", "no-map"):
            with self.subTest(with_map):
                _, books, result = self.record(self.start(with_map), "-s", "1")
                status, stdout, stderr = pprof(
                    "-top", "-unit=B", "-sample_index=alloc_space", result.path, folder=self.folder
                )
                self.assertEqual((status, stderr), (0, ""))
                rows = {name: int(sum) for sum, name in re.findall(r"(\d+)B +\S+% +(\S+[^%\n]*)$", stdout, re.M)}
                total = sum(figures[1] for figures in books.values())
                if with_map == "map":
                    self.assertEqual(rows.get(INNER), total, stdout)
                    for site, figures in books.items():
                        self.assertEqual(rows.get(f"path_{site}"), figures[1], stdout)
                else:
                    self.assertEqual(rows.get("[jit]"), total, stdout)

    def test_without_a_map_the_summary_says_what_it_takes(self):
        target = self.start("no-map")
        profile, books, result = self.record(target, "-s", "1")
        told = f"100 % of the samples pass through code made at run time, whose names are not known: .*{map_path(target.pid)}"
        self.assert_nameless(profile, books, told)
        self.assertRegex(result.stdout, told)

    def test_a_map_that_does_not_name_the_code_is_said(self):
        target = self.start()
        with open(map_path(target.pid), "w") as file:
            file.write("1000 1000 somewhere_else\n")
        profile, books, _ = self.record(target, "-s", "1")
        self.assert_nameless(profile, books, rf"100 % of the samples .* {map_path(target.pid)} does not name")

    def test_a_map_that_is_not_to_be_trusted_is_not_used(self):
        def other_owner(path):
            os.chown(path, OTHER_USER, OTHER_USER)

        def writable(path):
            os.chmod(path, 0o646)

        def writable_by_a_group(path):
            os.chown(path, 0, OTHER_USER)
            os.chmod(path, 0o664)

        def fifo(path):
            os.unlink(path)
            os.mkfifo(path, 0o600)

        def folder(path):
            os.unlink(path)
            os.mkdir(path)

        def large(path):
            os.truncate(path, (256 << 20) + 1)

        for spoil, reason in (
            (other_owner, "belongs neither to the process's user nor to root"),
            (writable, "can be written by others than its owner"),
            (writable_by_a_group, "can be written by others than its owner"),
            (fifo, "is not a regular file"),
            (folder, "is not a regular file"),
            (large, "is larger than 256 MiB"),
        ):
            with self.subTest(spoil.__name__):
                target = self.start()
                spoil(map_path(target.pid))
                profile, books, _ = self.record(target, "-s", "1")
                self.assert_nameless(profile, books, f"not used, because it {reason}$")

    def test_the_map_of_a_process_that_has_ended_is_read(self):
        target = self.start()
        output = self.path("ended.pb.gz")
        tracer = self.tracer("-v", "-p", target.pid, "-d", "600s", "-s", "1", "-o", output)
        tracer.wait_recording()
        books = target.work()
        target.process.stdin.close()
        self.assertEqual(target.wait(), 0, target.describe())
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        self.assertIn("process ended", tracer.stdout)
        self.assert_named(Profile.read(output), books)

    def test_in_a_pid_namespace_the_map_has_the_id_in_there(self):
        if not shutil.which("unshare"):
            self.skipTest("no unshare")
        # What is built may lie below /tmp itself, and goes along.
        script = (
            'exec 3<"$0" && mount -t tmpfs none /tmp && cp /proc/self/fd/3 /tmp/ledger_jit && '
            'chmod 755 /tmp/ledger_jit && exec /tmp/ledger_jit "$@" 3<&-'
        )
        program = os.path.join(os.path.dirname(self.start("no-map").command[0]), "ledger_jit")
        target = self.target(
            "unshare", "--pid", "--mount", "--fork", "--mount-proc", "sh", "-c", script,
            program, "map", "anonymous", "--rounds", "50", program_folder=os.path.dirname(shutil.which("unshare")),
        )  # fmt: skip
        self.assertEqual(target.ready_line, "ready 1")
        target.pid = int(read_text(f"/proc/{target.pid}/task/{target.pid}/children").split()[0])
        decoy = map_path(target.pid)  # in our own /tmp, under the id that it has here
        self.remove_later(decoy)
        with open(decoy, "w") as file:
            file.write("0 ffffffffffffffff of_another_process\n")
        profile, books, _ = self.record(target, "-s", "1")
        self.assert_named(profile, books)
        self.assertIn("/tmp/perf-1.map", warnings(profile)[0])


NODE_SCRIPT = """
const kept = [];
function path_node(size) {
	const block = Buffer.allocUnsafeSlow(size);
	kept.push(block);
	if (kept.length > 50) kept.shift();
	return block.length;
}
function work() {
	let sum = 0;
	for (const end = Date.now() + 50; Date.now() < end;) sum += path_node(100000);
	setTimeout(work, 1);
	return sum;
}
work();
setTimeout(() => console.log("ready " + process.pid), 1000);
"""

JAVA_PROGRAM = """
import java.util.zip.Deflater;

public class Allocates {
	static void pathJava() {
		new Deflater().end();
	}

	public static void main(String[] arguments) {
		for (long i = 0;; i++) {
			if (i == 20000)
				System.out.println("ready " + ProcessHandle.current().pid());
			pathJava();
		}
	}
}
"""


class Runtimes(Case):
    """Compilers that are not ours."""

    def start(self, program, *arguments):
        """Starts it, and waits until it is warm."""
        target = self.target(program, *arguments, program_folder=os.path.dirname(shutil.which(program)), cwd=self.folder)
        self.addCleanup(lambda: os.path.exists(map_path(target.pid)) and os.unlink(map_path(target.pid)))
        return target

    def watch(self, target):
        output = self.path("watched.pb.gz")
        result = self.run_tracer("-p", target.pid, "-d", "1s", "-s", "64KiB", "-o", output)
        self.assertEqual(result.status, OK, result.text)
        profile = Profile.read(output)
        self.assertGreater(len(profile.samples), 0, result.text)
        return profile

    def share(self, profile, pattern):
        """Of what was allocated: the share whose stacks have such a frame."""
        through = [
            sample.values[1]
            for sample in profile.samples
            if any(re.search(pattern, frame.name) for frame in sample.frames)
        ]
        return sum(through) / profile.totals()[1]

    def test_functions_of_node_have_names(self):
        if not shutil.which("node"):
            self.skipTest("no node")
        script = self.path("allocates.js")
        with open(script, "w") as file:
            file.write(NODE_SCRIPT)
        profile = self.watch(self.start("node", "--perf-basic-prof", script))
        self.assertGreater(self.share(profile, r"(path_node|work) \S*allocates\.js:\d+"), 0.9)
        self.assertEqual(warnings(profile), [])
        profile = self.watch(self.start("node", script))
        self.assertEqual(self.share(profile, r"allocates\.js"), 0)
        self.assertEqual(len(warnings(profile)), 1)
        self.assertIn("--perf-basic-prof", warnings(profile)[0])

    def test_methods_of_java_have_names(self):
        if not shutil.which("jcmd"):
            self.skipTest("no jcmd (a JDK)")
        source = self.path("Allocates.java")
        with open(source, "w") as file:
            file.write(JAVA_PROGRAM)
        # Compiled at once and once only: a map that is asked for holds for all of the recording.
        flags = ("-Xbatch", "-XX:TieredStopAtLevel=1", "-XX:-Inline", "-XX:+UseSerialGC", "-XX:+PreserveFramePointer")
        target = self.start("java", *flags, source)
        done = subprocess.run(["jcmd", str(target.pid), "Compiler.perfmap"], capture_output=True, timeout=LIMIT)
        if done.returncode:
            self.skipTest("a JDK older than 17")
        profile = self.watch(target)
        self.assertGreater(self.share(profile, r"Allocates\.pathJava"), 0.9)


if __name__ == "__main__":
    unittest.main()
