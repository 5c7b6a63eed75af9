// Reads the decoder of tokenizer.json and runs chains of its stages.

#include "backends/local/tokenizer/decoder.hpp"

#include <charconv>

#include "backends/local/tokenizer/byte_alphabet.hpp"

namespace ganglion::local::tok {
namespace {

constexpr int kDepthMax = 8;

}  // namespace

int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  // Like Rust's from_str_radix, a sign counts as part of the number.
  const std::string_view digits = token[3] == '+' ? token.substr(4, 1) : token.substr(3, 2);
  int byte = -1;
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
  return ec == std::errc() && end == digits.data() + digits.size() && byte >= 0 ? byte : -1;
}

Decoder::Decoder(const Spec& spec) {
  add(spec, 0);
}

void Decoder::add(const Spec& spec, int depth) {
  if (depth > kDepthMax) spec.bad("is nested too deeply");
  const std::string type = spec.type();
  if (type == "Sequence") {
    for (const Spec& item : spec.list("decoders")) add(item, depth + 1);
  } else if (type == "ByteLevel") {
    stages_.emplace_back(ByteLevelDecoderSpec{});
  } else if (type == "ByteFallback") {
    stages_.emplace_back(ByteFallbackSpec{});
  } else if (type == "Fuse") {
    stages_.emplace_back(FuseSpec{});
  } else if (type == "Replace") {
    stages_.emplace_back(
        ReplaceDecoderSpec{std::make_shared<const Pattern>(spec.at("pattern")), spec.string("content")});
  } else if (type == "Strip") {
    stages_.emplace_back(StripDecoderSpec{spec.character("content"),
                                          static_cast<std::size_t>(spec.integer("start", 0, 0, 1 << 20)),
                                          static_cast<std::size_t>(spec.integer("stop", 0, 0, 1 << 20))});
  } else if (type == "Metaspace") {
    const bool drop = read_prepend_scheme(spec) != PrependScheme::never;
    stages_.emplace_back(MetaspaceDecoderSpec{spec.character("replacement"), drop});
  } else if (type == "WordPiece") {
    stages_.emplace_back(
        WordPieceDecoderSpec{spec.find_string("prefix").value_or("##"), spec.boolean("cleanup", true)});
  } else if (type == "BPEDecoder") {
    std::string suffix = spec.find_string("suffix").value_or("</w>");
    if (suffix.empty()) spec.unsupported("an empty suffix");
    stages_.emplace_back(SuffixDecoderSpec{std::move(suffix)});
  } else {
    spec.unsupported("decoder type \"" + type + "\"");
  }
}

std::string Decoder::token_bytes(std::string_view token) const {
  std::string bytes(token);
  for (const DecodeStageSpec& stage : stages_) {
    if (std::holds_alternative<ByteLevelDecoderSpec>(stage)) {
      if (auto raw = from_byte_alphabet(bytes)) bytes = std::move(*raw);
    } else if (std::holds_alternative<ByteFallbackSpec>(stage)) {
      if (const int byte = fallback_byte(bytes); byte >= 0) return std::string(1, static_cast<char>(byte));
    } else if (const auto* replace = std::get_if<ReplaceDecoderSpec>(&stage)) {
      replace_all(*replace->pattern, replace->content, bytes);
    } else if (const auto* metaspace = std::get_if<MetaspaceDecoderSpec>(&stage)) {
      replace_literal(metaspace->replacement, " ", bytes);
    } else if (const auto* pieces = std::get_if<WordPieceDecoderSpec>(&stage)) {
      if (bytes.starts_with(pieces->prefix)) bytes.erase(0, pieces->prefix.size());
    } else if (const auto* suffix = std::get_if<SuffixDecoderSpec>(&stage)) {
      replace_literal(suffix->suffix, " ", bytes);
    }
  }
  return bytes;
}

// The end of the chain.
class DecodeChain::Sink final : public DecodeStage {
 public:
  explicit Sink(std::string& out) : out_(out) {}
  void text(std::string_view part) override { out_ += part; }
  void end() override {}
  void finish() override {}

 private:
  std::string& out_;
};

DecodeChain::DecodeChain(const Decoder& decoder, bool prompt) {
  for (const DecodeStageSpec& spec : decoder.stages()) stages_.push_back(make_stage(spec, prompt));
  stages_.push_back(std::make_unique<Sink>(out_));
  for (std::size_t i = 0; i + 1 < stages_.size(); ++i) stages_[i]->next = stages_[i + 1].get();
}

void DecodeChain::token(std::string_view token) {
  stages_.front()->text(token);
  stages_.front()->end();
}

void DecodeChain::finish() {
  stages_.front()->finish();
}

std::string DecodeChain::take() {
  return std::exchange(out_, {});
}

}  // namespace ganglion::local::tok
