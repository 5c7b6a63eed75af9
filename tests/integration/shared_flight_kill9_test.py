#!/usr/bin/env python3
"""Two gateways, one Redis: the one that fetches an answer for both is killed with -9 while clients of the other wait.

1  the clients of the other gateway all get the whole answer, from one further upstream call;
2  within the lease, the call itself and a margin;
3  the survivor counts that it took over, and nobody's record is missing from its ledger."""

import concurrent.futures
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time

from gateway_process import Gateway, Mock, check

LEASE_S = 1.0
CALL_S = 1.5
CLIENTS = 50
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "the same"}]})


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Redis:
    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="ganglion-redis-")
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory.name],
            stdout=subprocess.DEVNULL)
        for _ in range(500):
            try:
                if self.say("PING") == "+PONG\r\n":
                    return
            except OSError:
                time.sleep(0.01)
        check(False, "redis-server did not start")

    def say(self, line):
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(line.encode() + b"\r\n")
            return connection.recv(65536).decode()

    def stop(self):
        self.process.kill()
        self.process.wait()


def ask(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read(), response.getheader("cf-aig-cache-status")


def main():
    redis = Redis()
    mock = Mock("--delay-ms", str(int(CALL_S * 1000)))
    yaml = (f'providers:\n  - {{name: up, base_url: "http://127.0.0.1:{mock.port}/v1", models: [m]}}\n'
            f'redis: {{addresses: ["127.0.0.1:{redis.port}"]}}\n'
            f'cache: {{secret: "of-the-installation-0123", redis: {{lease: {int(LEASE_S * 1000)}ms, wait: 30s}}}}\n'
            'gateways: [{name: default, cache: {ttl: 60s}}]\n')
    leader = Gateway(yaml).start()
    other = Gateway(yaml).start()
    try:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS + 1) as pool:
            dead = pool.submit(ask, leader.ports["proxy"])
            for _ in range(1000):
                if redis.say("KEYS *:l").startswith("*1"):
                    break
                time.sleep(0.005)
            else:
                check(False, "no lease was taken")
            waiting = [pool.submit(ask, other.ports["proxy"]) for _ in range(CLIENTS)]
            time.sleep(0.3)
            leader.kill()
            killed = time.monotonic()
            answers = [each.result() for each in waiting]
            took = time.monotonic() - killed
            check(isinstance(dead.exception(), Exception), "the killed gateway's client got an answer")
        check(all(status == 200 for status, _, _ in answers), f"statuses {sorted({a[0] for a in answers})}")
        check(len({body for _, body, _ in answers}) == 1, "the clients got different answers")
        check(took < LEASE_S + CALL_S + 2, f"they waited {took:.1f} s")
        took_over = other.metric("ganglion_cache_shared_flights_total", result="took_over")
        check(took_over == 1, f"took over {took_over} times")
        status, body, outcome = ask(other.ports["proxy"])
        check((status, body, outcome) == (200, answers[0][1], "HIT"), "the answer was not kept")
        other.stop()
        records = other.records()
        charged = [record for record in records if record.get("outcome") == "completed"]
        check(len(charged) == 1, f"{len(charged)} calls were billed by the survivor")
        check(len(records) == CLIENTS + 1, f"{len(records)} records for {CLIENTS + 1} requests")
    finally:
        redis.stop()
        mock.stop()
    print(f"{CLIENTS} clients answered {took:.2f} s after kill -9 of the leader (lease {LEASE_S} s, call {CALL_S} s)")


if __name__ == "__main__":
    sys.exit(main())
