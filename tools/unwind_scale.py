#!/usr/bin/python3
"""What attaching costs where there is much to read: a process with many images, and one with a huge one.

    tools/unwind_scale.py [--alloctrace PATH] [--images N] [--functions N]

Prints for each the time until the recording began, alloctrace's peak memory and its unwind tables. The huge
image is made here, without a compiler: N functions of 16 bytes that call, and an FDE of 24 bytes for each.
"""

import argparse
import array
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.dont_write_bytecode = True

import lib  # noqa: E402  (found by the line above)

MANY = """
import ctypes, sys
for path in sys.argv[1:]:
    ctypes.CDLL(path)
print("ready", flush=True)
sys.stdin.readline()
"""

HUGE = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
code = mmap.mmap(file, int(sys.argv[2]), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
print("ready", flush=True)
sys.stdin.readline()
"""

PAGE = 4096
FDE_WORDS = 6


def write_huge(path, functions):
    """An ELF file with one executable segment, and call frame information that says something else each time."""
    text_size = -(-functions * 16 // PAGE) * PAGE
    text, frames = PAGE, PAGE + text_size  # file offsets, and addresses
    # CIE: version 1, "zR", code alignment 1, data alignment -8, return address 16, pcrel sdata4;
    # CFA = rsp + 8, return address at CFA - 8.
    cie = struct.pack("<IIB", 20, 0, 1) + b"zR\0" + bytes([1, 0x78, 16, 1, 0x1B, 0x0C, 7, 8, 0x90, 1, 0, 0])
    words = array.array("i", bytes(4 * FDE_WORDS)) * functions
    first = len(cie)
    words[0::FDE_WORDS] = array.array("i", [4 * (FDE_WORDS - 1)]) * functions
    words[1::FDE_WORDS] = array.array("i", range(first + 4, first + 4 + 24 * functions, 24))
    begin = text - (frames + first + 8)
    words[2::FDE_WORDS] = array.array("i", range(begin, begin - 8 * functions, -8))
    words[3::FDE_WORDS] = array.array("i", [16]) * functions
    # No augmentation; from the second byte on CFA = rsp + 16 or 24.
    rules = [struct.unpack("<i", bytes([0, 0x41, 0x0E, size]))[0] for size in (16, 24)]
    words[4::FDE_WORDS] = (array.array("i", rules) * (functions // 2 + 1))[:functions]
    frames_size = len(cie) + 24 * functions + 4

    names = b"\0.text\0.eh_frame\0.shstrtab\0"
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 1, 6, text, text, functions * 16, 0, 0, 16, 0),
        (7, 1, 2, frames, frames, frames_size, 0, 0, 8, 0),
        (17, 3, 0, 0, frames + frames_size, len(names), 0, 0, 1, 0),
    ]
    table = -(-(frames + frames_size + len(names)) // 8) * 8
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 3, 62, 1, text, 64, table, 0, 64, 56, 2, 64, 4, 3
    )
    loads = struct.pack("<IIQQQQQQ", 1, 5, text, text, text, text_size, text_size, PAGE)
    loads += struct.pack("<IIQQQQQQ", 1, 4, frames, frames, frames, frames_size, frames_size, PAGE)
    # push %rbx; call the next function; pop %rbx; ret
    function = bytes([0x53, 0xE8, 10, 0, 0, 0, 0x5B, 0xC3]) + b"\xcc" * 8
    with open(path, "wb") as file:
        file.write((header + loads).ljust(PAGE, b"\0"))
        for _ in range(functions // 65536):
            file.write(function * 65536)
        file.write(function * (functions % 65536))
        file.seek(frames)
        file.write(cie)
        words.tofile(file)
        file.write(bytes(4) + names)
        file.seek(table)
        for section in sections:
            file.write(struct.pack("<IIQQQQIIQQ", *section))
    return frames_size, PAGE + text_size


def attach(alloctrace, pid, folder):
    """(seconds until it records, peak KiB, what it says of its tables)"""
    started = time.monotonic()
    tracer = lib.Tracer([alloctrace, "-v", "-p", str(pid), "-o", os.path.join(folder, "p.pb.gz")], folder)
    try:
        lib.wait_for(lambda: tracer.ended or "alloctrace: recording\n" in tracer.stderr, "the recording", 3600)
        took = time.monotonic() - started
        if tracer.ended:
            raise AssertionError(tracer.describe())
        peak = int(re.search(r"^VmHWM:\s+(\d+)", lib.read_text(f"/proc/{tracer.pid}/status"), re.M).group(1))
        tables = re.search(r"unwind tables: (.*)", tracer.stderr).group(1)
        if tracer.stop() != lib.OK:
            raise AssertionError(tracer.describe())
    finally:
        tracer.kill()
    return took, peak, tables


def try_process(what, alloctrace, folder, script, *arguments):
    python = lib.Process(["/usr/bin/python3", "-c", script, *map(str, arguments)], folder)
    try:
        python.wait_until(lambda: "ready" in python.stdout, "ready")
        took, peak, tables = attach(alloctrace, python.pid, folder)
        print(f"{what}: recording after {took:.2f} s, peak memory {peak / 1024:.0f} MiB, unwind tables {tables}", flush=True)
    finally:
        python.kill()


def main():
    parser = argparse.ArgumentParser(description="Attaches to processes with much to read.")
    parser.add_argument("--alloctrace", default=lib.ALLOCTRACE)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--functions", type=int, default=400000, help="of the huge image; 20 million make 480 MB of FDEs")
    options = parser.parse_args()
    alloctrace = os.path.abspath(options.alloctrace)
    with tempfile.TemporaryDirectory(prefix="alloctrace-scale.") as folder:
        try_process("nothing special", alloctrace, folder, MANY)
        first = os.path.join(folder, "0.so")
        source = os.path.join(ROOT, "tests", "targets", "unwind_plugin.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", source, "-o", first], check=True)
        # A copy is another file, so another image.
        paths = [first] + [os.path.join(folder, f"{n}.so") for n in range(1, options.images)]
        for path in paths[1:]:
            shutil.copyfile(first, path)
        try_process(f"{options.images} images", alloctrace, folder, MANY, *paths)
        huge = os.path.join(folder, "huge")
        size, mapped = write_huge(huge, options.functions)
        what = f"an image with {options.functions} FDEs, {size / 1e6:.0f} MB"
        try_process(what, alloctrace, folder, HUGE, huge, mapped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
