#!/usr/bin/env python3
"""Runs fault cases against the real binary and says what held.

  tests/faults/run.py [--size ci|release] [--seed N] [case ...]

The seed is printed; the same seed makes the same run. Exit code 1 when an invariant broke."""

import argparse
import pathlib
import random
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
    parser.add_argument("--keep", action="store_true", help="keep the folder of a case that failed")
    parser.add_argument("cases", nargs="*", choices=[[], *cases.ALL])
    options = parser.parse_args()
    passed = failed = skipped = 0
    for name in options.cases or cases.ALL:
        if name in cases.NEEDS_FUSE and not lab.have_fuse():
            print(f"{name}: SKIPPED, this machine has no /dev/fuse", flush=True)
            skipped += 1
            continue
        directory = tempfile.mkdtemp(prefix=f"ganglion-{name}-")
        began = time.monotonic()
        try:
            facts = cases.ALL[name](Run(options.size, f"{options.seed}-{name}", directory))
            print(f"{name}: ok in {time.monotonic() - began:.1f} s, seed {options.seed}: {facts}", flush=True)
            passed += 1
        except (lab.Broken, SystemExit) as error:
            print(f"{name}: BROKEN, seed {options.seed}: {error}", flush=True)
            if not isinstance(error, lab.Broken):
                traceback.print_exc()
            failed += 1
            if options.keep:
                print(f"  kept {directory}")
                continue
        import shutil
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
