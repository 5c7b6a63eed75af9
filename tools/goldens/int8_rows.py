#!/usr/bin/env python3
"""Makes the golden checkpoint of compressed-tensors' `int-quantized` format: int8 weights with a scale a row, and
activations that become int8 with a scale a token as they are computed (W8A8).

    python3 tools/goldens/int8_rows.py [--out tests/data/local]

Needs nothing but Python: a Llama small enough for lists of floats, computed in double, so that anybody can run it. That
it computes what transformers does is checked first, against the logits that transformers gave for `fp8_channel_tiny`
(families.py); without that nothing is written. Two sets of logits come out: `logits.f32` of the dequantised weights with
activations as they are, like the goldens of the other quantised checkpoints, and `logits_w8a8.f32` with every
projection's input rounded to int8 by max|x| / 127 of its token.
"""

import argparse
import json
import math
import os
import random
import struct
import sys
from operator import mul

GREEDY = 24
CONFIG = dict(vocab_size=128, hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-5)
PROJECTIONS = [("self_attn.q_proj", 128, 128), ("self_attn.k_proj", 64, 128), ("self_attn.v_proj", 64, 128), ("self_attn.o_proj", 128, 128),
               ("mlp.gate_proj", 128, 128), ("mlp.up_proj", 128, 128), ("mlp.down_proj", 128, 128)]


def bf16_bits(x):
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16


def bf16_value(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def bf16(x):
    return bf16_value(bf16_bits(x))


def e4m3(byte):
    exponent, mantissa = byte >> 3 & 15, byte & 7
    size = math.ldexp(mantissa, -9) if exponent == 0 else math.ldexp(8 + mantissa, exponent - 10)
    return -size if byte & 0x80 else size


# ---------------------------------------------------------------- the model

def in_int8(x):
    scale = max(map(abs, x)) / 127
    return [round(v / scale) * scale for v in x] if scale > 0 else x


class Llama:
    """`weights[name]`: rows of floats, or one list of a norm. One sequence, token by token."""

    def __init__(self, config, weights, int8_activations=False):
        self.c, self.w, self.int8 = config, weights, int8_activations
        half = config["head_dim"] // 2
        self.frequencies = [10000.0 ** (-i / half) for i in range(half)]
        self.restart()

    def restart(self):
        self.keys = [[] for _ in range(self.c["num_hidden_layers"])]
        self.values = [[] for _ in range(self.c["num_hidden_layers"])]

    def linear(self, name, x):
        return [sum(map(mul, row, x)) for row in self.w[name + ".weight"]]

    def norm(self, name, x):
        inverse = 1 / math.sqrt(sum(v * v for v in x) / len(x) + self.c["rms_norm_eps"])
        return [v * inverse * w for v, w in zip(x, self.w[name + ".weight"])]

    def heads(self, x, position):
        dim, half = self.c["head_dim"], self.c["head_dim"] // 2
        out = []
        for at in range(0, len(x), dim):
            head = x[at:at + dim]
            if position is not None:
                turns = [(math.cos(position * f), math.sin(position * f)) for f in self.frequencies]
                a = [head[i] * c - head[i + half] * s for i, (c, s) in enumerate(turns)]
                head = a + [head[i + half] * c + head[i] * s for i, (c, s) in enumerate(turns)]
            out.append(head)
        return out

    def attend(self, layer, q):
        group = self.c["num_attention_heads"] // self.c["num_key_value_heads"]
        out = []
        for h, head in enumerate(q):
            scores = [sum(map(mul, head, k[h // group])) / math.sqrt(self.c["head_dim"]) for k in self.keys[layer]]
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            total = sum(weights)
            columns = zip(*(v[h // group] for v in self.values[layer]))
            out += [sum(map(mul, weights, column)) / total for column in columns]
        return out

    def step(self, token):
        narrow = in_int8 if self.int8 else (lambda x: x)
        x, position = list(self.w["model.embed_tokens.weight"][token]), len(self.keys[0])
        for i in range(self.c["num_hidden_layers"]):
            p = "model.layers.%d." % i
            y = narrow(self.norm(p + "input_layernorm", x))
            q, k, v = (self.linear(p + "self_attn.%s_proj" % n, y) for n in "qkv")
            self.keys[i].append(self.heads(k, position))
            self.values[i].append(self.heads(v, None))
            y = self.linear(p + "self_attn.o_proj", narrow(self.attend(i, self.heads(q, position))))
            x = [a + b for a, b in zip(x, y)]
            y = narrow(self.norm(p + "post_attention_layernorm", x))
            gate, up = self.linear(p + "mlp.gate_proj", y), self.linear(p + "mlp.up_proj", y)
            y = self.linear(p + "mlp.down_proj", narrow([g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)]))
            x = [a + b for a, b in zip(x, y)]
        x = self.norm("model.norm", x)
        return [sum(map(mul, row, x)) for row in self.w["model.embed_tokens.weight"]]  # tied, and not quantised


# ---------------------------------------------------------------- files

def read_safetensors(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header, data = json.loads(f.read(size)), f.read()
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            out[name] = (t["dtype"], t["shape"], data[begin:end])
    return out


def write_safetensors(path, tensors):
    header, blob = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)


def halves(data):
    return [bf16_value(b) for b in struct.unpack("<%dH" % (len(data) // 2), data)]


def rows_of(values, cols):
    return [values[i:i + cols] for i in range(0, len(values), cols)]


def dequantised(tensors, value_of):
    """What the file's tensors stand for."""
    weights = {}
    for name, (dtype, shape, data) in tensors.items():
        if name.endswith("_scale"):
            continue
        if dtype == "BF16":
            values = halves(data)
            weights[name] = rows_of(values, shape[1]) if len(shape) == 2 else values
        else:
            scales = halves(tensors[name + "_scale"][2])
            weights[name] = [[value_of(b) * s for b in row] for row, s in zip(rows_of(list(data), shape[1]), scales)]
    return weights


# ---------------------------------------------------------------- goldens

def check_against_transformers(folder):
    """The largest relative error (L2) of this file's logits on transformers' golden model."""
    config = json.load(open(os.path.join(folder, "config.json")))
    goldens = json.load(open(os.path.join(folder, "goldens.json")))
    floats = open(os.path.join(folder, "logits.f32"), "rb").read()
    vocab = config["vocab_size"]
    model = Llama(config, dequantised(read_safetensors(os.path.join(folder, "model.safetensors")), e4m3))
    worst = 0.0
    for case in goldens["cases"]:
        model.restart()
        got = [model.step(t) for t in case["prompt_ids"]]
        for i, position in enumerate(case["positions"]):
            want = struct.unpack_from("<%df" % vocab, floats, (case["logits_offset"] + i) * vocab * 4)
            difference = sum((a - b) ** 2 for a, b in zip(got[position], want))
            worst = max(worst, math.sqrt(difference / sum(b * b for b in want)))
    return worst


def draw(rng):
    """Random weights as compressed-tensors quantises them: scale max|w| / 127.5 in the file's type, -128 included."""
    tensors = {}
    vocab, width = CONFIG["vocab_size"], CONFIG["hidden_size"]

    def floats(name, shape, values):
        tensors[name] = ("BF16", shape, struct.pack("<%dH" % len(values), *map(bf16_bits, values)))

    floats("model.embed_tokens.weight", [vocab, width], [0.2 * rng.gauss(0, 1) for _ in range(vocab * width)])
    for i in range(CONFIG["num_hidden_layers"]):
        p = "model.layers.%d." % i
        for norm in ("input_layernorm", "post_attention_layernorm"):
            floats(p + norm + ".weight", [width], [1 + 0.15 * rng.gauss(0, 1) for _ in range(width)])
        for name, rows, cols in PROJECTIONS:
            values, scales = [], []
            for _ in range(rows):
                row = [0.2 * rng.gauss(0, 1) for _ in range(cols)]
                scale = bf16(max(map(abs, row)) / 127.5)
                scales.append(scale)
                values += [min(127, max(-128, round(w / scale))) for w in row]
            assert -128 in values and 127 in values, name
            tensors[p + name + ".weight"] = ("I8", [rows, cols], struct.pack("<%db" % len(values), *values))
            floats(p + name + ".weight_scale", [rows, 1], scales)
    floats("model.norm.weight", [width], [1 + 0.15 * rng.gauss(0, 1) for _ in range(width)])
    return tensors


def config_json():
    def args(strategy, dynamic):
        return {"num_bits": 8, "type": "int", "strategy": strategy, "symmetric": True, "dynamic": dynamic, "group_size": None,
                "block_structure": None, "actorder": None, "observer": None if dynamic else "minmax", "observer_kwargs": {}}

    quantization = {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
                    "global_compression_ratio": 1.5, "ignore": ["lm_head"], "kv_cache_scheme": None,
                    "config_groups": {"group_0": {"targets": ["Linear"], "output_activations": None, "weights": args("channel", False),
                                                  "input_activations": args("token", True)}}}
    return dict(sorted(dict(CONFIG, architectures=["LlamaForCausalLM"], model_type="llama", dtype="bfloat16", attention_bias=False, mlp_bias=False,
                            bos_token_id=1, eos_token_id=2, hidden_act="silu", rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
                            tie_word_embeddings=True, use_cache=True, quantization_config=quantization).items()))


def run_case(model, ids):
    """Logits behind each prompt token, and the greedy continuation with its margins."""
    model.restart()
    logits = [model.step(t) for t in ids]
    row, greedy, margins = logits[-1], [], []
    for _ in range(GREEDY):
        best, second = sorted(row, reverse=True)[:2]
        greedy.append(row.index(best))
        margins.append(round(best - second, 5))
        row = model.step(greedy[-1])
    return logits, greedy, margins


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="tests/data/local")
    out = parser.parse_args().out
    worst = check_against_transformers(os.path.join(out, "fp8_channel_tiny"))
    print("against transformers on fp8_channel_tiny: relative error %.1e" % worst)
    if not worst < 1e-5:
        sys.exit("this file does not compute what transformers does")
    folder = os.path.join(out, "w8a8_tiny")
    os.makedirs(folder, exist_ok=True)
    rng = random.Random(59)
    tensors = draw(rng)
    weights = dequantised(tensors, lambda b: b - 256 if b > 127 else b)
    plain, int8 = Llama(CONFIG, weights), Llama(CONFIG, weights, int8_activations=True)
    cases, blob, blob8, offset = [], b"", b"", 0
    for length in (1, 12, 40, 80):  # the last is more than a GPU's products for few rows take
        ids = [rng.randrange(3, CONFIG["vocab_size"]) for _ in range(length)]
        last = length - 1
        positions = sorted({0, last, last // 2, 3 * last // 4})
        logits, greedy, margins = run_case(plain, ids)
        logits8, greedy8, margins8 = run_case(int8, ids)
        pack = struct.Struct("<%df" % CONFIG["vocab_size"]).pack
        blob += b"".join(pack(*logits[p]) for p in positions)
        blob8 += b"".join(pack(*logits8[p]) for p in positions)
        cases.append({"prompt_ids": ids, "positions": positions, "logits_offset": offset, "greedy_ids": greedy, "greedy_margins": margins,
                      "w8a8_greedy_ids": greedy8, "w8a8_greedy_margins": margins8})
        offset += len(positions)
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    for name, value, indent in (("config.json", config_json(), 2),
                                ("goldens.json", {"note": "as in the other folders; w8a8_...: with activations in int8, as logits_w8a8.f32",
                                                  "dtype": "float64", "vocab_size": CONFIG["vocab_size"], "rows": offset, "cases": cases}, None)):
        with open(os.path.join(folder, name), "w") as f:
            f.write(json.dumps(value, indent=indent) + "\n")
    for name, data in (("logits.f32", blob), ("logits_w8a8.f32", blob8)):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
    difference = [a - b for a, b in zip(struct.unpack("<%df" % (len(blob) // 4), blob), struct.unpack("<%df" % (len(blob) // 4), blob8))]
    size = sum(a * a for a in struct.unpack("<%df" % (len(blob) // 4), blob))
    print(folder, "activations in int8 move the logits by %.3f" % math.sqrt(sum(d * d for d in difference) / size))


if __name__ == "__main__":
    main()
