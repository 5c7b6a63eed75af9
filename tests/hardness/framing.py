#!/usr/bin/env python3
"""Differential test of framing: mutated requests through the gateway to five real servers. Every request that an origin
counts must be one that the gateway's ledger has, once, and the other way round; every answer must belong to the request
that it is given to.

  tests/hardness/framing.py [--mutants N] [--seed S] [--results FILE]

The seed is printed; the same seed makes the same mutants. Exit code 1 when an invariant broke, 77 when a server that
this test needs is not installed."""

import argparse
import asyncio
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import origins
import report

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import Gateway, build_dir  # noqa: E402

IDLE_S = 0.4        # a connection that says nothing for so long has said all
HEADER_MS = 300     # of the gateway: heads without an end
NASTY = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b":", b",", b";", b"0\r\n\r\n", b"\r\n\r\n", b"Content-Length: 0\r\n",
         b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding : chunked\r\n",
         b"Connection: close\r\n", b"Connection: keep-alive, x-request-id\r\n", b"Expect: 100-continue\r\n", b"Host: b\r\n", b"X: y\r\n z\r\n",
         b"Upgrade: h2c\r\n", b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", b"\x80", b"\xff", b"+", b"-", b"0x", b"1e9", b"HTTP/1.0", b"x-request-id: spoofed\r\n"]


def request(model, nonce, rng):
    """A good request: sized or chunked, with or without odd but legal headers."""
    body = json.dumps({"model": model, "user": nonce, "messages": [{"role": "user", "content": "x" * rng.choice([1, 40, 3000])}]},
                      separators=(",", ":")).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += rng.choice([b"", b"X-Odd:\ta b \t\r\n", b"Accept: */*\r\nAccept: text/plain\r\n", b"Connection: keep-alive\r\n", b"TE: trailers\r\n"])
    if rng.random() < 0.5:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    cut = rng.randrange(1, len(body))
    extension = rng.choice([b"", b"", b";a=b", b';a="b;c"'])
    trailer = rng.choice([b"", b"", b"X-Sum: 1\r\n"])
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x%b\r\n%b\r\n%X\r\n%b\r\n0\r\n%b\r\n" % (
        cut, extension, body[:cut], len(body) - cut, body[cut:], trailer)


def mutate(data, rng, other):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(data) + 1)
        head_end = max(data.find(b"\r\n\r\n"), 1)
        if rng.random() < 0.7:
            at = rng.randrange(min(head_end + 12, len(data)) + 1)  # where framing is decided
        kind = rng.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            del data[at:at + rng.choice([1, 1, 2, 5])]
        elif kind in (2, 3):
            data[at:at] = rng.choice(NASTY)
        elif kind == 4:  # a header line twice, or moved
            lines = bytes(data).split(b"\r\n")
            lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(lines))
            data = bytearray(b"\r\n".join(lines))
        elif kind == 5:  # splice
            data = bytearray(bytes(data)[:at] + other[rng.randrange(len(other)):])
        elif kind == 6:  # lengths that are off
            digits = [i for i, c in enumerate(data) if 48 <= c <= 57]
            if digits:
                data[rng.choice(digits)] = rng.choice(b"0123456789abcdef")
        elif kind == 7:
            end = data.find(b"\r\n", at)
            if end >= 0:
                data[end:end + 2] = rng.choice([b"\n", b"\r", b"\r\r\n", b"\n\r\n", b" \r\n", b"\r\n "])
        else:
            data = data[:at]
        if not data:
            data = bytearray(b"\r\n")
    return bytes(data)


def parse(data):
    """The answers of a connection, strictly: (status, headers, body); what is left is an error."""
    out = []
    while data:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return out, data
        lines = head.decode("latin-1").split("\r\n")
        if not lines[0].startswith("HTTP/1.1 "):
            return out, data
        status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        size = 0 if status == 100 else int(headers["content-length"])
        if len(rest) < size:
            return out, data
        if status != 100:
            out.append((status, headers, rest[:size]))
        data = rest[size:]
    return out, b""


class Run:
    def __init__(self, options, directory):
        self.rng = random.Random(options.seed)
        self.origins = [each(directory) for each in origins.ALL]
        providers = "".join(f'  - {{name: {o.name}, base_url: "http://127.0.0.1:{o.port}/v1", models: [{o.name}]}}\n' for o in self.origins)
        self.gateway = Gateway("providers:\n" + providers + "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 1}}]\n",
                               server=f"header_timeout: {HEADER_MS}ms").start()
        vectors = subprocess.run([build_dir() / "tests/hardness/reject_vectors"], check=True, capture_output=True, text=True).stdout
        self.vectors = [bytes.fromhex(line.split("\t")[2]) for line in vectors.splitlines()]
        self.statuses = collections.Counter()
        self.broken = []
        self.answered = {}  # request id -> nonce, of answers with status 200
        self.fresh = []           # nonces of the connection being made
        self.owners = {}          # nonce -> the bytes of its connection
        self.answered_up_to = {}  # id of those bytes -> place of the last answered nonce
        self.echoed = collections.Counter()

    def nonce(self):
        # Far from every other, so that no mutation turns one into another.
        self.fresh.append(f"n{self.rng.getrandbits(60):015x}")
        return self.fresh[-1]

    def connection(self):
        """Bytes for one connection: perhaps a good request, the mutant, perhaps a good request."""
        rng = self.rng
        origin = rng.choice(self.origins)
        good = lambda: request(origin.name, self.nonce(), rng)  # noqa: E731
        if rng.random() < 0.25:
            base = rng.choice(self.vectors)[:20000].replace(b"POST /v1/x ", b"POST /v1/chat/completions ")
        else:
            base = good()
        mutant = mutate(base, rng, good()) if rng.random() < 0.95 else base
        parts = [good()] if rng.random() < 0.4 else []
        parts.append(mutant)
        if rng.random() < 0.7:
            parts.append(good())
        data = b"".join(parts)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
        for nonce in self.fresh:
            self.owners[nonce] = data
        self.fresh = []
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
        return origin, data, [piece for piece in pieces if piece]

    async def play(self, origin, data, pieces):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.ports["proxy"])
        got = b""
        try:
            for i, piece in enumerate(pieces):
                if i > 0:
                    await asyncio.sleep(0.003)
                writer.write(piece)
                await writer.drain()
            while True:
                more = await asyncio.wait_for(reader.read(65536), IDLE_S)
                if not more:
                    break
                got += more
        except (asyncio.TimeoutError, OSError):
            pass
        finally:
            writer.close()
        answers, rest = parse(got)
        if rest:
            self.broken.append(f"{origin.name}: the gateway's own framing is broken: {rest[:120]!r} for {data[:300]!r}")
        for status, headers, body in answers:
            self.statuses[status] += 1
            if status != 200 or not body.startswith(b'{"id":"'):
                continue
            answer = json.loads(body)
            request_id = headers.get("x-request-id", "")
            if answer["id"] != request_id:
                self.broken.append(f"{origin.name}: {request_id} was given the answer of {answer['id']}")
            self.belongs(origin, answer["user"], data)
            if request_id in self.answered:
                self.broken.append(f"{origin.name}: {request_id} was answered twice")
            self.answered[request_id] = answer["user"]

    def belongs(self, origin, nonce, data):
        """The origin read it off the body: it must be this connection's, and answers must keep the order of requests."""
        if not origin.reads_body:
            return
        self.echoed[origin.name] += 1
        owner = self.owners.get(nonce)  # none: the mutation changed it
        if owner is not None and owner is not data:
            self.broken.append(f"{origin.name}: an answer to {nonce} reached another connection")
        at = data.find(b'"' + nonce.encode() + b'"')  # -1: a chunk boundary lies within it
        if 0 <= at < self.answered_up_to.get(id(data), 0):
            self.broken.append(f"{origin.name}: {nonce} was answered out of order")
        self.answered_up_to[id(data)] = max(at, self.answered_up_to.get(id(data), 0))

    async def all(self, count):
        todo = [self.connection() for _ in range(count)]
        limit = asyncio.Semaphore(48)

        async def one(each):
            async with limit:
                await self.play(*each)

        await asyncio.gather(*(one(each) for each in todo))

    def check(self):
        for origin in self.origins:
            origin.stop()
        self.gateway.stop()
        records = {record["id"]: record for record in self.gateway.records()}
        counted = 0
        for origin in self.origins:
            lines = origin.lines()
            strange = [line for line in lines if line[1] != "200" or line[2] != "POST" or line[3] != "/v1/chat/completions" or not line[0]]
            if strange:
                self.broken.append(f"{origin.name} saw what was no request of ours: {strange[:3]}")
            seen = collections.Counter(line[0] for line in lines if line[0])
            twice = [key for key, n in seen.items() if n != 1]
            if twice:
                self.broken.append(f"{origin.name} counted {twice[:3]} more than once")
            sent = {key for key, record in records.items() if record["model"] == origin.name}
            if unknown := set(seen) - sent:
                self.broken.append(f"{origin.name} counted {len(unknown)} requests that the ledger does not have: {sorted(unknown)[:3]}")
            # A client that left before its request was written to the origin leaves a record and no request.
            unseen = [key for key in sent - set(seen) if records[key]["outcome"] not in ("cancelled", "aborted")]
            if unseen:
                self.broken.append(f"{origin.name} never counted {len(unseen)} requests of the ledger: {unseen[:3]}")
            left = sum(1 for key in sent - set(seen))
            counted += len(seen)
            print(f"{origin.name}: {len(seen)} requests counted, {len(sent)} in the ledger ({left} called off before they were sent)", flush=True)
        for origin in self.origins:
            if origin.reads_body and counted > 200 and self.echoed[origin.name] < 10:
                self.broken.append(f"{origin.name} echoed only {self.echoed[origin.name]} bodies: this test sees nothing")
        lost = [key for key in self.answered if key not in records]
        if lost:
            self.broken.append(f"{len(lost)} answers have no record: {lost[:3]}")
        return counted


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--results", type=pathlib.Path)
    options = parser.parse_args()
    if lacking := origins.missing():
        print(f"not installed: {', '.join(lacking)} (scripts/setup installs them)")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="ganglion-framing-") as directory:
        pathlib.Path(directory).chmod(0o755)
        run = Run(options, directory)
        began = time.monotonic()
        try:
            asyncio.run(run.all(options.mutants))
            took = time.monotonic() - began
            counted = run.check()
        finally:
            for process in [run.gateway.process, *(origin.process for origin in run.origins)]:
                if process.poll() is None:
                    process.kill()
                    process.wait()
    statuses = ", ".join(f"{n} x {status}" for status, n in sorted(run.statuses.items()))
    lines = [f"seed {options.seed}: {options.mutants} connections with a mutant each in {took:.0f} s; answers: {statuses}",
             f"{counted} requests counted by the origins, as many in the ledger; {len(run.answered)} answers with an echoed id, 0 of them another's"]
    if run.broken:
        lines = lines[:1] + [f"BROKEN: {len(run.broken)}", *run.broken[:20]]
    print("\n".join(lines))
    if options.results:
        report.write(options.results, "Framing: mutated requests to five origins", lines)
    sys.exit(1 if run.broken else 0)


if __name__ == "__main__":
    main()
