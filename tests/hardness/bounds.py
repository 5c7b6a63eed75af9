#!/usr/bin/env python3
"""What the gateway holds, spends and refuses when its clients and providers are slow, many or greedy.

  tests/hardness/bounds.py [--size ci|release] [--results FILE] [case ...]

Client, provider and gateway are processes of their own. Memory is the gateway's resident set, CPU its user and system
time. Exit code 1 when a bound broke."""

import argparse
import contextlib
import pathlib
import resource
import socket
import sys
import threading
import time

import report
from crowds import (KIB, MIB, Broken, Crowd, Firehose, Gateway, Mock, Probe, Stalls, ask, chat, connect, cpu_s, fds, feed, greedy_inputs,
                    idle_p99, must, peak, post, read_answer, reset_peak, rss, serving, taken)


def slow(name, count, gateway, first, drip, limit_s, receive_buffer=0, drip_every=0.5, status=408):
    """A crowd of slow clients beside a probe: cut in time, cheap, and the probe hears nothing of it."""
    calm = idle_p99(gateway.ports["proxy"])
    before = rss(gateway.process)
    stalls, probe = Stalls(), Probe(gateway.ports["proxy"])
    crowd = Crowd(gateway.ports["proxy"], count, first, receive_buffer)
    crowd_up = time.monotonic()
    highest = rss(gateway.process)
    while crowd.open and time.monotonic() - crowd_up < limit_s + 60:
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
    must(longest <= limit_s + 1.5 + drip_every + 2 * stalls.stop(), f"{name}: one was cut after {longest:.1f} s, the limit is {limit_s} s")
    # The goal is 16 KiB; a slow body is a little over it: connection, head, first page of the body, and its coroutines.
    must(each <= 18 + 2048 / count, f"{name}: {each:.1f} KiB per slow client")
    told = sum(1 for s in crowd.statuses.values() if s == status)
    if status:
        must(told == count, f"{name}: {told} of {count} were told {status}")
    return (f"{count} clients, all cut after at most {longest:.1f} s (limit {limit_s} s); {each:.1f} KiB each; "
            f"probe {len(probe.times)} requests, 0 failed, p99 {p99:.1f} ms (idle {calm:.1f} ms)")


def slow_headers(release):
    with serving(Mock(), server="header_timeout: 10s" if release else "header_timeout: 2s") as gateway:
        return slow("slow_headers", 9000 if release else 300, gateway, b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX: ", b"y",
                    10 if release else 2)


def slow_bodies(release):
    with serving(Mock()) as gateway:
        return slow("slow_bodies", 9000 if release else 300, gateway,
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{",
                    b" ", 10.5, drip_every=1.0)


def slow_readers(release):
    """Streams of 100 MiB that nobody reads: held back at the provider, cut by the write limit."""
    count = 500 if release else 50
    firehose = Firehose(100 * MIB)
    with serving(firehose, server="write_timeout: 120s" if release else "write_timeout: 30s", connections=1000) as gateway:
        calm = idle_p99(gateway.ports["proxy"])
        before = rss(gateway.process)
        probe = Probe(gateway.ports["proxy"])
        crowd = Crowd(gateway.ports["proxy"], count, post(chat(stream=True)), 16 * KIB)
        held_sent, still = -1, False
        for _ in range(110 if release else 25):  # until every buffer on the way is full
            time.sleep(1)
            still = firehose.sent.value == held_sent
            held_sent = firehose.sent.value
            if still:
                break
        growth = rss(gateway.process) - before
        must(still, "slow_readers: the provider went on while nobody read")
        # 16 KiB read off the provider, whose events are sent from there, what is kept to count tokens by, both connections
        # and their coroutines.
        must(growth <= count * 64 * KIB + 16 * MIB, f"slow_readers: {growth / MIB:.0f} MiB for {count} streams")
        # Kernel buffers on both legs, at most a few MiB a stream; not the 100 MiB.
        must(held_sent <= count * 12 * MIB, f"slow_readers: {held_sent / MIB:.0f} MiB were taken off the provider")
        deadline = time.monotonic() + (200 if release else 90)
        while fds(gateway.process) > 60 and time.monotonic() < deadline:
            time.sleep(0.2)
        must(fds(gateway.process) <= 60, f"slow_readers: {fds(gateway.process)} descriptors are still open after the write limit")
        p99 = probe.stop()
        must(not probe.failures, f"slow_readers: the probe failed: {probe.failures[:3]}")
        crowd.close()
        return (f"{count} streams of 100 MiB that nobody reads: {growth / count / KIB:.1f} KiB of memory each, {held_sent / count / MIB:.2f} MiB "
                f"taken off the provider each (in kernel buffers), all cut after write_timeout; probe p99 {p99:.1f} ms (idle {calm:.1f} ms), 0 failed")


def idle(release):
    count = 9900 if release else 1500
    with serving(Mock(), server="keep_alive_timeout: 10m, max_connections: 20000") as gateway:
        idle_p99(gateway.ports["proxy"], 0.5)
        before = rss(gateway.process)
        crowd = []
        for _ in range(count):
            connection = connect(gateway.ports["proxy"])
            must(ask(connection).status == 200, "idle: a request failed")
            crowd.append(connection)
        growth = rss(gateway.process) - before
        used = cpu_s(gateway.process)
        time.sleep(2)
        used = cpu_s(gateway.process) - used
        for connection in crowd:
            must(ask(connection).status == 200, "idle: a connection that was idle does not serve")
            connection.close()
        must(growth <= count * 10 * KIB + 4 * MIB, f"idle: {growth / count / KIB:.1f} KiB per idle connection")
        must(used <= 0.2, f"idle: {used:.2f} s of CPU in 2 s of nothing")
        return f"{count} idle keep-alive connections: {growth / MIB:.1f} MiB, {growth / count / KIB:.2f} KiB each; CPU while idle {used / 2 * 100:.1f} %"


def streams(release):
    count = 9500 if release else 500
    with serving(Mock("--gap-ms", "1000", "--deltas", "600"), server="max_connections: 20000", connections=10000,
                 more="admission: {max_in_flight: 20000}\ntiers: {max_queue: 20000}\n") as gateway:
        before = rss(gateway.process)
        crowd = Crowd(gateway.ports["proxy"], 0, post(chat(stream=True)))
        for _ in range(count // 100):  # by and by: a provider that stands still is not what is measured
            crowd.add(100)
            crowd.answered()
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


def overload(_):
    """Past its caps the gateway says so, quickly, and goes on serving whom it serves."""
    with serving(Mock("--delay-ms", "1500"), server="max_connections: 40",
                 more="admission: {max_in_flight: 8}\ntiers: {max_queue: 4, regular: {max_wait: 300ms}}\n") as gateway:
        port = gateway.ports["proxy"]
        held = [connect(port) for _ in range(40)]
        taken(gateway, len(held))
        took = []
        for _ in range(20):
            began = time.monotonic()
            refused = connect(port)
            answer = read_answer(refused)
            took.append(time.monotonic() - began)
            must(answer.status == 503 and b"retry-after" in answer.headers, f"overload: connection 41 was told {answer.status}")
            refused.close()
        for connection in held:
            connection.sendall(post(chat()))
        statuses = []
        for connection in held:
            answer = read_answer(connection)
            statuses.append(answer.status)
            must(answer.status != 503 or b"retry-after" in answer.headers, "overload: 503 without Retry-After")
        must(statuses.count(200) >= 6 and statuses.count(200) + statuses.count(503) == 40, f"overload: {statuses}")
        return (f"connections past max_connections: 503 with Retry-After in at most {max(took) * 1000:.0f} ms; 40 requests at max_in_flight 8: "
                f"{statuses.count(200)} served, {statuses.count(503)} told 503 with Retry-After")


def descriptors(_):
    """Out of file descriptors: no spinning, whoever is connected is served, and it recovers."""
    with serving(Mock(), server="max_connections: 10000", limit_files=160) as gateway:
        port = gateway.ports["proxy"]
        first = connect(port)
        must(ask(first).status == 200, "descriptors: before")
        crowd = [connect(port) for _ in range(400)]  # the rest wait in the backlog
        time.sleep(0.5)
        used = cpu_s(gateway.process)
        time.sleep(3)
        used = (cpu_s(gateway.process) - used) / 3
        must(fds(gateway.process) >= 150, f"descriptors: only {fds(gateway.process)} are used: nothing was exhausted")
        must(used < 0.05, f"descriptors: {used * 100:.0f} % of a core while out of descriptors")
        answer = ask(first)
        must(answer.status == 200, f"descriptors: a connected client was told {answer.status} {answer.body[:200]}")
        for connection in crowd:
            connection.close()
        time.sleep(0.5)
        late = connect(port)
        must(ask(late).status == 200, "descriptors: it does not recover")
        return f"400 connections at a limit of 160 descriptors: {used * 100:.1f} % CPU, a connected client served, new ones served as soon as there is room"


def memory(_):
    """Near its memory limit: regular requests are shed first, fast ones last, and it recovers."""
    limit = 300 * MIB
    body = 8 * MIB
    fill = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nx-neuron-tier: fast\r\nContent-Type: application/json\r\n"
            f"Content-Length: {body}\r\n\r\n").encode() + b" " * (body - 1)
    held = []

    def told(headers=""):
        with contextlib.closing(connect(gateway.ports["proxy"])) as connection:
            answer = ask(connection, headers)
        must(answer.status != 503 or b"retry-after" in answer.headers, "memory: 503 without Retry-After")
        return answer.status

    def hold_until(share):
        for _ in range(80):
            if rss(gateway.process) >= share * limit:
                break
            held.append(connect(gateway.ports["proxy"]))
            held[-1].settimeout(20)
            try:
                held[-1].sendall(fill)
            except OSError:
                pass  # shed while it was sent
            time.sleep(0.05)
        time.sleep(0.3)
        return rss(gateway.process) / limit

    with serving(Mock(), more=f"admission: {{max_memory: {limit // MIB}MiB, max_body_memory: 4GiB}}\nrequest: {{max_body: 64MiB}}\n") as gateway:
        must(told() == 200, "memory: before")
        first = hold_until(0.87)
        regular, fast = told(), told("x-neuron-tier: fast\r\n")
        must(0.85 <= first < 0.95, f"memory: could not stop between the marks: {first:.2f}")
        must((regular, fast) == (503, 200), f"memory: at {first * 100:.0f} % regular got {regular}, fast {fast}")
        second = hold_until(0.955)
        must(second <= 1.05, f"memory: it grew to {second * 100:.0f} % of its limit")
        regular, fast = told(), told("x-neuron-tier: fast\r\n")
        must((regular, fast) == (503, 503), f"memory: at {second * 100:.0f} % regular got {regular}, fast {fast}")
        for connection in held:
            connection.close()
        began = time.monotonic()
        while told() != 200:
            must(time.monotonic() - began < 60, f"memory: still refusing a minute after the load went, at {rss(gateway.process) / limit * 100:.0f} %")
            time.sleep(0.1)
        return (f"limit 300 MiB: at {first * 100:.0f} % regular 503 with Retry-After and fast 200, at {second * 100:.0f} % both 503; "
                f"serving again {time.monotonic() - began:.1f} s after the load went")


def amplification(release):
    """Memory at most 10 times what was sent plus 256 KiB each, CPU at most 10 times the client's."""
    worst_memory, worst_cpu, lines = ("", 0.0), ("", 0.0), 0
    with serving(Mock(), more="admission: {max_body_memory: 4GiB}\n") as gateway:
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
                    answers.append(read_answer(connection).status)
                except OSError:
                    answers.append(0)
                thread.join(timeout=120)
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
        must(ask(connect(port)).status == 200, "amplification: it does not serve any more")
        return (f"{lines} greedy inputs, many at once: all within 10 x the bytes sent + 256 KiB each; the most {worst_memory[1]:.1f} x ({worst_memory[0]}); "
                f"CPU at most {worst_cpu[1]:.1f} x the client's ({worst_cpu[0]})")


def waves(release):
    """Crowds that come and go: the tenth leaves the gateway as the second did."""
    many, rounds = (2_000, 30) if release else (200, 10)
    with serving(Mock(), more="admission: {max_in_flight: 64}\ntiers: {max_queue: 32}\n") as gateway:
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
            deadline = time.monotonic() + 60
            while fds(gateway.process) > 120 and time.monotonic() < deadline:
                time.sleep(0.02)
            after.append((fds(gateway.process), rss(gateway.process)))
        must(served > 0, "waves: none was served")
        # The pools keep up to one connection a place to the provider.
        must(after[-1][0] <= after[1][0] + 64, f"waves: descriptors {after[1][0]} after the second, {after[-1][0]} after the last")
        must(after[-1][1] <= after[1][1] * 1.1 + 8 * MIB, f"waves: {after[1][1] / MIB:.0f} MiB after the second, {after[-1][1] / MIB:.0f} MiB after the last")
        must(ask(connect(port)).status == 200, "waves: it does not serve any more")
        return (f"{rounds} crowds of {many}, a quarter of them leaving at once and a quarter never finishing their heads: {served} served, {shed} shed of those that "
                f"waited; after the second and the last wave {after[1][0]} and {after[-1][0]} descriptors, {after[1][1] / MIB:.0f} and {after[-1][1] / MIB:.0f} MiB")


def address_cap(release):
    """One address opens all it can; another one is served beside it."""
    cap = 1_000 if release else 50
    with serving(Mock(), server=f"max_connections_per_address: {cap}") as gateway:
        port = gateway.ports["proxy"]
        held = [connect(port) for _ in range(cap)]
        taken(gateway, cap)
        must(ask(held[0]).status == 200, "address_cap: within the cap")
        refused = 0
        for _ in range(20):
            connection = connect(port)
            answer = read_answer(connection)
            must(answer.status == 429 and b"retry-after" in answer.headers and answer.headers.get(b"connection") == b"close",
                 f"address_cap: past the cap {answer.status}")
            refused += 1
            connection.close()
        other = socket.socket()
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", port))
        must(ask(other).status == 200, "address_cap: another address")
        held.pop().close()
        taken(gateway, cap)  # the rest and the other address's
        must(ask(connect(port)).status == 200, "address_cap: after one has gone")
        return f"{cap} connections from one address held, {refused} more got 429 and were closed, another address was served beside"


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
