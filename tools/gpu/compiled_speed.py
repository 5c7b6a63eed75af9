#!/usr/bin/env python3
"""PyTorch compiled whole, on the same GPU with the same shapes (Llama-2-7B, random weights): decode at batch 1 with a
static cache, CUDA graphs and weights in bf16 or in int8 with a scale a row, widened in the compiled kernel. This is the
method of gpt-fast, in a script of our own. The baseline beside `bench_gpu` and `transformers_speed.py`.

  compiled_speed.py [int8] [bf16]"""

import sys
import time

import torch
import torch._inductor.config
import torch.nn.functional as F
from torch import nn

LAYERS, WIDTH, HEADS, INNER, VOCAB = 32, 4096, 32, 11008, 32000
HEAD = WIDTH // HEADS
ROOM = 512  # tokens in the cache
PROMPT, NEW = 128, 200


class Int8Linear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Buffer(torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8))
        self.scale = nn.Buffer(torch.full((outputs,), 0.02 / 73))

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype)) * self.scale


def bf16_linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.weight


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.qkv, self.out = linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        self.gate_up, self.down = linear(WIDTH, 2 * INNER), linear(INNER, WIDTH)
        self.norm, self.post_norm = Norm(), Norm()
        self.keys = nn.Buffer(torch.zeros(1, HEADS, ROOM, HEAD))
        self.values = nn.Buffer(torch.zeros(1, HEADS, ROOM, HEAD))

    def forward(self, x, at, cos, sin, mask):
        q, k, v = (t.view(1, -1, HEADS, HEAD).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        self.keys[:, :, at] = rotate(k, cos, sin)
        self.values[:, :, at] = v
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), self.keys, self.values, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(1, -1, WIDTH))
        gate, up = self.gate_up(self.post_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(Layer(linear) for _ in range(LAYERS))
        self.norm, self.head = Norm(), linear(WIDTH, VOCAB)
        angles = torch.outer(torch.arange(ROOM).float(), 10000.0 ** (-torch.arange(0, HEAD, 2).float() / HEAD))
        self.cos, self.sin = nn.Buffer(angles.cos()), nn.Buffer(angles.sin())
        self.mask = nn.Buffer(torch.ones(ROOM, ROOM).tril().bool())

    def forward(self, ids, at):
        x = self.embedding(ids)
        cos, sin, mask = self.cos[at], self.sin[at], self.mask[None, None, at]
        for layer in self.layers:
            x = layer(x, at, cos, sin, mask)
        return self.head(self.norm(x[:, -1:]))


@torch.no_grad()
def measure(name, linear):
    with torch.device("cuda"):
        model = Model(linear).eval()

    def step(ids, at):
        return model(ids, at)[:, -1].argmax(-1, keepdim=True)

    compiled = torch.compile(step, mode="reduce-overhead", fullgraph=True)
    token = step(torch.randint(5, 31000, (1, PROMPT), device="cuda"), torch.arange(PROMPT, device="cuda"))
    begin = time.perf_counter()
    for i in range(3):
        compiled(token, torch.tensor([PROMPT + i], device="cuda"))
    torch.cuda.synchronize()
    print(f"compiled {name}: {time.perf_counter() - begin:.0f} s to compile", file=sys.stderr)
    rates = []
    for _ in range(3):
        at = torch.tensor([PROMPT], device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(NEW):
            token = compiled(token, at).clone()
            at = at + 1
        torch.cuda.synchronize()
        rates.append(NEW / (time.perf_counter() - begin))
    print(f"PyTorch compiled {name}, decode batch 1 behind {PROMPT} tokens: {sorted(rates)[1]:.1f} tok/s", flush=True)


torch._inductor.config.coordinate_descent_tuning = True  # and with it products of one row as fused sums
torch.set_default_dtype(torch.bfloat16)
for part in sys.argv[1:] or ["int8", "bf16"]:
    measure(part, {"int8": Int8Linear, "bf16": bf16_linear}[part])
    torch.cuda.empty_cache()
