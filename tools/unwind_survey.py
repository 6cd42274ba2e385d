#!/usr/bin/python3
"""Are stacks complete on the programs that people run? Records each program that is installed and prints one table.

    tools/unwind_survey.py [--alloctrace PATH] [--full] [PROGRAM...]

Nothing is installed: what is missing is named. --full gives every program the larger of its two workloads.
The columns come from the counters in the profile's comments: how many samples, the share whose stack reached
the thread's first frame, how many stacks hold a frame that was found without a rule for its place, the mean
number of frames, and by name each way in which the other stacks ended.

The end-to-end tests take the programs from here, too.
"""

import argparse
import collections
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.dont_write_bytecode = True

import lib  # noqa: E402  (found by the line above)

LIMIT = 600  # seconds for one program's workload
ENDS = "stacks: "
COMPLETE = "complete"
UNSURE = "with a frame found without a rule"


# --- what a profile says of its stacks -------------------------------------------------------------


def stacks_of(profile):
    """[(addresses, sample)]: each sample's frames, innermost first, without what is inlined into them."""
    physical = {id(frames[0]): frames for frames in profile.locations.values() if frames}
    found = []
    for sample in profile.samples:
        addresses = []
        at = 0
        while at < len(sample.frames):
            frames = physical[id(sample.frames[at])]
            addresses.append(frames[0].address)
            at += len(frames)
        found.append((tuple(addresses), sample))
    return found


class Walks:
    """How the walks of one recording ended."""

    def __init__(self, profile):
        counts = {
            name[len(ENDS) :]: count
            for name, count in profile.counters().items()
            if name.startswith(ENDS)
        }
        self.unsure = counts.pop(UNSURE, 0)
        self.complete = counts.pop(COMPLETE, 0)
        self.incomplete = {name: count for name, count in counts.items() if count}
        self.count = self.complete + sum(self.incomplete.values())
        frames = hits = 0
        for addresses, sample in stacks_of(profile):
            frames += sample.values[0] * len(addresses)
            hits += sample.values[0]
        self.mean_depth = frames / hits if hits else 0

    @property
    def share(self):
        return self.complete / self.count if self.count else 0

    def __str__(self):
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.incomplete.items()))
        return (
            f"{self.count} samples, complete {100 * self.share:.3f} %, unsure {self.unsure}, "
            f"mean depth {self.mean_depth:.1f}; {ends or 'none ended early'}"
        )


# --- programs --------------------------------------------------------------------------------------


class Program:
    """A program and its workload. The folder is its own; everything it starts ends with close()."""

    name = None
    interpreter = None  # the function whose frames stand for those of an interpreted language
    needs = ()  # programs, as they are called on a command line
    period = 1
    least = 0.999  # the share of stacks that has to be complete

    def __init__(self, folder, full=False):
        self.folder = folder
        self.full = full
        self.closers = []

    @classmethod
    def missing(cls):
        """What is not installed, or None."""
        gone = [program for program in cls.needs if not cls.find(program)]
        return f"not installed: {', '.join(gone)}" if gone else None

    @staticmethod
    def find(program):
        """Debian's own, where there are others beside it."""
        return shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin") or shutil.which(program)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def spawn(self, *command, **options):
        process = lib.Process([str(word) for word in command], self.folder, **options)
        self.closers.append(process.kill)
        return process

    def close(self):
        for closer in reversed(self.closers):
            closer()


class Attached(Program):
    """Runs already when the recording begins: start(), which sets pid, then load() while it is recorded."""

    pid = None


class Launched(Program):
    """Is recorded from its first allocation on: command()."""


class Line(Attached):
    """A process that says "ready", waits for a line, works, and says "done"."""

    def start_line(self, *command, **options):
        self.process = self.spawn(*command, **options)
        self.pid = self.process.pid
        self.process.wait_until(lambda: "ready" in self.process.stdout, "ready")

    def load(self):
        self.process.process.stdin.write(b"go\n")
        self.process.process.stdin.flush()
        self.process.wait_until(lambda: self.done(self.process.stdout), "done")

    @staticmethod
    def done(text):
        return "done\n" in text


class Ledger(Line):
    """The tests' own target, as a distribution would build it: no frame pointers, no symbols."""

    name = "ledger, stripped"
    needs = ("cc", "c++")

    def start(self):
        targets = os.path.join(ROOT, "tests", "targets")
        program = self.path("ledger")
        flags = ["-O2", "-fomit-frame-pointer", "-fno-builtin", "-pthread", "-D_GNU_SOURCE", "-Wno-alloc-size-larger-than"]
        objects = []
        for source in ("ledger_books.c", "ledger_c.c", "ledger.cc"):
            objects.append(self.path(source + ".o"))
            compiler = ["c++", "-std=c++17"] if source.endswith(".cc") else ["cc", "-std=gnu11"]
            subprocess.run([*compiler, *flags, "-c", os.path.join(targets, source), "-o", objects[-1]], check=True)
        subprocess.run(["c++", "-pthread", "-s", *objects, "-o", program], check=True)
        self.start_line(program, "--rounds", 8000 if self.full else 1000, "--threads", 2)

    @staticmethod
    def done(text):
        return "}}\n" in text


PYTHON_WORK = """
import json, re, sqlite3, sys, zlib
print("ready", flush=True)
sys.stdin.readline()
class Node:
    def __init__(self, depth):
        self.children = [Node(depth - 1) for _ in range(3)] if depth else []
        self.text = ("%d" % depth) * 700
    def walk(self):
        return len(self.text) + sum(child.walk() for child in self.children)
for i in range(int(sys.argv[1])):
    document = {"key %d" % n: ["x" * (600 + n), n, None, {"deeper": [n] * 90}] for n in range(20)}
    json.loads(json.dumps(document))
    zlib.compress(bytes(2000))
    re.sub(r"(\\w+) (\\w+)", lambda m: m.group(2) * 90, "hello world " * 90)
    sorted(range(900), key=lambda n: -n)
    database = sqlite3.connect(":memory:")
    database.execute("create table t(a, b)")
    database.executemany("insert into t values(?, ?)", ((n, "y" * 600) for n in range(20)))
    database.execute("select sum(a) from t").fetchall()
    database.close()
    Node(4).walk()
print("done", flush=True)
"""


class Python(Line):
    name = "python3"
    interpreter = "_PyEval_EvalFrameDefault"
    needs = ("python3",)

    def start(self):
        script = self.write("work.py", PYTHON_WORK)
        self.start_line(self.find("python3"), script, 400 if self.full else 40)


class Sqlite(Launched):
    name = "sqlite3 import"
    needs = ("sqlite3",)

    def command(self):
        rows = 40000 if self.full else 4000
        self.write("rows.csv", "".join(f"{n},{n * 7919 % 10007},{'text ' * (n % 40)}\n" for n in range(rows)))
        script = self.write(
            "import.sql",
            "create table t(a integer, b integer, c text);\n.mode csv\n.import rows.csv t\n"
            "create index by_b on t(b);\nselect b % 10, count(*), max(c) from t group by 1 order by 2;\n",
        )
        return [self.find("sqlite3"), "-init", script, "data.db", ".quit"]


class Redis(Attached):
    name = "redis-server"
    needs = ("redis-server", "redis-benchmark")

    def start(self):
        self.socket = self.path("redis.sock")
        server = self.spawn(
            self.find("redis-server"), "--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", self.folder
        )  # fmt: skip
        self.pid = server.pid
        server.wait_until(lambda: os.path.exists(self.socket), "its socket")

    def load(self):
        subprocess.run(
            [self.find("redis-benchmark"), "-s", self.socket, "-q", "-c", "20", "-r", "100000",
             "-n", "20000" if self.full else "300", "-t", "set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100,mset"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=LIMIT,
        )  # fmt: skip


NGINX_CONF = """
daemon off;
master_process off;
error_log {folder}/error.log;
pid {folder}/pid;
events {{ worker_connections 256; }}
http {{
	access_log {folder}/access.log;
	client_body_temp_path {folder}/body;
	proxy_temp_path {folder}/proxy;
	fastcgi_temp_path {folder}/fastcgi;
	uwsgi_temp_path {folder}/uwsgi;
	scgi_temp_path {folder}/scgi;
	gzip on;
	gzip_types text/plain;
	server {{
		listen unix:{folder}/http.sock;
		root {folder}/www;
		location /pass {{ proxy_pass http://unix:{folder}/http.sock:/; }}
		location ~ ^/say/(.*)$ {{ default_type text/plain; return 200 "$1 $http_user_agent"; }}
	}}
}}
"""


class Nginx(Attached):
    name = "nginx"
    needs = ("nginx",)

    def start(self):
        os.mkdir(self.path("www"))
        self.write("www/index.html", "<p>hello</p>" * 900)
        conf = self.write("nginx.conf", NGINX_CONF.format(folder=self.folder))
        self.socket = self.path("http.sock")
        server = self.spawn(self.find("nginx"), "-p", self.folder, "-c", conf, "-e", self.path("error.log"))
        self.pid = server.pid
        server.wait_until(lambda: os.path.exists(self.socket), "its socket")

    def load(self):
        for n in range(8000 if self.full else 1700):
            place = ("/", f"/say/{n}", "/pass", "/not-there")[n % 4]
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(self.socket)
                client.sendall(f"GET {place} HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n".encode())
                while client.recv(65536):
                    pass


POSTGRES_WORK = """
create temp table t as select n, md5(n::text) m from generate_series(1, 20000) n;
create index on t(m);
do $$ begin for i in 1..{times} loop
	execute 'select count(*), max(m) from t where n % ' || i || ' = 0';
	execute 'select array_agg(m order by m) from t where n between ' || i || ' and ' || i + 500;
	perform jsonb_agg(to_jsonb(t)) from t where n < 50;
	perform regexp_replace(m, '[a-f]+(.)', '\\1', 'g') from t where n < 20;
	begin perform 1 / (i % 2); exception when division_by_zero then null; end;
end loop; end $$;
\\echo done
"""
POSTGRES_COMPILED = """
select sum(n % 7), max(md5(n::text)), count(*) from generate_series(1, 1000) n where n > 3 and n % 5 = 1;
"""


class Postgres(Attached):
    name = "postgres backend"
    before = "set jit = off;\n"

    @staticmethod
    def folder_of_programs():
        found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
        return os.path.dirname(max(found)) if found else None

    @classmethod
    def missing(cls):
        return None if cls.folder_of_programs() and cls.find("psql") else "not installed: postgresql"

    def start(self):
        programs = self.folder_of_programs()
        # It refuses to run as root.
        os.chmod(self.folder, 0o711)
        data = self.path("data")
        os.mkdir(data, 0o700)
        shutil.chown(data, "postgres", "postgres")
        subprocess.run(
            [f"{programs}/initdb", "-D", data, "--no-sync", "-A", "trust", "--no-instructions"],
            user="postgres", group="postgres", extra_groups=[], cwd=data, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.spawn(
            f"{programs}/postgres", "-D", data, "-k", data, "-c", "listen_addresses=", "-c", "fsync=off",
            user="postgres", group="postgres", extra_groups=[], cwd=data,
        )  # fmt: skip
        lib.wait_for(lambda: os.path.exists(f"{data}/.s.PGSQL.5432"), "the server's socket")
        lib.wait_for(lambda: b"ready" in lib.read_bytes(f"{data}/postmaster.pid"), "the server")
        self.client = self.spawn(
            self.find("psql"), "-X", "-q", "-A", "-t", "-h", data, "-d", "postgres",
            user="postgres", group="postgres", extra_groups=[], cwd=data,
        )  # fmt: skip
        self.say(self.before + "select 'pid', pg_backend_pid();\n")
        said = self.client.wait_until(lambda: re.search(r"pid\|(\d+)\n", self.client.stdout), "the backend's pid")
        self.pid = int(said.group(1))
        # Once before the recording: what the backend loads on demand is then there.
        self.work(POSTGRES_WORK.format(times=1))

    def work(self, text):
        done = self.client.stdout.count("done\n") + 1
        self.say(text)
        self.client.wait_until(lambda: self.client.stdout.count("done\n") >= done, "done")

    def say(self, text):
        self.client.process.stdin.write(text.encode())
        self.client.process.stdin.flush()

    def load(self):
        self.work(POSTGRES_WORK.format(times=400 if self.full else 60))


class PostgresCompiling(Postgres):
    """With the LLVM that it loads for expensive queries: it is there before the recording, and works in it."""

    name = "postgres with JIT"
    least = 0.95
    before = "set jit = on; set jit_above_cost = 0; set jit_inline_above_cost = 0;\n" + POSTGRES_COMPILED

    @classmethod
    def missing(cls):
        return super().missing() or (
            None if glob.glob("/usr/lib/postgresql/*/lib/llvmjit.so") else "not installed: postgresql's llvmjit"
        )

    def load(self):
        self.work(POSTGRES_COMPILED * (20 if self.full else 5) + "\\echo done\n")


class Clang(Launched):
    name = "clang -O2"
    needs = ("clang++",)

    HEADERS = ("algorithm", "chrono", "deque", "fstream", "functional", "future", "iostream", "list", "map",
               "random", "regex", "set", "sstream", "string", "thread", "unordered_map", "vector")  # fmt: skip
    CODE = """
template <int N> struct counts {
	std::map<std::string, std::vector<int>> map;
	std::unordered_map<int, std::set<std::string>> sets;
	int add(const std::string &text) {
		std::istringstream in(text);
		for (std::string word; in >> word;) map[word].push_back(N), sets[N].insert(word);
		for (auto &[word, list] : map) std::sort(list.begin(), list.end(), [](int a, int b) { return a %% N > b %% N; });
		return (int)map.size();
	}
};
int main() { return %s; }
"""

    def __init__(self, folder, full=False):
        super().__init__(folder, full)
        self.period = 256 if full else 8192

    def command(self):
        headers = self.HEADERS if self.full else ("algorithm", "map", "set", "sstream", "string", "unordered_map", "vector")
        text = "".join(f"#include <{header}>\n" for header in headers)
        calls = " + ".join(f'counts<{n}>().add("a")' for n in range(2, 12 if self.full else 3))
        source = self.write("large.cc", text + self.CODE % calls)
        return [self.find("clang++"), "-std=c++17", "-O2", "-c", source, "-o", self.path("large.o")]


NODE_WORK = """
const zlib = require('zlib'), crypto = require('crypto');
process.stdout.write('ready\\n');
function tree(depth) { return depth ? [tree(depth - 1), tree(depth - 1)] : Buffer.alloc(9000 + depth); }
function count(t) { return Array.isArray(t) ? count(t[0]) + count(t[1]) : t.length; }
process.stdin.once('data', () => {
	let sum = 0;
	for (let i = 0; i < +process.argv[2]; i++) {
		sum += count(tree(4));
		sum += zlib.deflateSync(Buffer.alloc(3000, 'text ' + i)).length;
		sum += crypto.createHash('sha256').update('x' + i).digest('hex').length;
		sum += JSON.parse(JSON.stringify({ a: [i, 'b'.repeat(50)], c: { d: i } })).a.length;
		sum += ('' + i).replace(new RegExp('[' + i % 10 + ']+', 'g'), m => m + i).length;
		sum += [3, 1, 2].map(n => new Uint8Array(n * 5000)).sort((a, b) => a.length - b.length).length;
		sum += new Intl.NumberFormat('en').format(i).length;
	}
	process.stdout.write('done\\n' + (sum ? '' : '0'));
});
"""


class Node(Line):
    name = "node"
    needs = ("node",)
    least = 0.95
    times = 1000

    def start(self):
        script = self.write("work.js", NODE_WORK)
        self.start_line(self.find("node"), script, self.times if self.full else 60)


class Perl(Launched):
    name = "perl"
    needs = ("perl",)

    def command(self):
        script = self.write(
            "work.pl",
            'sub t { my $d = shift; return $d ? [t($d - 1), t($d - 1)] : {x => "y" x 90}; }\n'
            "for my $i (1..%d) { t(8); my @w = sort map { $_ x 3 } 1..200; join(',', @w) =~ s/(1+)/<$1>/g; }\n"
            % (100 if self.full else 15),
        )
        return [self.find("perl"), script]


class Gcc(Launched):
    """The compiler proper: its driver only starts it."""

    name = "gcc -O2 (cc1plus)"
    needs = ("g++",)

    def __init__(self, folder, full=False):
        super().__init__(folder, full)
        self.period = 256 if full else 8192

    def command(self):
        source = self.write("large.cc", "#include <map>\n#include <regex>\n#include <string>\n"
                            "std::map<std::string, std::regex> all;\nint main() { return all.size(); }\n")  # fmt: skip
        compiler = subprocess.run(
            ["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True, check=True
        ).stdout.strip()
        return [compiler, "-quiet", "-D_GNU_SOURCE", "-O2", source, "-o", self.path("large.s")]


class Git(Launched):
    name = "git"
    needs = ("git",)

    def command(self):
        repository = self.path("repository")
        git = [self.find("git"), "-C", repository]
        os.mkdir(repository)
        subprocess.run([*git, "init", "-q"], check=True)
        for n in range(600):
            self.write(f"repository/file{n}", f"{n}\n" * 50)
        return [*git, "add", "."]


class Xz(Launched):
    """Little to sample, but by threads."""

    name = "xz -T2"
    needs = ("xz",)

    def command(self):
        with open(self.path("data"), "wb") as file:
            for n in range(200):
                file.write(bytes([n]) * 50000)
        return [self.find("xz"), "-T2", "--block-size=100KiB", "-k", self.path("data")]


PROGRAMS = (Ledger, Redis, Python, Sqlite, Nginx, Postgres, PostgresCompiling, Clang, Node, Perl, Gcc, Git, Xz)


# --- recording -------------------------------------------------------------------------------------


def record(program, alloctrace=lib.ALLOCTRACE, options=()):
    """The profile of a program under its workload."""
    output = program.path("profile.pb.gz")
    command = [alloctrace, "-v", "-s", program.period, "-o", output, "--max-stacks=500000", *options]
    # What a command prints must not be taken for what alloctrace prints.
    if isinstance(program, Launched):
        tracer = lib.Tracer(
            [str(word) for word in [*command, "--", *program.command()]],
            program.folder, stdin=subprocess.DEVNULL, cwd=program.folder,
        )  # fmt: skip
        program.closers.append(tracer.kill)
        tracer.wait(LIMIT)
    else:
        program.start()
        tracer = lib.Tracer([str(word) for word in [*command, "-p", program.pid]], program.folder, cwd=program.folder)
        program.closers.append(tracer.kill)
        tracer.wait_recording()
        program.load()
        tracer.stop()
    if tracer.process.returncode != lib.OK:
        raise AssertionError(tracer.describe())
    return lib.Profile.read(output)


class Recorded:
    """with Recorded(Redis) as (program, profile): a folder of its own, and everything ended afterwards."""

    def __init__(self, kind, full=False, **options):
        self.kind = kind
        self.full = full
        self.options = options

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="alloctrace-survey.")
        self.program = self.kind(self.folder, self.full)
        try:
            return self.program, record(self.program, **self.options)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.program.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description="Records stock programs, and prints how complete their stacks are.")
    parser.add_argument("--alloctrace", default=lib.ALLOCTRACE, help="the program to be tried")
    parser.add_argument("--full", action="store_true", help="the larger workloads: some minutes")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help="only those whose name contains this")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root")
    chosen = [kind for kind in PROGRAMS if not options.programs or any(p in kind.name for p in options.programs)]
    print(f"{'program':20} {'-s':>5} {'samples':>9} {'complete %':>10} {'unsure':>8} {'depth':>6}  other ends")
    below = failed = 0
    missing = []
    ends = collections.Counter()
    for kind in chosen:
        if kind.missing():
            missing.append(f"{kind.name}: {kind.missing()}")
            continue
        try:
            with Recorded(kind, options.full, alloctrace=os.path.abspath(options.alloctrace)) as (program, profile):
                walks = Walks(profile)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print(f"{kind.name:20} FAILED: {error}")
            failed += 1
            continue
        ends.update(walks.incomplete)
        below += walks.share < kind.least
        reasons = ", ".join(f"{name} {count}" for name, count in sorted(walks.incomplete.items()))
        print(
            f"{kind.name:20} {program.period:5} {walks.count:9} {100 * walks.share:10.4f} {walks.unsure:8} "
            f"{walks.mean_depth:6.1f}  {reasons or '-'}",
            flush=True,
        )
    for line in missing:
        print(f"{line}, left out")
    print("all early ends: " + (", ".join(f"{name} {count}" for name, count in ends.most_common()) or "none"))
    return 1 if below or failed else 0


if __name__ == "__main__":
    sys.exit(main())
