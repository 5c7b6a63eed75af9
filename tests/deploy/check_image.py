#!/usr/bin/env python3
"""The container's last stage installs the package of every library that the binary is linked with itself. Those that a
library needs come as its package's dependencies.

  tests/deploy/check_image.py BINARY

Asks the linker what the binary loads and dpkg whose files these are, so it says something on Debian 12 only, which the
image is made of; elsewhere, or without the binary, it says so and passes.
"""
import pathlib
import re
import subprocess
import sys

# Every image of Debian has these, or libstdc++6 brings them.
GIVEN = {"libc6", "libgcc-s1"}


def packages_of(binary):
    out = set()
    dynamic = subprocess.run(["readelf", "-d", binary], check=True, capture_output=True, text=True).stdout
    own = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    for path in re.findall(r"=> (/\S+)", subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout):
        if pathlib.Path(path).name not in own:
            continue
        # Since /lib is a link to /usr/lib, dpkg may know a file by either name.
        names = {path, str(pathlib.Path(path).resolve())}
        names |= {name.removeprefix("/usr") for name in names} | {"/usr" + name for name in names if name.startswith("/lib")}
        for name in sorted(names):
            found = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True)
            if found.returncode == 0:
                out.add(found.stdout.split(":")[0])
                break
        else:
            sys.exit(f"check_image.py: {path} belongs to no package")
    return out


def main():
    binary = pathlib.Path(sys.argv[1])
    release = pathlib.Path("/etc/os-release").read_text()
    if not binary.exists() or 'VERSION_ID="12"' not in release or "\nID=debian" not in release:
        print(f"no {binary} for Debian 12 here: the image's libraries were not checked")
        return
    last_stage = pathlib.Path("deploy/docker/Dockerfile").read_text().split("\nFROM ")[-1]
    installed = set(re.findall(r"[a-z0-9][a-z0-9.+-]+", last_stage))
    needed = packages_of(binary) - GIVEN
    if len(needed) < 4:
        sys.exit(f"check_image.py: only {needed} are needed, which cannot be")
    if missing := sorted(needed - installed):
        sys.exit(f"deploy/docker/Dockerfile: the last stage lacks {' '.join(missing)}")


main()
