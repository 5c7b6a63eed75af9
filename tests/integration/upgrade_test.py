#!/usr/bin/env python3
"""Upgrades of the running binary under load: the listening sockets, the ledger, budgets, limits and keys go over to a new
process while the old one ends its streams.

  upgrade_test.py [--upgrades 3] [--kills 4] [--rate 60] [--seed N]

1  an upgrade to a wrong configuration changes nothing; with every other no request is refused, reset or failed, long streams included;
   `ganglion upgrade` says which it was; the old process ends by itself with 0;
2  kill -9 of the new process in the middle: the old one goes on, or, if the new one served already, the next start does;
3  kill -9 of the old process in the middle: the new one goes on;
then the journals of clients, provider and ledger against each other: one record for each request, nothing lost, nothing twice, the
chain whole, each key charged once, the budget and the limit never exceeded."""

import argparse
import ctypes
import http.client
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "soak"))
import judge  # noqa: E402
import soak  # noqa: E402
from gateway_process import Gateway, build_dir, check  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36


class Upgraded(Gateway):
    """A gateway whose process changes. Its later processes are ours too once their parent has ended."""

    def pid(self):
        while True:  # it is empty for an instant when it changes hands
            text = (self.ledger / "lock").read_text(encoding="ascii")
            if text.endswith("\n"):
                return int(text)
            time.sleep(0.001)

    def upgrade(self):
        return subprocess.run([build_dir() / "ganglion", "upgrade", "--dir", self.ledger, "--timeout", "60"], capture_output=True,
                              text=True, env=self.env, check=False)

    def begin_upgrade(self):
        """Only the signal; the caller hurts somebody while it goes on."""
        (self.ledger / "upgrade-status").unlink(missing_ok=True)
        os.kill(self.pid(), signal.SIGUSR2)

    def status(self):
        try:
            return (self.ledger / "upgrade-status").read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def end(self):
        os.kill(self.pid(), signal.SIGTERM)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    try:
        return [int(each) for each in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def wait_until(what, seconds, message):
    deadline = time.monotonic() + seconds
    while not what():
        check(time.monotonic() < deadline, f"{message} within {seconds} s")
        time.sleep(0.01)


class Load:
    def __init__(self, port, directory, rate, seed, long, name):
        self.journal = directory / f"{name}.jsonl"
        self.process = soak.script("clients.py", "--port", port, "--rate", rate, "--seed", seed, "--faults", 0, "--long", long,
                                   "--journal", self.journal)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(timeout=90) == 0, "the clients failed")
        return judge.lines(self.journal)


class Test:
    def __init__(self, options, directory):
        self.options, self.directory, self.rng = options, directory, random.Random(options.seed)
        self.provider = soak.script("upstream.py", directory / "upstream.jsonl")
        port = int(self.provider.stdout.readline().split()[1])
        self.limits = {"budget": round(options.rate * 0.09 * 14 * 20 * 0.6) + 200, "budget_s": 60, "rate": max(1, round(options.rate * 0.025)),
                       "burst": max(2, round(options.rate * 0.05)), "bursts": 0}
        self.gateway = Upgraded(soak.yaml(port, None, options.rate, self.limits, 0), directory=directory)
        self.clients, self.disturbed, self.pauses = [], [], []

    def load(self, name, long):
        return Load(self.gateway.ports["proxy"], self.directory, self.options.rate, f"{self.rng.randrange(1 << 30)}", long, name)

    def refused(self):
        """A configuration that is wrong, found by the new process."""
        good = self.gateway.file.read_text(encoding="utf-8")
        self.gateway.file.write_text(good + "nonsense: [\n", encoding="utf-8")
        before = self.gateway.pid()
        done = self.gateway.upgrade()
        check(done.returncode == 1 and "goes on serving" in done.stderr and self.gateway.pid() == before, f"not refused: {done.stdout}{done.stderr}")
        self.gateway.file.write_text(good, encoding="utf-8")

    def quiet(self):
        """Nothing runs, so the old process ends at once: its idle connections go over all the same."""
        idle = [http.client.HTTPConnection("127.0.0.1", self.gateway.ports["proxy"], timeout=10) for _ in range(40)]

        def ask(connection):
            connection.request("GET", "/v1/models", headers={"authorization": "Bearer sk-soak-plain"})
            answer = connection.getresponse()
            answer.read()
            return answer.status

        check({ask(connection) for connection in idle} == {200}, "before")
        sockets = [connection.sock for connection in idle]
        before = self.gateway.pid()
        done = self.gateway.upgrade()
        check(done.returncode == 0, done.stderr)
        wait_until(lambda: not alive(before), 10, "the old process did not end")
        check({ask(connection) for connection in idle} == {200}, "after")
        check([connection.sock for connection in idle] == sockets, "a client had to connect again")
        for connection in idle:
            connection.close()

    def upgrades(self):
        """Case 1."""
        load = self.load("smooth", 0.3)
        self.refused()
        for i in range(self.options.upgrades):
            time.sleep(1.0)
            before = self.gateway.pid()
            done = self.gateway.upgrade()
            check(done.returncode == 0, f"upgrade {i + 1}: {done.stderr}")
            after = self.gateway.pid()
            check(after != before and str(after) in done.stdout, f"upgrade {i + 1}: {before} is still there: {done.stdout}")
            self.olds.append(before)
        time.sleep(1.0)
        seen = load.stop()
        for pid in self.olds[1:]:
            wait_until(lambda pid=pid: not alive(pid), 15, f"the old process {pid} did not end")
        self.olds = self.olds[:1]
        check(self.gateway.process.wait(timeout=15) == 0, "the first process did not end with 0")
        failed = [s for s in seen if not s["whole"] and s["status"] != 429]
        check(not failed, f"{len(failed)} of {len(seen)} requests failed: {failed[:3]}")
        self.clients += seen
        slow = sorted(s["ms"] for s in seen if s["kind"] == "plain" and s["whole"])
        return f"{self.options.upgrades} upgrades, {len(seen)} requests, 0 failed, slowest plain one {slow[-1]:.0f} ms"

    def kills(self):
        """Cases 2 and 3, at a random moment within the handover."""
        outcomes = {}
        for i in range(self.options.kills):
            victim = ("new", "old")[i % 2]
            load = self.load(f"kill{i}", 0.5)
            time.sleep(0.7)
            old = self.gateway.pid()
            self.gateway.begin_upgrade()
            wait_until(lambda old=old: children(old), 10, "no new process was started")
            new = children(old)[0]
            if i % 4 < 2:  # at any moment from its first on
                time.sleep(self.rng.random() ** 2 * 0.25)
            else:  # the ledger is the new one's, and it may not serve yet
                wait_until(lambda new=new: self.gateway.pid() == new, 10, "the new process did not take the ledger")
            os.kill(new if victim == "new" else old, signal.SIGKILL)
            outcome = self.after_kill(victim, old, new)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            time.sleep(0.3)
            self.disturbed += load.stop()
        return outcomes

    def after_kill(self, victim, old, new):
        served = self.gateway.status().startswith("ok")
        if victim == "old":
            # Before it was asked for, the new one starts as after a crash; either way it serves.
            wait_until(lambda: alive(new) and self.gateway.pid() == new, 10, "the new process did not go on")
            self.wait_serving()
            return "old killed, new went on"
        wait_until(lambda: not alive(new), 10, "the killed process is still there")
        if not served:
            wait_until(lambda: self.gateway.status() != "", 10, "the old process said nothing")
            served = self.gateway.status().startswith("ok")
        if not served:
            check(self.gateway.status().startswith("failed "), self.gateway.status())
            check(alive(old) and self.gateway.pid() == old, "the old process did not go on")
            self.wait_serving()
            return "new killed, old went on"
        wait_until(lambda: not alive(old), 10, "the old process did not end after the new one")
        self.gateway.start()
        return "new killed after it had taken over, started again"

    def wait_serving(self):
        def serves():
            try:
                self.gateway_metrics()
                return True
            except OSError:
                return False
        wait_until(serves, 10, "nobody serves")

    def gateway_metrics(self):
        import urllib.request
        with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway.ports['admin']}/healthz", timeout=2) as response:
            return response.read()

    def run(self):
        began = time.monotonic()
        self.gateway.start()
        self.olds = []
        print(self.upgrades(), flush=True)
        self.quiet()
        print(self.kills(), flush=True)
        last = self.gateway.pid()
        self.gateway.end()
        wait_until(lambda: not alive(last), 40, "SIGTERM did not end the last process")
        self.limits["seconds"] = time.monotonic() - began
        self.limits["bursts"] = self.options.kills  # a crash forgets what was used of a rate limit; an upgrade does not
        self.verify()

    def verify(self):
        self.gateway.command("ledger", "verify", "--dir", self.gateway.ledger)
        self.provider.stdin.close()
        self.provider.wait(timeout=30)
        ledger = judge.Ledger(lambda: self.gateway.command("ledger", "export", "--dir", self.gateway.ledger).splitlines())
        for seen in self.disturbed:  # who was cut by a kill is not at fault
            seen["fault"] = seen["fault"] or "kill"
        facts = judge.judge(self.clients + self.disturbed, judge.lines(self.directory / "upstream.jsonl"), ledger.records, self.limits)
        print(facts, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrades", type=int, default=3)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--rate", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(f"seed {options.seed}", flush=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ganglion-upgrade-"))
    test = Test(options, directory)
    try:
        test.run()
    except judge.Broken as error:
        print(f"FAILED: {error}; journals in {directory}", file=sys.stderr)
        sys.exit(1)
    finally:
        for process in Gateway.started:
            if process.poll() is None:
                process.kill()
        for pid in children(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except OSError:
                pass
    soak.shutil.rmtree(directory)


if __name__ == "__main__":
    main()
