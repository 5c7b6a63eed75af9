#!/usr/bin/env python3
"""What the tiers hold: fast requests' p99 with and without a flood of regular ones, through the real binary.

Two capacities that are short: calls in flight in front of a provider (the mock, 50 ms an answer, 32 at once), and the
local engine's batch (the demo model). Idle and flood in turns (A B A B); a turn's figure is its p99, what is reported is
the median over the turns. Fast requests are open loop: latency counts from when a request was due. The flood is closed
loop from more connections than fit, so it waits at the gateway and costs little CPU.

  bench/tiers.py [--build build/release] [--turns 5] [--seconds 8] [--out bench/results]
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

from compare import ROOT, Mock, free_port, wait_port

CONFIG = """
server: {{listen: "127.0.0.1:{port}", workers: 1}}
admin: {{listen: "127.0.0.1:{admin}"}}
{backend}
admission: {{max_in_flight: {in_flight}}}
tiers: {{fast: {{reserved_share: 20%}}, regular: {{max_wait: 2s}}, max_queue: 200}}
gateways: [{{name: default, cache: {{ttl: 0s}}}}]
ledger: {{directory: "{directory}/ledger"}}
log: {{level: warn, access_log: false}}
"""


class Scene:
    def __init__(self, name, backend, in_flight, fast, flood):
        self.name, self.backend, self.in_flight, self.fast, self.flood = name, backend, in_flight, fast, flood


SCENES = [
    Scene("a provider that takes 32 calls at once, 50 ms each",
          'providers: [{{name: up, base_url: "http://127.0.0.1:{mock}/v1", models: [gpt-4o-mini]}}]', 32,
          ["--rate", "60", "--connections", "64"], ["--connections", "150"]),
    Scene("the local engine, demo model, answers of 32 tokens",
          'local: [{{name: gpt-4o-mini, path: "{root}/models/demo-chat", max_batch: 16}}]', 256,
          ["--rate", "8", "--connections", "32", "--max-tokens", "32", "--body-bytes", "200"],
          ["--connections", "40", "--max-tokens", "64", "--body-bytes", "400"]),
]


class Gateway:
    def __init__(self, build, scene, mock, directory):
        self.port, self.admin = free_port(), free_port()
        backend = scene.backend.format(mock=mock, root=ROOT)
        path = pathlib.Path(directory) / "tiers.yaml"
        path.write_text(CONFIG.format(port=self.port, admin=self.admin, backend=backend, in_flight=scene.in_flight,
                                      directory=directory))
        self.process = subprocess.Popen([build / "ganglion", "serve", path], stdout=subprocess.DEVNULL)
        wait_port(self.port, self.process, 60)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def load(build, port, seconds, arguments, tier):
    return subprocess.Popen([build / "ganglion", "bench", "load", "--json", "--port", str(port), "--seconds", str(seconds), "--unique",
                             "--header", f"x-neuron-tier: {tier}", *arguments], stdout=subprocess.PIPE, text=True)


def outcome(process):
    return json.loads(process.communicate()[0])


def measure(build, scene, turns, seconds, mock):
    rows = {"idle": [], "flood": []}
    regular = []
    with tempfile.TemporaryDirectory() as directory:
        gateway = Gateway(build, scene, mock, directory)
        try:
            outcome(load(build, gateway.port, 2, scene.fast, "fast"))  # connections, pages, the measured latency
            for _ in range(turns):
                rows["idle"].append(outcome(load(build, gateway.port, seconds, scene.fast, "fast")))
                flood = load(build, gateway.port, seconds + 2, scene.flood, "regular")
                time.sleep(1)
                rows["flood"].append(outcome(load(build, gateway.port, seconds, scene.fast, "fast")))
                regular.append(outcome(flood))
        finally:
            gateway.stop()
    return rows, regular


def middle(results, quantile):
    values = [r["latency_us"][quantile] / 1e3 for r in results]
    return statistics.median(values), min(values), max(values)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results")
    options = parser.parse_args()
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    mock = Mock(options.build, "--delay-ms", "50")
    lines = ["# Tiers under a flood", "",
             f"{datetime.date.today()}, commit {commit.stdout.strip()}, {os.cpu_count()} cores ({platform.machine()}), load "
             f"average {os.getloadavg()[0]:.1f} at the start; `bench/tiers.py --turns {options.turns} --seconds "
             f"{options.seconds:g}`.",
             "Medians over the turns, range in brackets. Load generator, mock and gateway share the machine.", "",
             "| capacity | fast, idle: p50 | p99 | fast, flood: p50 | p99 | p99 ratio | goal | fast errors | regular "
             "answered a second | regular shed |", "|---|---|---|---|---|---|---|---|---|---|"]
    try:
        for scene in SCENES:
            rows, regular = measure(options.build, scene, options.turns, options.seconds, mock.port)
            show = lambda m: f"{m[0]:.1f} [{m[1]:.1f}-{m[2]:.1f}] ms"
            ratio = middle(rows["flood"], "p99")[0] / middle(rows["idle"], "p99")[0]
            lines.append(
                f"| {scene.name} | {show(middle(rows['idle'], 'p50'))} | {show(middle(rows['idle'], 'p99'))} | "
                f"{show(middle(rows['flood'], 'p50'))} | {show(middle(rows['flood'], 'p99'))} | **{ratio:.2f}** | 1.5 | "
                f"{sum(r['errors'] for r in rows['idle'] + rows['flood'])} | "
                f"{statistics.median(r['per_second'] for r in regular):.0f} | {sum(r['errors'] for r in regular)} |")
            print(lines[-1], flush=True)
    finally:
        mock.stop()
    (options.out / "tiers.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
