// `ganglion bench`: mock, load and report as a user runs them.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

const binary = process.env.GANGLION_BINARY;
const folder = mkdtempSync(join(tmpdir(), 'ganglion-bench-'));
const bench = (...words) => spawnSync(binary, ['bench', ...words], { encoding: 'utf8', timeout: 60000 });
let mock;
let port;

before(async () => {
  mock = spawn(binary, ['bench', 'mock', '--stdin', '--deltas', '5', '--gap-ms', '2', '--journal', join(folder, 'journal')],
    { stdio: ['pipe', 'pipe', 'inherit'] });
  port = await new Promise((resolve) => mock.stdout.once('data', (text) => resolve(String(text).match(/port (\d+)/)[1])));
});
after(() => {
  mock.kill();
  rmSync(folder, { recursive: true });
});

test('a closed loop counts every answer, and the CPU of the process it watches', () => {
  const run = bench('load', '--json', '--port', port, '--count', '300', '--connections', '4', '--seconds', '20',
    '--pid', String(mock.pid), '--name', 'plain', '--out', join(folder, 'plain.json'));
  assert.equal(run.status, 0, run.stderr);
  const result = JSON.parse(run.stdout);
  assert.equal(result.answered, 300);
  assert.equal(result.errors, 0);
  assert.ok(result.latency_us.p50 > 0 && result.latency_us.p50 <= result.latency_us.p999);
  assert.ok(result.cpu_us_per_request >= 0);
  assert.equal(readFileSync(join(folder, 'journal'), 'utf8').trim().split('\n').length, 300);
});

test('an open loop keeps its rate and times every delta of its streams', () => {
  const run = bench('load', '--url', `http://localhost:${port}/v1/chat/completions`, '--stream', '--rate', '100',
    '--seconds', '1', '--connections', '16', '--name', 'streams', '--json', '--out', join(folder, 'streams.json'));
  assert.equal(run.status, 0, run.stderr);
  const result = JSON.parse(run.stdout);
  assert.ok(result.answered >= 90 && result.answered <= 101, `${result.answered}`);
  assert.equal(result.chunk_us.n, result.answered * 5);
});

test('a person sees quantiles and a chart', () => {
  const run = bench('load', '--port', port, '--count', '50', '--seconds', '20');
  assert.equal(run.status, 0);
  assert.match(run.stdout, /answered 50 .*errors 0/);
  assert.match(run.stdout, /p99\.9/);
  assert.match(run.stdout, /<= .*#/);
});

test('a report takes the baseline off and draws', () => {
  const svg = join(folder, 'latency.svg');
  const run = bench('report', '--baseline', 'plain', '--svg', svg, join(folder, 'plain.json'), join(folder, 'streams.json'));
  assert.equal(run.status, 0, run.stderr);
  assert.match(run.stdout, /\| plain \|.*\| - \| - \|/);
  assert.match(run.stdout, /\| streams \|.*\+\d+ us \| \+\d+ us \|/);
  assert.match(run.stdout, /chunk p99/);
  assert.match(readFileSync(svg, 'utf8'), /^<svg[^]*<polyline[^]*<polyline[^]*<\/svg>\n$/);
});

test('what is wrong with the words is said', () => {
  for (const [words, problem] of [
    [['load', '--port', 'x'], /--port must be a number/],
    [['load', '--seconds', '0'], /--seconds must be a number/],
    [['load', '--url', 'https://127.0.0.1/'], /must begin with http:/],
    [['load', '--url', `http://127.0.0.1:${port}/`, '--port', port], /not both/],
    [['load', '--prot', '1'], /unknown option --prot/],
    [['report', join(folder, 'missing.json')], /cannot read/],
    [['report', join(folder, 'journal')], /result 1 is not/],
    [['race'], /mock, load or report/],
  ]) {
    const run = bench(...words);
    assert.equal(run.status, 2, words.join(' '));
    assert.match(run.stderr, problem);
  }
  const refused = bench('load', '--port', '1');
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /cannot connect to 127\.0\.0\.1:1/);
});
