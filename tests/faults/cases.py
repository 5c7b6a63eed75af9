"""The fault cases. Each takes a Run (seed, size, scratch directory) and returns a line of facts, or raises Broken.
Sizes: `ci` on every change, `release` before a release (scripts/faults --release)."""

import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import lab
from lab import NO_CACHE, Gateway, Load, Upstream, ask, must, provider, verify, wait_until
from restart import restart


class Mounted:
    """power_fs on a folder of its own."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "disk"
        self.path.mkdir()
        self.process = subprocess.Popen([lab.tool("power_fs"), self.path])
        wait_until(lambda: os.path.ismount(self.path), "the test's file system was not mounted")

    def tell(self, command):
        with open(self.path / ".power", "w", encoding="ascii") as control:
            control.write(command)

    def stop(self):
        subprocess.run(["fusermount3", "-u", str(self.path)], check=True)
        self.process.wait(timeout=lab.LONG_S)


def kill(run):
    """F10. kill -9 under load at random times."""
    kills = {"ci": 25, "release": 500}[run.size]
    upstream = Upstream()
    gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, directory=run.directory)
    seen, slowest = [], 0.0
    for _ in range(kills):
        gateway.start()
        slowest = max(slowest, gateway.start_s)
        load = Load(gateway.ports["proxy"], run.rng)
        time.sleep(0.15 + run.rng.random() * 0.4)
        gateway.kill()
        seen += load.stop()
    gateway.start()
    gateway.stop()
    facts = verify(gateway, seen, upstream)
    upstream.stop()
    must(facts["records"].get("aborted", 0) > 0, "no request was in flight at any kill: nothing was proved")
    return f"{kills} kills, slowest start {slowest * 1e3:.0f} ms, {facts}"


def power(run):
    """F11. Power loss: what was not synced is gone, or torn sector by sector."""
    cuts = {"ci": 6, "release": 200}[run.size]
    disk = Mounted(run.directory)
    upstream = Upstream()
    seen = []
    try:
        gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, directory=run.directory)
        gateway.ledger = disk.path / "ledger"
        gateway.file.write_text(gateway.file.read_text().replace(str(gateway.directory / "ledger"), str(gateway.ledger)))
        for cut in range(cuts):
            gateway.start()
            load = Load(gateway.ports["proxy"], run.rng)
            time.sleep(0.15 + run.rng.random() * 0.4)
            gateway.kill()
            disk.tell("lose 0" if cut % 2 == 0 else f"torn {run.rng.randrange(1 << 30)}")
            seen += load.stop()
        gateway.start()
        gateway.stop()
        facts = verify(gateway, seen, upstream, power_lost=True)
    finally:
        disk.stop()
        upstream.stop()
    must(facts["whole"] > cuts * 3, "the run was too quiet to prove anything")
    return f"{cuts} power losses (FUSE file system that forgets what was not synced), {facts}"


# call, errno, only files below the ledger. "unmapped pwrite": the ledger's buffer cannot be mapped, so appends are calls.
SYSCALLS = [("pwrite", 5, True), ("pwrite", 28, True), ("unmapped pwrite", 5, True), ("unmapped pwrite", 28, True), ("fdatasync", 5, True), ("fsync", 5, True), ("open", 24, True),
            ("posix_fallocate", 28, True), ("rename", 5, True), ("accept4", 24, False), ("accept4", 103, False), ("getaddrinfo", 0, False),
            ("writev", 32, False), ("malloc", 12, False)]


def syscalls(run):
    """F12. The N-th call fails, once or from then on."""
    upstream = Upstream()
    struck = runs = 0
    try:
        for call, number, ledger_only in SYSCALLS:
            for sticky in (False, True):
                if call == "malloc" and sticky:
                    continue  # a process without any memory can only end; that is kill's case
                places = {"ci": [1, 7], "release": [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 200]}[run.size]
                if call == "malloc":
                    places = range(1, {"ci": 21, "release": 401}[run.size])
                for at in places:
                    runs += 1
                    struck += one_syscall(run, upstream, call, number, ledger_only, sticky, at, runs)
    finally:
        upstream.stop()
    must(struck > runs // 4, f"only {struck} of {runs} faults were ever reached")
    return f"{runs} runs, {struck} faults struck"


CONNECTIONS = 16


def statuses_at_once(port, connections):
    """Of one request on each of so many connections, which are all open at a time."""
    open_ones = [http.client.HTTPConnection("127.0.0.1", port, timeout=lab.LONG_S) for _ in range(connections)]
    try:
        statuses = set()
        for each in open_ones:
            each.request("GET", "/v1/models")
            answer = each.getresponse()
            answer.read()
            statuses.add(answer.status)
        return statuses
    finally:
        for each in open_ones:
            each.close()


def one_syscall(run, upstream, call, number, ledger_only, sticky, at, index):
    what = f"{call} number {at}, errno {number}, {'sticky' if sticky else 'once'}"
    directory = pathlib.Path(run.directory) / f"run{index}"
    directory.mkdir()
    note, armed = directory / "struck", directory / "armed"
    env = {"LD_PRELOAD": str(lab.tool("libfail_nth.so")), "FAIL_CALL": call.split()[-1], "FAIL_AT": str(at), "FAIL_ERRNO": str(number),
           "FAIL_NOTE": str(note), "FAIL_ARMED": str(armed)}
    if sticky:
        env["FAIL_STICKY"] = "1"
    if call.startswith("unmapped"):
        env["FAIL_UNMAPPED"] = "1"
    if ledger_only:
        env["FAIL_PATH"] = str(directory / "ledger")
    plain = dict(os.environ)
    gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, env=env, directory=directory, server=f"max_connections: {CONNECTIONS}")
    gateway.start()
    armed.touch()
    # Where nothing is accepted any more a client waits as long as it likes to.
    load = Load(gateway.ports["proxy"], run.rng, clients=6, pause_s=0.01, timeout=5 if (call, sticky) == ("accept4", True) else lab.LONG_S)
    time.sleep(0.4)
    seen = load.stop()
    if call == "malloc":  # costs one request or connection, and nobody waits for ever
        late = [s for s in seen if "timed out" in s.error]
        must(not late, f"{what}: {len(late)} clients had no answer")
        must(all(ask(gateway.ports["proxy"], {"nonce": f"after{index}.{i}"}).whole for i in range(8)), f"{what}: not every listener goes on")
        wait_until(lambda: gateway.metric("ganglion_connections", listener="proxy") == 0, f"{what}: a connection stays open")
        must(statuses_at_once(gateway.ports["proxy"], CONNECTIONS) == {200}, f"{what}: a connection that is gone is counted still")
    code = gateway.process.poll()
    must(code is None, f"{what}: the gateway ended with {code}")
    unasked = [s for s in seen if s.status not in (0, 200, 502, 503, 504)]
    must(not unasked, f"{what}: answered {unasked[0].status if unasked else ''}")
    if call == "fdatasync" and not sticky and note.exists():  # one failed sync: the ledger goes on by itself
        until = time.monotonic() + 30
        seen.append(ask(gateway.ports["proxy"], {"nonce": f"after{index}"}))
        while not seen[-1].whole and time.monotonic() < until:
            time.sleep(0.05)
            seen.append(ask(gateway.ports["proxy"], {"nonce": f"after{index}"}))
        must(seen[-1].whole, f"{what}: still refused 30 s later: {seen[-1].status} {seen[-1].body[:200]}")
    gateway.process.send_signal(signal.SIGTERM)
    try:
        gateway.process.wait(timeout=lab.LONG_S)
    except subprocess.TimeoutExpired:
        gateway.kill()
        raise lab.Broken(f"{what}: SIGTERM did not end the gateway") from None
    gateway.env = plain
    gateway.start()  # recovers without the fault
    gateway.stop()
    try:
        verify(gateway, seen)
    except lab.Broken as error:
        raise lab.Broken(f"{what}: {error}") from None
    return 1 if note.exists() else 0


def disk_full(run):
    """F13. The ledger's disk fills under load, then space returns."""
    turns = {"ci": 1, "release": 20}[run.size]
    upstream = Upstream()
    facts = []
    for turn in range(turns):
        directory = pathlib.Path(run.directory) / f"turn{turn}"
        directory.mkdir()
        facts.append(one_disk_full(run, upstream, directory))
    upstream.stop()
    refused = max(f["refused_s"] for f in facts)
    resumed = max(f["resumed_s"] for f in facts)
    return f"{turns} turns, first refusal after at most {refused:.2f} s of a full ledger, answers again after at most {resumed:.2f} s"


def one_disk_full(run, upstream, directory):
    disk = Mounted(directory)
    try:
        gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, directory=directory)
        gateway.ledger = disk.path / "ledger"
        gateway.file.write_text(gateway.file.read_text().replace(
            f'ledger: {{directory: "{gateway.directory / "ledger"}"', f'ledger: {{directory: "{gateway.ledger}", segment_size: 1MiB'))
        gateway.start()
        port = gateway.ports["proxy"]
        must(ask(port, {"deltas": 1}).whole, "no answer before the disk was full")
        used = sum(f.stat().st_size for f in disk.path.rglob("*") if f.is_file())
        disk.tell(f"full {max(1, used // (1 << 20))}")
        # Long streams that began before the disk was full must end well.
        long = Load(port, run.rng, clients=4, plan=lambda rng: {"deltas": 60, "gap_ms": 20})
        time.sleep(0.1)
        long.stopping.set()
        began, refused_at = time.monotonic(), None
        load = Load(port, run.rng, clients=16, plan=lambda rng: {"deltas": 1, "gap_ms": 0}, pause_s=0.001)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and refused_at is None:
            time.sleep(0.02)
            with load.lock:
                refused = [s for s in load.seen if s.status == 503]
            if refused:
                refused_at = time.monotonic()
                must(b"ledger_unavailable" in refused[0].body, f"refused with {refused[0].body[:200]}")
        must(refused_at is not None, "the disk never filled")
        first_trouble = min((s.at_s for s in load.seen if s.status == 503), default=refused_at)
        time.sleep(0.5)
        running = long.stop()
        must(all(s.whole or s.status == 503 for s in running), f"a running stream was cut: {[(s.status, s.error) for s in running if not s.whole][:3]}")
        disk.tell("full 0")
        freed = time.monotonic()
        wait_until(lambda: ask(port, {"deltas": 1}).whole, "no answer after space returned")
        resumed_s = time.monotonic() - freed
        seen = load.stop() + running
        gateway.stop()
        verify(gateway, seen)
        return {"refused_s": first_trouble - refused_at if first_trouble > refused_at else 0.0, "resumed_s": resumed_s, "began": began}
    finally:
        disk.stop()


def cuts(run):
    """F17. The upstream breaks off after event k, by reset, close, or inside a chunk."""
    upstream = Upstream()
    gateway = Gateway("providers:\n" + provider(upstream), directory=run.directory).start()
    port = gateway.ports["proxy"]
    rounds = {"ci": 1, "release": 100}[run.size]
    events = {"ci": [0, 1, 2, 3, 7, 8], "release": list(range(51))}[run.size]
    seen = []
    for turn in range(rounds):
        for k in events:
            for how in ("rst", "fin", "short"):
                for stream in (True, False):
                    plan = {"nonce": f"{turn}-{k}-{how}-{stream}", "deltas": max(events), "cut_at": k, "how": how, "gap_ms": 1}
                    before = len(upstream.attempts)
                    answer = ask(port, plan, stream=stream)
                    answer.asked = plan
                    seen.append(answer)
                    must(not answer.whole, f"a broken upstream answer was passed off as whole: {plan}")
                    must(b"[DONE]" not in answer.body, f"[DONE] was forged: {plan}")
                    if answer.status == 200:
                        must(b'"error"' in answer.body, f"the client was not told: {answer.body[-200:]}")
                    again = ask(port, plan, stream=stream)
                    must(again.headers.get("cf-aig-cache-status") != "HIT", f"a broken answer was cached: {plan}")
                    if k > 0 and stream:
                        must(len(upstream.attempts) - before == 2, f"retried after the first byte: {plan}")
    # Bytes after the end: the connection is not used again, no answer gets another's bytes.
    for stream in (True, False):
        for i in range(5):
            answer = ask(port, {"nonce": f"s{i}{stream}", "deltas": i + 1, "surplus": True}, stream=stream)
            must(answer.whole, f"an answer with surplus bytes behind it was lost: {answer.status} {answer.error}")
            must(answer.body.count(b"word ") == i + 1, "an answer holds another's bytes")
    gateway.stop()
    facts = verify(gateway, seen, upstream)
    upstream.stop()
    return f"{len(seen)} broken answers, {facts}"


def disconnects(run):
    """F18. The client leaves after event k; the upstream is cancelled, what was delivered is billed."""
    count = {"ci": 60, "release": 10_000}[run.size]
    upstream = Upstream()
    gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, directory=run.directory).start()
    port = gateway.ports["proxy"]
    left, lock = [], threading.Lock()

    def client(numbers):
        for number in numbers:
            k = number % 12
            plan = {"nonce": number, "deltas": 6000, "gap_ms": 10}  # a minute: it does not end by itself while the machine stands still
            answer = ask(port, plan, stream=True, leave_after=k, how_leave="rst" if number % 2 else "fin")
            answer.asked = plan
            with lock:
                left.append(answer)

    threads = [threading.Thread(target=client, args=(range(i, count, 8),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: gateway.metric("ganglion_ledger_open_intents") == 0, "requests of clients that left did not end")
    # The upstream is a thread of its own and may come to it late.
    wait_until(lambda: all(a.cut_s > 0 for a in upstream.attempts), "the upstream was not cancelled")
    slowest = 0.0
    by_id = {a.request_id: a for a in upstream.attempts}
    gateway.stop()
    records = {r["id"]: r for r in gateway.records()}
    for answer in left:
        if not answer.request_id:
            continue
        record = records.get(answer.request_id)
        must(record is not None, f"no record of {answer.request_id}")
        attempt = by_id[answer.request_id]
        must(record["outcome"] == "cancelled", f"{answer.request_id} is {record['outcome']}")
        must(not attempt.finished, f"{answer.request_id} was answered to its end")
        slowest = max(slowest, attempt.cut_s - answer.left_s)
        # What was taken from the upstream is billed; nothing that it never sent.
        must(answer.events <= record["output_tokens"] <= attempt.tokens * 2,
             f"{answer.events} events were delivered, {attempt.tokens} emitted, {record['output_tokens']} tokens billed")
    facts = verify(gateway, left, upstream)
    upstream.stop()
    return f"{len(left)} clients left, upstream cancelled after at most {slowest * 1e3:.0f} ms, {facts}"


def usage(run):
    """F19. The upstream's usage is missing, null, a lie, twice, early, of several choices...: the last one counts, once; where
    there is none the gateway counts by itself and says so. Clients that did not ask for it do not see it."""
    upstream = Upstream()
    gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, directory=run.directory).start()
    port = gateway.ports["proxy"]
    plans = [{"usage": kind} for kind in lab.USAGE] + [{"n": 3}, {"n": 3, "usage": "none"}, {"choices": "empty"},
                                                       {"choices": "empty", "usage": "none"}, {"n": 2, "usage": "on_choice"}]
    asked = {}
    for plan in plans:
        for stream, include in ((True, False), (True, True), (False, False)):
            sent = {"nonce": f"{plan}{stream}{include}", "deltas": 8, **plan}
            answer = ask(port, sent, stream=stream, include_usage=include, more={"n": plan["n"]} if "n" in plan else None)
            must(answer.whole, f"{plan}: {answer.status} {answer.body[:200]}")
            if stream and not include and plan.get("usage") not in ("on_choice", "grows", "then_null"):
                must(b'"usage":{' not in answer.body.replace(b" ", b""), f"{plan}: a usage event reached a client that did not ask")
            texts = 0 if plan.get("choices") == "empty" and not stream else 8 * plan.get("n", 1)
            must(answer.body.count(b"word ") == texts, f"{plan} stream={stream}: {answer.body.count(b'word ')} words arrived")
            asked[answer.request_id] = (sent, stream, texts)
    gateway.stop()
    records = {r["id"]: r for r in gateway.records()}
    for request_id, (plan, stream, texts) in asked.items():
        record = records[request_id]
        got = (record["input_tokens"], record["output_tokens"])
        told = [each for place in Upstream.usage(plan) for each in place if isinstance(each, dict)]
        if not stream and Upstream.usage(plan)[2][-1:] in ((None,), ("plenty",)):
            told = []  # a whole answer has the last place only
        must(record["estimated"] == (not told), f"{plan} stream={stream}: estimated is {record['estimated']}")
        if told:
            must(got == (told[-1]["prompt_tokens"], told[-1]["completion_tokens"]), f"{plan} stream={stream}: billed {got}")
        else:
            must(got[0] > 0 and texts / 2 <= got[1] <= 4 * texts, f"{plan} stream={stream}: estimated {got} of {texts} words")
    upstream.stop()
    return f"{len(asked)} answers, {len(plans)} kinds of usage"


def retries(run):
    """F20. Retries and fallback make one bill; every attempt is in the record."""
    rounds = {"ci": 20, "release": 1_000}[run.size]
    upstream, second = Upstream(), Upstream()
    gateway = Gateway("providers:\n" + provider(upstream, "[m, f]", more=", weight: 100") + provider(second, "[f]", "second", ", weight: 1") +
                      "gateways:\n  - {name: default, cache: {ttl: 0s}, retry: {attempts: 3}}\n", directory=run.directory).start()
    port = gateway.ports["proxy"]
    seen = []
    for i in range(rounds):
        plan = {"nonce": f"r{i}", "deltas": 4, "status": 503, "fail_first": 1 + i % 2}
        answer = ask(port, plan, stream=bool(i & 1))
        answer.asked = plan
        seen.append(answer)
        must(answer.whole, f"not answered after {plan['fail_first']} failures: {answer.status} {answer.body[:200]}")
    gateway.stop()
    facts = verify(gateway, seen)
    records = {r["id"]: r for r in gateway.records()}
    for answer in seen:
        tries = records[answer.request_id]["attempts"]
        took = len([a for a in upstream.attempts + second.attempts if a.request_id == answer.request_id])
        must(len(tries) == took, f"{len(tries)} attempts in the record, {took} at the upstreams")
    upstream.stop()
    second.stop()
    return f"{rounds} retried requests, {facts}"


def clock(run):
    """F21. The wall clock jumps by hours and days, forwards and back (libfaketime; monotonic time goes on)."""
    preload = next((p for p in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")
                    if os.path.exists(p)), None)
    must(preload, "libfaketime is not installed (scripts/setup installs it)")
    upstream = Upstream()
    shift = pathlib.Path(run.directory) / "shift"
    shift.write_text("+0\n", encoding="ascii")
    env = {"LD_PRELOAD": preload, "FAKETIME_TIMESTAMP_FILE": str(shift), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
           "FAKETIME_DONT_RESET": "1"}
    gateway = Gateway("providers:\n" + provider(upstream) + NO_CACHE, env=env, directory=run.directory).start()
    plain = dict(os.environ)
    seen = []
    jumps = ["+0", "+3600", "-3600", "+86400", "-86400", "-300", "+0"]
    for jump in jumps:
        shift.write_text(f"{jump}\n", encoding="ascii")
        load = Load(gateway.ports["proxy"], run.rng, clients=4)
        time.sleep(0.3)
        seen += load.stop()
    must(all(s.whole for s in seen), "a jump of the clock failed a request")
    gateway.stop()
    shift.write_text("-86400\n", encoding="ascii")  # a start before the last record
    gateway.start()
    seen.append(ask(gateway.ports["proxy"], {"deltas": 8}))
    must(seen[-1].whole, "no answer when the clock is before the last record")
    gateway.stop()
    gateway.env = plain
    facts = verify(gateway, seen, upstream)
    records = gateway.records()
    must(all(r["latency_us"] >= 0 for r in records), "a negative duration")
    sequences = [r["sequence"] for r in records]
    must(sequences == sorted(set(sequences)), "sequences do not increase strictly")
    upstream.stop()
    return f"{len(jumps)} jumps, {facts}"


def isolation(run):
    """F25. Three tenants ask the same, and what only looks the same, of an exact and of a semantic cache: nobody gets what
    another's call brought, hits are equal to the byte, and 500 equal misses make one call."""
    count = {"ci": 1_000, "release": 10_000}[run.size]
    upstream = Upstream()
    keys = "".join(f"  - {{id: {t}, secret: sk-prefix-{t}, tenant: {t}}}\n" for t in TENANTS)
    gateway = Gateway("providers:\n" + provider(upstream, "[m, e]") + "key_pepper: some-pepper-for-tests-only\nkeys:\n" + keys +
                      "tenants: [{name: a}, {name: aa}, {name: b}]\ngateways:\n  - name: default\n    cache:\n      ttl: 1h\n      semantic: "
                      "{embedding_model: e, threshold: 0.99, max_length_difference: 100%, same_numbers: false, timeout: 10s}\n",
                      directory=run.directory).start()
    port = gateway.ports["proxy"]
    exact = exact_isolation(run, port, count)
    semantic = semantic_isolation(run, port, count // 2)
    must(upstream.embeddings > 0, "nothing was looked up by its meaning")
    for wrong in ("sk-prefix-", "sk-prefix-c", "SK-PREFIX-a", "sk-prefix-aaa", "sk-prefix-a\u00a0", "sk prefix-a"):
        must(ask(port, {}, key=wrong).status in (400, 401), f"the key {wrong!r} was accepted")
    before = len(upstream.attempts)
    herd, lock = [], threading.Lock()

    def one():
        answer = ask(port, {"nonce": "herd", "deltas": 3, "delay_ms": 1000}, key="sk-prefix-b", timeout=120)
        with lock:
            herd.append(answer)

    threads = [threading.Thread(target=one) for _ in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = [f"{a.status} {a.error}" for a in herd if not a.whole]
    must(not lost, f"{len(lost)} of the herd were not answered: {lost[:3]}")
    must(len(upstream.attempts) - before == 1, f"the herd made {len(upstream.attempts) - before} upstream calls")
    must(len({a.body for a in herd}) == 1, "one of the herd got other bytes")
    gateway.stop()
    upstream.stop()
    return f"{exact}; {semantic}; a herd of {len(herd)} made 1 call"


TENANTS = ("a", "aa", "b")


def answer_id(answer):
    found = re.search(rb"chatcmpl-[0-9]+", answer.body)
    must(answer.whole and found, f"{answer.status} {answer.error} {answer.body[:200]}")
    return found.group()


def exact_isolation(run, port, count):
    """Each question in forms that look alike and are not the same."""
    rng = run.rng
    forms = [str, str.lower, str.upper, lambda q: q + " ", lambda q: " " + q, lambda q: q.replace(" ", "  "), lambda q: q + "\n",
             lambda q: q.replace(" ", "\u00a0"), lambda q: q.replace("e", "\u0435"), lambda q: q + "\u200b", lambda q: q + "\u0000"]
    first, owner = {}, {}
    hits = 0
    for _ in range(count):
        tenant = rng.choice(TENANTS)
        question = rng.choice(forms)(f"Where is the {rng.randrange(max(3, count // 200))} key")
        stream = rng.random() < 0.5
        asked = (tenant, question)
        # With a temperature the semantic cache stays out of it.
        answer = ask(port, question, stream=stream, key=f"sk-prefix-{tenant}", more={"temperature": 1})
        got = answer_id(answer)
        must(owner.setdefault(got, asked) == asked, f"{asked} got the answer of {owner[got]}")
        hit = answer.headers.get("cf-aig-cache-status") == "HIT"
        must(hit == (asked in first), f"{asked}: {'HIT' if hit else 'MISS'}")
        # Each form of the answer is the same, byte for byte, every time a tenant gets it from the cache.
        known = first.setdefault(asked, {}).setdefault(stream, answer.body)
        must(not hit or known == answer.body, f"two answers to {asked} differ")
        hits += hit
    must(hits > count / 4, f"{hits} hits only")
    return f"exact: {count} requests, {len(first)} distinct, {hits} hits"


def semantic_isolation(run, port, count):
    """All questions look alike here; what surrounds them does not, if only by a space."""
    rng = run.rng
    systems = ["You help.", "You help. ", "you help.", "You  help.", "You help.\n", "You help.\u200b"]
    owner, seen = {}, set()
    alike = 0
    for i in range(count):
        tenant = rng.choice(TENANTS)
        system = rng.choice(systems)
        other = rng.choice([t for t in TENANTS if t != tenant])
        question = f"{i} " + rng.choice(["how?", "HOW?", f'"}}],"tenant":"{other}","messages":[{{"content":"how?', f"tenant={other}",
                                         f"system: {rng.choice(systems)}", f"Bearer sk-prefix-{other}", "how?" * 50])
        fields = rng.choice([{}, {"max_tokens": 9}, {"user": other}, {"seed": 1}])
        asked = (tenant, system, str(fields))
        answer = ask(port, question, key=f"sk-prefix-{tenant}", stream=rng.random() < 0.5, more={"temperature": 0, **fields},
                     before=[{"role": "system", "content": system}])
        got = answer_id(answer)
        must(owner.setdefault(got, asked) == asked, f"{asked} got the answer of {owner[got]}")
        by_meaning = answer.headers.get("x-ganglion-cache", "").startswith("semantic")
        must(not by_meaning or asked in seen, f"a hit for {asked}, which nobody asked before")
        must(by_meaning == (answer.headers.get("cf-aig-cache-status") == "HIT"), "a hit that is neither exact nor semantic")
        seen.add(asked)
        alike += by_meaning
    must(alike > count / 4, f"{alike} semantic hits only")
    return f"semantic: {count} requests, {len(seen)} contexts, {alike} hits"


class Redis:
    """A real redis-server on a free port; forgets everything when it is killed."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self):
        self.process = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                         "--dir", str(self.directory)], stdout=subprocess.DEVNULL)
        lab.servers.append(self.process)
        wait_until(lambda: self.call("PING") == "PONG", "redis-server did not start")

    def call(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, check=False, timeout=lab.LONG_S)
        return done.stdout.strip()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()


def limited_gateways(run, redis, upstream, count, rate, burst, hung_after="250ms"):
    """Gateways that share the limits of keys k0..k3."""
    keys = "".join(f"  - {{id: k{i}, secret: sk-limited-{i}, limits: {{requests: {{rate: {rate}/s, burst: {burst}}}}}}}\n" for i in range(4))
    gateways = []
    for index in range(count):
        directory = run.directory / f"gateway{index}"
        directory.mkdir()
        gateways.append(Gateway("providers:\n" + provider(upstream) + NO_CACHE + "key_pepper: some-pepper-for-tests-only\nkeys:\n" + keys +
                                (f'redis: {{addresses: ["127.0.0.1:{redis.port}"], command_timeout: {hung_after}, hung_after: {hung_after}}}\n' if redis else ""), directory=directory).start())
    if redis:  # each takes its part of a limit while Redis is away once it has seen the others
        wait_until(lambda: all(g.metric("ganglion_limiter_gateways") == count for g in gateways), "the gateways did not see each other")
    return gateways


class Flood:
    """Asks with every key on every gateway, `per_key` times as often as the limit allows, until stopped."""

    def __init__(self, gateways, keys, clients):
        self.answers = []  # (key, status, sent, answered, retry after)
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(gateways[i % len(gateways)].ports["proxy"], keys[i // len(gateways) % len(keys)]), daemon=True)
                        for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, port, key):
        while not self.stopping.is_set():
            sent = time.monotonic()
            answer = ask(port, {"deltas": 1}, key=f"sk-limited-{key}")
            with self.lock:
                self.answers.append((key, answer.status, sent, time.monotonic(), answer.error or answer.body[:200]))
            self.stopping.wait(0.004)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=2 * lab.LONG_S)
        return self.answers


def admitted(answers, key, since=0.0, until=float("inf")):
    return sum(1 for k, status, sent, _, _ in answers if k == key and status == 200 and since <= sent < until)


def unasked_s(answers, key, burst_s):
    """For how long nobody asked, because the machine stood still, and a full bucket ran over."""
    times = sorted(each[2] for each in answers if each[0] == key)
    return sum(max(0.0, later - earlier - burst_s / 2) for earlier, later in zip(times, times[1:]))


def limits(run):
    """F15. Limits are exact: one gateway alone, then two that share them through Redis."""
    seconds = {"ci": 4, "release": 60}[run.size]
    upstream = Upstream()
    rate, burst = 40, 20
    facts = []
    redis = Redis(run.directory)
    try:
        for count in (1, 2):
            # Nothing falls ill here: a machine that stands still must not look like it.
            gateways = limited_gateways(run, redis if count == 2 else None, upstream, count, rate, burst, hung_after="5s")
            time.sleep(0.5)  # leases and gateways are known to each other
            flood = Flood(gateways, [0, 1], 12)
            time.sleep(seconds)
            answers = flood.stop()
            must({s for _, s, _, _, _ in answers} <= {200, 429}, f"statuses {sorted({(s, e) for _, s, _, _, e in answers if s not in (200, 429)}, key=str)[:3]}")
            lasted = max(a[3] for a in answers) - min(a[2] for a in answers)
            for key in (0, 1):
                got, most = admitted(answers, key), burst + rate * lasted
                must(got <= most * (1.01 if count == 2 else 1.0) + 1, f"{count} gateway(s): {got} admitted of at most {most:.0f}")
                must(got >= (most - rate * (0.2 + unasked_s(answers, key, burst / rate))) * 0.97, f"{count} gateway(s): only {got} admitted of {most:.0f}: the limit is not used")
                facts.append(f"{got}/{most:.0f}")
            for gateway in gateways:
                gateway.stop()
                shutil.rmtree(gateway.directory)
    finally:
        redis.kill()
        upstream.stop()
    return f"admitted of allowed, 2 keys on 1 gateway, 2 keys on 2 gateways: {', '.join(facts)}"


def keys(run):
    """F20 over two gateways on one Redis: one charge per Idempotency-Key, whoever is asked and whoever is killed."""
    rounds = {"ci": 20, "release": 500}[run.size]
    upstream, server = Upstream(), Redis(run.directory)
    gateways = []
    for index in range(2):
        directory = run.directory / f"gateway{index}"
        directory.mkdir()
        gateways.append(Gateway("providers:\n" + provider(upstream) + NO_CACHE + f'redis: {{addresses: ["127.0.0.1:{server.port}"]}}\n', directory=directory).start())
    seen, kills = [[], []], 0
    try:
        for i in range(rounds):
            plan = {"nonce": f"k{i}", "deltas": 4, "gap_ms": 20}
            headers = {"idempotency-key": f"key-{i}"}

            def client(index, plan=plan, headers=headers):
                answer = ask(gateways[index].ports["proxy"], plan, stream=True, headers=headers)
                answer.asked = plan
                seen[index].append(answer)

            clients = [threading.Thread(target=client, args=(index,)) for index in run.rng.sample(range(2), 2)]
            for each in clients:
                each.start()
            if run.rng.random() < 0.6:  # now and then while a key is in Redis and not yet in its gateway's store
                time.sleep(run.rng.random() * run.rng.choice((0.02, 0.2)))
                victim = gateways[run.rng.randrange(2)]
                victim.kill()
                kills += 1
                victim.start()
            for each in clients:
                each.join()
            for index in run.rng.sample(range(2), 2):
                until = time.monotonic() + lab.LONG_S
                while True:
                    answer = ask(gateways[index].ports["proxy"], plan, stream=True, headers=headers)
                    answer.asked = plan
                    seen[index].append(answer)
                    if answer.whole:
                        break
                    must(answer.status in (0, 200, 503), f"key-{i}: {answer.status} {answer.body[:200]}")
                    must(time.monotonic() < until, f"key-{i} has no answer after a minute: {answer.status} {answer.body[:200]} {answer.error}")
                    time.sleep(0.1)
        nonces = {a.request_id: a.plan["nonce"] for a in upstream.attempts}
        charged = {}
        for index, gateway in enumerate(gateways):
            gateway.stop()
            verify(gateway, seen[index])
            for record in gateway.records():
                if record["outcome"] == "completed":
                    nonce = nonces[record["id"]]
                    charged[nonce] = charged.get(nonce, 0) + 1
        wrong = {nonce: count for nonce, count in charged.items() if count != 1}
        must(not wrong, f"charged more than once: {wrong}")
        must(len(charged) == rounds, f"{len(charged)} keys charged of {rounds}")
    finally:
        server.kill()
        upstream.stop()
    return f"{rounds} keys at two gateways, {kills} kills, {len(upstream.attempts)} calls, each key charged once"


def redis(run):
    """F14. Redis is killed, hung, emptied, read-only or without its scripts, while two gateways share limits."""
    turns = {"ci": 1, "release": 20}[run.size]
    upstream = Upstream()
    server = Redis(run.directory)
    rate, burst = 40, 20
    gateways = limited_gateways(run, server, upstream, 2, rate, burst)
    facts = {}
    try:
        for turn in range(turns):
            for name, hurt, heal in (("killed", server.kill, server.start),
                                     ("hung", lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT)),
                                     ("emptied", lambda: server.call("FLUSHALL"), lambda: None),
                                     ("without scripts", lambda: server.call("SCRIPT", "FLUSH"), lambda: None),
                                     ("read-only", lambda: server.call("REPLICAOF", "127.0.0.1", "1"), lambda: server.call("REPLICAOF", "NO", "ONE"))):
                flood = Flood(gateways, [turn % 4], 8)
                time.sleep(0.7)
                hurt()
                time.sleep(1.5)
                heal()
                time.sleep(1.5)
                answers = flood.stop()
                bad = [(s, e) for _, s, _, _, e in answers if s not in (200, 429)]
                must(not bad, f"redis {name}: {len(bad)} requests failed, first {bad[:1]}")
                lasted = max(a[3] for a in answers) - min(a[2] for a in answers)
                got, most = admitted(answers, turn % 4), 2 * burst + rate * lasted * 1.1
                must(got <= most, f"redis {name}: {got} admitted of at most {most:.0f}")
                must(got >= rate * (lasted - unasked_s(answers, turn % 4, burst / rate)) * 0.5, f"redis {name}: only {got} admitted in {lasted:.1f} s")
                took = sorted(a[3] - a[2] for a in answers)
                facts[name] = f"{got}/{most:.0f}, p99 {took[len(took) * 99 // 100] * 1e3:.0f} ms"
                time.sleep(burst / rate + 0.3)  # the bucket is full again
        for gateway in gateways:
            gateway.stop()
            verify(gateway, [])
        billed = sum(1 for g in gateways for r in g.records() if r["outcome"] == "completed")
        must(billed == len(upstream.attempts), f"{billed} billed, the upstream answered {len(upstream.attempts)}")
    finally:
        server.signal(signal.SIGCONT)
        server.kill()
        upstream.stop()
    return f"{turns} turns, {facts}"


def reconnects(run):
    """F12 and F14. The N-th malloc fails, once, while a gateway that has lost every connection to Redis connects again."""
    places = range(1, {"ci": 21, "release": 401}[run.size])
    upstream, server = Upstream(), Redis(run.directory)
    struck, slowest = 0, 0.0
    try:
        for at in places:
            directory = pathlib.Path(run.directory) / f"run{at}"
            directory.mkdir()
            note, armed = directory / "struck", directory / "armed"
            gateway = Gateway("providers:\n" + provider(upstream) + "key_pepper: some-pepper-for-tests-only\nkeys:\n"
                              "  - {id: k0, secret: sk-limited-0, limits: {requests: {rate: 1000/s, burst: 1000}}}\n"
                              f'redis: {{addresses: ["127.0.0.1:{server.port}"], key_prefix: "run{at}:"}}\n', directory=directory,
                              env={"LD_PRELOAD": str(lab.tool("libfail_nth.so")), "FAIL_CALL": "malloc", "FAIL_AT": str(at),
                                   "FAIL_NOTE": str(note), "FAIL_ARMED": str(armed)}).start()
            must(ask(gateway.ports["proxy"], {"deltas": 1}, key="sk-limited-0").whole, "no answer before the fault")
            wait_until(lambda: all_nodes_up(gateway) and all(each in server.call("PUBSUB", "CHANNELS") for each in ("cache:purges", "idem:asked")),
                       "not every connection to Redis came up")
            connections, channels = server.call("CLIENT", "LIST").splitlines(), sorted(server.call("PUBSUB", "CHANNELS").split())
            armed.touch()
            for kind in ("normal", "pubsub"):
                server.call("CLIENT", "KILL", "TYPE", kind)
            began = time.monotonic()
            while time.monotonic() < began + 0.2:  # commands meet nodes that are about to come up
                ask(gateway.ports["proxy"], {"deltas": 1, "nonce": f"{at}.{time.monotonic()}"}, key="sk-limited-0")
            wait_until(lambda: len(server.call("CLIENT", "LIST").splitlines()) == len(connections) and all_nodes_up(gateway) and
                       sorted(server.call("PUBSUB", "CHANNELS").split()) == channels, f"malloc number {at}: a connection to Redis did not come back", seconds=20)
            slowest = max(slowest, time.monotonic() - began)
            # The fault costs one request, which may be this one.
            must(any(ask(gateway.ports["proxy"], {"deltas": 1}, key="sk-limited-0").whole for _ in range(2)), f"malloc number {at}: no answer after the fault")
            struck += note.exists()
            gateway.kill()
    finally:
        server.kill()
        upstream.stop()
    must(struck > len(places) // 2, f"only {struck} of {len(places)} faults were ever reached")
    return f"{len(places)} runs, {struck} faults struck, all connections back after at most {slowest:.1f} s"


def all_nodes_up(gateway):
    """False too where the question failed: it may be what wanted the memory that there was not."""
    try:
        states = [gateway.metric("ganglion_redis_connections", state=state) for state in ("connecting", "up", "down")]
    except (OSError, http.client.HTTPException):
        return False
    return None not in states and states[1] > 0 and states[0] == states[2] == 0


ALL = {f.__name__: f for f in (kill, power, syscalls, disk_full, cuts, disconnects, usage, retries, keys, clock, isolation, limits, redis, reconnects,
                               restart)}
NEEDS_FUSE = {"power", "disk_full"}
