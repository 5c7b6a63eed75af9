#!/usr/bin/env python3
"""The clients of the soak: an open loop of requests of several kinds, a part of them disturbed on purpose, every answer noted in
a journal.

  clients.py --port N [N ...] --rate R --seed S --journal FILE [--faults 0.01] [--long 0.2] [--closed N] [--shared]

Several ports are gateways that share keys, limits and budgets; each request goes to any of them. Prints `ready`, runs until stdin
is closed or SIGTERM, then lets what runs end. With --closed it is a closed loop of N callers, and prints the rate that came through.
A line of the journal: kind, fault, nonce, id (x-request-id), key (Idempotency-Key), stream, deltas, status, whole, words, sha (of
the body), ms, at (seconds since the start), port, error."""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import signal
import socket
import struct
import sys
import time

# kind, share, API key
KINDS = (("plain", 0.355, "sk-soak-plain"), ("stream", 0.26, "sk-soak-plain"), ("cached", 0.24, "sk-soak-cached"),
         ("idempotent", 0.015, "sk-soak-plain"), ("budgeted", 0.09, "sk-soak-budget"), ("limited", 0.04, "sk-soak-limited"))
# More of what gateways share.
SHARED = (("plain", 0.15, "sk-soak-plain"), ("stream", 0.15, "sk-soak-plain"), ("idempotent", 0.25, "sk-soak-plain"),
          ("budgeted", 0.25, "sk-soak-budget"), ("limited", 0.20, "sk-soak-limited"))
QUESTIONS = 150  # of the cached kind
KEYS_MAX = 2000
FIRST_WORD = b'"content": "word '
KEEP_IDLE_S = 20
GIVE_UP_S = 60
FAULTS = ("gone", "cut", "refused", "refused_once", "slow")


class Answer:
    def __init__(self):
        self.status, self.whole, self.words, self.error, self.id, self.keep, self.body = 0, False, 0, "", "", False, b""


class Soak:
    def __init__(self, options):
        self.options = options
        self.rng = random.Random(options.seed)
        self.journal = open(options.journal, "a", encoding="utf-8")
        self.idle = {port: [] for port in options.port}  # (since, reader, writer)
        self.keys = []  # Idempotency-Keys that were answered, with what was asked
        self.count = 0
        self.running = set()
        self.stopping = asyncio.Event()
        self.began = time.monotonic()

    def pick(self):
        """A request: its fields as the journal has them, its headers and its body."""
        rng = self.rng
        kinds = SHARED if self.options.shared else KINDS
        kind, _, api_key = rng.choices(kinds, [share for _, share, _ in kinds])[0]
        self.count += 1
        fault = rng.choice(FAULTS) if rng.random() < self.options.faults and kind in ("plain", "stream", "idempotent") else ""
        stream = kind == "stream" or fault == "slow" or (kind not in ("plain", "limited") and rng.random() < 0.4)
        nonce = f"{self.options.seed}-{self.count}"
        plan = {"nonce": nonce, "deltas": rng.randint(4, 24), "gap_ms": rng.choice((0, 0, 2, 5)), "delay_ms": rng.choice((0, 0, 1, 20))}
        asked = {"kind": kind, "fault": fault, "stream": stream, "nonce": nonce, "key": ""}
        if kind == "cached":
            question = rng.randrange(QUESTIONS)
            plan = {"nonce": f"q{question}", "deltas": 4 + question % 20, "gap_ms": 0, "delay_ms": 5}
            asked["nonce"] = plan["nonce"]
        if kind == "stream" and not fault and rng.random() < self.options.long:
            plan.update(deltas=rng.randint(20, 80), gap_ms=40)
        self.disturb(plan, asked)
        body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": json.dumps(plan)}]})
        if kind == "idempotent":
            # A gateway remembers each key for a day: at first half are new, from KEYS_MAX on none, so that its memory can settle.
            if not fault and rng.random() * KEYS_MAX < max(KEYS_MAX / 2 if self.keys else 0, len(self.keys)):
                asked, body, plan = rng.choice(self.keys)
                asked = {**asked, "fault": ""}
            else:
                asked["key"] = f"key-{nonce}"
        asked["deltas"] = plan["deltas"]
        return asked, api_key, body, plan

    def disturb(self, plan, asked):
        rng, fault = self.rng, asked["fault"]
        if fault == "cut":
            plan.update(cut_at=rng.randrange(plan["deltas"]), how=rng.choice(("fin", "rst", "short")))
        elif fault == "refused":
            plan.update(status=rng.choice((400, 429, 500, 503)))
        elif fault == "refused_once":
            plan.update(status=rng.choice((500, 502, 503)), fail_first=1)
        elif fault == "slow":
            plan.update(deltas=400, pad=2000, gap_ms=0)
            asked["pad"] = plan["pad"]
        elif fault == "gone":
            plan.update(deltas=40, gap_ms=5)
            asked["leave"] = rng.randrange(12)

    async def connection(self, port):
        now = time.monotonic()
        while self.idle[port]:
            since, reader, writer = self.idle[port].pop()
            if now - since < KEEP_IDLE_S and not reader.at_eof() and self.rng.random() < 0.95:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", port)

    async def one(self):
        asked, api_key, body, plan = self.pick()
        answer, began, writer, port = Answer(), time.monotonic(), None, self.rng.choice(self.options.port)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                reader, writer = await self.connection(port)
                key = f"idempotency-key: {asked['key']}\r\n" if asked["key"] else ""
                writer.write((f"POST /v1/chat/completions HTTP/1.1\r\nhost: soak\r\nauthorization: Bearer {api_key}\r\ncontent-type: application/json\r\n"
                              f"{key}content-length: {len(body)}\r\n\r\n{body}").encode())
                await self.read(reader, writer, answer, asked)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.LimitOverrunError) as error:
            answer.error = f"{type(error).__name__}: {error}"[:200]
        if answer.keep and not answer.error:
            self.idle[port].append((time.monotonic(), reader, writer))
        elif writer:
            writer.close()
        if asked["key"] and answer.whole and not asked["fault"] and len(self.keys) < KEYS_MAX:
            self.keys.append((asked, body, plan))
        self.note(asked, answer, began, port)

    def note(self, asked, answer, began, port):
        now = time.monotonic()
        line = {**asked, "id": answer.id, "status": answer.status, "whole": answer.whole, "words": answer.words,
                "sha": hashlib.sha256(answer.body).hexdigest()[:16] if answer.whole and asked["key"] else "",
                "ms": round((now - began) * 1000, 2), "at": round(began - self.began, 3), "port": port, "error": answer.error}
        if answer.status >= 400:
            line["said"] = answer.body[:300].decode("utf-8", "replace")
        self.journal.write(json.dumps(line) + "\n")

    async def read(self, reader, writer, answer, asked):
        leave = asked.get("leave")
        if leave == 0:
            return self.go(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        answer.status = int(lines[0].split()[1])
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:] if ":" in line)}
        answer.id = headers.get("x-request-id", "")
        keep = headers.get("connection", "") != "close"
        if "content-length" in headers:
            answer.body = await reader.readexactly(int(headers["content-length"]))
            answer.words = answer.body.count(b"word ")
            answer.whole = answer.status == 200
            answer.keep = keep
            return None
        parts = []
        while True:
            if asked["fault"] == "slow" and len(parts) % 16 == 0:
                await asyncio.sleep(0.3)
            size = int(await reader.readuntil(b"\r\n"), 16)
            part = (await reader.readexactly(size + 2))[:-2]
            if size == 0:
                break
            parts.append(part)
            answer.words += part.count(FIRST_WORD)
            if leave is not None and answer.words >= leave:
                return self.go(writer)
        answer.body = b"".join(parts)
        answer.words = answer.body.count(FIRST_WORD)  # one may lie across two parts
        answer.whole = answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")
        answer.keep = keep

    def go(self, writer):
        """The client leaves, in one of two ways."""
        if self.rng.random() < 0.5:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def open_loop(self):
        due = time.monotonic()
        while not self.stopping.is_set():
            due += self.rng.expovariate(self.options.rate)
            wait = due - time.monotonic()
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), wait)
                    break
            elif wait < -1:  # this machine stood still: no burst to make up for it
                due = time.monotonic()
            task = asyncio.ensure_future(self.one())
            self.running.add(task)
            task.add_done_callback(self.running.discard)
            if self.count % 200 == 0:
                self.journal.flush()
        await asyncio.gather(*self.running)

    async def closed_loop(self):
        async def caller():
            while not self.stopping.is_set():
                await self.one()

        await asyncio.gather(*(caller() for _ in range(self.options.closed)))
        print(f"rate {self.count / (time.monotonic() - self.began):.1f}", flush=True)

    async def run(self):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stopping.set)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        watch = asyncio.ensure_future(reader.read())
        watch.add_done_callback(lambda _: self.stopping.set())
        print("ready", flush=True)  # SIGTERM ends it as it should from here on
        await (self.closed_loop() if self.options.closed else self.open_loop())
        for idle in self.idle.values():
            for _, _, writer in idle:
                writer.close()
        self.journal.close()
        watch.cancel()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, nargs="+", required=True)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--faults", type=float, default=0.01)
    parser.add_argument("--long", type=float, default=0, help="part of the streams that take 1 to 3 s")
    parser.add_argument("--closed", type=int, default=0)
    parser.add_argument("--shared", action="store_true", help="mostly what several gateways share")
    asyncio.run(Soak(parser.parse_args()).run())


main()
