#!/usr/bin/env python3
"""The provider of the soak: answers as the plan in each request's last message says, and notes every attempt in a journal.

A line of the journal is written before an answer's last byte, or when the connection is lost: id (x-request-id), nonce, stream,
tokens (emitted), finished, status. Plan: deltas, gap_ms, delay_ms, pad (bytes a delta), cut_at with how rst|fin|short, status,
fail_first. See clients.py for who asks what."""

import asyncio
import json
import os
import socket
import struct
import sys

PROMPT_TOKENS = 25
WORD = "word "


def usage(tokens):
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": tokens + PROMPT_TOKENS}


class Provider:
    def __init__(self, journal):
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.count = 0
        self.failures = {}

    def note(self, line):
        os.write(self.journal, (json.dumps(line) + "\n").encode())


class Connection(asyncio.Protocol):
    """One connection of the gateway's; one request at a time."""

    def __init__(self, provider):
        self.provider = provider
        self.data = b""
        self.task = None
        self.line = None  # of the journal, until it is written
        self.lost = False
        self.room = asyncio.Event()
        self.room.set()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, _):
        self.lost = True
        self.room.set()
        self.written(False)
        if self.task:
            self.task.cancel()

    def pause_writing(self):
        self.room.clear()

    def resume_writing(self):
        self.room.set()

    def data_received(self, data):
        self.data += data
        if self.task is None:
            self.next()

    def next(self):
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.data[:end].decode("latin-1")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in head.split("\r\n")[1:])}
        length = int(headers.get("content-length", 0))
        if len(self.data) < end + 4 + length:
            return
        body = json.loads(self.data[end + 4:end + 4 + length])
        self.data = self.data[end + 4 + length:]
        plan = json.loads(body["messages"][-1]["content"])
        self.line = {"id": headers.get("x-request-id", ""), "nonce": plan["nonce"], "stream": bool(body.get("stream")), "tokens": 0,
                     "finished": False, "status": 200}
        self.task = asyncio.ensure_future(self.answer(plan, body))

    def written(self, finished):
        if self.line:
            self.line["finished"] = finished
            self.provider.note(self.line)
            self.line = None

    async def answer(self, plan, body):
        keep = True
        try:
            if plan.get("delay_ms"):
                await asyncio.sleep(plan["delay_ms"] / 1000)
            if plan.get("status") and self.refuse(plan):
                pass
            elif body.get("stream"):
                keep = await self.stream(plan, (body.get("stream_options") or {}).get("include_usage", False))
            else:
                keep = self.whole(plan)
        except asyncio.CancelledError:
            return
        self.task = None
        if not keep:
            self.transport.close()
        elif self.data and not self.lost:
            self.next()

    def refuse(self, plan):
        seen = self.provider.failures[plan["nonce"]] = self.provider.failures.get(plan["nonce"], 0) + 1
        if seen > plan.get("fail_first", 1 << 30):
            return False
        text = json.dumps({"error": {"message": "as asked", "type": "test", "code": "test"}})
        self.line["status"] = plan["status"]
        self.written(True)
        self.transport.write(f"HTTP/1.1 {plan['status']} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
        return True

    def answer_id(self):
        self.provider.count += 1
        return f"chatcmpl-{self.provider.count}"

    def cut(self, plan):
        self.written(False)
        how = plan.get("how", "fin")
        if how == "short":
            self.transport.write(b"ff\r\ndata: {\"choices\":[{\"index\":0")
        if how == "rst":
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        return False

    def whole(self, plan):
        tokens = self.line["tokens"] = plan["deltas"]
        text = json.dumps({"id": self.answer_id(), "object": "chat.completion", "created": 1, "model": "m",
                           "choices": [{"index": 0, "message": {"role": "assistant", "content": WORD * tokens}, "finish_reason": "stop"}],
                           "usage": usage(tokens)}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode()
        if "cut_at" in plan:
            self.transport.write(head + text[:len(text) // 2])
            return self.cut({**plan, "how": "rst" if plan.get("how") == "rst" else "fin"})
        self.written(True)
        self.transport.write(head + text)
        return True

    async def stream(self, plan, usage_asked):
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        base = {"id": self.answer_id(), "object": "chat.completion.chunk", "created": 1, "model": "m"}

        def event(data):
            text = b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"
            self.transport.write(b"%x\r\n%s\r\n" % (len(text), text))

        delta = {**base, "choices": [{"index": 0, "delta": {"content": WORD + "x" * plan.get("pad", 0)}, "finish_reason": None}]}
        for i in range(plan["deltas"]):
            if plan.get("cut_at") == i:
                return self.cut(plan)
            if plan.get("gap_ms"):
                await asyncio.sleep(plan["gap_ms"] / 1000)
            await self.room.wait()
            if self.lost:
                return False
            self.line["tokens"] += 1
            event(delta)
        event({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if usage_asked:
            event({**base, "choices": [], "usage": usage(self.line["tokens"])})
        self.written(True)
        event(b"[DONE]")
        self.transport.write(b"0\r\n\r\n")
        return True


async def main():
    provider = Provider(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(lambda: Connection(provider), "127.0.0.1", 0, backlog=1024)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()  # until whoever started it goes


asyncio.run(main())
