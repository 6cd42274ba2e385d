"""Names of what runs in a container: of the files that it has mapped, from debug files that are its own.

The containers are real: mount and pid namespaces, overlays, chroot (tests/targets/contain.c). What is
traced in them is built several times (tests/targets/boxed.c): with the same code and the same build id, but
with other names in the debug information. So names tell which file they were read from.
"""

import contextlib
import itertools
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import threading
import unittest

from lib import ALLOCTRACE, OK, ROOT, TARGETS, Case, Profile, Target, read_bytes, read_text, text_mappings, wait_for

FLAGS = [
    "-std=gnu11", "-O2", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-fno-builtin", "-pthread",
    "-D_GNU_SOURCE",
]  # fmt: skip
DEBUG = "/usr/lib/debug"
NAMESPACES = ("pivot", "overlay", "upper")  # ways to be contained: in contain.c


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{command}: {done.stderr}")
    return done.stdout


def read_start(path, size):
    with open(path, "rb") as file:
        return file.read(size)


def by_build_id(build_id):
    return f"{DEBUG}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"


class Build:
    """One build of boxed or boxed_library: full (not stripped), image (without any symbol), debug (the rest)."""

    def __init__(self, folder, flavour, build_id, source="boxed", options=()):
        self.build_id = build_id
        base = os.path.join(folder, f"{source}.{flavour}.{secrets.token_hex(4)}")
        self.full, self.image, self.debug = base + ".full", base, base + ".debug"
        run(
            "cc", *FLAGS, f"-DFLAVOUR={flavour}", *(["-fPIC", "-shared"] if source != "boxed" else []), *options,
            f"-Wl,--build-id={'0x' + build_id if build_id else 'none'}",
            os.path.join(ROOT, "tests", "targets", f"{source}.c"), "-o", self.full,
        )  # fmt: skip
        run("objcopy", "--only-keep-debug", self.full, self.debug)
        run("objcopy", "--strip-all", self.full, self.image)

    def link(self, name, target=None, keep=("--strip-all",)):
        """An image with a .gnu_debuglink: a name, and the checksum of target, which is self.debug."""
        folder = f"{self.image}.{secrets.token_hex(4)}"
        os.mkdir(folder)
        linked, path = os.path.join(folder, "image"), os.path.join(folder, name)
        shutil.copy(target or self.debug, path)
        run("objcopy", *keep, f"--add-gnu-debuglink={path}", self.full, linked)
        os.unlink(path)
        return linked


class Box:
    """The root folder of a container, and its programs."""

    def __init__(self, case, how="pivot"):
        self.case = case
        self.how = how
        self.root = case.path(f"root.{secrets.token_hex(4)}")
        for folder in ("proc", "tmp", "bin", DEBUG.strip("/")):
            os.makedirs(self.path(folder))
        for library in re.findall(r"(/\S+) \(0x", run("ldd", f"{TARGETS}/boxed")):
            self.add(library, library)

    def path(self, inside):
        return os.path.join(self.root, inside.lstrip("/"))

    def make_folder(self, inside):
        path = self.path(inside)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def add(self, file, inside):
        """A copy, in a file of its own, that takes the place of what was there as an upgrade does."""
        path = self.make_folder(inside)
        shutil.copy(file, path + ".new")
        os.chmod(path + ".new", 0o755)
        os.rename(path + ".new", path)

    def link(self, leads_to, inside):
        os.symlink(leads_to, self.make_folder(inside))

    def start(self, program="/bin/boxed", *arguments):
        box = Boxed(self, program, *arguments)
        self.case.addCleanup(box.kill)
        return box


class Boxed(Target):
    """boxed in a box. pid is the one that we see."""

    def __init__(self, box, program, *arguments):
        super().__init__("contain", box.how, box.root, program, *arguments, folder=box.case.folder)
        if box.how != "chroot":
            self.outer = self.pid
            self.pid = int(read_text(f"/proc/{self.outer}/task/{self.outer}/children"))

    def do(self, text):
        self.say(text)
        line = self.next_line(f"'{text}' to be done")
        if line != "done":
            raise AssertionError(line)


class Containers(Case):
    def build(self, flavour, build_id=None, **options):
        return Build(self.folder, flavour, build_id, **options)

    def find_boxed(self, tracer):
        """The process that a tracer has started, or its child, when it has become boxed."""
        children = [tracer.pid]
        while children:
            pid = children.pop()
            with contextlib.suppress(OSError):
                if read_text(f"/proc/{pid}/comm") == "boxed\n":
                    return pid
                children += map(int, read_text(f"/proc/{pid}/task/{pid}/children").split())
        return None

    def start_tracer(self, targets, *options, host=None):
        """host: a folder that is /usr/lib/debug for the tracer."""
        pids = ",".join(str(target.pid) for target in targets)
        command = [ALLOCTRACE, "-v", "-s", "1", "-d", "600s", "-p", pids, "-o", self.path("%p.pb.gz"), *options]
        if host:
            script = f'mkdir -p {DEBUG} && mount --bind "$1" {DEBUG} && shift && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", script, "sh", host, *command]
        tracer = self.tracer(*command[1:], program=command[0])
        tracer.wait_recording()
        return tracer

    def profile(self, target):
        return Profile.read(self.path(f"{target.pid}.pb.gz"))

    def trace(self, target, *options, work=None, **how):
        """(profile, stderr) of a target that works once, or does `work`."""
        tracer = self.start_tracer([target], *options, **how)
        if work:
            work(tracer)
        else:
            target.do("work")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        return self.profile(target), tracer.stderr

    def host(self, build, place=None):
        """A /usr/lib/debug for the tracer that has the debug file of a build."""
        folder = self.path(f"host.{secrets.token_hex(4)}")
        path = folder + (place or by_build_id(build.build_id)).removeprefix(DEBUG)
        os.makedirs(os.path.dirname(path))
        shutil.copy(build.debug, path)
        return folder

    def wait_probed(self, tracer, pid):
        """Until the C library of the program that a process has executed is probed: it comes last."""

        def libc_of(pid):
            return next(path for *_, path in text_mappings(pid) if path.endswith("/libc.so.6"))

        def probed():
            said = re.findall(rf"process {pid}: probes in (.*)\n", tracer.stderr)
            # Seen from the container, or from the host, where ours has a path of its own.
            return [path for path in said if libc_of(pid).endswith(path) and path != libc_of(os.getpid())]

        tracer.wait_until(probed, f"the C library of {pid} to be probed")

    def load(self, tracer, target, library):
        """Until the library's code is known."""
        known = rf"process {target.pid}: code at (\d+) places"
        target.do(f"load {library}")
        places = len(re.findall(r"(?m)^\S+ ..x", read_text(f"/proc/{target.pid}/maps")))
        tracer.wait_until(
            lambda: [n for n in re.findall(known, tracer.stderr) if int(n) >= places], "the library to be known"
        )

    # --- what is asserted ---

    def flavours(self, profile):
        names = {frame.name for sample in profile.samples for frame in sample.frames}
        return {match.group(1) for match in map(re.compile(r"(\w+)_(?:outer|inner|static)").fullmatch, names) if match}

    def frames(self, profile, size):
        """The innermost two frames of boxed itself, of the one site that has blocks of that size."""
        stacks = [sample.frames for sample in profile.samples if sample.labels.get("bytes") == size]
        self.assertEqual(len(stacks), 1, [sample.frames for sample in profile.samples])
        return [frame for frame in stacks[0] if frame.system_name not in ("malloc", "__libc_malloc")][:2]

    def line_of(self, mark, source="boxed"):
        lines = read_text(os.path.join(ROOT, "tests", "targets", f"{source}.c")).split("\n")
        return next(number for number, line in enumerate(lines, 1) if f"/* the line of {mark} */" in line)

    def assert_named(self, profile, flavour, library=None):
        """Functions, inlined ones, files and lines, of one build and of no other."""
        inner, outer = self.frames(profile, 1000)
        self.assertEqual((inner.name, outer.name), (f"{flavour}_inner", f"{flavour}_outer"))
        self.assertEqual((inner.line, outer.line), (self.line_of("inner"), self.line_of("outer")))
        self.assertEqual({os.path.basename(frame.file) for frame in (inner, outer)}, {"boxed.c"})
        self.assertEqual(self.flavours(profile), {flavour} | ({library} if library else set()))
        if library:
            static, exported = self.frames(profile, 500)
            self.assertEqual((static.name, exported.name), (f"{library}_static", "boxed_library"))
            self.assertEqual(static.line, self.line_of("static", "boxed_library"))
            self.assertEqual(os.path.basename(static.file), "boxed_library.c")
        self.assert_nothing_lost(profile)

    def assert_unnamed(self, profile, name="boxed"):
        """No name of any build, and offsets instead."""
        self.assertEqual(self.flavours(profile), set())
        for frame in self.frames(profile, 1000):
            self.assertRegex(frame.name, rf"^\[{name}\+0x[0-9a-f]+\]$")
            self.assertEqual((frame.file, frame.line), ("", 0))
        self.assert_nothing_lost(profile)

    def looks(self, stderr, image="/bin/boxed"):
        """[(place, is it in the container, what came of it)] of one image, without itself, from -v."""
        found = re.findall(r"^alloctrace: debug information of (.*?): (.*?)( \(in its root\))?: (.*)$", stderr, re.M)
        return [
            (place, bool(inside), outcome)
            for path, place, inside, outcome in found
            if path.endswith(image) and place != "the file itself"
        ]


class Names(Containers):
    """Where the files of a container are, and whose."""

    def test_program_and_library_that_only_the_container_has(self):
        program = self.build("plain")
        library = self.build("plugged", source="boxed_library")
        for how in (*NAMESPACES, "volume", "chroot"):
            with self.subTest(how):
                box = Box(self, how)
                box.add(program.full, "/bin/boxed")
                box.add(library.full, "/opt/plug.so")
                self.assertFalse(os.path.exists("/bin/boxed") or os.path.exists("/opt/plug.so"))
                target = box.start("/bin/boxed", "/opt/plug.so")
                profile, _ = self.trace(target)
                self.assert_named(profile, "plain", "plugged")

    def test_process_has_the_id_that_the_host_sees(self):
        box = Box(self)
        box.add(self.build("plain").full, "/bin/boxed")
        target = box.start()
        self.assertEqual(target.ready_line, "ready 1")
        self.assertRegex(read_text(f"/proc/{target.pid}/status"), rf"(?m)^NSpid:\s{target.pid}\s1$")
        tracer = self.start_tracer([target])
        target.do("work")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        self.assertEqual([name for name in os.listdir(self.folder) if name.endswith(".pb.gz")], [f"{target.pid}.pb.gz"])
        self.assertRegex(tracer.stdout, rf"(?m)^alloctrace \S+ [^\n]*, pid {target.pid}, ")
        self.assertEqual({sample.labels["pid"] for sample in self.profile(target).samples}, {str(target.pid)})

    def test_command_that_goes_into_a_container(self):
        # As a container's runtime does: the program is executed in a root of its own, by a child or by the command.
        build = self.build("contained", secrets.token_hex(20))
        for how in (*NAMESPACES, "volume", "chroot"):
            with self.subTest(how):
                box = Box(self, how)
                box.add(build.link("boxed.dbg"), "/bin/boxed")
                box.add(build.debug, "/bin/boxed.dbg")
                folder = self.path(f"out.{secrets.token_hex(4)}/")
                os.mkdir(folder)
                tracer = self.tracer(
                    "-v", "-s", "1", "--follow", "-o", folder + "%p.pb.gz", "--",
                    f"{TARGETS}/contain", how, box.root, "/bin/boxed", stdin=subprocess.PIPE,
                )  # fmt: skip
                lines = wait_for(lambda: re.findall(r"(?m)^(ready|done)", tracer.stdout), "ready")
                self.assertEqual(lines, ["ready"])
                child = tracer.wait_until(lambda: self.find_boxed(tracer), "the program")
                self.wait_probed(tracer, child)
                tracer.process.stdin.write(b"work\n")
                tracer.process.stdin.flush()
                tracer.wait_until(lambda: "done\n" in tracer.stdout, "the work")
                tracer.process.stdin.close()
                self.assertEqual(tracer.wait(), OK, tracer.describe())
                profile = Profile.read(f"{folder}{child}.pb.gz")
                self.assert_named(profile, "contained")
                self.assertRegex(profile.mappings[0]["file"], r"/bin/boxed$")

    def test_debug_file_of_the_container(self):
        build_id = secrets.token_hex(20)
        places = {
            "by build id": by_build_id(build_id),
            "beside": "/srv/app/boxed.dbg",
            "in .debug": "/srv/app/.debug/boxed.dbg",
            "in the folder of debug files": f"{DEBUG}/srv/app/boxed.dbg",
        }
        build = self.build("contained", build_id)
        linked = build.link("boxed.dbg")
        for how in (*NAMESPACES, "chroot"):
            for what, place in places.items():
                with self.subTest(f"{how}, {what}"):
                    box = Box(self, how)
                    box.add(build.image if what == "by build id" else linked, "/srv/app/boxed")
                    box.add(build.debug, place)
                    profile, stderr = self.trace(box.start("/srv/app/boxed"))
                    self.assert_named(profile, "contained")
                    self.assertIn((place, True, "found"), self.looks(stderr, "/srv/app/boxed"))

    def test_debug_file_by_its_checksum_alone(self):
        build = self.build("contained")
        other = self.build("other")
        box = Box(self)
        box.add(build.link("boxed.dbg"), "/bin/boxed")
        box.add(other.debug, "/bin/boxed.dbg")
        box.add(build.debug, "/bin/.debug/boxed.dbg")
        profile, stderr = self.trace(box.start())
        self.assert_named(profile, "contained")
        self.assertEqual(
            self.looks(stderr),
            [
                ("/bin/boxed.dbg", True, "of another build, by its checksum"),
                ("/bin/.debug/boxed.dbg", True, "found"),
            ],
        )

    def test_places_in_their_order(self):
        # The user's own come first, then the container's, then the host's.
        build_id = secrets.token_hex(20)
        named, inside, host = (self.build(flavour, build_id) for flavour in ("named", "inside", "host"))
        folder, path = self.host(host), by_build_id(build_id)
        user_path = self.host(named) + path.removeprefix(DEBUG)
        user = user_path[: user_path.index("/.build-id")]
        for has, options, flavour, outcomes in (
            (False, [], "host", [(path, True, "not there"), (path, False, "found")]),
            (True, [], "inside", [(path, True, "found")]),
            (True, ["--debug-dir", user], "named", [(user_path, False, "found")]),
            (
                True,
                ["--debug-dir", self.path("none"), "--debug-dir", user],
                "named",
                [(f"{self.path('none')}{path.removeprefix(DEBUG)}", False, "not there"), (user_path, False, "found")],
            ),
        ):
            with self.subTest(f"{flavour}, {len(options)}"):
                os.makedirs(self.path("none"), exist_ok=True)
                box = Box(self)
                box.add(inside.image, "/bin/boxed")
                if has:
                    box.add(inside.debug, path)
                profile, stderr = self.trace(box.start(), *options, host=folder)
                self.assert_named(profile, flavour)
                self.assertEqual(self.looks(stderr), outcomes)

    def test_debug_file_of_the_host_by_its_name(self):
        build = self.build("host")
        box = Box(self)
        box.add(build.link("boxed.dbg"), "/bin/boxed")
        profile, _ = self.trace(box.start(), host=self.host(build, f"{DEBUG}/bin/boxed.dbg"))
        self.assert_named(profile, "host")

    def test_two_containers_with_different_files_in_one_place(self):
        build_ids = [secrets.token_hex(20) for _ in range(2)]
        for what in ("whole", "with debug files"):
            with self.subTest(what):
                targets = []
                for flavour, build_id in zip(("first", "second"), build_ids):
                    box, build = Box(self), self.build(flavour, build_id)
                    box.add(build.full if what == "whole" else build.link("boxed.dbg"), "/bin/boxed")
                    box.add(build.debug, "/bin/boxed.dbg")
                    targets.append(box.start())
                tracer = self.start_tracer(targets)
                for target in targets:
                    target.do("work")
                self.assertEqual(tracer.stop(), OK, tracer.describe())
                self.assert_named(self.profile(targets[0]), "first")
                self.assert_named(self.profile(targets[1]), "second")

    def test_file_that_two_containers_share_is_read_once(self):
        build = self.build("shared")
        linked = build.link("boxed.dbg")
        boxes = [Box(self) for _ in range(2)]
        boxes[0].add(linked, "/bin/boxed")
        boxes[0].add(build.debug, "/bin/boxed.dbg")
        os.rmdir(boxes[1].path("bin"))
        os.mkdir(boxes[1].path("bin"))
        run("mount", "--bind", boxes[0].path("bin"), boxes[1].path("bin"))
        self.addCleanup(run, "umount", "--lazy", boxes[1].path("bin"))
        targets = [box.start() for box in boxes]
        tracer = self.start_tracer(targets)
        for target in targets:
            target.do("work")
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        for target in targets:
            self.assert_named(self.profile(target), "shared")
        self.assertEqual(self.looks(tracer.stderr), [("/bin/boxed.dbg", True, "found")])


class Links(Containers):
    """A container's symbolic links, and the names that its files give, do not lead to files of the host."""

    def setUp(self):
        super().setUp()
        self.build_id = secrets.token_hex(20)
        # What the host has, and the container is not to see: it would fit by build id and by checksum.
        self.secret = self.build("secret", self.build_id)

    def add_image(self, box, linked=False):
        """An image that the host's file would fit."""
        image = self.secret.link("boxed.dbg") if linked else self.secret.image
        box.add(image, "/bin/boxed")

    def assert_leads_nowhere(self, box, places, outcome="not there", **how):
        profile, stderr = self.trace(box.start(), **how)
        self.assert_unnamed(profile)
        self.assertEqual(
            [look for look in self.looks(stderr) if look[0] in places and look[1]],
            [(place, True, outcome) for place in places],
        )
        self.assertNotIn("found", [outcome for _, _, outcome in self.looks(stderr)])

    def test_absolute_link_to_a_file_that_only_the_host_has(self):
        place = by_build_id(self.build_id)
        for how in (*NAMESPACES, "chroot"):
            with self.subTest(how):
                box = Box(self, how)
                self.add_image(box, linked=True)
                for path in (place, "/bin/boxed.dbg", "/bin/.debug/boxed.dbg", f"{DEBUG}/bin/boxed.dbg"):
                    box.link(self.secret.debug, path)
                self.assertTrue(os.path.samefile(box.path(place), self.secret.debug))
                self.assert_leads_nowhere(box, [place, "/bin/boxed.dbg", "/bin/.debug/boxed.dbg"])

    def test_link_means_what_it_means_in_the_container(self):
        # Absolute ones, and such as climb, to the same path: there is a file there, too.
        inside = self.build("inside", self.build_id)
        place = by_build_id(self.build_id)
        for how in ("pivot", "chroot"):
            for leads_to in (self.secret.debug, "../" * 40 + self.secret.debug.lstrip("/")):
                with self.subTest(f"{how}, {leads_to[:1]}"):
                    box = Box(self, how)
                    self.add_image(box)
                    box.link(leads_to, place)
                    box.add(inside.debug, self.secret.debug)
                    profile, stderr = self.trace(box.start())
                    self.assert_named(profile, "inside")
                    self.assertEqual(self.looks(stderr), [(place, True, "found")])

    def test_folder_that_is_a_link_to_the_host(self):
        folder = self.host(self.secret)
        place = by_build_id(self.build_id)
        magic = "behind links that lead nowhere"
        for how, leads_to, outcome in (
            ("pivot", "", "not there"),
            ("chroot", "", "not there"),
            ("pivot", "../../../../../..", "not there"),
            ("chroot", "../../../../../..", "not there"),
            ("pivot", "/proc/1/root", magic),
            ("chroot", f"/proc/{os.getpid()}/root", magic),
            ("chroot", "/proc/self/root", magic),
        ):
            with self.subTest(f"{how}, {leads_to}"):
                box = Box(self, how)
                self.add_image(box)
                if how == "chroot" and "/proc" in leads_to:
                    run("mount", "-t", "proc", "proc", box.path("/proc"))
                    self.addCleanup(run, "umount", "--lazy", box.path("/proc"))
                os.rmdir(box.path(DEBUG))
                box.link(leads_to + folder, DEBUG)
                if how == "chroot":
                    # Whoever opens the path as it is, from outside, comes to the host's folder.
                    self.assertTrue(os.path.samefile(box.path(DEBUG), folder) or leads_to.startswith(".."))
                self.assert_leads_nowhere(box, [place], outcome)

    def extra(self, name, build_id):
        """A file with a .gnu_debugaltlink of that name for objcopy to add."""
        path = self.path(f"extra.{secrets.token_hex(4)}")
        with open(path, "wb") as file:
            file.write(name.encode() + b"\0" + bytes.fromhex(build_id))
        return path

    def assert_has_no_lines(self, profile):
        self.assertEqual(self.frames(profile, 1000)[0].name, "plain_outer")  # by its symbol
        self.assertEqual({frame.line for frame in self.frames(profile, 1000)}, {0})

    def test_extra_debug_file_by_an_absolute_name(self):
        # .gnu_debugaltlink: without that file the image's own debug information is not used.
        build = self.build("plain", secrets.token_hex(20))
        for name, link in ((self.secret.debug, None), ("/srv/extra", self.secret.debug), ("../extra", self.secret.debug)):
            for how in ("pivot", "chroot"):
                with self.subTest(f"{how}, {name}"):
                    image = self.path(f"with_extra.{secrets.token_hex(4)}")
                    section = self.extra(name, self.build_id)
                    run("objcopy", "--add-section", f".gnu_debugaltlink={section}", build.full, image)
                    box = Box(self, how)
                    box.add(image, "/bin/boxed")
                    place = {"../extra": "/bin/../extra"}.get(name, name)
                    if link:
                        box.link(link, os.path.normpath(place))
                    profile, stderr = self.trace(box.start())
                    self.assert_has_no_lines(profile)
                    self.assertIn((place, True, "not there"), self.looks(stderr))
                    # With it, in the container, it is.
                    if link:
                        os.unlink(box.path(os.path.normpath(place)))
                    box.add(self.secret.debug, place)
                    profile, stderr = self.trace(box.start())
                    self.assert_named(profile, "plain")
                    self.assertIn((place, True, "found"), self.looks(stderr))

    def test_extra_debug_file_beside_the_file_that_a_link_leads_to(self):
        # As Fedora has them: .build-id holds links, and what dwz says is relative to where they lead.
        build = self.build("plain", secrets.token_hex(20))
        section, debug = self.extra("../../../.dwz/common", self.build_id), self.path("debug_with_extra")
        run("objcopy", "--add-section", f".gnu_debugaltlink={section}", build.debug, debug)
        place = by_build_id(build.build_id)
        for how in (*NAMESPACES, "volume", "chroot"):
            with self.subTest(how):
                box = Box(self, how)
                box.add(build.image, "/bin/boxed")
                box.link("../../usr/lib/deep/boxed.debug", place)
                box.add(debug, f"{DEBUG}/usr/lib/deep/boxed.debug")
                extra = f"{DEBUG}/usr/lib/deep/../../../.dwz/common"
                box.add(self.secret.debug, os.path.normpath(extra))
                profile, stderr = self.trace(box.start())
                self.assertEqual(self.looks(stderr)[0], (place, True, "found"))
                self.assertIn((extra, True, "found"), self.looks(stderr, f"{DEBUG}/usr/lib/deep/boxed.debug"))
                self.assert_named(profile, "plain")
        # And on the host.
        folder = self.path("host")
        for source, path in ((debug, "usr/lib/deep/boxed.debug"), (self.secret.debug, ".dwz/common")):
            os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
            shutil.copy(source, f"{folder}/{path}")
        link = folder + place.removeprefix(DEBUG)
        os.makedirs(os.path.dirname(link))
        os.symlink("../../usr/lib/deep/boxed.debug", link)
        box = Box(self)
        box.add(build.image, "/bin/boxed")
        profile, _ = self.trace(box.start(), "--debug-dir", folder)
        self.assert_named(profile, "plain")

    def test_extra_debug_file_that_a_compressed_file_names(self):
        # Debug information in .gnu_debugdata: nobody puts it there but who wants to know what it leads to.
        build = self.build("plain")
        section, carried = self.extra(self.secret.debug, self.build_id), self.path("carried")
        run("objcopy", "--add-section", f".gnu_debugaltlink={section}", build.debug, carried)
        run("xz", "-q", carried)
        image = self.path("carries")
        run("objcopy", "--add-section", f".gnu_debugdata={carried}.xz", build.image, image)
        for how in ("pivot", "chroot"):
            with self.subTest(how):
                box = Box(self, how)
                box.add(image, "/bin/boxed")
                profile, stderr = self.trace(box.start())
                self.assert_has_no_lines(profile)
                self.assertIn((self.secret.debug, True, "not there"), self.looks(stderr))
                box.add(self.secret.debug, self.secret.debug)
                profile, _ = self.trace(box.start())
                self.assert_named(profile, "plain")

    def test_split_debug_information(self):
        # The program says where on the machine of its build the rest is, which is this one.
        full = self.path("split")
        source = os.path.join(ROOT, "tests", "targets", "boxed.c")
        mapped = f"-fdebug-prefix-map={os.getcwd()}={self.folder}"
        run("cc", *FLAGS, "-gsplit-dwarf", mapped, "-c", source, "-o", full + ".o")
        run("cc", full + ".o", "-o", full)
        dwo = full + ".dwo"
        self.assertTrue(os.path.exists(dwo))
        for how in ("pivot", "chroot"):
            for inside in (False, True):
                with self.subTest(f"{how}, {inside}"):
                    box = Box(self, how)
                    box.add(full, "/bin/boxed")
                    if inside:
                        box.add(dwo, dwo)
                    else:
                        box.link(dwo, "/bin/split.dwo")
                    profile, stderr = self.trace(box.start())
                    if inside:
                        self.assert_named(profile, "plain")
                    else:
                        self.assertEqual(self.frames(profile, 1000)[0].name, "plain_outer")
                    looks = [look for look in self.looks(stderr) if look[0].endswith(".dwo")]
                    self.assertEqual("found" in [outcome for _, _, outcome in looks], inside)
                    self.assertEqual({in_box for _, in_box, _ in looks}, {True})

    def test_process_that_goes_into_a_container_while_it_is_traced(self):
        # It changes its root, and loads a library there whose debug file is a link to one of the host.
        library, program = self.build("secret", source="boxed_library"), self.build("plain")
        for inside in (False, True):
            with self.subTest(inside):
                box = Box(self)
                box.add(library.link("plug.dbg"), "/opt/plug.so")
                if inside:
                    box.add(library.debug, "/opt/plug.dbg")
                else:
                    box.link(library.debug, "/opt/plug.dbg")
                target = self.target(os.path.basename(program.full), program_folder=self.folder)
                target.do = lambda text, box=target: Boxed.do(box, text)

                def work(tracer, target=target, box=box):
                    target.do(f"chroot {box.root}")
                    self.load(tracer, target, "/opt/plug.so")
                    target.do("work")

                profile, stderr = self.trace(target, work=work)
                looks = [look for look in self.looks(stderr, "/opt/plug.so") if look[0].endswith("/plug.dbg")]
                self.assertEqual(self.frames(profile, 500)[1].name, "boxed_library")
                if inside:
                    self.assert_named(profile, "plain", "secret")
                    self.assertEqual(looks, [("/opt/plug.dbg", True, "found")])
                else:
                    self.assertEqual(self.flavours(profile), {"plain"})
                    self.assertIn(("/opt/plug.dbg", True, "not there"), looks)
                    self.assertNotIn("found", [outcome for _, _, outcome in looks])


class Gone(Containers):
    """Files and containers that are there no more when the names are wanted."""

    def setUp(self):
        super().setUp()
        self.old = self.build("old", secrets.token_hex(20))
        self.old_library = self.build("old_library", source="boxed_library")
        # Another build of the same: with code in other places.
        self.new = self.build("new", secrets.token_hex(20), options=["-O0"])
        self.new_library = self.build("new_library", source="boxed_library", options=["-O0"])

    def box(self, how="pivot"):
        box = Box(self, how)
        box.add(self.old.full, "/bin/boxed")
        box.add(self.old_library.full, "/opt/plug.so")
        return box

    def delete(self, box):
        os.unlink(box.path("/bin/boxed"))
        os.unlink(box.path("/opt/plug.so"))

    def upgrade(self, box):
        box.add(self.new.full, "/bin/boxed")
        box.add(self.new_library.full, "/opt/plug.so")

    def test_deleted_or_upgraded_while_it_runs(self):
        for how in ("pivot", "chroot"):
            for change in (self.delete, self.upgrade):
                for when in ("before", "while"):
                    with self.subTest(f"{how}, {change.__name__}, {when}"):
                        box = self.box(how)
                        target = box.start("/bin/boxed", "/opt/plug.so")
                        if when == "before":
                            change(box)

                        def work(_, target=target, box=box, change=change, when=when):
                            target.do("work")
                            if when == "while":
                                change(box)

                        profile, _ = self.trace(target, work=work)
                        self.assert_named(profile, "old", "old_library")
                        maps = read_text(f"/proc/{target.pid}/maps")
                        self.assertRegex(maps, r"/bin/boxed \(deleted\)\n")

    def test_upgraded_with_its_debug_files(self):
        # The new ones are of another build, by build id as well as by checksum.
        for build_id in (self.old.build_id, None):
            with self.subTest(f"build id: {build_id}"):
                old, new = (self.build(f, b) for f, b in (("old", build_id), ("new", build_id and self.new.build_id)))
                box = Box(self)
                box.add(old.link("boxed.dbg"), "/bin/boxed")
                box.add(old.debug, "/bin/boxed.dbg")
                target = box.start()

                def work(_, target=target, box=box, new=new):
                    target.do("work")
                    box.add(new.link("boxed.dbg"), "/bin/boxed")
                    box.add(new.debug, "/bin/boxed.dbg")

                profile, stderr = self.trace(target, work=work)
                self.assert_unnamed(profile)
                why = "of another build" + ("" if build_id else ", by its checksum")
                self.assertIn(("/bin/boxed.dbg", True, why), self.looks(stderr, "/bin/boxed (deleted)"))
                # That the debug file would have been read tells that of the running program.
                box.add(old.debug, "/bin/boxed.dbg")
                profile, _ = self.trace(target)
                self.assert_named(profile, "old")

    def test_other_file_of_the_same_name_and_inode(self):
        # Another file system is mounted over the folder of a library: its first files have the same numbers.
        program = self.build("plain")
        libraries = [self.build(flavour, source="boxed_library") for flavour in ("first", "second")]
        folder = self.path("mounted")
        os.mkdir(folder)
        target = self.target(os.path.basename(program.full), program_folder=self.folder)
        target.do = lambda text: Boxed.do(target, text)
        inodes = []

        def work(tracer):
            for library, way in zip(libraries, ("", "./")):  # the loader goes by the name that it is given
                run("mount", "-t", "tmpfs", "box", folder)
                self.addCleanup(run, "umount", "--lazy", folder)
                shutil.copy(library.full, f"{folder}/plug.so")
                inodes.append(os.stat(f"{folder}/plug.so").st_ino)
                self.load(tracer, target, f"{folder}/{way}plug.so")
            target.do("work")

        profile, _ = self.trace(target, work=work)
        self.assertEqual(inodes[0], inodes[1])
        self.assertEqual(self.flavours(profile), {"plain", "first", "second"})
        self.assert_nothing_lost(profile)

    def check_container_that_is_gone(self, how, end):
        """All of its processes have ended, or its root is unmounted, long before names are looked for."""
        box = self.box(how)
        box.add(self.old.link("boxed.dbg"), "/bin/boxed")
        box.add(self.old.debug, "/bin/.debug/boxed.dbg")
        target = box.start("/bin/boxed", "/opt/plug.so")
        other = self.target("sleeper")
        tracer = self.start_tracer([target, other])
        target.do("work")
        end(box, target, tracer)
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        self.assert_named(self.profile(target), "old", "old_library")
        self.assertIn(("/bin/.debug/boxed.dbg", True, "found"), self.looks(tracer.stderr))

    def test_container_has_ended(self):
        def end(box, target, tracer):
            os.kill(target.pid, signal.SIGKILL)
            target.wait()
            tracer.wait_until(lambda: f"process {target.pid}: ended\n" in tracer.stderr, "the end")
            if box.how == "chroot":
                return
            # Nobody but the tracer has its namespace, which is gone.
            self.assertFalse(os.path.exists(f"/proc/{target.pid}"))

        for how in (*NAMESPACES, "volume", "chroot"):
            with self.subTest(how):
                self.check_container_that_is_gone(how, end)

    def test_root_is_unmounted(self):
        def end(box, target, _):
            place = f"--mount=/proc/{target.pid}/ns/mnt"
            run("nsenter", place, "umount", "--lazy", f"{box.root}.box/merged", f"{box.root}.box")
            self.assertNotIn(f"{box.root}.box", run("nsenter", place, "cat", "/proc/self/mountinfo"))
            target.do("work")

        self.check_container_that_is_gone("volume", end)


class OddFiles(Containers):
    """What a debug file's name stands for may be anything: no hang, no crash, names from what else there is."""

    def setUp(self):
        super().setUp()
        self.plain = self.build("plain", secrets.token_hex(20))

    def check(self, make, outcome):
        """In place of a debug file, as the link and the build id name it."""
        for place in ("/bin/boxed.dbg", by_build_id(self.plain.build_id)):
            with self.subTest(place):
                box = Box(self)
                box.add(self.plain.link("boxed.dbg", keep=("--strip-debug",)), "/bin/boxed")
                make(box.make_folder(place))
                profile, stderr = self.trace(box.start())
                self.assertEqual([look for look in self.looks(stderr) if look[0] == place and look[1]], [(place, True, outcome)])
                outer, caller = self.frames(profile, 1000)
                self.assertEqual((outer.name, outer.line, caller.name), ("plain_outer", 0, "obey"))
                self.assert_nothing_lost(profile)

    def test_fifo(self):
        self.check(os.mkfifo, "not a regular file")

    def test_device_that_never_ends(self):
        def make(path):
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            self.assertEqual(len(read_start(path, 100)), 100)

        self.check(make, "not a regular file")

    def test_folder(self):
        self.check(os.mkdir, "not a regular file")

    def test_socket(self):
        def make(path):
            listener = socket.socket(socket.AF_UNIX)
            self.addCleanup(listener.close)
            os.symlink(os.path.dirname(path), self.path("short"))
            listener.bind(f"{self.path('short')}/{os.path.basename(path)}")
            os.unlink(self.path("short"))

        self.check(make, "not a regular file")

    def test_huge_file_of_nothing(self):
        def make(path):
            with open(path, "wb") as file:
                file.truncate(8 << 40)

        self.check(make, "not an ELF file of 64 bits, or a broken one")

    def test_huge_file_that_begins_as_it_should(self):
        def make(path):
            shutil.copy(self.plain.debug, path)
            os.truncate(path, 8 << 40)

        self.check(make, "too large")

    def test_empty_file(self):
        self.check(lambda path: open(path, "w").close(), "not an ELF file of 64 bits, or a broken one")

    def test_link_to_itself(self):
        self.check(lambda path: os.symlink(os.path.basename(path), path), "behind links that lead nowhere")

    def test_file_that_is_cut_and_written_again_all_the_time(self):
        # It is the right one at times: then names are those that it has, or there are none, but never others.
        contents = read_bytes(self.plain.debug)
        ways = [len(contents), len(contents) // 2, 64, len(contents) - 100, 1000]
        stop = threading.Event()
        box = Box(self)
        box.add(self.plain.image, "/bin/boxed")
        path = box.make_folder(by_build_id(self.plain.build_id))

        def change(file):
            for n in itertools.cycle(ways):
                if stop.is_set():
                    return
                os.ftruncate(file, n)
                os.pwrite(file, contents[:n], 0)

        shutil.copy(self.plain.debug, path)
        file = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, file)
        changer = threading.Thread(target=change, args=[file])
        changer.start()
        try:
            target = box.start()
            outcomes = set()
            for _ in range(8):
                profile, stderr = self.trace(target)
                outcomes |= {outcome for place, inside, outcome in self.looks(stderr) if inside}
                self.assertLessEqual(self.flavours(profile), {"plain"})
                for frame in self.frames(profile, 1000):
                    self.assertRegex(frame.name, r"^(plain_inner|plain_outer|obey|\[boxed\+0x[0-9a-f]+\])$")
                self.assert_nothing_lost(profile)
        finally:
            stop.set()
            changer.join()
        self.assertTrue(outcomes)


if __name__ == "__main__":
    unittest.main()
