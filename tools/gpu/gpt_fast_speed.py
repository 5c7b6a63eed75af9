#!/usr/bin/env python3
"""gpt-fast on the same GPU with the same shapes (Llama-2-7B, random weights): decode at batch 1, the baseline beside
`bench_gpu`. Its own model, quantised layers and `generate` run; only its checkpoint and its tokenizer are not needed.

  gpt_fast_speed.py DIRECTORY [bf16] [int8] [int4]

DIRECTORY holds gpt-fast's model.py, generate.py and quantize.py, of before its flexible attention: a model is called
with (ids, positions)."""

import contextlib
import sys
import time
import types

import torch

PROMPT, NEW, TURNS = 128, 200, 3
sys.path.insert(0, sys.argv[1])
sys.modules.setdefault("tokenizer", types.SimpleNamespace(get_tokenizer=None))  # generate.py asks for it by name
if not hasattr(torch.backends.cuda, "sdp_kernel"):  # gone from newer releases; what is asked for is its plain attention
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.backends.cuda.sdp_kernel = lambda **_: sdpa_kernel(SDPBackend.MATH)

import generate  # noqa: E402
import quantize  # noqa: E402
from model import Transformer  # noqa: E402


def load(kind):
    with torch.device("meta"):
        model = Transformer.from_name("7B")
        if kind == "int8":
            model = quantize.WeightOnlyInt8QuantHandler(model).convert_for_runtime()
        if kind == "int4":
            model = quantize.WeightOnlyInt4QuantHandler(model, groupsize=64).convert_for_runtime(True)
    model = model.to_empty(device="cuda").to(torch.bfloat16)
    for name, tensor in model.state_dict().items():
        if tensor.dtype in (torch.int8, torch.int32):
            tensor.random_(-127, 128 if tensor.dtype == torch.int8 else 2**31 - 1)
        elif name.endswith("scales"):
            tensor.fill_(0.02 / 73)
        elif name.endswith("scales_and_zeros"):
            tensor.copy_(torch.tensor([0.02 / 4, 0.0]).expand_as(tensor))
        elif tensor.dim() == 1:
            tensor.fill_(1)
        else:
            tensor.normal_(0, 0.02)
    return model.eval()


class Clock:
    """The time of `decode_n_tokens` apart from the prompt's."""

    def __init__(self, inner):
        self.inner, self.seconds = inner, 0.0

    def __call__(self, *arguments, **options):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        out = self.inner(*arguments, **options)
        torch.cuda.synchronize()
        self.seconds = time.perf_counter() - begin
        return out


def measure(kind):
    model, decode = load(kind), Clock(plain_decode)
    generate.decode_n_tokens = decode
    compiled = torch.compile(plain_one, mode="reduce-overhead", fullgraph=True)
    # Newer releases want what a replayed graph returns copied before the next replay; its latest version does so.
    generate.decode_one_token = lambda *arguments, **options: tuple(
        t.clone() for t in compiled(*arguments, **options))
    prompt = torch.randint(5, 31000, (PROMPT,), device="cuda", dtype=torch.int)
    rates = []
    for turn in range(-1, TURNS):
        begin = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            generate.generate(model, prompt, NEW, interactive=False, draft_model=None, temperature=0.8, top_k=200)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        if turn < 0:
            print(f"gpt-fast {kind}: {seconds:.0f} s to compile", file=sys.stderr, flush=True)
        else:
            rates.append(((NEW - 1) / decode.seconds, NEW / seconds))
    steps, whole = sorted(rates)[TURNS // 2]
    print(f"gpt-fast {kind}, decode batch 1 behind {PROMPT} tokens: {steps:.1f} tok/s; with the prompt, as it counts, "
          f"{whole:.1f}", flush=True)


plain_decode, plain_one = generate.decode_n_tokens, generate.decode_one_token
for kind in sys.argv[2:] or ["int8", "int4", "bf16"]:
    measure(kind)
    torch.compiler.reset()
    torch.cuda.empty_cache()
