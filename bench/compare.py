#!/usr/bin/env python3
"""Runs ganglion beside nginx and haproxy (and Portkey, where installed) in one session and writes bench/results/.

One proxy at a time, in turns (A B A B); every figure is a median over the turns with its range, and what counts is the
ratio between proxies of the same session. CPU per request is user+system time of the proxy's processes over the requests
it answered. Everything listens on loopback; every load is bounded in time and count.

  bench/compare.py [--build build/release] [--turns 3] [--seconds 4] [--quick] [--out bench/results]
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_port(port, process, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.002)
    raise RuntimeError(f"nothing listens on {port}")


def family(pid):
    """The process and its children."""
    pids = [pid]
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += family(int(child))
    except FileNotFoundError:
        pass
    return pids


def cpu_seconds(pid):
    total = 0
    for each in family(pid):
        fields = pathlib.Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss_mb(pid):
    total = 0
    for each in family(pid):
        for line in pathlib.Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


class Mock:
    def __init__(self, build, *arguments):
        self.process = subprocess.Popen([build / "ganglion", "bench", "mock", "--stdin", *arguments],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[1])

    def stop(self):
        self.process.kill()
        self.process.wait()


class Proxy:
    """A proxy under test: start() returns once it listens on self.port."""
    name = ""

    def __init__(self, directory, upstream):
        self.directory = pathlib.Path(tempfile.mkdtemp(dir=directory))
        self.upstream = upstream
        self.port = free_port()

    def start(self):
        began = time.monotonic()
        self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=open(self.directory / "stderr", "w"),
                                        env={**os.environ, **self.environment()}, cwd=self.directory)
        wait_port(self.port, self.process)
        self.start_ms = (time.monotonic() - began) * 1e3
        return self

    def environment(self):
        return {}

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Nginx(Proxy):
    name = "nginx"
    cache = False
    workers = 1

    def command(self):
        cache_path = "proxy_cache_path cache keys_zone=c:10m;" if self.cache else ""
        cache_use = ('proxy_cache c; proxy_cache_methods POST; proxy_cache_key "$request_uri|$request_body"; '
                     "proxy_cache_valid 200 10m;") if self.cache else ""
        (self.directory / "nginx.conf").write_text(f"""
{"user root;" if os.geteuid() == 0 else ""} worker_processes {self.workers}; daemon off; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  keepalive_requests 1000000000; client_body_buffer_size 256k; {cache_path}
  upstream up {{ server 127.0.0.1:{self.upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{self.port};
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering {"on" if self.cache else "off"}; {cache_use} }} }} }}
""")
        return ["nginx", "-p", str(self.directory), "-c", "nginx.conf"]


class NginxCached(Nginx):
    name = "nginx (cached POST)"
    cache = True


class Haproxy(Proxy):
    name = "haproxy"
    workers = 1

    def command(self):
        (self.directory / "haproxy.cfg").write_text(f"""
global
  nbthread {self.workers}
  maxconn 9000
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend f
  bind 127.0.0.1:{self.port}
  default_backend b
backend b
  server s 127.0.0.1:{self.upstream}
""")
        return ["haproxy", "-f", "haproxy.cfg"]


class Ganglion(Proxy):
    name = "ganglion (features on)"
    build = None
    workers = 1
    config = ROOT / "bench/config/bar.yaml"

    def command(self):
        return [self.build / "ganglion", "serve", self.config]

    def environment(self):
        return {"PROXY_WORKERS": str(self.workers), "UPSTREAM_PORT": str(self.upstream), "PROXY_PORT": str(self.port), "ADMIN_PORT": str(free_port()),
                "LEDGER_DIR": str(self.directory / "ledger")}


class Portkey(Proxy):
    """Portkey-AI's gateway from npm, features off: a forwarding proxy told where to go by two headers."""
    name = "Portkey (features off)"

    def command(self):
        return ["node", str(PORTKEY / "build/start-server.js"), f"--port={self.port}", "--headless"]

    def environment(self):
        return {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}


PORTKEY = ROOT / "bench/node_modules/@portkey-ai/gateway"


class Direct:
    """No proxy: the baseline that is subtracted."""
    name = "direct"

    def __init__(self, directory, upstream):
        self.port = upstream

    def start(self):
        return self

    def stop(self):
        pass


def load(build, port, *arguments, timeout=120, headers=()):
    done = subprocess.run([build / "ganglion", "bench", "load", "--json", "--port", str(port), *map(str, arguments)], capture_output=True,
                          text=True, timeout=timeout, check=False)
    result = json.loads(done.stdout)
    if result["answered"] == 0:
        raise RuntimeError(f"no answers: {done.stderr}")
    return result


class Table:
    def __init__(self):
        self.rows = []

    def add(self, figure, values, ours, theirs, bar, goal, unit=""):
        """values: name -> list of figures, one a turn."""
        medians = {name: statistics.median(v) for name, v in values.items()}
        ratio = medians[ours] / medians[theirs] if theirs and medians.get(theirs) else None
        self.rows.append({"figure": figure, "unit": unit, "values": values, "medians": medians, "ratio": ratio,
                          "against": theirs, "bar": bar, "goal": goal})
        shown = ", ".join(f"{n} {m:.1f}" for n, m in medians.items())
        print(f"{figure}: {shown}" + (f"; ratio {ratio:.2f} (bar {bar}, goal {goal})" if ratio else f" (bar {bar}, goal {goal})"), flush=True)


def in_turns(options, directory, upstream, kinds, measure):
    values = {kind.name: [] for kind in kinds}
    for _ in range(options.turns):
        for kind in kinds:
            proxy = kind(directory, upstream).start()
            try:
                values[kind.name].append(measure(proxy))
            finally:
                proxy.stop()
    return values


def cpu_per_request(options, *arguments):
    def measure(proxy):
        load(options.build, proxy.port, "--seconds", 1, *arguments)  # warm up: pools, caches, pages
        before = cpu_seconds(proxy.process.pid)
        result = load(options.build, proxy.port, "--seconds", options.seconds, "--connections", 32, *arguments)
        used = cpu_seconds(proxy.process.pid) - before
        proxy.result = result
        if result["errors"]:
            raise RuntimeError(f"{proxy.name}: {result['errors']} errors")
        return used / result["answered"] * 1e6
    return measure


def stampede(options, directory):
    """1,000 identical misses at once; how many reached the upstream."""
    journal = pathlib.Path(directory) / "stampede.jsonl"
    mock = Mock(options.build, "--delay-ms", "300", "--journal", str(journal))
    gateway = Ganglion(directory, mock.port).start()
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "the same"}]}).encode()
    sockets = []
    request = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test\r\ncf-aig-cache-ttl: 60\r\n"
               b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
    try:
        for _ in range(1000):
            sockets.append(socket.create_connection(("127.0.0.1", gateway.port), timeout=20))
        for each in sockets:
            each.sendall(request)
        answered = sum(each.recv(4096).startswith(b"HTTP/1.1 200") for each in sockets)
    finally:
        for each in sockets:
            each.close()
        gateway.stop()
        mock.stop()
    calls = len(journal.read_text().splitlines()) if journal.exists() else 0
    return answered, calls


def memory(options, directory, upstream):
    """RSS idle, with 256 busy connections, with 10,000 idle ones."""
    gateway = Ganglion(directory, upstream).start()
    time.sleep(0.3)
    figures = [rss_mb(gateway.process.pid)]
    busy = threading.Thread(target=lambda: load(options.build, gateway.port, "--connections", 256, "--seconds", 2))
    busy.start()
    time.sleep(1.5)
    figures.append(rss_mb(gateway.process.pid))
    busy.join()
    sockets = []
    try:
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for _ in range(min(9990, hard - 200)):
            sockets.append(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))
        time.sleep(0.5)
        figures.append(rss_mb(gateway.process.pid))
    finally:
        for each in sockets:
            each.close()
        gateway.stop()
    return figures, len(sockets)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="", help="comma-separated: cpu,hit,latency,stream,peak,memory,start,stampede")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results")
    options = parser.parse_args()
    options.build = options.build.resolve()
    Ganglion.build = options.build
    wanted = set(options.only.split(",")) if options.only else {"cpu", "hit", "latency", "stream", "peak", "memory", "start", "stampede"}
    table = Table()
    ours = Ganglion.name
    with tempfile.TemporaryDirectory(prefix="ganglion-bench-", dir=os.environ.get("GANGLION_BENCH_DIR")) as directory:
        mock = Mock(options.build)
        if "cpu" in wanted:
            values = in_turns(options, directory, mock.port, [Nginx, Haproxy, Ganglion], cpu_per_request(options))
            table.add("CPU per proxied chat request", values, ours, "nginx", "1.5x", "1.0x", "us")
        if "hit" in wanted:
            asked = ("--header", "cf-aig-cache-ttl: 3600")
            values = in_turns(options, directory, mock.port, [NginxCached, Ganglion], cpu_per_request(options, *asked))
            table.add("CPU per exact cache hit", values, ours, NginxCached.name, "0.8x", "0.5x", "us")
        if "latency" in wanted:
            results = {}
            def measure(proxy):
                load(options.build, proxy.port, "--seconds", 1, "--connections", 16)
                result = load(options.build, proxy.port, "--seconds", options.seconds, "--rate", 1000, "--connections", 64)
                results.setdefault(proxy.name, []).append(result["latency_us"])
                return result["latency_us"]["p50"]
            in_turns(options, directory, mock.port, [Direct, Nginx, Haproxy, Ganglion], measure)
            for quantile, bar in (("p50", "150 us"), ("p99", "2000 us"), ("p999", "-")):
                base = statistics.median(r[quantile] for r in results["direct"])
                added = {name: [r[quantile] - base for r in rows] for name, rows in results.items() if name != "direct"}
                table.add(f"added {quantile} over direct at 1,000 r/s open loop", added, ours, None, bar, "nginx's", "us")
        if "stream" in wanted:
            paced = Mock(options.build, "--deltas", "64", "--gap-ms", "20")
            def measure_stream(proxy):
                result = load(options.build, proxy.port, "--stream", "--connections", 500, "--seconds", max(options.seconds, 3))
                return result["chunk_us"]["p99"]
            values = in_turns(options, directory, paced.port, [Direct, Nginx, Ganglion], measure_stream)
            base = statistics.median(values.pop("direct"))
            added = {name: [max(v - base, 0.1) for v in rows] for name, rows in values.items()}
            table.add("SSE, 500 streams of 64 deltas at 20 ms: p99 delay per chunk", values, ours, "nginx", "-", "-", "us")
            table.add("SSE, the same: added over direct", added, ours, "nginx", "1.5x", "1.0x", "us")
            paced.stop()
        if "peak" in wanted:
            def measure_peak(connections):
                def measure(proxy):
                    arguments = ["--connections", connections]
                    if isinstance(proxy, Portkey):
                        arguments += ["--header", f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{mock.port}/v1"]
                    load(options.build, proxy.port, "--seconds", 1, *arguments)
                    return load(options.build, proxy.port, "--seconds", options.seconds, *arguments)["per_second"]
                return measure
            kinds = [Nginx, Ganglion] + ([Portkey] if PORTKEY.is_dir() else [])
            for connections in (10, 64):
                values = in_turns(options, directory, mock.port, kinds, measure_peak(connections))
                table.add(f"closed loop, c={connections}: requests per second", values, ours, "nginx", "-", "-", "r/s")
                if Portkey.name in values:
                    table.add(f"the same beside Portkey, c={connections}", values, ours, Portkey.name, "20x", "50x", "r/s")
        if "memory" in wanted:
            figures, sockets = memory(options, directory, mock.port)
            for name, value, bar, goal in zip(("idle", "256 busy connections", f"{sockets} idle connections"), figures,
                                              ("30", "60", "150"), ("20", "40", "100")):
                table.add(f"RSS, {name}", {ours: [value]}, ours, None, f"{bar} MB", f"{goal} MB", "MB")
        if "start" in wanted:
            def first_answer(proxy):
                began = time.monotonic()
                load(options.build, proxy.port, "--count", 1, "--connections", 1, "--seconds", 0.01)
                return proxy.start_ms + (time.monotonic() - began) * 1e3
            values = in_turns(options, directory, mock.port, [Nginx, Ganglion], first_answer)
            table.add("cold start to first 200 (the asking process's start included)", values, ours, None, "150 ms", "50 ms", "ms")
            table.add("binary size", {ours: [(options.build / "ganglion").stat().st_size / 1e6]}, ours, None, "-", "-", "MB")
        mock.stop()
        if "stampede" in wanted:
            answered, calls = stampede(options, directory)
            table.add(f"stampede, 1,000 identical misses ({answered} answered): upstream calls", {ours: [calls]}, ours, None, "1", "1")
    write(options, table)


def reached(row):
    """Whether the first bar was reached; "" for rows without one."""
    if row["bar"] == "-":
        return ""
    bar = float("".join(c for c in row["bar"] if c.isdigit() or c == "."))
    value = row["ratio"] if row["bar"].endswith("x") else row["medians"][Ganglion.name]
    better_when_larger = row["unit"] == "r/s"
    return "yes" if (value >= bar if better_when_larger else value <= bar) else "**no**"


def write(options, table):
    options.out.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    facts = {"date": datetime.date.today().isoformat(), "commit": commit, "machine": f"{os.cpu_count()} cores, {cpu}",
             "kernel": platform.release(), "command": " ".join(["bench/compare.py", *sys.argv[1:]]),
             "versions": {name: subprocess.run([name, "-v"], capture_output=True, text=True, check=False) and
                          (lambda r: (r.stdout + r.stderr).splitlines()[0])(subprocess.run([name, "-v"], capture_output=True, text=True, check=False))
                          for name in ("nginx", "haproxy") if shutil.which(name)}}
    (options.out / "gateway.json").write_text(json.dumps({**facts, "rows": table.rows}, indent=1) + "\n")
    lines = ["# Gateway, beside nginx and haproxy", "",
             f"{facts['date']}, commit {commit}, {facts['machine']}, Linux {facts['kernel']}; `{facts['command']}`.",
             f"{'; '.join(facts['versions'].values())}. Medians of {options.turns} turns, range in brackets. The load generator and the",
             "mock upstream share the machine with the proxy, so ratios count, not absolute times.", "",
             "| figure | measured | ratio | first bar | goal | first bar reached |", "|---|---|---|---|---|---|"]
    for row in table.rows:
        cells = "<br>".join(f"{name}: {row['medians'][name]:.1f} [{min(v):.1f}-{max(v):.1f}] {row['unit']}" for name, v in row["values"].items())
        ratio = f"{row['ratio']:.2f}x vs {row['against']}" if row["ratio"] else ""
        lines.append(f"| {row['figure']} | {cells} | {ratio} | {row['bar']} | {row['goal']} | {reached(row)} |")
    (options.out / "gateway.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
