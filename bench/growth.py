#!/usr/bin/env python3
"""All rows of the gateway's figures and how they grow; writes growth.json, growth.md and growth.svg into bench/results/.

Rows: CPU per request and peak requests per second of nginx, haproxy, Portkey and ganglion (features on) at 1 and 2 workers,
bodies of 0.2 to 100 KiB, plain and streamed, in turns. Growth: ganglion's CPU per request by connections, keys, models and
configuration, and a look-up in the memory cache by entries. Memory: per idle connection and per live stream.

  bench/growth.py [--build build/release] [--seconds 1] [--turns 1] [--only rows,growth,memory] [--tiny] [--out bench/results]

On a quiet machine, 10 to 12 minutes. --tiny takes a minute and shows only that all of it runs."""

import argparse
import contextlib
import datetime
import hashlib
import json
import math
import os
import pathlib
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import compare

BODIES = [200, 1024, 10 * 1024, 100 * 1024]
PORTKEY = ("--header", "x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{port}/v1")


class Sizes:
    def __init__(self, tiny):
        self.bodies = BODIES[:1] + BODIES[-1:] if tiny else BODIES
        self.connections = [1, 100] if tiny else [1, 10, 100, 1_000, 9_900]
        self.keys = [1, 100] if tiny else [1, 100, 1_000, 10_000, 40_000]  # a configuration has at most 4 MiB
        self.key_table = 1_000 if tiny else 1_000_000
        self.models = [1, 100] if tiny else [1, 100, 1_000, 10_000]
        self.policies = [1, 100] if tiny else [1, 100, 1_000, 10_000]
        self.entries = 1_000 if tiny else 10_000_000
        self.idle = 200 if tiny else 9_900
        self.streams = 50 if tiny else 2_000


def say(text):
    print(text, flush=True)


@contextlib.contextmanager
def running(proxy):
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def measure(options, proxy, *arguments, connections=32):
    """CPU us a request and requests a second, after a short warm-up."""
    compare.load(options.build, proxy.port, "--seconds", options.seconds / 3, "--connections", connections, *arguments)
    before = compare.cpu_seconds(proxy.process.pid)
    result = compare.load(options.build, proxy.port, "--seconds", options.seconds, "--connections", connections, *arguments)
    used = compare.cpu_seconds(proxy.process.pid) - before
    return {"cpu_us": used / result["answered"] * 1e6, "per_second": result["per_second"], "errors": result["errors"],
            "p50_us": result["latency_us"]["p50"], "p99_us": result["latency_us"]["p99"]}


def rows(options, sizes, directory, mock):
    kinds = [compare.Nginx, compare.Haproxy, compare.Ganglion] + ([compare.Portkey] if compare.PORTKEY.is_dir() else [])
    out = []
    streaming = compare.Mock(options.build, "--deltas", "16", "--gap-ms", "0")
    for workers in (1, 2):
        for kind in kinds:
            kind.workers = workers
        for body in sizes.bodies:
            for stream in (False, True):
                row = {"workers": workers, "body_bytes": body, "stream": stream, "proxies": {}}
                for turn in range(options.turns):
                    for kind in kinds:
                        if kind is compare.Portkey and (workers != 1 or turn > 0 or stream):
                            continue  # one process whatever is asked for; under Node 20 it answers streams with 500
                        upstream = streaming.port if stream else mock.port
                        arguments = ["--body-bytes", body] + (["--stream"] if stream else [])
                        if kind is compare.Portkey:
                            arguments += [PORTKEY[0], PORTKEY[1].format(port=upstream)]
                        with running(kind(directory, upstream)) as proxy:
                            row["proxies"].setdefault(kind.name, []).append(measure(options, proxy, *arguments))
                row["proxies"] = {name: median_of(turns) for name, turns in row["proxies"].items()}
                out.append(row)
                say(f"{workers} workers, {body} B, {'streamed' if stream else 'plain'}: " +
                    ", ".join(f"{name} {f['cpu_us']:.1f} us" for name, f in row["proxies"].items()))
    for kind in kinds:
        kind.workers = 1
    streaming.stop()
    return out


def median_of(turns):
    return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}


def crowd(port, count):
    """Connections that say nothing."""
    sockets = []
    for _ in range(count):
        sockets.append(socket.create_connection(("127.0.0.1", port), timeout=20))
    return sockets


def variant(directory, name, edit):
    text = edit((compare.ROOT / "bench/config/bar.yaml").read_text(encoding="utf-8"))
    path = pathlib.Path(directory) / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def with_keys(count):
    def edit(text):
        others = "".join(f"  - {{id: k{i}, hash: {hashlib.sha256(str(i).encode()).hexdigest()}}}\n" for i in range(count - 1))
        return text.replace("\ntenants:\n", f"\n{others}\ntenants:\n", 1) if count > 1 else text
    return edit


def with_models(count):
    names = ", ".join(["gpt-4o-mini", *(f"model-{i}" for i in range(count - 1))])
    return lambda text: text.replace("models: [gpt-4o-mini]\n    max_connections", f"models: [{names}]\n    max_connections", 1)


def with_policies(count):
    def edit(text):
        gateways = "".join(f"  - {{name: g{i}, cache: {{ttl: {i + 1}s}}}}\n" for i in range(count - 1))
        tenants = "".join(f"  - {{name: t{i}, limits: {{requests: {i + 1}/s}}}}\n" for i in range(count - 1))
        text = text.replace("\ncache:\n", f"\n{gateways}\ncache:\n", 1)
        return text.replace("\ngateways:\n", f"\n{tenants}\ngateways:\n", 1)
    return edit


def configured(options, directory, mock, name, edit):
    class Variant(compare.Ganglion):
        config = variant(directory, name, edit)
    proxy = Variant(directory, mock.port)
    with patient(), running(proxy):
        rss = compare.rss_mb(proxy.process.pid)
        return {**measure(options, proxy), "start_ms": proxy.start_ms, "rss_mb": rss,
                "config_bytes": Variant.config.stat().st_size}


@contextlib.contextmanager
def patient():
    """A configuration of a hundred megabytes takes its time to read."""
    wait = compare.wait_port
    compare.wait_port = lambda port, process, seconds=240: wait(port, process, seconds)
    try:
        yield
    finally:
        compare.wait_port = wait


def growth(options, sizes, directory, mock):
    out = {"connections": [], "keys": [], "models": [], "policies": [], "entries": []}
    for count in sizes.connections:
        with running(compare.Ganglion(directory, mock.port)) as proxy:
            sockets = crowd(proxy.port, count - 1)
            try:
                out["connections"].append({"n": count, **measure(options, proxy)})
            finally:
                for each in sockets:
                    each.close()
        say(f"beside {count} connections: {out['connections'][-1]['cpu_us']:.1f} us")
    for what, counts, edit in (("keys", sizes.keys, with_keys), ("models", sizes.models, with_models),
                               ("policies", sizes.policies, with_policies)):
        for count in counts:
            try:
                out[what].append({"n": count, **configured(options, directory, mock, f"{what}{count}", edit(count))})
            except RuntimeError as error:
                say(f"{count} {what}: {error}")
                out[what].append({"n": count, "error": str(error)})
                continue
            last = out[what][-1]
            say(f"{count} {what}: {last['cpu_us']:.1f} us, start {last['start_ms']:.0f} ms, {last['rss_mb']:.0f} MB")
    tool = options.build / "cache/bench_cache_growth"
    if tool.exists():
        done = subprocess.run([tool, str(sizes.entries)], capture_output=True, text=True, check=True, timeout=300)
        out["entries"] = [{"n": line["entries"], **line} for line in map(json.loads, done.stdout.splitlines())]
        say(f"{out['entries'][-1]['n']} cache entries: a hit takes {out['entries'][-1]['hit_ns']:.0f} ns")
    tool = options.build / "gateway/bench_key_growth"
    if tool.exists():
        done = subprocess.run([tool, str(sizes.key_table)], capture_output=True, text=True, check=True, timeout=300)
        out["key table"] = [{"n": line["keys"], **line} for line in map(json.loads, done.stdout.splitlines())]
        say(f"{out['key table'][-1]['n']} keys: finding one takes {out['key table'][-1]['identify_ns']:.0f} ns")
    return out


def memory(options, sizes, directory, mock):
    out = {}
    with running(compare.Ganglion(directory, mock.port)) as proxy:
        compare.load(options.build, proxy.port, "--seconds", 0.5, "--connections", 32)
        before = compare.rss_mb(proxy.process.pid)
        sockets = crowd(proxy.port, sizes.idle)
        time.sleep(0.5)
        out["idle_connection_kb"] = (compare.rss_mb(proxy.process.pid) - before) * 1024 / sizes.idle
        for each in sockets:
            each.close()
    paced = compare.Mock(options.build, "--deltas", "200", "--gap-ms", "50")
    with running(compare.Ganglion(directory, paced.port)) as proxy:
        compare.load(options.build, proxy.port, "--stream", "--count", 4, "--connections", 4, "--seconds", 15)
        before = compare.rss_mb(proxy.process.pid)
        # The upstream's connections are the streams' own and count: max_connections of the config is 1,024.
        streams = min(sizes.streams, 1_000)
        load = threading.Thread(target=lambda: compare.load(options.build, proxy.port, "--stream", "--connections", streams, "--seconds", 8))
        load.start()
        time.sleep(5)
        out["live_stream_kb"] = (compare.rss_mb(proxy.process.pid) - before) * 1024 / streams
        load.join()
    paced.stop()
    say(f"an idle connection takes {out['idle_connection_kb']:.1f} KB, a live stream with its upstream connection {out['live_stream_kb']:.1f} KB")
    return out


def plot(figures):
    """CPU of a request, and of a look-up in a table, in microseconds over the count."""
    lines = {"connections": ("#1f77b4", "cpu_us", 1), "keys": ("#d62728", "cpu_us", 1), "models": ("#2ca02c", "cpu_us", 1),
             "policies": ("#9467bd", "cpu_us", 1), "entries": ("#ff7f0e", "hit_ns", 1e-3), "key table": ("#8c564b", "identify_ns", 1e-3)}
    width, height, left, bottom = 720, 320, 60, 40
    series = []
    for name, (colour, field, scale) in lines.items():
        points = [(math.log10(p["n"]), p[field] * scale) for p in figures.get(name, []) if p.get(field)]
        if points:
            series.append((name, colour, points))
    most = max(1, *(x for _, _, points in series for x, _ in points))
    top = max(1, *(y for _, _, points in series for _, y in points)) * 1.1

    def place(x, y):
        return left + x / most * (width - left - 140), height - bottom - y / top * (height - 2 * bottom)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="20">CPU microseconds of a request (entries, key table: of one look-up) by the number of each</text>']
    for power in range(int(most) + 1):
        x, y = place(power, 0)
        out.append(f'<text x="{x:.0f}" y="{y + 18:.0f}" text-anchor="middle">10^{power}</text>')
    for level in range(5):
        x, y = place(0, top * level / 4)
        end, _ = place(most, 0)
        out.append(f'<line x1="{x:.0f}" x2="{end:.0f}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>'
                   f'<text x="{x - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{top * level / 4:.0f}</text>')
    for index, (name, colour, points) in enumerate(series):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in points))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{width - 130}" y="{60 + 18 * index}" fill="{colour}">{name}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def markdown(facts, found):
    lines = ["# Gateway: all rows, and growth", "",
             f"{facts['date']}, commit {facts['commit']}, {facts['machine']}, Linux {facts['kernel']}; `{facts['command']}`.",
             "Load, upstream and proxy share the machine: ratios count. CPU is user and system time of the proxy's processes over",
             "the requests it answered, 32 connections. nginx, haproxy and Portkey forward only; ganglion has all features on.", ""]
    if "rows" in found:
        names = list(found["rows"][0]["proxies"])
        lines += ["| workers | body | | " + " | ".join(f"{n}: us, r/s" for n in names) + " | ganglion / nginx |", "|---|---|---|" + "---|" * (len(names) + 1)]
        for row in found["rows"]:
            p = row["proxies"]
            cells = [f"{p[n]['cpu_us']:.1f}, {p[n]['per_second']:,.0f}" + (f" ({p[n]['errors']:.0f} errors)" if p[n]["errors"] else "") if n in p else "" for n in names]
            ratio = p[compare.Ganglion.name]["cpu_us"] / p["nginx"]["cpu_us"]
            lines.append(f"| {row['workers']} | {row['body_bytes'] / 1024:.1f} KiB | {'streamed' if row['stream'] else 'plain'} | " +
                         " | ".join(cells) + f" | {ratio:.2f}x |")
        lines.append("")
    if "growth" in found:
        lines += ["![growth](growth.svg)", "", "| what | count | CPU us a request | p50 us | start ms | RSS MB |", "|---|---|---|---|---|---|"]
        for what, points in found["growth"].items():
            for p in points:
                if what == "entries":
                    lines.append(f"| cache entries: a look-up | {p['n']:,} | hit {p['hit_ns'] / 1e3:.2f}, miss {p['miss_ns'] / 1e3:.2f} | | | |")
                elif what == "key table":
                    lines.append(f"| finding a key, hashing included | {p['n']:,} | {p['identify_ns'] / 1e3:.2f} | | {p['build_ms']:.0f} | |")
                elif "error" in p:
                    lines.append(f"| {what} | {p['n']:,} | {p['error']} | | | |")
                else:
                    start = f"{p['start_ms']:.0f}" if "start_ms" in p else ""
                    rss = f"{p['rss_mb']:.0f}" if "rss_mb" in p else ""
                    lines.append(f"| {what} | {p['n']:,} | {p['cpu_us']:.1f} | {p['p50_us']:.0f} | {start} | {rss} |")
        lines += ["", "Connections: so many are open and idle while 32 others ask. Keys, models and policies (a gateway's policy and a tenant",
                  "with limits each): so many are configured, one is used; a configuration file has at most 4 MiB. Finding a key: the table",
                  "of keys alone, which any source may fill, all of them asked for in random order. Entries: the memory cache alone, the same.", ""]
    if "memory" in found:
        lines.append(f"An idle connection takes {found['memory']['idle_connection_kb']:.1f} KB of resident memory, a live stream "
                     f"{found['memory']['live_stream_kb']:.1f} KB, its connection to the provider included.")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=compare.ROOT / "build/release")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--only", default="rows,growth,memory")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=compare.ROOT / "bench/results")
    options = parser.parse_args()
    options.build = options.build.resolve()
    if options.tiny:
        options.seconds, options.turns = 0.2, 1
    compare.Ganglion.build = options.build
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sizes = Sizes(options.tiny)
    found = {}
    with tempfile.TemporaryDirectory(prefix="ganglion-growth-", dir=os.environ.get("GANGLION_BENCH_DIR")) as directory:
        mock = compare.Mock(options.build)
        try:
            for name, run in (("rows", rows), ("growth", growth), ("memory", memory)):
                if name in options.only.split(","):
                    found[name] = run(options, sizes, directory, mock)
        finally:
            mock.stop()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="ascii") if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=compare.ROOT, capture_output=True, text=True, check=False).stdout.strip()
    facts = {"date": datetime.date.today().isoformat(), "commit": commit, "machine": f"{os.cpu_count()} cores, {cpu}",
             "kernel": platform.release(), "command": " ".join(["bench/growth.py", *sys.argv[1:]])}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "growth.json").write_text(json.dumps({**facts, **found}, indent=1) + "\n", encoding="utf-8")
    (options.out / "growth.md").write_text(markdown(facts, found), encoding="utf-8")
    if "growth" in found:
        (options.out / "growth.svg").write_text(plot(found["growth"]), encoding="utf-8")


if __name__ == "__main__":
    main()
