// The admin listener of the whole binary: its token, its names, client certificates, and what `check` says about a
// listener that other machines could reach.
import test, { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import http from 'node:http';
import https from 'node:https';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { authorityFile, issue } from './certificates.mjs';
import { binary, Gateway } from './gateway.mjs';

const directory = mkdtempSync(join(tmpdir(), 'ganglion-admin-'));
const folder = (name) => mkdtempSync(join(directory, name));
const provider = 'providers: [{name: up, base_url: "http://127.0.0.1:9/v1", models: [m]}]\n';
const token = 'e2e-admin-token-0123456789';
const server = issue(folder('server'), 'server');
const operator = issue(folder('operator'), 'operator');
const stranger = issue(folder('stranger'), 'stranger', 'itself');
let plain;
let secured;

before(async () => {
  plain = await new Gateway(provider, { ADMIN_TOKEN: token }, '', 'token: "${ADMIN_TOKEN}", hosts: [ops.internal]').start();
  secured = await new Gateway(provider, {}, '', `tls: {cert: ${server.certFile}, key: ${server.keyFile}, client_ca: ${authorityFile}}`).start();
});

after(async () => {
  for (const gateway of [plain, secured]) {
    assert.equal((await gateway.stop()).code, 0);
    gateway.remove();
  }
  rmSync(directory, { recursive: true, force: true });
});

// One request with exactly these headers (fetch would not let Host be chosen).
const get = (url, headers = {}, options = {}) => new Promise((resolve, reject) => {
  const request = (url.startsWith('https') ? https : http).get(url, { headers, agent: false, ...options }, (response) => {
    let body = '';
    response.on('data', (data) => { body += data; });
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
  });
  request.on('error', reject);
});
const authorization = `Bearer ${token}`;

test('the token is asked for, but not by probes', async () => {
  assert.equal((await get(`${plain.admin}/healthz`)).status, 200);
  assert.equal((await get(`${plain.admin}/readyz`)).status, 200);
  const refused = await get(`${plain.admin}/metrics`);
  assert.equal(refused.status, 401);
  assert.equal(refused.headers['www-authenticate'], 'Bearer');
  assert.match((await get(`${plain.admin}/metrics`, { authorization })).body, /ganglion_build_info/);
  const config = await get(`${plain.admin}/admin/config`, { authorization });
  assert.equal(config.status, 200);
  assert.ok(!config.body.includes(token));
  assert.ok(!plain.stderr.includes(token));
});

test('a page that rebinds its name to loopback gets nothing, whatever it asks', async () => {
  for (const path of ['/metrics', '/admin/config', '/admin/usage', '/healthz', '/']) {
    assert.equal((await get(plain.admin + path, { host: 'rebound.example', authorization })).status, 403, path);
  }
  assert.equal((await get(`${plain.admin}/metrics`, { host: 'ops.internal:8081', authorization })).status, 200);
});

test('a new token and new names hold from the reload on', async () => {
  const old = plain.yaml;
  await plain.reload(old.replace('ops.internal', 'desk.internal'));
  assert.equal((await get(`${plain.admin}/metrics`, { host: 'ops.internal', authorization })).status, 403);
  assert.equal((await get(`${plain.admin}/metrics`, { host: 'desk.internal', authorization })).status, 200);
  await plain.reload(old);
});

test('with an authority, only its clients are served', async () => {
  const ca = readFileSync(authorityFile);
  const as = ({ cert, key } = {}) => get(`${secured.admin}/metrics`, {}, { ca, cert, key });
  assert.match((await as(operator)).body, /ganglion_build_info/);
  await assert.rejects(as(stranger));
  await assert.rejects(as());
  await assert.rejects(get(secured.admin.replace('https', 'http') + '/metrics'));
});

test('a listener beyond loopback is refused without TLS and a token or client certificates', () => {
  const file = join(directory, 'open.yaml');
  const check = (admin) => {
    writeFileSync(file, `admin: {listen: "0.0.0.0:8081"${admin}}\n${provider}`);
    try {
      execFileSync(binary, ['check', file], { encoding: 'utf8', env: { ...process.env, ADMIN_TOKEN: token }, stdio: 'pipe' });
      return '';
    } catch (error) {
      return error.stdout + error.stderr;
    }
  };
  const tls = `, tls: {cert: ${server.certFile}, key: ${server.keyFile}`;
  assert.match(check(''), /admin\.listen: 0\.0\.0\.0 is reachable from other machines, where the admin listener needs `admin\.tls`/);
  assert.match(check(', token: "${ADMIN_TOKEN}"'), /needs `admin\.tls` \(cert and key\);/);
  assert.match(check(`${tls}}`), /needs `admin\.token` or `admin\.tls\.client_ca`/);
  assert.equal(check(`${tls}}, token: "\${ADMIN_TOKEN}"`), '');
  assert.equal(check(`${tls}, client_ca: ${authorityFile}}`), '');
});
