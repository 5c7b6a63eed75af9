"""What the fault tests share: an upstream that misbehaves as each request asks, clients that note what they got, and the
check of the three journals against each other (U upstream, C clients, G the gateway's ledger).

A run has one seed; everything random comes from it, so the same seed makes the same run."""

import asyncio
import dataclasses
import json
import os
import pathlib
import random
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import ROOT, Gateway, build_dir  # noqa: E402,F401  (re-exported)


LONG_S = 60  # for what takes no time, on a machine that may stand still for seconds


class Broken(AssertionError):
    """An invariant does not hold."""


def must(condition, message):
    if not condition:
        raise Broken(message)


@dataclasses.dataclass
class Attempt:
    """U: one request as the upstream saw it."""
    request_id: str
    plan: dict
    tokens: int = 0         # emitted
    finished: bool = False  # its last byte was written
    cut_s: float = 0.0      # when the gateway closed it early, seconds (monotonic)
    key: str = ""
    answer_id: str = ""     # no two answers have the same


@dataclasses.dataclass
class Seen:
    """C: one request as its client saw it."""
    request_id: str
    stream: bool
    status: int = 0
    whole: bool = False     # the full body, or [DONE]
    events: int = 0         # text events received
    body: bytes = b""
    headers: dict = dataclasses.field(default_factory=dict)
    left_s: float = 0.0     # when the client left on purpose
    error: str = ""


PROMPT_TOKENS = 25


def counts(tokens_out, tokens_in=PROMPT_TOKENS):
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_out + tokens_in}


# What an upstream says that an answer of so many tokens used: (with the first text, with the last choice, in events of
# their own behind it). A whole answer has the last of these.
NOTHING = ((), (), ())
USAGE = {
    "normal": lambda n: ((), (), (counts(n),)),
    "none": lambda n: NOTHING,
    "null": lambda n: ((), (None,), (None,)),
    "lie": lambda n: ((), (), (counts(1_000_000),)),
    "lie_small": lambda n: ((), (), (counts(1),)),
    "zero": lambda n: ((), (), (counts(0, 0),)),
    "twice": lambda n: ((), (), (counts(n), counts(n))),
    "grows": lambda n: ((), (counts(n - 1),), (counts(n),)),
    "early": lambda n: ((counts(1),), (), (counts(n),)),
    "only_early": lambda n: ((counts(n),), (), ()),
    "on_choice": lambda n: ((), (counts(n),), ()),
    "then_null": lambda n: ((), (counts(n),), (None,)),
    "words": lambda n: ((), (), ("plenty",)),
}
servers = []  # other processes that a case started


class Upstream:
    """An OpenAI-compatible server on a free loopback port, in a thread of its own. What it does with a request is the
    JSON object in the request's last message:

    deltas 8, gap_ms 0, delay_ms 0    the answer (a non-streamed one counts `deltas` output tokens too)
    usage normal|none|null|lie|...            see USAGE
    n 1                               so many choices, of `deltas` tokens each
    choices                           "empty": a chunk without choices between all others, or a whole answer without any
    cut_at K, how rst|fin|short       breaks off after K events: reset, clean close, or close inside a chunk
    status 500, retry_after 1         refuses
    fail_first N                      the first N attempts of this request (by its `nonce`) get `status`
    surplus true                      sends bytes after the answer's end
    """

    def __init__(self):
        self.attempts = []
        self.embeddings = 0
        self.failures = {}
        self.lock = threading.Lock()
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()

        def run():
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024))
            self.port = self.server.sockets[0].getsockname()[1]
            ready.set()
            self.loop.run_forever()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        ready.wait()

    def stop(self):
        async def end():
            self.server.close()
            running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop)
        self.thread.join()
        self.loop.close()

    async def serve(self, reader, writer):
        try:
            while await self.one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:] if ":" in line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
        if lines[0].split()[1].endswith("/embeddings"):
            return await self.embed(writer)
        plan = {}
        try:
            plan = json.loads(body["messages"][-1]["content"])
            plan = plan if isinstance(plan, dict) else {}
        except (KeyError, TypeError, ValueError):
            pass
        attempt = Attempt(headers.get("x-request-id", ""), plan, key=headers.get("authorization", ""))
        with self.lock:
            self.attempts.append(attempt)
            attempt.answer_id = f"chatcmpl-{len(self.attempts)}"
            nth = self.failures[plan.get("nonce")] = self.failures.get(plan.get("nonce"), 0) + 1
        if plan.get("delay_ms"):
            await asyncio.sleep(plan["delay_ms"] / 1000)
        if plan.get("status") and nth <= plan.get("fail_first", 1 << 30):
            extra = f"retry-after: {plan['retry_after']}\r\n" if "retry_after" in plan else ""
            text = json.dumps({"error": {"message": "as asked", "type": "test", "code": "test"}})
            writer.write(f"HTTP/1.1 {plan['status']} X\r\ncontent-type: application/json\r\n{extra}content-length: {len(text)}\r\n\r\n{text}".encode())
            await writer.drain()
            return True
        if body.get("stream"):
            try:
                return await self.stream(reader, writer, body, plan, attempt)
            except OSError:  # it was cut while it wrote
                attempt.cut_s = time.monotonic()
                raise
        return await self.whole(writer, plan, attempt)

    async def embed(self, writer):
        """Every text has the same embedding: all questions look alike."""
        self.embeddings += 1
        text = json.dumps({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
                           "usage": {"prompt_tokens": 3, "total_tokens": 3}})
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()
        return True

    @staticmethod
    def usage(plan):
        return USAGE[plan.get("usage", "normal")](plan.get("deltas", 8) * plan.get("n", 1))

    async def whole(self, writer, plan, attempt):
        deltas = plan.get("deltas", 8)
        count = 0 if plan.get("choices") == "empty" else plan.get("n", 1)
        answer = {"id": attempt.answer_id, "object": "chat.completion", "created": 1, "model": "m",
                  "choices": [{"index": i, "message": {"role": "assistant", "content": "word " * deltas}, "finish_reason": "stop"}
                              for i in range(count)]}
        told = [each for place in self.usage(plan) for each in place]
        if told:
            answer["usage"] = told[-1]
        text = json.dumps(answer).encode()
        attempt.tokens = deltas * plan.get("n", 1)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode()
        if "cut_at" in plan:
            writer.write(head + text[:len(text) * plan["cut_at"] // 64])
            return await self.cut(writer, plan)
        attempt.finished = True
        writer.write(head + text + (b"surplus" if plan.get("surplus") else b""))
        await writer.drain()
        return True

    async def stream(self, reader, writer, body, plan, attempt):
        usage_asked = (body.get("stream_options") or {}).get("include_usage", False)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

        async def event(data, pad=b""):
            text = b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n" + pad
            writer.write(b"%x\r\n%s\r\n" % (len(text), text))
            await writer.drain()

        base = {"id": attempt.answer_id, "object": "chat.completion.chunk", "created": 1, "model": "m"}
        with_first, with_last, behind = self.usage(plan) if usage_asked else NOTHING
        count = plan.get("n", 1)

        async def wait_gone():
            try:
                await reader.read(1)
            except OSError:
                pass

        gone = asyncio.ensure_future(wait_gone())
        for i in range(plan.get("deltas", 8)):
            if plan.get("cut_at") == i:
                gone.cancel()
                return await self.cut(writer, plan)
            if plan.get("gap_ms"):
                await asyncio.wait([gone], timeout=plan["gap_ms"] / 1000)
            if gone.done():
                attempt.cut_s = time.monotonic()
                return False
            for index in range(count):
                attempt.tokens += 1
                await event({**base, "choices": [{"index": index, "delta": {"content": "word "}, "finish_reason": None}]})
            if plan.get("choices") == "empty":
                await event({**base, "choices": []})
            for usage in with_first if i == 0 else ():
                await event({**base, "choices": [], "usage": usage})
        if plan.get("cut_at") == plan.get("deltas", 8):
            gone.cancel()
            return await self.cut(writer, plan)
        for index in range(count):
            last = {"usage": with_last[0]} if with_last and index == count - 1 else {}
            await event({**base, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}], **last})
        for usage in behind:
            await event({**base, "choices": [], "usage": usage})
        attempt.finished = True
        await event(b"[DONE]")
        writer.write(b"0\r\n\r\n" + (b"surplus" if plan.get("surplus") else b""))
        await writer.drain()
        if not gone.done():
            gone.cancel()
            try:
                await gone
            except asyncio.CancelledError:
                pass
            return True
        return False

    @staticmethod
    async def cut(writer, plan):
        await writer.drain()
        how = plan.get("how", "fin")
        if how == "short":
            writer.write(b"ff\r\ndata: {\"choices\":[{\"index\":0")
            await writer.drain()
        if how == "rst":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return False


def ask(port, plan, stream=False, model="m", key=None, headers=None, leave_after=None, include_usage=False, timeout=LONG_S,
        how_leave="fin", max_tokens=None, before=(), more=None):
    """One request on its own connection. leave_after K: leaves after K text events (0: right after sending). `before`: earlier
    messages. `more`: further fields of the body. A plan that is text is sent as it is."""
    seen = Seen("", stream)
    question = plan if isinstance(plan, str) else json.dumps(plan)
    body = {"model": model, "stream": stream, "messages": [*before, {"role": "user", "content": question}], **(more or {})}
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    if max_tokens:
        body["max_tokens"] = max_tokens
    text = json.dumps(body).encode()
    extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
    if key:
        extra += f"authorization: Bearer {key}\r\n"
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    except OSError as error:
        seen.error = f"connect: {error}"
        return seen
    try:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{extra}"
                           f"content-length: {len(text)}\r\n\r\n".encode() + text)
        read_answer(connection, seen, leave_after, how_leave)
    except OSError as error:
        seen.error = f"read: {error}"
    finally:
        connection.close()
    return seen


def leave(connection, seen, how):
    if how == "rst":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    seen.left_s = time.monotonic()
    connection.close()


def read_answer(connection, seen, leave_after, how_leave):
    if leave_after == 0:
        return leave(connection, seen, how_leave)
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            seen.error = "closed before the head"
            return None
        data += part
    head, data = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    seen.status = int(lines[0].split()[1])
    seen.headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
    seen.request_id = seen.headers.get("x-request-id", "")
    length = seen.headers.get("content-length")
    chunked = "chunked" in seen.headers.get("transfer-encoding", "")
    while True:
        if length is not None and len(data) >= int(length):
            seen.body = data[:int(length)]
            seen.whole = seen.status == 200
            return None
        if chunked:
            seen.body, ended = dechunk(data)
            seen.events = seen.body.count(b'"content":')
            if leave_after is not None and seen.events >= leave_after:
                return leave(connection, seen, how_leave)
            if ended:
                seen.whole = seen.status == 200 and seen.body.endswith(b"data: [DONE]\n\n")
                return None
        part = connection.recv(65536)
        if not part:
            seen.error = "closed inside the body"
            if length is None and not chunked:
                seen.body = data
            return None
        data += part


def dechunk(data):
    out, at = [], 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return b"".join(out), False
        size = int(data[at:end], 16)
        if size == 0:
            return b"".join(out), data[end:end + 4] == b"\r\n\r\n"
        out.append(data[end + 2:end + 2 + size])
        if len(data) < end + 4 + size:
            return b"".join(out), False
        at = end + 4 + size


class Load:
    """Clients that ask random questions until they are stopped; every answer goes to `seen`."""

    def __init__(self, port, rng, clients=12, plan=None, pause_s=0.03, **arguments):
        self.seen = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        seeds = [rng.random() for _ in range(clients)]
        self.threads = [threading.Thread(target=self.run, args=(port, seed, plan, pause_s, arguments), daemon=True) for seed in seeds]
        for thread in self.threads:
            thread.start()

    def run(self, port, seed, plan, pause_s, arguments):
        rng = random.Random(seed)
        while not self.stopping.is_set():
            asked = {"nonce": rng.random(), "deltas": 8, "gap_ms": rng.choice([0, 2, 5]), **(plan(rng) if plan else {})}
            answer = ask(port, asked, stream=rng.random() < 0.5, **arguments)
            answer.asked = asked
            answer.at_s = time.monotonic()
            with self.lock:
                self.seen.append(answer)
            self.stopping.wait(rng.random() * pause_s)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=2 * LONG_S)
        return self.seen


def provider(upstream, models="[m]", name="mock", more=""):
    return f'  - {{name: {name}, base_url: "http://127.0.0.1:{upstream.port}/v1", models: {models}{more}}}\n'


NO_CACHE = "gateways:\n  - {name: default, cache: {ttl: 0s}}\n"


def verify(gateway, seen, upstream=None, power_lost=False):
    """The contract of the ledger over the whole run. After a power loss, intents that nobody waited for may be gone;
    what a client was given whole may not."""
    gateway.command("ledger", "verify", "--dir", gateway.ledger)
    records = gateway.records()
    by_id = {}
    for record in records:
        by_id.setdefault(record["id"], []).append(record)
    double = [key for key, found in by_id.items() if len(found) != 1]
    must(not double, f"A: more than one terminal record for {double[:3]}")
    wholes = 0
    for each in seen:
        if not each.request_id or each.status != 200:
            continue
        must(power_lost or each.request_id in by_id, f"A: no record of {each.request_id}, which a client saw")
        if not each.whole:
            continue
        wholes += 1
        must(each.request_id in by_id, f"B: no record of {each.request_id}, which a client has whole")
        record = by_id[each.request_id][0]
        must(record["outcome"] in ("completed", "cache_hit"), f"B: {each.request_id} was answered whole and is {record['outcome']}")
        plan = getattr(each, "asked", {})
        if record["outcome"] == "completed" and plan.get("usage", "normal") == "normal":
            got = (record["input_tokens"], record["output_tokens"])
            must(got == (PROMPT_TOKENS, plan.get("deltas", 8)), f"B: {each.request_id} used {plan}, the ledger says {got}")
    if upstream is not None and not power_lost:
        for attempt in upstream.attempts:
            must(attempt.request_id in by_id, f"C: the upstream served {attempt.request_id}, which no record covers")
        emitted = {a.request_id: a.tokens for a in upstream.attempts if a.finished and a.plan.get("usage", "normal") == "normal"}
        for record in records:
            if record["outcome"] == "completed" and record["id"] in emitted:
                must(record["output_tokens"] == emitted[record["id"]],
                     f"D: {record['id']} bills {record['output_tokens']} tokens, the upstream emitted {emitted[record['id']]}")
    must(records == gateway.records(), "E: exporting twice gave different records")
    outcomes = {}
    for record in records:
        outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
    return {"answers": len(seen), "whole": wholes, "records": outcomes}


def wait_until(what, message, seconds=LONG_S):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return
        time.sleep(0.01)
    raise Broken(f"{message} within {seconds} s")


def tool(name):
    """A helper program of the build under test."""
    path = build_dir() / "tests/faults" / name
    must(path.exists(), f"{path} is not built")
    return path


def have_fuse():
    return os.path.exists("/dev/fuse")
