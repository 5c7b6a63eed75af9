"""What tests/hardness/bounds.py attacks with and measures by: crowds of clients, a provider without an end, greedy inputs, and the
gateway as a process."""

import asyncio
import collections
import contextlib
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

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import Gateway, Mock  # noqa: E402,F401  (re-exported)

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


def taken(gateway, connections):
    """Waits until the gateway counts as many open connections: connect() is done before the worker that accepts has run, and workers
    accept in no order among themselves."""
    deadline = time.monotonic() + 60
    while True:
        counted = gateway.metric("ganglion_connections", listener="proxy")
        if counted == connections:
            return
        must(time.monotonic() < deadline, f"{counted} connections are counted as open, not {connections}")
        time.sleep(0.01)


@contextlib.contextmanager
def serving(upstream, **settings):
    """A gateway in front of `upstream`; both end with the case."""
    gateway = start(upstream.port, **settings)
    try:
        yield gateway
    finally:
        gateway.stop()
        upstream.stop()


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
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    return connection


Answer = collections.namedtuple("Answer", "status body headers")


def read_answer(connection):
    """One sized answer; status 0: it was closed before."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return Answer(0, data, {})
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    headers = {line.split(b":", 1)[0].lower(): line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:]}
    size = int(headers.get(b"content-length", b"0"))
    while len(body) < size:
        more = connection.recv(65536)
        if not more:
            break
        body += more
    return Answer(int(head.split()[1]), body, headers)


def ask(connection, headers=""):
    connection.sendall(post(chat(), headers))
    return read_answer(connection)


class Stalls:
    """How long this machine stood still at a time, at most: a bound on when something happens is later by that."""

    def __init__(self):
        self.worst, self.over = 0.0, False
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.over:
            began = time.monotonic()
            time.sleep(0.02)
            self.worst = max(self.worst, time.monotonic() - began - 0.02)

    def stop(self):
        self.over = True
        return self.worst


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
                answer = ask(connection)
                if answer.status != 200:
                    raise OSError(f"status {answer.status}")
                self.times.append(time.monotonic() - began)
            except OSError as error:
                self.failures.append(str(error))
                connection.close()
                connection = connect(self.port)
            self.stopping.wait(self.pause_s)

    def stop(self):
        self.stopping.set()
        self.thread.join(timeout=120)
        ordered = sorted(self.times)
        return (ordered[int(len(ordered) * 0.99)] if ordered else 0.0) * 1000


class Crowd:
    """Many connections of one thread; notes when each was ended by the other side."""

    def __init__(self, port, count, first, receive_buffer=0):
        self.port, self.first, self.receive_buffer = port, first, receive_buffer
        self.poll = select.epoll()
        self.open, self.began, self.ended, self.statuses = {}, {}, {}, {}
        self.add(count)

    def add(self, count):
        port, first, receive_buffer = self.port, self.first, self.receive_buffer
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

    def answered(self):
        """All have got the head of an answer; False: not within minutes."""
        late = time.monotonic() + 120
        while len(self.statuses) < len(self.open) + len(self.ended) and time.monotonic() < late:
            self.reap(0.2)
        return len(self.statuses) == len(self.open) + len(self.ended)

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


def feed(connection, data):
    try:
        connection.sendall(data)
    except OSError:
        pass


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
