#!/usr/bin/env python3
"""Makes the golden files of the later model families, of LoRA adapters and of pre-quantised checkpoints.

    python3 tools/goldens/families.py [--out tests/data/local] [name ...]

Needs torch, transformers, tokenizers and safetensors; a CPU is enough, about a minute. Seeds are fixed. Beside the
logits, `hidden.f32` keeps what enters every layer at a prompt's last position.

Quantised checkpoints are written in the layouts that AutoGPTQ, AutoAWQ and compressed-tensors publish; their goldens
come from a float32 model that holds the dequantised weights, computed here from the formula, not from the files.
Adapters' goldens come from a float32 model into whose weights the adapter was merged.
"""

import argparse
import json
import os
import sys
import traceback

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_goldens as G
import templates as T
import texts

HERE = os.path.dirname(os.path.abspath(__file__))
GREEDY = 24


# ---------------------------------------------------------------- tokenizers

def spm_parts(size):
    pieces, merges = G.spm_vocab_and_merges(size)
    singles = [p for p in pieces if len(p) == 1]
    return [p for p in pieces if len(p) > 1] + singles, merges


def tok_gemma():
    """As Gemma's files: spaces become U+2581 and nothing is put before the text; the split never finds its space."""
    pieces, merges = spm_parts(420)
    vocab = {}
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "\n\n", "\n\n\n", G.U * 2, G.U * 4]
    for p in first + ["<0x%02X>" % b for b in range(256)] + pieces:
        vocab.setdefault(p, len(vocab))
    merges = merges + [(G.U, G.U), (G.U * 2, G.U * 2)]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", G.U)
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    G.special(tok, first[:6])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in first[6:]])
    tok.post_processor = G.bos_template("<bos>", 2)
    tok.decoder = decoders.Sequence([decoders.Replace(G.U, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tok


def tok_phi3():
    """As Phi-3's: Llama 2's rules, markers that eat the white space after them, no <s> before a text."""
    pieces, merges = spm_parts(420)
    vocab = {}
    for p in ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)] + pieces:
        vocab.setdefault(p, len(vocab))
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(G.U), normalizers.Replace(" ", G.U)])
    G.special(tok, ["<unk>", "<s>"])
    tok.add_special_tokens([AddedToken("</s>", special=False, rstrip=True, normalized=False),
                            AddedToken("<|endoftext|>", special=True, normalized=False)])
    tok.add_special_tokens([AddedToken(t, special=True, rstrip=True, normalized=False)
                            for t in ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")])
    tok.decoder = decoders.Sequence([decoders.Replace(G.U, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tok


def tok_opt():
    """GPT-2's byte-level BPE with </s> before every text, as OPT's vocab.json and merges.txt mean it."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(vocab_size=620, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts.training_corpus(), trainer)
    tok.post_processor = G.bos_template("</s>", 2)
    tok.decoder = decoders.ByteLevel()
    return tok


def save_gpt2_files(tok, folder):
    model = json.loads(tok.to_str())["model"]
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(model["vocab"], f, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n")
        for m in model["merges"]:
            f.write((m if isinstance(m, str) else " ".join(m)) + "\n")


# -------------------------------------------------------------------- models

def draw(model, seed, std=0.2, norm_from_zero=False):
    """Random weights; norms are scaled around one, or around zero where the model adds the one itself."""
    rng = np.random.Generator(np.random.PCG64(seed))
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            v = torch.from_numpy(rng.standard_normal(tuple(p.shape)).astype(np.float32))
            is_norm = p.dim() == 1 and name.endswith("weight")
            if is_norm:
                p.copy_((0.0 if norm_from_zero else 1.0) + 0.15 * v)
            elif p.dim() == 1:
                p.copy_(0.1 * v)
            else:
                p.copy_(std * v)


def write_goldens(model, folder, prompts, n_positions, n_greedy=GREEDY):
    cases, blob, hidden, offset = [], [], [], 0
    for ids in prompts:
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
        logits, last = out.logits[0].float().numpy(), len(ids) - 1
        positions = sorted({0, last, last // 2, (3 * last) // 4} if n_positions > 2 else {last // 2, last})
        blob += [logits[p].astype("<f4") for p in positions]
        hidden += [h[0, last].float().numpy().astype("<f4") for h in out.hidden_states[:-1]]
        g, m = G.greedy(model, ids, n_greedy)
        cases.append({"prompt_ids": ids, "positions": positions, "logits_offset": offset, "greedy_ids": g, "greedy_margins": m})
        offset += len(positions)
    np.concatenate(blob).tofile(os.path.join(folder, "logits.f32"))
    np.concatenate(hidden).tofile(os.path.join(folder, "hidden.f32"))
    G.write_json(os.path.join(folder, "goldens.json"), {
        "note": "as in the other folders; hidden.f32: for each case, what enters each layer at the last position of the prompt",
        "dtype": "float32", "vocab_size": int(model.config.vocab_size), "hidden_size": int(model.config.hidden_size),
        "layers": int(model.config.num_hidden_layers), "rows": offset, "cases": cases})
    return np.concatenate(blob)


def read_back(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def folder_bytes(folder):
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs)


def finish(out, name, model, dtype, tok, tok_cfg, seed, lengths, positions=4, names=None, edge=None):
    """Saves, reads back in float32 and writes what the read model answers. No sequence crosses `edge` tokens."""
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    model = model.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    model.save_pretrained(folder)
    path = os.path.join(folder, "model.safetensors")
    if names is not None:
        state = load_file(path)
        renamed = names(state)
        if renamed is not None:
            save_file({k: v.contiguous() for k, v in renamed.items()}, path, metadata={"format": "pt"})
            print(name, "tensors were put into their published layout")
    if tok is not None:
        G.save_tokenizer(tok, folder, **tok_cfg)
    read = read_back(folder)
    before = {k: v.float() for k, v in model.state_dict().items()}
    after = read.state_dict()
    same = sorted(before) == sorted(after) and all(torch.equal(before[k], after[k].float()) for k in before)
    vocab = int(model.config.vocab_size)
    prompts = G.prompts_for(tok, vocab, seed, lengths)
    if edge is not None:
        prompts = [p[:edge - GREEDY] if len(p) <= edge else p for p in prompts]
    write_goldens(read, folder, prompts, positions)
    print(name, "read back the same:", same, "vocab", vocab, "parameters", sum(p.numel() for p in model.parameters()),
          "bytes", folder_bytes(folder), sorted(os.listdir(folder)))
    print("   tensors:", [(k, tuple(v.shape)) for k, v in sorted(load_file(path).items())][:24])
    return folder, prompts


def check_spelling(folder, prompts, config, positions=4):
    """The older spelling of config.json must mean the same model; kept beside the newer one if it does."""
    path, mine = os.path.join(folder, "config.json"), os.path.join(folder, "config_old_spelling.json")
    now = open(path).read()
    before = np.fromfile(os.path.join(folder, "logits.f32"), "<f4")
    G.write_json(path, dict(sorted(config.items())), indent=2)
    try:
        model = read_back(folder)
        rows = []
        for ids in prompts:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
            last = len(ids) - 1
            at = sorted({0, last, last // 2, (3 * last) // 4} if positions > 2 else {last // 2, last})
            rows += [logits[p] for p in at]
        print(os.path.basename(folder), "largest difference under the older spelling:", float(np.abs(np.concatenate(rows) - before).max()))
    except Exception:
        traceback.print_exc()
    finally:
        G.write_json(mine, dict(sorted(config.items())), indent=2)
        with open(path, "w") as f:
            f.write(now)


def old_config(folder, drop, **more):
    c = json.load(open(os.path.join(folder, "config.json")))
    for k in drop + ["rope_parameters", "dtype", "layer_types"]:
        c.pop(k, None)
    c.update(torch_dtype=more.pop("torch_dtype"), transformers_version="4.50.0", **more)
    return c


GEMMA_TOKENS = dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")


def gemma2_tiny(out, toks):
    from transformers import Gemma2Config, Gemma2ForCausalLM
    tok = toks["gemma"]
    kw = dict(vocab_size=tok.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
              num_key_value_heads=1, head_dim=256, max_position_embeddings=256, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh",
              query_pre_attn_scalar=144, sliding_window=16, attn_logit_softcapping=3.0, final_logit_softcapping=5.0, tie_word_embeddings=True,
              bos_token_id=2, eos_token_id=[1, 5], pad_token_id=0, attention_dropout=0.0)
    model = Gemma2ForCausalLM(Gemma2Config(**kw)).eval()
    draw(model, 31, std=0.15, norm_from_zero=True)
    print("gemma2 layer types", model.config.layer_types)
    folder, prompts = finish(out, "gemma2_tiny", model, "bfloat16", tok, dict(GEMMA_TOKENS, chat_template=T.TEMPLATES["gemma"]), 31, [1, 16, 17, 60], 2)
    check_spelling(folder, prompts, old_config(folder, [], torch_dtype="bfloat16", rope_theta=10000.0), 2)


def gemma3_tiny(out, toks):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig
    tok = toks["gemma"]
    kw = dict(vocab_size=tok.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=7, num_attention_heads=4,
              num_key_value_heads=1, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh",
              query_pre_attn_scalar=24, sliding_window=16, tie_word_embeddings=True, bos_token_id=2, eos_token_id=[1, 5], pad_token_id=0,
              attention_dropout=0.0)
    rope = {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}}
    config = Gemma3TextConfig(rope_parameters=rope, **kw)
    model = Gemma3ForCausalLM(config).eval()
    draw(model, 32, std=0.15, norm_from_zero=True)
    print("gemma3", model.config.layer_types, getattr(model.config, "rope_parameters", None), "softcaps",
          getattr(model.config, "final_logit_softcapping", None), getattr(model.config, "attn_logit_softcapping", None))
    folder, prompts = finish(out, "gemma3_tiny", model, "bfloat16", tok, dict(GEMMA_TOKENS, chat_template=T.TEMPLATES["gemma"]), 32, [1, 16, 17, 60], 2)
    check_spelling(folder, prompts, old_config(
        folder, ["_sliding_window_pattern"], torch_dtype="bfloat16", rope_theta=1000000.0, rope_local_base_freq=10000.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0}, sliding_window_pattern=6), 2)


def opt_models(out, toks):
    from transformers import OPTConfig, OPTForCausalLM
    tok = toks["opt"]
    for name, seed, kw in (("opt_tiny", 33, dict(do_layer_norm_before=True, word_embed_proj_dim=32)),
                           ("opt_post_tiny", 34, dict(do_layer_norm_before=False, word_embed_proj_dim=16))):
        config = OPTConfig(vocab_size=tok.get_vocab_size() + 5, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                           max_position_embeddings=128, activation_function="relu", dropout=0.0, attention_dropout=0.0, layerdrop=0.0,
                           pad_token_id=1, bos_token_id=2, eos_token_id=2, tie_word_embeddings=True, **kw)
        model = OPTForCausalLM(config).eval()
        draw(model, seed)
        folder, _ = finish(out, name, model, "float16", tok, dict(bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="</s>",
                                                                  add_bos_token=True), seed, [1, 40, 90])
        if name == "opt_post_tiny":  # only the older pair of tokenizer files, as OPT is published
            save_gpt2_files(tok, folder)
            os.remove(os.path.join(folder, "tokenizer.json"))
            G.write_json(os.path.join(folder, "tokenizer_config.json"), {
                "tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>",
                "add_bos_token": True, "add_prefix_space": False, "errors": "replace"}, indent=2)


def phi3_models(out, toks):
    from transformers import Phi3Config, Phi3ForCausalLM
    tok = toks["phi3"]
    ids = {t: tok.token_to_id(t) for t in ("<|endoftext|>", "<|end|>", "<|assistant|>")}
    for name, seed, dim, partial, window, more in (("phi3_tiny", 35, 12, 1.0, 24, {}), ("phi3_partial_tiny", 36, 16, 0.75, None, {"tie_word_embeddings": True})):
        half = int(dim * partial) // 2
        short = [round(1.0 + 0.05 * i, 2) for i in range(half)]
        long = [round(1.0 + 0.9 * i, 2) for i in range(half)]
        rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short, "long_factor": long,
                "original_max_position_embeddings": 64, "partial_rotary_factor": partial}
        kw = dict(dict(vocab_size=tok.get_vocab_size(), hidden_size=4 * dim, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, max_position_embeddings=128, original_max_position_embeddings=64, rms_norm_eps=1e-5,
                       sliding_window=window, tie_word_embeddings=False, bos_token_id=1, eos_token_id=[ids["<|endoftext|>"], ids["<|end|>"]],
                       pad_token_id=ids["<|endoftext|>"], attention_dropout=0.0, resid_pdrop=0.0, embd_pdrop=0.0), **more)
        try:
            config = Phi3Config(rope_parameters=dict(rope), **kw)
            model = Phi3ForCausalLM(config).eval()
        except Exception:
            traceback.print_exc()
            config = Phi3Config(rope_parameters=dict(rope), partial_rotary_factor=partial, **kw)
            model = Phi3ForCausalLM(config).eval()
        draw(model, seed)
        print(name, model.config.rope_parameters, "scaling of cos and sin", model.model.rotary_emb.attention_scaling)
        folder, prompts = finish(out, name, model, "bfloat16", tok, dict(
            bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<unk>", add_bos_token=False,
            chat_template=T.TEMPLATES["phi"]), seed, [1, 24, 25, 40, 70, 100], 2, edge=64)
        check_spelling(folder, prompts, old_config(
            folder, [], torch_dtype="bfloat16", rope_theta=10000.0, partial_rotary_factor=partial, original_max_position_embeddings=64,
            rope_scaling={"type": "longrope", "short_factor": short, "long_factor": long}), 2)


def mixtral_names(state):
    """The published names, if this transformers saved its fused ones."""
    if any(".block_sparse_moe.experts.0.w1." in k for k in state):
        return None
    out = {}
    for k, v in state.items():
        at = k.rsplit(".mlp.", 1) if ".mlp." in k else k.rsplit(".block_sparse_moe.", 1)
        if len(at) < 2:
            out[k] = v
            continue
        base, rest = at[0] + ".block_sparse_moe.", at[1]
        if rest == "gate.weight":
            out[base + rest] = v
        elif rest.endswith("gate_up_proj"):
            for e in range(v.shape[0]):
                half = v.shape[1] // 2
                out[base + "experts.%d.w1.weight" % e], out[base + "experts.%d.w3.weight" % e] = v[e][:half], v[e][half:]
        elif rest.endswith("down_proj"):
            for e in range(v.shape[0]):
                out[base + "experts.%d.w2.weight" % e] = v[e]
        else:
            out[base + rest] = v
    return out


def mixtral_tiny(out, toks):
    from transformers import MixtralConfig, MixtralForCausalLM
    tok = toks["small"]
    config = MixtralConfig(vocab_size=tok.get_vocab_size(), hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                           num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=256, rms_norm_eps=1e-5,
                           sliding_window=None, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, attention_dropout=0.0,
                           router_jitter_noise=0.0, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    model = MixtralForCausalLM(config).eval()
    draw(model, 37)
    finish(out, "mixtral_tiny", model, "bfloat16", tok, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=T.TEMPLATES["mistral"]),
           37, [1, 40], 4, names=mixtral_names)


def tok_small():
    """Llama 2's kind, with fewer pieces."""
    pieces, merges = spm_parts(300)
    vocab = {}
    for p in ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)] + pieces:
        vocab.setdefault(p, len(vocab))
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(G.U), normalizers.Replace(" ", G.U)])
    G.special(tok, ["<unk>", "<s>", "</s>"])
    tok.post_processor = G.bos_template("<s>", 1)
    tok.decoder = decoders.Sequence([decoders.Replace(G.U, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tok


# ------------------------------------------------------------------ adapters

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora_adapters(out, toks):
    """In PEFT's files; the golden model has scale * B A added to its weights."""
    data = os.path.join(HERE, "..", "..", "tests", "data", "local")
    data = data if os.path.isdir(os.path.join(data, "llama2_tiny")) else os.path.join("tests", "data", "local")
    for base, name, seed, r, alpha, rslora, targets, pattern in (
            ("llama2_tiny", "all_linears", 41, 4, 8, False, LINEARS, {}),
            ("llama2_tiny", "query_value_rslora", 42, 8, 6, True, ["q_proj", "v_proj"], {}),
            ("llama2_tiny", "mixed_ranks", 43, 4, 4, False, ["q_proj", "o_proj", "down_proj"], {"down_proj": 2}),
            ("qwen3_tiny", "all_linears", 44, 32, 16, False, LINEARS, {})):
        folder = os.path.join(out, "lora", base + "." + name)
        os.makedirs(folder, exist_ok=True)
        model = read_back(os.path.join(data, base))
        rng = np.random.Generator(np.random.PCG64(seed))
        tensors = {}
        for path, module in model.named_modules():
            leaf = path.rsplit(".", 1)[-1]
            if not isinstance(module, torch.nn.Linear) or leaf not in targets:
                continue
            rank = pattern.get(leaf, r)
            a = torch.from_numpy((0.3 * rng.standard_normal((rank, module.in_features))).astype(np.float32))
            b = torch.from_numpy((0.3 * rng.standard_normal((module.out_features, rank))).astype(np.float32))
            if base == "qwen3_tiny":
                a, b = (0.5 * a).bfloat16(), (0.5 * b).bfloat16()
            scale = alpha / (rank ** 0.5 if rslora else rank)
            with torch.no_grad():
                module.weight += scale * (b.float() @ a.float())
            tensors["base_model.model." + path + ".lora_A.weight"] = a
            tensors["base_model.model." + path + ".lora_B.weight"] = b
        save_file(tensors, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
        G.write_json(os.path.join(folder, "adapter_config.json"), {
            "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": False,
            "inference_mode": True, "init_lora_weights": True, "layers_to_transform": None, "lora_alpha": alpha, "lora_dropout": 0.05,
            "modules_to_save": None, "peft_type": "LORA", "r": r, "rank_pattern": pattern, "target_modules": targets,
            "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": rslora}, indent=2)
        vocab = int(model.config.vocab_size)
        prompts = [[int(x) for x in rng.integers(3, vocab, n)] for n in (1, 5, 30)]
        write_goldens(model, folder, prompts, 2)
        os.remove(os.path.join(folder, "hidden.f32"))
        print("lora", base, name, len(tensors), "tensors, bytes", folder_bytes(folder))


# --------------------------------------------------------------- quantised

def small_llama(hidden, inner, layers, vocab=128, bias=False):
    return LlamaConfig(vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=4,
                       num_key_value_heads=2, head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
                       tie_word_embeddings=True, attention_bias=bias, attention_dropout=0.0,
                       rope_parameters={"rope_type": "default", "rope_theta": 10000.0})


def pack_rows(q):
    """int32 [rows / 8, cols]: eight consecutive rows in one word, the first in the lowest bits."""
    q = q.to(torch.int64).reshape(q.shape[0] // 8, 8, q.shape[1])
    word = sum(q[:, i] << (4 * i) for i in range(8))
    return torch.where(word >= 2 ** 31, word - 2 ** 32, word).to(torch.int32)


def pack_cols(q, order=range(8)):
    q = q.to(torch.int64).reshape(q.shape[0], q.shape[1] // 8, 8)
    word = sum(q[:, :, o] << (4 * i) for i, o in enumerate(order))
    return torch.where(word >= 2 ** 31, word - 2 ** 32, word).to(torch.int32)


def draw_int4(rng, cols, rows, group, sym):
    """q [cols, rows] of 0..15, zeros and scales [groups, rows]."""
    groups = cols // group
    q = torch.from_numpy(np.clip(np.round(8 + 2.7 * rng.standard_normal((cols, rows))), 0, 15).astype(np.int64))
    zeros = torch.full((groups, rows), 8, dtype=torch.int64) if sym else torch.from_numpy(rng.integers(6, 11, (groups, rows)))
    scales = torch.from_numpy(rng.uniform(0.015, 0.06, (groups, rows)).astype(np.float16))
    return q, zeros, scales


def gptq_tensors(path, module, rng, kind, tensors):
    cols, rows, group = module.in_features, module.out_features, kind["group"]
    q, zeros, scales = draw_int4(rng, cols, rows, group, kind["sym"])
    g = torch.arange(cols) // group
    if kind["desc_act"]:  # columns were quantised in the order of their activations: groups are scattered
        g = g[torch.from_numpy(rng.permutation(cols))]
    stored = zeros - (0 if kind.get("v2") else 1)
    tensors[path + ".qweight"] = pack_rows(q)
    tensors[path + ".qzeros"] = pack_cols(stored & 15)
    tensors[path + ".scales"] = scales
    tensors[path + ".g_idx"] = g.to(torch.int32)
    return ((q - zeros[g]).float() * scales[g].float()).t()


def awq_tensors(path, module, rng, kind, tensors):
    cols, rows, group = module.in_features, module.out_features, kind["group"]
    q, zeros, scales = draw_int4(rng, cols, rows, group, False)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    tensors[path + ".qweight"] = pack_cols(q, order)
    tensors[path + ".qzeros"] = pack_cols(zeros, order)
    tensors[path + ".scales"] = scales
    g = torch.arange(cols) // group
    return ((q - zeros[g]).float() * scales[g].float()).t()


def fp8_tensors(path, module, rng, kind, tensors):
    rows, cols = module.out_features, module.in_features
    w = torch.from_numpy((0.2 * rng.standard_normal((rows, cols))).astype(np.float32))
    strategy = kind["strategy"]
    if strategy == "block":
        n = kind["block"]
        br, bc = (rows + n - 1) // n, (cols + n - 1) // n
        scale = torch.zeros(br, bc)
        for i in range(br):
            for j in range(bc):
                scale[i, j] = w[i * n:(i + 1) * n, j * n:(j + 1) * n].abs().max() / 448
        wide = scale.repeat_interleave(n, 0)[:rows].repeat_interleave(n, 1)[:, :cols]
        q = (w / wide).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors[path + ".weight"], tensors[path + ".weight_scale_inv"] = q, scale
        return q.float() * wide
    scale = w.abs().amax(1, keepdim=True) / 448 if strategy == "channel" else (w.abs().max() / 448).reshape(1)
    scale = scale.to(kind["scale_type"])
    q = (w / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    tensors[path + ".weight"], tensors[path + ".weight_scale"] = q, scale
    if kind.get("static"):
        tensors[path + ".input_scale"] = torch.tensor(0.02).reshape(())
    return q.float() * scale.float()


def compressed(strategy):
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed", "global_compression_ratio": 1.5,
            "ignore": ["lm_head"], "kv_cache_scheme": None, "config_groups": {"group_0": {
                "targets": ["Linear"], "output_activations": None,
                "weights": {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False, "group_size": None,
                            "block_structure": None, "actorder": None, "observer": "minmax", "observer_kwargs": {}},
                "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True, "group_size": None,
                                      "block_structure": None, "actorder": None, "observer": None, "observer_kwargs": {}}}}}


def quantised_models(out, toks):
    def gptq(group, sym, desc, v2=False):
        return {"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": desc, "sym": sym, "damp_percent": 0.01,
                "true_sequential": True, "static_groups": False, "model_file_base_name": "model", "checkpoint_format": "gptq_v2" if v2 else "gptq"}

    def awq(group):
        return {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm", "modules_to_not_convert": None}

    fp8 = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    block = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [64, 64]}
    for name, seed, make, kind, config, quantization in (
            ("gptq_tiny", 51, gptq_tensors, dict(group=128, sym=True, desc_act=False), small_llama(128, 256, 2), gptq(128, True, False)),
            ("gptq_act_tiny", 52, gptq_tensors, dict(group=64, sym=False, desc_act=True), small_llama(128, 128, 2), gptq(64, False, True)),
            ("awq_tiny", 53, awq_tensors, dict(group=128), small_llama(128, 256, 2), awq(128)),
            ("awq_g64_tiny", 54, awq_tensors, dict(group=64), small_llama(128, 128, 2), awq(64)),
            ("fp8_channel_tiny", 55, fp8_tensors, dict(strategy="channel", scale_type=torch.bfloat16), small_llama(128, 128, 1), compressed("channel")),
            ("fp8_tensor_tiny", 56, fp8_tensors, dict(strategy="tensor", scale_type=torch.float32), small_llama(128, 128, 1), compressed("tensor")),
            ("fp8_static_tiny", 57, fp8_tensors, dict(strategy="tensor", scale_type=torch.float32, static=True), small_llama(128, 128, 1), fp8),
            ("fp8_block_tiny", 58, fp8_tensors, dict(strategy="block", block=64), small_llama(128, 160, 1), block)):
        try:
            folder = os.path.join(out, name)
            os.makedirs(folder, exist_ok=True)
            half = torch.float16 if "gptq" in name or "awq" in name else torch.bfloat16
            model = LlamaForCausalLM(config).eval()
            draw(model, seed)
            with torch.no_grad():  # what is not quantised is rounded as it is saved
                for p in model.parameters():
                    p.copy_(p.to(half).float())
            rng = np.random.Generator(np.random.PCG64(seed + 500))
            tensors = {}
            for path, module in model.named_modules():
                if isinstance(module, torch.nn.Linear) and not path.endswith("lm_head"):
                    dequantised = make(path, module, rng, kind, tensors)
                    with torch.no_grad():
                        module.weight.copy_(dequantised)
            for path, value in model.state_dict().items():
                if "proj" not in path and path != "lm_head.weight":
                    tensors[path] = value.to(half)
            save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
            saved = {k: v for k, v in config.to_dict().items() if isinstance(v, (int, float, str, bool, list, dict, type(None)))}
            saved.update(architectures=["LlamaForCausalLM"], model_type="llama", dtype=str(half).split(".")[1], quantization_config=quantization)
            G.write_json(os.path.join(folder, "config.json"), dict(sorted(saved.items())), indent=2)
            prompts = [[int(x) for x in rng.integers(3, config.vocab_size, n)] for n in (1, 12, 40)]
            write_goldens(model, folder, prompts, 4)
            print(name, len(tensors), "tensors, bytes", folder_bytes(folder), [(k, str(v.dtype), tuple(v.shape)) for k, v in sorted(tensors.items())][:7])
        except Exception:
            print("FAILED", name)
            traceback.print_exc()


def tokenizer_cases(out, toks):
    """The same strings as tokenizer_cases.json has, for the tokenizers made here, in a file of their own."""
    strings = texts.case_strings()[::4]
    rows = {folder: G.tokenizer_row(toks[name], strings) for name, folder in (("gemma", "gemma2_tiny"), ("phi3", "phi3_tiny"), ("opt", "opt_tiny"))}
    with open(os.path.join(out, "tokenizer_cases_families.json"), "w") as f:
        f.write('{"note": "as tokenizer_cases.json",\n"strings": [\n' + ",\n".join(json.dumps(s) for s in strings) + '\n],\n"tokenizers": {\n')
        f.write(",\n".join(json.dumps(k) + ": [\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in v) + "\n]" for k, v in rows.items()))
        f.write("\n}}\n")


MAKERS = {"gemma2": gemma2_tiny, "gemma3": gemma3_tiny, "opt": opt_models, "phi3": phi3_models, "mixtral": mixtral_tiny, "lora": lora_adapters,
          "quantised": quantised_models, "tokenizers": tokenizer_cases}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default=os.path.join(HERE, "..", "..", "tests", "data", "local"))
    ap.add_argument("names", nargs="*", default=list(MAKERS))
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.set_num_threads(4)
    transformers.logging.set_verbosity_error()
    toks = {}
    for name, make in (("gemma", tok_gemma), ("phi3", tok_phi3), ("opt", tok_opt), ("small", tok_small)):
        try:
            toks[name] = make()
            print("tokenizer", name, toks[name].get_vocab_size())
        except Exception:
            print("FAILED tokenizer", name)
            traceback.print_exc()
    for name in args.names:
        try:
            MAKERS[name](args.out, toks)
        except Exception:
            print("FAILED", name)
            traceback.print_exc()
        sys.stdout.flush()
    print("transformers", transformers.__version__, "torch", torch.__version__)


if __name__ == "__main__":
    main()
