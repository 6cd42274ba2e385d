"""Programs without any debug information: images, exported functions and offsets, the same after every start.

What an offset stands for is told by addr2line, from a copy of the file that was not stripped.
"""

import os
import re
import shutil
import subprocess
import unittest

from lib import OK, ROOT, Case, Profile, pprof, read_text, text_mappings

FLAGS = [
    "-std=gnu11", "-O2", "-g", "-fno-optimize-sibling-calls", "-fno-toplevel-reorder", "-fno-builtin", "-D_GNU_SOURCE",
]  # fmt: skip
# The blocks of one round of exports.so, and of boxed itself: {size: (how many, function)}.
LIBRARY = {
    1100: (1, "static_first"),
    1101: (1, "static_first"),
    1200: (1, "exported_first"),
    1201: (1, "exported_first"),
    1300: (1, "static_second"),
    1301: (1, "static_second"),
    1400: (1, "exported_second"),
    1401: (1, "exported_second"),
    1500: (1, "static_last"),
}
PROGRAM = {1000: (3, "plain_outer")}
BLOCKS = LIBRARY | PROGRAM
EXPORTED = {"exported_first", "exported_second", "boxed_library"}
ROUND_BYTES = sum(size * count for size, (count, _) in BLOCKS.items())
TYPES = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{command}: {done.stderr}")
    return done.stdout


class NoDebugInfo(Case):
    def build(self, program_options=(), options=()):
        """A stripped program and library. Copies that are not stripped end in .full."""
        for name, source, more in (
            ("plain", "boxed", program_options),
            ("libexports.so", "exports", ["-fPIC", "-shared"]),
        ):
            path = self.path(name)
            source = os.path.join(ROOT, "tests", "targets", f"{source}.c")
            run("cc", *FLAGS, *options, *more, source, "-o", path + ".full")
            run("strip", "-o", path, path + ".full")

    def start(self):
        target = self.target("plain", self.path("libexports.so"), program_folder=self.folder)
        self.assertEqual(read_text("/proc/sys/kernel/randomize_va_space").strip(), "2", "addresses are not random here")
        return target

    def run_once(self, rounds):
        """(path of the profile, profile, {image: where it is mapped}) of a run of the program."""
        target = self.start()

        def work():
            for _ in range(rounds):
                target.say("work")
                self.assertEqual(target.next_line(), "done")

        profile, _, result = self.record(target, "-s", "1", work=work)
        mapped = {os.path.basename(path): start for start, _, _, path in text_mappings(target.pid)}
        target.kill()
        self.assert_nothing_lost(profile)
        return result.path, profile, mapped

    def resolve(self, image, offset):
        """What binutils say of an address of the file that was not stripped: [(function, line)], innermost first."""
        lines = run("addr2line", "-f", "-i", "-s", "-e", self.path(image) + ".full", offset).split("\n")
        found = []
        for function, place in zip(lines[0::2], lines[1::2]):
            line = re.search(r":(\d+)", place)
            found.append((function, int(line.group(1)) if line else 0))
        return found

    def function_of(self, name):
        """The function that a name stands for: an exported one, or what addr2line says of an offset."""
        match = re.fullmatch(r"\[(plain|libexports\.so)\+(0x[0-9a-f]+)\]", name)
        return self.resolve(*match.groups())[-1][0] if match else name

    # --- one profile ---

    def check_names(self, profile):
        seen = set()
        source = read_text(os.path.join(ROOT, "tests", "targets", "exports.c")).split("\n")
        for sample in profile.samples:
            size = sample.labels["bytes"]
            if size not in BLOCKS:
                continue
            seen.add(size)
            frames = [frame for frame in sample.frames if frame.name != "malloc"]
            names = [frame.name for frame in frames]
            called_by = [self.function_of(name) for name in names]
            # The whole chain, in the order of the calls, and main.
            chain = ["static_first", "exported_first", "static_second", "exported_second", "static_last"]
            if size in LIBRARY:
                depth = chain.index(LIBRARY[size][1]) + 1
                self.assertEqual(called_by[: depth + 3], chain[:depth][::-1] + ["boxed_library", "obey", "main"], names)
            else:
                self.assertEqual(called_by[:3], ["plain_outer", "obey", "main"], names)
            for frame in frames[: called_by.index("main") + 1]:
                self.assertEqual(frame.name in EXPORTED, self.function_of(frame.name) in EXPORTED, frame)
                self.assertEqual((frame.file, frame.line), ("", 0))
                self.assertEqual(frame.name, frame.system_name)
            # The line of the call, where the innermost is an offset.
            if frames[0].name not in EXPORTED and size in LIBRARY:
                _, line = self.resolve(*re.fullmatch(r"\[(.*)\+(.*)\]", frames[0].name).groups())[0]
                self.assertIn(f"malloc({size})", source[line - 1])
        self.assertEqual(seen, set(BLOCKS))
        files = [os.path.basename(mapping["file"]) for mapping in profile.mappings]
        self.assertEqual(files[0], "plain")
        self.assertLessEqual({"libexports.so", "libc.so.6"}, set(files))

    # --- in go tool pprof ---

    def run_pprof(self, *arguments):
        status, stdout, stderr = pprof(*arguments, folder=self.folder)
        self.assertEqual(status, 0, stderr)
        return stdout

    def top(self, index, *arguments):
        """{name: (flat, cumulative)} of -top."""
        text = self.run_pprof(
            "-top", "-nodecount=10000", "-nodefraction=0", "-unit=B", f"-sample_index={index}", *arguments
        )
        rows = {}
        for line in text.split("\n"):
            match = re.match(r"^\s*(-?\d+)B?\s+\S+%\s+\S+%\s+(-?\d+)B?\s+\S+%\s+(.+?)$", line)
            if match:
                self.assertNotIn(match.group(3), rows)
                rows[match.group(3)] = (int(match.group(1)), int(match.group(2)))
        self.assertTrue(rows, text)
        return rows

    def expected(self, rounds, unit):
        """{function: flat} of so many rounds, in objects (0) or bytes (1)."""
        flat = {}
        for size, (count, function) in BLOCKS.items():
            flat[function] = flat.get(function, 0) + rounds * count * (size if unit else 1)
        return flat

    def assert_rounds(self, rows, rounds, unit):
        flat = {}
        for name, (own, _) in rows.items():
            if own:
                function = self.function_of(name)
                flat[function] = flat.get(function, 0) + own
        self.assertEqual(flat, self.expected(rounds, unit))
        whole = sum(self.expected(rounds, unit).values())
        main = [rows[name][1] for name in rows if self.function_of(name) == "main"]
        self.assertEqual(sum(main), whole, rows)

    def check_all(self, moves=("plain", "libexports.so"), **how):
        self.build(**how)
        first, profile, mapped = self.run_once(2)
        second, other, mapped_again = self.run_once(5)
        for image in moves:
            self.assertNotEqual(mapped[image], mapped_again[image], image)
        self.check_names(profile)
        self.check_names(other)
        for position, index in enumerate(TYPES):
            with self.subTest(index):
                self.assert_rounds(self.top(index, first), 2, position % 2)
                self.assert_rounds(self.top(index, "-base", first, second), 5 - 2, position % 2)
                # The other way round, too: what is gone.
                self.assert_rounds(self.top(index, "-base", second, first), 2 - 5, position % 2)
                self.assert_rounds(self.top(index, first, second), 5 + 2, position % 2)
        self.check_traces(first, second, profile)
        self.check_merged(first, second, profile, other)

    def check_traces(self, first, second, profile):
        """The same names, and no others, in every stack of the difference."""
        names = {frame.name for sample in profile.samples for frame in sample.frames}
        text = self.run_pprof("-traces", "-sample_index=alloc_space", "-base", first, second)
        lines = [line for line in text.split("-+-", 1)[1].split("\n") if not re.match(r"^\s*(\w+:|-+\+)", line)]
        shown = {re.sub(r"^\s*(-?[\d.]+[kMG]?B)?\s+", "", line) for line in lines if "B " in line or line.startswith("  ")}
        self.assertLessEqual({name for name in shown if name.startswith("[")}, names)
        self.assertTrue([name for name in shown if name.startswith("[libexports.so+0x")], text)

    def check_merged(self, first, second, profile, other):
        merged_path = self.path("merged.pb.gz")
        self.run_pprof("-proto", f"-output={merged_path}", first, second)
        merged = Profile.read(merged_path)
        self.assertEqual(merged.totals(), tuple(map(sum, zip(profile.totals(), other.totals()))))

        def places(profile):
            return {tuple(frame.name for frame in frames) for frames in profile.locations.values()}

        def used(profile):
            ids = {mapping["id"]: mapping["file"] for mapping in profile.mappings}
            return {
                (os.path.basename(ids[frame.mapping]), frame.name)
                for sample in profile.samples
                for frame in sample.frames
                if frame.mapping
            }

        self.assertEqual(used(merged), used(profile) | used(other))
        # One place of the code is one location, wherever it was mapped.
        in_ours = [name for frames in merged.locations.values() for name in [frames[0].name] if name.startswith("[libexports")]
        self.assertEqual(len(in_ours), len(set(in_ours)))
        self.assertEqual(len([m for m in merged.mappings if m["file"].endswith("/libexports.so")]), 1)
        self.assertLessEqual(places(merged), places(profile) | places(other))

    def test_names_differences_and_sums_are_right_across_restarts(self):
        self.check_all()

    def test_folded_stacks_and_the_summary_have_the_same_names(self):
        self.build()
        target = self.start()
        output = self.path("out.folded")
        tracer = self.tracer("-v", "-s", "1", "-T", "100", "-d", "600s", "-p", target.pid, "-f", "folded", "-o", output)
        tracer.wait_recording()
        target.say("work")
        self.assertEqual(target.next_line(), "done")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        flat = {}
        for line in read_text(output).split("\n")[:-1]:
            stack, size = re.fullmatch(r"(.*) (\d+)", line).groups()
            frames = stack.split(";")
            name = frames[-2] if frames[-1] == "malloc" else frames[-1]
            function = self.function_of(name)
            flat[function] = flat.get(function, 0) + int(size)
        self.assertEqual(flat, self.expected(1, 1))
        # Of the sites of the summary, by the names in their stacks.
        offsets = set(re.findall(r"\[[^\[\]]+\+0x[0-9a-f]+\]", read_text(output)))
        shown = set(re.findall(r"\[(?:plain|libexports\.so)\+0x[0-9a-f]+\]", tracer.stdout))
        self.assertTrue(shown)
        self.assertLessEqual(shown, offsets)
        self.assertLessEqual({"static_last", "static_second", "plain_outer"}, {self.function_of(name) for name in shown})

    def test_position_dependent_program(self):
        self.check_all(moves=["libexports.so"], program_options=["-no-pie"])

    @unittest.skipUnless(shutil.which("ld.lld"), "lld is not installed")
    def test_segments_that_lld_has_packed(self):
        self.check_all(options=["-fuse-ld=lld"])
        # Offsets in the file and addresses are not the same.
        for image in ("plain", "libexports.so"):
            loads = re.findall(r"LOAD +(0x\w+) (0x\w+) .* R E ", run("readelf", "-lW", self.path(image)))
            self.assertNotEqual(*(int(number, 16) for number in loads[0]))

    def test_without_build_id(self):
        self.check_all(options=["-Wl,--build-id=none"])


if __name__ == "__main__":
    unittest.main()
