"""Profiles as go tool pprof sees them: no warning, and the same numbers."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
import urllib.request

from lib import LIMIT, Case, Profile, pprof, read_text, wait_for

TYPES = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]


class Pprof(Case):
    def setUp(self):
        super().setUp()
        self.profile, self.books, result = self.shared_recording("--rounds", "20")
        self.file = result.path

    def run_pprof(self, *arguments):
        status, stdout, stderr = pprof(*arguments, folder=self.folder)
        self.assertEqual(status, 0, stderr)
        self.assertEqual(stderr, "")
        return stdout

    def top(self, *arguments):
        """({function: cumulative value}, total) of -top."""
        text = self.run_pprof(
            "-top", "-nodecount=10000", "-nodefraction=0", "-unit=B", *arguments
        )
        rows = {}
        for line in text.split("\n"):
            match = re.match(r"^\s*(-?\d+)B?\s+\S+%\s+\S+%\s+(-?\d+)B?\s+\S+%\s+(.+?)( \(inline\))?$", line)
            if match:
                rows[match.group(3)] = int(match.group(2))
        total = re.search(r"of (-?\d+)B? total", text)
        self.assertTrue(total, text)
        return rows, int(total.group(1))

    def test_format_is_what_heap_profiles_look_like(self):
        p = self.profile
        self.assertEqual(
            p.sample_types,
            [
                ("alloc_objects", "count"),
                ("alloc_space", "bytes"),
                ("inuse_objects", "count"),
                ("inuse_space", "bytes"),
            ],
        )
        self.assertEqual(p.default_sample_type, "inuse_space")
        self.assertEqual((p.period_type, p.period), (("space", "bytes"), 1))
        self.assertEqual(p.strings[0], "")
        self.assertGreater(p.time_nanos, 1_600_000_000 * 10**9)
        self.assertGreater(p.duration_nanos, 0)
        self.assertEqual(p.bare_locations, [])
        self.assertEqual(list(p.locations), list(range(1, len(p.locations) + 1)))
        self.assertEqual(list(p.functions), list(range(1, len(p.functions) + 1)))
        self.assertEqual([m["id"] for m in p.mappings], list(range(1, len(p.mappings) + 1)))
        self.assertRegex(p.mappings[0]["file"], r"/ledger$")
        for mapping in p.mappings:
            self.assertRegex(mapping["build_id"], r"^([0-9a-f]{2})*$")
            self.assertLess(mapping["start"], mapping["limit"])
        self.assertEqual(p.mappings[0]["has"], (1, 1, 1, 1), "the targets have debug info")
        for sample in p.samples:
            self.assertEqual(len(sample.values), 4)
            self.assertEqual(sample.labels["comm"], "ledger")
            self.assertRegex(sample.labels["pid"], r"^\d+$")
            self.assertTrue(sample.frames)
        for mapping in p.mappings:
            for frame in (f for s in p.samples for f in s.frames if f.mapping == mapping["id"]):
                self.assertTrue(mapping["start"] <= frame.address < mapping["limit"], frame)

    def test_build_id_is_the_one_of_the_file(self):
        path = self.profile.mappings[0]["file"]
        notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, timeout=LIMIT)
        self.assertIn(f"Build ID: {self.profile.mappings[0]['build_id']}", notes.stdout)

    def test_addresses_are_those_of_the_calls(self):
        # Return address - 1: inside of the call, in an independent disassembly.
        path = self.profile.mappings[0]["file"]
        mapping = self.profile.mappings[0]
        code = subprocess.run(
            ["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, timeout=LIMIT
        ).stdout
        lines = re.findall(r"^\s*([0-9a-f]+):\s+(\S+)", code, re.MULTILINE)
        starts = [int(address, 16) for address, _ in lines]
        calls = {
            starts[i + 1] - 1
            for i in range(len(starts) - 1)
            if lines[i][1].startswith(("call", "bl"))
        }
        headers = subprocess.run(
            ["readelf", "-lW", path], capture_output=True, text=True, timeout=LIMIT
        ).stdout
        loads = [
            [int(n, 16) for n in line.split()[1:4]]
            for line in headers.split("\n")
            if re.match(r"\s+LOAD .* R E ", line)
        ]
        offset, vaddr, _ = loads[0]
        checked = 0
        for frame in {f.address for s in self.profile.samples for f in s.frames if f.mapping == 1}:
            link_address = frame - mapping["start"] + mapping["offset"] - offset + vaddr
            self.assertIn(link_address, calls, hex(link_address))
            checked += 1
        self.assertGreater(checked, 30)

    def test_top_shows_the_same_figures_for_every_type(self):
        sites = self.profile.sites()
        for index, name in enumerate(TYPES):
            with self.subTest(name):
                rows, total = self.top(f"-sample_index={name}", self.file)
                self.assertEqual(total, self.profile.totals()[index])
                for site in ("malloc", "calloc", "realloc_grow", "posix_memalign", "aligned_alloc"):
                    self.assertEqual(rows.get(f"path_{site}", 0), sites[site][index], site)

    def test_top_shows_what_is_in_use_by_default(self):
        text = self.run_pprof("-top", self.file)
        self.assertIn("Type: inuse_space", text)
        self.assertIn("path_malloc_large", text)

    def test_raw_shows_the_same_samples(self):
        text = self.run_pprof("-raw", self.file)
        self.assertIn("PeriodType: space bytes", text)
        self.assertIn("inuse_space/bytes[dflt]", text)
        body = text.split("Samples:\n")[1].split("Locations\n")[0]
        values = [tuple(map(int, m)) for m in re.findall(r"^ *(\d+) +(\d+) +(\d+) +(\d+):", body, re.M)]
        self.assertEqual(sorted(values), sorted(sample.values for sample in self.profile.samples))

    def test_list_shows_the_source(self):
        text = self.run_pprof("-sample_index=alloc_objects", "-list=^path_malloc$", self.file)
        self.assertIn("ROUTINE", text)
        self.assertRegex(text, r"path_malloc in .*/ledger_c\.c")
        self.assertRegex(text, rf"\b{self.books['malloc'][0]}\b")

    def test_peek_shows_callers_and_callees(self):
        text = self.run_pprof("-sample_index=alloc_objects", "-peek=^mid_malloc$", self.file)
        self.assertRegex(text, r"path_malloc\n.*mid_malloc\n.*site_malloc")

    def test_tree_shows_the_calls(self):
        text = self.run_pprof("-sample_index=alloc_objects", "-nodefraction=0", "-tree", "-nodecount=1000", self.file)
        self.assertIn("path_malloc", text)

    def test_comments_tell_how_it_was_recorded(self):
        text = self.run_pprof("-comments", self.file)
        self.assertRegex(text, r"alloctrace \d+\.\d+")
        self.assertIn(os.uname().release, text)
        self.assertIn("-s 1", text)

    def test_tags_are_there_to_filter_by(self):
        text = self.run_pprof("-tags", self.file)
        for tag in ("bytes:", "comm:", "pid:"):
            self.assertIn(tag, text)

    def test_base_leaves_the_difference(self):
        later, _, result = self.shared_recording("--rounds", "50", "--seed", "5")
        rows, _ = self.top("-sample_index=alloc_space", f"-base={self.file}", result.path)
        for site in ("malloc", "calloc", "realloc_grow"):
            expected = later.sites()[site][1] - self.profile.sites()[site][1]
            self.assertEqual(rows[f"path_{site}"], expected, site)

    def test_profile_minus_itself_is_nothing(self):
        rows, total = self.top("-sample_index=alloc_space", f"-base={self.file}", self.file)
        self.assertEqual([name for name, value in rows.items() if value], [])
        self.assertEqual(total, 0)

    def test_merged_profiles_add_up(self):
        other, _, result = self.shared_recording("--rounds", "50", "--seed", "5")
        rows, total = self.top("-sample_index=alloc_objects", self.file, result.path)
        self.assertEqual(total, self.profile.totals()[0] + other.totals()[0])
        self.assertEqual(
            rows["path_malloc"], self.profile.sites()["malloc"][0] + other.sites()["malloc"][0]
        )

    def test_web_interface_answers(self):
        err = tempfile.NamedTemporaryFile(dir=self.folder)
        server = subprocess.Popen(
            ["go", "tool", "pprof", "-http=127.0.0.1:", "-no_browser", self.file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            env=dict(os.environ, HOME=self.folder, PPROF_TMPDIR=self.folder),
            start_new_session=True,
        )

        def end():
            # `go tool` runs pprof as a child.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            err.close()

        self.addCleanup(end)
        found = wait_for(
            lambda: re.search(r"Serving web UI on (http://127\.0\.0\.1:\d+)", read_text(err.name)),
            "the web interface",
        )
        # The graph needs graphviz, which is a lot to install for one page. Source and disassembly need a
        # pprof that knows relocated programs, which the one in the Go distribution does not.
        pages = ["top", "flamegraph", "peek?f=path_malloc"]
        if shutil.which("dot"):
            pages.append("")

        def get(page):
            def answer():
                try:
                    with urllib.request.urlopen(f"{found.group(1)}/ui/{page}", timeout=LIMIT) as reply:
                        return reply.status, reply.read().decode()
                except ConnectionRefusedError:
                    return None
                except urllib.error.URLError as error:
                    if isinstance(error.reason, ConnectionRefusedError):
                        return None  # says that it serves a moment before it does
                    raise

            return wait_for(answer, f"/ui/{page}")

        for page in pages:
            with self.subTest(page):
                status, body = get(page)
                self.assertEqual(status, 200)
                self.assertIn("path_malloc", body)
        # Serving it was all it had to say.
        self.assertEqual(len(read_text(err.name).strip().split("\n")), 1, read_text(err.name))

    def test_sampled_profile_opens_as_well(self):
        target = self.target("ledger", "--sizes", "mixed", "--rounds", "20")
        profile, _, result = self.record(target)
        self.assertEqual(profile.period, 512 << 10)
        rows, total = self.top("-sample_index=alloc_space", result.path)
        self.assertEqual(total, profile.totals()[1])
        self.assertEqual(rows["path_bulk_64k"], profile.sites()["bulk_64k"][1])
        self.assertEqual(Profile.read(result.path).totals(), profile.totals())


if __name__ == "__main__":
    unittest.main()
