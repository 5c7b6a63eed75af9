// The official openai client against the real binary: remote upstream and the gateway's own model.
import test, { after, before } from 'node:test';
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { Gateway, sample } from './gateway.mjs';
import { Upstream } from './upstream.mjs';

const upstream = new Upstream();
let gateway;
let client;

before(async () => {
  await upstream.start();
  gateway = await new Gateway(`
providers:
  - name: mock
    base_url: http://127.0.0.1:${upstream.port}/v1
    api_key: \${UPSTREAM_KEY}
    timeouts: {first_byte: 2s, whole: 2s}
    models: [gpt-4o-mini, {name: nick, upstream: real-name}, text-embedding-3-small]
local:
  - {name: demo-chat, path: models/demo-chat}
key_pepper: \${PEPPER}
keys:
  - {id: app, secret: \${APP_KEY}, tenant: default}
  - {id: narrow, secret: \${NARROW_KEY}, models: [gpt-4o-mini]}
  - {id: limited, secret: \${LIMITED_KEY}, limits: {requests: 60/min}}
  - {id: bursty, secret: \${BURSTY_KEY}, limits: {requests: {rate: 2/s, burst: 2}}}
`, { UPSTREAM_KEY: 'sk-upstream-canary', PEPPER: 'pepper-for-tests-0123456789', APP_KEY: 'sk-app', NARROW_KEY: 'sk-narrow', LIMITED_KEY: 'sk-limited', BURSTY_KEY: 'sk-bursty' }).start();
  client = connect('sk-app');
});

after(async () => {
  const { code } = await gateway.stop();
  await upstream.stop();
  assert.equal(code, 0, 'SIGTERM drains and exits 0');
  assert.ok(!gateway.stderr.includes('sk-upstream-canary') && !gateway.stdout.includes('sk-upstream-canary'), 'no provider key in a log');
  gateway.remove();
});

const connect = (apiKey, options = {}) => new OpenAI({ apiKey, baseURL: gateway.baseURL, maxRetries: 0, ...options });
const ask = (content, extra = {}) => ({ model: 'gpt-4o-mini', messages: [{ role: 'user', content }], ...extra });

test('chat completion through a remote upstream', async () => {
  const { data, response } = await client.chat.completions.create(ask('echo hello there')).withResponse();
  assert.equal(data.choices[0].message.content, 'hello there');
  assert.equal(data.usage.total_tokens, 18);
  assert.match(response.headers.get('x-request-id'), /^[0-9A-Z]{26}$/);
  assert.equal(response.headers.get('x-neuron-tier'), 'regular');
  assert.ok(Number(response.headers.get('x-neurons')) > 0);
  assert.equal(response.headers.get('cf-aig-cache-status'), 'MISS');
  assert.ok(Number(response.headers.get('x-ganglion-overhead-us')) >= 0);
  const seen = upstream.journal.at(-1);
  assert.equal(seen.headers.authorization, 'Bearer sk-upstream-canary', 'the provider gets its own key, not the client’s');
});

test('an identical request is a cache hit that costs nothing', async () => {
  await client.chat.completions.create(ask('echo cached'));
  const calls = upstream.journal.length;
  const { data, response } = await client.chat.completions.create(ask('echo cached')).withResponse();
  assert.equal(data.choices[0].message.content, 'cached');
  assert.equal(response.headers.get('cf-aig-cache-status'), 'HIT');
  assert.equal(Number(response.headers.get('x-neurons')), 0);
  assert.equal(upstream.journal.length, calls);
  // The same recording serves a streaming client.
  let text = '';
  for await (const chunk of await client.chat.completions.create(ask('echo cached', { stream: true }))) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, 'cached');
  assert.equal(upstream.journal.length, calls);
});

test('streaming: deltas arrive, usage chunk only when asked', async () => {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create(ask('echo one two three', { stream: true }))) chunks.push(chunk);
  assert.equal(chunks.map((c) => c.choices[0]?.delta?.content ?? '').join(''), 'one two three');
  assert.ok(chunks.every((c) => c.choices.length === 1), 'the usage chunk that we injected is stripped again');
  assert.equal(upstream.journal.at(-1).body.stream_options.include_usage, true);

  const asked = [];
  for await (const chunk of await client.chat.completions.create(ask('echo four five', { stream: true, stream_options: { include_usage: true } }))) asked.push(chunk);
  assert.equal(asked.at(-1).usage.total_tokens, 18);
  assert.ok(asked.at(-1).usage.neurons > 0, 'neurons in the usage object');
});

test('the first delta is not held back', async () => {
  const began = Date.now();
  const stream = await client.chat.completions.create(ask(`paced ${'x '.repeat(60)}`, { stream: true }));
  let first = 0;
  for await (const chunk of stream) if (!first && chunk.choices[0]?.delta?.content) first = Date.now() - began;
  const total = Date.now() - began;
  assert.ok(total > 500 && first < total / 2, `first after ${first} ms of ${total} ms`);
});

test('aborting a stream closes the upstream call soon', async () => {
  const stream = await client.chat.completions.create(ask('endless please', { stream: true }));
  let seen = 0;
  for await (const chunk of stream) if (chunk.choices[0]?.delta?.content && ++seen === 3) break;
  const entry = upstream.journal.at(-1);
  const began = Date.now();
  while (!entry.closedEarly && Date.now() - began < 2000) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(entry.closedEarly, 'the upstream saw its connection closed');
  assert.ok(Date.now() - began < 1000);
  assert.ok(entry.deltas < 200);
});

test('an upstream that breaks mid-stream: an error, never a forged [DONE]', async () => {
  const response = await fetch(`${gateway.baseURL}/chat/completions`, {
    method: 'POST', headers: { authorization: 'Bearer sk-app', 'content-type': 'application/json' },
    body: JSON.stringify(ask('cut 2 three four five six', { stream: true })),
  });
  let text = '';
  try {
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) text += part;
  } catch { /* the stream is cut */ }
  assert.ok(text.includes('"error"'), text);
  assert.ok(!text.includes('[DONE]'));
  await assert.rejects(async () => {
    for await (const chunk of await client.chat.completions.create(ask('cut 2 again and again and again', { stream: true }))) void chunk;
  });
});

test('model aliases are resolved on the way up', async () => {
  await client.chat.completions.create(ask('echo alias', { model: 'nick', unknown_field: { kept: true } }));
  assert.equal(upstream.journal.at(-1).body.model, 'real-name');
  assert.deepEqual(upstream.journal.at(-1).body.unknown_field, { kept: true });
});

test('tools pass through', async () => {
  const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }];
  const answer = await client.chat.completions.create(ask('tools', { tools }));
  assert.equal(answer.choices[0].finish_reason, 'tool_calls');
  assert.equal(answer.choices[0].message.tool_calls[0].function.name, 'weather');
  assert.deepEqual(upstream.journal.at(-1).body.tools, tools);
});

test('embeddings: base64 by default, floats when asked', async () => {
  const answer = await client.embeddings.create({ model: 'text-embedding-3-small', input: ['a', 'b'] });
  assert.equal(upstream.journal.at(-1).body.encoding_format, 'base64');
  assert.deepEqual([...answer.data[1].embedding], [0.25, -0.5, 1]);
  const floats = await client.embeddings.create({ model: 'text-embedding-3-small', input: 'c', encoding_format: 'float' });
  assert.deepEqual(floats.data[0].embedding, [0.25, -0.5, 1]);
});

test('models: list, one, unknown', async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names.sort(), ['demo-chat', 'gpt-4o-mini', 'nick', 'text-embedding-3-small']);
  assert.equal((await client.models.retrieve('nick')).id, 'nick');
  await assert.rejects(client.models.retrieve('nope'), (error) => error.status === 404);
  const narrow = [];
  for await (const model of connect('sk-narrow').models.list()) narrow.push(model.id);
  assert.deepEqual(narrow, ['gpt-4o-mini']);
});

test('errors in OpenAI’s shape', async () => {
  await assert.rejects(connect('sk-wrong').chat.completions.create(ask('x')), (error) => {
    assert.equal(error.status, 401);
    assert.equal(error.code, 'invalid_api_key');
    return error instanceof OpenAI.AuthenticationError;
  });
  await assert.rejects(connect('sk-narrow').chat.completions.create(ask('x', { model: 'nope' })), (error) => {
    assert.equal(error.status, 404);
    assert.equal(error.code, 'model_not_found');
    assert.match(error.message, /gpt-4o-mini/);
    assert.ok(!error.message.includes('nick'), 'only the models of this key are named');
    return true;
  });
  await assert.rejects(client.chat.completions.create({ model: 'gpt-4o-mini', messages: 'no' }), (error) => error.status === 400 && error.param === 'messages');
  const bad = await fetch(`${gateway.baseURL}/chat/completions`, { method: 'POST', headers: { authorization: 'Bearer sk-app' }, body: '{"model": "gpt-4o-mini",\n "messages": [}' });
  assert.equal(bad.status, 400);
  const { error } = await bad.json();
  assert.equal(error.type, 'invalid_request_error');
  assert.match(error.message, /line 2/);
});

test('retries: the gateway retries a 500 before the first byte, the SDK retries our 429', async () => {
  const before = upstream.journal.length;
  const answer = await client.chat.completions.create(ask('fail 500 1'));
  assert.match(answer.choices[0].message.content, /answer/);
  assert.equal(upstream.journal.length - before, 2);

  const patient = connect('sk-bursty', { maxRetries: 3 });
  await Promise.all([patient, patient, patient].map((c, i) => c.chat.completions.create(ask(`echo burst ${i}`))));
});

test('the 61st request of a 60/min key gets 429 with a Retry-After that, obeyed, succeeds', async () => {
  const limited = connect('sk-limited');
  for (let i = 0; i < 60; ++i) await limited.chat.completions.create(ask(`echo limited ${i}`));
  const refused = await limited.chat.completions.create(ask('echo limited 61')).catch((error) => error);
  assert.equal(refused.status, 429);
  assert.equal(refused.code, 'rate_limit_exceeded');
  assert.equal(refused.headers.get('x-ratelimit-limit-requests'), '60');
  assert.equal(refused.headers.get('x-ratelimit-remaining-requests'), '0');
  const wait = Number(refused.headers.get('retry-after'));
  assert.ok(wait >= 1 && wait <= 60, `retry-after ${wait}`);
  await new Promise((resolve) => setTimeout(resolve, wait * 1000));
  const answer = await limited.chat.completions.create(ask('echo limited 61'));
  assert.equal(answer.choices[0].message.content, 'limited 61');
});

test('timeouts: first byte limit gives 504, the client’s own timeout cancels the upstream call', async () => {
  await assert.rejects(client.chat.completions.create(ask('slow 5000')), (error) => error.status === 504);
  await assert.rejects(client.chat.completions.create(ask('slow 1500'), { timeout: 200 }), OpenAI.APIConnectionTimeoutError);
});

test('tiers: header, service_tier, price', async () => {
  const fast = await client.chat.completions.create(ask('echo fast'), { headers: { 'x-neuron-tier': 'fast' } }).withResponse();
  assert.equal(fast.response.headers.get('x-neuron-tier'), 'fast');
  const priority = await client.chat.completions.create(ask('echo priority', { service_tier: 'priority' })).withResponse();
  assert.equal(priority.response.headers.get('x-neuron-tier'), 'fast');
  await assert.rejects(client.chat.completions.create(ask('x'), { headers: { 'x-neuron-tier': 'warp' } }), (error) => error.status === 400 && /regular/.test(error.message));
});

test('its own model answers, streamed and whole, and counts tokens', async () => {
  const request = ask('Hello!', { model: 'demo-chat', temperature: 0, max_tokens: 40 });
  const { data, response } = await client.chat.completions.create(request).withResponse();
  assert.ok(data.choices[0].message.content.length > 3);
  assert.ok(data.usage.completion_tokens > 0 && data.usage.prompt_tokens > 0);
  assert.ok(Number(response.headers.get('x-neurons')) > 0);
  let text = '';
  for await (const chunk of await client.chat.completions.create({ ...request, stream: true }, { headers: { 'cf-aig-skip-cache': 'true' } })) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, data.choices[0].message.content, 'greedy: streamed and whole agree');
});

test('one upstream call for many identical requests at once', async () => {
  const before = upstream.journal.length;
  const answers = await Promise.all(Array.from({ length: 50 }, () => client.chat.completions.create(ask('slow 300'))));
  assert.equal(upstream.journal.length - before, 1);
  assert.equal(new Set(answers.map((a) => a.choices[0].message.content)).size, 1);
});

test('metrics and ledger agree with what clients were told', async () => {
  const text = await gateway.metrics();
  assert.ok(sample(text, 'ganglion_requests_total', 'model="gpt-4o-mini"') > 60);
  assert.ok(!text.includes('sk-app') && !text.includes('sk-upstream-canary'));
  const config = await (await fetch(`${gateway.admin}/admin/config`)).text();
  assert.ok(!config.includes('sk-upstream-canary') && !config.includes('sk-app') && !config.includes('pepper-for-tests'));
  assert.equal((await fetch(`${gateway.admin}/healthz`)).status, 200);
  assert.equal((await fetch(`${gateway.admin}/readyz`)).status, 200);
});
