#!/usr/bin/env python3
"""A soak: the real binary under mixed load with 1 % disturbed requests for a given time, then every journal against every other.

  tests/soak/soak.py [--seconds 30] [--rate auto|N] [--seed N] [--results bench/results/soak.md] [--directory DIRECTORY]
  tests/soak/soak.py --judge DIRECTORY [--results bench/results/soak.md]

Requests are plain, streamed, cached, with Idempotency-Keys, under a budget, under a rate limit. One in a hundred is disturbed: its
client leaves, reads slowly, or its upstream breaks off or refuses. Besides, Redis is killed and started again, and the configuration
is reloaded, valid and not. `--rate auto` measures what this machine can do with these clients and takes half of it.

A directory keeps the journals and, in run.json, what else the judge needs: --judge judges such a run again and writes its results as
the run itself would have, so a judge that failed or was killed costs nothing. It takes about 0.7 GB of memory for a million requests.

Exit code 1 when something does not hold; what is asked for is in judge.py and holds() here."""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "integration"), str(HERE.parent / "hardness")]
import judge  # noqa: E402
import report  # noqa: E402
import slope  # noqa: E402
from gateway_process import Gateway, build_dir, ledger_lines  # noqa: E402
from judge import Broken, must  # noqa: E402

MIB = 1024 * 1024
BUDGET_S = 60
RESTING = ("ganglion_requests_in_flight", "ganglion_tier_in_flight", "ganglion_tier_waiting", "ganglion_ledger_pending_records",
           "ganglion_ledger_open_intents", "ganglion_upstream_waiting", "ganglion_cache_queue_bytes", "ganglion_budget_reserved_ratio",
           'ganglion_connections{listener="proxy"}', 'ganglion_upstream_connections{backend="up",state="active"}')


class Redis:
    def __init__(self, directory):
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self):
        self.process = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                         "--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru", "--dir", str(self.directory)],
                                        stdout=subprocess.DEVNULL)
        Gateway.started.append(self.process)

    def call(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def kill(self):
        self.process.kill()
        self.process.wait()


def script(name, *arguments):
    """Of this folder; it says something once it runs."""
    process = subprocess.Popen([sys.executable, HERE / name, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    Gateway.started.append(process)
    return process


def clients(*arguments):
    process = script("clients.py", *arguments)
    must(process.stdout.readline() == "ready\n", "the clients did not start")
    return process


def yaml(upstream, redis, rate, limits, version):
    """The configuration; versions differ in keys, limits, budgets and log level, not in what the judge measures."""
    more = "".join(f"  - {{id: extra{i}, secret: sk-extra-{version}-{i}, limits: {{requests: {10 + version % 7}/s}}}}\n" for i in range(version % 20))
    return f"""providers:
  - {{name: up, base_url: "http://127.0.0.1:{upstream}/v1", models: [{{name: m, max_output: 64}}], weight: {1 + version % 3}, timeouts: {{pool_idle: 5s}}}}
gateways:
  - {{name: default, cache: {{ttl: 0s}}, limits: {{requests: {100000 + version}/s}}}}
  - {{name: cached, cache: {{ttl: 3s}}}}
key_pepper: a-pepper-for-tests-only
keys:
  - {{id: plain, secret: sk-soak-plain}}
  - {{id: cached, secret: sk-soak-cached, gateway: cached}}
  - {{id: budget, secret: sk-soak-budget}}
  - {{id: limited, secret: sk-soak-limited, limits: {{requests: {{rate: {limits['rate']}/s, burst: {limits['burst']}}}}}}}
{more}budgets:
  - {{name: minute, key: budget, neurons: "{limits['budget']}", window: 1m}}
  - {{name: wide, key: plain, neurons: "{round(rate) * 3600 * 64 + 10_000_000 + version}", window: hour}}
pricing: {{models: [{{model: "*", input_per_1m: "0", output_per_1m: "1000000"}}]}}
{f'redis: {{addresses: ["127.0.0.1:{redis}"]}}' if redis else ""}
budget_sharing: {{gateways: 1}}
cache: {{max_memory: 4MiB}}
shutdown: {{drain: 20s}}
"""


class Run:
    def __init__(self, options, directory):
        self.options, self.directory, self.rng = options, pathlib.Path(directory), random.Random(options.seed)
        self.samples, self.reloads, self.kills, self.version = [], [], [], 0
        self.origin, self.made = "as given", report.origin()
        self.redis = Redis(self.directory)
        self.provider = script("upstream.py", self.directory / "upstream.jsonl")
        self.provider_port = int(self.provider.stdout.readline().split()[1])
        rate = float(options.rate) if options.rate != "auto" else 100.0
        self.set_limits(rate)
        self.gateway = Gateway(yaml(self.provider_port, self.redis.port, rate, self.limits, 0), directory=self.directory,
                               log="access_log: false, level: warn")
        self.preamble = self.gateway.file.read_text(encoding="utf-8").split("providers:")[0]
        self.log_level("info")  # `listening` is told at this level

    def set_limits(self, rate):
        self.rate = rate
        # About two thirds of what is asked for. A short run has to meet the budget's end too.
        self.limits = {"budget": round(rate * 0.09 * 14 * min(BUDGET_S, self.options.seconds) * 0.66) + 200, "budget_s": BUDGET_S, "rate": max(1, round(rate * 0.025)),
                       "burst": max(2, round(rate * 0.05))}

    def log_level(self, level):
        self.preamble = self.preamble.replace("level: warn", f"level: {level}")
        self.configure(self.version)

    def configure(self, version, text=None):
        fresh = self.directory / "ganglion.yaml.new"
        fresh.write_text(self.preamble + (text or yaml(self.provider_port, self.redis.port, self.rate, self.limits, version)), encoding="utf-8")
        fresh.rename(self.gateway.file)

    def save(self, busy=None, descriptors=("?", "?"), metrics=""):
        """What the judge needs besides the journals. What is given is known once the run is over."""
        kept = {name: getattr(self.options, name) for name in ("seconds", "seed", "warm_up", "title", "note")}
        kept |= {name: getattr(self, name) for name in ("rate", "origin", "made", "limits", "samples", "reloads", "kills")}
        with open(self.directory / "run.json", "w", encoding="utf-8") as out:
            json.dump({**kept, "busy": busy, "descriptors": descriptors, "metrics": metrics}, out)

    def clients(self, *arguments, journal):
        return clients("--port", self.gateway.ports["proxy"], "--journal", self.directory / journal, *arguments)

    def maximum(self):
        """Requests a second that come through when 64 callers ask as fast as they can, with this mix and these clients."""
        process = self.clients("--closed", 64, "--seed", self.options.seed + 1, "--faults", 0, "--rate", 1, journal="maximum.jsonl")
        time.sleep(self.options.measure_s)
        process.send_signal(signal.SIGTERM)
        rate = float(process.communicate(timeout=90)[0].split()[1])
        return rate

    def gauges(self):
        """Sums of the families that are zero at rest; a name with labels is that one series."""
        found = dict.fromkeys(RESTING, 0.0)
        for line in self.gateway.metrics().splitlines():
            name, _, value = line.rpartition(" ")
            for gauge in RESTING:
                if name == gauge or ("{" not in gauge and name.split("{")[0] == gauge):
                    found[gauge] += float(value)
        return found

    def sample(self, began):
        pid = self.gateway.process.pid
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.samples.append({"t": round(time.monotonic() - began, 2), "rss": resident, "fds": len(os.listdir(f"/proc/{pid}/fd")),
                             "cpu": {name: cpu_s(p.pid) for name, p in self.processes().items()},
                             "in_flight": self.gauges()["ganglion_requests_in_flight"]})

    def processes(self):
        return {"gateway": self.gateway.process, "clients": self.load, "upstream": self.provider, "redis": self.redis.process}

    def reload(self, began):
        self.version += 1
        self.reloads.append(time.monotonic() - began)
        if self.version % 5 == 4:
            self.configure(self.version, text="keys: [this is no configuration\n")
        else:
            self.configure(self.version)
        self.gateway.process.send_signal(signal.SIGHUP)

    def disturb(self, began, now):
        """Timed faults. Redis is away for 2 s at a time."""
        if now >= self.next_reload:
            self.reload(began)
            self.next_reload = now + self.options.reload_s * self.rng.uniform(0.5, 1.5)
        if self.redis_down and now >= self.redis_down + 2:
            self.redis.start()
            self.redis_down = 0.0
        elif not self.redis_down and now >= self.next_kill:
            self.redis.kill()
            self.kills.append(now - began)
            self.redis_down = now
            self.next_kill = now + self.options.redis_s * self.rng.uniform(0.5, 1.5)

    def drive(self):
        seconds = self.options.seconds
        self.load = self.clients("--rate", self.rate, "--seed", self.options.seed, "--faults", self.options.faults, journal="clients.jsonl")
        began = time.monotonic()
        self.next_reload, self.next_kill, self.redis_down = began + self.options.reload_s, began + self.options.redis_s, 0.0
        next_sample = began
        while time.monotonic() - began < seconds:
            now = time.monotonic()
            self.disturb(began, now)
            if now >= next_sample:
                self.sample(began)
                next_sample += max(1.0, seconds / 720)
            must(self.load.poll() is None, "the clients ended")
            must(self.gateway.process.poll() is None, f"the gateway ended with {self.gateway.process.poll()}")
            time.sleep(max(0.05, min(0.25, next_sample - time.monotonic())))
        self.sample(began)
        if self.redis_down:
            self.redis.start()
        self.load.send_signal(signal.SIGTERM)
        must(self.load.wait(timeout=120) == 0, "the clients failed")
        measured = self.options.measure_s if self.options.rate == "auto" else 0
        self.limits.update(seconds=time.monotonic() - began + measured, bursts=len(self.kills))


def cpu_s(pid):
    try:
        fields = open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0  # just killed
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(gateway):
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


def at_rest(run):
    """What is not at zero, within a minute after the last request."""
    deadline = time.monotonic() + 60
    while busy := {name: value for name, value in run.gauges().items() if value != 0}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return busy


def finish(run, before):
    """Lets everything come to rest and end; leaves what the judge needs in the directory."""
    run.save()
    busy = at_rest(run)
    time.sleep(6)  # pooled connections to the provider lapse after 5 s
    at_last = {"busy": busy, "descriptors": [before, descriptors(run.gateway)], "metrics": run.gateway.metrics()}
    run.gateway.stop()
    run.save(**at_last)
    run.redis.kill()
    run.provider.stdin.close()
    run.provider.wait(timeout=90)


def judged(directory, options):
    """Judges what a run left in its directory, and tells."""
    must((directory / "run.json").exists(), "there is no run.json")
    run = argparse.Namespace(**json.loads((directory / "run.json").read_text(encoding="utf-8")))
    growth = slope.slope(settled(run))
    facts, clients = hold_against(run, directory)
    told = tell(run, facts, clients, growth)
    holds(run, growth)
    if options.results:
        write(run, told, options)


def hold_against(run, directory):
    """Facts of the journals, and the clients' own."""
    ledger_at = directory / "ledger"
    done = subprocess.run([build_dir() / "ganglion", "ledger", "verify", "--dir", ledger_at], capture_output=True, text=True, check=False)
    must(done.returncode == 0, f"ganglion ledger verify: {done.stdout}{done.stderr}")
    earlier = directory / "maximum.jsonl"
    clients = (judge.clients_of(earlier) if earlier.exists() else []) + judge.clients_of(directory / "clients.jsonl")
    upstream = judge.upstream_of(directory / "upstream.jsonl")
    records = judge.Ledger(lambda: ledger_lines(ledger_at)).records
    facts = judge.judge(clients, upstream, records, run.limits)
    facts["lies that the judge noticed"] = judge.proves_itself(clients, upstream, records, run.limits)
    facts["metrics"] = metrics_agree(run.metrics, records) if run.metrics else "not read"
    facts["keys remembered at the end (about 120 bytes each, for 24 h)"] = series(run.metrics, "ganglion_idempotency_keys")
    facts["descriptors at rest, before and after"] = "{}, {}".format(*run.descriptors)
    return facts, clients


def settled(run):
    """(hours, MiB) after the warm-up."""
    return [(s["t"] / 3600, s["rss"] / MIB) for s in run.samples if s["t"] >= run.seconds * run.warm_up]


def holds(run, growth):
    """What the gateway itself must have kept to: rest, descriptors, memory."""
    must(run.metrics, "the run did not come to its end")
    must(not run.busy, f"not at rest a minute after the load: {run.busy}")
    before, after = run.descriptors
    must(abs(after - before) <= 10, f"{before} descriptors at rest before, {after} after")
    rise, error = growth
    if run.seconds >= 1800:
        must(rise <= 1.0, f"resident memory rises by {rise:.2f} +- {error:.2f} MiB an hour")
    else:  # too short for a slope
        grown = settled(run)[-1][1] - settled(run)[0][1]
        must(grown <= 24, f"resident memory grew by {grown:.1f} MiB in {run.seconds} s")


def series(text, name):
    return next((line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(name + " ")), "?")


def metrics_agree(text, records):
    counted = {"neurons": 0.0, "tokens": 0.0}
    for line in text.splitlines():
        for name in counted:
            if line.startswith(f"ganglion_{name}_total{{"):
                counted[name] += float(line.rsplit(" ", 1)[1])
    neurons, tokens = sum(r.neurons for r in records), sum(r.input + r.output for r in records if r.outcome != "cache_hit")
    must(abs(counted["neurons"] - neurons) < 0.5, f"metrics say {counted['neurons']} neurons, the ledger {neurons}")
    must(abs(counted["tokens"] - tokens) < 0.5, f"metrics say {counted['tokens']} tokens, the ledger {tokens}")
    return "neurons and tokens as in the ledger"


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))]


def tell(run, facts, clients, growth):
    first, last = run.samples[0], run.samples[-1]
    used = {name: (last["cpu"][name] - first["cpu"][name]) / last["t"] for name in ("gateway", "clients", "upstream")}
    plain = [c for c in clients if c.kind == "plain" and c.whole and not c.fault]
    tenth = max(c.at for c in plain) / 10
    disturbed = sum(1 for c in clients if c.fault)
    lines = [f"{run.seconds} s at {run.rate:.0f} requests a second ({run.origin}); {disturbed} requests disturbed, {len(run.reloads)} reloads "
             f"(every fifth invalid), Redis killed {len(run.kills)} times, seed {run.seed}",
             *(f"{name}: {value}" for name, value in facts.items()),
             f"resident memory after the first {run.warm_up * 100:.0f} %: {growth[0]:+.2f} +- {growth[1]:.2f} MiB an hour (95 %; least squares through the "
             f"medians of 24 blocks, error widened by their correlation); {statistics.median(s['rss'] for s in run.samples) / MIB:.1f} MiB in the middle",
             "CPU, cores: " + ", ".join(f"{name} {value:.3f}" for name, value in used.items()),
             f"plain requests, p99 of the first and last tenth: {quantile([c.ms for c in plain if c.at < tenth], 0.99):.1f}, "
             f"{quantile([c.ms for c in plain if c.at >= 9 * tenth], 0.99):.1f} ms"]
    for line in lines:
        print(line, flush=True)
    return lines


def write(run, lines, options):
    """The section of the results and the plot beside it."""
    resting = "every gauge at zero after the load: " + ", ".join(name.replace("ganglion_", "") for name in RESTING)
    plot = options.results.with_suffix(".svg")
    report.write(options.results, options.title or run.title or "soak", [*lines, resting, f"[plot]({plot.name}); red lines: Redis killed (memory), reload (descriptors)"],
                 options.note or run.note, run.made)
    panels = [("Resident memory", "MiB", [(s["t"], s["rss"] / MIB) for s in run.samples], run.kills),
              ("Descriptors", "", [(s["t"], s["fds"]) for s in run.samples], run.reloads),
              ("Requests in flight", "", [(s["t"], s["in_flight"]) for s in run.samples], []),
              ("CPU of the gateway", "cores", rates([(s["t"], s["cpu"]["gateway"]) for s in run.samples]), [])]
    plot.write_text(slope.svg(panels, f"ganglion soak, {run.seconds} s at {run.rate:.0f}/s, {run.made[:10]}"), encoding="utf-8")


def rates(points):
    return [(t, (v - before) / max(1e-9, t - since)) for (since, before), (t, v) in zip(points, points[1:])]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", default="auto")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--faults", type=float, default=0.01)
    parser.add_argument("--reload-s", type=float, default=0, help="mean time between reloads; default: a fifteenth of the run, at most 60 s")
    parser.add_argument("--redis-s", type=float, default=0, help="mean time between kills of Redis; default: a fifth of the run, at most 240 s")
    parser.add_argument("--warm-up", type=float, default=0.2, help="part of the run that the memory's slope leaves out")
    parser.add_argument("--measure-s", type=float, default=5, help="how long --rate auto measures")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--title", default="", help="of the section in the results; default: the run's, or soak")
    parser.add_argument("--note", default="")
    parser.add_argument("--directory", type=pathlib.Path, help="a folder to work in and to leave behind")
    parser.add_argument("--judge", type=pathlib.Path, metavar="DIRECTORY", help="only judge a run's folder again")
    options = parser.parse_args()
    options.reload_s = options.reload_s or min(60, options.seconds / 15)
    options.redis_s = options.redis_s or min(240, options.seconds / 5)
    return options


def main():
    options = arguments()
    directory = options.judge or options.directory or pathlib.Path(tempfile.mkdtemp(prefix="ganglion-soak-"))
    try:
        if not options.judge:
            directory.mkdir(exist_ok=True)
            print(f"seed {options.seed}, {directory}", flush=True)
            soak(options, directory)
        judged(directory, options)
    except Broken as error:
        print(f"BROKEN, journals in {directory}: {error}")
        sys.exit(1)
    finally:
        for process in Gateway.started:
            if process.poll() is None:
                process.kill()
                process.wait()
    if not options.judge and not options.directory:
        shutil.rmtree(directory)


def soak(options, directory):
    run = Run(options, directory)
    run.gateway.start()
    run.log_level("warn")
    before = descriptors(run.gateway)
    if options.rate == "auto":
        most = run.maximum()
        run.origin = f"half of the {most:.0f} that this machine did with these clients"
        run.set_limits(most / 2)
    run.configure(0)
    run.gateway.process.send_signal(signal.SIGHUP)
    run.drive()
    finish(run, before)


if __name__ == "__main__":
    main()
