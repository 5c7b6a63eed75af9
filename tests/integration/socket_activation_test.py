#!/usr/bin/env python3
"""Sockets of a service manager: the gateway takes them by LISTEN_FDS, tells NOTIFY_SOCKET when it serves and after an upgrade who is
the main process, and a restart refuses nobody: who connects in between waits. Its threads are told apart by their names."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))
import lab  # noqa: E402
from gateway_process import Gateway, build_dir, check  # noqa: E402


def listening():
    """Its descriptor is far from where the gateway's will be, so that putting both in place overwrites neither."""
    import fcntl
    with socket.create_server(("127.0.0.1", 0), backlog=64) as made:
        return socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, 50))


def main():
    upstream = lab.Upstream()
    proxy, admin = listening(), listening()
    with tempfile.TemporaryDirectory(prefix="ganglion-activation-") as directory:
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"{directory}/notify")
        notify.settimeout(60)
        gateway = Gateway("providers:\n" + lab.provider(upstream) + lab.NO_CACHE, directory=directory)
        text = gateway.file.read_text(encoding="utf-8")
        text = text.replace("127.0.0.1:0", f"127.0.0.1:{proxy.getsockname()[1]}", 1).replace("127.0.0.1:0", f"127.0.0.1:{admin.getsockname()[1]}", 1)
        gateway.file.write_text(text, encoding="utf-8")

        def start():
            def place():  # admin comes first, so that the names matter
                os.dup2(admin.fileno(), 3)
                os.dup2(proxy.fileno(), 4)
            process = subprocess.Popen(["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" serve "$1"', build_dir() / "ganglion", gateway.file], preexec_fn=place,
                                       pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=open(f"{directory}/log", "ab"),
                                       env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "admin:proxy", "NOTIFY_SOCKET": f"{directory}/notify"})
            Gateway.started.append(process)
            return process

        answers = []
        port = proxy.getsockname()[1]
        early = threading.Thread(target=lambda: answers.append(lab.ask(port, {"nonce": "early"}, timeout=60)))
        early.start()  # nobody serves yet
        process = start()
        check(f"READY=1\nMAINPID={process.pid}" in notify.recv(512).decode(), "it was not told who serves")
        early.join()
        gateway.ports = {"proxy": port, "admin": admin.getsockname()[1]}
        check(gateway.metric("process_threads") is not None, "the admin socket does not serve")
        threads = {name.read_text(encoding="utf-8").strip() for name in pathlib.Path(f"/proc/{process.pid}/task").glob("*/comm")}
        named = {"ganglion", "worker 0", "ledger-commit", "ledger-supply", "ledger-keeper", "usage"}
        check(named <= threads, f"of its threads' names {named - threads} are missing")
        process.send_signal(signal.SIGTERM)
        check(notify.recv(512).decode() == "STOPPING=1", "stopping was not told")
        check(process.wait(timeout=60) == 0, "it did not stop")
        late = [threading.Thread(target=lambda i=i: answers.append(lab.ask(port, {"nonce": f"late{i}"}, timeout=60))) for i in range(10)]
        for thread in late:  # while nobody is there
            thread.start()
        process = start()
        for thread in late:
            thread.join()
        lost = [a.error or a.status for a in answers if not a.whole]
        check(len(answers) == 11 and not lost, f"refused or cut: {lost}")
        check(f"MAINPID={process.pid}" in notify.recv(512).decode(), "the second start was not told")
        done = subprocess.run([build_dir() / "ganglion", "upgrade", gateway.file], capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"upgrade: {done.stderr}")
        told = re.search(r"MAINPID=(\d+)", notify.recv(512).decode())
        check(told and int(told[1]) != process.pid, "the main process was not told")
        check(process.wait(timeout=60) == 0, "the replaced process did not end")
        check(lab.ask(port, {"nonce": "after"}).whole, "the new process does not serve")
        os.kill(int(told[1]), signal.SIGTERM)
        check(notify.recv(512).decode() == "STOPPING=1", "the new process does not stop")
        lab.wait_until(lambda: not pathlib.Path(f"/proc/{told[1]}").exists() or
                       " Z " in pathlib.Path(f"/proc/{told[1]}/stat").read_text(encoding="ascii"), "it did not end")
        refused = subprocess.run([build_dir() / "ganglion", "upgrade", "--dir", gateway.ledger], capture_output=True, text=True, check=False)
        check(refused.returncode == 1 and "no gateway runs" in refused.stderr, f"an upgrade of nothing: {refused.stderr}")
    upstream.stop()
    print("sockets of a service manager: 11 early and late requests served, 1 upgrade, MAINPID told each time")


if __name__ == "__main__":
    try:
        main()
    finally:
        for each in Gateway.started:
            if each.poll() is None:
                each.kill()
