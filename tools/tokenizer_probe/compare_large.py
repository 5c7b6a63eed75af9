#!/usr/bin/env python3
"""Trains tokenizers of real size on text found on this machine, encodes several megabytes with the `tokenizers`
library and with our encode_file, compares every id, and prints both speeds (one thread each).

    python3 compare_large.py path/to/encode_file [WORKDIR]      (needs: pip package tokenizers)
"""

import array
import glob
import os
import random
import subprocess
import sys
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "true"
import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def found_text(limit):
    parts, size = [], 0
    for pattern in ("/usr/lib/python3*/**/*.py", "/usr/share/**/*.txt", "/usr/share/perl/**/*.pod", sys.prefix + "/**/*.py", sys.prefix + "/**/*.md", sys.prefix + "/**/*.rst"):
        for name in sorted(glob.glob(pattern, recursive=True)):
            try:
                text = open(name, encoding="utf-8").read()
            except (OSError, UnicodeDecodeError):
                continue
            parts.append(text)
            size += len(text)
            if size > limit:
                return "".join(parts)
    return "".join(parts)


def random_unicode(n, newest):
    """Words of every script, marks, spaces and symbols; newest: also code points that this Python does not know."""
    rng = random.Random(4)
    pool = [c for c in range(0x20, 0x110000) if not 0xD800 <= c <= 0xDFFF and (newest or unicodedata.category(chr(c)) != "Cn") and not 0xE000 <= c <= 0xF8FF and c < 0xE0200]
    blocks = [pool[i : i + 200] for i in range(0, len(pool), 200)]
    common = [0x20, 0x20, 0x20, 0x0A, 0x0D, 0x09, 0x27, 0x2E, 0x301, 0x323, 0x200D, 0xFE0F, 0xA0, 0x3000, 0x73, 0x53, 0x31, 0x2581]
    out = []
    while len(out) < n:
        block = rng.choice(blocks)
        out += [rng.choice(block) if rng.random() < 0.7 else rng.choice(common) for _ in range(rng.randint(1, 40))]
    return "".join(map(chr, out))


def byte_level(regex, norm=None, **model):
    tok = Tokenizer(models.BPE(**model))
    tok.normalizer = norm
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]) if regex else pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    return tok, trainers.BpeTrainer(vocab_size=100000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)


def spelled(metaspace):
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    else:
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tok.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only: bounds its words
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tok, trainers.BpeTrainer(vocab_size=32000, limit_alphabet=1500, show_progress=False, special_tokens=["<unk>"] + [f"<0x{b:02X}>" for b in range(256)])


def word_piece():
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    return tok, trainers.WordPieceTrainer(vocab_size=30522, limit_alphabet=1000, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])


def main():
    program, work = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "/tmp/compare_large"
    os.makedirs(work, exist_ok=True)
    found = found_text(16_000_000)
    texts = {"found": found[-8_000_000:], "unicode": random_unicode(300_000, False), "newest": random_unicode(300_000, True)}
    for name, text in texts.items():
        open(f"{work}/{name}.txt", "w", encoding="utf-8", newline="").write(text)
    print("tokenizers", tokenizers.__version__, "| text", len(found), "characters")
    train = [found[i : i + 2000] for i in range(0, len(found), 2000)] + [texts["unicode"]]
    makers = {"llama3": lambda: byte_level(LLAMA3, ignore_merges=True), "qwen2": lambda: byte_level(QWEN2, normalizers.NFC()), "gpt2": lambda: byte_level(None),
              "o200k": lambda: byte_level(O200K), "llama2": lambda: spelled(False), "mistral": lambda: spelled(True), "bert": word_piece}
    for name, make in makers.items():
        tok, trainer = make()
        tok.train_from_iterator(train, trainer)
        if name == "llama2":
            tok.pre_tokenizer = None
        tok.save(f"{work}/{name}.json")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in makers:
        tok = Tokenizer.from_file(f"{work}/{name}.json")
        for kind, text in texts.items():
            begin = time.perf_counter()
            want = tok.encode(text, add_special_tokens=False).ids
            theirs = time.perf_counter() - begin
            lines = text.splitlines(keepends=True)
            begin = time.perf_counter()
            for line in lines:
                tok.encode(line, add_special_tokens=False)
            by_line = time.perf_counter() - begin
            out = subprocess.run([program, f"{work}/{name}.json", f"{work}/{kind}.txt", f"{work}/ids"], capture_output=True, text=True)
            got = array.array("i", open(f"{work}/ids", "rb").read())
            size = len(text.encode())
            verdict = "ids equal" if list(got) == want else "IDS DIFFER"
            if list(got) != want:
                i = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
                verdict += f" at {i}: ours {[tok.id_to_token(x) for x in got[i-1:i+4]]} want {[tok.id_to_token(x) for x in want[i-1:i+4]]}"
                verdict += " differing " + str(len(set(enumerate(got)) - set(enumerate(want))))
            print(f"{name} {kind}: {verdict}; library {size / theirs / 1e6:.1f} MB/s whole, {size / by_line / 1e6:.1f} by line; ours {out.stdout.strip()}{out.stderr.strip()}", flush=True)


main()
