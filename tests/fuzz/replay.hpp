#pragma once
// One property over a fuzzer's kept corpus, whole and cut, and over a fixed sequence of edits of each case.

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "tests/support/corpus.hpp"

namespace ganglion::fuzz {

// `least`: cases that the corpus has at least. `edited`: edits of each (GANGLION_FUZZ_ROUNDS multiplies them).
inline void replay(const std::string& name, void (*check)(std::string_view), std::size_t least,
                   std::size_t edited = 0) {
  const auto cases = test::corpus(name);
  EXPECT_GE(cases.size(), least) << name;
  test::Edits edits(cases);
  for (const auto& [file, bytes] : cases) {
    SCOPED_TRACE(file);
    check(bytes);
    check(std::string_view{bytes}.substr(0, bytes.size() / 2));
    for (std::size_t i = test::Edits::rounds(edited); i > 0; --i) check(edits.of(bytes));
  }
}

}  // namespace ganglion::fuzz
