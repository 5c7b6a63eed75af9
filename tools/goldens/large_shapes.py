#!/usr/bin/env python3
"""Checkpoints with the shapes of 7B models, few layers deep, and float32 logits of them: too large to keep, so made on
the GPU machine and compared there.

    python3 tools/goldens/large_shapes.py OUT [family ...]
    GANGLION_GOLDENS=OUT build/gpu/tests/test_local_cuda --gtest_filter='LargeShapes*'

Random weights as models have them: normal with deviation 0.02, smaller where a part's result comes out. In llama_outliers
some norm weights are ten times as large, which makes the outlier channels that quantisation meets. `transformers_bf16`
of goldens.json is how far transformers itself is away in bf16. Needs torch and transformers.
"""

import json
import os
import sys
import time
import traceback

import torch
import transformers

PROMPT = 160


def families():
    from transformers import (Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig,
                              MixtralForCausalLM, OPTConfig, OPTForCausalLM, Phi3Config, Phi3ForCausalLM)
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    half = 48
    llama = (LlamaForCausalLM, lambda: LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=32,
        max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=False, rope_parameters=plain))
    return {
        "llama": llama,
        "llama_outliers": llama,
        "llama_grouped": (LlamaForCausalLM, lambda: LlamaConfig(
            vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=8,
            max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=False, rope_parameters=plain)),
        "gemma2": (Gemma2ForCausalLM, lambda: Gemma2Config(
            vocab_size=64000, hidden_size=3584, intermediate_size=14336, num_hidden_layers=2, num_attention_heads=16, num_key_value_heads=8,
            head_dim=256, query_pre_attn_scalar=256, sliding_window=64, max_position_embeddings=8192)),
        "opt": (OPTForCausalLM, lambda: OPTConfig(
            vocab_size=50272, hidden_size=4096, ffn_dim=16384, num_hidden_layers=2, num_attention_heads=32, max_position_embeddings=2048,
            word_embed_proj_dim=4096, do_layer_norm_before=True, dropout=0.0)),
        "phi3": (Phi3ForCausalLM, lambda: Phi3Config(
            vocab_size=32064, hidden_size=3072, intermediate_size=8192, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=32,
            max_position_embeddings=131072, original_max_position_embeddings=4096, sliding_window=2047, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096,
                                             "short_factor": [1.0 + 0.01 * i for i in range(half)],
                                             "long_factor": [1.0 + 0.9 * i for i in range(half)]})),
        "mixtral": (MixtralForCausalLM, lambda: MixtralConfig(
            vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=1, num_attention_heads=32, num_key_value_heads=8,
            num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=4096, rope_parameters=plain, sliding_window=None)),
    }


def draw(model, layers, outliers):
    torch.manual_seed(7)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.dim() == 1 and name.endswith("weight"):
                zero_based = "gemma" in type(model).__name__.lower()
                p.normal_(0.0 if zero_based else 1.0, 0.1)
                if outliers:
                    chosen = torch.randperm(p.numel(), device=p.device)[:max(1, p.numel() // 200)]
                    p[chosen] = 9.0 if zero_based else 10.0
            elif p.dim() == 1:
                p.normal_(0.0, 0.02)
            else:
                comes_out = any(k in name for k in ("o_proj", "out_proj", "down_proj", "fc2", "w2"))
                p.normal_(0.0, 0.02 / ((2 * layers) ** 0.5 if comes_out else 1))
            p.copy_(p.bfloat16().float())


def make(out, name, cls, config):
    began = time.time()
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    config._attn_implementation = "eager"
    with torch.device("cuda"):
        model = cls(config).eval()
    draw(model, config.num_hidden_layers, "outliers" in name)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, config.vocab_size, (1, PROMPT), generator=generator)
    with torch.no_grad():
        logits = model(ids.cuda(), use_cache=False).logits[0].float()
    positions = [0, 7, 80, PROMPT - 1]
    logits[positions].cpu().numpy().astype("<f4").tofile(os.path.join(folder, "logits.f32"))
    with torch.no_grad():  # what bf16 alone costs, by another implementation
        kept = [(m, k, b) for m in model.modules() for k, b in m._buffers.items()]
        half = model.bfloat16()
        for module, key, buffer in kept:  # rotary frequencies stay float32, as when a model is loaded
            module._buffers[key] = buffer
        theirs = half(ids.cuda(), use_cache=False).logits[0].float()
    errors = [(torch.linalg.norm(theirs[p] - logits[p]) / torch.linalg.norm(logits[p])).item() for p in positions]
    with open(os.path.join(folder, "goldens.json"), "w") as f:
        json.dump({"vocab_size": config.vocab_size, "rows": len(positions), "transformers_bf16": max(errors), "cases": [{
            "prompt_ids": ids[0].tolist(), "positions": positions, "logits_offset": 0, "greedy_ids": [], "greedy_margins": []}]}, f)
    half.config.dtype = torch.bfloat16
    half.save_pretrained(folder, max_shard_size="2GB")
    print(f"{name}: {sum(p.numel() for p in half.parameters()) / 1e9:.2f} G parameters, transformers in bf16 is {max(errors):.2e} "
          f"away, {time.time() - began:.1f} s", flush=True)


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    transformers.logging.set_verbosity_error()
    out, wanted = sys.argv[1], sys.argv[2:]
    unknown = set(wanted) - set(families())
    if unknown:
        sys.exit(f"no such families: {', '.join(sorted(unknown))}; there are {', '.join(families())}")
    failed = False
    for name, (cls, config) in families().items():
        if wanted and name not in wanted:
            continue
        try:
            make(out, name, cls, config())
        except Exception:
            print("FAILED", name)
            traceback.print_exc()
            failed = True
        torch.cuda.empty_cache()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
