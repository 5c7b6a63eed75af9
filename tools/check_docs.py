#!/usr/bin/env python3
"""Fails when docs/life_of_a_request.md names a function or file that is no longer in the code, or when a Markdown link
between the project's own files leads nowhere."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = subprocess.run(["git", "ls-files", "*.cpp", "*.hpp"], cwd=ROOT, capture_output=True, text=True,
                         check=True).stdout.splitlines()
CODE = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in SOURCES if (ROOT / name).is_file())

problems = []
text = (ROOT / "docs/life_of_a_request.md").read_text(encoding="utf-8")
for name in re.findall(r"\*\*`([A-Za-z_:]+)`\*\*", text):
    member = name.split("::")[-1]
    owner = name.split("::")[0] if "::" in name else None
    if not re.search(rf"\b{re.escape(member)}\s*\(", CODE) or (owner and not re.search(rf"\bclass {owner}\b", CODE)):
        problems.append(f"docs/life_of_a_request.md: {name} is not in the code")
for path in re.findall(r"`([a-z_/0-9]+\.(?:[ch]pp|py|md|yaml))`", text):
    if not (ROOT / path).is_file():
        problems.append(f"docs/life_of_a_request.md: {path} does not exist")
for page in subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.splitlines():
    if not (ROOT / page).is_file():
        continue
    body = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", body):
        if "://" in target or target.startswith("mailto:"):
            continue
        if not ((ROOT / page).parent / target).exists():
            problems.append(f"{page}: link to {target} leads nowhere")
# docs/cves.md names the test that guards each class: Suite.Name of GoogleTest, a test of ctest, or a file of tests/e2e.
page = ROOT / "docs/cves.md"
if page.is_file():
    made = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("CMakeLists.txt"))
    vectors = (ROOT / "tests/unit/net/reject_vectors.hpp").read_text(encoding="utf-8")
    for name in re.findall(r"`([^`]+)`", page.read_text(encoding="utf-8")):
        if re.fullmatch(r"[A-Z]\w+\.[A-Z]\w+", name):
            suite, test = name.split(".")
            found = re.search(rf"TEST(_[FP])?\(\s*{suite},\s*{test}\)", CODE)
        elif re.fullmatch(r"(hardness|fault)_\w+", name):
            kind, case = name.split("_", 1)
            found = re.search(rf"\b{case}\b", made) or re.search(rf"\b{case.removeprefix('tls_')}\b", made)
        elif name.endswith(".test.mjs"):
            found = (ROOT / "tests/e2e" / name).is_file()
        elif name.startswith("vector "):
            found = f'"{name[7:]}' in vectors
        else:
            continue
        if not found:
            problems.append(f"docs/cves.md: there is no test {name}")
for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(1 if problems else 0)
