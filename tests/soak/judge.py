"""Holds the three journals of a soak against each other: C clients, U upstream, G the gateway's ledger. What it asks for is the
contract A to E of the ledger, that a key is charged once, that a budget is never exceeded and a limit holds, and that metrics
and ledger agree."""

import collections
import datetime
import hashlib
import json
from sys import intern

COSTLY = ("completed", "cancelled")  # a broken answer is free
MODEL_TOKENS_OF_EVENT = 2  # what a count by our own tokenizer may make of one event of a stream that was left
BYTES_OF_TOKEN = 4  # and of its padding: one token for so many, at most
LIES_OVER = 20_000  # clients


class Broken(AssertionError):
    """An invariant does not hold."""


def must(condition, message):
    if not condition:
        raise Broken(message)


class Slotted:
    """An hour at half of what a machine can do has millions of these: no dict, and strings that repeat are kept once."""

    __slots__ = ()

    def __repr__(self):
        return str({name: getattr(self, name) for name in self.__slots__})

    def other(self, **changes):
        """A copy that differs."""
        copy = object.__new__(type(self))
        for name in self.__slots__:
            setattr(copy, name, changes.get(name, getattr(self, name)))
        return copy


class Client(Slotted):
    """What a client saw of one request: of a line of clients.py's journal, what is read here."""

    __slots__ = ("kind", "fault", "id", "key", "pad", "deltas", "status", "whole", "words", "sha", "ms", "at", "port", "error", "said")

    def __init__(self, line):
        self.kind, self.fault, self.id = intern(line["kind"]), intern(line["fault"]), intern(line["id"])
        self.key, self.sha, self.error = intern(line["key"]), intern(line["sha"]), intern(line["error"])
        self.deltas, self.status, self.whole, self.words = line["deltas"], line["status"], line["whole"], line["words"]
        self.ms, self.at, self.port = line["ms"], line["at"], line["port"]
        self.pad, self.said = line.get("pad", 0), line.get("said", "")


class Call(Slotted):
    """An attempt that reached the upstream."""

    __slots__ = ("id", "status", "tokens")

    def __init__(self, line):
        self.id, self.status, self.tokens = intern(line["id"]), line["status"], line["tokens"]


class Record(Slotted):
    """What the judge needs of a record of the ledger. `attempts`: how many."""

    __slots__ = ("id", "key", "outcome", "output", "input", "neurons", "attempts", "at")

    def __init__(self, line):
        self.id, self.key, self.outcome = intern(line["id"]), intern(line["key"]), intern(line["outcome"])
        self.output, self.input, self.neurons = line["output_tokens"], line["input_tokens"], float(line["neurons"])
        self.attempts = len(line["attempts"])
        self.at = datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()


def journal(path, kind):
    with open(path, encoding="utf-8") as lines:
        return [kind(json.loads(line)) for line in lines]


def clients_of(path):
    return journal(path, Client)


def upstream_of(path):
    return journal(path, Call)


class Ledger:
    """G, from `ganglion ledger export`."""

    def __init__(self, export):
        """`export`: called for each reading; gives or yields the lines."""
        self.records, first = self.read(export())
        again = hashlib.sha256()
        for line in export():
            again.update(line.encode())
        must(first == again.hexdigest(), "E: exporting twice gave different records")

    @staticmethod
    def read(text):
        records, digest = [], hashlib.sha256()
        for line in text:
            digest.update(line.encode())
            records.append(Record(json.loads(line)))
        return records, digest.hexdigest()


def judge(clients, upstream, records, limits, price=1.0):
    """The facts of the run, or Broken. `limits`: budget (neurons), budget_s, rate, burst, bursts, seconds."""
    by_id = contract_a(clients, records)
    wholes = contract_b(clients, by_id)
    calls = contract_c(upstream, by_id)
    billed = contract_d(clients, upstream, by_id, price)
    replays = keys(clients, records, by_id)
    fullest = budget(records, limits)
    admitted = limit(records, limits)
    undisturbed(clients)
    outcomes = collections.Counter(record.outcome for record in records)
    return {"requests": len(clients), "whole": wholes, "upstream attempts": calls, "records": dict(sorted(outcomes.items())),
            "output tokens billed": billed, "answers repeated by key": replays, "fullest budget window": f"{fullest:.0f} of {limits['budget']}",
            "limited key admitted": f"{admitted} of at most {limit_most(limits):.0f}"}


def contract_a(clients, records):
    by_id = {}
    for record in records:
        must(record.id not in by_id, f"A: more than one terminal record for {record.id}")
        by_id[record.id] = record
    for seen in clients:
        must(not seen.id or seen.status != 200 or seen.id in by_id, f"A: no record of {seen.id}, which a client saw")
    return by_id


def contract_b(clients, by_id):
    count = 0
    for seen in clients:
        if not seen.whole:
            continue
        count += 1
        record = by_id.get(seen.id)
        must(record, f"B: no record of {seen.id}, which a client has whole")
        must(record.outcome in ("completed", "cache_hit"), f"B: {seen.id} was answered whole and is {record.outcome}")
        must(seen.words == seen.deltas, f"B: {seen.id} has {seen.words} words of {seen.deltas}")
        if record.outcome == "completed":
            must(record.output == seen.deltas, f"B: {seen.id} used {seen.deltas} tokens, the ledger says {record.output}")
    return count


def contract_c(upstream, by_id):
    calls = collections.Counter(attempt.id for attempt in upstream)
    for request_id, count in calls.items():
        record = by_id.get(request_id)
        must(record, f"C: the upstream served {request_id}, which no record covers")
        must(count <= record.attempts, f"C: {request_id} has {record.attempts} attempts on record, the upstream saw {count}")
    return len(upstream)


def contract_d(clients, upstream, by_id, price):
    emitted = {}
    for attempt in upstream:
        if attempt.status == 200:
            emitted[attempt.id] = max(emitted.get(attempt.id, 0), attempt.tokens)
    left = {seen.id: seen for seen in clients if seen.id in by_id and by_id[seen.id].outcome == "cancelled"}
    total = 0
    for request_id, record in by_id.items():
        total += record.output if record.outcome in COSTLY else 0
        due = record.output * price if record.outcome in COSTLY else 0.0
        must(abs(record.neurons - due) < 1e-6, f"D: {request_id} has {record.output} tokens and {record.neurons} neurons")
        if record.outcome == "completed":
            must(record.output == emitted.get(request_id, 0), f"D: {request_id} bills {record.output} tokens, the upstream emitted {emitted.get(request_id, 0)}")
        elif record.outcome == "cancelled":
            seen = left.get(request_id)  # none: gone before the head of the answer
            each = MODEL_TOKENS_OF_EVENT + (seen.pad if seen else 0) / BYTES_OF_TOKEN
            least, most = seen.words if seen else 0, emitted.get(request_id, 0) * each
            must(least <= record.output <= most, f"D: {request_id} was left: {least} delivered, {emitted.get(request_id, 0)} emitted, {record.output} billed")
    return total


def keys(clients, records, by_id):
    """One charge for an Idempotency-Key, and the same bytes for everybody."""
    charged, answers, repeated = collections.Counter(), {}, 0
    for seen in clients:
        if not seen.key or not seen.id or seen.id not in by_id:
            continue
        record = by_id[seen.id]
        charged[seen.key] += record.neurons > 0 and record.outcome == "completed"
        must(charged[seen.key] <= 1, f"{seen.key} is charged more than once")
        if seen.whole:
            must(answers.setdefault(seen.key, seen.sha) == seen.sha, f"two answers to {seen.key} differ")
            repeated += record.outcome == "cache_hit"
    return repeated


def budget(records, limits):
    """The most that was spent in any window of the budgeted key."""
    window, total, most = collections.deque(), 0.0, 0.0
    for record in sorted((r for r in records if r.key == "budget" and r.neurons > 0), key=lambda r: r.at):
        window.append(record)
        total += record.neurons
        while window[0].at <= record.at - limits["budget_s"]:
            total -= window.popleft().neurons
        most = max(most, total)
    must(most <= limits["budget"] + 1e-6, f"the budget of {limits['budget']} neurons was exceeded: {most}")
    return most


def limit_most(limits):
    return limits["burst"] * (1 + limits["bursts"]) + limits["rate"] * limits["seconds"] * 1.01 + 1


def limit(records, limits):
    admitted = sum(1 for record in records if record.key == "limited" and record.outcome == "completed")
    must(admitted <= limit_most(limits), f"the limit let {admitted} through, at most {limit_most(limits):.0f} were allowed")
    return admitted


def undisturbed(clients):
    """Who was not disturbed on purpose has the whole answer, or a refusal that his budget or limit explains."""
    for seen in clients:
        if seen.fault or seen.whole:
            continue
        must(seen.status == 429 and seen.kind in ("budgeted", "limited"),
             f"an undisturbed request failed: {seen}")


def some(clients, upstream, records, count=LIES_OVER):
    """The first so many clients, and all that the upstream and the ledger have of their requests."""
    clients = clients[:count]
    ids = {seen.id for seen in clients if seen.id}
    return clients, [call for call in upstream if call.id in ids], [record for record in records if record.id in ids]


def proves_itself(clients, upstream, records, limits):
    """The judge notices each of these lies: else it proves nothing. They are told about the first clients, since what finds a lie
    among these finds it among millions; that part passes without a lie."""
    clients, upstream, records = some(clients, upstream, records)
    judge(clients, upstream, records, limits)
    charged = next(r for r in records if r.outcome == "completed")
    billed = {r.id for r in records if r.outcome == "completed"}
    whole = next(seen for seen in clients if seen.whole and not seen.fault and seen.id in billed)

    def recharged(**changes):
        return [r.other(**changes) if r is charged else r for r in records]

    def spent(key, count, tokens, once=""):
        """Requests more that are in order by themselves: only what they come to, or that they share a key `once`, is not."""
        ids = [f"lie {i}" for i in range(count)]
        return ([*clients, *(whole.other(id=i, key=once, words=tokens, deltas=tokens) for i in ids)],
                upstream + [upstream[0].other(id=i, status=200, tokens=tokens) for i in ids],
                records + [charged.other(id=i, key=key, output=tokens, neurons=float(tokens), attempts=1) for i in ids])

    lies = {
        "a record twice": (clients, upstream, records + [records[-1]]),
        "a record lost": (clients, upstream, [r for r in records if r.id != whole.id]),
        "a token more": (clients, upstream, recharged(output=charged.output + 1, neurons=charged.neurons + 1)),
        "a price": (clients, upstream, recharged(neurons=charged.neurons * 2)),
        "a call without a bill": (clients, upstream + [upstream[0].other(id="unknown")], records),
        "a call twice": (clients, upstream + [upstream[-1]] * 5, records),
        "an answer cut": ([seen.other(whole=False) if seen is whole else seen for seen in clients], upstream, records),
        "a budget passed": spent("budget", 1, limits["budget"] + 1),
        "a limit passed": spent("limited", int(limit_most(limits)) + 1, 1),
        "a key charged twice": spent("anybody", 2, 1, once="lie"),
        "a word lost": ([seen.other(words=seen.words - 1) if seen is whole else seen for seen in clients], upstream, records),
    }
    for name, lie in lies.items():
        try:
            judge(*lie, limits)
        except Broken:
            continue
        raise Broken(f"the judge did not notice: {name}")
    return len(lies)
