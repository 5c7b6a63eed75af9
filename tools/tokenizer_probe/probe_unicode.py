#!/usr/bin/env python3
"""Asks the `tokenizers` library how it classifies and maps every code point, and writes what it said as JSON.

The tables in backends/local/tokenizer/unicode_tables.inc are made from this answer by make_tables.py, so that our
splits agree with the library's own Unicode version and not with the one of the system we run on.

    python3 probe_unicode.py OUT.json      (needs: pip package tokenizers)
"""

import json
import multiprocessing
import sys

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
STEP = 4096


def ranges(points):
    out = []
    for c in sorted(points):
        if out and c == out[-1][1] + 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def regex_set(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = []
    for i in range(0, len(CODE_POINTS), STEP):
        chunk = CODE_POINTS[i : i + STEP]
        text = "".join(map(chr, chunk))
        found += [chunk[a] for _, (a, b) in split.pre_tokenize_str(text) for a in range(a, b)]
    return ranges(found)


def between(pre, wanted):
    """Code points c for which wanted(pieces of 'a' + c + 'a') holds."""
    return ranges(c for c in CODE_POINTS if wanted([p for p, _ in pre.pre_tokenize_str("a" + chr(c) + "a")], chr(c)))


def mapped(norm):
    out = {}
    for c in CODE_POINTS:
        if 0xAC00 <= c <= 0xD7A3:
            continue
        got = norm.normalize_str("a" + chr(c) + "b")[1:-1]
        if got != chr(c):
            out[str(c)] = [ord(x) for x in got]
    return out


def bert(**on):
    flags = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**flags, **on})


def isolated(pieces, c):
    return pieces == ["a", c, "a"]


def removed(pieces, c):
    return pieces == ["a", "a"]


JOBS = {
    "re_L": lambda: regex_set(r"\p{L}"),
    "re_N": lambda: regex_set(r"\p{N}"),
    "re_M": lambda: regex_set(r"\p{M}"),
    "re_P": lambda: regex_set(r"\p{P}"),
    "re_S": lambda: regex_set(r"\p{S}"),
    "re_Lu": lambda: regex_set(r"\p{Lu}"),
    "re_Ll": lambda: regex_set(r"\p{Ll}"),
    "re_s": lambda: regex_set(r"\s"),
    "re_w": lambda: regex_set(r"\w"),
    "re_d": lambda: regex_set(r"\d"),
    "word": lambda: between(pre_tokenizers.Whitespace(), lambda p, c: p == ["a" + c + "a"]),
    "space": lambda: between(pre_tokenizers.Whitespace(), removed),
    "char_space": lambda: between(pre_tokenizers.WhitespaceSplit(), removed),
    "numeric": lambda: between(pre_tokenizers.Digits(individual_digits=True), isolated),
    "punctuation": lambda: between(pre_tokenizers.Punctuation("isolated"), isolated),
    "bert_punctuation": lambda: between(pre_tokenizers.BertPreTokenizer(), isolated),
    "bert_space": lambda: between(pre_tokenizers.BertPreTokenizer(), removed),
    "bert_clean": lambda: mapped(bert(clean_text=True)),
    "bert_chinese": lambda: ranges(int(c) for c in mapped(bert(handle_chinese_chars=True))),
    "bert_accents": lambda: mapped(bert(strip_accents=True)),
    "bert_lower": lambda: mapped(bert(lowercase=True)),
    "strip_accents": lambda: mapped(normalizers.StripAccents()),
    "lowercase": lambda: mapped(normalizers.Lowercase()),
    "nfc": lambda: mapped(normalizers.NFC()),
    "nfd": lambda: mapped(normalizers.NFD()),
    "nfkc": lambda: mapped(normalizers.NFKC()),
    "nfkd": lambda: mapped(normalizers.NFKD()),
    "strip": lambda: ranges(c for c in CODE_POINTS if normalizers.Strip().normalize_str(chr(c) + "a") == "a"),
}


def work(name):
    try:
        return name, JOBS[name]()
    except BaseException as e:  # a panic of the library is an answer too
        return name, {"error": str(e)}


if __name__ == "__main__":
    with multiprocessing.Pool() as pool:
        result = dict(pool.map(work, JOBS, chunksize=1))
    result["tokenizers"] = tokenizers.__version__
    with open(sys.argv[1], "w") as f:
        json.dump(result, f, separators=(",", ":"))
