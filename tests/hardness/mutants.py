#!/usr/bin/env python3
"""Raw mutants of good requests in random segments against the running gateway, with a healthy client beside them.

  tests/hardness/mutants.py [--mutants N] [--seed S] [--results FILE]

Each connection must end in well-framed answers (2xx, 4xx, 503) or closed, the healthy client gets 200 every time, memory
comes back, and nothing crashes: with GANGLION_BUILD_DIR at a build with sanitizers, no report of theirs either. The
seed is printed; the same seed makes the same mutants. Exit code 1 when an invariant broke."""

import argparse
import asyncio
import collections
import pathlib
import random
import resource
import sys
import time

import framing
import report
from bounds import MIB, chat, post, rss

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import Gateway, Mock, build_dir  # noqa: E402

HEADER_MS = 300  # of the gateway, for heads without an end
IDLE_S = 1.0


def mutant(rng):
    """Bytes of one connection: a mutated request, alone or between good ones."""
    good = framing.request("m", f"{rng.getrandbits(60):015x}", rng)
    bad = framing.mutate(good, rng, framing.request("m", "other", rng))
    if rng.random() < 0.2:
        bad = bytearray(bad)
        for _ in range(rng.choice([1, 4, 40])):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        bad = bytes(bad)
    return (good if rng.random() < 0.3 else b"") + bad + (good if rng.random() < 0.2 else b"")


def segments(data, rng):
    if rng.random() < 0.1 and len(data) < 400:
        return [data[i:i + 1] for i in range(len(data))]
    out = []
    while data:
        size = len(data) if rng.random() < 0.4 else rng.randrange(1, len(data) + 1)
        out.append(data[:size])
        data = data[size:]
    return out


class Run:
    def __init__(self, options):
        self.options = options
        self.rng = random.Random(options.seed)
        self.mock = Mock()
        self.gateway = Gateway(f'providers:\n  - {{name: up, base_url: "http://127.0.0.1:{self.mock.port}/v1", models: [m]}}\n'
                               "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 1}}]\n",
                               server=f"header_timeout: {HEADER_MS}ms").start()
        self.statuses = collections.Counter()
        self.broken, self.silent, self.connections, self.probes, self.late = [], 0, 0, 0, 0

    async def one(self, data, pieces):
        self.connections += 1
        answer = b""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.ports["proxy"])
        except OSError as error:
            self.broken.append(f"no connection: {error}")
            return
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while more := await asyncio.wait_for(reader.read(65536), IDLE_S + (2.0 if not answer else 0)):
                answer += more
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()
        answers, rest = framing.parse(answer)
        if rest:
            self.broken.append(f"an answer that is no HTTP: {rest[:80]!r} to {data[:200]!r}")
        for status, _, _ in answers:
            self.statuses[status] += 1
            if not (status == 200 or 400 <= status < 500 or status == 503):
                self.broken.append(f"{status} to {data[:200]!r}")
        self.silent += not answers

    async def probe(self, stop):
        request = post(chat())
        while not stop.is_set():
            try:
                began = time.monotonic()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.ports["proxy"])
                writer.write(request)
                # On a machine that stands still this client is a slow one itself, and rightly cut.
                late = time.monotonic() - began > HEADER_MS / 2000
                line = await asyncio.wait_for(reader.readline(), 10)
                writer.close()
                if late and not line:
                    self.late += 1
                    continue
                self.probes += 1
                if not line.startswith(b"HTTP/1.1 200"):
                    self.broken.append(f"the healthy client got {line!r}")
            except (OSError, asyncio.TimeoutError) as error:
                self.broken.append(f"the healthy client failed: {error!r}")
            await asyncio.sleep(0.1)

    async def all(self):
        stop = asyncio.Event()
        probing = asyncio.create_task(self.probe(stop))
        left = self.options.mutants
        end = time.monotonic() + self.options.seconds if self.options.seconds else None

        async def worker():
            nonlocal left
            while left > 0 and not self.broken[20:] and (end is None or time.monotonic() < end):
                left -= 1
                data = mutant(self.rng)
                await self.one(data, segments(data, self.rng))

        await self.one(b"", [post(chat())])
        await asyncio.gather(*(worker() for _ in range(64)))
        stop.set()
        await probing

    def go(self):
        asyncio.run(self.one(b"", [post(chat())]))
        before = rss(self.gateway.process)
        began = time.monotonic()
        asyncio.run(self.all())
        took = time.monotonic() - began
        time.sleep(1)
        grown = rss(self.gateway.process) - before
        if self.gateway.process.poll() is not None:
            self.broken.append(f"the gateway ended with {self.gateway.process.poll()}")
        else:
            self.gateway.stop()
        log = (self.gateway.directory / "gateway.log").read_text(encoding="utf-8", errors="replace")
        sanitized = "asan" in str(build_dir()) or "fuzz" in str(build_dir())
        for line in log.splitlines():
            if "Sanitizer" in line or "runtime error" in line:
                self.broken.append(line[:300])
        # A sanitizer keeps freed memory in quarantine; pools and arenas take some on first use.
        if not sanitized and grown > 32 * MIB:
            self.broken.append(f"memory grew by {grown / MIB:.1f} MiB")
        self.mock.stop()
        answers = sum(self.statuses.values())
        text = (f"{self.connections} connections in {took:.0f} s{' under sanitizers' if sanitized else ''}, seed {self.options.seed}: {answers} well-framed answers "
                f"({', '.join(f'{count} x {status}' for status, count in sorted(self.statuses.items()))}), {self.silent} closed or left "
                f"without one, the healthy client 200 in {self.probes} of {self.probes} ({self.late} times it was late itself), memory {grown / MIB:+.1f} MiB")
        return self.broken, text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--results", type=pathlib.Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        broken, text = Run(options).go()
    finally:
        for process in Gateway.started:
            if process.poll() is None:
                process.kill()
                process.wait()
    for line in broken[:20]:
        print("BROKEN:", line)
    if not broken:
        print(text)
        if options.results:
            report.write(options.results, "Mutants", [text])
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
