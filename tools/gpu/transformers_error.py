#!/usr/bin/env python3
"""How far transformers itself is from the float32 goldens of tests/data/local when it computes in bfloat16 on the GPU:
the yardstick beside which the device tests' errors are read. Needs torch and transformers; run from the source root."""

import array
import json
import pathlib

import torch
import transformers

DATA = pathlib.Path("tests/data/local")
transformers.logging.set_verbosity_error()

for folder in sorted(p.parent for p in DATA.glob("*/logits.f32")):
    goldens = json.loads((folder / "goldens.json").read_text())
    rows = array.array("f", (folder / "logits.f32").read_bytes())
    vocab = goldens["vocab_size"]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa").cuda().eval()
    worst = 0.0
    for case in goldens["cases"]:
        with torch.no_grad():
            logits = model(torch.tensor([case["prompt_ids"]]).cuda()).logits[0].float().cpu()
        for i, position in enumerate(case["positions"]):
            at = (case["logits_offset"] + i) * vocab
            want = torch.tensor(rows[at:at + vocab])
            worst = max(worst, (torch.linalg.norm(logits[position] - want) / torch.linalg.norm(want)).item())
    print(f"transformers bf16 {folder.name}: worst relative error of logits {worst:.2e}")
