#!/usr/bin/env python3
"""What one request costs, counted and not timed: instructions by stage and function, calls of the allocator, system calls.

Counts are repeatable to a percent on a busy machine. ganglion runs with bench/config/bar.yaml between `ganglion bench load` (32
connections) and its mock; the instructions are callgrind's, which knows no SHA instructions, so hashing weighs more than it does
on the processor. System calls and context switches are perf's, of a run without callgrind.

  bench/budget.py [--build build/release] [--stream] [--body-bytes 1024] [--requests 2000] [--top 30] [--find NAME ...]

--find adds up the functions whose name holds NAME: with what they call, and how often they are called."""

import argparse
import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import compare

# What a stage is, by the function that holds it. Inclusive: what it calls counts too, so some lie within others.
STAGES = [
    ("read and check the head", "net::Connection::read_head"),
    ("key check", "gateway::Authenticator::identify"),
    ("read and check the body", "api::parse_request"),
    ("cache key", "cache::KeyMaker::from_outline"),
    ("intent", "metering::Ledger::intent"),
    ("receive from the upstream", "net::UpstreamConnection::receive("),
    ("remove chunked coding", "net::UpstreamConnection::take_chunked"),
    ("events: find, inspect, gather", "gateway::BilledCall::take_events"),
    ("- find", "api::SseParser::next"),
    ("- inspect", "api::StreamInspector::inspect"),
    ("- keep in case usage is not told", "gateway::Tape::keep"),
    ("read the answer's usage", "api::scan_answer"),
    ("price and make the record", "gateway::BilledCall::terminal"),
    ("record and wait", "gateway::BilledCall::settle("),
    ("answer's head", "gateway::Worker::fill_head"),
    ("write to the client", "net::Connection::write_stream"),
    ("metrics and log", "gateway::Worker::finish"),
    ("rollups, on a thread of their own", "metering::LedgerKeeper::run"),
]
ALLOCATIONS = ("mi_malloc", "mi_new", "mi_calloc", "mi_realloc", "mi_malloc_aligned", "mi_new_aligned", "operator new", "malloc")
CALLS = ["sendmsg", "sendto", "recvfrom", "recvmsg", "read", "write", "pwrite64", "fdatasync", "epoll_wait", "epoll_pwait2", "epoll_ctl",
         "futex", "nanosleep", "clock_nanosleep", "madvise", "mmap", "munmap"]


class Profile:
    """A callgrind file: by function its own cost, its cost with what it calls, and its calls. Recursion counts once a level."""

    def __init__(self, path):
        self.own = collections.Counter()
        self.total = collections.Counter()
        self.calls = collections.Counter()
        self.edges = collections.Counter()
        names = {}

        def name_of(text):
            number, _, name = text.partition(" ")
            if name:
                names[number] = name
            return names[number]

        here = callee = ""
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("fn="):
                here = name_of(line[3:])
            elif line.startswith("cfn="):
                callee = name_of(line[4:])
            elif line.startswith("calls="):
                self.calls[callee] += int(line[6:].split()[0])
                self.edges[here, callee] += int(line[6:].split()[0])
            elif line[:1].isdigit() or line[:1] in "+-*":
                cost = int(line.split()[1]) if len(line.split()) > 1 else 0
                if not callee:
                    self.own[here] += cost
                    self.total[here] += cost
                else:
                    if callee != here:
                        self.total[here] += cost
                    callee = ""


class Counted(compare.Ganglion):
    name = "ganglion under callgrind"

    def command(self):
        return ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self.directory}/callgrind.out",
                *map(str, super().command())]


def control(pid, *arguments):
    subprocess.run(["callgrind_control", *arguments, str(pid)], check=True, stdout=subprocess.DEVNULL, timeout=60)


def count_instructions(options, directory, upstream, arguments):
    proxy = Counted(directory, upstream)
    wait = compare.wait_port
    compare.wait_port = lambda port, process, seconds=120: wait(port, process, seconds)
    proxy.start()
    compare.wait_port = wait
    try:
        compare.load(options.build, proxy.port, "--count", 500, "--seconds", 60, *arguments)
        control(proxy.process.pid, "-i", "on")
        answered = compare.load(options.build, proxy.port, "--count", options.requests, "--seconds", 300, *arguments, timeout=400)["answered"]
        time.sleep(0.5)  # what is done behind the requests' backs
        control(proxy.process.pid, "-i", "off")
    finally:
        proxy.stop()
    return Profile(proxy.directory / "callgrind.out"), answered


def count_calls(options, directory, upstream, arguments):
    proxy = compare.Ganglion(directory, upstream).start()
    try:
        compare.load(options.build, proxy.port, "--count", 2000, "--seconds", 20, *arguments)
        events = ",".join(["context-switches", "raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{name}" for name in CALLS)])
        perf = subprocess.Popen(["perf", "stat", "-x", ";", "-e", events, "-p", str(proxy.process.pid)], stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        before = compare.cpu_seconds(proxy.process.pid)
        answered = compare.load(options.build, proxy.port, "--count", 10 * options.requests, "--seconds", 60, *arguments)["answered"]
        used = compare.cpu_seconds(proxy.process.pid) - before
        perf.send_signal(2)
        out = perf.communicate(timeout=20)[1]
    finally:
        proxy.stop()
    counts = {}
    for line in out.splitlines():
        fields = line.split(";")
        if len(fields) > 2 and fields[0].isdigit():
            counts[fields[2].split("sys_enter_")[-1].removeprefix("raw_syscalls:")] = int(fields[0]) / answered
    return counts, used / answered * 1e6


def show(options, profile, answered):
    per = lambda cost: cost / answered
    plain = lambda name: re.sub(r"\b(ganglion::|boost::asio::|std::)", "", name)
    print(f"instructions per request: {per(sum(profile.own.values())):,.0f} ({answered} requests)")
    print("\nwith what they call:")
    for stage, function in STAGES:
        # A coroutine's body is its function's resume part; its parts do not call each other.
        found = [name for name in profile.total if function in name]
        if found:
            print(f"{per(sum(profile.total[name] for name in found)):10,.0f}  {stage} ({function})")
    for wanted in options.find:
        for name in sorted((n for n in profile.total if wanted in n), key=lambda n: -profile.total[n])[:20]:
            print(f"{per(profile.total[name]):10,.0f} {per(profile.own[name]):10,.0f} {per(profile.calls[name]):8.2f}x  {plain(name)[:160]}")
    print("\nof themselves, and calls:")
    for name, cost in profile.own.most_common(options.top):
        print(f"{per(cost):10,.0f} {per(profile.calls[name]):8.2f}x  {plain(name)[:160]}")
    total = 0
    print("\nthe allocator:")
    for name, calls in profile.calls.most_common():
        if name.split("(")[0].split("'")[0] in ALLOCATIONS and per(calls) > 0.01:
            print(f"{per(calls):10.2f}x  {name}")
    for (caller, callee), calls in profile.edges.most_common():
        if callee.split("(")[0] in ALLOCATIONS and per(calls) > 0.4 and total < options.top:
            total += 1
            print(f"{per(calls):10.2f}x  {callee.split('(')[0]} from {plain(caller)[:140]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=compare.ROOT / "build/release")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--deltas", type=int, default=16)
    parser.add_argument("--gap-ms", type=int, default=0)
    parser.add_argument("--body-bytes", type=int, default=1024)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--top", type=int, default=30)
    parser.add_argument("--find", nargs="*", default=[])
    parser.add_argument("--only", default="instructions,calls")
    parser.add_argument("--keep", type=pathlib.Path, help="copy the callgrind file there")
    options = parser.parse_args()
    options.build = options.build.resolve()
    compare.Ganglion.build = options.build
    arguments = ["--body-bytes", options.body_bytes, "--connections", options.connections] + (["--stream"] if options.stream else [])
    with tempfile.TemporaryDirectory(prefix="ganglion-budget-", dir=os.environ.get("GANGLION_BENCH_DIR")) as directory:
        mock = compare.Mock(options.build, "--deltas", str(options.deltas), "--gap-ms", str(options.gap_ms))
        try:
            if "calls" in options.only:
                counts, cpu = count_calls(options, directory, mock.port, arguments)
                print(f"CPU {cpu:.1f} us; per request: " + ", ".join(f"{name} {count:.2f}" for name, count in sorted(counts.items(), key=lambda c: -c[1]) if count >= 0.01))
            if "instructions" in options.only:
                profile, answered = count_instructions(options, directory, mock.port, arguments)
                if options.keep:
                    options.keep.write_bytes(next(pathlib.Path(directory).glob("*/callgrind.out")).read_bytes())
                show(options, profile, answered)
        finally:
            mock.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
