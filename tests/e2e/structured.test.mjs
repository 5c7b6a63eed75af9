// JSON mode, JSON schemas and tool calls of a local model through the official openai client.
import test, { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { Gateway } from './gateway.mjs';

const root = new URL('../../', import.meta.url).pathname;
// The demo model knows no tools: a copy of it, whose template shows them, writes the calls that it is made to write.
const withTools = mkdtempSync(join(tmpdir(), 'ganglion-e2e-tools-'));
let gateway;
let client;

before(async () => {
  cpSync(join(root, 'models/demo-chat'), withTools, { recursive: true });
  writeFileSync(join(withTools, 'chat_template.jinja'),
    "{{ bos_token }}{% if tools %}{% for tool in tools %}<tool_call>{{ tool.function.name }}</tool_call>{% endfor %}{% endif %}"
    + "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}"
    + "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} {{ c.function.arguments | tojson }}</tool_call>{% endfor %}"
    + "{{ m.content }}<|end|>{% endfor %}<|assistant|>");
  gateway = await new Gateway(`
local:
  - {name: demo-chat, path: ${join(root, 'models/demo-chat')}}
  - {name: demo-tools, path: ${withTools}}
key_pepper: \${PEPPER}
keys:
  - {id: app, secret: \${APP_KEY}, tenant: default}
`, { PEPPER: 'pepper-for-tests-0123456789', APP_KEY: 'sk-app' }).start();
  client = new OpenAI({ apiKey: 'sk-app', baseURL: gateway.baseURL, maxRetries: 0 });
});

after(async () => {
  const { code } = await gateway.stop();
  assert.equal(code, 0);
  gateway.remove();
  rmSync(withTools, { recursive: true });
});

const schema = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 12 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    born: { type: 'string', format: 'date' },
    tags: { type: 'array', items: { enum: ['red', 'green'] }, minItems: 1, maxItems: 3 },
  },
  required: ['name', 'age', 'born', 'tags'],
  additionalProperties: false,
};
const asked = (extra) => ({ model: 'demo-chat', messages: [{ role: 'user', content: 'Describe a person.' }], max_tokens: 200, ...extra });
const format = { type: 'json_schema', json_schema: { name: 'person', strict: true, schema } };

const checkPerson = (text) => {
  const person = JSON.parse(text);
  assert.deepEqual(Object.keys(person), ['name', 'age', 'born', 'tags']);
  assert.ok([...person.name].length <= 12 && Number.isInteger(person.age) && person.age >= 0 && person.age <= 120, text);
  assert.match(person.born, /^\d{4}-\d{2}-\d{2}$/);
  assert.ok(!Number.isNaN(Date.parse(person.born)), text);
  assert.ok(person.tags.length >= 1 && person.tags.length <= 3 && person.tags.every((t) => t === 'red' || t === 'green'), text);
};

test('answers satisfy a JSON schema, streamed or not', async () => {
  for (const temperature of [0, 1]) {
    const whole = await client.chat.completions.create(asked({ response_format: format, temperature, seed: 3, n: 3 }));
    for (const choice of whole.choices) {
      assert.equal(choice.finish_reason, 'stop');
      checkPerson(choice.message.content);
    }
    const stream = client.chat.completions.stream(asked({ response_format: format, temperature, seed: 3 }));
    checkPerson((await stream.finalChatCompletion()).choices[0].message.content);
  }
});

test('the client’s own parser takes what comes', async () => {
  const parsed = await client.chat.completions.parse(asked({ response_format: format, seed: 9 }));
  assert.equal(typeof parsed.choices[0].message.parsed.age, 'number');
});

test('JSON mode gives an object', async () => {
  const answer = await client.chat.completions.create(asked({ response_format: { type: 'json_object' }, temperature: 0 }));
  if (answer.choices[0].finish_reason === 'stop') assert.equal(typeof JSON.parse(answer.choices[0].message.content), 'object');
  else assert.match(answer.choices[0].message.content, /^\s?\{/);
});

test('what is not supported is refused by its place', async () => {
  const bad = { ...format, json_schema: { ...format.json_schema, schema: { type: 'object', properties: { a: { not: {} } } } } };
  await assert.rejects(client.chat.completions.create(asked({ response_format: bad })), (error) => {
    assert.equal(error.status, 400);
    assert.equal(error.param, 'response_format.json_schema.schema');
    assert.match(error.message, /#\/properties\/a\/not/);
    return true;
  });
});

const tools = [
  { type: 'function', function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string', maxLength: 10 }, days: { type: 'integer', minimum: 1, maximum: 7 } }, required: ['city', 'days'], additionalProperties: false } } },
  { type: 'function', function: { name: 'now', parameters: { type: 'object', properties: {}, additionalProperties: false } } },
];
const checkCall = (call) => {
  assert.equal(call.type, 'function');
  assert.match(call.id, /^call_/);
  const args = JSON.parse(call.function.arguments);
  if (call.function.name === 'now') return assert.deepEqual(args, {});
  assert.equal(call.function.name, 'get_weather');
  assert.ok([...args.city].length <= 10 && args.days >= 1 && args.days <= 7, call.function.arguments);
};

test('required tool calls come with valid arguments, streamed or not, and go back into the prompt', async () => {
  const request = asked({ model: 'demo-tools', tools, tool_choice: 'required', parallel_tool_calls: false, temperature: 1, seed: 4 });
  const whole = await client.chat.completions.create(request);
  const [choice] = whole.choices;
  assert.equal(choice.finish_reason, 'tool_calls');
  assert.equal(choice.message.content, null);
  assert.equal(choice.message.tool_calls.length, 1);
  checkCall(choice.message.tool_calls[0]);
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  assert.equal(streamed.choices[0].finish_reason, 'tool_calls');
  assert.deepEqual(streamed.choices[0].message.tool_calls.map((c) => c.function.name), choice.message.tool_calls.map((c) => c.function.name));
  assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, choice.message.tool_calls[0].function.arguments);
  const next = await client.chat.completions.create({
    ...request,
    tool_choice: 'auto',
    max_tokens: 8,
    messages: [...request.messages, choice.message, { role: 'tool', tool_call_id: choice.message.tool_calls[0].id, content: 'sunny' }],
  });
  assert.equal(typeof next.choices[0].message.content, 'string');
  assert.ok(next.usage.prompt_tokens > whole.usage.prompt_tokens);
});

test('a named tool is the one that is called', async () => {
  const answer = await client.chat.completions.create(asked({ model: 'demo-tools', tools, tool_choice: { type: 'function', function: { name: 'now' } } }));
  assert.deepEqual(answer.choices[0].message.tool_calls.map((c) => c.function.name), ['now']);
});

test('a model whose template knows no tools says so', async () => {
  await assert.rejects(client.chat.completions.create(asked({ tools })), (error) => error.status === 400 && error.param === 'tools');
});
