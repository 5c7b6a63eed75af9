"""Starts the real binary and its companions on free ports, and stops them by their own process ids."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def build_dir():
    """The folder of the build under test, as ctest passes it."""
    return pathlib.Path(os.environ.get("GANGLION_BUILD_DIR", ROOT / "build/release"))


def fail(message):
    print(f"FAILED: {message}", file=sys.stderr)
    sys.exit(1)


def check(condition, message):
    if not condition:
        fail(message)


def ledger_lines(directory):
    """`ganglion ledger export` line by line: millions of records do not fit into one string."""
    with subprocess.Popen([build_dir() / "ganglion", "ledger", "export", "--dir", directory], stdout=subprocess.PIPE, text=True) as export:
        for line in export.stdout:
            yield line.rstrip("\n")
    check(export.returncode == 0, f"ganglion ledger export --dir {directory} ended with {export.returncode}")


class Mock:
    """`ganglion bench mock`: canned OpenAI answers, with a journal of what it emitted."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([build_dir() / "ganglion", "bench", "mock", *arguments],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[1])

    def stop(self):
        self.process.kill()
        self.process.wait()


class Gateway:
    started = []  # processes; a test that broke ends what it left running

    def __init__(self, yaml, env=None, directory=None, server="", log="access_log: false"):
        """`server` and `log`: more settings of these sections, as YAML flow."""
        self.temporary = tempfile.TemporaryDirectory(prefix="ganglion-test-") if directory is None else None
        self.directory = pathlib.Path(directory or self.temporary.name)
        self.ledger = self.directory / "ledger"
        self.file = self.directory / "ganglion.yaml"
        self.env = {**os.environ, **(env or {})}
        self.file.write_text(f'server: {{listen: "127.0.0.1:0", workers: 2{server and ", " + server}}}\nadmin: {{listen: "127.0.0.1:0"}}\n'
                             f'ledger: {{directory: "{self.ledger}"}}\nlog: {{{log}}}\n{yaml}', encoding="utf-8")

    def start(self):
        """Returns once both listeners are up; the time that took is in self.start_s."""
        began = time.monotonic()
        self.log = open(self.directory / "gateway.log", "a+", encoding="utf-8")
        offset = self.log.seek(0, os.SEEK_END)
        self.process = subprocess.Popen([build_dir() / "ganglion", "serve", self.file], stdout=subprocess.DEVNULL,
                                        stderr=self.log, env=self.env)
        Gateway.started.append(self.process)
        self.ports = {}
        while len(self.ports) < 2:
            with open(self.directory / "gateway.log", encoding="utf-8") as reader:
                reader.seek(offset)
                for line in reader:
                    if '"listening"' in line and line.endswith("\n"):
                        event = json.loads(line)
                        self.ports[event["listener"]] = int(event["url"].rsplit(":", 1)[1])
            if self.process.poll() is not None or time.monotonic() - began > 90:
                fail("the gateway did not start:\n" + (self.directory / "gateway.log").read_text(encoding="utf-8"))
            time.sleep(0.005)
        self.start_s = time.monotonic() - began
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=90)
        check(code == 0, f"SIGTERM ended with {code}")

    def command(self, *arguments):
        done = subprocess.run([build_dir() / "ganglion", *arguments], capture_output=True, text=True, env=self.env, check=False)
        check(done.returncode == 0, f"ganglion {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")
        return done.stdout

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['admin']}/metrics", timeout=60) as response:
            return response.read().decode()

    def metric(self, name, **labels):
        """Sum of a family's samples whose labels match; None where there is none."""
        total = None
        for line in self.metrics().splitlines():
            if line.startswith(name) and line[len(name)] in " {" and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total = (total or 0) + float(line.rsplit(" ", 1)[1])
        return total

    def records(self):
        return [json.loads(line) for line in self.command("ledger", "export", "--dir", self.ledger).splitlines()]
