// PCRE2 behind Regex. JIT-compiled where the machine allows it.

#define PCRE2_CODE_UNIT_WIDTH 8
#include "backends/local/tokenizer/regex.hpp"

#include <pcre2.h>

namespace ganglion::local::tok {
namespace {

constexpr std::uint32_t kMatchLimit = 10'000'000;  // backtracking steps for one match
constexpr std::uint32_t kHeapLimitKib = 64 * 1024;

}  // namespace

Regex::Regex(const Spec& pattern) {
  const std::string translated = translate_regex(pattern);
  std::shared_ptr<pcre2_compile_context> compile(pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(compile.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // MULTILINE because ^ and $ always mean lines in Ruby's syntax.
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, compile.get());
  if (code == nullptr) {
    PCRE2_UCHAR text[256] = {};
    pcre2_get_error_message(error, text, sizeof text);
    pattern.bad("the regex \"" + pattern.text() + "\" does not compile: " + reinterpret_cast<const char*>(text));
  }
  code_ = std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT it is slower, not different
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(context, kMatchLimit);
  pcre2_set_heap_limit(context, kHeapLimitKib);
  context_ =
      std::shared_ptr<void>(context, [](void* p) { pcre2_match_context_free(static_cast<pcre2_match_context*>(p)); });
}

Regex::Scan::Scan(const Regex& regex, std::string_view text)
    : regex_(regex),
      text_(text),
      match_data_(pcre2_match_data_create_from_pattern(static_cast<pcre2_code*>(regex.code_.get()), nullptr),
                  [](void* p) { pcre2_match_data_free(static_cast<pcre2_match_data*>(p)); }) {}

std::optional<std::pair<std::size_t, std::size_t>> Regex::Scan::next(std::size_t from) {
  auto* code = static_cast<pcre2_code*>(regex_.code_.get());
  auto* data = static_cast<pcre2_match_data*>(match_data_.get());
  auto* context = static_cast<pcre2_match_context*>(regex_.context_.get());
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text_.data());
  // The text is valid UTF-8 by construction; checking it again for every match would be quadratic.
  int rc = pcre2_match(code, subject, text_.size(), from, PCRE2_NO_UTF_CHECK, data, context);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    rc = pcre2_match(code, subject, text_.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
  }
  if (rc < 0) return std::nullopt;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
  return std::pair<std::size_t, std::size_t>{ends[0], ends[1]};
}

}  // namespace ganglion::local::tok
