#pragma once
// Grammars over small vocabularies, and texts through them byte by byte or token by token.

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backends/local/grammar/compile.hpp"
#include "backends/local/grammar/matcher.hpp"

namespace ganglion::local::grammar::test {

inline constexpr std::int32_t kEnd = 256;  // of byte_vocabulary

// Every byte, an end token, a token without text, and pieces as real vocabularies have them.
inline std::shared_ptr<const Vocabulary> byte_vocabulary() {
  static const auto made = [] {
    std::vector<std::string> bytes;
    for (int c = 0; c < 256; ++c) bytes.emplace_back(1, static_cast<char>(c));
    bytes.insert(bytes.end(), {"</s>", ""});
    for (const char* piece :
         {"\":",   "\": ", "\",",     "\", \"",  "\"}",      "\"]",   "{\"",      "[\"",   "},",   "}}",    "}]",
          "]}",    "],",   "[[",      "[]",      "{}",       "},{",   "}, {\"",   "\",\"", "true", "false", "null",
          "tr",    "ue",   " true",   ": [",     ":[{\"",    "  ",    "    ",     "\n  ",  "\n\n", " \n",   "12",
          "123",   "0.",   "00",      "-1",      "e+",       "1,",    "2]",       "3}",    "ab",   "abc",   "name",
          "a\"",   "b\",", "\"a",     "\"b\"",   "é",        "日",    "\xe6\x97", "\xa5",  "\\n",  "\\\"",  "\\u00",
          "\\u",   "d8",   "\\ud83d", "\\ude00", "id",       "id\":", "value",    "x y",   "}}}}", "]]]]",  "\"}}",
          "2024-", "-01",  "more",    "{\"a\":", "{\"a\": ", "1}",    "null}",    "null,", "[1,",  "1, 2"}) {
      bytes.emplace_back(piece);
    }
    return std::make_shared<const Vocabulary>(bytes, std::vector<std::int32_t>{kEnd});
  }();
  return made;
}

inline Source schema_source(const std::string& schema, bool strict = false) {
  Source s;
  s.json = Source::Json::schema;
  s.schema = schema;
  s.strict = strict;
  return s;
}
inline Source object_source() {
  Source s;
  s.json = Source::Json::object;
  return s;
}

inline std::shared_ptr<const Grammar> grammar_of(const Source& source) {
  auto made = compile(source, byte_vocabulary());
  EXPECT_TRUE(made) << made.error().message << " in " << source.schema;
  return made ? *made : nullptr;
}

// Whether the text, all of it and no more, is in the grammar.
inline bool accepts(const std::shared_ptr<const Grammar>& grammar, const std::string& text) {
  Matcher m(grammar);
  for (const char c : text) {
    if (!m.advance(static_cast<unsigned char>(c))) return false;
  }
  return m.complete();
}
inline bool accepts(const std::string& schema, const std::string& text, bool strict = false) {
  return accepts(grammar_of(schema_source(schema, strict)), text);
}

inline std::vector<std::uint32_t> mask_of(const Matcher& m) {
  std::vector<std::uint32_t> words(m.grammar().vocabulary().words());
  m.fill(words);
  return words;
}
inline bool has(const std::vector<std::uint32_t>& words, std::int32_t id) {
  return (words[static_cast<std::size_t>(id) / 32] >> (static_cast<std::uint32_t>(id) % 32) & 1U) != 0;
}
inline std::vector<std::int32_t> allowed(const Matcher& m) {
  const auto words = mask_of(m);
  std::vector<std::int32_t> out;
  for (std::int32_t id = 0; id < m.grammar().vocabulary().size(); ++id) {
    if (has(words, id)) out.push_back(id);
  }
  return out;
}

}  // namespace ganglion::local::grammar::test
