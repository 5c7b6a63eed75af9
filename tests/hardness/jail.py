#!/usr/bin/env python3
"""The gateway without privileges: another user, no capabilities, no new privileges, no core dumps, and a root file
system that is mounted read-only but for its state folder. It serves, writes its ledger, and stops with 0.

Exit code 1 when something broke, 77 where namespaces cannot be made (needs root)."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import Mock, build_dir  # noqa: E402

NOBODY = 65534

SCRIPT = """
set -eu
mount --bind / / && mount -o remount,bind,ro /
mount -t tmpfs -o size=256m,uid=65534,gid=65534,mode=0700 state "$1/state"
ulimit -S -c "$(ulimit -H -c)"
cd "$1/state"
if touch "$1/forbidden" 2>/dev/null; then echo "the root is not read-only" >&2; exit 9; fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- "$1/ganglion" serve "$1/ganglion.yaml"
"""


def main():
    if os.getuid() != 0 or not shutil.which("setpriv") or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        print("needs root, unshare and setpriv")
        sys.exit(77)
    mock = Mock()
    with tempfile.TemporaryDirectory(prefix="ganglion-jail-") as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        (directory / "state").mkdir()
        shutil.copy(build_dir() / "ganglion", directory / "ganglion")
        (directory / "ganglion.yaml").write_text(
            f'server: {{listen: "127.0.0.1:0", workers: 2}}\nadmin: {{listen: "127.0.0.1:0"}}\nledger: {{directory: ledger}}\n'
            f'log: {{access_log_file: access.log}}\ncache: {{disk: {{path: cache}}}}\n'
            f'providers: [{{name: up, base_url: "http://127.0.0.1:{mock.port}/v1", models: [m]}}]\n')
        log = open(directory / "log", "w+", encoding="utf-8")
        process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "bash", "-c", SCRIPT, "jail", name], stderr=log, stdout=subprocess.DEVNULL)
        try:
            urls = {}
            until = time.monotonic() + 60
            while len(urls) < 2:
                for line in (directory / "log").read_text(encoding="utf-8").splitlines():
                    if '"listening"' in line:
                        event = json.loads(line)
                        urls[event["listener"]] = event["url"]
                if process.poll() is not None or time.monotonic() > until:
                    print("it did not start:\n" + (directory / "log").read_text(encoding="utf-8"))
                    sys.exit(1)
                time.sleep(0.02)
            request = urllib.request.Request(f"{urls['proxy']}/v1/chat/completions", data=b'{"model":"m","messages":[{"role":"user","content":"x"}]}',
                                             headers={"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                assert response.status == 200 and float(response.headers["x-neurons"]) >= 0
            status = dict(line.split(":\t", 1) for line in open(f"/proc/{process.pid}/status", encoding="ascii").read().splitlines() if ":\t" in line)
            for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[capabilities], 16) == 0, f"{capabilities} is {status[capabilities]}"
            assert status["NoNewPrivs"] == "1" and set(status["Uid"].split()) == {str(NOBODY)}, status["Uid"]
            limits = open(f"/proc/{process.pid}/limits", encoding="ascii").read()
            assert any(line.split()[4] == "0" for line in limits.splitlines() if line.startswith("Max core")), limits
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=90)
            mock.stop()
        assert code == 0, (directory / "log").read_text(encoding="utf-8")
    print("served and stopped as nobody, without capabilities, on a read-only root")


if __name__ == "__main__":
    main()
