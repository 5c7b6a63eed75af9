#!/usr/bin/env python3
"""kill -9 with idempotency keys: clients retry every request with its key until they have the whole answer.

After all kills:
1  no key is charged twice: per key at most one record with a cost, whatever was killed when;
2  whoever has the whole answer of a key has the same bytes (the mock stamps its events, so a second call would differ);
3  every key that was answered is answered again with those bytes, without a further upstream call;
4  every charged record belongs to a key, and every key that a client has the answer of has its charge;
5  the same key with another body is refused with 409."""

import http.client
import json
import pathlib
import random
import sys
import tempfile
import threading
import time

from gateway_process import Gateway, Mock, check

KILLS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
CLIENTS = 8


class Clients:
    """Keys with their bodies, and every answer that anyone got whole."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.open = []  # (key, stream, body) without a whole answer so far
        self.answers = {}  # key -> set of whole bodies
        self.asked = {}  # key -> (stream, body)
        self.of_request = {}  # x-request-id -> key
        self.unexpected = []

    def take(self):
        with self.lock:
            if self.open and self.rng.random() < 0.7:
                return self.open.pop(self.rng.randrange(len(self.open)))
            if self.asked and self.rng.random() < 0.3:  # ask again although it was answered
                key = self.rng.choice(list(self.asked))
                return (key, *self.asked[key])
            key = f"{self.rng.getrandbits(64):x}"
            stream = self.rng.random() < 0.5
            body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": key}]}, separators=(",", ":"))
            self.asked[key] = (stream, body)
            return key, stream, body

    def ask(self, connection, key, stream, body):
        """The status and the whole body, or None where it was cut."""
        connection.request("POST", "/v1/chat/completions", body, {"idempotency-key": key})
        response = connection.getresponse()
        request_id = response.getheader("x-request-id")
        with self.lock:
            self.of_request[request_id] = key
        data = response.read()
        whole = response.status == 200 and (data.endswith(b"data: [DONE]\n\n") if stream else json.loads(data)["usage"] is not None)
        return response.status, data if whole else None

    def run(self, port, stop):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not stop.is_set():
            key, stream, body = self.take()
            data = None
            try:
                status, data = self.ask(connection, key, stream, body)
                if status not in (200, 502, 503):
                    self.unexpected.append((key, status))
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with self.lock:
                if data is None:
                    self.open.append((key, stream, body))
                else:
                    self.answers.setdefault(key, set()).add(data)
            time.sleep(0.005)
        connection.close()


def main():
    print(f"seed {SEED}, {KILLS} kills")
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="ganglion-idempotency-") as directory:
        journal = pathlib.Path(directory) / "upstream.jsonl"
        mock = Mock("--journal", str(journal), "--deltas", "8", "--gap-ms", "5", "--delay-ms", "2")
        gateway = Gateway(f'providers:\n  - {{name: mock, base_url: "http://127.0.0.1:{mock.port}/v1", models: [m]}}\n',
                          directory=directory)
        clients = Clients(rng.random())
        slowest = 0.0
        try:
            for _ in range(KILLS):
                gateway.start()
                slowest = max(slowest, gateway.start_s)
                stop = threading.Event()
                threads = [threading.Thread(target=clients.run, args=(gateway.ports["proxy"], stop)) for _ in range(CLIENTS)]
                for thread in threads:
                    thread.start()
                time.sleep(0.2 + rng.random() * 0.4)
                gateway.kill()
                stop.set()
                for thread in threads:
                    thread.join()
            finish(gateway.start(), clients, mock, journal)
        finally:
            mock.stop()
        verify(gateway, clients, journal)
        print(f"slowest start with recovery: {slowest * 1e3:.0f} ms")


def finish(gateway, clients, mock, journal):
    """Every open key is asked to its end, then every key once more: those answers come without a call."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.ports["proxy"], timeout=60)
    for key, (stream, body) in clients.asked.items():
        status, data = clients.ask(connection, key, stream, body)
        if data is not None:
            clients.answers.setdefault(key, set()).add(data)
        else:
            clients.unexpected.append((key, status))
    check(not clients.unexpected, f"unexpected answers: {clients.unexpected[:5]}")
    calls = len(journal.read_text(encoding="utf-8").splitlines())
    for key, (stream, body) in clients.asked.items():
        status, data = clients.ask(connection, key, stream, body)
        check(status == 200 and data in clients.answers[key], f"3: {key} is answered with {status} and other bytes")
        other, _ = clients.ask(connection, key, stream, body.replace('"user"', '"system"'))
        check(other == 409, f"5: {key} with another body gives {other}")
    check(len(journal.read_text(encoding="utf-8").splitlines()) == calls, "3: a replay called the upstream")
    gateway.stop()


def verify(gateway, clients, journal):
    gateway.command("ledger", "verify", "--dir", gateway.ledger)
    charged = {}
    outcomes = {}
    for record in gateway.records():
        label = record["outcome"] + (" " + record["reason"] if record["reason"] else "")
        outcomes[label] = outcomes.get(label, 0) + 1
        if record["neuron_parts"] == "0":
            continue
        # The id of a request that was killed before its head came back is unknown to its client.
        key = clients.of_request.get(record["id"])
        charged.setdefault(key, []).append(record["id"])
    twice = {key: ids for key, ids in charged.items() if key is not None and len(ids) > 1}
    check(not twice, f"1: charged twice: {list(twice.items())[:3]}")
    unknown = len(charged.pop(None, []))
    differing = [key for key, bodies in clients.answers.items() if len(bodies) > 1]
    check(not differing, f"2: different answers for {differing[:3]}")
    answered = set(clients.answers)
    check(set(charged) <= answered, f"4: charged and never answered: {list(set(charged) - answered)[:3]}")
    check(len(charged) + unknown == len(answered), f"4: {len(answered)} keys were answered, {len(charged)} + {unknown} charged")
    calls = len(journal.read_text(encoding="utf-8").splitlines())
    print(f"{len(clients.asked)} keys, {len(answered)} answered, {calls} upstream calls, records: {outcomes}")
    check(len(answered) > KILLS * 10 and outcomes.get("aborted process_ended", 0) > 0, "the run was too quiet to prove anything")
    check(outcomes.get("cache_hit idempotent_replay", 0) > KILLS * 5, "hardly a replay")


main()
