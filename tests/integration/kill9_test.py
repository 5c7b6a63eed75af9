#!/usr/bin/env python3
"""kill -9 under load, again and again: nothing billed is lost, nothing is billed twice.

Three independent journals: U, what the upstream emitted; C, what clients got; G, the gateway's ledger. After all kills:
A  every request that a client has the id of has exactly one terminal record;
B  a client with the whole answer has a completed record with the exact usage;
C  every upstream attempt of U is covered by exactly one record;
D  completed records and the upstream agree on the sum of tokens;
E  exporting twice gives the same records."""

import http.client
import json
import pathlib
import random
import sys
import tempfile
import threading
import time

from gateway_process import Gateway, Mock, check

KILLS = int(sys.argv[1]) if len(sys.argv) > 1 else 25
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
CLIENTS = 12
DELTAS = 8
USAGE = {True: (25, DELTAS), False: (25, 35)}  # stream -> tokens in, out as the mock reports them


def client(port, stop, journal, lock, seed):
    """Asks until the gateway dies; notes (request id, streamed, whole answer)."""
    rng = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not stop.is_set():
        stream = rng.random() < 0.5
        request_id = None
        whole = False
        try:
            body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": str(rng.random())}]}
            connection.request("POST", "/v1/chat/completions", json.dumps(body, separators=(",", ":")))
            response = connection.getresponse()
            request_id = response.getheader("x-request-id")
            data = response.read()
            whole = response.status == 200 and (data.endswith(b"data: [DONE]\n\n") if stream else json.loads(data)["usage"] is not None)
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        if request_id:
            with lock:
                journal.append((request_id, stream, whole))
        time.sleep(rng.random() * 0.03)
    connection.close()


def main():
    print(f"seed {SEED}, {KILLS} kills")
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="ganglion-kill9-") as directory:
        upstream_journal = pathlib.Path(directory) / "upstream.jsonl"
        mock = Mock("--journal", str(upstream_journal), "--deltas", str(DELTAS), "--gap-ms", "5", "--delay-ms", "2")
        gateway = Gateway(f'providers:\n  - {{name: mock, base_url: "http://127.0.0.1:{mock.port}/v1", models: [m]}}\n'
                          "gateways:\n  - {name: default, cache: {ttl: 0s}}\n", directory=directory)
        clients_journal = []
        lock = threading.Lock()
        slowest = 0.0
        try:
            for kill in range(KILLS):
                gateway.start()
                slowest = max(slowest, gateway.start_s)
                stop = threading.Event()
                threads = [threading.Thread(target=client, args=(gateway.ports["proxy"], stop, clients_journal, lock, rng.random()))
                           for _ in range(CLIENTS)]
                for thread in threads:
                    thread.start()
                time.sleep(0.25 + rng.random() * 0.5)
                gateway.kill()
                stop.set()
                for thread in threads:
                    thread.join()
            gateway.start()  # recovers the last kill
            gateway.stop()
        finally:
            mock.stop()
        verify(gateway, clients_journal, upstream_journal)
        print(f"slowest start with recovery: {slowest * 1e3:.0f} ms")


def verify(gateway, clients_journal, upstream_journal):
    gateway.command("ledger", "verify", "--dir", gateway.ledger)
    records = gateway.records()
    by_id = {}
    for record in records:
        by_id.setdefault(record["id"], []).append(record)
    duplicated = [key for key, found in by_id.items() if len(found) != 1]
    check(not duplicated, f"A: more than one terminal record for {duplicated[:3]}")

    whole = 0
    for request_id, stream, complete in clients_journal:
        check(request_id in by_id, f"A: no record of {request_id}, which a client saw")
        if not complete:
            continue
        whole += 1
        record = by_id[request_id][0]
        got = (record["input_tokens"], record["output_tokens"])
        check(record["outcome"] == "completed", f"B: {request_id} was answered whole and is {record['outcome']}")
        check(got == USAGE[stream], f"B: {request_id} used {USAGE[stream]}, the ledger says {got}")

    upstream = [json.loads(line) for line in upstream_journal.read_text(encoding="utf-8").splitlines()]
    attempts = {}
    for entry in upstream:
        attempts[entry["request_id"]] = attempts.get(entry["request_id"], 0) + 1
        check(entry["request_id"] in by_id, f"C: the upstream served {entry['request_id']}, which no record covers")
    emitted = {entry["request_id"]: entry["output_tokens"] for entry in upstream if entry["finished"]}
    billed = sum(r["output_tokens"] for r in records if r["outcome"] == "completed")
    sent = sum(emitted.get(r["id"], 0) for r in records if r["outcome"] == "completed")
    check(billed == sent, f"D: completed records bill {billed} output tokens, the upstream emitted {sent}")
    check(records == gateway.records(), "E: exporting twice gave different records")

    outcomes = {}
    for record in records:
        outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
    print(f"{len(clients_journal)} answers seen by clients ({whole} whole), {len(upstream)} upstream attempts, records: {outcomes}")
    check(whole > KILLS * 5 and outcomes.get("aborted", 0) > 0, "the run was too quiet to prove anything")


main()
