"""Debian's packages of allocators, and what alloctrace finds in them."""

import functools
import os
import re
import subprocess

from lib import ROOT, TARGETS

DEBS = os.path.join(ROOT, "build", "debs")
PACKAGES = [
    "libc6", "musl", "libjemalloc2", "libtcmalloc-minimal4(t64)?", "libgoogle-perftools4(t64)?",
    "libmimalloc[0-9.]+(t64)?", "librpmalloc1(t64)?", "libtbbmalloc2", "libdmalloc5(t64)?",
    # What some of them need to be run.
    "libstdc[+][+]6", "libgcc-s1",
]  # fmt: skip

# The C library's allocating and freeing functions, and the arguments that have to be known of each.
FAMILY = {
    "malloc": [0], "calloc": [0, 1], "realloc": [0, 1], "aligned_alloc": [1], "memalign": [1],
    "posix_memalign": [0, 2], "valloc": [0], "pvalloc": [0], "free": [0], "cfree": [0],
}  # fmt: skip


def output_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


class Site:
    """Where a function is probed: a line of sites_dump."""

    def __init__(self, line):
        self.path, self.name, self.shape, entry, size, site, kind, places = line.split()
        self.entry = int(entry, 16)
        self.size = int(size)
        self.address = int(site, 16)
        self.offset = self.address - self.entry
        self.emulated = kind == "emulated"
        self.places = [(int(argument), register) for argument, register in re.findall(r"(\d+)=(\w+)", places)]
        self.registers = ",".join(register for _, register in self.places)
        self.frees = self.shape == "free"


def sites_of(paths):
    """([sites], {path: {functions that are not probed}})"""
    sites, left_out = [], {}
    for line in output_of(os.path.join(os.path.dirname(TARGETS), "sites_dump"), *paths).splitlines():
        path, name, rest = line.split(" ", 2)
        if rest.startswith("left out: "):
            left_out.setdefault(path, set()).add(name)
        else:
            sites.append(Site(line))
    return sites, left_out


@functools.lru_cache(maxsize=None)
def fetch(suite, arch):
    """([(package, version, folder of its libraries)], [why one is missing])"""
    script = os.path.join(ROOT, "tests", "debs.sh")
    found, missing = [], []
    for line in output_of(script, DEBS, suite, arch, *PACKAGES).splitlines():
        name, folder, why = line.split("\t")
        if why:
            missing.append(f"{name}: {why}")
        else:
            found.append((*name.split(), folder))
    return found, missing


def libraries_in(folder):
    paths = (os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)
    return sorted(path for path in paths if re.search(r"\.so[0-9.]*$", path) and not os.path.islink(path))
