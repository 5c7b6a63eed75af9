// `ganglion usage` adds up to what the headers said; verify passes; reload and shutdown behave.
import test from 'node:test';
import assert from 'node:assert/strict';
import { appendFileSync, writeFileSync } from 'node:fs';
import OpenAI from 'openai';
import { Gateway } from './gateway.mjs';
import { Upstream } from './upstream.mjs';

const until = async (condition, what, ms = 5000) => {
  const began = Date.now();
  while (!(await condition())) {
    assert.ok(Date.now() - began < ms, `waited ${ms} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

test('usage adds up to the x-neurons headers, exactly', async () => {
  const upstream = await new Upstream().start();
  const gateway = await new Gateway(`
providers:
  - {name: mock, base_url: "http://127.0.0.1:${upstream.port}/v1", models: [gpt-4o-mini]}
pricing:
  models: [{model: gpt-4o-mini, input_per_1m: "1000", output_per_1m: "20000.5"}]
`).start();
  const client = new OpenAI({ apiKey: 'none', baseURL: gateway.baseURL, maxRetries: 0 });
  let nano = 0n;
  const parse = (text) => { const [whole, fraction = ''] = text.split('.'); return BigInt(whole) * 1000000000n + BigInt(fraction.padEnd(9, '0')); };
  for (let i = 0; i < 20; ++i) {
    const { response } = await client.chat.completions.create(
      { model: 'gpt-4o-mini', messages: [{ role: 'user', content: `echo ${i % 15}` }] },
      { headers: i % 2 ? { 'x-neuron-tier': 'fast' } : {} }).withResponse();
    nano += parse(response.headers.get('x-neurons'));
  }
  assert.ok(nano > 0n);
  assert.equal((await gateway.stop()).code, 0);
  const records = gateway.records();
  assert.equal(records.length, 20);
  assert.equal(new Set(records.map((r) => r.id)).size, 20);
  assert.equal(records.filter((r) => r.outcome === 'cache_hit').length, 5);
  const usage = JSON.parse(gateway.command('usage', '--dir', gateway.ledger, '--by', 'model,tier', '--format', 'json'));
  const total = usage.rows.reduce((sum, row) => sum + parse(String(row.neurons)), 0n);
  // Per-request headers are rounded to the nano-neuron, totals once: they may differ by half a nano per request.
  const difference = total > nano ? total - nano : nano - total;
  assert.ok(difference <= 10n, `headers ${nano}, usage ${total}`);
  assert.match(gateway.command('ledger', 'verify', '--dir', gateway.ledger), /ok|valid/i);
  gateway.remove();
  await upstream.stop();
});

test('reload: valid is taken, invalid is kept out, a revoked key stops working', async () => {
  const upstream = await new Upstream().start();
  const head = (keys) => `providers:
  - {name: mock, base_url: "http://127.0.0.1:${upstream.port}/v1", models: [gpt-4o-mini]}
key_pepper: \${PEPPER}
keys: [${keys}]
`;
  const gateway = await new Gateway(head('{id: a, secret: "${A}"}, {id: b, secret: "${B}"}'), { PEPPER: 'pepper-for-tests-0123456789', A: 'sk-a', B: 'sk-b' }).start();
  const ask = (key) => fetch(`${gateway.baseURL}/chat/completions`, {
    method: 'POST', headers: { authorization: `Bearer ${key}` },
    body: JSON.stringify({ model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'echo x' }] }) });
  assert.equal((await ask('sk-b')).status, 200);
  const original = gateway.yaml;
  appendFileSync(gateway.file, '\nnonsense: true\n');
  gateway.child.kill('SIGHUP');
  await until(() => gateway.stderr.includes('nonsense'), 'the reload error in the log');
  assert.equal((await ask('sk-b')).status, 200, 'the old configuration is kept');
  assert.ok(/ganglion_config_reloads_total\{[^}]*fail[^}]*\} [1-9]/.test(await gateway.metrics()));
  writeFileSync(gateway.file, original.replace('{id: b, secret: "${B}"}', '{id: b, secret: "${B}", revoked: true}'));
  await until(async () => (await ask('sk-b')).status === 401, 'the revoked key to be refused', 2000);
  assert.equal((await ask('sk-a')).status, 200);
  assert.equal((await gateway.stop()).code, 0);
  gateway.remove();
  await upstream.stop();
});

test('SIGTERM lets a running stream end, a second signal exits at once', async () => {
  const upstream = await new Upstream().start();
  const yaml = `providers:
  - {name: mock, base_url: "http://127.0.0.1:${upstream.port}/v1", models: [gpt-4o-mini]}
shutdown: {drain: 20s}
`;
  const gateway = await new Gateway(yaml).start();
  const client = new OpenAI({ apiKey: 'none', baseURL: gateway.baseURL, maxRetries: 0 });
  const stream = await client.chat.completions.create({ model: 'gpt-4o-mini', stream: true, messages: [{ role: 'user', content: `paced ${'x '.repeat(50)}` }] });
  let text = '';
  let told = false;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    if (!told) { told = true; gateway.child.kill('SIGTERM'); }
  }
  assert.ok(text.endsWith('x '), 'the stream was completed');
  assert.equal((await gateway.exited).code, 0);
  gateway.remove();

  const impatient = await new Gateway(yaml).start();
  const endless = await new OpenAI({ apiKey: 'none', baseURL: impatient.baseURL, maxRetries: 0 }).chat.completions.create(
    { model: 'gpt-4o-mini', stream: true, messages: [{ role: 'user', content: 'endless' }] });
  const drain = (async () => { try { for await (const chunk of endless) void chunk; } catch { /* cut */ } })();
  impatient.child.kill('SIGTERM');
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(impatient.child.exitCode, null, 'still draining');
  const began = Date.now();
  impatient.child.kill('SIGTERM');
  await impatient.exited;
  assert.ok(Date.now() - began < 1000);
  await drain;
  impatient.remove();
  await upstream.stop();
});
