"""Writes a section of a results file: machine, commit, command, and what was found."""

import datetime
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="ascii") if line.startswith("model name")), "?")
    return f"{os.cpu_count()} x {cpu}, {platform.system()} {platform.release()}"


def origin():
    """Where and by what a measurement is made: two paragraphs."""
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    command = " ".join([os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
    return f"{datetime.date.today()}, commit {commit}, {machine()}\n\n    {command}"


def write(path, title, lines, note="", made=""):
    """Puts the section called `title` into the file, in place of an older one. `made`: what origin() said, if that was before."""
    section = "\n".join([f"## {title}", "", *([note, ""] if note else []), made or origin(), "", *(f"- {line}" for line in lines), ""])
    path = pathlib.Path(path)
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {path.stem.capitalize()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    text = pattern.sub(lambda _: section + "\n", text).rstrip("\n") + "\n" if pattern.search(text) else text.rstrip("\n") + "\n\n" + section
    path.write_text(text, encoding="utf-8")
