// The commands an operator types: check, config, keys, and the log of accesses.
import test from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Gateway, binary } from './gateway.mjs';
import { Upstream } from './upstream.mjs';

const run = (args, env = {}) => spawnSync(binary, args, { encoding: 'utf8', env: { ...process.env, ...env } });

test('check reports every problem at once, with its place, and exits 2', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ganglion-cli-'));
  const file = join(directory, 'bad.yaml');
  writeFileSync(file, 'servr: {listen: "127.0.0.1:1"}\nserver: {workers: -3}\nproviders:\n  - {name: a, base_url: "ftp://x", api_key: "${NOT_SET_ANYWHERE}"}\n');
  const { status, stderr } = run(['check', file]);
  assert.equal(status, 2);
  assert.match(stderr, /bad\.yaml:1:1: .*servr.*did you mean .?server/);
  assert.match(stderr, /bad\.yaml:2:\d+: /);
  assert.match(stderr, /bad\.yaml:4:\d+: .*base_url/);
  assert.match(stderr, /NOT_SET_ANYWHERE/);
  rmSync(directory, { recursive: true });
});

test('the printed default is itself a good file, the schema is JSON', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ganglion-cli-'));
  const file = join(directory, 'default.yaml');
  const printed = run(['config', '--print-default']);
  assert.equal(printed.status, 0);
  writeFileSync(file, printed.stdout.replace('models/demo-chat', join(process.cwd(), '../../models/demo-chat')));
  assert.equal(run(['check', file]).status, 0, run(['check', file]).stderr);
  assert.equal(JSON.parse(run(['config', '--print-schema']).stdout).additionalProperties, false);
  rmSync(directory, { recursive: true });
});

test('unknown commands and options exit 2 and say what there is', () => {
  assert.equal(run(['serv']).status, 2);
  assert.match(run(['usage', '--bye', 'x']).stderr, /--by/);
});

test('every command has a help, which is no error', () => {
  for (const words of [['serve', '--help'], ['config', '--help'], ['keys', 'create', '--help'], ['ledger', '-h']]) {
    const { status, stdout, stderr } = run(words);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /ganglion serve/);
  }
});

test('a created key works; the access log has one JSON line a request and no prompt or key', async () => {
  const upstream = await new Upstream().start();
  const pepper = 'pepper-for-tests-0123456789';
  const made = run(['keys', 'create', '--id', 'fresh', '--tenant', 'acme'], { GANGLION_KEY_PEPPER: pepper });
  const key = made.stdout.trim();
  assert.match(key, /^sk-gl-[0-9a-f]{48}$/);
  const block = made.stderr.slice(made.stderr.indexOf('key_pepper:'));
  const gateway = await new Gateway(`providers:
  - {name: mock, base_url: "http://127.0.0.1:${upstream.port}/v1", models: [gpt-4o-mini]}
${block}`, { GANGLION_KEY_PEPPER: pepper }).start();
  const ask = (bearer) => fetch(`${gateway.baseURL}/chat/completions`, {
    method: 'POST', headers: { authorization: `Bearer ${bearer}` },
    body: JSON.stringify({ model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'echo prompt-canary-7731' }] }) });
  assert.equal((await ask(key)).status, 200);
  assert.equal((await ask(`${key.slice(0, -1)}x`)).status, 401);
  assert.equal((await gateway.stop()).code, 0);
  const lines = gateway.stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line))
    .sort((a, b) => a.status - b.status);  // each worker writes its own lines
  assert.deepEqual(lines.map((line) => line.status), [200, 401]);
  assert.equal(lines[0].tenant, 'acme');
  assert.equal(lines[0].key, 'fresh');
  assert.ok(lines[0].neurons > 0);
  for (const text of [gateway.stdout, gateway.stderr]) assert.ok(!text.includes('canary') && !text.includes(key.slice(0, 20)));
  gateway.remove();
  await upstream.stop();
});

test('a reload that remaps a model forgets its cached answers', async () => {
  const upstream = await new Upstream().start();
  const gateway = await new Gateway(`providers:
  - {name: mock, base_url: "http://127.0.0.1:${upstream.port}/v1", models: [{name: m, upstream: old}]}
`).start();
  const ask = async () => (await fetch(`${gateway.baseURL}/chat/completions`, {
    method: 'POST', body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'echo x' }] }) })).headers.get('cf-aig-cache-status');
  assert.equal(await ask(), 'MISS');
  assert.equal(await ask(), 'HIT');
  writeFileSync(gateway.file, `${gateway.yaml}\nmetrics: {max_label_values: 300}\n`);
  gateway.child.kill('SIGHUP');
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(await ask(), 'HIT', 'other changes keep the cache');
  writeFileSync(gateway.file, gateway.yaml.replace('upstream: old', 'upstream: new'));
  gateway.child.kill('SIGHUP');
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(await ask(), 'MISS');
  assert.equal(upstream.journal.at(-1).body.model, 'new');
  await gateway.stop();
  gateway.remove();
  await upstream.stop();
});
