#!/usr/bin/env python3
"""What a built ganglion consists of, as a CycloneDX 1.5 document: the program, every shared library that it loads, and the
header-only libraries that were compiled into it, each with the Debian or Ubuntu package and version it came from.

  tools/sbom.py [--binary build/release/ganglion] [--check] > sbom.json

--check writes nothing and exits with 1 where a library of the program has no package, version or digest, 77 on systems without dpkg."""

import argparse
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Compiled in: a header of each, from which its package follows.
HEADERS = ["boost/version.hpp", "nlohmann/json.hpp", "xxhash.h", "hnswlib/hnswlib.h"]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def package_of(path):
    """Name, version and architecture of the package that owns a file; Debian may know it by the path before /usr was merged."""
    real = pathlib.Path(path).resolve()
    for candidate in dict.fromkeys([str(real), str(real).removeprefix("/usr"), str(path)]):
        found = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            name = found.stdout.splitlines()[0].split(": ")[0].split(",")[0]
            return output("dpkg-query", "-W", "-f=${Package}\t${Version}\t${Architecture}", name).split("\t")
    return None


def distribution():
    fields = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line)
    return fields["ID"].strip('"'), fields.get("VERSION_ID", "").strip('"')


def component(name, path, package):
    system, release = distribution()
    out = {"type": "library", "name": name, "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}]}
    if package:
        out["version"] = package[1]
        out["purl"] = f"pkg:deb/{system}/{package[0]}@{package[1]}?arch={package[2]}&distro={system}-{release}"
    return out


def libraries(binary):
    for line in output("ldd", str(binary)).splitlines():
        found = re.search(r"(\S+) => (/\S+) ", line) or re.search(r"^\s*(/\S+)() ", line)
        if found:
            path = found[2] or found[1]
            yield component(pathlib.Path(found[1]).name, path, package_of(path))


def headers():
    for header in HEADERS:
        path = pathlib.Path("/usr/include") / header
        if path.is_file():
            package = package_of(path)
            yield {**component(package[0] if package else header, path, package), "scope": "required"}


def document(binary):
    version = output(str(binary), "version").split()
    parts = sorted([*libraries(binary), *headers()], key=lambda part: part["name"])
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"component": {**component("ganglion", binary, None), "type": "application", "version": " ".join(version[1:]) or version[0]}},
            "components": parts}


def problems(binary, made):
    names = {part["name"] for part in made["components"]}
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", str(binary)))
    for name in needed:
        if name not in names:
            yield f"{name} is needed by the program and not listed"
    for part in made["components"]:
        if not part.get("version") or not part.get("purl"):
            yield f"{part['name']} comes from no package"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/release/ganglion")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not shutil.which("dpkg-query"):
        print("no dpkg here", file=sys.stderr)
        sys.exit(77)
    made = document(options.binary)
    if not options.check:
        print(json.dumps(made, indent=2))
        return
    found = list(problems(options.binary, made))
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{len(made['components'])} components")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
