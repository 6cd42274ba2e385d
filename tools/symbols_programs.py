"""The programs and libraries that alloctrace's names are compared on: built, and of Debian's packages."""

import glob
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))

import symbols_compare  # noqa: E402  (found by the line above)

SOURCES = os.path.join(ROOT, "tests", "targets")
LIMIT = 1800  # seconds for one command; on a busy machine, a compilation of many types takes its time


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def build_many(folder, count, copies, compiler="clang++"):
    """A large C++ program: one object with so many types, linked so many times."""
    path = os.path.join(folder, f"{compiler}_{count}_{copies}")
    source = os.path.join(SOURCES, "inlines_many.cc")
    compile = (compiler, "-std=c++17", "-O2", "-g", "-c", source)
    run(*compile, f"-DCOUNT={count}", "-o", f"{path}.o")
    run("objcopy", "--localize-symbol=inlines_many", f"{path}.o")
    run(*compile, "-DMAIN", "-o", f"{path}_main.o")
    run(compiler, "-fuse-ld=lld", f"{path}_main.o", *[f"{path}.o"] * copies, "-o", path)
    os.remove(f"{path}.o")
    os.remove(f"{path}_main.o")
    return path


def build_dwz(folder, count, copies):
    """The same of gcc, with what its units share moved to one place."""
    path = build_many(folder, count, copies, "g++")
    run("dwz", path)
    return path


def build_rust(folder):
    path = os.path.join(folder, "rust")
    run("rustc", "-O", "-g", os.path.join(SOURCES, "inlines_rust.rs"), "-o", path)
    return path


def installed(program):
    """The file behind a path or pattern, if its debug information is installed as well; None."""
    for path in map(os.path.realpath, sorted(glob.glob(program))):
        if symbols_compare.debug_file(path) != path:
            return path
    return None


def find_libc():
    return installed(f"/lib/{os.uname().machine}-linux-gnu/libc.so.6")


def find_python():
    return installed("/usr/bin/python3")


def find_jvm():
    return installed("/usr/lib/jvm/java-*/lib/server/libjvm.so")
