#!/usr/bin/env python3
"""Takes common words with their meanings out of WordNet 3.0 (Debian package
wordnet-base) and writes them as one JSON file for generate_data.py.

    python3 tools/demo_model/extract_wordnet.py [--dict /usr/share/wordnet] [--out build/demo_model/wordnet.json]

A word is taken in its most frequent part of speech, with its first meaning
there, if WordNet's tagged texts use it often enough. Words and meanings marked
as offensive or vulgar are left out."""

import argparse
import json
import os
import re
from collections import defaultdict

POS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
NAMES = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
# Taught as words of the product (knowledge.py), so not as dictionary words.
TAKEN = """neuron neurons gateway cache token tokens ledger tier tenant key backend provider proxy stream streaming batch
budget burst temperature template context inference regular fast engine model tokenizer endpoint port metrics schedule test
sun moon water bit byte python demo help""".split()
UNWANTED = re.compile(r"offensive|disparag|derogat|obscen|vulgar|slur|ethnic|insult|sexual|genital|intercourse|coitus|prostitut|penis|vagina|"
                      r"copulat|rape|naked|nude|breast|excrement|feces|urin|homosexual|negro|jew|nazi|suicide|slang|taboo|slut|whore", re.I)
COMPUTING = """computer program software hardware server network internet browser database algorithm keyboard screen memory processor
website email file folder password hacker virus router modem code data printer laptop byte pixel compiler robot""".split()


def read_pos(folder, pos):
    synsets, index = {}, {}
    with open(os.path.join(folder, "data." + pos), encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            c = head.split()
            n = int(c[3], 16)
            words = [c[4 + 2 * i].split("(")[0] for i in range(n)]
            p = 4 + 2 * n
            pointers = [(c[p + 1 + 4 * i], c[p + 2 + 4 * i], c[p + 3 + 4 * i], c[p + 4 + 4 * i]) for i in range(int(c[p]))]
            synsets[c[0]] = (words, pointers, gloss.strip())
    with open(os.path.join(folder, "index." + pos), encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("  "):
                continue
            c = line.split()
            k = int(c[3])
            index[c[0]] = c[6 + k:]
    return synsets, index


def meaning(gloss):
    """The gloss without examples and without remarks in parentheses."""
    text = gloss.split('; "')[0]
    text = re.sub(r"\([^)]*\)", " ", text)
    parts = [p.strip() for p in text.split(";") if p.strip() and '"' not in p]
    if not parts:
        return ""
    out = parts[0]
    if len(out) < 22 and len(parts) > 1:
        out += "; " + parts[1]
    out = re.sub(r"\s+", " ", out).strip(" :,.")
    return re.sub(r" ([,;.])", r"\1", out).replace("`", "'")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--dict", default="/usr/share/wordnet")
    ap.add_argument("--out", default="build/demo_model/wordnet.json")
    ap.add_argument("--words", type=int, default=9000)
    args = ap.parse_args()

    count = defaultdict(int)
    with open(os.path.join(args.dict, "cntlist.rev")) as f:
        for line in f:
            key, _, n = line.split()
            lemma, _, rest = key.partition("%")
            count[(lemma, POS[rest[0]])] += int(n)
    tables = {p: read_pos(args.dict, p) for p in NAMES}
    irregular = {}
    with open(os.path.join(args.dict, "noun.exc")) as f:
        for line in f:
            c = line.split()
            irregular.setdefault(c[1], c[0])

    by_lemma = defaultdict(dict)
    for (lemma, pos), n in count.items():
        by_lemma[lemma][pos] = n
    ranked = sorted(by_lemma, key=lambda w: (-sum(by_lemma[w].values()), w))
    chosen, rows = set(COMPUTING), []
    for w in ranked:
        if re.fullmatch(r"[a-z]{3,14}", w) and sum(by_lemma[w].values()) >= 2:
            chosen.add(w)
    order = COMPUTING + [w for w in ranked if w in chosen and w not in COMPUTING]
    for w in order:
        if len(rows) >= args.words:
            break
        if w in TAKEN or UNWANTED.search(w):
            continue
        found = None
        for pos in sorted(by_lemma[w] or {"noun": 0}, key=lambda p: -by_lemma[w].get(p, 0)):
            synsets, index = tables[pos]
            for sense in range(min(2, len(index.get(w, ())))):
                words, pointers, gloss = synsets[index[w][sense]]
                text = meaning(gloss)
                lemma = words[[x.lower() for x in words].index(w)]
                if (found is None and 8 <= len(text) <= 110 and not UNWANTED.search(gloss) and not any(UNWANTED.search(x) for x in words)
                        and w not in re.findall(r"[a-z]+", text.lower()) and not any(ch.isupper() for ch in lemma)
                        and not (sense and re.search(r"girl|woman|contempt|stupid|person", text))):
                    found = pos, sense
        if found is None:
            continue
        pos, sense = found
        synsets, index = tables[pos]
        words, pointers, gloss = synsets[index[w][sense]]
        text = meaning(gloss)
        row = {"w": w, "p": NAMES[pos], "d": text, "n": sum(by_lemma[w].values())}
        same = [x for x in words if x.lower() != w and re.fullmatch(r"[a-z]+(_[a-z]+)?", x)]
        if same:
            row["s"] = same[0].replace("_", " ")
        position = [x.lower() for x in words].index(w) + 1
        for kind, offset, p, st in pointers:
            if kind == "!" and int(st[:2], 16) == position and p in "nvar":
                other = tables[{"n": "noun", "v": "verb", "a": "adj", "r": "adv"}[p]][0][offset][0][int(st[2:], 16) - 1]
                row.setdefault("o", other.replace("_", " "))
            if kind == "@" and pos == "noun" and p == "n":
                parent = synsets[offset][0][0]
                if re.fullmatch(r"[a-z_]+", parent):
                    row.setdefault("k", parent.replace("_", " "))
        if sense == 0 and len(index[w]) > 1 and by_lemma[w].get(pos, 0) >= 12:
            g2 = synsets[index[w][1]][2]
            second = meaning(g2)
            if 8 <= len(second) <= 80 and not UNWANTED.search(g2) and w not in second.split() and not re.search(r"girl|woman|contempt|stupid|person", second):
                row["d2"] = second
        if pos == "noun" and w in irregular and re.fullmatch(r"[a-z]+", irregular[w]):
            row["pl"] = irregular[w]
        rows.append(row)
    everything = sorted({w for p in tables for w in tables[p][1] if re.fullmatch(r"[a-z]{4,12}", w)})
    os.makedirs(os.path.dirname(args.out) or ".", exist_ok=True)
    with open(args.out, "w") as f:
        f.write(json.dumps({"words": rows, "known": everything}, separators=(",", ":")))
    print(len(rows), "words,", sum(len(r["d"]) for r in rows), "bytes of meanings,", len(everything), "lemmas")


if __name__ == "__main__":
    main()
