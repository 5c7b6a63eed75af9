#!/usr/bin/env python3
"""Drives an instrumented gateway through what it does most, for scripts/pgo.

  tools/pgo_train.py INSTRUMENTED_BUILD TOOLS_BUILD PROFILE_FOLDER

Proxied chats, exact cache hits, paced and unpaced streams, over loopback, a few seconds each; then the embedded default
with its own model. Raw profiles are left in PROFILE_FOLDER.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import compare  # noqa: E402

SECONDS = 5


def instrumented(folder):
    original = compare.Ganglion.environment
    return lambda self: {**original(self), "LLVM_PROFILE_FILE": f"{folder}/%p.profraw"}


def proxied(tools, directory):
    instant = compare.Mock(tools)
    paced = compare.Mock(tools, "--deltas", "64", "--gap-ms", "2")
    try:
        for upstream, arguments in (
            (instant, ("--connections", "32")),
            (instant, ("--connections", "32", "--header", "cf-aig-cache-ttl: 3600")),
            (instant, ("--connections", "32", "--stream")),
            (paced, ("--connections", "100", "--stream")),
        ):
            gateway = compare.Ganglion(directory, upstream.port).start()
            try:
                result = compare.load(tools, gateway.port, "--seconds", SECONDS, *arguments)
                print(f"tools/pgo_train.py: {result['answered']} answers with {' '.join(arguments)}", flush=True)
            finally:
                gateway.stop()  # SIGTERM: the profile is written at exit
    finally:
        instant.stop()
        paced.stop()


def local(build, directory, folder):
    port, admin = compare.free_port(), compare.free_port()
    config = pathlib.Path(directory) / "local.yaml"
    text = (ROOT / "config/ganglion.yaml").read_text()
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("127.0.0.1:8081", f"127.0.0.1:{admin}")
    config.write_text(text)
    process = subprocess.Popen([build / "ganglion", "serve", config], cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL,
                               env={**os.environ, "LLVM_PROFILE_FILE": f"{folder}/%p.profraw"})
    try:
        compare.wait_port(port, process)
        for question in ("What is a neuron?", "What is 2 plus 3?", "Hello!"):
            body = json.dumps({"model": "demo-chat", "messages": [{"role": "user", "content": question}]}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body,
                                             {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
    finally:
        process.terminate()
        process.wait(timeout=20)


def main():
    build, tools, folder = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    folder.mkdir(parents=True, exist_ok=True)
    compare.Ganglion.build = build
    compare.Ganglion.environment = instrumented(folder)
    with tempfile.TemporaryDirectory(prefix="ganglion-pgo-", dir=ROOT / "build") as directory:
        proxied(tools, directory)
        local(build, directory, folder)


if __name__ == "__main__":
    main()
