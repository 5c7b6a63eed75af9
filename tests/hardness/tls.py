#!/usr/bin/env python3
"""The TLS listener: testssl.sh finds nothing above LOW; clients that connect and say nothing are cut; certificates that
change under load fail no handshake.

  tests/hardness/tls.py [--results FILE] [scan] [silence] [rotation]

Exit code 1 when something broke, 77 when testssl.sh is not installed."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import Gateway  # noqa: E402

# About the test's own certificate and its name, not about the listener: a private authority has no revocation service,
# localhost has no CAA record. And the tool's word on its own openssl.
NOT_OURS = {"cert_revocation", "DNS_CAArecord", "engine_problem"}
ABOVE_LOW = {"MEDIUM", "HIGH", "CRITICAL", "FATAL"}


def openssl(*arguments, cwd):
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


def authority(directory):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "300", "-subj", "/CN=test authority",
            "-keyout", "ca.key", "-out", "ca.pem", cwd=directory)
    (directory / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n")


def issue(directory):
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-keyout", "key.new", "-out", "request", cwd=directory)
    openssl("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", str(int.from_bytes(os.urandom(15), "big")),
            "-days", "200", "-extfile", "ext", "-out", "cert.new", cwd=directory)
    os.replace(directory / "key.new", directory / "key.pem")
    os.replace(directory / "cert.new", directory / "cert.pem")


def start(directory, more=""):
    authority(directory)
    issue(directory)
    return Gateway('providers: [{name: up, base_url: "http://127.0.0.1:9/v1", models: [m]}]\n',
                   server=f"tls: {{cert: {directory}/cert.pem, key: {directory}/key.pem}}{more}").start()


def scan(directory):
    gateway = start(directory)
    try:
        out = directory / "testssl.json"
        subprocess.run(["testssl", "--quiet", "--color", "0", "--warnings", "off", "--add-ca", directory / "ca.pem", "--jsonfile", out, "--ip", "127.0.0.1",
                        f"https://localhost:{gateway.ports['proxy']}/v1/models"], capture_output=True, check=False, timeout=500)
        findings = json.loads(out.read_text())
        bad = [f"{f['id']} {f['severity']}: {f['finding']}" for f in findings if f["severity"] in ABOVE_LOW and f["id"] not in NOT_OURS]
        said = {f["id"]: f["finding"] for f in findings}
        for old in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
            if not said.get(old, "").startswith("not offered"):
                bad.append(f"{old}: {said.get(old)}")
        for new in ("TLS1_2", "TLS1_3"):
            if not said.get(new, "").startswith("offered"):
                bad.append(f"{new}: {said.get(new)}")
        low = [f["id"] for f in findings if f["severity"] == "LOW" and f["id"] not in NOT_OURS]
        return bad, f"testssl.sh: {len(findings)} findings, none above LOW; LOW: {', '.join(low) or 'none'}; TLS 1.2 and 1.3 only"
    finally:
        gateway.stop()


def silence(directory):
    """Connections that never say a word, or stop within the handshake."""
    gateway = start(directory, ", header_timeout: 1s")
    try:
        crowd = [socket.create_connection(("127.0.0.1", gateway.ports["proxy"])) for _ in range(300)]
        for i, connection in enumerate(crowd):
            if i % 2:
                connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        began = time.monotonic()
        for connection in crowd:
            connection.settimeout(5)
            try:
                while connection.recv(100):
                    pass
            except ConnectionResetError:
                pass
        took = time.monotonic() - began
        bad = [f"silent connections were open for {took:.1f} s"] if took > 2.5 else []
        return bad, f"300 connections without a handshake: all cut after {took:.1f} s (limit 1 s)"
    finally:
        gateway.stop()


def rotation(directory):
    gateway = start(directory)
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    failures, serials, done = [], set(), threading.Event()
    count = [0]

    def shake():
        while not done.is_set():
            try:
                with socket.create_connection(("127.0.0.1", gateway.ports["proxy"]), timeout=60) as raw, context.wrap_socket(raw, server_hostname="localhost") as secure:
                    serials.add(secure.getpeercert()["serialNumber"])
                    secure.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if b"200" not in secure.recv(4096)[:15]:
                        failures.append("no answer")
                    count[0] += 1
            except (OSError, ssl.SSLError) as error:
                failures.append(str(error))

    try:
        threads = [threading.Thread(target=shake) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            issue(directory)
            gateway.process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        done.set()
        for thread in threads:
            thread.join()
        if len(serials) < 5:
            failures.append(f"only {len(serials)} certificates were seen")
        return failures[:5], f"10 new certificates in {count[0]} handshakes under load: {len(serials)} seen, 0 handshakes failed"
    finally:
        gateway.stop()


CASES = {"scan": scan, "silence": silence, "rotation": rotation}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES])
    options = parser.parse_args()
    failed = False
    for name in options.cases or CASES:
        if name == "scan" and not shutil.which("testssl"):
            print("scan: testssl.sh is not installed (scripts/setup installs it)")
            sys.exit(77)
        with tempfile.TemporaryDirectory(prefix="ganglion-tls-") as directory:
            bad, told = CASES[name](pathlib.Path(directory))
        failed |= bool(bad)
        lines = ["BROKEN: " + "; ".join(bad)] if bad else [told]
        print(f"{name}: {lines[0]}", flush=True)
        if options.results:
            import report
            report.write(options.results, f"TLS {name}", lines)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
