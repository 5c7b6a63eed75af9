"""A PostgreSQL server of the test's own: a fresh cluster in a temporary folder, reached by a socket in it, killed at will."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from gateway_process import check, fail


def binaries():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    where = found[-1].parent if found else (pathlib.Path(shutil.which("postgres")).parent if shutil.which("postgres") else None)
    check(where, "postgresql is not installed (scripts/setup installs it)")
    return where


class Postgres:
    def __init__(self, directory):
        self.bin = binaries()
        self.directory = pathlib.Path(directory)
        # The server refuses to run as root.
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.as_user:
            shutil.chown(self.directory, "postgres", "postgres")
            self.directory.chmod(0o755)
        self.data = self.directory / "data"
        self._command([self.bin / "initdb", "-D", self.data, "-U", "ganglion", "-A", "trust", "-E", "UTF8", "--no-sync"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.dsn = f"postgresql://ganglion@127.0.0.1:{self.port}/postgres"
        self.process = None

    def _command(self, arguments):
        done = subprocess.run([*self.as_user, *map(str, arguments)], capture_output=True, text=True, cwd="/", check=False)
        check(done.returncode == 0, f"{arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        self.log = open(self.directory / "postgres.log", "a", encoding="utf-8")
        self.process = subprocess.Popen(
            [*self.as_user, str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
             "-c", f"unix_socket_directories={self.directory}", "-c", "fsync=on", "-c", "shared_buffers=16MB", "-c", "max_connections=20"],
            stdout=self.log, stderr=self.log, cwd="/")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.query("SELECT 1", or_none=True) == [["1"]]:
                return self
            check(self.process.poll() is None, "postgres did not start:\n" + (self.directory / "postgres.log").read_text())
            time.sleep(0.05)
        return fail("postgres did not answer within 30 s")

    def kill(self):
        """SIGKILL of the whole server, as a power cut of its machine but for the page cache."""
        pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout.split()
        for one in [str(pid), *children]:
            try:
                os.kill(int(one), signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        # A server killed so leaves its lock; the next one takes it over once its processes are gone.
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(pathlib.Path(f"/proc/{one}").exists() for one in children):
            time.sleep(0.01)

    def stop(self):
        if self.process and self.process.poll() is None:
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
            os.kill(pid, signal.SIGINT)
            self.process.wait(timeout=60)

    def query(self, sql, or_none=False):
        done = subprocess.run(["psql", self.dsn, "-X", "-A", "-t", "-F", "\t", "-c", sql], capture_output=True, text=True, check=False)
        if or_none and done.returncode != 0:
            return None
        check(done.returncode == 0, f"psql: {done.stderr}")
        return [line.split("\t") for line in done.stdout.splitlines()]
