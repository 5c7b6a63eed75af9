#!/usr/bin/env python3
"""House rules that a compiler does not check; each ban names its replacement. Run by tools/check and by ctest."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINE_MAX = 120
FILE_LINES_MAX = 600  # the habit is 400; past 600 a file has two subjects
# Kernels and tables may be longer, with the reason in their head comment.
LONG_FILES = re.compile(r"backends/local/kernels/|_test\.cpp$|tests/|bench/|\.inc$")
BANS = [
    (re.compile(r"\b(volatile)\b"), "std::atomic", re.compile(r"^backends/local/kernels/cuda/")),  # there: asm
    (re.compile(r"\bstd::cout\b|\bprintf\("), "core::log (stdout belongs to commands and the access log)", re.compile(r"^(app|bench|tests|tools|core/assert)")),
    (re.compile(r"\busing namespace std;"), "qualified names", None),
    (re.compile(r"\bsleep_for\("), "a timer on the executor", re.compile(r"^(tests|bench|app|backends/local)")),
    (re.compile(r"\bstd::rand\b|\brand\(\)"), "a seeded generator", None),
    (re.compile(r"\bgetenv\("), "config's environment look-up", re.compile(r"^(config|app|tests|bench)")),
    (re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b"), "an issue", None),
]
SOURCE = re.compile(r"\.(cpp|hpp|cu|cuh)$")


def tracked():
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in out.splitlines() if (ROOT / name).is_file()]


def check(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = text.splitlines()
    if name.endswith(".h"):
        yield "headers end in .hpp"
    if name.endswith(".hpp") and "#pragma once" not in text:
        yield "no #pragma once"
    if not any(line.startswith("//") for line in lines[:3]):
        yield "no head comment (what it is, what it is not)"
    if len(lines) > FILE_LINES_MAX and not LONG_FILES.search(name):
        yield f"{len(lines)} lines; split it (limit {FILE_LINES_MAX})"
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_MAX and "http" not in line and 'R"' not in line and '"' not in line:
            yield f"{number}: line over {LINE_MAX} columns"
        code = line.split("//")[0]
        for pattern, replacement, exempt in BANS:
            if pattern.search(code) and not (exempt and exempt.match(name)):
                yield f"{number}: {pattern.search(code).group(0)!r} is banned here; use {replacement}"


problems = 0
for source in tracked():
    if not SOURCE.search(source):
        continue
    for problem in check(source):
        print(f"{source}: {problem}", file=sys.stderr)
        problems += 1
sys.exit(1 if problems else 0)
