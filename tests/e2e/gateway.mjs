// Starts the real binary on free ports with a given configuration and stops it by its own pid.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const binary = process.env.GANGLION_BINARY;
if (!binary) throw new Error('GANGLION_BINARY names the binary under test (tests/e2e/run sets it)');

export class Gateway {
  // `server`, `admin`: further settings of the proxy and of the admin listener, as YAML flow ("tls: {...}").
  constructor(yaml, env = {}, server = '', admin = '') {
    this.directory = mkdtempSync(join(tmpdir(), 'ganglion-e2e-'));
    this.file = join(this.directory, 'ganglion.yaml');
    this.ledger = join(this.directory, 'ledger');
    this.yaml = `server: {listen: "127.0.0.1:0", workers: 2${server && `, ${server}`}}\nadmin: {listen: "127.0.0.1:0"${admin && `, ${admin}`}}\nledger: {directory: "${this.ledger}"}\n${yaml}`;
    this.env = env;
  }

  async start() {
    writeFileSync(this.file, this.yaml);
    this.child = spawn(binary, ['serve', this.file], { env: { ...process.env, ...this.env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.stdout = '';
    this.stderr = '';
    this.exited = new Promise((resolve) => this.child.on('exit', (code, signal) => resolve({ code, signal })));
    this.child.stdout.on('data', (data) => { this.stdout += data; });
    await new Promise((resolve, reject) => {
      this.child.stderr.on('data', (data) => {
        this.stderr += data;
        for (const line of this.stderr.split('\n')) {
          const match = line.includes('"event":"listening"') ? JSON.parse(line) : null;
          if (match) this[match.listener] = match.url;
        }
        if (this.proxy && this.admin) resolve();
      });
      this.exited.then(({ code }) => reject(new Error(`exit ${code} before listening: ${this.stderr}`)));
    });
    this.baseURL = `${this.proxy}/v1`;
    return this;
  }

  async stop(signal = 'SIGTERM') {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    const result = await this.exited;
    return result;
  }

  // Writes another configuration over the file and tells the gateway; resolves when it was applied or rejected.
  async reload(yaml = this.yaml) {
    const judged = () => this.stderr.split('\n').filter((line) => /"event":"config_(applied|rejected)"/.test(line)).length;
    const before = judged();
    this.yaml = yaml;
    writeFileSync(this.file, yaml);
    this.child.kill('SIGHUP');
    for (let i = 0; judged() === before; ++i) {
      if (i === 500) throw new Error(`no reload within 5 s: ${this.stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  remove() { rmSync(this.directory, { recursive: true, force: true }); }

  // Ledger records as objects.
  records() {
    const text = this.command('ledger', 'export', '--dir', this.ledger);
    return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  }

  command(...args) { return execFileSync(binary, args, { encoding: 'utf8', env: { ...process.env, ...this.env } }); }

  async metrics() { return (await fetch(`${this.admin}/metrics`)).text(); }
}

// Value of the first sample whose line starts with `name` and holds all of `labels`.
export function sample(text, name, ...labels) {
  let sum;
  for (const line of text.split('\n')) {
    if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
    if (!labels.every((label) => line.includes(label))) continue;
    sum = (sum ?? 0) + Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return sum;
}
