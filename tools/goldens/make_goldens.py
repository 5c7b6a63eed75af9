#!/usr/bin/env python3
"""Makes the golden files of the local engine: tiny random models, tokenizers
and what Hugging Face's libraries answer for them.

    python3 tools/goldens/make_goldens.py [--out tests/data/local]

Needs torch, transformers, tokenizers, safetensors and jinja2. Runs on a CPU in
under a minute. Seeds are fixed; weights are drawn with numpy's PCG64, so that
another torch gives the same models.
"""

import argparse
import json
import os
import sys
import traceback

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
import transformers
from transformers import (BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import render
import texts

LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
U = "\u2581"


def write_json(path, value, **kw):
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(value, **kw) + "\n")


# ---------------------------------------------------------------- tokenizers

def special(tok, names):
    tok.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])


def spm_vocab_and_merges(size):
    """Pieces and merges in sentencepiece's manner, without the byte pieces."""
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement=U, prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False, limit_alphabet=220)
    lines = [x for text in texts.training_corpus() for x in text.split("\n")]
    tok.train_from_iterator(lines, trainer)
    model = json.loads(tok.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    pieces = [p for p, _ in sorted(model["vocab"].items(), key=lambda x: x[1])][3:]
    return pieces, merges


def spm_model(size):
    pieces, merges = spm_vocab_and_merges(size)
    vocab = {}
    for p in ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]:
        vocab[p] = len(vocab)
    # As in sentencepiece's files: merged pieces first, in the order of their merges, single characters last.
    singles = [p for p in pieces if len(p) == 1]
    for p in [p for p in pieces if len(p) > 1] + singles:
        vocab.setdefault(p, len(vocab))
    for n in (2, 4, 8):
        vocab[U * n] = len(vocab)
        merges.append((U * (n // 2), U * (n // 2)))
    return models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def bos_template(bos, bos_id):
    return processors.TemplateProcessing(single="%s $A" % bos, pair="%s $A %s:1 $B:1" % (bos, bos), special_tokens=[(bos, bos_id)])


def tok_llama2():
    tok = Tokenizer(spm_model(720))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(U), normalizers.Replace(" ", U)])
    special(tok, ["<unk>", "<s>", "</s>"])
    tok.post_processor = bos_template("<s>", 1)
    tok.decoder = decoders.Sequence([decoders.Replace(U, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tok


def tok_mistral():
    """As the later Mistral files: no normalizer, Metaspace only before the first piece, control tokens."""
    tok = Tokenizer(spm_model(700))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement=U, prepend_scheme="first", split=False)
    special(tok, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"])
    tok.post_processor = bos_template("<s>", 1)
    tok.decoder = decoders.Sequence([decoders.Replace(U, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tok


def tok_metaspace_old():
    """An older file: Metaspace with add_prefix_space, str_rep, and merges as strings."""
    tok = Tokenizer(spm_model(600))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement=U, prepend_scheme="always", split=True)
    special(tok, ["<unk>", "<s>", "</s>"])
    tok.post_processor = bos_template("<s>", 1)
    tok.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement=U, prepend_scheme="always")])
    doc = json.loads(tok.to_str())
    doc["pre_tokenizer"] = {"type": "Metaspace", "replacement": U, "add_prefix_space": True, "str_rep": U}
    doc["decoder"]["decoders"][1] = {"type": "Metaspace", "replacement": U, "add_prefix_space": True, "str_rep": U}
    doc["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in doc["model"]["merges"]]
    doc["model"].pop("ignore_merges", None)
    text = json.dumps(doc, ensure_ascii=False, indent=1)
    return Tokenizer.from_str(text), text


def byte_level_model(split, size, normalizer=None, **bpe):
    tok = Tokenizer(models.BPE())
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts.training_corpus(), trainer)
    model = json.loads(tok.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda x: x[1]))
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    if bpe.get("ignore_merges"):  # words no merge leads to: found only because the whole word is looked up first
        for w in ["Ganglion", "\u0120Ganglion", "\u0120neuron", "123", "\u0120xylophone"]:
            vocab.setdefault(w, len(vocab))
    tok.model = models.BPE(vocab=vocab, merges=merges, **bpe)
    tok.decoder = decoders.ByteLevel()
    return tok


def tok_llama3():
    tok = byte_level_model(LLAMA3_SPLIT, 1200, ignore_merges=True)
    special(tok, ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    bos = "<|begin_of_text|>"
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos_template(bos, tok.token_to_id(bos))])
    return tok


def tok_qwen():
    tok = byte_level_model(QWEN2_SPLIT, 1100, normalizer=normalizers.NFC())
    special(tok, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<tool_call>", "</tool_call>", "<think>", "</think>")])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def tok_gpt2():
    """Tokenizer only: ByteLevel's own pattern, with a prefix space."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    trainer = trainers.BpeTrainer(vocab_size=800, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts.training_corpus(), trainer)
    special(tok, ["<|endoftext|>"])
    tok.add_tokens([AddedToken("Ganglion", single_word=True, normalized=True), AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    tok.decoder = decoders.ByteLevel()
    return tok


def tok_bert(lowercase):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tok.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=1100, special_tokens=names, show_progress=False, limit_alphabet=400)
    tok.train_from_iterator(texts.training_corpus(), trainer)
    vocab = tok.get_vocab()
    tok.model = models.WordPiece(vocab=vocab, unk_token="[UNK]", max_input_chars_per_word=100, continuing_subword_prefix="##")
    special(tok, names)
    tok.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                       special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])])
    tok.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tok


def tokenizer_row(tok, strings):
    rows = []
    for s in strings:
        bare = tok.encode(s, add_special_tokens=False).ids
        full = tok.encode(s, add_special_tokens=True).ids
        rows.append([bare, full, tok.decode(full, skip_special_tokens=True), tok.decode(full, skip_special_tokens=False)])
    return rows


# -------------------------------------------------------------------- models

def draw_weights(model, seed, std=0.2):
    """Random weights with some spread, so that logits are far from uniform."""
    rng = np.random.Generator(np.random.PCG64(seed))
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            v = torch.from_numpy(rng.standard_normal(tuple(p.shape)).astype(np.float32))
            if name.endswith("norm.weight") or "layernorm.weight" in name or "LayerNorm.weight" in name:
                p.copy_(1.0 + 0.15 * v)
            elif p.dim() == 1:
                p.copy_(0.1 * v)
            else:
                p.copy_(std * v)


def greedy(model, ids, n):
    """Greedy ids without a cache; end-of-sequence tokens do not stop it. The
    margins are the gaps between the best and the second logit."""
    ids, out, margins = list(ids), [], []
    for _ in range(n):
        with torch.no_grad():
            row = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()
        top = torch.topk(row, 2)
        margins.append(round(float(top.values[0] - top.values[1]), 5))
        out.append(int(top.indices[0]))
        ids.append(out[-1])
    return out, margins


def write_goldens(folder, prompts, n_positions, n_greedy=32):
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases, blob, offset = [], [], 0
    for ids in prompts:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
        last = len(ids) - 1
        positions = sorted({0, last, last // 2, (3 * last) // 4} if n_positions > 1 else {last})
        for p in positions:
            blob.append(logits[p].astype("<f4"))
        g, m = greedy(model, ids, n_greedy)
        cases.append({"prompt_ids": ids, "positions": positions, "logits_offset": offset, "greedy_ids": g, "greedy_margins": m})
        offset += len(positions)
    np.concatenate(blob).tofile(os.path.join(folder, "logits.f32"))
    write_json(os.path.join(folder, "goldens.json"), {
        "note": "logits.f32: little-endian float32 rows of vocab_size values; a case's rows start at row logits_offset, one per position",
        "dtype": "float32", "vocab_size": int(model.config.vocab_size), "rows": offset, "cases": cases})


def prompts_for(tok, vocab_size, seed, lengths):
    rng = np.random.Generator(np.random.PCG64(seed + 1000))
    out = [tok.encode(s).ids for s in ("The gateway listens on one port.", "int main() { return 42; } // \u4f60\u597d \U0001f600")]
    for n in lengths:
        out.append([int(x) for x in rng.integers(3, vocab_size, n)])
    return [p for p in out if p]


def save_tokenizer(tok, folder, text=None, **config):
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        f.write(text if text is not None else json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":")))
    write_json(os.path.join(folder, "tokenizer_config.json"), dict({"tokenizer_class": "PreTrainedTokenizerFast"}, **config), indent=2)


def generation_models(out, toks):
    import templates as T
    l2, l3, mi, qw = toks["llama2"], toks["llama3"], toks["mistral"], toks["qwen"]
    common = dict(max_position_embeddings=256, attention_dropout=0.0)
    llama2_cfg = dict(vocab_size=l2.get_vocab_size(), hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
                      num_key_value_heads=4, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
                      rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, **common)
    id3 = l3.token_to_id
    specs = [
        ("llama2_tiny", LlamaForCausalLM, LlamaConfig(**llama2_cfg), 11, "float32", l2,
         dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True, chat_template=T.TEMPLATES["llama2"]), [1, 40]),
        ("llama3_tiny", LlamaForCausalLM, LlamaConfig(
            vocab_size=l3.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            rms_norm_eps=1e-5, bos_token_id=id3("<|begin_of_text|>"), eos_token_id=[id3("<|end_of_text|>"), id3("<|eot_id|>")], tie_word_embeddings=True,
            rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 64}, **common), 12, "float32", l3,
         dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=T.TEMPLATES["llama3"]), [1, 90]),
        ("mistral_tiny", MistralForCausalLM, MistralConfig(
            vocab_size=mi.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, sliding_window=16,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, **common), 13, "float32", mi,
         dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=T.TEMPLATES["mistral"]), [1, 15, 16, 17, 60]),
        ("qwen2_tiny", Qwen2ForCausalLM, Qwen2Config(
            vocab_size=qw.get_vocab_size() + 9, hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
            rms_norm_eps=1e-6, bos_token_id=qw.token_to_id("<|endoftext|>"), eos_token_id=qw.token_to_id("<|im_end|>"), tie_word_embeddings=True,
            use_sliding_window=False, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, **common), 14, "float32", qw,
         dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=None, add_bos_token=False, chat_template=T.TEMPLATES["qwen_tools"]), [1, 50]),
        ("qwen3_tiny", Qwen3ForCausalLM, Qwen3Config(
            vocab_size=qw.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=24, rms_norm_eps=1e-6, bos_token_id=qw.token_to_id("<|endoftext|>"), eos_token_id=qw.token_to_id("<|im_end|>"), tie_word_embeddings=True,
            use_sliding_window=False, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, **common), 15, "float32", qw,
         dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=None, add_bos_token=False, chat_template=T.TEMPLATES["qwen3_thinking"]), [1, 50]),
        ("llama_fp16", LlamaForCausalLM, LlamaConfig(**dict(llama2_cfg, hidden_size=32, intermediate_size=56, num_key_value_heads=2)), 16, "float16", l2,
         dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>"), [20]),
        ("llama_bf16", LlamaForCausalLM, LlamaConfig(**dict(llama2_cfg, hidden_size=32, intermediate_size=56, num_key_value_heads=2, mlp_bias=True, attention_bias=True)),
         17, "bfloat16", l2, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>"), [20]),
        ("llama_sharded", LlamaForCausalLM, LlamaConfig(**dict(llama2_cfg, hidden_size=32, intermediate_size=56)), 18, "float16", l2,
         dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>"), [20]),
        ("llama_old_files", LlamaForCausalLM, LlamaConfig(**dict(llama2_cfg, vocab_size=toks["metaspace_old"].get_vocab_size(), hidden_size=32, intermediate_size=56,
            rope_parameters={"rope_type": "linear", "rope_theta": 50000.0, "factor": 2.0})), 19, "float32", toks["metaspace_old"],
         dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>"), [20]),
    ]
    for name, cls, cfg, seed, dtype, tok, tok_cfg, lengths in specs:
        try:
            folder = os.path.join(out, name)
            os.makedirs(folder, exist_ok=True)
            torch.manual_seed(seed)
            model = cls(cfg).eval()
            draw_weights(model, seed)
            model = model.to(getattr(torch, dtype))
            model.config.dtype = getattr(torch, dtype)
            kw = {"max_shard_size": "60KB"} if name == "llama_sharded" else {}
            model.save_pretrained(folder, **kw)
            small = lengths == [20]
            write_goldens(folder, prompts_for(tok, cfg.vocab_size, seed, lengths), 1 if small else 4, 16 if small else 32)
            if name == "llama_old_files":
                before = open(os.path.join(folder, "logits.f32"), "rb").read()
                c = json.load(open(os.path.join(folder, "config.json")))
                for k in ("rope_parameters", "dtype", "head_dim", "rope_theta", "rope_scaling"):
                    c.pop(k, None)
                c.update(rope_theta=50000.0, rope_scaling={"type": "linear", "factor": 2.0}, torch_dtype="float32", transformers_version="4.31.0")
                write_json(os.path.join(folder, "config.json"), dict(sorted(c.items())), indent=2)
                write_goldens(folder, prompts_for(tok, cfg.vocab_size, seed, lengths), 1, 16)
                print(name, "the two spellings agree:", before == open(os.path.join(folder, "logits.f32"), "rb").read())
            if name == "llama3_tiny":
                c = json.load(open(os.path.join(folder, "config.json")))
                rp = dict(c.pop("rope_parameters"))
                c.update(rope_theta=rp.pop("rope_theta"), rope_scaling=rp, torch_dtype=c.pop("dtype"), transformers_version="4.43.0")
                write_json(os.path.join(folder, "config_old_spelling.json"), dict(sorted(c.items())), indent=2)
            save_tokenizer(tok, folder, toks.get("metaspace_old_text") if name == "llama_old_files" else None, **tok_cfg)
            print(name, cfg.vocab_size, sum(p.numel() for p in model.parameters()), sorted(os.listdir(folder)))
        except Exception:
            print("FAILED", name)
            traceback.print_exc()


# ---------------------------------------------------------------- embeddings

EMBED_TEXTS = [
    "hello world", "The gateway listens on one port.", "A cache answers the second question before the model has heard it.", "",
    "What is the capital of France?", "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m", "\u4eca\u5929\u5929\u6c14\u5f88\u597d", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "int main() { return 0; }",
    "hello", "HELLO WORLD", "This is a test. " * 30,
]


def embedding_models(out, toks):
    for name, pooling, tok, seed in (("bert_tiny", "cls", toks["bert"], 21), ("bert_tiny_mean", "mean", toks["bert_cased"], 22)):
        try:
            folder = os.path.join(out, name)
            os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
            cfg = BertConfig(vocab_size=tok.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                             max_position_embeddings=80, type_vocab_size=2, layer_norm_eps=1e-12, hidden_act="gelu", pad_token_id=0)
            model = BertModel(cfg, add_pooling_layer=True).eval()
            draw_weights(model, seed)
            model.save_pretrained(folder)
            path = os.path.join(folder, "model.safetensors")
            if name == "bert_tiny_mean":  # some published files keep the "bert." prefix and the position_ids buffer
                state = {"bert." + k: v.clone() for k, v in load_file(path).items()}
                state["bert.embeddings.position_ids"] = torch.arange(80).unsqueeze(0)
                save_file(state, path, metadata={"format": "pt"})
            model = BertModel(cfg, add_pooling_layer=True).eval()
            draw_weights(model, seed)
            max_len = 64
            encoded = []
            for t in EMBED_TEXTS:
                ids = tok.encode(t).ids
                if len(ids) > max_len:
                    ids = ids[:max_len - 1] + [tok.token_to_id("[SEP]")]
                encoded.append(ids)

            def embed(batch):
                n = max(map(len, batch))
                ids = torch.tensor([b + [0] * (n - len(b)) for b in batch])
                mask = torch.tensor([[1] * len(b) + [0] * (n - len(b)) for b in batch])
                with torch.no_grad():
                    h = model(input_ids=ids, attention_mask=mask).last_hidden_state
                res = {}
                m = mask.unsqueeze(-1).float()
                res["cls"] = torch.nn.functional.normalize(h[:, 0], dim=-1)
                res["mean"] = torch.nn.functional.normalize((h * m).sum(1) / m.sum(1), dim=-1)
                return res

            batch = embed(encoded)
            worst = 0.0
            cases = []
            for i, ids in enumerate(encoded):
                one = embed([ids])
                for k in one:
                    worst = max(worst, float((one[k][0] - batch[k][i]).abs().max()))
                cases.append({"text": EMBED_TEXTS[i], "ids": ids, "cls": [float(x) for x in one["cls"][0]], "mean": [float(x) for x in one["mean"][0]]})
            write_json(os.path.join(folder, "goldens.json"), {
                "note": "ids are cut to max_seq_length, special tokens included; embeddings are normalized; batching changes a value by at most batch_difference",
                "pooling": pooling, "max_seq_length": max_len, "batch_difference": worst, "cases": cases}, indent=0)
            write_json(os.path.join(folder, "modules.json"), [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}], indent=2)
            write_json(os.path.join(folder, "1_Pooling", "config.json"), {
                "word_embedding_dimension": 32, "pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean",
                "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}, indent=2)
            write_json(os.path.join(folder, "sentence_bert_config.json"), {"max_seq_length": max_len, "do_lower_case": False}, indent=2)
            write_json(os.path.join(folder, "config_sentence_transformers.json"), {"__version__": {"sentence_transformers": "2.2.2"}, "prompts": {}, "similarity_fn_name": "cosine"}, indent=2)
            save_tokenizer(tok, folder, do_lower_case=name == "bert_tiny", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", model_max_length=80)
            print(name, cfg.vocab_size, "batch difference", worst)
        except Exception:
            print("FAILED", name)
            traceback.print_exc()


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default=os.path.join(here, "..", "..", "tests", "data", "local"))
    out = ap.parse_args().out
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(4)
    render.main(out)

    toks = {}
    for name, make in (("llama2", tok_llama2), ("mistral", tok_mistral), ("metaspace_old", tok_metaspace_old), ("llama3", tok_llama3), ("qwen", tok_qwen),
                       ("gpt2", tok_gpt2), ("bert", lambda: tok_bert(True)), ("bert_cased", lambda: tok_bert(False))):
        try:
            made = make()
            if isinstance(made, tuple):
                made, toks[name + "_text"] = made
            toks[name] = made
        except Exception:
            print("FAILED tokenizer", name)
            traceback.print_exc()
    os.makedirs(os.path.join(out, "gpt2_tokenizer"), exist_ok=True)
    save_tokenizer(toks["gpt2"], os.path.join(out, "gpt2_tokenizer"), bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    strings = texts.case_strings()
    where = {"llama2": "llama2_tiny", "mistral": "mistral_tiny", "metaspace_old": "llama_old_files", "llama3": "llama3_tiny", "qwen": "qwen2_tiny",
             "gpt2": "gpt2_tokenizer", "bert": "bert_tiny", "bert_cased": "bert_tiny_mean"}
    with open(os.path.join(out, "tokenizer_cases.json"), "w") as f:
        f.write('{"note": "tokenizers[folder][i] belongs to strings[i] and holds: ids without special tokens, ids with them, '
                'decode(ids with, skip_special_tokens=true), decode(ids with, skip_special_tokens=false); no clean-up of spaces",\n"strings": [\n')
        f.write(",\n".join(json.dumps(s) for s in strings) + '\n],\n"tokenizers": {\n')
        parts = []
        for name, folder in where.items():
            rows = tokenizer_row(toks[name], strings)
            parts.append(json.dumps(folder) + ": [\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]")
        f.write(",\n".join(parts) + "\n}}\n")
    generation_models(out, toks)
    embedding_models(out, toks)
    total = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(out) for f in fs)
    print("transformers", transformers.__version__, "torch", torch.__version__, "total bytes", total)


if __name__ == "__main__":
    main()
