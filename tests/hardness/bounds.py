#!/usr/bin/env python3
"""What the gateway holds, spends and refuses when its clients and providers are slow, many or greedy.

  tests/hardness/bounds.py [--size ci|release] [--results FILE] [case ...]

Client, provider and gateway are processes of their own. Memory is the gateway's resident set, CPU its user and system
time. Exit code 1 when a bound broke."""

import argparse
import asyncio
import json
import multiprocessing
import os
import pathlib
import random
import resource
import select
import socket
import sys
import threading
import time

import report

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import Gateway, Mock, build_dir  # noqa: E402,F401

KIB, MIB = 1024, 1024 * 1024


class Broken(AssertionError):
    pass


def must(condition, message):
    if not condition:
        raise Broken(message)


# The gateway as a process.

def status_kib(process, field):
    for line in open(f"/proc/{process.pid}/status", encoding="ascii"):
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def rss(process):
    return status_kib(process, "VmRSS") * KIB


def peak(process):
    return status_kib(process, "VmHWM") * KIB


def reset_peak(process):
    pathlib.Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")


def cpu_s(process):
    fields = open(f"/proc/{process.pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fds(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def start(port, server="", more="", models="[m]", connections=256, limit_files=None, env=None):
    gateway = Gateway(f'providers:\n  - {{name: up, base_url: "http://127.0.0.1:{port}/v1", models: {models}, max_connections: {connections}}}\n'
                      "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 1}}]\n" + more, server=server, env=env)
    if limit_files is None:
        return gateway.start()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit_files, before[1]))  # inherited
    try:
        return gateway.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# Clients.

def chat(extra="", stream=False):
    return ('{"model":"m",' + ('"stream":true,' if stream else "") + extra + '"messages":[{"role":"user","content":"hello"}]}').encode()


def post(body, headers=""):
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def connect(port, receive_buffer=0):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    return connection


def read_answer(connection):
    """Status and body of one sized answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return 0, data
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    headers = {line.split(b":", 1)[0].lower(): line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:]}
    size = int(headers.get(b"content-length", b"0"))
    while len(body) < size:
        more = connection.recv(65536)
        if not more:
            break
        body += more
    read_answer.headers = headers
    return int(head.split()[1]), body


class Probe:
    """A client that behaves: one request after another on one connection, each timed."""

    def __init__(self, port, pause_s=0.02):
        self.port, self.pause_s = port, pause_s
        self.times, self.failures = [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        connection = connect(self.port)
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                connection.sendall(post(chat()))
                status, _ = read_answer(connection)
                if status != 200:
                    raise OSError(f"status {status}")
                self.times.append(time.monotonic() - began)
            except OSError as error:
                self.failures.append(str(error))
                connection.close()
                connection = connect(self.port)
            self.stopping.wait(self.pause_s)

    def stop(self):
        self.stopping.set()
        self.thread.join(timeout=30)
        ordered = sorted(self.times)
        return (ordered[int(len(ordered) * 0.99)] if ordered else 0.0) * 1000


class Crowd:
    """Many connections of one thread; notes when each was ended by the other side."""

    def __init__(self, port, count, first, receive_buffer=0):
        self.poll = select.epoll()
        self.open, self.began, self.ended, self.statuses = {}, {}, {}, {}
        for i in range(count):
            connection = connect(port, receive_buffer)
            connection.sendall(first(i) if callable(first) else first)
            connection.setblocking(False)
            self.open[connection.fileno()] = connection
            self.began[connection.fileno()] = time.monotonic()
            self.poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP)

    def drip(self, byte):
        for connection in list(self.open.values()):
            try:
                connection.send(byte)
            except OSError:
                pass

    def reap(self, seconds):
        """Takes what arrives for a while; closed ones are noted."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self.open:
            for fd, _ in self.poll.poll(left):
                try:
                    data = self.open[fd].recv(65536)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if data:
                    if data.startswith(b"HTTP/1.1 "):
                        self.statuses[fd] = int(data[9:12])
                    continue
                self.ended[fd] = time.monotonic() - self.began[fd]
                self.poll.unregister(fd)
                self.open.pop(fd).close()

    def close(self):
        for connection in self.open.values():
            connection.close()
        self.open = {}


def idle_p99(port, seconds=1.5):
    probe = Probe(port)
    time.sleep(seconds)
    return probe.stop()


def slow(name, size, gateway, mock, first, drip, limit_s, receive_buffer=0, drip_every=0.5, status=408):
    """A crowd of slow clients beside a probe: cut in time, cheap, and the probe hears nothing of it."""
    count = size
    calm = idle_p99(gateway.ports["proxy"])
    before = rss(gateway.process)
    probe = Probe(gateway.ports["proxy"])
    crowd = Crowd(gateway.ports["proxy"], count, first, receive_buffer)
    crowd_up = time.monotonic()
    highest = rss(gateway.process)
    while crowd.open and time.monotonic() - crowd_up < limit_s + 20:
        if drip:
            crowd.drip(drip)
        crowd.reap(drip_every)
        highest = max(highest, rss(gateway.process))
    p99 = probe.stop()
    left = len(crowd.open)
    crowd.close()
    longest = max(crowd.ended.values(), default=0)
    each = max(0, highest - before) / count / KIB
    must(not probe.failures, f"{name}: the probe failed: {probe.failures[:3]}")
    must(left == 0, f"{name}: {left} of {count} slow clients were never cut")
    # The crowd itself takes time to be served in; the limit is the connection's own.
    must(longest <= limit_s + 1.5 + drip_every, f"{name}: one was cut after {longest:.1f} s, the limit is {limit_s} s")
    # The goal is 16 KiB; a slow body is a little over it: connection, head, first page of the body, and its coroutines.
    must(each <= 18 + 2048 / count, f"{name}: {each:.1f} KiB per slow client")
    told = sum(1 for s in crowd.statuses.values() if s == status)
    if status:
        must(told == count, f"{name}: {told} of {count} were told {status}")
    return (f"{count} clients, all cut after at most {longest:.1f} s (limit {limit_s} s); {each:.1f} KiB each; "
            f"probe {len(probe.times)} requests, 0 failed, p99 {p99:.1f} ms (idle {calm:.1f} ms)")


def slow_headers(release):
    mock = Mock()
    gateway = start(mock.port, server="header_timeout: 10s" if release else "header_timeout: 2s")
    try:
        return slow("slow_headers", 9000 if release else 300, gateway, mock, b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX: ", b"y",
                    10 if release else 2)
    finally:
        gateway.stop()
        mock.stop()


def slow_bodies(release):
    mock = Mock()
    gateway = start(mock.port)
    try:
        return slow("slow_bodies", 9000 if release else 300, gateway, mock,
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{",
                    b" ", 10.5, drip_every=1.0)
    finally:
        gateway.stop()
        mock.stop()


class Firehose:
    """A provider in a process of its own that streams events without end, as fast as they are taken."""

    def __init__(self, bytes_each):
        self.sent = multiprocessing.Value("Q", 0)
        receive, send = multiprocessing.Pipe(False)
        self.process = multiprocessing.Process(target=self.main, args=(send, bytes_each), daemon=True)
        self.process.start()
        self.port = receive.recv()

    def main(self, pipe, bytes_each):
        async def serve(reader, writer):
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = int(next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")))
                    body = await reader.readexactly(size)
                    if b'"stream":true' not in body:
                        text = b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}'
                        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
                        await writer.drain()
                        continue
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                    event = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n' % (b"w" * 3900)
                    piece = b"%x\r\n%b\r\n" % (len(event), event)
                    for _ in range(bytes_each // len(piece)):
                        writer.write(piece)
                        await writer.drain()
                        self.sent.value += len(piece)
                    writer.write(b"6\r\ndata: \r\n0\r\n\r\n")
                    await writer.drain()
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        async def run():
            server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.Event().wait()

        asyncio.run(run())

    def stop(self):
        self.process.kill()
        self.process.join()


def slow_readers(release):
    """Streams of 100 MiB that nobody reads: held back at the provider, cut by the write limit."""
    count = 500 if release else 50
    firehose = Firehose(100 * MIB)
    gateway = start(firehose.port, server="write_timeout: 40s" if release else "write_timeout: 12s", connections=1000)
    try:
        calm = idle_p99(gateway.ports["proxy"])
        before = rss(gateway.process)
        probe = Probe(gateway.ports["proxy"])
        crowd = Crowd(gateway.ports["proxy"], count, post(chat(stream=True)), 16 * KIB)
        held_sent, still = -1, False
        for _ in range(25):  # until every buffer on the way is full
            time.sleep(1)
            still = firehose.sent.value == held_sent
            held_sent = firehose.sent.value
            if still:
                break
        growth = rss(gateway.process) - before
        must(still, "slow_readers: the provider went on while nobody read")
        # 16 KiB read off the provider, as much in whole events on their way to the client (in a string that doubles), what
        # is kept to count tokens by, both connections and their coroutines.
        must(growth <= count * 64 * KIB + 16 * MIB, f"slow_readers: {growth / MIB:.0f} MiB for {count} streams")
        # Kernel buffers on both legs, at most a few MiB a stream; not the 100 MiB.
        must(held_sent <= count * 12 * MIB, f"slow_readers: {held_sent / MIB:.0f} MiB were taken off the provider")
        deadline = time.monotonic() + (45 if release else 15)
        while fds(gateway.process) > 60 and time.monotonic() < deadline:
            time.sleep(0.2)
        must(fds(gateway.process) <= 60, f"slow_readers: {fds(gateway.process)} descriptors are still open after the write limit")
        p99 = probe.stop()
        must(not probe.failures, f"slow_readers: the probe failed: {probe.failures[:3]}")
        crowd.close()
        return (f"{count} streams of 100 MiB that nobody reads: {growth / count / KIB:.1f} KiB of memory each, {held_sent / count / MIB:.2f} MiB "
                f"taken off the provider each (in kernel buffers), all cut after write_timeout; probe p99 {p99:.1f} ms (idle {calm:.1f} ms), 0 failed")
    finally:
        gateway.stop()
        firehose.stop()


def idle(release):
    count = 9900 if release else 1500
    mock = Mock()
    gateway = start(mock.port, server="keep_alive_timeout: 10m, max_connections: 20000")
    try:
        idle_p99(gateway.ports["proxy"], 0.5)
        before = rss(gateway.process)
        crowd = []
        for _ in range(count):
            connection = connect(gateway.ports["proxy"])
            connection.sendall(post(chat()))
            must(read_answer(connection)[0] == 200, "idle: a request failed")
            crowd.append(connection)
        growth = rss(gateway.process) - before
        used = cpu_s(gateway.process)
        time.sleep(2)
        used = cpu_s(gateway.process) - used
        for connection in crowd:
            connection.sendall(post(chat()))
            must(read_answer(connection)[0] == 200, "idle: a connection that was idle does not serve")
            connection.close()
        must(growth <= count * 10 * KIB + 4 * MIB, f"idle: {growth / count / KIB:.1f} KiB per idle connection")
        must(used <= 0.2, f"idle: {used:.2f} s of CPU in 2 s of nothing")
        return f"{count} idle keep-alive connections: {growth / MIB:.1f} MiB, {growth / count / KIB:.2f} KiB each; CPU while idle {used / 2 * 100:.1f} %"
    finally:
        gateway.stop()
        mock.stop()


def streams(release):
    count = 9500 if release else 500
    mock = Mock("--gap-ms", "1000", "--deltas", "600")
    gateway = start(mock.port, server="max_connections: 20000", connections=10000,
                    more="admission: {max_in_flight: 20000}\ntiers: {max_queue: 20000}\n")
    try:
        before = rss(gateway.process)
        crowd = Crowd(gateway.ports["proxy"], count, post(chat(stream=True)))
        crowd.reap(4)
        must(all(s == 200 for s in crowd.statuses.values()) and len(crowd.statuses) == count,
             f"streams: {len(crowd.statuses)} of {count} began, statuses {set(crowd.statuses.values())}")
        growth = rss(gateway.process) - before
        used = cpu_s(gateway.process)
        crowd.reap(5)
        used = (cpu_s(gateway.process) - used) / 5
        must(len(crowd.open) == count, f"streams: {count - len(crowd.open)} were ended")
        crowd.close()
        must(growth <= count * 54 * KIB + 8 * MIB, f"streams: {growth / count / KIB:.1f} KiB per live stream")
        return f"{count} live streams at 1 event/s: {growth / MIB:.0f} MiB, {growth / count / KIB:.1f} KiB each; CPU {used * 100:.0f} % of a core"
    finally:
        gateway.stop()
        mock.stop()


def overload(_):
    """Past its caps the gateway says so, quickly, and goes on serving whom it serves."""
    mock = Mock("--delay-ms", "1500")
    gateway = start(mock.port, server="max_connections: 40", more="admission: {max_in_flight: 8}\ntiers: {max_queue: 4, regular: {max_wait: 300ms}}\n")
    try:
        port = gateway.ports["proxy"]
        held = [connect(port) for _ in range(40)]
        time.sleep(0.2)
        took = []
        for _ in range(20):
            began = time.monotonic()
            refused = connect(port)
            status, _body = read_answer(refused)
            took.append(time.monotonic() - began)
            must(status == 503 and b"retry-after" in read_answer.headers, f"overload: connection 41 was told {status}")
            refused.close()
        for connection in held:
            connection.sendall(post(chat()))
        statuses = []
        for connection in held:
            statuses.append(read_answer(connection)[0])
            if statuses[-1] == 503:
                must(b"retry-after" in read_answer.headers, "overload: 503 without Retry-After")
        must(statuses.count(200) >= 6 and statuses.count(200) + statuses.count(503) == 40, f"overload: {statuses}")
        return (f"connections past max_connections: 503 with Retry-After in at most {max(took) * 1000:.0f} ms; 40 requests at max_in_flight 8: "
                f"{statuses.count(200)} served, {statuses.count(503)} told 503 with Retry-After")
    finally:
        gateway.stop()
        mock.stop()


def descriptors(_):
    """Out of file descriptors: no spinning, whoever is connected is served, and it recovers."""
    mock = Mock()
    gateway = start(mock.port, server="max_connections: 10000", limit_files=160)
    try:
        port = gateway.ports["proxy"]
        first = connect(port)
        first.sendall(post(chat()))
        must(read_answer(first)[0] == 200, "descriptors: before")
        crowd = [connect(port) for _ in range(400)]  # the rest wait in the backlog
        time.sleep(0.5)
        used = cpu_s(gateway.process)
        time.sleep(3)
        used = (cpu_s(gateway.process) - used) / 3
        must(fds(gateway.process) >= 150, f"descriptors: only {fds(gateway.process)} are used: nothing was exhausted")
        must(used < 0.05, f"descriptors: {used * 100:.0f} % of a core while out of descriptors")
        first.sendall(post(chat()))
        status, body = read_answer(first)
        must(status == 200, f"descriptors: a connected client was told {status} {body[:200]}")
        for connection in crowd:
            connection.close()
        time.sleep(0.5)
        late = connect(port)
        late.sendall(post(chat()))
        must(read_answer(late)[0] == 200, "descriptors: it does not recover")
        return f"400 connections at a limit of 160 descriptors: {used * 100:.1f} % CPU, a connected client served, new ones served as soon as there is room"
    finally:
        gateway.stop()
        mock.stop()


def memory(_):
    """Near its memory limit: regular requests are shed first, fast ones last, and it recovers."""
    mock = Mock()
    limit = 300 * MIB
    gateway = start(mock.port, more=f"admission: {{max_memory: {limit // MIB}MiB, max_body_memory: 4GiB}}\nrequest: {{max_body: 64MiB}}\n")
    body = 8 * MIB
    fill = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nx-neuron-tier: fast\r\nContent-Type: application/json\r\n"
            f"Content-Length: {body}\r\n\r\n").encode() + b" " * (body - 1)
    held = []

    def ask(headers=""):
        connection = connect(gateway.ports["proxy"])
        connection.sendall(post(chat(), headers))
        status, _ = read_answer(connection)
        connection.close()
        must(status != 503 or b"retry-after" in read_answer.headers, "memory: 503 without Retry-After")
        return status

    def hold_until(share):
        for _ in range(80):
            if rss(gateway.process) >= share * limit:
                break
            held.append(connect(gateway.ports["proxy"]))
            held[-1].settimeout(5)
            try:
                held[-1].sendall(fill)
            except OSError:
                pass  # shed while it was sent
            time.sleep(0.05)
        time.sleep(0.3)
        return rss(gateway.process) / limit

    try:
        must(ask() == 200, "memory: before")
        first = hold_until(0.87)
        regular, fast = ask(), ask("x-neuron-tier: fast\r\n")
        must(0.85 <= first < 0.95, f"memory: could not stop between the marks: {first:.2f}")
        must((regular, fast) == (503, 200), f"memory: at {first * 100:.0f} % regular got {regular}, fast {fast}")
        second = hold_until(0.955)
        must(second <= 1.05, f"memory: it grew to {second * 100:.0f} % of its limit")
        regular, fast = ask(), ask("x-neuron-tier: fast\r\n")
        must((regular, fast) == (503, 503), f"memory: at {second * 100:.0f} % regular got {regular}, fast {fast}")
        for connection in held:
            connection.close()
        began = time.monotonic()
        while ask() != 200:
            must(time.monotonic() - began < 10, f"memory: still refusing 10 s after the load went, at {rss(gateway.process) / limit * 100:.0f} %")
            time.sleep(0.1)
        return (f"limit 300 MiB: at {first * 100:.0f} % regular 503 with Retry-After and fast 200, at {second * 100:.0f} % both 503; "
                f"serving again {time.monotonic() - began:.1f} s after the load went")
    finally:
        gateway.stop()
        mock.stop()


def greedy_inputs():
    """name, request bytes, accepted statuses. Each is the worst that a limit lets through, or the least that it stops."""
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    lines = "".join(f"X{i}: y\r\n" for i in range(96))

    def sized(body, headers=""):
        return f"{head}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def chunked(body, step):
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(body[i:i + step]), body[i:i + step]) for i in range(0, len(body), step))
        return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"

    message = b'{"role":"user","content":""},'
    long_text = b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * 4_000_000 + b'"}]}'
    escapes = b'{"model":"m","messages":[{"role":"user","content":"' + b"\\u0041" * 600_000 + b'"}]}'
    many = b'{"model":"m","messages":[' + message * 120_000 + message[:-1] + b"]}"
    keys = b'{"model":"m",' + b",".join(b'"k%d":0' % i for i in range(200_000)) + b',"messages":[{"role":"user","content":"x"}]}'
    numbers = b'{"model":"m","logit_bias":[' + b",".join([b"1"] * 1_500_000) + b'],"messages":[{"role":"user","content":"x"}]}'
    return [
        ("100 header lines", f"{head}{lines}Content-Length: 0\r\n\r\n".encode(), {400}),
        ("a header of 15 KiB", f"{head}X: {'y' * 15000}\r\nContent-Length: 0\r\n\r\n".encode(), {400}),
        ("headers over 16 KiB", f"{head}X: {'y' * 17000}\r\n\r\n".encode(), {431}),
        ("a target over 8 KiB", f"GET /{'x' * 9000} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), {414}),
        ("a body over max_body", f"{head}Content-Length: 99999999999\r\n\r\n".encode(), {413}),
        ("a text of 4 MB", sized(long_text), {200}),
        ("600,000 escapes", sized(escapes), {200}),
        ("120,000 messages", sized(many), {200, 400, 413}),
        ("200,000 keys", sized(keys), {200, 400}),
        ("1,500,000 numbers", sized(numbers), {200, 400}),
        ("arrays 100,000 deep", sized(b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), {400}),
        ("objects 100,000 deep", sized(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), {400}),
        ("100,000 open arrays", sized(b"[" * 100_000), {400}),
        ("n = 1,000,000", sized(chat('"n":1000000,')), {400}),
        ("max_tokens = 2^62", sized(chat('"max_tokens":4611686018427387904,')), {200, 400}),
        ("a gzip bomb", sized(bytes(random.Random(1).randbytes(20_000)), "Content-Encoding: gzip\r\n"), {415}),
        ("chunks of one byte", chunked(chat() + b" " * 100_000, 1), {200, 400}),
        ("a chunk extension of 64 KiB", f"{head}Transfer-Encoding: chunked\r\n\r\n1;{'a' * 65536}\r\nx\r\n".encode(), {400}),
        ("trailers of 64 KiB", f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n".encode() + b"X: y\r\n" * 11000 + b"\r\n", {400}),
        ("40 pipelined requests", sized(chat()) * 40, {200}),
    ]


def amplification(release):
    """Memory at most 10 times what was sent plus 256 KiB each, CPU at most 10 times the client's."""
    mock = Mock()
    worst_memory, worst_cpu, lines = ("", 0.0), ("", 0.0), 0
    gateway = start(mock.port, more="admission: {max_body_memory: 4GiB}\n")
    try:
        port = gateway.ports["proxy"]
        idle_p99(port, 0.5)
        for name, data, statuses in greedy_inputs():
            many = 16 if len(data) > 100_000 else 100 if not release else 400
            time.sleep(0.3)
            base = rss(gateway.process)
            reset_peak(gateway.process)
            gateway_cpu, client_cpu = cpu_s(gateway.process), time.process_time()
            crowd = [connect(port) for _ in range(many)]
            for connection in crowd:
                connection.setblocking(True)
            threads = [threading.Thread(target=feed, args=(connection, data)) for connection in crowd]
            for thread in threads:
                thread.start()
            answers = []
            for connection, thread in zip(crowd, threads):
                try:
                    answers.append(read_answer(connection)[0])
                except OSError:
                    answers.append(0)
                thread.join(timeout=30)
                connection.close()
            client_cpu = time.process_time() - client_cpu
            gateway_cpu = cpu_s(gateway.process) - gateway_cpu
            must(set(answers) <= statuses | {0} and statuses & set(answers), f"amplification: {name} was told {set(answers)}, expected {statuses}")
            grown = max(0, peak(gateway.process) - base)
            allowed = 10 * len(data) * many + many * 256 * KIB
            must(grown <= allowed, f"amplification: {name} x {many} took {grown / MIB:.1f} MiB for {len(data) * many / MIB:.1f} MiB sent")
            factor = grown / (len(data) * many) if len(data) > 4096 else grown / (many * 256 * KIB)
            if len(data) > 100_000 and factor > worst_memory[1]:
                worst_memory = (name, factor)
            cpu_factor = gateway_cpu / max(client_cpu, 0.01)
            # A client that only copies costs next to nothing, so reading at 100 MB/s is in order whatever it costs.
            must(gateway_cpu <= 10 * client_cpu + 0.1 + len(data) * many * 1e-8,
                 f"amplification: {name} x {many} took {gateway_cpu:.2f} s of CPU, the client {client_cpu:.2f} s")
            if len(data) * many < 10 * MIB and cpu_factor > worst_cpu[1]:
                worst_cpu = (name, cpu_factor)
            lines += 1
            if release:
                print(f"  {name} x {many}: {len(data)} bytes each, {grown / MIB:.1f} MiB peak, gateway {gateway_cpu:.2f} s, client {client_cpu:.2f} s, {sorted(set(answers))}", flush=True)
        connection = connect(port)
        connection.sendall(post(chat()))
        must(read_answer(connection)[0] == 200, "amplification: it does not serve any more")
        return (f"{lines} greedy inputs, many at once: all within 10 x the bytes sent + 256 KiB each; the most {worst_memory[1]:.1f} x ({worst_memory[0]}); "
                f"CPU at most {worst_cpu[1]:.1f} x the client's ({worst_cpu[0]})")
    finally:
        gateway.stop()
        mock.stop()


def waves(release):
    """Crowds that come and go: the tenth leaves the gateway as the second did."""
    many, rounds = (2_000, 30) if release else (200, 10)
    mock = Mock()
    gateway = start(mock.port, more="admission: {max_in_flight: 64}\ntiers: {max_queue: 32}\n")
    try:
        port = gateway.ports["proxy"]
        after, served, shed = [], 0, 0
        for _ in range(rounds):
            crowd = [connect(port) for _ in range(many)]
            for i, connection in enumerate(crowd):
                connection.sendall(post(chat(stream=i % 3 == 0)) if i % 4 else post(chat())[:60])  # some never finish
            for i, connection in enumerate(crowd):
                if i % 4 == 1:
                    connection.close()
            for i, connection in enumerate(crowd):
                if i % 4 == 2:
                    status = int(connection.recv(4096).split(b" ", 2)[1])
                    must(status in (200, 503, 429), f"waves: {status}")
                    served, shed = served + (status == 200), shed + (status != 200)
            for connection in crowd:
                connection.close()
            deadline = time.monotonic() + 10
            while fds(gateway.process) > 120 and time.monotonic() < deadline:
                time.sleep(0.02)
            after.append((fds(gateway.process), rss(gateway.process)))
        must(served > 0, "waves: none was served")
        # The pools keep up to one connection a place to the provider.
        must(after[-1][0] <= after[1][0] + 64, f"waves: descriptors {after[1][0]} after the second, {after[-1][0]} after the last")
        must(after[-1][1] <= after[1][1] * 1.1 + 8 * MIB, f"waves: {after[1][1] / MIB:.0f} MiB after the second, {after[-1][1] / MIB:.0f} MiB after the last")
        connection = connect(port)
        connection.sendall(post(chat()))
        must(read_answer(connection)[0] == 200, "waves: it does not serve any more")
        return (f"{rounds} crowds of {many}, a quarter of them leaving at once and a quarter never finishing their heads: {served} served, {shed} shed of those that "
                f"waited; after the second and the last wave {after[1][0]} and {after[-1][0]} descriptors, {after[1][1] / MIB:.0f} and {after[-1][1] / MIB:.0f} MiB")
    finally:
        gateway.stop()
        mock.stop()


def address_cap(release):
    """One address opens all it can; another one is served beside it."""
    cap = 1_000 if release else 50
    mock = Mock()
    gateway = start(mock.port, server=f"max_connections_per_address: {cap}")
    try:
        port = gateway.ports["proxy"]
        held = [connect(port) for _ in range(cap)]
        held[0].sendall(post(chat()))
        must(read_answer(held[0])[0] == 200, "address_cap: within the cap")
        refused = 0
        for _ in range(20):
            connection = connect(port)
            status, _ = read_answer(connection)
            must(status == 429 and b"retry-after" in read_answer.headers and read_answer.headers.get(b"connection") == b"close",
                 f"address_cap: past the cap {status}")
            refused += 1
            connection.close()
        other = socket.socket()
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", port))
        other.sendall(post(chat()))
        must(read_answer(other)[0] == 200, "address_cap: another address")
        held.pop().close()
        time.sleep(0.2)
        connection = connect(port)
        connection.sendall(post(chat()))
        must(read_answer(connection)[0] == 200, "address_cap: after one has gone")
        return f"{cap} connections from one address held, {refused} more got 429 and were closed, another address was served beside"
    finally:
        gateway.stop()
        mock.stop()


def feed(connection, data):
    try:
        connection.sendall(data)
    except OSError:
        pass


CASES = {"slow_headers": slow_headers, "slow_bodies": slow_bodies, "slow_readers": slow_readers, "idle": idle, "streams": streams,
         "overload": overload, "memory": memory, "descriptors": descriptors, "amplification": amplification, "waves": waves, "address_cap": address_cap}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("ci", "release"), default="ci")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES])
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    lines, failed = [], 0
    for name in options.cases or CASES:
        try:
            lines.append(f"{name}: {CASES[name](options.size == 'release')}")
        except Broken as error:
            failed += 1
            lines.append(f"{name}: BROKEN: {error}")
        print(lines[-1], flush=True)
        for process in Gateway.started:
            if process.poll() is None:
                process.kill()
                process.wait()
    if options.results:
        for line in lines:
            case, text = line.split(": ", 1)
            report.write(options.results, case, [text])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
