#!/usr/bin/env python3
"""Fails when an include goes up or sideways: core < {api, metrics} < net < {ratelimit, metering, idempotency,
cache, backends, vectors} < gateway < app. Siblings meet in gateway. `options.hpp` files are plain settings and may name those of lower
or equal folders; config may include core and every */options.hpp and */x_options.hpp, and only app may include config."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEVEL = {"core": 0, "api": 1, "metrics": 1, "net": 2, "ratelimit": 3, "metering": 3, "idempotency": 3, "cache": 3, "backends": 3,
         "vectors": 3, "sinks": 4, "gateway": 4, "config": 5, "app": 6}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
# Plain settings structs that a folder may take from a neighbour.
ALLOWED = {("backends", "net/options.hpp")}


def violations():
    for folder, level in LEVEL.items():
        for path in sorted((ROOT / folder).rglob("*.[ch]pp")):
            name = path.relative_to(ROOT).as_posix()
            for target in INCLUDE.findall(path.read_text(encoding="utf-8")):
                top = target.split("/")[0]
                if top not in LEVEL or top == folder:
                    local = name.startswith("backends/local/")
                    engine = local and not re.match(r"backends/local/(local_|token_counter|options)", name)
                    if engine and top == "backends" and not target.startswith("backends/local/"):
                        yield f"{name}: the engine stands alone and may not include {target}"
                    continue
                if folder == "config":
                    if top != "core" and not re.search(r"/(\w+_)?options\.hpp$", target):
                        yield f"{name}: config includes core and options.hpp only, not {target}"
                elif top == "config" and folder != "app":
                    yield f"{name}: only app may include {target}"
                elif LEVEL[top] >= level and (folder, target) not in ALLOWED:
                    yield f"{name}: {folder} may not include {target}"
                if "boost/beast" in target and folder != "net":
                    yield f"{name}: Beast stays in net"


def beast_outside_net():
    for path in sorted(ROOT.rglob("*.[ch]pp")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("build/", "net/", "tests/", "node_modules/")):
            continue
        if "<boost/beast" in path.read_text(encoding="utf-8"):
            yield f"{name}: Beast stays in net/"


problems = [*violations(), *beast_outside_net()]
for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(1 if problems else 0)
