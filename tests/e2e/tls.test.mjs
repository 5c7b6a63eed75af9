// TLS through the whole binary: the official client over https, a provider over https under a private authority, and
// certificates that change while the gateway runs.
import test, { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import OpenAI from 'openai';
import { authorityFile, issue } from './certificates.mjs';
import { Gateway, sample } from './gateway.mjs';
import { Upstream } from './upstream.mjs';

const directory = mkdtempSync(join(tmpdir(), 'ganglion-tls-'));
const folder = (name) => mkdtempSync(join(directory, name));
const serverFolder = folder('server');
const upstream = new Upstream();
const stranger = new Upstream();
let gateway;
let client;

const provider = (name, port, model, tlsSettings = `tls: {ca: ${authorityFile}}`) =>
  `  - {name: ${name}, base_url: "https://localhost:${port}/v1", api_key: "\${UPSTREAM_KEY}", models: [${model}], ${tlsSettings}}\n`;
const providers = () => 'providers:\n' + provider('private', upstream.port, 'gpt-4o-mini') + provider('stranger', stranger.port, 'gpt-strange');

before(async () => {
  await upstream.start(issue(folder('upstream'), 'upstream'));
  await stranger.start(issue(folder('stranger'), 'stranger', 'itself'));
  const { certFile, keyFile } = issue(serverFolder, 'first');
  gateway = await new Gateway(providers(), { UPSTREAM_KEY: 'sk-upstream-canary' }, `tls: {cert: ${certFile}, key: ${keyFile}}`).start();
  client = new OpenAI({ apiKey: 'none', baseURL: gateway.baseURL, maxRetries: 0 });
});

after(async () => {
  const { code } = await gateway.stop();
  await upstream.stop();
  await stranger.stop();
  assert.equal(code, 0, 'SIGTERM drains and exits 0');
  gateway.remove();
  rmSync(directory, { recursive: true, force: true });
});

const ask = (content, extra = {}) => ({ model: 'gpt-4o-mini', messages: [{ role: 'user', content }], ...extra });
const proxyPort = () => Number(new URL(gateway.proxy).port);

// A verified connection of its own; what certificate it got.
const handshake = (options = {}) => new Promise((resolve, reject) => {
  const socket = tls.connect({ host: '127.0.0.1', port: proxyPort(), servername: 'localhost', ...options }, () => resolve(socket));
  socket.on('error', reject);
});
const commonName = async () => {
  const socket = await handshake();
  const name = socket.getPeerCertificate().subject.CN;
  socket.destroy();
  return name;
};

test('the listener speaks TLS, 1.2 and 1.3, and nothing else', async () => {
  assert.match(gateway.proxy, /^https:/);
  for (const version of ['TLSv1.2', 'TLSv1.3']) {
    const socket = await handshake({ minVersion: version, maxVersion: version });
    assert.equal(socket.getProtocol(), version);
    assert.equal(socket.authorized, true, 'the chain and the name are verified');
    socket.destroy();
  }
  await assert.rejects(fetch(gateway.baseURL.replace('https:', 'http:') + '/models'));
});

test('whole and streamed chats pass through TLS on both sides', async () => {
  const { data, response } = await client.chat.completions.create(ask('echo over tls')).withResponse();
  assert.equal(data.choices[0].message.content, 'over tls');
  assert.ok(Number(response.headers.get('x-neurons')) > 0);
  const seen = upstream.journal.at(-1);
  assert.equal(seen.headers.authorization, 'Bearer sk-upstream-canary');
  assert.equal(seen.headers.host, `localhost:${upstream.port}`);

  let text = '';
  let usage;
  const words = Array.from({ length: 2000 }, (_, i) => `word${i}`).join(' ');
  for await (const chunk of await client.chat.completions.create(ask(`echo ${words}`, { stream: true, stream_options: { include_usage: true } }))) {
    text += chunk.choices[0]?.delta?.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, words);
  assert.ok(usage.neurons > 0);
});

test('a client that leaves a TLS stream cancels the provider’s', async () => {
  const stream = await client.chat.completions.create(ask('endless tls', { stream: true }));
  for await (const chunk of stream) if (chunk.choices[0]?.delta?.content) break;
  const entry = upstream.journal.at(-1);
  for (let i = 0; i < 100 && !entry.closedEarly; ++i) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(entry.closedEarly);
});

test('a provider whose certificate nobody vouches for is never spoken to', async () => {
  await assert.rejects(client.chat.completions.create(ask('echo x', { model: 'gpt-strange' })), (error) => {
    assert.equal(error.status, 502);
    assert.equal(error.code, 'upstream_unreachable');
    return true;
  });
  assert.equal(stranger.journal.length, 0);
});

test('a renewed certificate is seen by new connections, running ones go on', async () => {
  const kept = await handshake();
  assert.equal(kept.getPeerCertificate().subject.CN, 'first');
  issue(serverFolder, 'second');
  await gateway.reload();
  assert.equal(await commonName(), 'second');
  assert.ok(sample(await gateway.metrics(), 'ganglion_tls_reloads_total', 'listener="proxy",result="ok"') >= 1);
  let answer = '';
  kept.on('data', (data) => { answer += data; });
  kept.write('GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
  await new Promise((resolve) => kept.on('close', resolve));
  assert.match(answer, /^HTTP\/1.1 200 .*gpt-4o-mini/s, 'the old connection still serves');

  // Without being told, within the watch interval.
  issue(serverFolder, 'third');
  for (let i = 0; i < 80 && (await commonName()) !== 'third'; ++i) await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(await commonName(), 'third');
});

test('a configuration that moves the certificate takes effect, a broken one is refused whole', async () => {
  const moved = issue(folder('moved'), 'moved');
  await gateway.reload(gateway.yaml.replaceAll(serverFolder, join(moved.certFile, '..')));
  assert.equal(await commonName(), 'moved');

  const good = gateway.yaml;
  const failures = sample(await gateway.metrics(), 'ganglion_config_reloads_total', 'result="failed"') ?? 0;
  const broken = join(directory, 'broken.pem');
  writeFileSync(broken, 'not a certificate');
  await gateway.reload(good.replaceAll(moved.certFile, broken).replace('[gpt-4o-mini]', '[gpt-5]'));
  assert.match(gateway.stderr, /config_rejected.*broken\.pem/);
  await gateway.reload(good.replace(authorityFile, broken).replace('[gpt-4o-mini]', '[gpt-5]'));
  assert.match(gateway.stderr, /config_rejected.*provider private/);
  assert.equal(await commonName(), 'moved');
  assert.equal((await client.chat.completions.create(ask('echo still here'))).choices[0].message.content, 'still here');
  assert.equal(sample(await gateway.metrics(), 'ganglion_config_reloads_total', 'result="failed"'), failures + 2);
  await gateway.reload(good);
});
