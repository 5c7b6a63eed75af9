#!/usr/bin/env python3
"""Throughput and latency of a 7 B model through the gateway's own HTTP, on a machine with an NVIDIA GPU.

Writes a checkpoint with Llama-2-7B's shapes and random weights (nothing stops early), serves it with `ganglion serve`,
asks with `ganglion bench load`, and reads the engine's own counters before and after each row. Needs Python alone.

  bench/cuda/http_rows.py --ganglion build/cuda/ganglion [--dir /tmp/rows] [--rows 128/128:512:1536,...] [--json FILE]

A row is prompt/output:connections:requests. Then, unless left out with --skip: `prefix`, a prompt of 2,048 tokens asked
again; `tiers`, fast requests alone and beside a flood of regular ones.
"""

import argparse
import json
import os
import pathlib
import random
import re
import socket
import struct
import subprocess
import time
import urllib.request

CONFIG = """
server: {{listen: "127.0.0.1:{port}", workers: {workers}}}
admin: {{listen: "127.0.0.1:{admin}"}}
local:
  - {{name: m, path: "{model}", device: {device}, quantize: {quantize}, kv_type: {kv}, max_batch: {batch},
      max_queue: 4096, prefix_sharing: all}}
admission: {{max_in_flight: 4096}}
tiers: {{fast: {{reserved_share: 20%}}, regular: {{max_wait: 300s}}, max_queue: 4096}}
gateways: [{{name: default, cache: {{ttl: 0s}}}}]
ledger: {{directory: "{directory}/ledger"}}
log: {{level: warn, access_log: false}}
"""
PREFIX = '{"model":"m","stream":true,"messages":[{"role":"user","content":"'


def byte_alphabet():
    """The printable stand-ins of the 256 bytes that byte-level tokenizers use."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names, extra = {}, 0
    for byte in range(256):
        names[byte] = chr(byte) if byte in plain else chr(256 + extra)
        extra += byte not in plain
    return [names[b] for b in range(256)]


def write_tokenizer(folder, vocab):
    """A token a byte; what else the model may say is words that no prompt is made into."""
    words = byte_alphabet() + [f"\u0120w{i}" for i in range(vocab - 256)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": level, "post_processor": None, "decoder": level,
                 "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                           "ignore_merges": False, "vocab": {w: i for i, w in enumerate(words)}, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}))


class Weights:
    """bf16 values of random sign between 2^-7 and 2^-5, cut out of one block at ever other places."""

    def __init__(self):
        size = 1 << 25
        self.block = bytearray(2 * size)
        self.block[0::2] = os.urandom(size)
        self.block[1::2] = os.urandom(size).translate(bytes(0x3C if b < 128 else 0xBC for b in range(256)))
        self.random = random.Random(1)

    def write(self, file, count):
        view = memoryview(self.block)
        left = 2 * count
        while left > 0:
            at = 2 * self.random.randrange(len(self.block) // 4)
            some = min(left, len(self.block) - at)
            file.write(view[at:at + some])
            left -= some


def write_model(folder, layers, width, inner, heads, vocab):
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
              "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": heads, "vocab_size": vocab, "max_position_embeddings": 4224, "rms_norm_eps": 1e-5,
              "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, vocab)
    shapes = {"model.embed_tokens.weight": [vocab, width], "model.norm.weight": [width], "lm_head.weight": [vocab, width]}
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name in ("q", "k", "v", "o"):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = [width, width]
        shapes[layer + "mlp.gate_proj.weight"] = shapes[layer + "mlp.up_proj.weight"] = [inner, width]
        shapes[layer + "mlp.down_proj.weight"] = [width, inner]
        shapes[layer + "input_layernorm.weight"] = shapes[layer + "post_attention_layernorm.weight"] = [width]
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = Weights()
    with open(folder / "model.safetensors", "wb", buffering=1 << 20) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            if len(shape) == 1:
                file.write(b"\x80\x3f" * shape[0])
            else:
                weights.write(file, shape[0] * shape[1])
    return at


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Gateway:
    def __init__(self, options, model):
        self.program = options.ganglion.split()
        self.port, self.admin = free_port(), free_port()
        path = options.dir / "rows.yaml"
        path.write_text(CONFIG.format(port=self.port, admin=self.admin, model=model, device=options.device, workers=options.workers,
                                      quantize=options.quantize, kv=options.kv, batch=options.batch,
                                      directory=options.dir))
        began = time.monotonic()
        self.process = subprocess.Popen([*self.program, "serve", str(path)])
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"ganglion serve ended with {self.process.returncode}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.05)
        print(f"loaded and listening after {time.monotonic() - began:.1f} s", flush=True)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def counters(self):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10).read().decode()
        out = {}
        for name, labels, value in re.findall(r"^(ganglion_engine_\w+)\{([^}]*)\} (\S+)$", text, re.M):
            key = name.removeprefix("ganglion_engine_")
            phase = re.search(r'phase="(\w+)"', labels)
            key += "_" + phase.group(1) if phase else ""
            out[key] = out.get(key, 0) + float(value)
        return out

    def threads(self):
        """Seconds of CPU by thread."""
        out = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            out[task.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return out

    def start_load(self, prompt, output, *arguments):
        return subprocess.Popen([*self.program, "bench", "load", "--json", "--stream", "--model", "m", "--port",
                                 str(self.port), "--pid", str(self.process.pid), "--body-bytes",
                                 str(prompt + 4 + len(PREFIX)), "--max-tokens", str(output), *map(str, arguments)],
                                stdout=subprocess.PIPE, text=True)


def outcome(process):
    return json.loads(process.communicate()[0])


def ms(result, histogram, quantile):
    return result[histogram][quantile] / 1e3


def throughput(gateway, prompt, output, connections, requests):
    before, threads = gateway.counters(), gateway.threads()
    result = outcome(gateway.start_load(prompt, output, "--unique", "--connections", connections, "--count", requests,
                                        "--seconds", 600))
    after = gateway.counters()
    spent = sorted((cpu - threads.get(name, 0) for name, cpu in gateway.threads().items()), reverse=True)
    made = {key: after[key] - before.get(key, 0) for key in after}
    tokens, seconds = made["tokens_total_generated"], result["seconds"]
    row = {"row": f"{prompt}/{output}", "connections": connections, "requests": result["answered"],
           "errors": result["errors"], "output_tok_s": tokens / seconds,
           "prompt_tok_s": made["tokens_total_prompt"] / seconds, "seconds": seconds,
           "tokens_each": tokens / max(result["answered"], 1), "prompt_each": made["tokens_total_prompt"] / max(result["answered"], 1),
           "ttft_ms": {q: ms(result, "first_byte_us", q) for q in ("p50", "p99")},
           "tpot_ms": {q: ms(result, "token_us", q) for q in ("p50", "p99")},
           "cpu_us_per_token": result["cpu_us_per_request"] * result["answered"] / tokens,
           "cpu_us_per_token_by_thread": [cpu / tokens * 1e6 for cpu in spent[:4]] + [sum(spent[4:]) / tokens * 1e6],
           "device_busy": made["device_seconds_total"] / seconds,
           "step_ms": made["step_seconds_total"] / max(made["steps_total"], 1) * 1e3}
    print(f"{row['row']:>9}, {connections} connections, {row['requests']} requests ({row['errors']} errors): "
          f"{row['output_tok_s']:.0f} output tok/s, {row['prompt_tok_s']:.0f} prompt tok/s; first token p50 "
          f"{row['ttft_ms']['p50']:.0f} p99 {row['ttft_ms']['p99']:.0f} ms; a token p50 {row['tpot_ms']['p50']:.2f} p99 "
          f"{row['tpot_ms']['p99']:.2f} ms; CPU {row['cpu_us_per_token']:.1f} us a token (threads "
          f"{' '.join(f'{cpu:.1f}' for cpu in row['cpu_us_per_token_by_thread'])}); device busy "
          f"{100 * row['device_busy']:.0f} %, a step {row['step_ms']:.1f} ms; {row['tokens_each']:.1f} tokens each "
          f"({row['prompt_each']:.0f} of prompt)", flush=True)
    return row


def prefix(gateway):
    """A prompt of 2,048 tokens, each time another; and the same one again and again."""
    cold = outcome(gateway.start_load(2048, 2, "--unique", "--connections", 1, "--count", 20, "--seconds", 60))
    outcome(gateway.start_load(2048, 2, "--connections", 1, "--count", 4, "--seconds", 60))
    warm = outcome(gateway.start_load(2048, 2, "--connections", 1, "--count", 40, "--seconds", 60))
    a, b = ms(cold, "first_byte_us", "p50"), ms(warm, "first_byte_us", "p50")
    print(f"prompt of 2048 tokens through HTTP: first token p50 {a:.2f} ms computed, {b:.2f} ms found, {b / a:.3f}",
          flush=True)
    return {"cold_ms": a, "found_ms": b, "ratio": b / a}


def tiers(gateway, seconds):
    def fast():
        return outcome(gateway.start_load(128, 32, "--unique", "--connections", 64, "--rate", 10, "--seconds", seconds,
                                          "--header", "x-neuron-tier: fast"))
    rows = {"idle": [], "flood": []}
    rates = []
    for _ in range(2):
        rows["idle"].append(fast())
        flood = gateway.start_load(128, 128, "--unique", "--connections", 600, "--seconds", seconds + 3, "--header",
                                   "x-neuron-tier: regular")
        time.sleep(2)
        rows["flood"].append(fast())
        regular = outcome(flood)
        rates.append(regular["answered"] * 128 / regular["seconds"])
    out = {}
    for name, results in rows.items():
        out[name] = [{q: ms(r, "first_byte_us", q) for q in ("p50", "p99")} | {"errors": r["errors"]} for r in results]
        print(f"fast tier, {name}: first token " + "; ".join(f"p50 {r['p50']:.1f} p99 {r['p99']:.1f} ms" for r in out[name]),
              flush=True)
    ratio = max(r["p99"] for r in out["flood"]) / max(r["p99"] for r in out["idle"])
    print(f"fast tier: worst p99 under a regular flood is {ratio:.2f} times the worst idle one", flush=True)
    print(f"regular requests meanwhile: {', '.join(f'{rate:.0f}' for rate in rates)} output tok/s", flush=True)
    return out | {"ratio": ratio, "regular_tok_s": rates}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ganglion", default="build/cuda/ganglion", help="the program, with a loader before it if need be")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("/tmp/ganglion-rows"))
    parser.add_argument("--rows", default="128/128:512:1536,2048/128:80:160,128/2048:112:112,2048/2048:48:48")
    parser.add_argument("--skip", default="", help="prefix,tiers")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quantize", default="fp8")
    parser.add_argument("--kv", default="fp8")
    parser.add_argument("--workers", default="auto", help="of the gateway")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--shape", default="32,4096,11008,32,32000", help="layers, width, inner width, heads, vocabulary")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    model = options.dir / "model"
    if not (model / "model.safetensors").exists():
        began = time.monotonic()
        size = write_model(model, *map(int, options.shape.split(",")))
        print(f"checkpoint of {size / 1e9:.1f} GB written in {time.monotonic() - began:.1f} s", flush=True)
    gateway = Gateway(options, model)
    results = {"rows": []}
    try:
        outcome(gateway.start_load(128, 16, "--unique", "--connections", 8, "--count", 64, "--seconds", 60))
        for row in filter(None, options.rows.split(",")):
            sizes, connections, requests = row.split(":")
            results["rows"].append(throughput(gateway, *map(int, sizes.split("/")), int(connections), int(requests)))
        if "prefix" not in options.skip:
            results["prefix"] = prefix(gateway)
        if "tiers" not in options.skip:
            results["tiers"] = tiers(gateway, options.seconds)
    finally:
        gateway.stop()
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
