"""A host of more than 200 real processes, in a folder: servers with their workers, interpreters, shells, sleepers.

Nothing is installed or configured on the machine: servers listen on sockets in the folder and keep their data
there. What is not installed is unpacked (tests/host_programs.sh).
"""

import contextlib
import ctypes
import os
import pwd
import re
import signal
import socket
import struct
import subprocess
import time

from lib import LIMIT, ROOT, TARGETS, Process, read_text, wait_for

NGINX_WORKERS = 16
BACKENDS = 60  # of postgres: one for each connection
REDIS_SERVERS = 8
PYTHONS = 40
SHELLS = 40
SLEEPERS = 60

USER = "nobody"  # whom postgres runs as; nginx's workers too
SETTLED_ROUNDS = 20  # of load, through which no process grows by more than
SETTLED_BYTES = 64 << 10

PAGE = os.sysconf("SC_PAGESIZE")
PROGRAMS = os.path.join(os.path.dirname(TARGETS), "host-programs")

PYTHON = """
import sys
for line in sys.stdin:
    words = {str(n): line * n for n in range(100)}
    print(len(words), flush=True)
"""

NGINX = """
daemon off; master_process on; worker_processes {workers}; user {user} {group};
pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen unix:{folder}/socket; location / {{ return 200 "here\\n"; }} }}
}}
"""


class Missing(Exception):
    """A program that cannot be had here, with the reason."""


def die_with_parent():
    """In a child, before it executes: it is killed when this process ends, in whatever way."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def programs():
    """{name: path} of the servers; Missing if one is."""
    script = os.path.join(ROOT, "tests", "host_programs.sh")
    said = subprocess.run([script, PROGRAMS], capture_output=True, text=True)
    if said.returncode:
        raise AssertionError(said.stderr)
    found = {}
    for line in said.stdout.splitlines():
        name, path, why = line.split("\t")
        if why:
            raise Missing(f"{name}: {why}")
        found[name] = path
    return found


def resident(pid):
    """Bytes; None of a process that has gone."""
    with contextlib.suppress(OSError):
        return int(read_text(f"/proc/{pid}/statm").split()[1]) * PAGE
    return None


def children(pid):
    with contextlib.suppress(OSError):
        return [int(child) for child in read_text(f"/proc/{pid}/task/{pid}/children").split()]
    return []


class Unix:
    """A connection to a socket in the file system."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise

    def read(self, size):
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise AssertionError("the server has closed the connection")
            data += chunk
        return data

    def close(self):
        self.socket.close()


class Postgres(Unix):
    """A connection to postgres, and so a backend: just enough of its protocol (version 3) to ask something."""

    def __init__(self, folder):
        super().__init__(f"{folder}/.s.PGSQL.5432")
        options = b"user\0postgres\0database\0postgres\0\0"
        self.socket.sendall(struct.pack("!II", 8 + len(options), 3 << 16) + options)
        self.backend = None
        self.wait_ready()

    def wait_ready(self):
        while True:
            kind, size = struct.unpack("!cI", self.read(5))
            body = self.read(size - 4)
            if kind == b"K":
                self.backend = struct.unpack("!I", body[:4])[0]
            if kind == b"E":
                raise AssertionError(body.decode(errors="replace"))
            if kind == b"Z":
                return

    def ask(self, query="select count(*), max(relname) from pg_class"):
        text = query.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", 4 + len(text)) + text)
        self.wait_ready()


class Redis(Unix):
    def ask(self, number):
        value = b"x" * 64
        self.socket.sendall(b"*3\r\n$3\r\nSET\r\n$3\r\n%03d\r\n$64\r\n%s\r\n" % (number % 100, value))
        if self.read(5) != b"+OK\r\n":
            raise AssertionError("redis: no OK")


class Host:
    """The processes; with it, they end. `processes` is {pid: what it is} of all that stay."""

    def __init__(self, folder, paths):
        self.folder = folder
        self.paths = paths
        self.stack = contextlib.ExitStack()
        self.started = []
        self.rounds = 0
        os.chmod(folder, 0o755)
        user = pwd.getpwnam(USER)
        self.user, self.group = user.pw_uid, user.pw_gid

    def __enter__(self):
        try:
            self.start_all()
            self.settle()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self, *command, ends_by=signal.SIGKILL, **options):
        """ends_by: the signal on which a server ends its own children first."""
        options.setdefault("preexec_fn", die_with_parent)
        process = Process([str(word) for word in command], self.folder, **options)
        self.stack.callback(self.end, process, ends_by)
        self.started.append(process)
        return process

    @staticmethod
    def end(process, number):
        try:
            process.signal(number)
            process.wait()
        finally:
            process.kill()

    def subfolder(self, name):
        path = os.path.join(self.folder, name)
        os.mkdir(path)
        os.chown(path, self.user, self.group)
        return path

    def connect(self, kind, path, server):
        def connection():
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return kind(path)

        made = server.wait_until(connection, "a connection")
        self.stack.callback(made.close)
        return made

    def start_all(self):
        self.start_postgres()
        self.start_nginx()
        self.redis = [self.start_redis(number) for number in range(REDIS_SERVERS)]
        # Always the machine's own interpreter: that of a virtual environment would be a child of another.
        self.pythons = [self.start("/usr/bin/python3", "-c", PYTHON) for _ in range(PYTHONS)]
        self.shells = [self.start("sh", "-c", "while read line; do echo $line; done") for _ in range(SHELLS)]
        for _ in range(SLEEPERS):
            self.start("sleep", "infinity")
        self.processes = {}
        for process in self.started:
            for pid in [process.pid, *children(process.pid)]:
                self.processes[pid] = read_text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()

    def start_nginx(self):
        folder = self.subfolder("nginx")
        with open(f"{folder}/conf", "w") as file:
            group = read_text("/etc/group")
            name = re.search(rf"^(\w+):[^:]*:{self.group}:", group, re.M).group(1)
            file.write(NGINX.format(folder=folder, workers=NGINX_WORKERS, user=USER, group=name))
        self.nginx = self.start(
            self.paths["nginx"], "-p", folder, "-c", f"{folder}/conf", "-e", f"{folder}/error.log", ends_by=signal.SIGTERM
        )
        self.nginx.socket = f"{folder}/socket"
        self.nginx.wait_until(lambda: len(children(self.nginx.pid)) == NGINX_WORKERS, "its workers")
        self.connect(Unix, self.nginx.socket, self.nginx).close()

    def start_postgres(self):
        folder = self.subfolder("postgres")
        bin_folder = os.path.dirname(self.paths["postgres"])

        def become():
            die_with_parent()
            os.setgroups([])
            os.setgid(self.group)
            os.setuid(self.user)

        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": folder}
        how = {"preexec_fn": become, "env": environment, "cwd": folder}
        # Without synchronizing to the disk: who needs this data?
        said = subprocess.run(
            [f"{bin_folder}/initdb", "--no-sync", "--auth=trust", "-U", "postgres", "-D", f"{folder}/data"],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, **how,
        )  # fmt: skip
        if said.returncode:
            raise AssertionError(f"initdb: {said.stdout}{said.stderr}")
        # So few shared buffers that nobody still grows by those that it sees for the first time.
        settings = {
            "listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "shared_buffers": "1MB",
            "wal_buffers": "64kB",
            "max_connections": BACKENDS + 20, "autovacuum": "off", "wal_level": "minimal", "max_wal_senders": 0,
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        postmaster = self.start(
            self.paths["postgres"], "-D", f"{folder}/data", *words,
            ends_by=signal.SIGQUIT, stdin=subprocess.DEVNULL, **how,
        )  # fmt: skip
        # Ready when the first is let in.
        self.backends = []
        while len(self.backends) < BACKENDS:
            self.backends.append(self.connect(self.postgres_connection, folder, postmaster))

    @staticmethod
    def postgres_connection(folder):
        try:
            return Postgres(folder)
        except AssertionError as reason:
            if "starting up" in str(reason):
                return None
            raise

    def start_redis(self, number):
        folder = self.subfolder(f"redis{number}")
        server = self.start(
            "redis-server", "--port", "0", "--unixsocket", f"{folder}/socket", "--save", "", "--appendonly", "no",
            "--daemonize", "no", "--dir", folder, executable=self.paths["redis-server"], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return self.connect(Redis, f"{folder}/socket", server)

    # --- what they do meanwhile ---

    def load(self):
        """A round of work: a little for some of them, in turn."""
        self.rounds += 1
        for _ in range(NGINX_WORKERS):
            self.ask_nginx()
        for connection in self.redis:
            for number in range(10):
                connection.ask(10 * self.rounds + number)
        for number in range(8):
            self.backends[(8 * self.rounds + number) % BACKENDS].ask()
        for process in (self.pythons[self.rounds % PYTHONS], self.shells[self.rounds % SHELLS]):
            self.ask_process(process)

    def ask_nginx(self):
        connection = Unix(self.nginx.socket)
        try:
            connection.socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while chunk := connection.socket.recv(4096):
                answer += chunk
            if not answer.endswith(b"here\n"):
                raise AssertionError(f"nginx: {answer}")
        finally:
            connection.close()

    @staticmethod
    def ask_process(process):
        """A line, which is answered by another one; its output is a file that it adds to."""
        before = os.path.getsize(process.out.name)
        process.process.stdin.write(b"work\n")
        process.process.stdin.flush()
        process.wait_until(lambda: os.path.getsize(process.out.name) > before, "an answer")

    def settle(self):
        """Works until nobody grows any more by what it does at first: everyone has had its turn, then again."""
        # Its writers see all of the shared buffers once.
        self.backends[0].ask("create table t as select generate_series(1, 500000); checkpoint; drop table t; checkpoint")
        for _ in range(max(PYTHONS, SHELLS)):
            self.load()
        wait_for(self.is_settled, "processes that stay as they are")

    def is_settled(self):
        before = {pid: resident(pid) for pid in self.processes}
        gone = [self.processes[pid] for pid, size in before.items() if size is None]
        if gone:
            raise AssertionError(f"ended: {gone}")
        started = time.monotonic()
        for _ in range(SETTLED_ROUNDS):
            self.load()
        self.settle_seconds = time.monotonic() - started
        return all((resident(pid) or 0) - size <= SETTLED_BYTES for pid, size in before.items())
