#!/usr/bin/env python3
"""Every sink takes every ledger record exactly once, while everything dies at random: the gateway by kill -9, PostgreSQL by
kill -9, the receiver of events by refusing, closing, answering late, and taking what it then says it did not take.

At the end, the ledger's own export is compared with
  the table: the same records, field by field;
  the files: the same lines, in order, none twice, over all files;
  the events: the same once they are told apart by (source, id), and a repeated event is the same event."""

import http.server
import json
import pathlib
import random
import sys
import tempfile
import threading
import time
import urllib.request

from gateway_process import Gateway, Mock, check, fail
from postgres import Postgres

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)


class Receiver:
    """Takes CloudEvents batches, badly."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.events = {}  # (source, id) -> event
        self.requests = self.failures = self.repeats = 0
        self.trouble = True
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                owner.take(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request):
        body = request.rfile.read(int(request.headers["content-length"]))
        with self.lock:
            self.requests += 1
            mood = self.rng.random() if self.trouble else 1.0
            if mood < 0.5:
                self.failures += 1
            # Above 0.2 the events are taken, whatever the sender is told.
            if mood >= 0.2:
                check(request.headers["content-type"] == "application/cloudevents-batch+json", "content type")
                check(request.headers["authorization"] == "Bearer sk-events", "no token")
                for event in json.loads(body):
                    name = (event["source"], event["id"])
                    if name in self.events:
                        self.repeats += 1
                        check(self.events[name] == event, f"{name} came twice with different contents")
                    self.events[name] = event
        if mood < 0.1 or 0.2 <= mood < 0.3:
            request.close_connection = True  # no answer at all
            return
        if 0.3 <= mood < 0.4:
            time.sleep(0.6)  # longer than the sink's timeout
        status = 204 if mood >= 0.3 and not 0.4 <= mood < 0.5 else 503
        try:
            request.send_response(status)
            request.send_header("content-length", "0")
            request.end_headers()
        except OSError:
            pass


def load(port, stop, seed):
    rng = random.Random(seed)
    while not stop.is_set():
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": str(rng.random())}]})
        headers = {"content-type": "application/json", "cf-aig-metadata": json.dumps({"team": rng.choice(["a", "b\u00e9"]), "n": rng.randrange(9)})}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body.encode(), headers)
        try:
            urllib.request.urlopen(request, timeout=60).read()
        except OSError:
            pass
        time.sleep(rng.random() * 0.01)


def status(gateway):
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ports['admin']}/admin/sinks", timeout=60) as response:
        return json.load(response)


def wait_until_taken(gateway):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = status(gateway)
        # What the ledger holds behind the last terminal record is nothing to take.
        if all(sink["up"] and sink["lag_records"] == 0 for sink in now["sinks"]):
            return now
        time.sleep(0.1)
    return fail(f"the sinks did not catch up: {now}")


def main():
    print(f"seed {SEED}, {ROUNDS} rounds")
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="ganglion-sinks-") as directory, tempfile.TemporaryDirectory(prefix="ganglion-pg-") as pg:
        root = pathlib.Path(directory)
        postgres = Postgres(pg).start()
        receiver = Receiver(rng.random())
        mock = Mock("--delay-ms", "1")
        gateway = Gateway(
            f'providers:\n  - {{name: mock, base_url: "http://127.0.0.1:{mock.port}/v1", models: [m]}}\n'
            "gateways:\n  - {name: default, cache: {ttl: 0s}}\nsinks:\n"
            '  - {name: table, type: postgres, dsn: "${PG_DSN}", batch: 40, interval: 20ms, max_backoff: 200ms}\n'
            f'  - {{name: files, type: file, directory: "{root}/usage", rotate_size: 64KiB, batch: 30, interval: 10ms}}\n'
            f'  - {{name: events, type: cloudevents, url: "http://127.0.0.1:{receiver.port}/api/v1/events", token: "${{EVENTS_TOKEN}}",'
            " batch: 25, interval: 20ms, max_backoff: 200ms, timeout: 300ms}\n",
            env={"PG_DSN": postgres.dsn, "EVENTS_TOKEN": "sk-events"}, directory=directory)
        pg_kills = gateway_kills = 0
        try:
            gateway.start()
            for _ in range(ROUNDS):
                stop = threading.Event()
                threads = [threading.Thread(target=load, args=(gateway.ports["proxy"], stop, rng.random())) for _ in range(4)]
                for thread in threads:
                    thread.start()
                time.sleep(0.2 + rng.random() * 0.5)
                if rng.random() < 0.5:
                    postgres.kill()
                    pg_kills += 1
                    time.sleep(rng.random() * 0.5)  # an outage under load
                    if rng.random() < 0.5:
                        gateway.kill()  # and the gateway starts while it lasts
                        gateway_kills += 1
                        gateway.start()
                    postgres.start()
                else:
                    gateway.kill()
                    gateway_kills += 1
                    gateway.start()
                stop.set()
                for thread in threads:
                    thread.join()
            receiver.trouble = False
            ledger = wait_until_taken(gateway)["ledger"]
            records = gateway.records()
            verify_table(postgres, ledger, records)
            verify_files(root / "usage", ledger, records)
            verify_events(receiver, ledger, records)
            # Nothing new, nothing sent: and a restart sends nothing again.
            before = receiver.requests
            gateway.stop()
            gateway.start()
            wait_until_taken(gateway)
            check(receiver.requests == before, "a restart sent events again")
            gateway.stop()
        finally:
            mock.stop()
            postgres.stop()
        check(receiver.repeats > 0, "no event came twice: the run was too quiet to prove anything")
        print(f"{len(records)} records; {gateway_kills} kills of the gateway, {pg_kills} of PostgreSQL; "
              f"{receiver.requests} requests with events, {receiver.failures} failed, {receiver.repeats} events repeated")


def verify_table(postgres, ledger, records):
    rows = [json.loads(row[0]) for row in postgres.query("SELECT row_to_json(r) FROM ganglion.ledger_records r ORDER BY sequence")]
    check(len(rows) == len(records), f"the table has {len(rows)} rows, the ledger {len(records)} records")
    for row, record in zip(rows, records):
        check(row["ledger_id"] == ledger and row["sequence"] == record["sequence"], f"{row['sequence']} where {record['sequence']} is due")
        for column, field in {"request_id": "id", "api_key": "key"}.items():
            check(row[column] == record[field], f"{column} of {record['sequence']}")
        for same in ("tenant", "gateway", "model", "endpoint", "tier", "tags", "outcome", "reason", "http_status", "latency_us",
                     "input_tokens", "output_tokens", "requests", "estimated", "schedule", "price_source"):
            check(row[same] == record[same], f"{same} of {record['sequence']}: {row[same]} and {record[same]}")
        check(float(row["neurons"]) == float(record["neurons"]), f"neurons of {record['sequence']}")
        check(str(row["neuron_parts"]) == record["neuron_parts"], f"neuron parts of {record['sequence']}")
        check(row["attempts"] and row["attempts"][0]["backend"] == record["attempts"][0]["backend"], "attempts")
    total = postgres.query("SELECT sum(neuron_parts) FROM ganglion.ledger_records")[0][0]
    check(int(total) == sum(int(record["neuron_parts"]) for record in records), "the sums differ")
    check(postgres.query("SELECT count(*) FROM ganglion.schema_migrations") == [["1"]], "migrations ran twice")


def verify_files(directory, ledger, records):
    lines = []
    files = sorted(directory.glob("usage-*.jsonl"))
    for file in files:
        check(file.stat().st_size <= 64 * 1024, f"{file} is larger than it may be")
        text = file.read_text(encoding="utf-8")
        check(text.endswith("\n"), f"{file} ends inside a line")
        lines += [json.loads(line) for line in text.splitlines()]
    check(len(files) > 2, "the files were never rotated")
    check([line["sequence"] for line in lines] == [record["sequence"] for record in records], "the files have other records")
    for line, record in zip(lines, records):
        check(line.pop("ledger") == ledger, "another ledger's line")
        for attempt in record["attempts"]:
            attempt.pop("attempt")
        check(line == record, f"{line} and {record}")


def verify_events(receiver, ledger, records):
    check(len(receiver.events) == len(records), f"{len(receiver.events)} events for {len(records)} records")
    for record in records:
        event = receiver.events[(f"urn:uuid:{ledger}", f"{ledger}/{record['sequence']}")]
        check(event["specversion"] == "1.0" and event["type"] == "ganglion.request", "attributes")
        check(event["subject"] == record["tenant"] and event["time"] == record["time"], "subject or time")
        check(event["data"]["output_tokens"] == record["output_tokens"] and event["data"]["neurons"] == record["neurons"], "data")


main()
