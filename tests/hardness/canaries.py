#!/usr/bin/env python3
"""Canaries: unique words in every place where a client or a provider could leave a secret, then a search for them in all
that the gateway writes. And traps: listeners that a caller names in every way known, which must never be called.

  tests/hardness/canaries.py [--requests N] [--seed S] [case ...]

Exit code 1 when a canary or a trap was found."""

import argparse
import json
import pathlib
import random
import re
import socket
import sys
import threading
import urllib.request

import origins  # noqa: F401  (shares its folder)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from gateway_process import Gateway  # noqa: E402

ADMIN = ["/metrics", "/admin/config", "/admin/sinks", "/admin/usage", "/admin/usage?by=key,model", "/admin/budgets", "/admin/cache/semantic", "/readyz"]
SERIES_MAX = 1000  # that clients may cause


class Provider:
    """Answers on a thread per connection: as told, an answer, a stream or an error, each holding a canary."""

    def __init__(self, rng):
        self.rng, self.canaries = rng, []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.redirect = None
        self.heads = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(65536)
                    if not more:
                        return
                    data += more
                head, data = data.split(b"\r\n\r\n", 1)
                size = int(re.search(rb"content-length: (\d+)", head.lower())[1])
                while len(data) < size:
                    data += connection.recv(65536)
                body, data = data[:size], data[size:]
                self.heads.append(head)
                connection.sendall(self.answer(body))
        except OSError:
            pass
        finally:
            connection.close()

    def answer(self, body):
        word = f"canary{self.rng.getrandbits(64):016x}"
        if self.redirect:
            status, target = self.redirect
            return f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
        kind = len(self.canaries) % 6
        if kind in (0, 1):  # a refusal that quotes what it was sent
            self.canaries.append(word)
            text = json.dumps({"error": {"message": f"Incorrect API key provided: {word}", "type": "invalid_request_error", "code": word}})
            return f"HTTP/1.1 {401 if kind else 500} X\r\nContent-Type: application/json\r\nX-Secret: {word}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
        if kind == 2:
            self.canaries.append(word)
            return f"HTTP/1.1 200 OK\r\nX: {word}\r\nContent-Length: 9x\r\n\r\n{word}".encode()
        self.canaries.append(word)
        if b'"stream":true' in body:
            events = (f'data: {{"id":"c","choices":[{{"index":0,"delta":{{"content":"{word}"}},"finish_reason":null}}]}}\n\n'
                      'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}\n\ndata: [DONE]\n\n')
            return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(events)}\r\n\r\n{events}".encode()
        text = json.dumps({"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": word}, "finish_reason": "stop"}],
                           "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}})
        return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def talk(port, request):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        data = b""
        try:
            while more := connection.recv(65536):
                data += more
        except OSError:
            pass
        return data


def http(method, target, headers, body):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def series(text):
    return sum(1 for line in text.splitlines() if line and not line.startswith("#"))


def admin(gateway, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ports['admin']}{path}", timeout=60) as response:
        return response.read().decode()


def canaries(options, rng):
    provider = Provider(rng)
    key, pepper, upstream_key = (f"sk-canary{rng.getrandbits(96):024x}" for _ in range(3))
    gateway = Gateway("", env={"APP_KEY": key, "PEPPER": pepper, "UPSTREAM_KEY": upstream_key}, log='level: debug, access_log: true, access_log_file: "@ACCESS@"')
    text = gateway.file.read_text().replace("@ACCESS@", str(gateway.directory / "access.log"))
    gateway.file.write_text(text + f"""
key_pepper: ${{PEPPER}}
keys: [{{id: app, secret: "${{APP_KEY}}"}}]
providers: [{{name: up, base_url: "http://127.0.0.1:{provider.port}/v1", api_key: "${{UPSTREAM_KEY}}", models: [m]}}]
gateways: [{{name: default, retry: {{attempts: 1}}}}]
budgets: [{{name: all, tenant: default, usd: 1000}}]
sinks: [{{name: files, type: file, directory: "{gateway.directory}/usage"}}]
""")
    gateway.start()
    words = [key, pepper, upstream_key]

    def word(prefix="canary"):
        words.append(f"{prefix}{rng.getrandbits(64):016x}")
        return words[-1]

    baseline = series(admin(gateway, "/metrics"))
    leaks = []
    said = {key, pepper, upstream_key}
    for i in range(options.requests):
        own = len(words)
        bearer = key if i % 3 else word("sk-canary")
        headers = [("Authorization", f"Bearer {bearer}"), ("Content-Type", "application/json"), ("x-api-key", word()), ("api-key", word()),
                   ("cookie", f"s={word()}"), ("user-agent", word()), ("x-forwarded-for", word()), ("x-request-id", word()),
                   ("referer", f"http://x/?key={word()}")]
        if i % 5 == 0:
            headers.append(("Idempotency-Key", word()))
        if i % 7 == 0:
            headers.append(("cf-aig-cache-key", word()))
        body = {"model": "m", "user": word(), "stream": i % 2 == 0, "messages": [{"role": "system", "content": word()}, {"role": "user", "content": f"my password is {word()}"}],
                "tools": [{"type": "function", "function": {"name": "f", "description": word(), "parameters": {"type": "object", "properties": {word(): {"type": "string"}}}}}],
                "metadata": {"k": word()}}
        target, method, data = "/v1/chat/completions", "POST", json.dumps(body).encode()
        kind = i % 11
        if kind == 1:
            target += f"?key={word()}&api_key={word()}"
        elif kind == 2:
            data = data[:-1] + b',"' + word().encode()  # not JSON
        elif kind == 3:
            target = f"/v1/x{i}"  # paths are logged, queries are not
        elif kind == 4:
            method = "X-" + "".join(rng.choice("ABCDEFGH") for _ in range(12))
        elif kind == 5:
            data = json.dumps({**body, "model": word()}).encode()
        elif kind == 6:
            data = json.dumps({**body, "temperature": word(), "n": word()}).encode()
        elif kind == 7:
            headers.append(("x-neuron-tier", word()))
        elif kind == 8:
            headers.append(("cf-aig-cache-ttl", word()))
        elif kind == 9:
            headers.append((word("X-Canary-"), "\x01" + word()))  # refused by the parser
        answer = talk(gateway.ports["proxy"], http(method, target, headers, data)).decode("latin-1")
        # A caller may be told its own mistake, never a secret of another place.
        mine = set(words[own:])
        for secret in set(re.findall(r"(?:sk-)?canary[0-9a-f]{16,24}", answer)):
            if secret in said and secret not in mine:
                leaks.append(f"an answer holds {secret} of another request")
        said |= mine
        if bearer in answer:
            leaks.append("an answer echoes the caller's key")
    pages = {path: admin(gateway, path) for path in ADMIN}
    grown = series(pages["/metrics"]) - baseline
    gateway.stop()
    written = {f"admin {path}": page.encode() for path, page in pages.items()}
    for file in gateway.directory.rglob("*"):
        if file.is_file() and file != gateway.file:
            written[str(file.relative_to(gateway.directory))] = file.read_bytes()
    must_exist = ["gateway.log", "access.log"]
    for name in must_exist:
        if not written.get(name):
            leaks.append(f"{name} is empty: nothing was searched")
    if not any(name.startswith("usage/") for name in written):
        leaks.append("the sink wrote nothing: nothing was searched")
    everything = words + provider.canaries
    pattern = re.compile(rb"(?:canary|Canary-)[0-9a-f]{16,24}")
    known = {each.encode() for each in everything}
    for name, data in written.items():
        answers_kept = name.startswith("ledger/idempotency/")  # holds answers, by design; docs/idempotency.md
        for found in set(pattern.findall(data)):
            whole = next((each for each in known if found in each), found)
            if answers_kept and whole.decode() in provider.canaries:
                continue
            leaks.append(f"{name} holds {whole.decode()}")
        if not answers_kept and (b"my password is" in data):
            leaks.append(f"{name} holds a prompt")
    if grown > SERIES_MAX:
        leaks.append(f"{grown} time series were made by callers")
    return leaks, (f"{options.requests} requests with {len(everything)} canaries; {len(written)} files and pages searched "
                   f"({sum(map(len, written.values())) // 1024} KiB), none found; callers made {grown} time series")


class Trap:
    def __init__(self, address, port=0):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.bind((address, port))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def called(self):
        try:
            self.listener.accept()[0].close()
            return True
        except BlockingIOError:
            return False


def forms(port):
    """Ways of writing the trap's address."""
    hosts = ["127.0.0.1", "localhost", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "017700000001", "0x7f000001", "0", "0.0.0.0", "[::1]",
             "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[64:ff9b::7f00:1]", "127.0.0.1.", "localhost.", "LOCALHOST",
             "127.127.127.127", "169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "user@127.0.0.1", "x:y@127.0.0.1", "127.0.0.1#@x",
             "127.0.0.1%2f", "127.0.0.1%00", "①②⑦.⓪.⓪.①", "127。0。0。1", "%31%32%37.0.0.1"]
    out = []
    for host in hosts:
        out += [f"http://{host}:{port}/v1", f"https://{host}:{port}/", f"//{host}:{port}"]
    return out + [f"file:///proc/self/environ", f"gopher://127.0.0.1:{port}/_x", f"dict://127.0.0.1:{port}/", f"ftp://127.0.0.1:{port}/", f"unix:/tmp/x"]


FIELDS = ["api_base", "base_url", "baseURL", "api_key", "apiBase", "endpoint", "custom_host", "url", "host", "proxy", "provider", "upstream", "deployment_url", "webhook", "callback_url"]
HEADERS = ["x-portkey-custom-host", "x-portkey-config", "x-portkey-provider", "x-custom-host", "x-forwarded-host", "x-forwarded-server", "x-original-url", "x-rewrite-url",
           "x-host", "forwarded", "cf-aig-custom-url", "x-upstream", "x-base-url", "proxy", "x-http-host-override", "api-base", "referer", "origin"]


def ssrf(options, rng):
    provider = Provider(rng)
    trap = Trap("127.0.0.1")
    traps = [trap, Trap("::1", trap.port), Trap("127.127.127.127", trap.port)]
    gateway = Gateway(f'providers: [{{name: up, base_url: "http://127.0.0.1:{provider.port}/v1", api_key: "${{UPSTREAM_KEY}}", models: [m]}}]\n'
                      "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 3}}]\n", env={"UPSTREAM_KEY": "sk-operator-key"}).start()
    content = [("Content-Type", "application/json")]
    sent = 0
    for url in forms(trap.port):
        fields = {name: url for name in FIELDS}
        body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], **fields}
        talk(gateway.ports["proxy"], http("POST", "/v1/chat/completions", content, json.dumps(body).encode()))
        model = {"model": url[:100], "messages": [{"role": "user", "content": "x"}]}
        headers = [(name, url) for name in HEADERS]
        try:
            for name, value in headers:
                value.encode("latin-1")
        except UnicodeEncodeError:
            headers = [(name, value.encode().decode("latin-1")) for name, value in headers]
        request = http("POST", "/v1/chat/completions", content, json.dumps(model).encode())
        talk(gateway.ports["proxy"], request)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
        talk(gateway.ports["proxy"], http("POST", "/v1/chat/completions", content, chat()).replace(b"Host: a\r\n", b"Host: a\r\n" + lines))
        talk(gateway.ports["proxy"], http("POST", url, content, chat()))
        talk(gateway.ports["proxy"], http("POST", f"/v1/proxy/{url}", content, chat()))
        talk(gateway.ports["proxy"], http("POST", f"/v1/chat/completions?api_base={url}&url={url}", content, chat()))
        talk(gateway.ports["proxy"], http("POST", "/v1/chat/completions", content, chat()).replace(b"Host: a", b"Host: " + url.split("//")[-1].split("/")[0].encode()))
        talk(gateway.ports["proxy"], http("CONNECT", url.split("//")[-1].split("/")[0], [], b""))
        sent += 8
    provider_calls = len(provider.heads)
    for status in (301, 302, 303, 307, 308):
        provider.redirect = (status, f"http://127.0.0.1:{trap.port}/stolen")
        answer = talk(gateway.ports["proxy"], http("POST", "/v1/chat/completions", content, chat()))
        if b" 502 " not in answer.split(b"\r\n")[0]:
            return [f"a redirect {status} was answered {answer[:60]!r}"], ""
        sent += 1
    gateway.stop()
    leaks = [f"the trap at {each.listener.getsockname()} was called" for each in traps if each.called()]
    if any(b"authorization: Bearer sk-operator-key" not in head for head in provider.heads):
        leaks.append("a request went to the provider without its key")
    if provider_calls == 0:
        leaks.append("nothing reached the provider: this test sees nothing")
    return leaks, f"{sent} requests that name a trap in {len(forms(1))} forms, {len(FIELDS)} fields, {len(HEADERS)} headers, paths, Host and redirects: never called"


def chat():
    return b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'


CASES = {"canaries": canaries, "ssrf": ssrf}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES])
    options = parser.parse_args()
    failed = False
    for name in options.cases or CASES:
        leaks, told = CASES[name](options, random.Random(options.seed))
        failed |= bool(leaks)
        lines = [f"BROKEN: {len(leaks)}: " + "; ".join(leaks[:10])] if leaks else [told]
        print(f"{name}: seed {options.seed}: {lines[0]}", flush=True)
        if options.results:
            import report
            report.write(options.results, name, lines)
        for process in Gateway.started:
            if process.poll() is None:
                process.kill()
                process.wait()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
