#!/usr/bin/env python3
"""Upgrades of the running binary under load: the listening sockets, the ledger, budgets, limits and keys go over to a new
process while the old one ends its streams.

  upgrade_test.py [--upgrades 3] [--kills 4] [--rate 60] [--seed N] [--redis]

1  an upgrade to a wrong configuration changes nothing; with every other no request is refused, reset or failed, long streams included;
   `ganglion upgrade` says which it was; the old process ends by itself with 0;
   idle connections go over; keyed requests whose bodies come only after the handover run, each once;
2  kill -9 of the new process in the middle: the old one goes on, or, if the new one served already, the next start does;
3  kill -9 of the old process in the middle: the new one goes on;
then the journals of clients, provider and ledger against each other: one record for each request, nothing lost, nothing twice, the
chain whole, each key charged once, the budget and the limit never exceeded. What lay in the disk cache before is found after each
upgrade and each kill, byte for byte.

With --redis there are two gateways on a real redis-server that share the limit, the budget and the keys, and only one of them is
upgraded and killed: nobody at the other one is refused for it, and what they admit, spend and charge together is held to the same
bounds, without a burst more for a kill."""

import argparse
import ctypes
import hashlib
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "soak"), str(HERE.parent / "faults")]
import judge  # noqa: E402
import lab  # noqa: E402
import soak  # noqa: E402
from gateway_process import Gateway, build_dir, check, ledger_lines  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
KEPT = 40  # answers in the disk cache
LONG_S = 60  # for what takes no time, on a machine that may stand still for seconds


class Upgraded(Gateway):
    """A gateway whose process changes. Its later processes are ours too once their parent has ended."""

    def pid(self):
        deadline = time.monotonic() + LONG_S
        while True:  # it is empty for an instant when it changes hands
            text = (self.ledger / "lock").read_text(encoding="ascii")
            if text.endswith("\n"):
                return int(text)
            check(time.monotonic() < deadline, "nobody has the ledger")
            time.sleep(0.001)

    def upgrade(self):
        return subprocess.run([build_dir() / "ganglion", "upgrade", "--dir", self.ledger, "--timeout", "120"], capture_output=True,
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
    """Until its last thread is gone: a killed process whose first thread is a zombie still holds its ledger."""
    threads = pathlib.Path(f"/proc/{pid}/task")
    try:
        return any(stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z" for stat in threads.glob("*/stat"))
    except OSError:  # a thread has gone meanwhile
        return threads.exists()


def children(pid):
    try:
        return [int(each) for each in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def wait_until(what, message):
    deadline = time.monotonic() + LONG_S
    while not what():
        check(time.monotonic() < deadline, f"{message} within {LONG_S} s")
        time.sleep(0.01)


class Load:
    def __init__(self, ports, directory, rate, seed, long, name, *more):
        self.journal = directory / f"{name}.jsonl"
        self.process = soak.clients("--port", *ports, "--rate", rate, "--seed", seed, "--faults", 0, "--long", long,
                                    "--journal", self.journal, *more)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(timeout=90) == 0, "the clients failed")
        return judge.clients_of(self.journal)


class Test:
    def __init__(self, options, directory):
        self.options, self.directory, self.rng = options, directory, random.Random(options.seed)
        self.provider = soak.script("upstream.py", directory / "upstream.jsonl")
        port = int(self.provider.stdout.readline().split()[1])
        self.limits = {"budget": round(options.rate * 0.09 * 14 * 20 * 0.6) + 200, "budget_s": 60, "rate": max(1, round(options.rate * 0.025)),
                       "burst": max(2, round(options.rate * 0.05)), "bursts": 0}
        if options.redis:  # both are reached
            self.limits.update(budget=round(options.rate * 0.25 * 14 * 10), rate=max(1, round(options.rate * 0.1)), burst=max(2, round(options.rate * 0.2)))
        self.redis = soak.Redis(directory) if options.redis else None
        yaml = soak.yaml(port, self.redis and self.redis.port, options.rate, self.limits, 0)
        self.gateway = Upgraded(self.shared(yaml) if self.redis else self.on_disk(yaml), directory=directory)
        self.gateways = [self.gateway]
        if self.redis:  # the one that is left alone
            (directory / "peer").mkdir()
            self.gateways.append(Gateway(self.shared(yaml), directory=directory / "peer"))
        self.clients, self.disturbed, self.kept = [], [], {}

    def on_disk(self, yaml):
        """With a disk cache, and a gateway whose answers stay in it."""
        yaml = yaml.replace("gateways:\n", "gateways:\n  - {name: kept, cache: {ttl: 1h}}\n", 1)
        yaml = yaml.replace("keys:\n", "keys:\n  - {id: kept, secret: sk-kept, gateway: kept}\n", 1)
        return yaml.replace("cache: {max_memory: 4MiB}", f'cache: {{max_memory: 4MiB, disk: {{path: "{self.directory}/cache", timeout: 10s}}}}')

    @staticmethod
    def shared(yaml):
        """Patient enough that a busy machine does not look like a Redis that is ill."""
        return yaml.replace("budget_sharing: {gateways: 1}", "budget_sharing: {gateways: 2}").replace("redis: {", "redis: {command_timeout: 2s, hung_after: 2s, ")

    def load(self, name, long):
        return Load([gateway.ports["proxy"] for gateway in self.gateways], self.directory, self.options.rate, f"{self.rng.randrange(1 << 30)}", long, name,
                    *(["--shared"] if self.redis else []))

    def metric(self, name, **labels):
        return self.gateway.metric(name, **labels)

    def keep(self):
        """Answers into the disk cache."""
        for i in range(KEPT):
            answer = self.ask_kept(i)
            check(answer.whole and answer.headers["cf-aig-cache-status"] == "MISS", f"kept {i}: {answer.status} {answer.error} {answer.headers}")
            self.kept[i] = answer.body
        wait_until(lambda: self.metric("ganglion_cache_disk_entries") == KEPT, "the answers are not on the disk")

    def ask_kept(self, i):
        return lab.ask(self.gateway.ports["proxy"], {"nonce": f"kept{i}", "deltas": 4 + i}, stream=i % 2 == 1, key="sk-kept", timeout=LONG_S)

    def check_kept(self):
        if not self.kept:
            return
        wait_until(lambda: self.metric("ganglion_cache_disk_ready") == 1, "the disk cache was not found again")
        for i, body in self.kept.items():
            answer = self.ask_kept(i)
            check(answer.whole and answer.body == body, f"kept {i} is another answer: {answer.status} {answer.error} {answer.headers}")
            check(answer.headers["cf-aig-cache-status"] == "HIT", f"kept {i} is fetched again")

    def check_limit(self, seen):
        """In no time did both gateways together admit more than docs/limits.md says."""
        if not self.redis:
            return
        admitted = sorted((each.at, each.at + each.ms / 1000) for each in seen if each.kind == "limited" and each.status == 200)
        for first, (began, _) in enumerate(admitted):
            ended = began
            for count, (_, end) in enumerate(admitted[first:], 1):
                ended = max(ended, end)
                most = self.limits["burst"] * 9 / 8 + self.limits["rate"] * (ended - began) + len(self.gateways)
                check(count <= most, f"{count} requests were admitted in {ended - began:.2f} s, at most {most:.0f} may be")

    def check_shared(self):
        """Who shares the limits is counted right, and no key is held by nobody."""
        if not self.redis:
            return
        for gateway in self.gateways:
            wait_until(lambda gateway=gateway: gateway.metric("ganglion_limiter_gateways") == 2, "the gateways are not counted right")
        wait_until(lambda: self.redis.call("ZCARD", "ganglion:gateways") == "2", "a gateway that is gone is counted")
        wait_until(lambda: not self.running_keys(), "keys that no process works on are held")

    def running_keys(self):
        keys = self.redis.call("KEYS", "ganglion:idem:*").split()
        return [key for key in keys if self.redis.call("HGET", key, "s") == "running"]

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
        wait_until(lambda: not alive(before), "the old process did not end")
        check({ask(connection) for connection in idle} == {200}, "after")
        check([connection.sock for connection in idle] == sockets, "a client had to connect again")
        for connection in idle:
            connection.close()

    def keyed(self, key, part):
        """A request with this Idempotency-Key on a connection of its own, `part` of its body sent; and the rest."""
        plan = json.dumps({"nonce": key, "deltas": 8})
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": plan}]}).encode()
        connection = socket.create_connection(("127.0.0.1", self.gateway.ports["proxy"]), timeout=LONG_S)
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer sk-soak-plain\r\n"
                           f"idempotency-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body[:part])
        return key, connection, body[part:]

    def finish(self, request):
        key, connection, rest = request
        connection.sendall(rest)
        seen = lab.Seen("", False)
        lab.read_answer(connection, seen, None, "fin")
        connection.close()
        check(seen.whole, f"{key}: {seen.status} {seen.error} {seen.body[:300]}")
        self.clients.append(judge.Client({
            "kind": "idempotent", "fault": "", "id": seen.headers["x-request-id"], "key": key, "deltas": 8, "status": seen.status, "whole": True,
            "words": seen.body.count(b"word "), "sha": hashlib.sha256(seen.body).hexdigest(), "ms": 0.0, "at": 0.0,
            "port": self.gateway.ports["proxy"], "error": ""}))
        return seen

    def late_keys(self):
        """The old process has their heads and half of their bodies when it gives the ledger away. One key is used at the new one first."""
        late = [self.keyed("late", 40), self.keyed("late-second", 40)]
        old = self.gateway.pid()
        done = self.gateway.upgrade()
        check(done.returncode == 0 and alive(old), f"{done.stderr}; the old process has ended: {not alive(old)}")
        first = self.finish(self.keyed("late-second", 0))
        answers = [self.finish(each) for each in late]
        check(answers[1].body == first.body, "the old process has another answer to a key of the new one")
        check(self.finish(self.keyed("late", 0)).body == answers[0].body, "the new process has another answer to a key of the old one")
        wait_until(lambda: not alive(old), "the old process did not end")

    def upgrades(self):
        """Case 1."""
        load = self.load("smooth", 0.3)
        self.refused()
        for i in range(self.options.upgrades):
            time.sleep(1.0)
            before, version = self.gateway.pid(), self.metric("ganglion_config_version")
            done = self.gateway.upgrade()
            check(done.returncode == 0, f"upgrade {i + 1}: {done.stderr}")
            after = self.gateway.pid()
            check(after != before and str(after) in done.stdout, f"upgrade {i + 1}: {before} is still there: {done.stdout}")
            told = self.metric("ganglion_process_info", pid=after, generation=i + 2), self.metric("ganglion_config_version")
            check(told[0] == 1 and told[1] > version, f"upgrade {i + 1}: the metrics tell {told}, the version was {version}")
            self.olds.append(before)
            self.check_kept()
        time.sleep(1.0)
        seen = load.stop()
        for pid in self.olds[1:]:
            wait_until(lambda pid=pid: not alive(pid), f"the old process {pid} did not end")
        self.olds = self.olds[:1]
        check(self.gateway.process.wait(timeout=LONG_S) == 0, "the first process did not end with 0")
        failed = [s for s in seen if not s.whole and s.status != 429]
        check(not failed, f"{len(failed)} of {len(seen)} requests failed: {failed[:3]}")
        self.clients += seen
        self.check_limit(seen)
        self.check_shared()
        slow = sorted(s.ms for s in seen if s.kind == "plain" and s.whole)
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
            wait_until(lambda old=old: children(old), "no new process was started")
            new = children(old)[0]
            if i % 4 < 2:  # at any moment from its first on
                time.sleep(self.rng.random() ** 2 * 0.25)
            else:  # the ledger is the new one's, and it may not serve yet
                wait_until(lambda new=new: self.gateway.pid() == new, "the new process did not take the ledger")
            os.kill(new if victim == "new" else old, signal.SIGKILL)
            outcome = self.after_kill(victim, old, new)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            self.check_kept()
            time.sleep(0.3)
            seen = load.stop()
            self.check_limit(seen)
            self.check_shared()
            self.disturbed += seen
        return outcomes

    def after_kill(self, victim, old, new):
        served = self.gateway.status().startswith("ok")
        if victim == "old":
            # Before it was asked for, the new one starts as after a crash; either way it serves.
            wait_until(lambda: alive(new) and self.gateway.pid() == new, "the new process did not go on")
            self.wait_serving()
            return "old killed, new went on"
        wait_until(lambda: not alive(new), "the killed process is still there")
        if not served:
            wait_until(lambda: self.gateway.status() != "", "the old process said nothing")
            served = self.gateway.status().startswith("ok")
        if not served:
            check(self.gateway.status().startswith("failed "), self.gateway.status())
            check(alive(old) and self.gateway.pid() == old, "the old process did not go on")
            self.wait_serving()
            return "new killed, old went on"
        wait_until(lambda: not alive(old), "the old process did not end after the new one")
        self.gateway.start()
        return "new killed after it had taken over, started again"

    def wait_serving(self):
        def serves():
            try:
                return self.metric("process_threads") is not None
            except OSError:
                return False
        wait_until(serves, "nobody serves")

    def run(self):
        began = time.monotonic()
        for gateway in self.gateways:
            gateway.start()
        self.olds = []
        self.check_shared()
        if not self.redis:
            self.keep()
        print(self.upgrades(), flush=True)
        self.quiet()
        self.late_keys()
        print(self.kills(), flush=True)
        last = self.gateway.pid()
        self.gateway.end()
        wait_until(lambda: not alive(last), "SIGTERM did not end the last process")
        self.limits["seconds"] = time.monotonic() - began
        # A crash forgets what was used of a rate limit; an upgrade does not, and nor does Redis.
        self.limits["bursts"] = 0 if self.redis else self.options.kills
        for peer in self.gateways[1:]:
            peer.stop()
        self.verify()

    def verify(self):
        self.provider.stdin.close()
        self.provider.wait(timeout=30)
        records = []
        for gateway in self.gateways:
            gateway.command("ledger", "verify", "--dir", gateway.ledger)
            records += judge.Ledger(lambda gateway=gateway: ledger_lines(gateway.ledger)).records
        peers = {gateway.ports["proxy"] for gateway in self.gateways[1:]}
        for seen in self.disturbed:  # who was cut by a kill is not at fault, nor who asks for a key that ran there
            if seen.port not in peers or seen.key:
                seen.fault = seen.fault or "kill"
        facts = judge.judge(self.clients + self.disturbed, judge.upstream_of(self.directory / "upstream.jsonl"), records, self.limits)
        print(facts, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrades", type=int, default=3)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--rate", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--redis", action="store_true")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(f"seed {options.seed}", flush=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ganglion-upgrade-"))
    test = Test(options, directory)
    try:
        test.run()
    except (judge.Broken, lab.Broken) as error:
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
