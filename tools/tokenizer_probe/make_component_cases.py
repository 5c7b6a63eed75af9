#!/usr/bin/env python3
"""Writes golden answers of the `tokenizers` library for each component on its own and for small tokenizers with
awkward added tokens: tests/data/local_tokenizer/components.json.

    python3 make_component_cases.py OUT.json      (needs: pip package tokenizers)
"""

import json
import random
import sys

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

RNG = random.Random(20261122)

ATOMS = (
    list("abcdeXYZ0129 .,!?'-_/@#$%^&*()[]{}<>|~`\"\\;:=+\n\t\r\v\f")
    + ["  ", "   ", "\r\n", "\n\n", "'s", "'T", "'re", "'LL", "'ſ", "don't", "hello", "World", " the", "123", "4567"]
    + ["é", "É", "ü", "ß", "İ", "ı", "ſ", "ǅ", "ﬁ", "Å", "e\u0301", "a\u0323\u0307", "q\u0307\u0323", "\u0301"]
    + ["中", "文", "、", "。", "日本", "カ\u3099", "ﾊﾟ", "한", "국", "\u1112\u1161\u11ab", "Ω", "א", "שׁ", "ع", "क्षि", "ไทย"]
    + ["😀", "👍🏽", "👨\u200d👩\u200d👧", "🇫🇷", "❤️", "\u200d", "\u200b", "\u00ad", "\ufeff", "\u00a0", "\u2003", "\u3000"]
    + ["\u2028", "\u2029", "\u0085", "\u180e", "\u0000", "\u0001", "\u007f", "\ufffd", "\ue000", "\U0001d400", "½", "²", "Ⅷ", "٣"]
    + ["▁", "▁▁", "Ġ", "\u0120a", "</s>", "<s>", "[MASK]", "[CLS]", "<0x41>", "##", "…", "—", "‘", "’", "“", "𐐀", "𠀀"]
)


def strings(n):
    out = ["", " ", "  ", "a", "▁", "\n", "Hello, World!", "Hello   World", " leading", "trailing ", "\u0301", "don't I'VE we'll"]
    while len(out) < n:
        out.append("".join(RNG.choice(ATOMS) for _ in range(RNG.randint(1, 14))))
    return out


def typed(**kw):
    return kw


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

BERT = dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
NORMALIZERS = [
    BERT,
    {**BERT, "lowercase": False},
    {**BERT, "lowercase": False, "strip_accents": True},
    {**BERT, "strip_accents": False},
    {**BERT, "clean_text": False, "handle_chinese_chars": False},
    *[typed(type=t) for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel")],
    typed(type="Strip", strip_left=True, strip_right=True),
    typed(type="Strip", strip_left=False, strip_right=True),
    typed(type="Prepend", prepend="▁"),
    typed(type="Replace", pattern={"String": " "}, content="▁"),
    typed(type="Replace", pattern={"String": "a"}, content=""),
    typed(type="Replace", pattern={"Regex": r"\s+"}, content=" "),
    typed(type="Replace", pattern={"Regex": r"[^\S\n]*\n"}, content="\n"),
    typed(type="Sequence", normalizers=[typed(type="Prepend", prepend="▁"), typed(type="Replace", pattern={"String": " "}, content="▁")]),
    typed(type="Sequence", normalizers=[typed(type="NFD"), typed(type="StripAccents"), typed(type="Lowercase")]),
    typed(type="Sequence", normalizers=[]),
]
BL = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)


def split(pattern, behavior, invert=False):
    return typed(type="Split", pattern=pattern, behavior=behavior, invert=invert)


PRE_TOKENIZERS = [
    BL,
    {**BL, "add_prefix_space": True},
    {**BL, "use_regex": False},
    {**BL, "add_prefix_space": True, "use_regex": False},
    *[split({"Regex": r}, "Isolated") for r in (GPT2, LLAMA3, QWEN2, O200K, DEEPSEEK, r"\s", r"\w+|[^\w\s]+", r"\d{1,3}", r"[0-9]")],
    *[split({"Regex": r"\s+"}, b) for b in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")],
    *[split({"Regex": r"\p{N}"}, b) for b in ("Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")],
    *[split({"String": "a"}, b, i) for b in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)],
    split({"Regex": GPT2}, "Removed", True),
    split({"Regex": r"[a-c]*"}, "Isolated"),
    *[typed(type="Metaspace", replacement="▁", prepend_scheme=p, split=s) for p in ("always", "first", "never") for s in (True, False)],
    typed(type="Sequence", pretokenizers=[typed(type="WhitespaceSplit"), typed(type="Metaspace", replacement="▁", prepend_scheme="first", split=True)]),
    *[typed(type=t) for t in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")],
    typed(type="CharDelimiterSplit", delimiter="-"),
    *[typed(type="Digits", individual_digits=i) for i in (False, True)],
    *[typed(type="Punctuation", behavior=b) for b in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext")],
    typed(type="Sequence", pretokenizers=[split({"Regex": LLAMA3}, "Isolated"), {**BL, "use_regex": False}]),
    typed(type="Sequence", pretokenizers=[typed(type="Digits", individual_digits=True), typed(type="Punctuation", behavior="Contiguous"), BL]),
    typed(type="Sequence", pretokenizers=[BL, typed(type="Digits", individual_digits=True)]),
]

DECODERS = [
    typed(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
    typed(type="WordPiece", prefix="##", cleanup=True),
    typed(type="WordPiece", prefix="##", cleanup=False),
    typed(type="Metaspace", replacement="▁", prepend_scheme="always", split=True),
    typed(type="Metaspace", replacement="▁", prepend_scheme="never", split=True),
    typed(type="BPEDecoder", suffix="</w>"),
    typed(type="ByteFallback"),
    typed(type="Fuse"),
    typed(type="Strip", content=" ", start=1, stop=0),
    typed(type="Strip", content="a", start=2, stop=1),
    typed(type="Replace", pattern={"String": "▁"}, content=" "),
    typed(type="Replace", pattern={"Regex": r"\s"}, content="_"),
    typed(type="Sequence", decoders=[typed(type="Replace", pattern={"String": "▁"}, content=" "), typed(type="ByteFallback"), typed(type="Fuse"), typed(type="Strip", content=" ", start=1, stop=0)]),
    typed(type="Sequence", decoders=[typed(type="ByteFallback"), typed(type="Fuse"), typed(type="Strip", content=" ", start=0, stop=2)]),
    typed(type="Sequence", decoders=[typed(type="ByteFallback"), typed(type="Metaspace", replacement="▁", prepend_scheme="always", split=True)]),
]
TOKEN_ATOMS = ["▁the", "▁", "a", "aa", "aaab", "##ing", "##", "</w>", "at</w>", "Ġthe", "Ġ", "Ċ", "ä", "½", "ł", "ðŁ", "ĺ", "Ģ", "Ã", "©", "中", "é", " ", "  x"] + [
    ".", ",", "?", "!", "'", "n't", "'s", "do", "not", " ", "don", "<0x0A>", "<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<0x4G>", "<0x41>", "<s>"]

CORPUS = [
    "hello world the quick brown fox jumps over the lazy dog 123 456 the theory of thermal things",
    "don't we're I'll you've she's that the hello hello world world été déjà naïve 中文 日本 한국 😀",
    "Hello World The Quick Brown Fox 2024 <html> [MASK] a.b.c, d-e_f / g * h (i) {j}",
] * 3



def run_component(kind, spec, texts):
    """One component inside an otherwise empty tokenizer, loaded from JSON so that the spelling is tested too."""
    shell = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
             "post_processor": None, "decoder": None, "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}}
    shell[kind] = spec
    tok = Tokenizer.from_str(json.dumps(shell))
    if kind == "normalizer":
        return [tok.normalizer.normalize_str(t) for t in texts]
    if kind == "pre_tokenizer":
        return [[p for p, _ in tok.pre_tokenizer.pre_tokenize_str(t)] for t in texts]
    out = []
    for t in texts:
        try:
            out.append(tok.decoder.decode(t))
        except BaseException as e:
            out.append(None)
    return out


def added(content, **kw):
    base = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return dict(content=content, **{**base, **kw})


ADDED = [
    [added("<s>", special=True), added("</s>", special=True)],
    [added("[MASK]", special=True, lstrip=True), added("hello", normalized=True), added("he", normalized=True, single_word=True)],
    [added("<a>", rstrip=True), added("<a>b", lstrip=True, rstrip=True), added("123", single_word=True), added("  ", normalized=True)],
    [added("World", normalized=True, rstrip=True), added("中", normalized=True), added("É", normalized=True), added("'s", single_word=True)],
]
FRAGMENTS = ["hello", "he", " he ", "[MASK]", " [MASK] ", "<a>", "<a>b", "123", "x123", " 123.", "World", "WORLD", "中", "É", "é", "'s", "it's", "<s>", "</s>", " ", "  ",
             "the", "fox\n", "\n", "_", "-", "😀", "🇫🇷", "ÿ", "\u0301", "\t", "a"]


def train(kind):
    if kind == "wordpiece":
        tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tok.normalizer = normalizers.BertNormalizer()
        tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tok.decoder = decoders.WordPiece()
        tr = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    elif kind == "bytelevel":
        tok = Tokenizer(models.BPE())
        tok.normalizer = normalizers.NFC()
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tok.decoder = decoders.ByteLevel()
        tr = trainers.BpeTrainer(vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"], show_progress=False)
    elif kind == "metaspace":
        tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        tr = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>"] + [f"<0x{b:02X}>" for b in range(256)], show_progress=False)
    else:  # llama: normalizer Prepend + Replace; some bytes are missing, so unknown characters reach <unk>
        tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=(kind == "llama"), byte_fallback=True))
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        tr = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"] + [f"<0x{b:02X}>" for b in range(0, 0xE0)], show_progress=False)
    tok.train_from_iterator(CORPUS, tr)
    return tok


def whole_cases(kind, extra):
    spec = json.loads(train(kind).to_str())
    top = max(spec["model"]["vocab"].values())
    for t in extra:
        if t["content"] in [a["content"] for a in spec["added_tokens"]]:
            continue
        known = spec["model"]["vocab"].get(t["content"])
        if known is None:
            top += 1
        spec["added_tokens"].append({"id": known if known is not None else top, **t})
    tok = Tokenizer.from_str(json.dumps(spec))
    texts = ["", " ", "hello world"] + ["".join(RNG.choice(FRAGMENTS) for _ in range(RNG.randint(1, 9))) for _ in range(45)]
    n = tok.get_vocab_size(with_added_tokens=True)
    runs = [[RNG.randrange(n + 2) for _ in range(RNG.randint(1, 12))] for _ in range(25)]
    # Runs of raw byte tokens: valid, cut and broken UTF-8.
    byte_ids = [tok.token_to_id(f"<0x{b:02X}>") for b in "a 😀é\n中".encode()] if kind in ("metaspace", "llama", "llama_nofuse") else [tok.token_to_id(c) for c in "ðŁĺĢÃ©Ċä¸"]
    byte_ids = [i for i in byte_ids if i is not None] or [0]
    runs += [[RNG.choice(byte_ids) if RNG.random() < 0.8 else RNG.randrange(n) for _ in range(RNG.randint(1, 12))] for _ in range(25)]
    return {
        "name": kind,
        "tokenizer": json.loads(tok.to_str()),
        "encode": [[t, tok.encode(t, add_special_tokens=False).ids] for t in texts],
        "decode": [[r, tok.decode(r, skip_special_tokens=True), tok.decode(r, skip_special_tokens=False)] for r in runs],
    }


if __name__ == "__main__":
    texts = strings(110)
    tokens = [[RNG.choice(TOKEN_ATOMS) for _ in range(RNG.randint(1, 10))] for _ in range(60)]
    out = {"tokenizers": tokenizers.__version__, "texts": texts, "tokens": tokens, "components": [], "whole": []}
    for kind, specs, inputs in (("normalizer", NORMALIZERS, texts), ("pre_tokenizer", PRE_TOKENIZERS, texts), ("decoder", DECODERS, tokens)):
        for spec in specs:
            try:
                out["components"].append({"kind": kind, "spec": spec, "want": run_component(kind, spec, inputs)})
            except BaseException as e:
                print("left out", kind, json.dumps(spec), e, file=sys.stderr)
    for kind in ("wordpiece", "bytelevel", "metaspace", "llama", "llama_nofuse"):
        for extra in ADDED:
            out["whole"].append(whole_cases(kind, extra))
    with open(sys.argv[1], "w") as f:
        json.dump(out, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")
