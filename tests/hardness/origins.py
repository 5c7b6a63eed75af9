"""Real web servers as origins: nginx, haproxy, apache2, lighttpd and Node, each answering a chat completion that echoes
the request's x-request-id (and, where the server reads bodies, the `user` of the body), and each with an access log of
all that it took for a request."""

import asyncio
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

ANSWER = ('{"id":"%s","object":"chat.completion","created":1,"model":"m","user":"%s","choices":[{"index":0,"message":'
          '{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}')
SUFFIX = ANSWER.split('","object"', 1)[1].split('"user":"%s"', 1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Origin:
    """One process. `lines()`: what it logged, as (request id or "", status, method, path)."""
    name = ""
    reads_body = True

    def __init__(self, directory):
        self.directory = pathlib.Path(directory) / self.name
        self.directory.mkdir(parents=True)
        self.port = free_port()
        self.log = self.directory / "access.log"
        self.output = open(self.directory / "output.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(self.command(), stdout=self.stdout(), stderr=self.output, cwd=self.directory)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        self.output.seek(0)
        raise SystemExit(f"{self.name} did not start:\n{self.output.read()}")

    def stdout(self):
        return self.output

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)

    def lines(self):
        out = []
        if not self.log.exists():
            return out
        for line in self.log.read_text(encoding="latin-1").splitlines():
            parts = line.split(" ")
            if len(parts) < 4:
                continue
            out.append(("" if parts[0] == "-" else parts[0], parts[1], parts[2], parts[3]))
        return out


class Nginx(Origin):
    name = "nginx"
    reads_body = False  # `return` drops it

    def command(self):
        text = ANSWER % ("$http_x_request_id", "")
        (self.directory / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {self.directory}/nginx.pid; error_log {self.directory}/error.log; user root;
events {{ worker_connections 1024; }}
http {{
  log_format told '$http_x_request_id $status $request_method $uri';
  access_log {self.log} told;
  client_body_temp_path {self.directory}/a; proxy_temp_path {self.directory}/b; fastcgi_temp_path {self.directory}/c;
  uwsgi_temp_path {self.directory}/d; scgi_temp_path {self.directory}/e;
  keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{self.port};
    location / {{ default_type application/json; return 200 '{text}'; }}
  }}
}}
""", encoding="utf-8")
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", self.directory / "nginx.conf", "-e", self.directory / "error.log"]


class Haproxy(Origin):
    name = "haproxy"

    def command(self):
        text = (ANSWER % ("%[req.hdr(x-request-id)]", "%[req.body,json_query('\\$.user')]")).replace('"', '\\"')
        (self.directory / "haproxy.cfg").write_text(f"""
global
  maxconn 2000
  log stdout format raw local0
defaults
  mode http
  timeout client 60s
  timeout http-keep-alive 60s
  option http-buffer-request
  option dontlognull
frontend f
  bind 127.0.0.1:{self.port}
  log global
  http-request set-var(txn.rid) req.hdr(x-request-id)
  http-request set-var(txn.path) path
  log-format "%[var(txn.rid)] %ST %HM %[var(txn.path)]"
  http-request return status 200 content-type application/json lf-string "{text}"
""", encoding="utf-8")
        return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", self.directory / "haproxy.cfg"]

    def stdout(self):
        return open(self.log, "w", encoding="utf-8")


class Apache(Origin):
    name = "apache2"

    def command(self):
        modules = "/usr/lib/apache2/modules"
        (self.directory / "handler.lua").write_text("""
function handle(r)
  local body = r:requestbody() or ""
  local user = body:match('"user":"([%w-]*)"') or ""
  local id = r.headers_in["x-request-id"] or ""
  r.content_type = "application/json"
  r:write('""" + (ANSWER % ("' .. id .. '", "' .. user .. '")) + """')
  return apache2.OK
end
""", encoding="utf-8")
        loads = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in ("mpm_event", "authz_core", "lua", "mime"))
        (self.directory / "apache.conf").write_text(f"""
{loads}
ServerRoot {self.directory}
PidFile {self.directory}/apache.pid
DefaultRuntimeDir {self.directory}
ServerName localhost
User www-data
Group www-data
Listen 127.0.0.1:{self.port}
TypesConfig /dev/null
ErrorLog {self.directory}/error.log
LogFormat "%{{x-request-id}}i %>s %m %U" told
CustomLog {self.log} told
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
<Directory "{self.directory}">
  Require all granted
</Directory>
DocumentRoot {self.directory}
LuaScope thread
LuaMapHandler "^/v1/" {self.directory}/handler.lua handle
""", encoding="utf-8")
        os.chmod(self.directory, 0o755)
        return [shutil.which("apache2") or "/usr/sbin/apache2", "-X" if False else "-DFOREGROUND", "-f", self.directory / "apache.conf"]


class Lighttpd(Origin):
    """Its answers come over SCGI from a thread of this process."""
    name = "lighttpd"

    def command(self):
        self.scgi_port = free_port()
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.scgi(started)), daemon=True).start()
        started.wait()
        (self.directory / "lighttpd.conf").write_text(f"""
server.modules = ("mod_accesslog", "mod_scgi")
server.document-root = "{self.directory}"
server.bind = "127.0.0.1"
server.port = {self.port}
server.errorlog = "{self.directory}/error.log"
server.max-keep-alive-requests = 100000
server.max-keep-alive-idle = 60
accesslog.filename = "{self.log}"
accesslog.format = "%{{x-request-id}}i %s %m %U"
scgi.server = ("/v1" => (("host" => "127.0.0.1", "port" => {self.scgi_port}, "check-local" => "disable")))
""", encoding="utf-8")
        return [shutil.which("lighttpd") or "/usr/sbin/lighttpd", "-D", "-f", self.directory / "lighttpd.conf"]

    async def scgi(self, started):
        async def serve(reader, writer):
            try:
                size = int((await reader.readuntil(b":"))[:-1])
                fields = (await reader.readexactly(size)).split(b"\0")
                await reader.readexactly(1)
                headers = dict(zip(fields[::2], fields[1::2]))
                body = await reader.readexactly(int(headers.get(b"CONTENT_LENGTH", b"0")))
                text = ANSWER % (headers.get(b"HTTP_X_REQUEST_ID", b"").decode("latin-1"), user_of(body))
                writer.write(f"Status: 200\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
                await writer.drain()
            except (OSError, ValueError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", self.scgi_port, backlog=512)
        started.set()
        async with server:
            await server.serve_forever()

    def stop(self):
        self.process.terminate()  # writes its log's last lines
        self.process.wait(timeout=60)


class Node(Origin):
    name = "node"

    def command(self):
        (self.directory / "origin.js").write_text("""
const http = require('http'), fs = require('fs');
const log = fs.openSync(process.argv[3], 'a');
const tell = (id, status, method, path) => fs.writeSync(log, `${id || '-'} ${status} ${method} ${path}\\n`);
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (data) => { body += data; });
  request.on('end', () => {
    let user = '';
    try { user = JSON.parse(body).user ?? ''; } catch {}
    const id = request.headers['x-request-id'] ?? '';
    tell(id, 200, request.method, request.url);
    const text = """ + json.dumps(ANSWER).replace("%s", '" + id + "', 1).replace("%s", '" + user + "', 1) + """;
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
    response.end(text);
  });
});
server.keepAliveTimeout = 60000;
server.on('clientError', (error, socket) => { tell('', 400, error.code, '-'); socket.destroy(); });
server.listen(Number(process.argv[2]), '127.0.0.1');
""", encoding="utf-8")
        return [shutil.which("node"), self.directory / "origin.js", str(self.port), self.log]


def user_of(body):
    try:
        return str(json.loads(body).get("user", ""))
    except (ValueError, AttributeError):
        return ""


ALL = (Nginx, Haproxy, Apache, Lighttpd, Node)


def missing():
    """Names of the servers that this machine lacks."""
    return [each.name for each in ALL if not (shutil.which(each.name) or shutil.which(f"/usr/sbin/{each.name}"))]
