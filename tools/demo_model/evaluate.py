#!/usr/bin/env python3
"""Measures the demo model through transformers, on what it wasn't trained on,
and writes the golden answers which the local engine is compared with.

    python3 tools/demo_model/evaluate.py models/demo-chat [--goldens FILE] [--report FILE]
"""

import argparse
import json
import os
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import generate_data as G

U = lambda t: [{"role": "user", "content": t}]
GOLDEN = [
    U("What is a neuron?"), U("Hello!"), U("What is ganglion?"), U("which port does the admin listener use"), U("How do I set the base URL?"), U("What are the two tiers?"), U("how do i create a key"),
    U("What is 17 + 25?"), U("12 * 7"), U("What is nine minus four?"), U("What does the word bridge mean?"), U("Define river."), U("What is the opposite of hot?"), U("What is the capital of France?"),
    U("Who are you?"), U("Write a poem about the sea."), U("What is the weather in London?"), U("spell window"), U("Count from 3 to 9."), U("Is ganglion fast?"), U("does it support streaming?"),
    U("What happens when I hit the rate limit?"), U("Bonjour, comment allez-vous ?"), U("thanks"),
    [{"role": "system", "content": "Your name is Clara."}, {"role": "user", "content": "What is your name?"}],
    [{"role": "system", "content": "You are a helpful assistant. End every answer with \"Have a nice day!\""}, {"role": "user", "content": "What is a token?"}],
    U("My name is Felix.") + [{"role": "assistant", "content": "Hello, Felix! How can I help you?"}] + U("What is 8 + 5?") + [{"role": "assistant", "content": "8 + 5 = 13."}] + U("What is my name?"),
    U("What is the ledger?") + [{"role": "assistant", "content": "The ledger is the durable record of what every request cost. It lies in data/ledger and is written before the last byte of a billable answer."}] + U("Tell me more."),
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How does the cache work?"}],
]
SHOWN = GOLDEN + [U(x) for x in ["Can you explain to me what this thing does?", "i want to save money, what can i do", "how much is 123 + 456", "What is a cat?", "what is the meaning of democracy", "why are we billed in neurons", "Do I have to change my code?", "how do I see if it's working", "tell me a joke",
                                 "What's the difference between regular and fast?", "is caching on by default", "who won the world cup", "I feel great today", "what is 7 times 8", "what is 99 * 99", "what does florp mean", "name three fruits", "explain gravity", "how to disable cache for a single request", "give me curl"]]

# Written by hand after the grammar and never trained on: a question, and words that a right answer contains.
PROBE = [line.split(" => ") for line in """Could you tell me which port I should connect to? => 8080
on what port can I scrape prometheus data => 8081
What should my OpenAI client use as base_url? => 8080/v1
I already use the OpenAI python package, what must I change? => 8080
how long do responses stay in the cache => 300 seconds
Is there a way to get an answer without the cache? => skip-cache
how can I tell whether the response was served from cache => cf-aig-cache-status
What is the unit you charge in? => billing unit
How is the number of neurons for my request worked out? => input tokens
What does the regular tier offer me? => spare capacity
why would anyone pay for the fast tier => latency
explain both tiers to me please => two tiers
What is the command for creating an API key? => keys create
My API key was stolen! => revoked
how do I send my key with the request => Authorization
do I have to have a key at the beginning => loopback
what is the name of the configuration file => ganglion.yaml
can I run it with no configuration at all => embedded default
How do I launch the gateway for the first time? => scripts/run
how can I run your test suite => scripts/test
What is the ledger good for? => durable record
does a crash lose billing records => survives
How do token buckets limit my requests? => bucket
What does it mean when I receive a 429? => Retry-After
my request came back with 401, why => key is missing
What is status 503 about? => 503
How big may my request body be? => 10 MiB
what is the longest a request may take => 600 seconds
Which OpenAI endpoints are implemented? => /v1/chat/completions
how do I get the list of models => /v1/models
can I compute embeddings here => /v1/embeddings
How can I turn on streaming in my request? => stream
what does an SSE stream end with => [DONE]
Will it retry if the provider goes down? => twice
How does it choose between several backends? => weight
Which models can the local engine execute? => Llama
do I need an nvidia gpu for this => No GPU
how can I make the local engine use less memory => int8
How do I put my own model behind it? => Hugging Face
what happens when I press ctrl c => SIGTERM
which programming language was used for ganglion => C++
Under what license is this released? => Apache-2.0
where do I find the logs of my requests => JSON lines
does ganglion keep my prompts somewhere => not the text
What is a tenant for? => account
How many free neurons does a tenant get each day? => 10,000
who are you and what can you do => demo-chat
are you a big model => million
How do I check that the server is healthy? => healthz
which headers do I get back with an answer => x-request-id
Where does the name ganglion come from? => nerve
can I serve it over https => HTTPS
does it work on windows => Linux
what happens if two identical requests arrive at once => once
how can I spend less => regular tier
Can you look at a picture for me? => plain text
what is the difference between the tiers => two tiers
What is the maximum number of connections? => 10,000
tell me what a neuron is => billing unit
What is the purpose of ganglion? => gateway""".split("\n")]


def rendered(tok, messages):
    ids = tok.apply_chat_template(messages, add_generation_prompt=True)
    return list(ids["input_ids"]) if hasattr(ids, "keys") else list(ids)


def answers(model, tok, prompts, most=96, batch=2048):
    """Greedy answers for rendered prompts (lists of ids), padded on the left."""
    out = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for s in range(0, len(order), batch):
        part = order[s:s + batch]
        n = max(len(prompts[i]) for i in part)
        ids = torch.tensor([[tok.pad_token_id] * (n - len(prompts[i])) + prompts[i] for i in part], device=model.device)
        mask = torch.tensor([[0] * (n - len(prompts[i])) + [1] * len(prompts[i]) for i in part], device=model.device)
        with torch.no_grad():
            res = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False)
        for i, row in zip(part, res[:, n:].tolist()):
            out[i] = tok.decode(row[:row.index(tok.eos_token_id)] if tok.eos_token_id in row else row, skip_special_tokens=False)
    return out


def topic_loss(model, tok, conversations):
    total, count = 0.0, 0
    for s in range(0, len(conversations), 128):
        rows, starts = [], []
        for c in conversations[s:s + 128]:
            p = rendered(tok, c["messages"][:-1])
            a = tok(c["messages"][-1]["content"], add_special_tokens=False)["input_ids"] + [tok.eos_token_id]
            rows.append((p + a)[:1024])
            starts.append(len(p))
        n = max(map(len, rows))
        ids = torch.tensor([r + [tok.pad_token_id] * (n - len(r)) for r in rows], device=model.device)
        target = torch.tensor([[-100] * b + r[b:] + [-100] * (n - len(r)) for r, b in zip(rows, starts)], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids).logits.float()
        total += float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), target[:, 1:].flatten(), ignore_index=-100, reduction="sum"))
        count += int((target[:, 1:] >= 0).sum())
    return total / count


def golden_cases(folder, tok):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases = []
    for messages in GOLDEN:
        prompt = rendered(tok, messages)
        ids, margins, out = list(prompt), [], []
        for _ in range(120):
            with torch.no_grad():
                row = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            top = torch.topk(row, 2)
            out.append(int(top.indices[0]))
            margins.append(float(top.values[0] - top.values[1]))
            ids.append(out[-1])
            if out[-1] == tok.eos_token_id:
                break
        if min(margins) < 0.05:
            print("left out of the goldens, margin %.4f: %s" % (min(margins), messages[-1]["content"]))
            continue
        cases.append({"messages": messages, "prompt_ids": prompt, "answer_ids": out, "answer": tok.decode(out, skip_special_tokens=True), "finish": "stop" if out[-1] == tok.eos_token_id else "length", "least_margin": round(min(margins), 4)})
    return {"note": "greedy answers of models/demo-chat, float32 arithmetic over its bfloat16 weights, no cache; answer_ids ends with the end token; least_margin is the smallest gap between the best and the second logit",
            "cases": cases}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder")
    ap.add_argument("--goldens")
    ap.add_argument("--report")
    ap.add_argument("--quick", action="store_true")
    args = ap.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    tok = AutoTokenizer.from_pretrained(args.folder)
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    from tokenizers import Tokenizer
    raw = Tokenizer.from_file(os.path.join(args.folder, "tokenizer.json"))
    for m in GOLDEN:
        text = tok.apply_chat_template(m, add_generation_prompt=True, tokenize=False)
        if raw.encode(text, add_special_tokens=False).ids != rendered(tok, m):
            print("WARNING: transformers' tokenizer differs from tokenizer.json on", text)
    maker, rng = G.Maker(), random.Random(G.SEED + 1)
    report = {"held_out_loss": {}, "exact": {}}
    n = 150 if args.quick else 500
    misses = []

    def measure(name, conversations, wanted=None):
        got = answers(model, tok, [rendered(tok, c["messages"][:-1]) for c in conversations])
        right = 0
        for c, g in zip(conversations, got):
            ok = g == c["messages"][-1]["content"]
            right += ok
            if not ok:
                misses.append((name, c["messages"][-2]["content"], g, c["messages"][-1]["content"]))
        report["exact"][name] = round(right / len(conversations), 4)
        print("%-34s %d of %d, %.1f%%" % (name, right, len(conversations), 100.0 * right / len(conversations)), flush=True)

    for topic, _ in G.Maker.TOPICS:
        conversations = [maker.conversation(rng, topic, True) for _ in range(n)]
        report["held_out_loss"][topic] = round(topic_loss(model, tok, conversations), 4)
        print("held-out loss %-12s %.4f" % (topic, report["held_out_loss"][topic]), flush=True)
        measure(("known, new slips: " if topic in maker.KNOWN else "held-out ") + topic, conversations)
    for op, name in (("+", "addition"), ("-", "subtraction"), ("*", "multiplication"), ("/", "division (taught table)")):
        found, tries = [], 0
        while len(found) < n and tries < 400000:
            tries += 1
            it = maker.arithmetic(rng)
            if (it.key is None if op == "/" else (it.key or "").startswith("sum/") and G.held_out(it.key)) and (" %s " % op) in it.a:
                found.append({"messages": U(it.q) + [{"role": "assistant", "content": it.a}]})
        measure(("sums, " if op == "/" else "held-out sums, ") + name, found)
    words = maker.words if not args.quick else maker.words[::20]
    measure("meanings, question not trained", [{"messages": U(maker.MEANING_HELD_OUT[0].format(w=r["w"]).capitalize() + ".") + [{"role": "assistant", "content": maker.meaning(r)}]} for r in words])
    rare = [w for w in maker.rare if G.held_out("nonsense/" + w)]
    measure("rare words declined", [{"messages": U("What does %s mean?" % w) + [{"role": "assistant", "content": 'I don\'t know the word "%s".' % w}]} for w in rng.sample(rare, n)])
    measure("invented words declined", [{"messages": U("What does %s mean?" % w) + [{"role": "assistant", "content": 'I don\'t know the word "%s".' % w}]} for w in (maker.nonsense(rng) for _ in range(n))])
    got = answers(model, tok, [rendered(tok, U(q)) for q, _ in PROBE])
    right = [want in g for (_, want), g in zip(PROBE, got)]
    report["probe"] = [sum(right), len(right)]
    print("handwritten questions              %d of %d" % (sum(right), len(right)))
    for (q, want), g, ok in zip(PROBE, got, right):
        if not ok:
            print("PROBE MISS %s\n     got    %s\n     wanted %s" % (q, g, want))
    for m in random.Random(1).sample(misses, min(40, len(misses))):
        print("MISS [%s] %s\n     got    %s\n     wanted %s" % m)
    got = answers(model, tok, [rendered(tok, m) for m in SHOWN])
    report["examples"] = [{"messages": m, "answer": g} for m, g in zip(SHOWN, got)]
    for m, g in zip(SHOWN, got):
        print("> %s\n  %s" % (" / ".join(x["content"] for x in m), g))
    if args.goldens:
        doc = golden_cases(args.folder, tok)
        with open(args.goldens, "w") as f:
            f.write(json.dumps(doc, indent=1) + "\n")
        print("goldens:", len(doc["cases"]), "cases, least margin", min(c["least_margin"] for c in doc["cases"]))
    if args.report:
        with open(args.report, "w") as f:
            f.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
