#!/usr/bin/env python3
"""What sharing limits through Redis costs: the gateway with limits of its own and the same with limits shared, beside
each other against one mock upstream and one redis-server, in turns of a fixed rate. Writes bench/results/redis_limits.md.

    bench/redis_limits.py [--build build/release] [--binary FILE] [--tools DIR] [--rate 500] [--seconds 4] [--turns 5]
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import urllib.request

import compare


def configuration(port, admin, upstream, ledger, redis):
    lines = (compare.ROOT / "bench/config/bar.yaml").read_text()
    for name, value in {"PROXY_PORT": port, "ADMIN_PORT": admin, "UPSTREAM_PORT": upstream}.items():
        lines = lines.replace("${%s}" % name, str(value))
    lines = re.sub(r"\$\{LEDGER_DIR[^}]*\}", str(ledger), lines)
    return lines + (f"\nredis:\n  addresses: [127.0.0.1:{redis}]\n" if redis else "")


class Gateway:
    def __init__(self, binary, directory, upstream, redis):
        self.port, self.admin = compare.free_port(), compare.free_port()
        directory = pathlib.Path(tempfile.mkdtemp(dir=directory))
        file = directory / "c.yaml"
        file.write_text(configuration(self.port, self.admin, upstream, directory / "ledger", redis))
        self.process = subprocess.Popen([binary, "serve", file], stdout=subprocess.DEVNULL,
                                        stderr=open(directory / "stderr", "w"))
        compare.wait_port(self.port, self.process)

    def metric(self, name):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics").read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=compare.ROOT / "build/release")
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--tools", type=pathlib.Path, help="the build whose `ganglion bench` makes the load")
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    binary = options.binary or options.build / "ganglion"
    tools = options.tools or options.build
    redis_port = compare.free_port()
    redis = subprocess.Popen(["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""],
                             stdout=subprocess.DEVNULL)
    compare.wait_port(redis_port, redis)
    mock = compare.Mock(tools)
    rows = {"own limits": [], "shared through Redis": []}
    cpu = {name: [] for name in rows}
    waits = {}
    with tempfile.TemporaryDirectory() as directory:
        gateways = {"own limits": Gateway(binary, directory, mock.port, None),
                    "shared through Redis": Gateway(binary, directory, mock.port, redis_port)}
        for gateway in gateways.values():
            compare.load(tools, gateway.port, "--rate", options.rate, "--seconds", 1)
        for _ in range(options.turns):
            for name, gateway in gateways.items():
                before = compare.cpu_seconds(gateway.process.pid)
                result = compare.load(tools, gateway.port, "--rate", options.rate, "--seconds", options.seconds)
                cpu[name].append((compare.cpu_seconds(gateway.process.pid) - before) * 1e6 / result["answered"])
                rows[name].append(result["latency_us"])
        shared = gateways["shared through Redis"]
        waits = {"waited": shared.metric("ganglion_limiter_wait_seconds_count"),
                 "exchanges": shared.metric("ganglion_limiter_exchanges_total"),
                 "local share": shared.metric("ganglion_limiter_local_share_total"),
                 "admitted": shared.metric("ganglion_limiter_admitted_total")}
        for gateway in gateways.values():
            gateway.stop()
    mock.stop()
    redis.terminate()
    write(options, rows, cpu, waits)


def write(options, rows, cpu, waits):
    quantile = lambda name, q: statistics.median(row[q] for row in rows[name])
    quantiles = [q for q in ("p50", "p90", "p99", "p999") if q in rows["own limits"][0]]
    load = os.getloadavg()[0]
    text = ["# Limits shared through Redis, beside limits of one's own", "",
            f"`bench/redis_limits.py --rate {options.rate} --seconds {options.seconds:g} --turns {options.turns}`; "
            f"open loop, {os.cpu_count()} cores, load average at the end {load:.1f}. Medians over the turns.", "",
            "| | own limits | shared through Redis | added |", "| --- | --- | --- | --- |"]
    for q in quantiles:
        ours, theirs = quantile("own limits", q), quantile("shared through Redis", q)
        text.append(f"| {q}, us | {ours:.0f} | {theirs:.0f} | {theirs - ours:+.0f} |")
    ours, theirs = (statistics.median(cpu[name]) for name in rows)
    text.append(f"| CPU of the gateway per request, us | {ours:.0f} | {theirs:.0f} | {theirs - ours:+.0f} |")
    text += ["", f"Of {waits['admitted']:.0f} requests {waits['waited']:.0f} waited for a lease; {waits['exchanges']:.0f} exchanges "
             f"with Redis; {waits['local share']:.0f} decided by the local share.", ""]
    text += ["Every turn, us (in order):", ""]
    for name in rows:
        text.append(f"- {name}: " + "; ".join(", ".join(f"{q} {row[q]:.0f}" for q in quantiles) for row in rows[name]))
    (compare.ROOT / "bench/results/redis_limits.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
