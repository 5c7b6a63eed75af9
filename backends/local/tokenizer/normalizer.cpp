// Normalizers; each follows the reference's order of operations.

#include "backends/local/tokenizer/normalizer.hpp"

#include "backends/local/tokenizer/byte_alphabet.hpp"
#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

constexpr int kDepthMax = 8;

// The blocks that BERT sets apart, the reference's typing error U+2B920 included.
bool is_bert_chinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

// Rebuilds the text code point by code point: rule(c, out) appends what c becomes.
template <class Rule>
void rewrite(Normalized& n, Rule rule) {
  std::string out;
  out.reserve(n.text.size() + n.text.size() / 8);
  for (std::size_t i = 0; i < n.text.size();) {
    const CodePoint c = decode_at(n.text.data() + i);
    const std::size_t before = out.size();
    rule(c.value, out);
    if (i == 0 && out.size() == before) n.at_start = false;
    i += c.size;
  }
  n.text = std::move(out);
}

void lowercase(Normalized& n) {
  rewrite(n, [](char32_t c, std::string& out) { append_lower(out, c); });
}

void drop(Normalized& n, ClassMask mask) {
  if (is_ascii(n.text) && mask != kClean) return;  // no mark is ASCII
  const CharClasses& classes = CharClasses::get();
  rewrite(n, [&](char32_t c, std::string& out) {
    if (!classes.is(c, mask)) append_utf8(out, c);
  });
}

void run(const BertNormalizer& bert, Normalized& n) {
  if (bert.clean_text) {
    const CharClasses& classes = CharClasses::get();
    rewrite(n, [&](char32_t c, std::string& out) {
      const ClassMask mask = classes.of(c);
      if ((mask & kClean) != 0) return;
      if ((mask & kSpace) != 0) {
        out += ' ';
      } else {
        append_utf8(out, c);
      }
    });
  }
  if (bert.handle_chinese_chars && !is_ascii(n.text)) {
    rewrite(n, [](char32_t c, std::string& out) {
      const bool chinese = is_bert_chinese(c);
      if (chinese) out += ' ';
      append_utf8(out, c);
      if (chinese) out += ' ';
    });
  }
  if (bert.strip_accents) {
    normalize(n.text, NormalForm::nfd);
    drop(n, kAccent);
  }
  if (bert.lowercase) lowercase(n);
}

void run(const StripNormalizer& strip, Normalized& n) {
  const CharClasses& classes = CharClasses::get();
  std::size_t begin = 0;
  std::size_t end = n.text.size();
  while (strip.left && begin < end) {
    const CodePoint c = decode_at(n.text.data() + begin);
    if (!classes.is(c.value, kSpace)) break;
    begin += c.size;
  }
  while (strip.right && begin < end) {
    std::size_t last = end - 1;
    while ((static_cast<unsigned char>(n.text[last]) & 0xC0) == 0x80) --last;
    if (!classes.is(decode_at(n.text.data() + last).value, kSpace)) break;
    end = last;
  }
  n.text.erase(end);
  n.text.erase(0, begin);
  if (begin > 0) n.at_start = false;
}

void run(const PrependNormalizer& prepend, Normalized& n) {
  if (!n.text.empty()) n.text.insert(0, prepend.prefix);
}

void run(const ReplaceNormalizer& replace, Normalized& n) {
  replace_all(replace.pattern, replace.content, n.text);
}

void run(NormalForm form, Normalized& n) {
  normalize(n.text, form);
}

void run(SimpleNormalizer simple, Normalized& n) {
  switch (simple) {
    case SimpleNormalizer::lowercase:
      return lowercase(n);
    case SimpleNormalizer::strip_accents:
      return drop(n, kMark);
    case SimpleNormalizer::byte_level:
      n.text = to_byte_alphabet(n.text);
      return;
  }
}

}  // namespace

Normalizer::Normalizer(const Spec& spec) {
  add(spec, 0);
}

void Normalizer::add(const Spec& spec, int depth) {
  if (depth > kDepthMax) spec.bad("is nested too deeply");
  const std::string type = spec.type();
  if (type == "Sequence") {
    for (const Spec& item : spec.list("normalizers")) add(item, depth + 1);
  } else if (type == "BertNormalizer") {
    const bool lower = spec.boolean("lowercase", true);
    steps_.emplace_back(BertNormalizer{spec.boolean("clean_text", true), spec.boolean("handle_chinese_chars", true),
                                       spec.boolean("strip_accents", lower), lower});
  } else if (type == "Strip") {
    steps_.emplace_back(StripNormalizer{spec.boolean("strip_left", true), spec.boolean("strip_right", true)});
  } else if (type == "Prepend") {
    steps_.emplace_back(PrependNormalizer{spec.string("prepend")});
  } else if (type == "Replace") {
    steps_.emplace_back(ReplaceNormalizer{Pattern(spec.at("pattern")), spec.string("content")});
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    steps_.emplace_back(type == "NFC"    ? NormalForm::nfc
                        : type == "NFD"  ? NormalForm::nfd
                        : type == "NFKC" ? NormalForm::nfkc
                                         : NormalForm::nfkd);
  } else if (type == "Lowercase") {
    steps_.emplace_back(SimpleNormalizer::lowercase);
  } else if (type == "StripAccents") {
    steps_.emplace_back(SimpleNormalizer::strip_accents);
  } else if (type == "ByteLevel") {
    steps_.emplace_back(SimpleNormalizer::byte_level);
  } else {
    spec.unsupported("normalizer type \"" + type + "\"");
  }
}

void Normalizer::apply(Normalized& text) const {
  for (const Step& step : steps_) {
    std::visit([&](const auto& s) { run(s, text); }, step);
  }
}

std::string Normalizer::operator()(std::string_view text) const {
  Normalized n{std::string(text), true};
  apply(n);
  return std::move(n.text);
}

}  // namespace ganglion::local::tok
