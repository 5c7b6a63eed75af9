// The tape gives back what it was given, whatever the events are, and holds little of it.

#include "gateway/tape.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace ganglion::gateway {
namespace {

std::string chunk(std::string_view text) {
  return R"(data: {"id":"chatcmpl-9f8","object":"chat.completion.chunk","created":1764092000,"model":"gpt-4o-mini",)"
         R"("system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":")" +
         std::string{text} + "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
}

TEST(Tape, EventsComeBackAsTheyCame) {
  const std::vector<std::vector<std::string>> streams{
      {chunk("a"), chunk("b"), chunk("a"), chunk(""), chunk(R"(\"}{\")"), chunk("aa")},
      {"data: x\n\n", "data: xx\n\n", "data: \n\n", "data: xxx\n\n", "x", chunk("long after short")},
      {"aaaa", "aa", "aaaaaaaa", "a", "", "baaa", "aaab"},
      {"one"}};
  for (const auto& stream : streams) {
    Tape tape;
    std::string all;
    for (const std::string& event : stream) {
      tape.keep(event);
      all += event;
      EXPECT_EQ(tape.events(), all);
    }
    EXPECT_EQ(tape.first(), stream.front());
    EXPECT_FALSE(tape.full());
  }
}

TEST(Tape, AnyBytesComeBack) {
  std::mt19937 random{7};
  for (int round = 0; round < 2'000; ++round) {
    Tape tape;
    std::string all;
    for (unsigned i = 0; i < 8; ++i) {
      std::string event(1 + random() % 40, '\0');
      for (char& c : event) c = static_cast<char>('a' + random() % 2);  // much in common
      tape.keep(event);
      all += event;
    }
    ASSERT_EQ(tape.events(), all);
  }
}

TEST(Tape, HoldsLittleOfAStreamAndOfAFullOneTheFirstEvent) {
  Tape tape;
  std::size_t bytes = 0;
  std::size_t held = 0;
  for (int i = 0; !tape.full(); ++i) {
    const std::string event = chunk(" word" + std::to_string(i));
    bytes += event.size();
    tape.keep(event);
    held = std::max(held, tape.bytes_held());
  }
  EXPECT_GT(bytes, Tape::kEventBytesMax);
  EXPECT_LT(held, 8 * 1024U);
  EXPECT_EQ(tape.events(), chunk(" word0"));
  EXPECT_LT(tape.bytes_held(), 512U);
  tape.keep("more");
  EXPECT_EQ(tape.events(), chunk(" word0"));
}

}  // namespace
}  // namespace ganglion::gateway
