// The stages of a decoder. Those that must see a token whole collect it first; that only delays text when a Fuse
// stands in front of them, which no published tokenizer does except with Strip, and Strip works on parts.

#include <array>

#include "backends/local/tokenizer/byte_alphabet.hpp"
#include "backends/local/tokenizer/decoder.hpp"
#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {
namespace {

// Collects a token and hands it to whole().
class WholeTokenStage : public DecodeStage {
 public:
  void text(std::string_view part) final { token_ += part; }
  void end() final {
    whole(token_);
    token_.clear();
  }

 protected:
  virtual void whole(std::string& token) = 0;
  void emit(std::string_view token) {
    next->text(token);
    next->end();
  }

 private:
  std::string token_;
};

class JoinStage final : public WholeTokenStage {
 protected:
  void whole(std::string& token) override {
    if (!first_) token.insert(0, " ");
    first_ = false;
    emit(token);
  }

 private:
  bool first_ = true;
};

// All tokens' bytes as one text. A token with a character outside the alphabet counts as it is spelled.
class ByteLevelStage final : public WholeTokenStage {
 public:
  void finish() override {
    std::string tail;
    repair_.finish(tail);
    next->text(tail);
    next->end();
    next->finish();
  }

 protected:
  void whole(std::string& token) override {
    const auto bytes = from_byte_alphabet(token);
    std::string text;
    repair_.push(bytes ? *bytes : token, text);
    if (!text.empty()) next->text(text);
  }

 private:
  Utf8Repair repair_;
};

// Runs of <0xXX> become the text they spell, or, if any part of a run is not UTF-8, one U+FFFD for each byte.
class ByteFallbackStage final : public WholeTokenStage {
 public:
  explicit ByteFallbackStage(bool prompt) : prompt_(prompt) {}

  void finish() override {
    close_run();
    next->finish();
  }

 protected:
  void whole(std::string& token) override {
    const int byte = fallback_byte(token);
    if (byte < 0) {
      close_run();
      emit(token);
      return;
    }
    if (!prompt_) {
      run_ += static_cast<char>(byte);
      return;
    }
    in_run_ = true;
    const char c = static_cast<char>(byte);
    std::string text;
    repair_.push({&c, 1}, text);
    if (!text.empty()) next->text(text);
  }

 private:
  void close_run() {
    if (in_run_) {
      std::string text;
      repair_.finish(text);
      emit(text);
    } else if (!run_.empty()) {
      if (valid_utf8(run_)) {
        emit(run_);
      } else {
        for (std::size_t i = 0; i < run_.size(); ++i) emit(kReplacement);
      }
    }
    run_.clear();
    in_run_ = false;
  }

  bool prompt_;
  bool in_run_ = false;  // prompt only
  Utf8Repair repair_;    // prompt only
  std::string run_;
};

class FuseStage final : public DecodeStage {
 public:
  void text(std::string_view part) override { next->text(part); }
  void end() override {}
  void finish() override {
    next->end();
    next->finish();
  }
};

class ReplaceStage final : public WholeTokenStage {
 public:
  explicit ReplaceStage(const ReplaceDecoderSpec& spec) : spec_(spec) {}

 protected:
  void whole(std::string& token) override {
    replace_all(*spec_.pattern, spec_.content, token);
    emit(token);
  }

 private:
  const ReplaceDecoderSpec& spec_;
};

// Cuts up to `start` leading and `stop` trailing copies of a character from each token. Trailing copies are held back
// until something else follows, so a fused text streams.
class StripStage final : public DecodeStage {
 public:
  explicit StripStage(const StripDecoderSpec& spec) : spec_(spec) {}

  void text(std::string_view part) override {
    while (leading_ && !part.empty()) {
      if (cut_ < spec_.start && part.starts_with(spec_.content)) {
        part.remove_prefix(spec_.content.size());
        ++cut_;
      } else {
        leading_ = false;
      }
    }
    if (part.empty()) return;
    held_ += part;
    std::size_t keep = held_.size();
    for (std::size_t n = 0; n < spec_.stop && std::string_view(held_).substr(0, keep).ends_with(spec_.content); ++n) {
      keep -= spec_.content.size();
    }
    if (keep > 0) next->text(std::string_view(held_).substr(0, keep));
    held_.erase(0, keep);
  }

  void end() override {
    held_.clear();
    cut_ = 0;
    leading_ = true;
    next->end();
  }

 private:
  const StripDecoderSpec& spec_;
  std::string held_;
  std::size_t cut_ = 0;
  bool leading_ = true;
};

class MetaspaceDecodeStage final : public WholeTokenStage {
 public:
  explicit MetaspaceDecodeStage(const MetaspaceDecoderSpec& spec) : spec_(spec) {}

 protected:
  void whole(std::string& token) override {
    const std::string_view content = first_ && spec_.drop_in_first ? "" : " ";
    first_ = false;
    replace_literal(spec_.replacement, content, token);
    emit(token);
  }

 private:
  const MetaspaceDecoderSpec& spec_;
  bool first_ = true;
};

// The reference's tidying of English contractions and punctuation, in its order.
void clean_up(std::string& token) {
  constexpr std::array<std::pair<const char*, const char*>, 11> kRules = {{{" .", "."},
                                                                           {" ?", "?"},
                                                                           {" !", "!"},
                                                                           {" ,", ","},
                                                                           {" ' ", "'"},
                                                                           {" n't", "n't"},
                                                                           {" 'm", "'m"},
                                                                           {" do not", " don't"},
                                                                           {" 's", "'s"},
                                                                           {" 've", "'ve"},
                                                                           {" 're", "'re"}}};
  for (const auto& [from, to] : kRules) replace_literal(from, to, token);
}

class WordPieceDecodeStage final : public WholeTokenStage {
 public:
  explicit WordPieceDecodeStage(const WordPieceDecoderSpec& spec) : spec_(spec) {}

 protected:
  void whole(std::string& token) override {
    if (!first_) {
      if (token.starts_with(spec_.prefix)) {
        token.erase(0, spec_.prefix.size());
      } else {
        token.insert(0, " ");
      }
    }
    first_ = false;
    if (spec_.cleanup) clean_up(token);
    emit(token);
  }

 private:
  const WordPieceDecoderSpec& spec_;
  bool first_ = true;
};

// "</w>" is a space, except in the last token, so one token is always held back.
class SuffixDecodeStage final : public WholeTokenStage {
 public:
  explicit SuffixDecodeStage(const SuffixDecoderSpec& spec) : spec_(spec) {}
  void finish() override {
    if (waiting_) release("");
    next->finish();
  }

 protected:
  void whole(std::string& token) override {
    if (waiting_) release(" ");
    held_ = std::move(token);
    waiting_ = true;
  }

 private:
  void release(std::string_view content) {
    replace_literal(spec_.suffix, content, held_);
    emit(held_);
  }
  const SuffixDecoderSpec& spec_;
  std::string held_;
  bool waiting_ = false;
};

struct StageMaker {
  bool prompt;
  using Made = std::unique_ptr<DecodeStage>;
  Made operator()(const JoinSpec&) const { return std::make_unique<JoinStage>(); }
  Made operator()(const ByteLevelDecoderSpec&) const { return std::make_unique<ByteLevelStage>(); }
  Made operator()(const ByteFallbackSpec&) const { return std::make_unique<ByteFallbackStage>(prompt); }
  Made operator()(const FuseSpec&) const { return std::make_unique<FuseStage>(); }
  Made operator()(const ReplaceDecoderSpec& s) const { return std::make_unique<ReplaceStage>(s); }
  Made operator()(const StripDecoderSpec& s) const { return std::make_unique<StripStage>(s); }
  Made operator()(const MetaspaceDecoderSpec& s) const { return std::make_unique<MetaspaceDecodeStage>(s); }
  Made operator()(const WordPieceDecoderSpec& s) const { return std::make_unique<WordPieceDecodeStage>(s); }
  Made operator()(const SuffixDecoderSpec& s) const { return std::make_unique<SuffixDecodeStage>(s); }
};

}  // namespace

std::unique_ptr<DecodeStage> make_stage(const DecodeStageSpec& spec, bool prompt) {
  return std::visit(StageMaker{prompt}, spec);
}

}  // namespace ganglion::local::tok
