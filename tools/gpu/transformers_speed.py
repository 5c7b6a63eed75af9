#!/usr/bin/env python3
"""transformers on the same GPU with the same shapes (Llama-2-7B, random weights): decode and prefill at batch 1, and a
static batch of 64 sequences, 128 tokens in and 128 out. The baseline beside `bench_gpu`."""

import time

import torch
import transformers

transformers.logging.set_verbosity_error()
config = transformers.LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, max_position_embeddings=4096)
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"):
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def timed(work):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def generate(batch, prompt, new):
    ids = torch.randint(5, 31000, (batch, prompt), device="cuda")
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False,
                   pad_token_id=0)


with torch.no_grad():
    for length in (128, 2048):
        ids = torch.randint(5, 31000, (1, length), device="cuda")
        times = sorted(timed(lambda: model(ids, logits_to_keep=1)) for _ in range(7))
        print(f"transformers bf16 eager, prefill {length} tokens: {times[3] * 1e3:.1f} ms")
    generate(1, 16, 8)
    seconds = timed(lambda: generate(1, 128, 64))
    print(f"transformers bf16 eager, decode batch 1: {64 / seconds:.1f} tok/s")
    generate(64, 128, 4)
    seconds = timed(lambda: generate(64, 128, 128))
    print(f"transformers bf16 eager, static batch 64, 128/128: {64 * 128 / seconds:.0f} output tok/s")
