// A scripted OpenAI-compatible upstream with a journal of every request that reached it. What it answers is chosen by
// the last user message: "echo ...", "fail 500 N" (N failures, then an answer), "slow MS", "cut K" (socket destroyed after K
// deltas), "tools", "nousage".
import http from 'node:http';
import https from 'node:https';

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Upstream {
  journal = [];
  failures = new Map();
  open = 0;

  // `tls`: {cert, key} in PEM; plain HTTP without.
  async start(tls) {
    const serve = (request, response) => this.#serve(request, response).catch(() => response.destroy());
    this.server = tls ? https.createServer(tls, serve) : http.createServer(serve);
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.port = this.server.address().port;
    this.baseURL = `${tls ? 'https' : 'http'}://127.0.0.1:${this.port}/v1`;
    return this;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  async #serve(request, response) {
    let text = '';
    for await (const chunk of request) text += chunk;
    const body = text ? JSON.parse(text) : {};
    const entry = { path: request.url, headers: request.headers, body, text, closedEarly: false, deltas: 0 };
    this.journal.push(entry);
    response.on('close', () => { entry.closedEarly = !response.writableFinished; });
    if (request.url === '/v1/embeddings') return this.#embeddings(body, response);
    const prompt = body.messages?.at(-1)?.content ?? body.prompt ?? '';
    const [word, ...rest] = String(prompt).split(' ');
    if (word === 'fail') {
      const [status, times] = rest.map(Number);
      const seen = this.failures.get(prompt) ?? 0;
      this.failures.set(prompt, seen + 1);
      if (seen < times) {
        response.writeHead(status, { 'content-type': 'application/json', 'retry-after-ms': '10' });
        return response.end(JSON.stringify({ error: { message: `scripted ${status}`, type: 'server_error', param: null, code: 'scripted' } }));
      }
    }
    if (word === 'slow') await sleep(Number(rest[0]));
    const answer = word === 'echo' ? rest.join(' ') : `answer to: ${prompt}`;
    if (body.stream) return this.#stream(word, rest, answer, body, entry, response);
    const message = word === 'tools'
      ? { role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Paris"}' } }] }
      : { role: 'assistant', content: answer };
    const out = {
      id: 'chatcmpl-up', object: 'chat.completion', created: 1, model: body.model,
      choices: [{ index: 0, message, finish_reason: word === 'tools' ? 'tool_calls' : 'stop' }],
    };
    if (word !== 'nousage') out.usage = { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 };
    response.writeHead(200, { 'content-type': 'application/json', 'x-upstream': 'mock' });
    response.end(JSON.stringify(out));
  }

  async #stream(word, rest, answer, body, entry, response) {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (choices, extra = {}) => response.write(`data: ${JSON.stringify({
      id: 'chatcmpl-up', object: 'chat.completion.chunk', created: 1, model: body.model, choices, ...extra })}\n\n`);
    send([{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }]);
    const words = word === 'endless' ? Array.from({ length: 10_000 }, (_, i) => `w${i} `) : answer.split(/(?<= )/);
    for (const [i, piece] of words.entries()) {
      if (response.destroyed) return;
      if (word === 'cut' && i === Number(rest[0])) return response.destroy();
      send([{ index: 0, delta: { content: piece }, finish_reason: null }]);
      entry.deltas += 1;
      if (word === 'endless' || word === 'paced') await sleep(10);
    }
    send([{ index: 0, delta: {}, finish_reason: 'stop' }]);
    if (body.stream_options?.include_usage && word !== 'nousage') {
      send([], { usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 } });
    }
    response.end('data: [DONE]\n\n');
  }

  #embeddings(body, response) {
    const inputs = Array.isArray(body.input) ? body.input : [body.input];
    const vector = Float32Array.from([0.25, -0.5, 1]);
    const data = inputs.map((_, index) => ({
      object: 'embedding', index,
      embedding: body.encoding_format === 'base64' ? Buffer.from(vector.buffer).toString('base64') : [...vector],
    }));
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ object: 'list', model: body.model, data, usage: { prompt_tokens: 3, total_tokens: 3 } }));
  }
}
