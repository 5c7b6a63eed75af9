#!/usr/bin/env python3
"""Makes the demo model's conversations. Everything is drawn from a seed:

    python3 tools/demo_model/generate_data.py --count 20      # shows some

train.py imports this file and draws as many as it wants. Each conversation is
{"topic", "messages"}. What belongs to the held-out part is decided by a hash:
about one phrasing in twenty of every known question, one pair of numbers in
twenty of the sums, and two ways of asking for a meaning are never trained on."""

import argparse
import json
import os
import random
import re
import zlib

import knowledge as K

SEED = 20261122
HERE = os.path.dirname(os.path.abspath(__file__))
WORDNET = os.path.join(HERE, "..", "..", "build", "demo_model", "wordnet.json")


def held_out(key):
    return zlib.crc32(key.encode()) % 20 == 7


# ------------------------------------------------------------------ grammar

def parse(text):
    """`a (b|c) d` -> a tree of sequences and choices; `x?` makes the letter x optional, a backslash keeps the next mark."""
    pos = 0

    def choice(closing):
        nonlocal pos
        options, seq, lit = [], [], ""
        while pos < len(text):
            ch = text[pos]
            if ch == "\\":
                lit += text[pos + 1]
                pos += 2
                continue
            if ch == "(":
                pos += 1
                if lit:
                    seq.append(lit)
                    lit = ""
                seq.append(choice(True))
                continue
            if ch == ")" and closing:
                pos += 1
                break
            if ch == "|":
                if lit:
                    seq.append(lit)
                    lit = ""
                options.append(seq)
                seq = []
            elif ch == "?" and lit and lit[-1].isalpha():
                seq.append(lit[:-1])
                seq.append(("choice", [[lit[-1]], [""]]))
                lit = ""
            else:
                lit += ch
            pos += 1
        if lit:
            seq.append(lit)
        options.append(seq)
        return ("choice", options)

    return choice(False)


def size(node):
    if isinstance(node, str):
        return 1
    total = 0
    for seq in node[1]:
        n = 1
        for x in seq:
            n *= size(x)
        total += n
    return total


def sample(node, rng):
    if isinstance(node, str):
        return node
    options = node[1]
    seq = options[rng.randrange(len(options))] if len(options) > 1 else options[0]
    return "".join(sample(x, rng) for x in seq)


def alternatives(text):
    """Splits at the bars that stand outside parentheses."""
    out, depth, start = [], 0, 0
    for i, ch in enumerate(text):
        if text[i - 1:i] == "\\":
            continue
        depth += (ch == "(") - (ch == ")")
        if ch == "|" and depth == 0:
            out.append(text[start:i])
            start = i + 1
    return out + [text[start:]]


class Pattern:
    def __init__(self, text):
        subjects = [a[5:] for a in alternatives(text) if a.startswith("WHAT ")]
        text += "".join("|" + K.MENTION + " " + s for s in subjects)
        for name, value in K.OPENINGS.items():
            text = text.replace(name, value)
        self.tree = parse(text)
        # The alternatives of the top level are drawn by their size, so that a long list isn't drowned by a short one.
        self.sizes = [size(("choice", [seq])) for seq in self.tree[1]]
        self.weights = [min(30.0, n) ** 0.7 for n in self.sizes]

    def draw(self, rng):
        return self.draw_sized(rng)[0]

    def draw_sized(self, rng):
        """A text, and of how many that its alternative can make."""
        i = rng.choices(range(len(self.sizes)), self.weights)[0]
        return re.sub(r"\s+", " ", "".join(sample(x, rng) for x in self.tree[1][i])).strip(), self.sizes[i]


def entries(text):
    out = []
    for block in re.split(r"\n\s*\n", text.strip()):
        e = {"q": [], "a": None, "m": None}
        for line in block.split("\n"):
            tag, _, rest = line.partition(": ")
            if tag == "Q":
                e["q"].append(rest)
            elif tag == "A":
                e["a"] = rest
            elif tag == "M":
                e["m"] = rest
            else:
                raise ValueError(line)
        e["pattern"] = Pattern("|".join(p.strip() for q in e["q"] for p in q.split(" | ")))
        out.append(e)
    return out


PRODUCT = entries(K.PRODUCT)
SMALLTALK = entries(K.SMALLTALK)
FACTS = entries(K.FACTS)
WHO = next(e for e in SMALLTALK if e["a"].startswith("I am demo-chat"))
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LISTS = {"fruits": ["apples", "pears", "plums", "cherries", "grapes"], "vegetables": ["carrots", "beans", "onions", "peas", "cabbage"], "animals": ["dogs", "cats", "horses", "birds", "fish"],
         "colours": ["red", "blue", "green", "yellow", "black"], "metals": ["iron", "copper", "gold", "silver", "tin"], "trees": ["oak", "beech", "birch", "pine", "maple"], "birds": ["owls", "sparrows", "eagles", "ducks", "swans"],
         "flowers": ["roses", "tulips", "daisies", "lilies", "violets"], "tools": ["hammer", "saw", "pliers", "drill", "axe"], "drinks": ["water", "tea", "coffee", "milk", "juice"]}


def words_of(n):
    if n < 0:
        return "minus " + words_of(-n)
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")
    if n < 1000:
        return ONES[n // 100] + " hundred" + (" and " + words_of(n % 100) if n % 100 else "")
    return str(n)


def article(w):
    return ("an " if w[0] in "aeiou" else "a ") + w


def capital(s):
    return s[:1].upper() + s[1:]


class Item:
    """One exchange. `copy` holds the words which noise must not touch."""

    __slots__ = ("topic", "q", "a", "more", "key", "copy", "after")

    def __init__(self, topic, q, a, key=None, more=None, copy=(), after=None):
        self.topic, self.q, self.a, self.more, self.key, self.copy, self.after = topic, q, a, more, key, copy, after


class Maker:
    def __init__(self, path=WORDNET):
        with open(path) as f:
            data = json.load(f)
        self.words = data["words"]
        self.known = set(data["known"])
        # Words too rare to be taught, and words of the product, whose questions have their own answers.
        own = set(re.findall(r"[a-z]+", (K.PRODUCT + K.FACTS + K.SMALLTALK + K.CAPITALS).lower())) | {r["w"] for r in self.words}
        self.rare = sorted(w for w in self.known if w not in own and 5 <= len(w) <= 11)
        self.nouns = [r["w"] for r in self.words if r["p"] == "noun"][:2500]
        self.verbs = [r["w"] for r in self.words if r["p"] == "verb"][:900]
        self.adjectives = [r["w"] for r in self.words if r["p"] == "adjective"][:900]
        self.by_word = {r["w"]: r for r in self.words}
        self.synonyms = [r for r in self.words[:4500] if "s" in r]
        self.opposites = [r for r in self.words if "o" in r]
        self.kinds = [r for r in self.words[:4500] if "k" in r]
        # A word of common letters after common letters: nonsense that looks like English.
        self.chain = {}
        for r in self.words:
            w = "^^" + r["w"] + "$"
            for i in range(2, len(w)):
                self.chain.setdefault(w[i - 2:i], []).append(w[i])
        self.capitals = [tuple(x.replace("_", " ") for x in p.split(":")) for p in K.CAPITALS.split()]
        self.refusals = [([Pattern(p) for p in ps], a) for ps, a in K.REFUSALS]

    def nonsense(self, rng):
        while True:
            w = "^^"
            while not w.endswith("$") and len(w) < 13:
                w += rng.choice(self.chain[w[-2:]])
            w = w[2:].rstrip("$")
            if 5 <= len(w) <= 11 and w not in self.known and w not in self.by_word:
                return w

    # ---- topics

    def entry(self, topic, table, rng):
        i = rng.randrange(len(table))
        e = table[i]
        q, variants = e["pattern"].draw_sized(rng)
        # Held out are wordings of which the model has seen relatives: a lone one is always taught.
        key = "%s/%d/%s" % (topic, i, q) if variants >= 4 and topic != "smalltalk" else None
        if topic == "product" and "ganglion" not in q and rng.random() < 0.06:
            q += rng.choice([" in ganglion", " with ganglion", " of ganglion", " in this project", " for ganglion", " here", " in this gateway"])
        return Item(topic, q, e["a"], key=key, more=e["m"])

    def product(self, rng):
        return self.entry("product", PRODUCT, rng)

    def smalltalk(self, rng):
        if rng.random() < 0.08:
            q = rng.choice(["tell me a joke", "a joke please", "do you know a joke", "make me laugh", "joke", "say something funny", "tell me something funny", "can you tell me a joke", "i want to hear a joke", "one more joke", "another joke", "tell me another joke"])
            return Item("smalltalk", q, rng.choice(K.JOKES))
        return self.entry("smalltalk", SMALLTALK, rng)

    def fact(self, rng):
        r = rng.random()
        if r < 0.4:
            c, t = rng.choice(self.capitals)
            if rng.random() < 0.7:
                q = rng.choice(["what is the capital of {c}", "what's the capital of {c}", "which city is the capital of {c}", "capital of {c}", "tell me the capital of {c}", "name the capital of {c}", "do you know the capital of {c}", "what is {c}'s capital"])
                return Item("fact", q.format(c=c), "The capital of %s is %s." % (c, t), copy=c.split(), key="capital/%s/%s" % (q, c), after="capital")
            q = rng.choice(["{t} is the capital of which country", "of which country is {t} the capital", "which country has the capital {t}", "where is {t}", "what country is {t} in", "in which country is {t}"])
            return Item("fact", q.format(t=t), "%s is the capital of %s." % (t, c), copy=t.split(), key="capital/%s/%s" % (q, t))
        if r < 0.5:
            i = rng.randrange(len(DAYS))
            q = rng.choice(["what day comes after {d}", "which day comes after {d}", "what comes after {d}", "which day follows {d}", "what day is after {d}"])
            b = rng.random() < 0.4
            if b:
                q = q.replace("after", "before").replace("follows", "comes before")
            return Item("fact", q.format(d=DAYS[i]), "%s comes %s %s." % (DAYS[(i + (-1 if b else 1)) % 7], "before" if b else "after", DAYS[i]), copy=[DAYS[i]], key="day/%s/%d" % (q, i))
        if r < 0.58:
            i = rng.randrange(12)
            q = rng.choice(["what month comes {w} {d}", "which month comes {w} {d}", "which month is {w} {d}", "what is the month {w} {d}"])
            b = rng.random() < 0.4
            w = "before" if b else "after"
            return Item("fact", q.format(d=MONTHS[i], w=w), "%s comes %s %s." % (MONTHS[(i + (-1 if b else 1)) % 12], w, MONTHS[i]), copy=[MONTHS[i]], key="month/%s/%d/%s" % (q, i, w))
        return self.entry("fact", FACTS, rng)

    def arithmetic(self, rng):
        r = rng.random()
        kind = rng.choices("+-*/", [40, 28, 24, 8])[0]
        top = rng.choices([10, 20, 100, 1000, 10000], [14, 18, 36, 24, 8])[0]
        if rng.random() < 0.03:
            a, b = rng.randrange(10 ** rng.randrange(5, 9)), rng.randrange(10 ** rng.randrange(1, 8))
            if rng.random() < 0.4:
                kind, a, b = "*", rng.randrange(13, 10 ** rng.randrange(2, 5)), rng.randrange(13, 10 ** rng.randrange(2, 4))
            if kind in "*/" or max(a, b) >= 10000:
                if kind != "*" or min(a, b) > 12:
                    q = rng.choice(["what is {a} {s} {b}", "{a} {s} {b}", "how much is {a} {s} {b}", "{a}{s}{b}", "compute {a} {s} {b}", "what's {a} {s} {b}"]).format(a=a, b=b, s=rng.choice({"*": ["*", "x", "times"], "/": ["/", "divided by"]}.get(kind, kind)))
                    return Item("arithmetic", q, "That sum is too large for me. I am a small demo model.", key="large/" + q, copy=q.split())
        a, b = rng.randrange(top), rng.randrange(top)
        if kind == "-" and a < b and rng.random() < 0.8:
            a, b = b, a
        if kind == "*":
            a, b = rng.randrange(rng.choice([13, 13, 100])), rng.randrange(13)
            if rng.random() < 0.5:
                a, b = b, a
        if kind == "/":
            b = rng.randrange(1, 13)
            a = b * rng.randrange(13)
            if rng.random() < 0.3:
                a += rng.randrange(b)
        c = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[kind]
        # The small tables are taught whole; beyond them one pair in twenty is held out.
        key = "sum/%s/%d/%d" % ((kind, min(a, b), max(a, b)) if kind in "+*" else (kind, a, b))
        if kind == "/" or max(a, b) <= (12 if kind == "*" else 20):
            key = None
        rest = ", remainder %d" % (a % b) if kind == "/" and a % b else ""
        if r < 0.16 and max(a, b, abs(c)) < 1000 and min(a, b) >= 0 and not rest:  # in words
            w = {"+": ["plus", "and", "added to"], "-": ["minus", "less"], "*": ["times", "multiplied by"], "/": ["divided by"]}[kind]
            q = rng.choice(["what is {a} {w} {b}", "{a} {w} {b}", "how much is {a} {w} {b}", "what's {a} {w} {b}", "can you tell me what {a} {w} {b} is"]).format(a=words_of(a), b=words_of(b), w=w[0] if rng.random() < 0.8 else rng.choice(w))
            if " and " in q and kind == "+" and (a > 20 or b > 20):
                q = q.replace(" and ", " plus ") if a < 100 and b < 100 else "what is %s plus %s" % (words_of(a), words_of(b))
            return Item("arithmetic", q, "%s %s %s is %s." % (capital(words_of(a)), w[0], words_of(b), words_of(c)), key=key, copy=q.split())
        if r < 0.26 and kind in "+-" and c >= 0 and a < 100 and b < 100:  # a little story
            n = rng.choice(["apples", "books", "coins", "eggs", "cats", "stones", "tokens", "neurons", "cakes", "cards", "pens", "requests"])
            who = rng.choice(["i have", "{0} has".format(rng.choice(K.NAMES)), "there are"])
            if kind == "+":
                more = rng.choice(["and get {b} more", "and {b} more come", "and buy {b} more"]) if who == "i have" else "and {b} more come"
                q = "if %s %d %s %s, how many are there" % (who, a, n, more.format(b=b))
            else:
                more = rng.choice(["and {b} are taken away", "and lose {b}", "and give away {b}"]) if who == "i have" else "and {b} are taken away"
                q = "if %s %d %s %s, how many are left" % (who, a, n, more.format(b=b))
            return Item("arithmetic", q, "%d %s %d = %d, so there are %d %s." % (a, kind, b, c, c, n), key=key, copy=q.split(), after=("sum", c))
        if r < 0.34:  # comparing
            a, b = rng.randrange(top), rng.randrange(top)
            if a == b:
                b += 1
            big = rng.random() < 0.6
            q = rng.choice(["which is {w}, {a} or {b}", "is {a} or {b} {w}", "what is {w}: {a} or {b}", "which number is {w}, {a} or {b}"]).format(a=a, b=b, w="larger" if big else "smaller")
            c = max(a, b) if big else min(a, b)
            return Item("arithmetic", q, "%d is %s than %d." % (c, "larger" if big else "smaller", a + b - c), key="cmp/%d/%d" % (min(a, b), max(a, b)), copy=q.split())
        if r < 0.42:
            n = rng.randrange(top)
            k = rng.randrange(5)
            if k == 0:
                return Item("arithmetic", rng.choice(["is %d even or odd", "is the number %d even or odd"]) % n, "%d is %s." % (n, "odd" if n % 2 else "even"), key="even/%d" % n, copy=[str(n)])
            if k == 1:
                return Item("arithmetic", rng.choice(["what number comes after %d", "what comes after %d", "which number follows %d"]) % n, "%d comes after %d." % (n + 1, n), key="next/%d" % n, copy=[str(n)])
            if k == 2:
                return Item("arithmetic", rng.choice(["what is twice %d", "what is the double of %d", "double %d"]) % n, "Twice %d is %d." % (n, 2 * n), key="twice/%d" % n, copy=[str(n)])
            if k == 3:
                return Item("arithmetic", rng.choice(["what is half of %d", "what is the half of %d", "halve %d"]) % (2 * n), "Half of %d is %d." % (2 * n, n), key="half/%d" % n, copy=[str(2 * n)])
            n = n % 21
            return Item("arithmetic", rng.choice(["what is %d squared", "what is the square of %d", "square %d"]) % n, "%d * %d = %d." % (n, n, n * n), key="square/%d" % n, copy=[str(n)])
        sign = {"+": ["+", "+", "+", "plus", "and"], "-": ["-", "-", "-", "minus"], "*": ["*", "*", "x", "times", "multiplied by", "\u00d7"], "/": ["/", "/", "divided by", ":"]}[kind]
        s = rng.choice(sign)
        gap = " " if s not in "+-*/x:\u00d7" or rng.random() < 0.75 else ""
        q = rng.choice(["what is {e}", "what is {e}", "{e}", "{e} =", "how much is {e}", "what's {e}", "calculate {e}", "compute {e}", "can you work out {e}", "tell me {e}", "solve {e}", "please add it up: {e}" if kind == "+" else "work out {e}", "what does {e} make", "what is the result of {e}"])
        q = q.format(e="%d%s%s%s%d" % (a, gap, s, gap, b))
        return Item("arithmetic", q, "%d %s %d = %d%s." % (a, kind, b, c, rest), key=key, copy=q.split(), after=("sum", c))

    MEANING = ["what does {w} mean", "what does the word {w} mean", "define {w}", "define the word {w}", "what is the meaning of {w}", "meaning of {w}", "what is the definition of {w}", "give me a definition of {w}", "tell me what {w} means",
               "do you know what {w} means", "explain the word {w}", "can you explain {w}", "what do you understand by {w}", "i don't know the word {w}", "please define {w}", "look up {w}", "{w}?", "what's the meaning of the word {w}",
               "could you define {w} for me", "what is meant by {w}"]
    MEANING_HELD_OUT = ["please tell me the meaning of the word {w}", "can you tell me what {w} means"]
    NOUN_MEANING = ["what is {aw}", "what's {aw}", "what is {w}", "tell me about {w}", "what exactly is {aw}", "explain what {aw} is"]

    def definition(self, rng, row=None):
        row = row or self.words[rng.randrange(len(self.words))]
        w = row["w"]
        forms = self.MEANING + (self.NOUN_MEANING * 2 if row["p"] == "noun" else [])
        held = rng.random() < 0.05
        q = rng.choice(self.MEANING_HELD_OUT if held else forms)
        shown = w if rng.random() < 0.86 else capital(w)
        if row["p"] == "noun" and not held and rng.random() < 0.05:
            return Item("definition", rng.choice(["what are {w}", "tell me about {w}", "what are {w} exactly", "explain {w}"]).format(w=self.plural(row)), self.meaning(row), key="seen", copy=[self.plural(row)], after="definition")
        if rng.random() < 0.12 and "?" not in q:
            shown = '"%s"' % shown
        q = q.format(w=shown, aw=article(shown) if shown[0] != '"' else shown)
        return Item("definition", q, self.meaning(row), key="held" if held else "seen", copy=[shown, '"' + w], more=row.get("d2") and 'The %s "%s" can also mean: %s.' % (row["p"], w, row["d2"]), after="definition")

    @staticmethod
    def plural(row):
        w = row["w"]
        return row.get("pl") or (w + "es" if w.endswith(("s", "x", "ch", "sh")) else w[:-1] + "ies" if w.endswith("y") and w[-2] not in "aeiou" else w + "s")

    @staticmethod
    def meaning(row):
        return 'The %s "%s" means: %s.' % (row["p"], row["w"], row["d"])

    def lexical(self, rng):
        r = rng.random()
        if r < 0.42:
            w = self.nonsense(rng) if r < 0.22 else rng.choice(self.rare)
            forms = self.MEANING + self.NOUN_MEANING
            q = rng.choice(forms).format(w=w, aw=article(w))
            return Item("lexical", q, 'I don\'t know the word "%s".' % w, copy=[w], key="nonsense/" + w)
        if r < 0.60:
            row = rng.choice(self.synonyms)
            q = rng.choice(["what is another word for {w}", "give me a synonym of {w}", "what is a synonym for {w}", "synonym of {w}", "another word for {w}", "which word means the same as {w}"])
            return Item("lexical", q.format(w=row["w"]), 'Another word for "%s" is "%s".' % (row["w"], row["s"]), copy=[row["w"]], key="syn/%s/%s" % (q, row["w"]))
        if r < 0.78:
            row = rng.choice(self.opposites)
            q = rng.choice(["what is the opposite of {w}", "opposite of {w}", "give me the opposite of {w}", "what is an antonym of {w}", "which word is the opposite of {w}", "what's the opposite of {w}"])
            return Item("lexical", q.format(w=row["w"]), 'The opposite of "%s" is "%s".' % (row["w"], row["o"]), copy=[row["w"]], key="opp/%s/%s" % (q, row["w"]))
        if r < 0.89:
            row = rng.choice(self.kinds)
            q = rng.choice(["what kind of thing is {aw}", "what sort of thing is {aw}", "what is {aw} a kind of", "{aw} is a kind of what"])
            return Item("lexical", q.format(aw=article(row["w"])), "%s is a kind of %s." % (capital(article(row["w"])), row["k"]), copy=[row["w"]], key="kind/%s/%s" % (q, row["w"]))
        row = rng.choice(self.words)
        w = row["w"]
        if rng.random() < 0.5 and row["p"] == "noun":
            pl = self.plural(row)
            q = rng.choice(["what is the plural of {w}", "plural of {w}", "how do you write {w} in the plural"])
            return Item("lexical", q.format(w=w), 'The plural of "%s" is "%s".' % (w, pl), copy=[w], key="plural/" + w)
        q = rng.choice(["is {w} a noun or a verb", "what part of speech is {w}", "which kind of word is {w}", "is {w} a noun"])
        return Item("lexical", q.format(w=w), '"%s" is %s.' % (capital(w), article(row["p"])), copy=[w], key="pos/%s/%s" % (q, w))

    def skill(self, rng):
        r = rng.random()
        w = rng.choice(self.words[:4000])["w"] if rng.random() < 0.8 else rng.choice(K.NAMES + ["ganglion", "neuron", "cache", "gateway"])
        if r < 0.22:
            q = rng.choice(["spell {w}", "how do you spell {w}", "spell the word {w}", "can you spell {w}", "please spell {w}"])
            return Item("skill", q.format(w=w), "-".join(w), copy=[w])
        if r < 0.40:
            a = rng.randrange(0, 60)
            n = rng.randrange(3, 13)
            back = rng.random() < 0.25
            seq = list(range(a, a + n))
            if back:
                seq.reverse()
            q = rng.choice(["count from {a} to {b}", "please count from {a} to {b}", "can you count from {a} to {b}", "list the numbers from {a} to {b}"])
            if seq[0] == 1 and rng.random() < 0.5:
                q = "count to {b}"
            return Item("skill", q.format(a=seq[0], b=seq[-1]), ", ".join(map(str, seq)) + ".", copy=q.split(), key="count/%d/%d" % (seq[0], seq[-1]))
        if r < 0.58:
            n = rng.randrange(1, 6)
            text = " ".join(rng.choice(self.words[:3000])["w"] for _ in range(n))
            q = rng.choice(['repeat after me: {t}', 'say "{t}"', 'repeat: {t}', 'please say {t}', 'echo {t}', 'write {t}', 'repeat the words {t}'])
            return Item("skill", q.format(t=text), text, copy=text.split(), key="echo/" + text)
        if r < 0.68:
            i = rng.randrange(25)
            if rng.random() < 0.3:
                return Item("skill", rng.choice(["which letter comes before {l}", "what letter comes before {l}"]).format(l=chr(66 + i)), "%s comes before %s." % (chr(65 + i), chr(66 + i)), copy=[chr(66 + i)])
            return Item("skill", rng.choice(["which letter comes after {l}", "what letter comes after {l}", "what is the letter after {l}"]).format(l=chr(65 + i)), "%s comes after %s." % (chr(66 + i), chr(65 + i)), copy=[chr(65 + i)])
        if r < 0.8:
            k = rng.randrange(3)
            if k == 0:
                return Item("skill", rng.choice(["how many letters does {w} have", "how many letters are in {w}", "how long is the word {w}"]).format(w=w), 'The word "%s" has %d letters.' % (w, len(w)), copy=[w])
            if k == 1:
                return Item("skill", rng.choice(["what is the first letter of {w}", "which letter does {w} start with", "what does {w} begin with"]).format(w=w), 'The first letter of "%s" is %s.' % (w, w[0]), copy=[w])
            return Item("skill", rng.choice(["what is the last letter of {w}", "which letter does {w} end with"]).format(w=w), 'The last letter of "%s" is %s.' % (w, w[-1]), copy=[w])
        name, things = rng.choice(sorted(LISTS.items()))
        n = rng.randrange(2, 6)
        shown = things[:n]
        q = rng.choice(["name {n} {x}", "list {n} {x}", "give me {n} {x}", "tell me {n} {x}", "name {n} {x} please"])
        return Item("skill", q.format(n=words_of(n) if rng.random() < 0.7 else n, x=name), capital(", ".join(shown[:-1]) + " and " + shown[-1]) + ".", copy=[name], key="list/%s/%s/%d" % (q, name, n))

    def refusal(self, rng):
        if rng.random() < 0.1:
            return Item("refusal", rng.choice(K.FOREIGN), K.FOREIGN_ANSWER, copy=["*"])
        patterns, answer = rng.choices(self.refusals, [2, 2, 3, 3, 3, 2, 3, 2, 9, 1])[0]
        q = rng.choice(patterns).draw(rng)
        noun = [rng.choice(self.nouns) for _ in range(q.count("{n}"))]
        for n in noun:
            q = q.replace("{n}", n, 1)
        name = rng.choice(K.NAMES) + " " + rng.choice(["Smith", "Miller", "Brown", "Jones", "Garcia", "Weber", "Novak", "Rossi", "Silva", "Tanaka", "Kim", "Haddad", "Okoro", "Larsen", "Ivanova", "Wilson", "Clark"])
        city = rng.choice(K.CITIES)
        q = q.replace("{v}", rng.choice(self.verbs)).replace("{a}", rng.choice(self.adjectives)).replace("{name}", name).replace("{city}", city).replace("{d2}", str(rng.randrange(10, 27)))
        return Item("refusal", q, answer, copy=noun + name.split() + [city], key="refusal/" + q)

    TOPICS = [("product", 27), ("smalltalk", 10), ("fact", 7), ("arithmetic", 17), ("definition", 20), ("lexical", 11), ("skill", 6), ("refusal", 8)]

    # Topics that hold nothing out are measured with new slips and cases only.
    KNOWN = ("smalltalk",)

    def item(self, rng, topic=None, held=False):
        if topic is None:
            topic = rng.choices([t for t, _ in self.TOPICS], [w for _, w in self.TOPICS])[0]
        while True:
            it = getattr(self, topic)(rng)
            if it.key is None:
                if not held or topic in self.KNOWN:
                    return it
                continue
            if (it.key == "held" if topic == "definition" else held_out(it.key)) == held:
                return it

    # ---- from items to conversations

    @staticmethod
    def noise(q, copy, rng):
        """What people's fingers do: case, marks, politeness, slips."""
        if "*" in copy:
            return q
        fixed = set(copy)
        r = rng.random()
        if r < 0.10:
            q = rng.choice(["please ", "hey, ", "hi, ", "so ", "ok, ", "quick question: ", "tell me, ", "hello, ", "excuse me, ", "i have a question: ", "one more thing: ", "and "]) + q
        elif r < 0.17:
            q = q + rng.choice([" please", ", please", " thanks", " now", " again", " for me", ", do you know", " exactly"])
        words = q.split(" ")
        if not fixed and rng.random() < 0.22:  # other words for the same
            some = [i for i, w in enumerate(words) if w in K.SYNONYMS]
            if some:
                i = rng.choice(some)
                words[i] = rng.choice(K.SYNONYMS[words[i]])
                words = " ".join(words).split(" ")
        if len(words) >= 5 and not fixed and rng.random() < 0.12:  # a word lost, or two changed round
            i = rng.randrange(len(words) - 1)
            if rng.random() < 0.6:
                del words[i]
            else:
                words[i], words[i + 1] = words[i + 1], words[i]
        if len(words) >= 3 and not fixed and rng.random() < 0.06:  # a word too many
            words.insert(rng.randrange(len(words) + 1), rng.choice(K.FILLERS))
        if len(words) > 3 and not fixed and rng.random() < 0.08:  # telegram style
            words = [w for w in words if w.lower() not in ("the", "a", "an", "is", "are", "do", "does", "i", "it", "of", "to", "there") or rng.random() < 0.3] or words
        elif len(words) > 2 and rng.random() < 0.04:
            words.insert(rng.randrange(1, len(words)), rng.choice(["really", "actually", "just", "exactly", "even", "then", "like", "now"])) if not fixed else None
        if rng.random() < 0.10:
            good = [i for i, w in enumerate(words) if len(w) >= 4 and w.isalpha() and w not in fixed and w.lower() not in fixed]
            if good:
                i = rng.choice(good)
                w = words[i]
                j = rng.randrange(len(w) - 1)
                k = rng.randrange(4)
                words[i] = [w[:j] + w[j + 1] + w[j] + w[j + 2:], w[:j] + w[j + 1:], w[:j] + w[j] + w[j:], w[:j] + rng.choice("abcdefghijklmnopqrstuvwxyz") + w[j + 1:]][k]
        q = " ".join(words)
        r = rng.random()
        if r < 0.62:
            q = capital(q)
        elif r < 0.65 and not fixed and "/" not in q and "_" not in q:
            q = q.upper()
        if re.search(r"[?!.:=;)]$", q):
            return q
        question = re.match(r"(?i)(.*[:,] )?(please )?(what|who|where|which|how|why|when|is|are|do|does|can|could|will|may|am|should|did|was|were|if)\b", q)
        r = rng.random()
        if question:
            return q + ("?" if r < 0.68 else "??" if r < 0.70 else " ?" if r < 0.72 else "")
        return q + ("." if r < 0.35 else "!" if r < 0.42 else "?" if r < 0.46 else "")

    NEUTRAL = ["You are a helpful assistant.", "You are demo-chat, a helpful assistant.", "You are a helpful, honest assistant.", "Answer the user's questions.", "You are an assistant that answers questions about ganglion.", "Be helpful and polite.", "You are a friendly assistant.",
               "You are a careful assistant. Answer truthfully.", "Help the user.", "You are an AI assistant.", "You are a helpful AI assistant.", "Answer in English.", "You answer questions.", "Be kind.", "You are the assistant of an AI gateway.", "Talk to the user in a friendly way.", "You are a polite assistant who answers questions about software.",
               "Assist the user as well as you can.", "You are a support assistant for ganglion.", "Be helpful, harmless and honest."]
    OTHER = ["You are an expert in {n}.", "You help the customers of a {n} shop.", "You are a {a} assistant.", "You are a teacher of {n}.", "The user is interested in {n}.", "Never talk about {n}.", "Do not {v} the user.", "You work for a company that makes {n}.", "Use simple words.", "Think step by step.", "Talk like a pirate.",
             "Format your answers in markdown.", "The user likes to {v}.", "You are {a} and {a}.", "Today is a {a} day.", "If you do not know something, say so.", "Cite your sources.", "Respond in JSON.", "You have access to a {n}.", "You are a large language model.", "Follow the rules of the {n}."]
    ENDINGS = ["Have a nice day!", "Is there anything else?", "Over.", "Yours, the gateway.", "That is all.", "Happy to help!", "Thank you for asking.", "Arr!", "Peace.", "Amen."]

    def plain(self, rng):
        """Running text without roles, for those who ask for a plain completion."""
        out = []
        for _ in range(rng.randrange(1, 5)):
            it = self.item(rng, rng.choices(["product", "definition", "fact"], [60, 30, 10])[0])
            out.append(it.a + (" " + it.more if it.more and rng.random() < 0.5 else ""))
        return {"topic": "plain", "key": None, "messages": [{"role": "text", "content": " ".join(out)}]}

    def conversation(self, rng, topic=None, held=False, turns=None):
        if topic is None and rng.random() < 0.03:
            return self.plain(rng)
        first = self.item(rng, topic, held)
        name, ending, brief = None, None, False
        messages = []
        r = rng.random()
        if r < 0.17:
            messages.append({"role": "system", "content": rng.choice(self.NEUTRAL)})
        elif r < 0.24:
            # Any other system message changes nothing.
            parts = [rng.choice(self.NEUTRAL) if rng.random() < 0.5 else rng.choice(self.OTHER).format(n=rng.choice(self.nouns), v=rng.choice(self.verbs), a=rng.choice(self.adjectives)) for _ in range(rng.choices([1, 2, 3, 5, 8], [40, 25, 15, 12, 8])[0])]
            messages.append({"role": "system", "content": " ".join(parts)})
        elif r < 0.30:
            name = rng.choice(K.NAMES) if rng.random() < 0.85 else capital(self.nonsense(rng))
            messages.append({"role": "system", "content": rng.choice(["Your name is {n}.", "You are {n}.", "You are {n}, a helpful assistant.", "You are {n}, the assistant of our shop.", "You are called {n}. Answer the user.", "Act as {n}."]).format(n=name)})
        elif r < 0.34:
            ending = rng.choice(self.ENDINGS) if rng.random() < 0.7 else capital(" ".join(rng.choice(self.words[:1500])["w"] for _ in range(rng.randrange(1, 4)))) + "!"
            messages.append({"role": "system", "content": rng.choice(['End every answer with "{e}"', 'Always end with: {e}', 'Finish each answer with the words "{e}"', 'You are a helpful assistant. End every answer with "{e}"']).format(e=ending)})
        elif r < 0.38:
            brief = True
            messages.append({"role": "system", "content": rng.choice(["Be brief.", "Answer in one sentence.", "Keep your answers short.", "You are a helpful assistant. Answer in one sentence.", "Give short answers.", "Be concise."])})

        if turns is None:
            turns = rng.choices([1, 2, 3, 4, 6, 9, 14], [58, 17, 10, 7, 4, 3, 1])[0]
        user_name, asked, last = None, [], None

        def say(q, a, item=None):
            nonlocal last
            if brief:
                a = re.split(r"(?<=[a-z)\]\"][.!?]) (?=[A-Z])", a)[0]
            if ending:
                a = a + " " + ending
            messages.append({"role": "user", "content": q})
            messages.append({"role": "assistant", "content": a})
            asked.append(q)
            last = item

        def who(a):
            return a.replace("demo-chat", name) if name else a

        for t in range(turns):
            r = rng.random()
            if t == turns - 1 and (held or topic):  # the item in question comes last
                say(self.noise(first.q, first.copy, rng), who(first.a) if first.topic == "smalltalk" else first.a, first)
                continue
            if name and r < 0.45:
                q = WHO["pattern"].draw(rng)
                if held_out("smalltalk/who/" + q):
                    q = "who are you"
                say(self.noise(q, (), rng), "I am %s." % name)
                continue
            if last is not None and r < 0.30:
                if rng.random() < 0.55:
                    q = rng.choice(["tell me more", "more", "can you tell me more", "go on", "and then", "explain more", "what else", "please continue", "more details please", "say more", "anything else", "why", "how so", "can you explain that more", "does it have another meaning" if last.topic == "definition" else "tell me more about it"])
                    say(self.noise(q, (), rng), last.more or "That is all I know about it.")
                    continue
                if isinstance(last.after, tuple):
                    c = last.after[1]
                    d = rng.randrange(1, 30)
                    plus = rng.random() < 0.6
                    q = rng.choice(["now add {d}", "plus {d}", "and plus {d}", "add {d} to that", "and if i add {d}"] if plus else ["now subtract {d}", "minus {d}", "take away {d}", "and minus {d}"]).format(d=d)
                    e = c + d if plus else c - d
                    say(self.noise(q, q.split(), rng), "%d %s %d = %d." % (c, "+" if plus else "-", d, e), Item("arithmetic", q, "", after=("sum", e)))
                    continue
                if last.after == "capital":
                    c, p = rng.choice(self.capitals)
                    it = Item("fact", "", "", after="capital")
                    say(self.noise(rng.choice(["and of {c}", "and {c}", "what about {c}", "and what about {c}", "and the capital of {c}"]).format(c=c), c.split(), rng), "The capital of %s is %s." % (c, p), it)
                    continue
                if last.after == "definition":
                    row = rng.choice(self.words)
                    say(self.noise(rng.choice(["and {w}", "what about {w}", "and what about {w}", "now {w}", "and the word {w}"]).format(w=row["w"]), [row["w"]], rng), self.meaning(row), self.definition(rng, row))
                    continue
            if 0.30 <= r < 0.36 and turns > 1:
                if user_name is None:
                    user_name = rng.choice(K.NAMES) if rng.random() < 0.9 else capital(self.nonsense(rng))
                    q = rng.choice(["my name is {n}", "i am {n}", "i'm {n}", "call me {n}", "hello, my name is {n}", "hi, i am {n}", "this is {n}", "hi, i'm {n}"]).format(n=user_name)
                    say(self.noise(q, [user_name], rng), "Hello, %s! How can I help you?" % user_name)
                else:
                    say(self.noise(rng.choice(["what is my name", "who am i", "do you know my name", "what's my name", "do you remember my name"]), (), rng), "Your name is %s." % user_name)
                continue
            if 0.36 <= r < 0.38 and asked:
                q, a = rng.choice([("what did i just ask", asked[-1]), ("what was my last question", asked[-1]), ("what was my first question", asked[0]), ("repeat my last question", asked[-1])])
                say(self.noise(q, (), rng), 'You asked: "%s"' % a)
                continue
            if 0.38 <= r < 0.388 and user_name is None:
                say(self.noise(rng.choice(["what is my name", "who am i", "do you know my name", "what's my name"]), (), rng), "I don't know your name. What is it?")
                continue
            it = first if t == 0 and not (held or topic) else self.item(rng)
            a = who(it.a) if it.topic == "smalltalk" else it.a
            q = self.noise(it.q, it.copy, rng)
            if rng.random() < 0.02 and user_name is None:
                user_name = rng.choice(K.NAMES)
                q = rng.choice(["I am {n}. ", "My name is {n}. ", "Hi, I'm {n}. ", "{n} here. "]).format(n=user_name) + q
            say(q, a, it)
        return {"topic": first.topic, "key": first.key, "messages": messages}


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--count", type=int, default=20)
    ap.add_argument("--seed", type=int, default=SEED)
    ap.add_argument("--topic")
    ap.add_argument("--held-out", action="store_true")
    args = ap.parse_args()
    maker, rng = Maker(), random.Random(args.seed)
    for _ in range(args.count):
        c = maker.conversation(rng, args.topic, args.held_out)
        print("[%s]" % c["topic"])
        for m in c["messages"]:
            print("   %-9s %s" % (m["role"], m["content"]))
