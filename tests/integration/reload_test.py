#!/usr/bin/env python3
"""Reloads of the configuration under load: keys, limits, budgets, weights and routes change, some files are invalid.

  reload_test.py [--reloads 40] [--rate 60] [--seed N]

No request fails that should pass, a revoked key is refused within a second, a refused file changes nothing and is counted, old
configurations are let go of (resident memory and descriptors stay), and streams that run over many reloads end as they should. At
the end SIGTERM: streams that fit the drain's window end normally, longer ones get an error event, and all are billed.

Before that, without load: keys marked *restart* keep the value of the start until a restart, whatever a file says meanwhile."""

import argparse
import json
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "soak"), str(HERE.parent / "faults")]
import judge  # noqa: E402
import lab  # noqa: E402
import soak  # noqa: E402
from gateway_process import Gateway, check  # noqa: E402

MIB = 1024 * 1024


class Test:
    def __init__(self, options, directory):
        self.options, self.directory, self.version = options, directory, 0
        self.upstream = lab.Upstream()
        self.provider = soak.script("upstream.py", directory / "upstream.jsonl")
        self.port = int(self.provider.stdout.readline().split()[1])
        self.limits = {"budget": 10_000_000, "budget_s": 60, "rate": 1000, "burst": 1000, "bursts": 0, "seconds": 600}
        self.gateway = Gateway(self.text(), directory=directory)
        self.head = self.gateway.file.read_text(encoding="utf-8").split("providers:")[0]

    def text(self, revoked=False):
        """Of a version. The second provider is there in odd ones only; so is a route to it."""
        text = soak.yaml(self.port, None, self.options.rate, self.limits, self.version)
        other = f'  - {{name: other, base_url: "http://127.0.0.1:{self.upstream.port}/v1", models: [long{", odd" if self.version % 2 else ""}]}}\n'
        text = text.replace("gateways:\n", other + "gateways:\n", 1)
        text = text.replace("keys:\n", f"keys:\n  - {{id: door, secret: sk-door{', revoked: true' if revoked else ''}}}\n", 1)
        return text.replace("shutdown: {drain: 20s}", "shutdown: {drain: 6s}")

    def write(self, text):
        fresh = self.directory / "fresh.yaml"
        fresh.write_text(self.head + text, encoding="utf-8")
        fresh.rename(self.gateway.file)
        self.gateway.process.send_signal(signal.SIGHUP)

    def applied(self):
        return self.gateway.metric("ganglion_config_reloads_total", result="ok") or 0

    def reload(self, revoked=False):
        self.version += 1
        before = self.applied()
        self.write(self.text(revoked))
        lab.wait_until(lambda: self.applied() > before, f"version {self.version} was not applied")

    def refuse(self):
        before = self.gateway.metric("ganglion_config_reloads_total", result="failed") or 0
        self.write("keys: [no configuration\n")
        lab.wait_until(lambda: (self.gateway.metric("ganglion_config_reloads_total", result="failed") or 0) > before,
                       "an invalid file was not refused")

    def memory(self):
        pid = self.gateway.process.pid
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * 4096, soak.descriptors(self.gateway)

    def doors(self):
        """A key that is revoked, and one that is there again."""
        proxy = self.gateway.ports["proxy"]
        check(lab.ask(proxy, {"nonce": "d"}, model="long", key="sk-door").status == 200, "the key is refused before it was revoked")
        began = time.monotonic()
        self.reload(revoked=True)
        while lab.ask(proxy, {"nonce": "d"}, model="long", key="sk-door").status != 401:
            check(time.monotonic() - began < 30, "a revoked key is accepted 30 s later")
        took = time.monotonic() - began
        self.reload()
        lab.wait_until(lambda: lab.ask(proxy, {"nonce": "d"}, model="long", key="sk-door").status == 200, "the key is not accepted again")
        return took

    def routes(self):
        """A model that exists in odd versions only."""
        for _ in range(4):
            self.reload()
            wanted = 200 if self.version % 2 else 404
            lab.wait_until(lambda wanted=wanted: lab.ask(self.gateway.ports["proxy"], {"nonce": "o"}, model="odd", key="sk-door").status == wanted,
                           f"version {self.version}: the route is not as configured")

    def run(self):
        self.gateway.start()
        load = soak.clients("--port", self.gateway.ports["proxy"], "--rate", self.options.rate, "--seed", self.options.seed,
                            "--faults", 0, "--long", 0.2, "--journal", self.directory / "clients.jsonl")
        streams = []
        proxy = self.gateway.ports["proxy"]

        def stream():
            streams.append(lab.ask(proxy, {"nonce": f"s{len(streams)}", "deltas": 60, "gap_ms": 100}, stream=True, model="long", key="sk-door"))

        threads = [threading.Thread(target=stream) for _ in range(20)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        for _ in range(10):  # caches of the configuration are warm
            self.reload()
        before = self.memory()
        for i in range(self.options.reloads):
            self.refuse() if i % 5 == 4 else self.reload()
        after = self.memory()
        took = self.doors()
        self.routes()
        load.send_signal(signal.SIGTERM)
        check(load.wait(timeout=120) == 0, "the clients failed")
        for thread in threads:
            thread.join()
        check(all(s.whole for s in streams), f"{sum(not s.whole for s in streams)} of {len(streams)} streams were cut by reloads")
        seen = judge.clients_of(self.directory / "clients.jsonl")
        failed = [s for s in seen if not s.whole]
        check(not failed, f"{len(failed)} of {len(seen)} requests failed: {failed[:2]}")
        check(after[0] - before[0] <= 8 * MIB, f"{(after[0] - before[0]) / MIB:.1f} MiB more after {self.options.reloads} reloads")
        check(after[1] - before[1] <= 25, f"{before[1]} descriptors before, {after[1]} after")  # the load's own come and go
        print(f"{self.version} reloads, {len(seen)} requests and {len(streams)} streams, 0 failed; resident {before[0] / MIB:.1f} to {after[0] / MIB:.1f} MiB; "
              f"a revoked key refused after {took * 1e3:.0f} ms", flush=True)
        self.drain()

    def drain(self):
        """SIGTERM while streams run: of 1.5 s and of a minute, with a window of 6 s."""
        proxy, seen = self.gateway.ports["proxy"], []
        names = {f"{kind}{i}" for kind in ("short", "endless") for i in range(8)}

        def stream(name, deltas):
            answer = lab.ask(proxy, {"nonce": name, "deltas": deltas, "gap_ms": 100}, stream=True, model="long", key="sk-door")
            seen.append((name, answer))

        threads = [threading.Thread(target=stream, args=(f"{kind}{i}", deltas)) for kind, deltas in (("short", 15), ("endless", 600)) for i in range(8)]
        for thread in threads:
            thread.start()
        lab.wait_until(lambda: len([a for a in self.upstream.attempts if a.tokens > 0 and a.plan["nonce"] in names]) == len(threads), "the streams did not begin")
        began = time.monotonic()
        self.gateway.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        check(self.gateway.process.wait(timeout=90) == 0, "the drain ended with an error")
        took = time.monotonic() - began
        check(took < 30, f"the drain took {took:.1f} s")
        self.gateway.command("ledger", "verify", "--dir", self.gateway.ledger)
        records = {r["id"]: r for r in self.gateway.records()}
        for name, answer in seen:
            record = records[answer.request_id]
            if name.startswith("short"):
                check(answer.whole and record["outcome"] == "completed" and record["output_tokens"] == 15, f"{name}: {record['outcome']}")
            else:
                check(not answer.whole and b'"error"' in answer.body and b"[DONE]" not in answer.body, f"{name} was not told: {answer.body[-200:]}")
                check(record["outcome"] == "cancelled" and answer.events <= record["output_tokens"] and float(record["neurons"]) > 0,
                      f"{name}: {answer.events} events delivered, billed {record['output_tokens']} as {record['outcome']}")
        print(f"SIGTERM: {len(seen)} streams, those within the window whole, the others told and billed; ended after {took:.1f} s", flush=True)


class UntilRestart:
    """Another ledger, other listeners and another local model in the file of a running gateway: none of it is in force yet, nothing
    breaks meanwhile, and the log says so as long as it is so."""

    def __init__(self, directory):
        directory.mkdir()
        self.upstream = lab.Upstream()
        self.gateway = Gateway(self.text("chat"), directory=directory)
        self.head = self.gateway.file.read_text(encoding="utf-8").split("providers:")[0]

    def text(self, local, more=""):
        """`local`: what the model of this process is called."""
        return f"""providers:
{lab.provider(self.upstream)}local:
  - {{name: {local}, path: "{lab.ROOT}/models/demo-chat", threads: 1}}
{lab.NO_CACHE}key_pepper: a-pepper-for-tests-only
keys:
  - {{id: all, secret: sk-all}}
  - {{id: own, secret: sk-own, models: [{local}]}}
pricing:
  models:
    - {{model: m, input_per_1m: 0, output_per_1m: 1000000}}
    - {{model: {local}, input_per_1m: 0, output_per_1m: 2000000}}
limits: {{models: [{{model: {local}, running: 8}}]}}
{more}"""

    def take(self, text, head=None):
        """Reloads, and returns what the log says of it."""
        applied = self.gateway.metric("ganglion_config_reloads_total", result="ok") or 0
        log = self.gateway.directory / "gateway.log"
        offset = log.stat().st_size
        fresh = self.gateway.directory / "fresh.yaml"
        fresh.write_text((head or self.head) + text, encoding="utf-8")
        fresh.rename(self.gateway.file)
        self.gateway.process.send_signal(signal.SIGHUP)
        lab.wait_until(lambda: (self.gateway.metric("ganglion_config_reloads_total", result="ok") or 0) > applied, "the file was not taken")
        return [json.loads(line) for line in log.read_bytes()[offset:].decode().splitlines()]

    @staticmethod
    def waiting(said):
        return sorted(event["key"] for event in said if event["event"] == "config_needs_restart")

    def get(self, listener, path, key="sk-all"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.gateway.ports[listener]}{path}", headers={"authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=lab.LONG_S) as response:
            return json.loads(response.read())

    def status(self, model, key):
        return lab.ask(self.gateway.ports["proxy"], "hello", model=model, key=key, max_tokens=4).status

    def wait_for(self, model, key, status):
        """Workers take a snapshot a moment after the reload is counted."""
        lab.wait_until(lambda: self.status(model, key) == status, f"{model} does not give {key} {status}")

    def run(self):
        self.gateway.start()
        check(self.status("m", "sk-all") == 200, "the provider is not asked")
        self.ledger()
        self.local_model()
        self.gateway.stop()
        billed = [r for r in self.gateway.records() if r["model"] == "chat" and r["outcome"] == "completed"]
        check(billed and all(float(r["neurons"]) == 2 * r["output_tokens"] for r in billed), f"the model's price is lost: {billed[-1:]}")
        self.gateway.file.write_text(self.head + self.text("talk"), encoding="utf-8")
        self.gateway.start()
        check(self.status("talk", "sk-own") == 200, "the new model is not there after the restart")
        check(self.status("chat", "sk-all") == 404, "the old model is there after the restart")
        self.gateway.stop()
        self.upstream.stop()
        print("keys marked restart: kept until the restart", flush=True)

    def ledger(self):
        moved = self.head.replace(str(self.gateway.ledger), str(self.gateway.directory / "elsewhere")).replace("workers: 2", "workers: 3")
        check(moved.count("elsewhere") == 1 and moved.count("workers: 3") == 1, moved)
        changed = ["ledger.directory", "server.workers"]
        for text in (self.text("chat"), self.text("chat", 'budgets: [{name: late, key: all, neurons: "1000", window: day}]\n')):
            said = self.take(text, moved)
            check(self.waiting(said) == changed, f"what waits for a restart is not told: {self.waiting(said)}")
        budgets = {b["budget"]: b for b in self.get("admin", "/admin/budgets")["budgets"]}
        check(float(budgets["late"]["spent"]) == 8, f"the new budget does not know its history: {budgets}")
        shown = self.get("admin", "/admin/config")
        check(shown["ledger"]["directory"] == str(self.gateway.ledger) and shown["server"]["workers"] == 2, f"not what is in force: {shown['ledger']}")
        check(len(shown["budgets"]) == 1, "the budget is not in force")
        check(not (self.gateway.directory / "elsewhere").exists(), "the other ledger was made")
        said = self.take(self.text("chat"))
        check(self.waiting(said) == [], f"a warning although the file is as it runs: {said}")

    def local_model(self):
        check(self.status("chat", "sk-own") == 200, "the local model does not answer")
        said = self.take(self.text("talk"))
        check(self.waiting(said) == ["local"], f"{self.waiting(said)}")
        told = " ".join(event["what"] for event in said if event["event"] == "config_until_restart")
        check("`chat`" in told and "`talk`" in told, f"the log does not say what becomes of the models: {told}")
        for _ in range(8):  # whichever worker is asked, before and after it has the new snapshot
            check(self.status("chat", "sk-own") == 200, "a rename took the local model away")
            check(self.status("chat", "sk-all") == 200, "a rename took the local model away")
        self.wait_for("talk", "sk-all", 404)
        names = [model["id"] for model in self.get("proxy", "/v1/models")["data"]]
        check(sorted(names) == ["chat", "m"], f"listed: {names}")
        check([model["name"] for model in self.get("admin", "/admin/config")["local"]] == ["chat"], "/admin/config shows what is not in force")
        said = self.take(self.text("chat"))
        check(self.waiting(said) == [] and self.status("chat", "sk-own") == 200, f"after the way back: {said}")
        self.take(self.text("talk"))


class Rotation:
    """The access log is moved away; SIGHUP, with or without a good configuration, begins another."""

    def __init__(self, directory):
        directory.mkdir()
        self.upstream, self.log = lab.Upstream(), directory / "access.log"
        self.gateway = Gateway("providers:\n" + lab.provider(self.upstream) + lab.NO_CACHE, directory=directory,
                               log=f'access_log_file: "{self.log}"')

    @staticmethod
    def lines(file):
        return file.read_text(encoding="utf-8").count("\n") if file.exists() else 0

    def ask(self, into, lines):
        check(lab.ask(self.gateway.ports["proxy"], {"nonce": f"r{lines}{into.name}"}).status == 200, "a request failed")
        lab.wait_until(lambda: self.lines(into) == lines, f"{into.name} has {self.lines(into)} lines, not {lines}")

    def run(self):
        self.gateway.start()
        self.ask(self.log, 1)
        for turn, good in enumerate((True, False), start=1):
            moved = self.log.with_suffix(f".{turn}")
            self.log.rename(moved)
            self.ask(moved, 2)  # nothing is lost before the signal
            if not good:
                self.gateway.file.write_text("keys: [no configuration\n", encoding="utf-8")
            self.gateway.process.send_signal(signal.SIGHUP)
            lab.wait_until(self.log.exists, "no new access log was begun")
            self.ask(self.log, 1)
            check(self.lines(moved) == 2, "the old access log was written to")
        self.gateway.stop()
        print("access log: moved away twice, no line lost", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=40)
    parser.add_argument("--rate", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ganglion-reload-") as directory:
        try:
            Rotation(pathlib.Path(directory) / "rotation").run()
            UntilRestart(pathlib.Path(directory) / "until").run()
            Test(options, pathlib.Path(directory)).run()
        except lab.Broken as error:
            print(f"FAILED: {error}", file=sys.stderr)
            sys.exit(1)
        finally:
            for process in Gateway.started:
                if process.poll() is None:
                    process.kill()


if __name__ == "__main__":
    main()
