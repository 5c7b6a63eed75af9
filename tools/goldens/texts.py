"""Text for the golden files: a small training corpus for the tokenizers and
the strings every tokenizer is asked to encode. Everything is written here or
built from a fixed seed, so that two runs give the same bytes."""

import random

PROSE = [
    "The gateway listens on one port and forwards every request to the provider that is healthy.",
    "A cache answers the second question before the model has heard it.",
    "Rate limits protect the budget of a team, and the ledger tells who spent what.",
    "She said that it wasn't ready, but they'll ship it on Friday and we're going to test it.",
    "I'd rather measure twice; you've seen what happens when nobody does. It's not pretty!",
    "Streaming sends the words one after the other, so the reader doesn't have to wait.",
    "What is the capital of France? What is the weight of a small cloud over the sea?",
    "In 1969 a computer with 4 kilobytes of memory helped three people reach the moon.",
    "Numbers such as 3.14159, 2.71828, 1,000,000 and 0x7f must survive the round trip.",
    "Please answer in English. Then answer in French, in German, and in Spanish.",
    "There were many people in the house when the other one came through the door.",
    "Water is made of hydrogen and oxygen, and the water of the river runs to the sea.",
    "Some of the things which they would make could only work for a short time.",
    "The tokenizer splits the text into pieces; the model reads the numbers of the pieces.",
    "Good morning! How are you today? Fine, thank you, and how is your family?",
    "This is a test. This is another test. This is the last test of the three tests.",
    "Every morning the baker opens the window, looks at the street and counts the birds.",
    "If the answer is unknown, say that it is unknown: nobody likes an invented answer.",
    "Le chat noir dort près de la fenêtre, et l'été sera très chaud à Paris.",
    "Les élèves étudient la géométrie, l'histoire et la musique française.",
    "Où êtes-vous allés hier soir ? Nous avons mangé des crêpes au goûter.",
    "Die Straße ist größer als früher, und die Bäume blühen schön im Frühling.",
    "Können Sie mir bitte sagen, wie spät es ist? Natürlich, es ist zwölf Uhr.",
    "El niño comió una manzana mañana y también bebió agua. ¿Qué pasó después?",
    "A avó não gosta de pão quente, mas o coração dela é muito bom.",
    "Zażółć gęślą jaźń; dziękuję bardzo i do zobaczenia w środę.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy nad řekou.",
    "İstanbul'da güneşli bir gün, çocuklar denize gidiyor.",
    "Быстрая коричневая лиса прыгает через ленивую собаку, а потом идёт домой.",
    "Привет, как дела? Сегодня хорошая погода, и мы пойдём гулять в парк.",
    "Η γρήγορη αλεπού πηδάει πάνω από το τεμπέλικο σκυλί κάθε πρωί.",
    "今天天气很好，我们去公园散步吧。你想吃什么？我想喝水。",
    "人工智能的模型把文字变成数字，然后再变回文字。",
    "吾輩は猫である。名前はまだ無い。今日はとてもいい天気ですね。",
    "コンピュータのプログラムを書くのは楽しいです。",
    "안녕하세요, 오늘 날씨가 좋네요. 저는 커피를 마시고 싶습니다.",
    "مرحبا بالعالم، كيف حالك اليوم؟ الطقس جميل جدا في المدينة.",
    "שלום עולם, מה שלומך היום? אני רוצה לשתות מים.",
    "สวัสดีครับ วันนี้อากาศดีมาก เราไปเดินเล่นกันเถอะ",
    "नमस्ते दुनिया, आज मौसम बहुत अच्छा है और हम बाहर जा रहे हैं।",
    "Xin chào thế giới, hôm nay trời đẹp quá và chúng tôi đi dạo.",
    "Emoji travel badly: 😀 😂 🎉 🚀 ❤️ 👍 🌍 🔥 ✨ 🤖 and back again 😀 🚀.",
]

CODE = [
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(i, add(i, 1))\n",
    "int main(int argc, char** argv) {\n  std::vector<int> v = {1, 2, 3};\n  return v.size() == 3 ? 0 : 1;\n}\n",
    "class Node:\n    def __init__(self, value, next=None):\n        self.value = value\n        self.next = next\n",
    "SELECT name, COUNT(*) AS total FROM users WHERE age >= 18 GROUP BY name ORDER BY total DESC;\n",
    "{\"model\": \"tiny\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"stream\": true}\n",
    "curl -s http://127.0.0.1:8080/v1/models -H 'Authorization: Bearer key'\n",
    "if (x != nullptr && x->ready()) {\n\treturn std::move(*x);\n} else {\n\tthrow std::runtime_error(\"not ready\");\n}\n",
    "const f = async (url) => { const r = await fetch(url); return r.json(); };\n",
    "#!/bin/sh\nset -eu\nfor f in *.txt; do\n    wc -l \"$f\" | awk '{print $1}'\ndone\n",
    "<html><body class=\"main\"><p>Hello &amp; goodbye</p></body></html>\n",
]


def training_corpus():
    """Lines for training the tokenizers (about 60 kB)."""
    rng = random.Random(20240611)
    lines = []
    for _ in range(4):
        lines += PROSE + CODE
    heads = ["pre", "re", "un", "inter", "over", "sub", "trans", "micro", "auto", "multi"]
    cores = ["form", "act", "port", "view", "load", "mark", "point", "press", "serve", "start", "count", "play"]
    tails = ["ing", "ed", "er", "ation", "able", "ment", "ness", "s", "ly", "ful"]
    for _ in range(300):
        words = []
        for _ in range(rng.randint(4, 10)):
            w = rng.choice(heads + ["", "", ""]) + rng.choice(cores) + rng.choice(tails + [""])
            if rng.random() < 0.15:
                w = w.capitalize()
            if rng.random() < 0.1:
                w = str(rng.randint(0, 99999))
            words.append(w)
        lines.append(" ".join(words) + rng.choice([".", "!", "?", "", ":", ";"]))
    return lines


HAND = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\t\t \t", "a", " a", "a ", "  a  ",
    "Hello", "hello world", "Hello, world!", " Hello", "Hello ", "HELLO WORLD", "HeLLo WoRLD",
    "The quick brown fox jumps over the lazy dog.",
    "I'm here, you're there, we've gone, they'll come, he'd know, it's fine, don't.",
    "I'M HERE, YOU'RE THERE, WE'VE GONE, THEY'LL COME, HE'D KNOW, IT'S FINE, DON'T.",
    "can\u2019t won\u2019t it\u2019s \u201cquoted\u201d \u2018single\u2019 \u2014 dash \u2013 en \u2026",
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'VE 'M 'LL 'D 'x 'sun", "''''", "rock'n'roll o'clock 'twas",
    "0", "1", "12", "123", "1234", "12345", "123456", "1234567", "12345678901234567890", "007", "3.14", "-42",
    "1,234,567.89", "1e-10", "0xDEADBEEF", "0b1010", "10%", "$9.99", "\u20ac5,00", "\u00a3100", "2024-02-29T23:59:60Z",
    "192.168.0.1:8080", "v1.2.3-rc.4+build.567", "1st 2nd 3rd 4th", "a1b2c3", "abc123def456", "x=1;y=22;z=333",
    "\u0661\u0662\u0663\u0664", "\u0967\u0968\u0969", "\u00b2\u00b3\u00bd\u2167", "\u2460\u2461\u2462", "\uff11\uff12\uff13",
    "def f(x):\n    return x ** 2\n", "if (a && b || !c) { d[i++] = *p->q; }", "a+=b-=c*=d/=e%=f", "<<>>&&||!==",
    "std::cout << \"hi\\n\";", "\\n\\t\\0\\x41", "#include <vector>\n#define X(y) #y\n", "// comment\n/* block */\n",
    "for(int i=0;i<10;++i){printf(\"%d\\n\",i);}", "{\"a\": [1, 2.5, null, true], \"b\": {\"c\": \"d\"}}",
    "https://example.com/path?q=1&r=a%20b#frag", "user.name+tag@mail.example.org", "C:\\Windows\\System32", "/usr/local/bin",
    "snake_case camelCase PascalCase kebab-case SCREAMING_CASE", "__init__", "_", "__", "___", "a_b", "-", "--", "---",
    "!", "!!", "!!!", "?!", "...", ".", ",", ";", ":", "()", "[]", "{}", "<>", "((([[[{{{<<<>>>}}}]]])))", "@#$%^&*",
    "!\n", "!\n\n", "! \n", ".\r\n.", "a\nb", "a\n\nb", "a\n\n\nb", "a \n b", "a  \n  b", "a\n  b\n    c\n", "a\tb", "a\t\tb",
    "    indented", "        deeper", "\tindented", " \t mixed", "trailing   ", "trailing\n", "trailing \n\n ", "a" + " " * 2 + "b",
    "a" + " " * 3 + "b", "a" + " " * 4 + "b", "a" + " " * 7 + "b", "a" + " " * 16 + "b", "a" + " " * 33 + "b", " " * 5, " " * 20, "\n" * 5, "\n" * 20,
    "\t" * 7, " \n" * 6, "\u00a0", "a\u00a0b", "\u2003a\u2003", "\u3000\u5168\u89d2", "a\u200bb", "\u2028\u2029", "\u0085x", "\ufeffbom", "x\ufeffy",
    "caf\u00e9", "cafe\u0301", "CAF\u00c9", "na\u00efve", "nai\u0308ve", "\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "\u212bngstrom", "\u1e9e\u00df\u1e9e", "\ufb01\ufb02\ufb03 ligatures",
    "o\u0302\u0301\u0323", "\u1ed9 \u1ec7 \u1eef", "e\u0301\u0301\u0301\u0301", "\u0301", "\u0301a", " \u0301", "Z\u0351\u034d\u0321a\u0334l\u0335g\u0336o\u0337", "\u0130stanbul \u0131", "I\u0307i\u0307",
    "\u00e0\u00e8\u00ec\u00f2\u00f9\u00c0\u00c8\u00cc\u00d2\u00d9", "\u017b\u00f3\u0142w", "\u0141\u00f3d\u017a", "\u010cesk\u00fd", "\u0219\u021b\u0103", "\u00d8resund \u00e6\u00f8\u00e5", "\u00de\u00f3r \u00f0",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0451\u043b\u043a\u0430 \u0419\u043e\u0433", "\u0438\u0306", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5", "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u03a3\u039f\u03a6\u039f\u03a3", "\u1f08\u03b8\u03ae\u03bd\u03b7",
    "\u4f60\u597d", "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u4e2d\u6587abc\u4e2d\u6587123", "\u3053\u3093\u306b\u3061\u306f", "\u30cf\u309a \u30d1 \uff8a\uff9f", "\u6771\u4eac\u306f\u5927\u304d\u3044\u3067\u3059\u3002", "\uc548\ub155\ud558\uc138\uc694", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\u9f98\u9f49\u9750", "\U00020000\U0002a6d6", "\uf900\uf901",
    "\u0645\u0631\u062d\u0628\u0627", "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627", "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645", "\u0644\u0627 \ufefb", "\u0634\u0644\u0648\u0645 \u05e9\u05dc\u05d5\u05dd", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u202eright to left\u202c", "abc \u05d0\u05d1\u05d2 123 \u0623\u0628\u062c",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0e01\u0e33\u0e25\u0e31\u0e07", "\u0e19\u0e49\u0e33", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f", "\u09ac\u09be\u0982\u09b2\u09be", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd", "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8", "\u0540\u0561\u0575\u0565\u0580\u0565\u0576", "\u12a0\u121b\u122d\u129b", "\u1780\u17d2\u1793\u17bb\u17c6", "\u0f56\u0f7c\u0f51",
    "\U0001f600", "\U0001f600\U0001f600", "a\U0001f600b", " \U0001f600 ", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea", "\u2764\ufe0f \u2764", "1\ufe0f\u20e3", "\U0001f9d1\U0001f3ff\u200d\U0001f680", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "\u263a\u270c\u2728", "\U0001fae0\U0001faf5",
    "\x00", "a\x00b", "\x00\x00", "\x01\x02\x03", "\x07\x08\x0b\x0c\x0e", "\x1b[31mred\x1b[0m", "\x7f", "\x80\x9f", "a\x0bb\x0cc", "\x1c\x1d\x1e\x1f",
    "\ufffd", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff", "\ue000\uf8ff", "\U000f0000", "\U00010000", "\u0378", "\U0001d4d7\U0001d4ee\U0001d4f5\U0001d4f5\U0001d4f8", "\U0001d7d8\U0001d7d9", "\u00ad soft\u00adhyphen", "\u2060\u2061", "\u200d", "\u200c\u200d\u200e\u200f", "\ufe0f",
    "\u2581", "\u2581a", "a\u2581b", " \u2581 ", "\u0120", "\u0120hello", "\u010a", "##ing", "##", "<0x0A>", "<0x41>b", "<0xZZ>", "\u2581\u2581\u2581",
    "<s>", "</s>", "<unk>", "<s>hello</s>", " <s> hello </s> ", "a<s>b", "<s><s>", "< s >", "<S>", "<pad>", "[INST] hi [/INST]", "[INST]hi[/INST]", "a [INST]",
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "x<|eot_id|> y", "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|>", "<|im_end|> ", " <|im_end|>", "<|endoftext|>", "text<|endoftext|>text", "<|im_start", "<|not_a_token|>", "<|reserved_special_token_0|>", "<tool_call>\n{}\n</tool_call>", "<think>\n\n</think>",
    "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "The [MASK] sat.", "[CLS] a [SEP] b [SEP]", "[cls]", "[ MASK ]", "x[MASK]y", "a  [MASK]  b",
    "Ganglion", " Ganglion", "Ganglions", "the Ganglion gateway", "neuron", " neuron neuron", "xylophoneGanglion",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "a" * 99, "a" * 100, "a" * 101, "a" * 130, "ab" * 60, "q" * 40, "\u00e9" * 60, "\u4e2d" * 50, "\U0001f600" * 20, "=" * 80, "-" * 65, "." * 33, "0" * 50, "'" * 9,
    "antidisestablishmentarianism floccinaucinihilipilification", "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft",
    "supercalifragilisticexpialidocious" * 4, "x" * 101 + " short " + "y" * 100, "word," * 25, "a.b.c.d.e.f", "U.S.A. e.g. i.e. etc.", "well-known state-of-the-art", "and/or", "50/50", "24\u00d77", "\u221e \u2260 \u2264 \u2211 \u222b \u221a", "\u03b1\u03b2\u03b3 \u2192 \u03b4", "\u2500\u2502\u250c\u2510", "\u2588\u2593\u2592\u2591", "\u2190\u2191\u2192\u2193", "\u266a\u266b", "\u00a9\u00ae\u2122", "H\u2082O CO\u2082 x\u00b2", "\u0660%", "\u066a", "\u0964", "\u3002\u3001\u300c\u300d", "\u00bfQu\u00e9? \u00a1S\u00ed!", "\u00ab guillemets \u00bb", "\u201ea\u201c",
]


def case_strings():
    """The strings of tokenizer_cases.json, without repeats, in a fixed order."""
    rng = random.Random(77)
    out = list(HAND) + PROSE + CODE
    words = " ".join(PROSE).split()
    spaces = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", " \n", ""]
    puncts = [".", ",", "!", "?", "...", ";", ":", "'s", "'ll", ")", "(", "\"", "-", "/", "", "", "", ""]
    while len(out) < 560:
        n = rng.randint(2, 9)
        s = ""
        for _ in range(n):
            r = rng.random()
            if r < 0.6:
                w = rng.choice(words)
            elif r < 0.75:
                w = str(rng.randint(0, 10 ** rng.randint(1, 9)))
            elif r < 0.85:
                w = rng.choice(HAND)[:24]
            else:
                lo, hi = rng.choice([(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x600), (0x600, 0xE80), (0x1E00, 0x2400),
                                     (0x2400, 0x2C00), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4),
                                     (0x1F300, 0x1FA00), (0x1D400, 0x1D800), (0xE000, 0xE100)])
                w = "".join(chr(rng.randrange(lo, hi)) for _ in range(rng.randint(1, 6)))
            s += w + rng.choice(puncts) + rng.choice(spaces)
        out.append(s)
    seen, res = set(), []
    for s in out:
        if s not in seen:
            seen.add(s)
            res.append(s)
    return res


if __name__ == "__main__":
    cs = case_strings()
    print(len(cs), sum(map(len, cs)), sum(len(x) for x in training_corpus()))
    for s in cs:
        s.encode("utf-8")
