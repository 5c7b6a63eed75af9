// Diagnostics and suggestions.

#include "config/reader.hpp"

#include <algorithm>
#include <limits>

namespace ganglion::config {
namespace {

constexpr std::size_t kDiagnosticsMax = 200;  // a file with more errors than this has one cause

// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string format(const Diagnostic& d) {
  std::string out = d.file;
  if (d.line > 0) out.append(":").append(std::to_string(d.line)).append(":").append(std::to_string(d.column));
  out.append(d.severity == Severity::warning ? ": warning: " : ": ").append(d.message);
  return out;
}

std::string format(const std::vector<Diagnostic>& diagnostics) {
  std::string out;
  for (const Diagnostic& d : diagnostics) out.append(format(d)).append("\n");
  return out;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > 64) return "";
  std::string_view best;
  std::size_t best_edits = std::numeric_limits<std::size_t>::max();
  for (const std::string& candidate : candidates) {
    const std::size_t e = edits(word, candidate);
    // A third of the word may be wrong; a beginning counts as near ("time" for "timeout").
    const bool begins = word.size() >= 3 && candidate.starts_with(word);
    const std::size_t allowed = std::max<std::size_t>(1, std::max(word.size(), candidate.size()) / 3);
    if ((e <= allowed || begins) && e < best_edits) {
      best = candidate;
      best_edits = e;
    }
  }
  return best.empty() ? "" : " (did you mean `" + std::string(best) + "`?)";
}

Reader::Scope::Scope(Reader& reader, std::string_view key) : reader_(reader), length_(reader.path_.size()) {
  if (!reader.path_.empty()) reader.path_ += '.';
  reader.path_ += key;
}

Reader::Scope::Scope(Reader& reader, std::size_t index) : reader_(reader), length_(reader.path_.size()) {
  reader.path_ += "[" + std::to_string(index) + "]";
}

void Reader::add(Severity severity, const Node& at, std::string message) {
  if (severity == Severity::error) failed_ = true;
  if (found_.size() >= kDiagnosticsMax) return;
  if (!from_env_.empty()) {
    const std::string quoted = "\"" + from_env_ + "\"";
    if (const std::size_t at_quote = message.find(quoted); at_quote != std::string::npos) {
      message.replace(at_quote, quoted.size(), as_written_);
    }
  }
  if (!path_.empty()) message.insert(0, path_ + ": ");
  found_.push_back(
      {.severity = severity, .file = file_, .line = at.line, .column = at.column, .message = std::move(message)});
}

std::optional<Expanded> Reader::scalar(const Node& node, std::string_view expected) {
  if (node.kind != Node::Kind::scalar) {
    error(node, "expected " + std::string(expected) + ", got " + std::string(kind_name(node)));
    return std::nullopt;
  }
  auto expanded = expand_env(node.text, options_.env);
  if (!expanded) {
    error(node, expanded.error());
    return std::nullopt;
  }
  from_env_ = expanded->used_env ? expanded->text : "";
  as_written_ = node.text;
  return *std::move(expanded);
}

}  // namespace ganglion::config
