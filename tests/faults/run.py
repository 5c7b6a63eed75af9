#!/usr/bin/env python3
"""Runs fault cases against the real binary and says what held.

  tests/faults/run.py [--size ci|release] [--seed N] [case ...]

The seed is printed; the same seed makes the same run. Exit code 1 when an invariant broke."""

import argparse
import datetime
import os
import pathlib
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import cases
import lab


class Run:
    def __init__(self, size, seed, directory):
        self.size = size
        self.rng = random.Random(seed)
        self.directory = pathlib.Path(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("ci", "release"), default="ci")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--results", type=pathlib.Path, help="file to write the lines to, with machine, commit and command")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a case that failed")
    parser.add_argument("cases", nargs="*", choices=[[], *cases.ALL])
    options = parser.parse_args()
    passed = failed = skipped = 0
    lines = []

    def say(line):
        print(line, flush=True)
        lines.append(line)

    for name in options.cases or cases.ALL:
        if name in cases.NEEDS_FUSE and not lab.have_fuse():
            say(f"{name}: SKIPPED, this machine has no /dev/fuse")
            skipped += 1
            continue
        directory = tempfile.mkdtemp(prefix=f"ganglion-{name}-")
        began = time.monotonic()
        try:
            facts = cases.ALL[name](Run(options.size, f"{options.seed}-{name}", directory))
            say(f"{name}: ok in {time.monotonic() - began:.1f} s, seed {options.seed}: {facts}")
            passed += 1
        except (lab.Broken, SystemExit) as error:
            say(f"{name}: BROKEN, seed {options.seed}: {error}")
            if not isinstance(error, lab.Broken):
                traceback.print_exc()
            failed += 1
            for process in lab.Gateway.started + lab.servers:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if options.keep:
                print(f"  kept {directory}")
                continue
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    if options.results:
        write(options, lines)
    sys.exit(1 if failed else 0)


def write(options, lines):
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=lab.ROOT, capture_output=True, text=True, check=False).stdout.strip()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="ascii") if line.startswith("model name")), "?")
    options.results.write_text("\n".join(
        ["# Fault cases", "", f"{datetime.date.today()}, commit {commit}, {os.cpu_count()} cores ({cpu}), Linux {platform.release()};",
         f"`tests/faults/run.py {' '.join(sys.argv[1:])}`. What each case does and asks for is said in tests/faults/cases.py.", ""] +
        [f"- {line}" for line in lines]) + "\n", encoding="utf-8")


main()
