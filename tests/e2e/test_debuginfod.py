"""Debug files from a debuginfod server: a real one, and servers that one would not want."""

import http.client
import os
import shutil
import socket
import socketserver
import subprocess
import threading

from lib import OK, TARGETS, USAGE, Case, Process, Profile, Result, wait_for


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server(socketserver.ThreadingTCPServer):
    """Answers each request with `answer`, and then says nothing more."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, answer):
        self.answer = answer
        self.asked = 0
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self):
        self.over.set()
        self.shutdown()
        self.server_close()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.server.asked += 1
        self.wfile.write(self.server.answer)
        self.wfile.flush()
        self.server.over.wait()


class Debuginfod(Case):
    def setUp(self):
        super().setUp()
        # A ledger whose debug file is nowhere that is looked into.
        self.debug_files = self.path("files")
        os.mkdir(self.debug_files)
        program, self.debug = self.path("ledger"), os.path.join(self.debug_files, "ledger.debug")
        whole = os.path.join(TARGETS, "ledger")
        subprocess.run(["objcopy", "--only-keep-debug", whole, self.debug], check=True)
        subprocess.run(["strip", "-o", program, whole], check=True)

    def environment(self, url, **variables):
        return dict(os.environ, DEBUGINFOD_URLS=url, DEBUGINFOD_CACHE_PATH=self.path("cache"), **variables)

    def start(self, environment, *options):
        target = self.target("ledger", "--rounds", "5", program_folder=self.folder)
        output = self.path("out.pb.gz")
        tracer = self.tracer("-v", "-s", "1", "-p", target.pid, "-o", output, *options, env=environment)
        tracer.wait_recording()
        self.books = target.work()
        return tracer, output

    def profile(self, environment, *options):
        tracer, output = self.start(environment, *options)
        self.assertEqual(tracer.stop(), OK, tracer.describe())
        return Profile.read(output), Result(tracer)

    def serve(self, answer):
        server = Server(answer)
        self.addCleanup(server.stop)
        return server

    def test_names_come_from_a_server_when_asked_for(self):
        port = free_port()
        command = ["debuginfod", "-F", "-d", ":memory:", "-p", str(port), self.debug_files]
        server = Process(command, self.folder, cwd=self.folder)
        self.addCleanup(server.kill)
        server.wait_until(lambda: "started http server" in server.stderr + server.stdout, "the start")
        environment = self.environment(f"http://127.0.0.1:{port}")
        build_id = self.build_id()
        wait_for(lambda: self.is_served(port, build_id), "the server to have read its files")

        profile, result = self.profile(environment)
        self.assertFalse({"path_malloc", "site_malloc"} & set(self.names(profile)), result.text)
        self.assertRegex(result.stdout, rf"names .*ledger, which has no (symbols|debug information) \(build id {build_id}\)")
        profile, result = self.profile(environment, "--debuginfod")
        self.assert_exact(profile, self.books)
        self.assertRegex(result.stderr, r"ledger: debuginfod: found")
        self.assertTrue(any(frame.file.endswith("ledger_c.c") and frame.line for frame in self.frames(profile)))

        # What was fetched is kept.
        server.kill()
        profile, result = self.profile(environment, "--debuginfod")
        self.assert_exact(profile, self.books)

    def build_id(self):
        notes = subprocess.run(["readelf", "-n", self.debug], check=True, capture_output=True, text=True)
        return notes.stdout.split("Build ID: ")[1].split()[0]

    def is_served(self, port, build_id):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/buildid/{build_id}/debuginfo")
        status = connection.getresponse().status
        connection.close()
        return status == 200

    def frames(self, profile):
        return [frame for sample in profile.samples for frame in sample.frames]

    def names(self, profile):
        return [frame.name for frame in self.frames(profile)]

    def test_without_a_list_of_servers_it_is_a_usage_error(self):
        environment = {k: v for k, v in os.environ.items() if k != "DEBUGINFOD_URLS"}
        result = self.run_tracer("--debuginfod", "-p", "1", env=environment)
        self.assertEqual(result.status, USAGE, result.text)
        self.assert_one_line(result)
        self.assertIn("--preserve-env=DEBUGINFOD_URLS", result.stderr)

    def test_server_that_has_nothing_costs_names_only(self):
        server = self.serve(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        profile, result = self.profile(self.environment(server.url), "--debuginfod")
        self.assertRegex(result.stderr, r"ledger: debuginfod: no server has it")
        self.assertTrue(server.asked)
        self.assertTrue(profile.samples)

    def test_silent_server_is_given_up(self):
        server = self.serve(b"")
        profile, result = self.profile(
            self.environment(server.url, DEBUGINFOD_TIMEOUT="1"), "--debuginfod"
        )
        self.assertRegex(result.stderr, r"ledger: debuginfod: \S")
        self.assertNotRegex(result.stderr, r"debuginfod: found")
        self.assertTrue(profile.samples)

    def test_file_that_is_too_large_is_not_waited_for(self):
        server = self.serve(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + bytes(100000))
        profile, result = self.profile(self.environment(server.url), "--debuginfod")
        self.assertRegex(result.stderr, r"ledger: debuginfod: larger than what is downloaded")
        self.assertTrue(profile.samples)

    def test_file_of_another_build_is_not_used(self):
        other = self.path("other.debug")
        shutil.copy(self.debug, other)
        subprocess.run(["objcopy", "--remove-section", ".note.gnu.build-id", other], check=True)
        with open(other, "rb") as file:
            data = file.read()
        server = self.serve(f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        profile, result = self.profile(self.environment(server.url), "--debuginfod")
        self.assertRegex(result.stderr, r"ledger: debuginfod: of another build")
        self.assertNotIn("path_malloc", self.names(profile))

    def test_ctrl_c_ends_the_waiting_and_not_the_recording(self):
        server = self.serve(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        tracer, output = self.start(
            self.environment(server.url, DEBUGINFOD_TIMEOUT="600"), "--debuginfod"
        )
        tracer.signal(2)
        tracer.wait_until(lambda: server.asked, "a question to the server")
        tracer.signal(2)
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        self.assertIn("ledger: debuginfod: interrupted", Result(tracer).stderr)
        self.assertTrue(Profile.read(output).samples)

    def test_ctrl_c_during_an_interval_ends_the_recording_too(self):
        server = self.serve(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        tracer, output = self.start(
            self.environment(server.url, DEBUGINFOD_TIMEOUT="600"), "--debuginfod", "--interval", "1s"
        )
        tracer.wait_until(lambda: server.asked, "a question to the server")
        tracer.signal(2)
        self.assertEqual(tracer.wait(), OK, tracer.describe())
        self.assertIn("ledger: debuginfod: interrupted", Result(tracer).stderr)
        self.assertTrue(Profile.read(output).samples)
