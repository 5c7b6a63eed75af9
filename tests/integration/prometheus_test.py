#!/usr/bin/env python3
"""A real Prometheus scrapes /metrics and answers queries about the requests that were made."""

import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from gateway_process import Gateway, Mock, check, fail

prometheus = shutil.which("prometheus")
check(prometheus, "prometheus is not installed (scripts/setup installs it)")

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

mock = Mock()
gateway = Gateway(f'providers:\n  - {{name: mock, base_url: "http://127.0.0.1:{mock.port}/v1", models: [m]}}\n').start()
config = pathlib.Path(gateway.directory) / "prometheus.yml"
config.write_text("global: {scrape_interval: 200ms}\nscrape_configs:\n  - job_name: ganglion\n    static_configs:\n"
                  f"      - targets: ['127.0.0.1:{gateway.ports['admin']}']\n", encoding="utf-8")
server = subprocess.Popen([prometheus, f"--config.file={config}", f"--storage.tsdb.path={gateway.directory}/tsdb",
                           f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], stderr=subprocess.DEVNULL)


def query(expression):
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            result = json.load(response)["data"]["result"]
            return float(result[0]["value"][1]) if result else None
    except (urllib.error.URLError, ConnectionError):
        return None


def wait_for(expression, value):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        got = query(expression)
        if got == value:
            return
        time.sleep(0.2)
    fail(f"{expression} is {got}, not {value}")


try:
    for i in range(7):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"question {i % 5}"}]})
        request = urllib.request.Request(f"http://127.0.0.1:{gateway.ports['proxy']}/v1/chat/completions", body.encode(),
                                         {"content-type": "application/json", "x-neuron-tier": "fast"})
        with urllib.request.urlopen(request, timeout=60) as response:
            check(response.status == 200, "request failed")
    wait_for("up", 1)
    wait_for('sum(ganglion_requests_total{model="m",tier="fast",code="200"})', 7)
    wait_for('sum(ganglion_requests_total{cache="hit"})', 2)
    wait_for('sum(ganglion_tokens_total{kind="output",model="m"})', 35 * 5)
    wait_for("ganglion_request_duration_seconds_count > 0", 7)
    wait_for('sum(ganglion_ledger_open_intents)', 0)
    check((query('sum(ganglion_neurons_total{tier="fast"})') or 0) > 0, "no neurons were counted")
finally:
    server.terminate()
    server.wait()
    mock.stop()
gateway.stop()
print("prometheus: ok")
