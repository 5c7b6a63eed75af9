#pragma once
// What fields use while they read: environment expansion, the path of the key being read, and the list of diagnostics
// that grows instead of stopping at the first error.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostic.hpp"
#include "config/env.hpp"
#include "config/node.hpp"

namespace ganglion::config {

class Reader {
 public:
  Reader(std::string file, const LoadOptions& options) : file_(std::move(file)), options_(options) {}

  // Both put the key's path before the message.
  void error(const Node& at, std::string message) { add(Severity::error, at, std::move(message)); }
  void warn(const Node& at, std::string message) { add(Severity::warning, at, std::move(message)); }

  // The text of a scalar with ${...} replaced; nullopt (reported) when it is none. `expected` completes "expected ...".
  // A later message that quotes the replaced text shows it as the file has it: it may be a secret in the wrong place.
  std::optional<Expanded> scalar(const Node& node, std::string_view expected);

  // Names the key being read for as long as it lives.
  class Scope {
   public:
    Scope(Reader& reader, std::string_view key);
    Scope(Reader& reader, std::size_t index);
    ~Scope() { reader_.path_.resize(length_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Reader& reader_;
    std::size_t length_;
  };

  const LoadOptions& options() const { return options_; }
  bool failed() const { return failed_; }
  std::vector<Diagnostic> take() { return std::move(found_); }

 private:
  void add(Severity severity, const Node& at, std::string message);

  std::string file_;
  const LoadOptions& options_;
  std::string path_;
  std::string from_env_;    // the last text that came from the environment
  std::string as_written_;  // and its form in the file
  std::vector<Diagnostic> found_;
  bool failed_ = false;
};

// " (did you mean `x`?)" for the candidate nearest to `word` by edits, or "" when none is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace ganglion::config
