// The character checks, each byte at each place of texts of all lengths that the vector code tells apart.

#include "net/http1_grammar.hpp"

#include <gtest/gtest.h>

#include <string>

#include "net/http1_write.hpp"

namespace ganglion::net::http1 {
namespace {

constexpr std::string_view kTokenMarks = "!#$%&'*+-.^_`|~";

bool token_char(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         kTokenMarks.find(static_cast<char>(c)) != std::string_view::npos;
}

TEST(Http1Grammar, TokensAndValuesAreCheckedToTheLastByte) {
  for (std::size_t size = 1; size <= 50; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      for (int c = 0; c < 256; ++c) {
        std::string text(size, 'x');
        text[at] = static_cast<char>(c);
        const auto u = static_cast<unsigned char>(c);
        ASSERT_EQ(is_token(text), token_char(u)) << size << " " << at << " " << c;
        ASSERT_EQ(is_field_value(text), (u >= 0x20 || u == '\t') && u != 0x7f) << size << " " << at << " " << c;
      }
    }
  }
  EXPECT_FALSE(is_token(""));
  EXPECT_TRUE(is_field_value(""));
}

TEST(Http1Grammar, HeadersAreWrittenWholeOrNotAtAll) {
  std::string out;
  std::string expected;
  for (std::size_t size = 0; size < 300; ++size) {
    const std::string value(size, 'v');
    EXPECT_TRUE(append_header(out, "x-name", value));
    expected += "x-name: " + value + "\r\n";
    ASSERT_EQ(out, expected);
  }
  EXPECT_FALSE(append_header(out, "x-name", "a\r\nb: c"));
  EXPECT_FALSE(append_header(out, "x name", "a"));
  EXPECT_FALSE(append_header(out, "", "a"));
  EXPECT_EQ(out, expected);
}

}  // namespace
}  // namespace ganglion::net::http1
