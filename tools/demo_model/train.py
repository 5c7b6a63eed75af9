#!/usr/bin/env python3
"""Trains the demo model from nothing and writes it as a Hugging Face folder.

    python3 tools/demo_model/extract_wordnet.py
    python3 tools/demo_model/train.py --out models/demo-chat
    python3 tools/demo_model/evaluate.py models/demo-chat --goldens tests/data/local/demo_chat_goldens.json

One GPU, torch 2.9 or later, tokenizers, safetensors. The loss is taken on the
assistant's tokens alone (and on all of the few plain texts); conversations share rows of 1,024 tokens, and a token
sees only its own conversation."""

import argparse
import json
import math
import multiprocessing as mp
import os
import random
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import generate_data as G

SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = range(6)
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] in ['system', 'developer'] -%}
        {%- set mark = '<|system|>' -%}
    {%- elif message['role'] == 'user' -%}
        {%- set mark = '<|user|>' -%}
    {%- elif message['role'] == 'assistant' -%}
        {%- set mark = '<|assistant|>' -%}
    {%- else -%}
        {{- raise_exception('demo-chat knows the roles system, user and assistant, not ' ~ message['role']) -}}
    {%- endif -%}
    {{- mark -}}
    {%- if message['content'] is string -%}
        {{- message['content'] | trim -}}
    {%- elif message['content'] is iterable -%}
        {%- for part in message['content'] if part['type'] == 'text' -%}
            {{- part['text'] | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""
ROLE = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}


def text_of(messages):
    if messages[0]["role"] == "text":
        return "<|begin|>" + messages[0]["content"] + "<|end|>"
    return "<|begin|>" + "".join(ROLE[m["role"]] + m["content"] + "<|end|>" for m in messages)


# ------------------------------------------------------------------ tokenizer

def make_tokenizer(size, seed):
    maker, rng = G.Maker(), random.Random(seed)
    texts = []
    for _ in range(60000):
        texts += [m["content"] for m in maker.conversation(rng)["messages"]]
    for row in maker.words:  # every word of the dictionary in several places
        texts += [row["d"], " " + row["w"], '"' + row["w"] + '"', row["w"].capitalize()] * 2
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    # Plain completions begin with the mark; a chat's template writes it itself.
    tok.post_processor = processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", BEGIN)])
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False, min_frequency=2,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts, trainer)
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tok


# ----------------------------------------------------------------------- data

STATE = {}


def init_worker(tokenizer_json):
    STATE["tok"] = Tokenizer.from_str(tokenizer_json)
    STATE["maker"] = G.Maker()


def loss_flags(ids):
    """1 where a token is to be predicted: the assistant's words and their end mark."""
    starts = np.flatnonzero(ids == ASSISTANT)
    if len(starts) == 0:  # running text
        flags = np.ones(len(ids), np.uint8)
        flags[0] = 0
        return flags
    ends = np.flatnonzero(ids == END)
    delta = np.zeros(len(ids) + 1, np.int8)
    delta[starts + 1] += 1
    delta[ends[np.searchsorted(ends, starts)] + 1] -= 1
    return np.cumsum(delta[:-1]).astype(np.uint8)


def make_rows(task):
    seed, count, length = task
    rng = random.Random(seed)
    texts = [text_of(STATE["maker"].conversation(rng)["messages"]) for _ in range(count)]
    rows, open_rows = [], []
    for start in range(0, count, 2000):
        for enc in STATE["tok"].encode_batch(texts[start:start + 2000], add_special_tokens=False):
            ids = np.array(enc.ids, np.int16)
            if len(ids) > length:
                continue
            flags = loss_flags(ids)
            for row in open_rows:
                if row[0] + len(ids) <= length:
                    break
            else:
                if len(open_rows) >= 24:
                    full = max(open_rows, key=lambda r: r[0])
                    open_rows.remove(full)
                    rows.append(full)
                row = [0, []]
                open_rows.append(row)
            row[0] += len(ids)
            row[1].append((ids, flags))
    rows += open_rows
    toks = np.zeros((len(rows), length), np.int16)
    docs = np.zeros((len(rows), length), np.uint8)
    loss = np.zeros((len(rows), length), np.uint8)
    for i, (_, parts) in enumerate(rows):
        p = 0
        for k, (ids, flags) in enumerate(parts):
            toks[i, p:p + len(ids)] = ids
            docs[i, p:p + len(ids)] = k + 1
            loss[i, p:p + len(ids)] = flags
            p += len(ids)
    return toks, docs, loss


def make_data(tok, conversations, length, seed):
    per = 12500
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process for each core instead
    tasks = [(seed * 1000003 + i, per, length) for i in range(max(1, conversations // per))]
    with mp.get_context("fork").Pool(os.cpu_count(), init_worker, (tok.to_str(),)) as pool:
        parts = pool.map(make_rows, tasks, chunksize=1)
    return tuple(np.concatenate(x) for x in zip(*parts))


# ---------------------------------------------------------------------- model

def build(cfg, dropout):
    class Norm(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(d))

        def forward(self, x):
            y = x.float()
            y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + cfg["rms_norm_eps"])
            return (y * self.weight).to(x.dtype)

    heads, kv = cfg["num_attention_heads"], cfg["num_key_value_heads"]
    d = cfg["hidden_size"]
    hd = d // heads

    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat((-b, a), -1) * sin

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(d, heads * hd, bias=False)
            self.k_proj = nn.Linear(d, kv * hd, bias=False)
            self.v_proj = nn.Linear(d, kv * hd, bias=False)
            self.o_proj = nn.Linear(heads * hd, d, bias=False)

        def forward(self, x, cos, sin, attend):
            b, t, _ = x.shape
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
            q = rotate(q.view(b, t, heads, hd).transpose(1, 2).float(), cos, sin).to(v.dtype)
            k = rotate(k.view(b, t, kv, hd).transpose(1, 2).float(), cos, sin).to(v.dtype)
            v = v.view(b, t, kv, hd).transpose(1, 2)
            return self.o_proj(attend(q, k, v).transpose(1, 2).reshape(b, t, heads * hd))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj = nn.Linear(d, cfg["intermediate_size"], bias=False)
            self.up_proj = nn.Linear(d, cfg["intermediate_size"], bias=False)
            self.down_proj = nn.Linear(cfg["intermediate_size"], d, bias=False)

        def forward(self, x):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn = Attention()
            self.mlp = Mlp()
            self.input_layernorm = Norm(d)
            self.post_attention_layernorm = Norm(d)

        def forward(self, x, cos, sin, attend):
            x = x + F.dropout(self.self_attn(self.input_layernorm(x), cos, sin, attend), dropout)
            return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), dropout)

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_tokens = nn.Embedding(cfg["vocab_size"], d)
            self.layers = nn.ModuleList(Block() for _ in range(cfg["num_hidden_layers"]))
            self.norm = Norm(d)
            inv = cfg["rope_theta"] ** (-torch.arange(0, hd, 2).float() / hd)
            angle = torch.outer(torch.arange(cfg["max_position_embeddings"]).float(), inv)
            angle = torch.cat((angle, angle), -1)
            self.register_buffer("cos", angle.cos(), persistent=False)
            self.register_buffer("sin", angle.sin(), persistent=False)
            for name, p in self.named_parameters():
                if p.dim() == 2:
                    std = 0.02 if "embed" in name else 0.04
                    if "o_proj" in name or "down_proj" in name:
                        std /= math.sqrt(2 * cfg["num_hidden_layers"])
                    nn.init.normal_(p, std=std)

        def forward(self, ids, docs, targets, kind, mask=None):
            t = ids.shape[1]
            x = F.dropout(self.embed_tokens(ids), dropout)
            cos, sin = self.cos[:t], self.sin[:t]
            attend = attention_of(kind, docs, mask)
            for layer in self.layers:
                x = layer(x, cos, sin, attend)
            logits = F.linear(self.norm(x), self.embed_tokens.weight)
            return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1), ignore_index=-100)

    return Llama()


def block_mask(docs):
    b, t = docs.shape

    def allowed(bi, h, q, k):
        return (docs[bi, q] == docs[bi, k]) & (q >= k)

    return create_block_mask(allowed, b, None, t, t, device=docs.device)


def attention_of(kind, docs, mask):
    """The attention of one batch: causal, inside a conversation only."""
    if kind.startswith("flex"):
        mask = block_mask(docs) if mask is None else mask
        return lambda q, k, v: flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
    t = docs.shape[1]
    seen = (docs[:, :, None] == docs[:, None, :]) & torch.ones(t, t, dtype=torch.bool, device=docs.device).tril()
    bias = torch.where(seen[:, None], 0.0, -1e4)

    def attend(q, k, v):
        n = q.shape[1] // k.shape[1]
        return F.scaled_dot_product_attention(q, k.repeat_interleave(n, 1), v.repeat_interleave(n, 1), attn_mask=bias.to(q.dtype))

    return attend


# ------------------------------------------------------------------- training

def train(args, cfg, data):
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    toks, docs, loss = (torch.from_numpy(x).to(dev) for x in data)
    model = build(cfg, args.dropout).to(dev)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    decay = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": args.decay}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.97), eps=1e-9, fused=dev == "cuda")
    step_model = torch.compile(model) if args.compile else model
    make_mask = torch.compile(block_mask) if args.compile else block_mask
    order = torch.Generator().manual_seed(args.seed)
    rows = toks.shape[0]
    perm, at, epoch = torch.randperm(rows, generator=order).to(dev), 0, 0

    def batch():
        nonlocal perm, at, epoch
        if at + args.batch > rows:
            perm, at, epoch = torch.randperm(rows, generator=order).to(dev), 0, epoch + 1
        i = perm[at:at + args.batch]
        at += args.batch
        ids, flag = toks[i].long(), loss[i]
        target = torch.full_like(ids, -100)
        target[:, :-1] = torch.where(flag[:, 1:] > 0, ids[:, 1:], -100)
        return ids, docs[i], target

    def step(kind):
        ids, d, target = batch()
        with torch.autocast(dev, torch.bfloat16, enabled=dev == "cuda"):
            mask = make_mask(d) if kind == "flex_out" else None
            value = step_model(ids, d, target, kind, mask)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        return value.detach()

    def sync():
        if dev == "cuda":
            torch.cuda.synchronize()

    speeds = {}
    for g in opt.param_groups:
        g["lr"] = args.lr * 0.05
    for kind in args.attention.split(","):
        if kind == "flex_out" and "flex" in speeds:
            continue
        try:
            t0 = time.time()
            for _ in range(5):
                step(kind)
            sync()
            t1 = time.time()
            for _ in range(15):
                step(kind)
            sync()
            speeds[kind] = (time.time() - t1) / 15
            print("%s: first steps %.1f s, then %.2f ms a step, %.2f M tokens/s" % (kind, t1 - t0, 1e3 * speeds[kind], args.batch * args.length / speeds[kind] / 1e6), flush=True)
        except Exception as e:
            print(kind, "failed:", str(e)[:500], flush=True)
    kind = min(speeds, key=speeds.get)
    steps = args.steps or max(20, int(args.seconds / speeds[kind]))
    print("training %d steps of %d tokens with %s, %d rows (%.1f M tokens)" % (steps, args.batch * args.length, kind, rows, rows * args.length / 1e6), flush=True)
    t0, done, running = time.time(), 0, 0.0
    log = []
    for s in range(steps):
        lr = args.lr * min(1.0, (s + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * s / steps)))
        for g in opt.param_groups:
            g["lr"] = lr
        running = running + step(kind)
        done += 1
        if (s + 1) % max(1, steps // 40) == 0:
            mean = float(running) / done
            log.append((s + 1, mean))
            print("step %6d  loss %.4f  lr %.2e  epoch %d  %.0f s" % (s + 1, mean, lr, epoch, time.time() - t0), flush=True)
            running, done = 0.0, 0
    sync()
    info = {"steps": steps, "tokens_per_step": args.batch * args.length, "seconds": round(time.time() - t0, 1), "epochs": round(steps * args.batch / rows, 2), "rows": rows, "seed": args.seed,
            "learning_rate": args.lr, "weight_decay": args.decay, "dropout": args.dropout, "last_training_loss": log[-1][1] if log else None, "conversations": args.conversations, "parameters": sum(p.numel() for p in model.parameters())}
    return model, info


def export(model, tok, cfg, folder):
    os.makedirs(folder, exist_ok=True)
    state = {"model." + k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)

    def put(name, value):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    put("config.json", dict({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "rope_scaling": None,
                             "tie_word_embeddings": True, "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD, "torch_dtype": "bfloat16", "use_cache": True, "initializer_range": 0.02}, **cfg))
    put("generation_config.json", {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD, "do_sample": False})
    put("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "clean_up_tokenization_spaces": False, "model_max_length": cfg["max_position_embeddings"], "chat_template": CHAT_TEMPLATE})
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        f.write(json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":")))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default="models/demo-chat")
    ap.add_argument("--seed", type=int, default=G.SEED)
    ap.add_argument("--conversations", type=int, default=3000000)
    ap.add_argument("--seconds", type=float, default=440, help="time to train for, where --steps isn't given")
    ap.add_argument("--steps", type=int, default=0)
    ap.add_argument("--batch", type=int, default=64, help="rows in a step")
    ap.add_argument("--length", type=int, default=1024)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--dropout", type=float, default=0.05)
    ap.add_argument("--vocab", type=int, default=4096)
    ap.add_argument("--hidden", type=int, default=256)
    ap.add_argument("--layers", type=int, default=8)
    ap.add_argument("--attention", default="flex,flex_out,sdpa", help="tried in turn, the fastest is taken (flex_out, its mask made outside, only where flex fails)")
    ap.add_argument("--no-compile", dest="compile", action="store_false")
    args = ap.parse_args()
    t0 = time.time()
    tok = make_tokenizer(args.vocab, args.seed)
    print("tokenizer: %d tokens, %.0f s" % (tok.get_vocab_size(), time.time() - t0), flush=True)
    data = make_data(tok, args.conversations, args.length, args.seed)
    used = float((data[1] > 0).mean())
    print("data: %d rows, %.1f M tokens (%.0f%% of the rows, %.1f M with loss), %.0f s" % (len(data[0]), used * data[0].size / 1e6, 100 * used, data[2].sum() / 1e6, time.time() - t0), flush=True)
    cfg = {"vocab_size": tok.get_vocab_size(), "hidden_size": args.hidden, "intermediate_size": args.hidden * 11 // 4, "num_hidden_layers": args.layers, "num_attention_heads": args.hidden // 32,
           "num_key_value_heads": args.hidden // 64, "head_dim": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": args.length}
    model, info = train(args, cfg, data)
    info["trained_tokens"] = int(info["steps"] * info["tokens_per_step"] * used)
    export(model, tok, cfg, args.out)
    print("training:", json.dumps(info), "total %.0f s" % (time.time() - t0))
    with open(os.path.join(args.out, "training.json"), "w") as f:
        f.write(json.dumps(info, indent=2) + "\n")


if __name__ == "__main__":
    main()
