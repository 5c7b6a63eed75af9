"""Holds the three journals of a soak against each other: C clients, U upstream, G the gateway's ledger. What it asks for is the
contract A to E of the ledger, that a key is charged once, that a budget is never exceeded and a limit holds, and that metrics
and ledger agree."""

import collections
import datetime
import hashlib
import json

COSTLY = ("completed", "cancelled")  # a broken answer is free
MODEL_TOKENS_OF_EVENT = 2  # what a count by our own tokenizer may make of one event of a stream that was left
BYTES_OF_TOKEN = 4  # and of its padding: one token for so many, at most


class Broken(AssertionError):
    """An invariant does not hold."""


def must(condition, message):
    if not condition:
        raise Broken(message)


def lines(path):
    with open(path, encoding="utf-8") as journal:
        return [json.loads(line) for line in journal]


class Ledger:
    """G, from `ganglion ledger export`: what the judge needs of each record."""

    def __init__(self, export):
        """`export`: called for each reading; gives the lines."""
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
            full = json.loads(line)
            records.append({"id": full["id"], "key": full["key"], "outcome": full["outcome"], "output": full["output_tokens"],
                            "input": full["input_tokens"], "neurons": float(full["neurons"]), "status": full["http_status"],
                            "attempts": [each["http_status"] for each in full["attempts"]],
                            "at": datetime.datetime.fromisoformat(full["time"].replace("Z", "+00:00")).timestamp()})
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
    outcomes = collections.Counter(record["outcome"] for record in records)
    return {"requests": len(clients), "whole": wholes, "upstream attempts": calls, "records": dict(sorted(outcomes.items())),
            "output tokens billed": billed, "answers repeated by key": replays, "fullest budget window": f"{fullest:.0f} of {limits['budget']}",
            "limited key admitted": f"{admitted} of at most {limit_most(limits):.0f}"}


def contract_a(clients, records):
    by_id = {}
    for record in records:
        must(record["id"] not in by_id, f"A: more than one terminal record for {record['id']}")
        by_id[record["id"]] = record
    for seen in clients:
        must(not seen["id"] or seen["status"] != 200 or seen["id"] in by_id, f"A: no record of {seen['id']}, which a client saw")
    return by_id


def contract_b(clients, by_id):
    count = 0
    for seen in clients:
        if not seen["whole"]:
            continue
        count += 1
        record = by_id.get(seen["id"])
        must(record, f"B: no record of {seen['id']}, which a client has whole")
        must(record["outcome"] in ("completed", "cache_hit"), f"B: {seen['id']} was answered whole and is {record['outcome']}")
        must(seen["words"] == seen["deltas"], f"B: {seen['id']} has {seen['words']} words of {seen['deltas']}")
        if record["outcome"] == "completed":
            must(record["output"] == seen["deltas"], f"B: {seen['id']} used {seen['deltas']} tokens, the ledger says {record['output']}")
    return count


def contract_c(upstream, by_id):
    calls = collections.Counter(attempt["id"] for attempt in upstream)
    for request_id, count in calls.items():
        record = by_id.get(request_id)
        must(record, f"C: the upstream served {request_id}, which no record covers")
        must(count <= len(record["attempts"]), f"C: {request_id} has {len(record['attempts'])} attempts on record, the upstream saw {count}")
    return len(upstream)


def contract_d(clients, upstream, by_id, price):
    emitted = collections.defaultdict(int)
    for attempt in upstream:
        if attempt["status"] == 200:
            emitted[attempt["id"]] = max(emitted[attempt["id"]], attempt["tokens"])
    delivered = {seen["id"]: seen["words"] for seen in clients if seen["id"]}
    padded = {seen["id"]: seen["pad"] for seen in clients if seen.get("pad")}
    total = 0
    for request_id, record in by_id.items():
        total += record["output"] if record["outcome"] in COSTLY else 0
        due = record["output"] * price if record["outcome"] in COSTLY else 0.0
        must(abs(record["neurons"] - due) < 1e-6, f"D: {request_id} has {record['output']} tokens and {record['neurons']} neurons")
        if record["outcome"] == "completed":
            must(record["output"] == emitted[request_id], f"D: {request_id} bills {record['output']} tokens, the upstream emitted {emitted[request_id]}")
        elif record["outcome"] == "cancelled":
            each = MODEL_TOKENS_OF_EVENT + padded.get(request_id, 0) / BYTES_OF_TOKEN
            least, most = delivered.get(request_id, 0), emitted[request_id] * each
            must(least <= record["output"] <= most, f"D: {request_id} was left: {least} delivered, {emitted[request_id]} emitted, {record['output']} billed")
    return total


def keys(clients, records, by_id):
    """One charge for an Idempotency-Key, and the same bytes for everybody."""
    charged, answers, repeated = collections.Counter(), {}, 0
    for seen in clients:
        if not seen["key"] or not seen["id"] or seen["id"] not in by_id:
            continue
        record = by_id[seen["id"]]
        charged[seen["key"]] += record["neurons"] > 0 and record["outcome"] == "completed"
        must(charged[seen["key"]] <= 1, f"{seen['key']} is charged more than once")
        if seen["whole"]:
            must(answers.setdefault(seen["key"], seen["sha"]) == seen["sha"], f"two answers to {seen['key']} differ")
            repeated += record["outcome"] == "cache_hit"
    return repeated


def budget(records, limits):
    """The most that was spent in any window of the budgeted key."""
    window, total, most = collections.deque(), 0.0, 0.0
    for record in sorted((r for r in records if r["key"] == "budget" and r["neurons"] > 0), key=lambda r: r["at"]):
        window.append(record)
        total += record["neurons"]
        while window[0]["at"] <= record["at"] - limits["budget_s"]:
            total -= window.popleft()["neurons"]
        most = max(most, total)
    must(most <= limits["budget"] + 1e-6, f"the budget of {limits['budget']} neurons was exceeded: {most}")
    return most


def limit_most(limits):
    return limits["burst"] * (1 + limits["bursts"]) + limits["rate"] * limits["seconds"] * 1.01 + 1


def limit(records, limits):
    admitted = sum(1 for record in records if record["key"] == "limited" and record["outcome"] == "completed")
    must(admitted <= limit_most(limits), f"the limit let {admitted} through, at most {limit_most(limits):.0f} were allowed")
    return admitted


def undisturbed(clients):
    """Who was not disturbed on purpose has the whole answer, or a refusal that his budget or limit explains."""
    for seen in clients:
        if seen["fault"] or seen["whole"]:
            continue
        must(seen["status"] == 429 and seen["kind"] in ("budgeted", "limited"),
             f"an undisturbed request failed: {({k: seen[k] for k in ('kind', 'id', 'status', 'error', 'words', 'deltas', 'at', 'said') if k in seen})}")


def proves_itself(clients, upstream, records, limits):
    """The judge notices each of these lies: else it proves nothing."""
    charged = next(r for r in records if r["outcome"] == "completed")
    billed = {r["id"] for r in records if r["outcome"] == "completed"}
    whole = next(i for i, seen in enumerate(clients) if seen["whole"] and seen["id"] in billed)
    lies = {
        "a record twice": lambda c, u, g: (c, u, g + [dict(g[-1])]),
        "a record lost": lambda c, u, g: (c, u, [r for r in g if r["id"] != c[whole]["id"]]),
        "a token more": lambda c, u, g: (c, u, [{**r, "output": r["output"] + 1, "neurons": r["neurons"] + 1} if r["id"] == charged["id"] else r for r in g]),
        "a price": lambda c, u, g: (c, u, [{**r, "neurons": r["neurons"] * 2} if r["id"] == charged["id"] else r for r in g]),
        "a call without a bill": lambda c, u, g: (c, u + [{**u[0], "id": "unknown"}], g),
        "a call twice": lambda c, u, g: (c, u + [u[-1]] * 5, g),
        "an answer cut": lambda c, u, g: ([{**s, "whole": False} if i == whole and not s["fault"] else s for i, s in enumerate(c)] +
                                          [{**c[whole], "fault": "", "whole": False}], u, g),
        "a budget passed": lambda c, u, g: (c, u, g + [{**charged, "id": "lie", "key": "budget", "outcome": "aborted",
                                                        "neurons": limits["budget"] + 1.0, "output": limits["budget"] + 1}]),
    }
    for name, lie in lies.items():
        try:
            judge(*lie(clients, upstream, records), limits)
        except Broken:
            continue
        raise Broken(f"the judge did not notice: {name}")
    return len(lies)
