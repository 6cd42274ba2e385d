"""The programs that are slowed down. Each starts a target and measures a piece of its work.

A workload has: name, title, unit; `rounds`, how often it is measured; `fresh`, true where a target lives for one
measurement only; start(environment), which returns a running target that has a pid and kill(); measure(target),
which returns a Measurement of the target's work and nothing else.
"""

import contextlib
import csv
import os
import re
import shlex
import socket
import subprocess

import setting
from setting import CHILD, SOURCES, Measurement, find_program, lib

CC1PLUS_BLOCKED = re.compile(r"^0 0x0 ")  # in read() of descriptor 0, as /proc/PID/syscall says on x86-64


def read_loop(line):
    """What tools/bench/loop.c says of itself."""
    return Measurement(*map(int, re.match(r"pairs (\d+) ns (\d+) waited (\d+)$", line).groups()))


class Loop:
    """malloc and free, nothing else: the largest part that a tracer can have."""

    unit = "malloc + free"
    rounds = 9  # they are quick, and the limits are of them
    fresh = False

    def __init__(self, run, threads):
        self.run = run
        self.threads = threads
        self.name = f"loop{threads}"
        self.title = f"malloc and free in {threads} thread{'s' if threads > 1 else ''}"

    def start(self, environment):
        return lib.Target(
            "loop", self.threads, self.run.milliseconds,
            folder=self.run.folder, program_folder=self.run.tools, env=environment, **CHILD,
        )  # fmt: skip

    def measure(self, target):
        target.say()
        return read_loop(target.next_line("a result"))


class Redis:
    """SET, pipelined, from one client program over the loopback device.

    What counts is the server's time on a CPU: it waits for the client too, and for its turn.
    """

    name = "redis"
    title = "redis-server under redis-benchmark, SET, 16 in a pipeline: CPU time of the server"
    unit = "SET"
    rounds = 5
    fresh = False
    KEYS = 50000
    FIRST = 4000  # requests after which the rate is known

    def __init__(self, run):
        self.run = run
        # In Debian's redis-tools already: a program that goes by the name it is called by. The package
        # redis-server would start a service.
        self.server = find_program("redis-check-rdb")
        self.client = find_program("redis-benchmark")

    def start(self, environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        target = lib.Process(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--daemonize", "no", "--dir", self.run.folder],
            self.run.folder, executable=self.server, env=environment, stdin=subprocess.DEVNULL, **CHILD,
        )  # fmt: skip
        target.port = port
        try:
            target.wait_until(lambda: self.answers(port), "an answer")
        except BaseException:
            target.kill()
            raise
        return target

    @staticmethod
    def answers(port):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as server:
            server.sendall(b"PING\r\n")
            return server.recv(16).startswith(b"+PONG")
        return False

    def benchmark(self, target, requests):
        """A Measurement, and requests a second."""
        before = setting.scheduled(target.pid)
        client = lib.Process(
            [self.client, "-h", "127.0.0.1", "-p", str(target.port), "-t", "set", "-P", "16", "-c", "16",
             "-d", "64", "-r", str(self.KEYS), "-n", str(requests), "--csv"],
            self.run.folder, stdin=subprocess.DEVNULL, **CHILD,
        )  # fmt: skip
        try:
            setting.wait_ended(client)
            running, waited = (b - a for a, b in zip(before, setting.scheduled(target.pid)))
            setting.check_status(client)
            rows = list(csv.DictReader(client.stdout.splitlines()))
            return Measurement(requests, running, waited), float(rows[0]["rps"])
        finally:
            client.kill()

    def measure(self, target):
        rate = self.benchmark(target, self.FIRST)[1]
        requests = max(self.FIRST, int(rate * self.run.milliseconds / 1000))
        return self.benchmark(target, requests)[0]


class Compile:
    """The compiler proper: it waits for the source on its standard input, and meanwhile is attached to."""

    name = "compile"
    title = "cc1plus -O1 of a file that includes much of the standard library"
    unit = "compilation"
    rounds = 5
    fresh = True

    def __init__(self, run):
        self.run = run
        source = os.path.join(SOURCES, "headers.cc")
        self.source = lib.read_bytes(source)
        # What the driver g++ would run. It is the compiler that allocates.
        said = subprocess.run(
            [find_program("g++"), "-O1", "-S", "-###", source, "-o", "/dev/null"],
            capture_output=True, text=True, check=True, env=run.environment(),
        ).stderr  # fmt: skip
        command = shlex.split(re.search(r"^ (\S*cc1plus .*)$", said, re.M).group(1))
        self.command = [word for word in command if word != source]

    def start(self, environment):
        target = lib.Process(self.command, self.run.folder, env=environment, **CHILD)
        try:
            target.wait_until(
                lambda: CC1PLUS_BLOCKED.match(lib.read_text(f"/proc/{target.pid}/syscall")), "its source to be read"
            )
        except BaseException:
            target.kill()
            raise
        return target

    def measure(self, target):
        def work():
            target.process.stdin.write(self.source)
            target.process.stdin.close()
            return setting.wait_ended(target)

        measured = setting.time_work(target.pid, work)
        setting.check_status(target)
        return measured


class Sqlite:
    """The sqlite3 program with a database in memory."""

    name = "sqlite"
    title = "sqlite3: inserts and queries in memory"
    unit = "script"
    rounds = 5
    fresh = False

    def __init__(self, run):
        self.run = run
        self.program = find_program("sqlite3")

    def start(self, environment):
        target = lib.Process(
            [self.program, "-batch", ":memory:"], self.run.folder, env=environment, stdout=subprocess.PIPE, **CHILD
        )
        try:
            self.say(target, ".print ready", b"ready")
        except BaseException:
            target.kill()
            raise
        return target

    @staticmethod
    def say(target, text, answer):
        target.process.stdin.write(f"{text}\n".encode())
        target.process.stdin.flush()
        return setting.read_until(target.process.stdout, answer)

    def measure(self, target):
        script = os.path.join(SOURCES, "queries.sql")
        return setting.time_work(target.pid, lambda: self.say(target, f".read {script}\n.print done", b"done"))


WORKLOADS = {
    "loop1": lambda run: Loop(run, 1),
    "loop2": lambda run: Loop(run, 2),
    "redis": Redis,
    "compile": Compile,
    "sqlite": Sqlite,
}
