// The safetensors header: what must load, and one test per way in which a file can be wrong.

#include "backends/local/weights/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "tests/unit/backends/local/weights/weights_files.hpp"

namespace ganglion::local {
namespace {

using test::safetensors;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

core::Result<SafetensorsHeader> parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "m.safetensors");
}

// The message of the error that `header` over `data_size` zero bytes gives; "" if it loads.
std::string error_of(std::string_view header, std::size_t data_size) {
  auto parsed = parse(safetensors(header, std::string(data_size, '\0')));
  return parsed ? "" : parsed.error().message;
}

TEST(Safetensors, ReadsTensorsInFileOrder) {
  const std::string bytes = safetensors(
      R"({"b":{"dtype":"F32","shape":[2,1],"data_offsets":[2,10]},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},)"
      R"("__metadata__":{"format":"pt"}}   )",
      std::string("\x80\x3f\x00\x00\x80\x3f\x00\x00\x00\x40", 10));
  auto parsed = parse(bytes);
  ASSERT_TRUE(parsed) << parsed.error().message;
  ASSERT_EQ(parsed->tensors.size(), 2u);
  EXPECT_EQ(parsed->tensors[0].name, "a");
  EXPECT_EQ(parsed->tensors[0].dtype, Dtype::bf16);
  EXPECT_TRUE(parsed->tensors[0].shape.empty());
  EXPECT_EQ(parsed->tensors[0].numel(), 1);
  const TensorView& b = parsed->tensors[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_THAT(b.shape, ElementsAre(2, 1));
  float values[2];
  ASSERT_EQ(b.data.size(), sizeof values);
  std::memcpy(values, b.data.data(), sizeof values);
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f));
}

TEST(Safetensors, RecognisesEveryDtypeWithItsSize) {
  const std::pair<const char*, int> bits[] = {
      {"F64", 64},    {"F32", 32},    {"F16", 16}, {"BF16", 16}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},
      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},   {"I64", 64},  {"I32", 32},    {"I16", 16},    {"I8", 8},
      {"U64", 64},    {"U32", 32},    {"U16", 16}, {"U8", 8},    {"BOOL", 8},    {"C64", 64}};
  for (const auto& [name, size] : bits) {
    const auto bytes = static_cast<std::size_t>(size);  // 8 elements take `size` bytes
    const std::string header = std::string(R"({"t":{"dtype":")") + name + R"(","shape":[8],"data_offsets":[0,)" +
                               std::to_string(bytes) + "]}}";
    EXPECT_EQ(error_of(header, bytes), "") << name;
    EXPECT_EQ(dtype_name(*dtype_from_name(name)), name);
    EXPECT_EQ(dtype_bits(*dtype_from_name(name)), size);
  }
  EXPECT_FALSE(dtype_from_name("F7"));
}

TEST(Safetensors, EmptyTensorsAndNoTensorsAreFine) {
  EXPECT_EQ(error_of(R"({})", 0), "");
  EXPECT_EQ(
      error_of(
          R"({"z":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
          R"("y":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}})",
          1),
      "");
}

TEST(Safetensors, RefusesABrokenFrame) {
  EXPECT_THAT(parse("short").error().message, HasSubstr("shorter than the 8-byte header length"));
  EXPECT_THAT(parse("").error().message, HasSubstr("m.safetensors"));
  EXPECT_THAT(parse(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)).error().message, HasSubstr("limit"));
  EXPECT_THAT(parse(std::string("\x09\0\0\0\0\0\0\0{}", 10)).error().message, HasSubstr("past the end"));
  EXPECT_THAT(parse(safetensors("", "")).error().message, HasSubstr("does not start with '{'"));
  EXPECT_THAT(parse(safetensors(" {}", "")).error().message, HasSubstr("does not start with '{'"));
  EXPECT_THAT(parse(safetensors("{\"a\":", "")).error().message, HasSubstr("not valid JSON"));
  EXPECT_THAT(parse(safetensors("{}{}", "")).error().message, HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(R"({"a":{"b":{"c":{"d":{"e":{}}}}}})", 0), HasSubstr("nested too deeply"));
}

TEST(Safetensors, RefusesEntriesThatSayTooLittleOrNonsense) {
  EXPECT_THAT(error_of(R"({"w":5})", 0), HasSubstr("tensor \"w\" is not described"));
  EXPECT_THAT(error_of(R"({"w":{"shape":[1],"data_offsets":[0,4]}})", 4), HasSubstr("has no dtype"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("unknown dtype \"Q4\""));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4), HasSubstr("no shape"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), HasSubstr("dimension"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4), HasSubstr("dimension"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4), HasSubstr("data_offsets"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":["0",4]}})", 4), HasSubstr("data_offsets"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4),
              HasSubstr("16 dimensions"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"a":1}})", 0), HasSubstr("__metadata__"));
  EXPECT_THAT(error_of(R"({"__metadata__":[]})", 0), HasSubstr("__metadata__"));
}

TEST(Safetensors, RefusesSizesThatOverflowOrDisagree) {
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
              HasSubstr("overflows"));
  // 2^61 elements of 32 bits: the element count fits, the bit count does not.
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0),
              HasSubstr("overflows"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0]}})", 0),
              HasSubstr("dimension"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F16","shape":[3],"data_offsets":[0,4]}})", 4),
              HasSubstr("holds 4 bytes, but F16 [3] needs 6"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1), HasSubstr("F4 [3]"));
}

TEST(Safetensors, RefusesRangesThatDoNotTileTheData) {
  EXPECT_THAT(error_of(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 3), HasSubstr("cut short"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", 4), HasSubstr("end before"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 5), HasSubstr("belong to none"));
  EXPECT_THAT(error_of(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}})", 5), HasSubstr("leaves a hole"));
  EXPECT_THAT(
      error_of(
          R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
          6),
      HasSubstr("\"b\" overlaps"));
}

TEST(Safetensors, RefusesDuplicateNames) {
  EXPECT_THAT(
      error_of(
          R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          1),
      HasSubstr("tensor \"w\" is listed twice"));
}

// Every prefix of a good file is a bad file; none may crash or load.
TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string bytes = safetensors(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "abcd");
  ASSERT_TRUE(parse(bytes));
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(parse(bytes.substr(0, n))) << n;
}

}  // namespace
}  // namespace ganglion::local
