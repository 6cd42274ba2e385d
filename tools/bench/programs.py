"""How long a tracer's BPF programs on uprobes run, by the kernel's own statistics."""

import contextlib
import ctypes
import glob
import os
import re
import struct

from setting import lib

SYSCALL = {"x86_64": 321, "aarch64": 280}
BPF_PROG_GET_FD_BY_ID, BPF_ENABLE_STATS = 13, 32
BPF_PROG_TYPE_KPROBE = 2


def bpf(command, *words):
    """bpf(2) with an attribute of a few 32-bit words; a descriptor."""
    attribute = ctypes.create_string_buffer(struct.pack(f"{len(words)}I", *words), 64)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYSCALL[os.uname().machine], command, attribute, 64)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return fd


@contextlib.contextmanager
def statistics():
    """Counting is on, on the whole machine, while this process holds a descriptor of it: no sysctl to put back."""
    fd = bpf(BPF_ENABLE_STATS, 0)
    try:
        yield
    finally:
        os.close(fd)


def number(text, name):
    """One of the numbers of /proc/PID/fdinfo."""
    return int(re.search(rf"^{name}:\s+(\d+)$", text, re.M).group(1))


class Programs:
    """The programs on uprobes that a process has loaded or attached. They are held, so that they outlive it."""

    def __init__(self, pid):
        ids = set()
        for path in glob.glob(f"/proc/{pid}/fdinfo/*"):
            with contextlib.suppress(OSError):
                ids.update(map(int, re.findall(r"^prog_id:\s+(\d+)$", lib.read_text(path), re.M)))
        self.fds = []
        for id in sorted(ids):
            fd = bpf(BPF_PROG_GET_FD_BY_ID, id)
            if number(self.info(fd), "prog_type") == BPF_PROG_TYPE_KPROBE:
                self.fds.append(fd)
            else:
                os.close(fd)
        self.before = self.read()

    @staticmethod
    def info(fd):
        return lib.read_text(f"/proc/self/fdinfo/{fd}")

    def read(self):
        infos = [self.info(fd) for fd in self.fds]
        return [(number(text, "run_cnt"), number(text, "run_time_ns")) for text in infos]

    def since(self):
        """(runs, nanoseconds) of all of them since this was made."""
        pairs = list(zip(self.read(), self.before))
        return tuple(sum(now[i] - before[i] for now, before in pairs) for i in (0, 1))

    def close(self):
        for fd in self.fds:
            os.close(fd)
