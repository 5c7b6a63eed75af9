// Pre-tokenizers. Each stage reads the list of words and writes a finer one.

#include "backends/local/tokenizer/pre_tokenizer.hpp"

#include <algorithm>

#include "backends/local/tokenizer/byte_alphabet.hpp"
#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

constexpr int kDepthMax = 8;

// Turns matches and gaps into the parts to keep, in place; `match` then means "drop".
void arrange(std::vector<Span>& spans, SplitBehavior behavior) {
  if (behavior == SplitBehavior::removed) return;
  std::vector<Span> out;
  out.reserve(spans.size());
  bool previous = false;
  if (behavior == SplitBehavior::merged_with_next) {
    for (auto it = spans.rbegin(); it != spans.rend(); ++it) {
      if (it->match && !previous && !out.empty()) {
        out.back().begin = it->begin;
      } else {
        out.push_back({it->begin, it->end, false});
      }
      previous = it->match;
    }
    std::ranges::reverse(out);
  } else {
    for (const Span& span : spans) {
      const bool join = behavior == SplitBehavior::contiguous             ? span.match == previous
                        : behavior == SplitBehavior::merged_with_previous ? span.match && !previous
                                                                          : false;
      if (join && !out.empty()) {
        out.back().end = span.end;
      } else {
        out.push_back({span.begin, span.end, false});
      }
      previous = span.match;
    }
  }
  spans = std::move(out);
}

// Cuts `piece` by pieces.spans into pieces.next.
void cut(const Piece& piece, Pieces& pieces) {
  for (const Span& span : pieces.spans) {
    if (span.match || span.begin == span.end) continue;
    pieces.next.push_back({piece.text.substr(span.begin, span.end - span.begin), piece.at_start && span.begin == 0});
  }
}

void split(const SplitStage& stage, const Piece& piece, Pieces& pieces) {
  pieces.spans.clear();
  stage.pattern.scan(piece.text, pieces.spans);
  if (stage.behavior == SplitBehavior::isolated) {
    for (Span& span : pieces.spans) span.match = false;
  } else {
    if (stage.invert) {
      for (Span& span : pieces.spans) span.match = !span.match;
    }
    arrange(pieces.spans, stage.behavior);
  }
  cut(piece, pieces);
}

void run(const SplitStage& stage, const Piece& piece, Pieces& pieces) {
  split(stage, piece, pieces);
}

void run(const ClassStage& stage, const Piece& piece, Pieces& pieces) {
  const CharClasses& classes = CharClasses::get();
  pieces.spans.clear();
  std::size_t gap = 0;
  for (std::size_t i = 0; i < piece.text.size();) {
    const CodePoint c = decode_at(piece.text.data() + i);
    const std::size_t end = i + c.size;
    if (classes.is(c.value, stage.classes) || (stage.delimiter != 0 && c.value == stage.delimiter)) {
      if (gap < i) pieces.spans.push_back({gap, i, false});
      pieces.spans.push_back({i, end, true});
      gap = end;
    }
    i = end;
  }
  if (gap < piece.text.size()) pieces.spans.push_back({gap, piece.text.size(), false});
  arrange(pieces.spans, stage.behavior);
  cut(piece, pieces);
}

void run(const ByteLevelStage& stage, const Piece& whole, Pieces& pieces) {
  static const SplitStage kGpt2{Pattern(SplitPattern::gpt2), SplitBehavior::isolated, false};
  Piece piece = whole;
  if (stage.add_prefix_space && !piece.text.empty() && !piece.text.starts_with(' ')) {
    piece.text = pieces.keep(" " + std::string(piece.text));
  }
  const std::size_t first = pieces.next.size();
  if (stage.use_regex) {
    split(kGpt2, piece, pieces);
  } else {
    pieces.next.push_back(piece);
  }
  if (stage.last) return;
  for (std::size_t i = first; i < pieces.next.size(); ++i) {
    pieces.next[i].text = pieces.keep(to_byte_alphabet(pieces.next[i].text));
  }
}

void run(const MetaspaceStage& stage, const Piece& whole, Pieces& pieces) {
  std::string text(whole.text);
  replace_literal(" ", stage.replacement, text);
  const bool prepend =
      stage.scheme == PrependScheme::always || (stage.scheme == PrependScheme::first && whole.at_start);
  if (prepend && !text.empty() && !text.starts_with(stage.replacement)) text.insert(0, stage.replacement);
  const Piece piece{pieces.keep(std::move(text)), whole.at_start};
  if (!stage.split) {
    pieces.next.push_back(piece);
    return;
  }
  pieces.spans.clear();
  Pattern(stage.replacement).scan(piece.text, pieces.spans);
  arrange(pieces.spans, SplitBehavior::merged_with_next);
  cut(piece, pieces);
}

void run(const WhitespaceStage&, const Piece& piece, Pieces& pieces) {
  const CharClasses& classes = CharClasses::get();
  const auto kind = [&](char32_t c) { return static_cast<ClassMask>(classes.of(c) & (kWord | kSpace)); };
  pieces.spans.clear();
  for (std::size_t i = 0; i < piece.text.size();) {
    const std::size_t begin = i;
    const ClassMask first = kind(decode_at(piece.text.data() + i).value);
    while (i < piece.text.size()) {
      const CodePoint c = decode_at(piece.text.data() + i);
      if (kind(c.value) != first) break;
      i += c.size;
    }
    pieces.spans.push_back({begin, i, first == kSpace});
  }
  cut(piece, pieces);
}

SplitBehavior read_behavior(const Spec& spec) {
  const std::string name = spec.find_string("behavior").value_or("Isolated");
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  spec.unsupported("split behavior \"" + name + "\"");
}

}  // namespace

void Pieces::clear() {
  list.clear();
  arena_.clear();
  byte_level = false;
}

// transformers 4.3x wrote only add_prefix_space; later files write prepend_scheme, sometimes both.
PrependScheme read_prepend_scheme(const Spec& spec) {
  const auto name = spec.find_string("prepend_scheme");
  if (!name) return spec.boolean("add_prefix_space", true) ? PrependScheme::always : PrependScheme::never;
  if (*name == "always") return PrependScheme::always;
  if (*name == "first") return PrependScheme::first;
  if (*name == "never") return PrependScheme::never;
  spec.unsupported("prepend_scheme \"" + *name + "\"");
}

PreTokenizer::PreTokenizer(const Spec& spec) {
  add(spec, 0);
  if (!stages_.empty()) {
    if (auto* stage = std::get_if<ByteLevelStage>(&stages_.back())) stage->last = true;
  }
}

void PreTokenizer::add(const Spec& spec, int depth) {
  if (depth > kDepthMax) spec.bad("is nested too deeply");
  const std::string type = spec.type();
  if (type == "Sequence") {
    for (const Spec& item : spec.list("pretokenizers")) add(item, depth + 1);
  } else if (type == "Split") {
    stages_.emplace_back(SplitStage{Pattern(spec.at("pattern")), read_behavior(spec), spec.boolean("invert", false)});
  } else if (type == "ByteLevel") {
    stages_.emplace_back(
        ByteLevelStage{spec.boolean("add_prefix_space", true), spec.boolean("use_regex", true), false});
  } else if (type == "Metaspace") {
    stages_.emplace_back(
        MetaspaceStage{spec.character("replacement"), read_prepend_scheme(spec), spec.boolean("split", true)});
  } else if (type == "BertPreTokenizer") {
    stages_.emplace_back(ClassStage{kSpace, 0, SplitBehavior::removed});
    stages_.emplace_back(ClassStage{kPunctuation, 0, SplitBehavior::isolated});
  } else if (type == "Whitespace") {
    stages_.emplace_back(WhitespaceStage{});
  } else if (type == "WhitespaceSplit") {
    stages_.emplace_back(ClassStage{kSpace, 0, SplitBehavior::removed});
  } else if (type == "CharDelimiterSplit") {
    stages_.emplace_back(ClassStage{0, decode_at(spec.character("delimiter").data()).value, SplitBehavior::removed});
  } else if (type == "Digits") {
    const bool each = spec.boolean("individual_digits", false);
    stages_.emplace_back(ClassStage{kNumeric, 0, each ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else if (type == "Punctuation") {
    stages_.emplace_back(ClassStage{kPunctuation, 0, read_behavior(spec)});
  } else {
    spec.unsupported("pre_tokenizer type \"" + type + "\"");
  }
}

void PreTokenizer::apply(Pieces& pieces) const {
  for (const Stage& stage : stages_) {
    pieces.next.clear();
    for (const Piece& piece : pieces.list) {
      std::visit([&](const auto& s) { run(s, piece, pieces); }, stage);
    }
    std::swap(pieces.list, pieces.next);
    if (const auto* bytes = std::get_if<ByteLevelStage>(&stage)) pieces.byte_level = bytes->last;
  }
}

}  // namespace ganglion::local::tok
