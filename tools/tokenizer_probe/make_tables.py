#!/usr/bin/env python3
"""Turns the answer of probe_unicode.py into backends/local/tokenizer/unicode_tables.inc.

    python3 make_tables.py PROBE.json > ../../backends/local/tokenizer/unicode_tables.inc
"""

import json
import sys
import textwrap


def points(ranges):
    return {c for a, b in ranges for c in range(a, b + 1)}


def runs(members):
    """[gap, length, gap, length, ...]: how far after the previous run the next begins, and how long it is."""
    out, end = [], 0
    for c in sorted(members):
        if out and c == end:
            out[-1] += 1
        else:
            out += [c - end, 1]
        end = c + 1
    return out


def array(name, values, what):
    body = textwrap.fill(", ".join(map(str, values)), 116, initial_indent="    ", subsequent_indent="    ")
    print(f"// {what}\ninline constexpr std::uint32_t {name}[] = {{\n{body}}};\n")


def lower_runs(mapping):
    """[first, count, stride, to_first, ...] for mappings of one code point to one."""
    pairs = sorted((int(c), v[0]) for c, v in mapping.items() if len(v) == 1)
    out = []
    for c, to in pairs:
        if out:
            first, count, stride, to_first = out[-1]
            step = c - (first + (count - 1) * stride)
            if to - to_first == c - first and (step == stride or (count == 1 and step <= 2)):
                out[-1] = [first, count + 1, step, to_first]
                continue
        out.append([c, 1, 1, to])
    return [x for run in out for x in run]


def main():
    probe = json.load(open(sys.argv[1]))
    gone = lambda key: {int(c) for c, v in probe[key].items() if v == []}
    mapped = lambda key: {int(c) for c in probe[key]}
    assert points(probe["space"]) == points(probe["char_space"]) == points(probe["re_s"]) == points(probe["strip"])
    assert points(probe["punctuation"]) == points(probe["bert_punctuation"])
    assert probe["lowercase"] == probe["bert_lower"]
    assert {c: v for c, v in probe["lowercase"].items() if len(v) != 1} == {"304": [0x69, 0x307]}
    print(f"// Made by tools/tokenizer_probe/make_tables.py from what tokenizers {probe['tokenizers']} answers; do not edit.")
    print("// Sets of code points are lists of gap, length, gap, length, ...\n")
    array("kLetterRuns", runs(points(probe["re_L"])), r"\p{L} of its regex engine")
    array("kNumberRuns", runs(points(probe["re_N"])), r"\p{N} of its regex engine")
    array("kNumericRuns", runs(points(probe["numeric"])), "char::is_numeric (an older Unicode than the regex engine's)")
    array("kSpaceRuns", runs(points(probe["space"])), r"White_Space: \s and char::is_whitespace")
    array("kWordRuns", runs(points(probe["word"])), r"\w of the Whitespace pre-tokenizer and of single_word")
    array("kPunctuationRuns", runs(points(probe["punctuation"])), "ASCII punctuation and category P (Unicode 8)")
    array("kCleanRuns", runs(gone("bert_clean")), "removed by BertNormalizer's clean_text")
    array("kAccentRuns", runs(gone("bert_accents")), "removed by BertNormalizer's strip_accents: Mn")
    array("kMarkRuns", runs(gone("strip_accents")), "removed by StripAccents: M; only these have a combining class there")
    array("kCanonicalRuns", runs(mapped("nfd")), "changed by NFD (Hangul syllables aside)")
    array("kCompatRuns", runs(mapped("nfkd") - mapped("nfd")), "changed by NFKD and not by NFD")
    array("kComposedRuns", runs(mapped("nfc")), "changed by NFC, alone or after a letter")
    array("kLowerRuns", lower_runs(probe["lowercase"]), "lower case: first, count, stride, lower case of first; U+0130 gives two")


main()
