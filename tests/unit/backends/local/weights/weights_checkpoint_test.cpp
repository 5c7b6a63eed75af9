// Opening a model directory: single file, shards, and what an index can get wrong.

#include "backends/local/weights/checkpoint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/backends/local/weights/weights_files.hpp"

namespace ganglion::local {
namespace {

using test::safetensors;
using test::TempDir;
using ::testing::HasSubstr;

// A file that holds U8 tensors of one byte each, named and valued as given.
std::string bytes_file(const std::vector<std::pair<std::string, char>>& tensors) {
  std::string header = "{";
  std::string data;
  for (const auto& [name, value] : tensors) {
    if (!data.empty()) header += ",";
    header += "\"" + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + 1) + "]}";
    data += value;
  }
  return safetensors(header + "}", data);
}

char value_of(const Checkpoint& checkpoint, std::string_view name) {
  const TensorView* view = checkpoint.find(name);
  return view == nullptr ? '?' : static_cast<char>(view->data[0]);
}

TEST(Checkpoint, OpensASingleFileByDirectoryOrPath) {
  TempDir dir;
  const auto file = dir.write("model.safetensors", bytes_file({{"a", '1'}, {"b", '2'}}));
  for (const auto& path : {dir.path(), file}) {
    auto checkpoint = Checkpoint::open(path);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    EXPECT_EQ(value_of(*checkpoint, "b"), '2');
    EXPECT_EQ(checkpoint->find("c"), nullptr);
    EXPECT_EQ(checkpoint->tensors().size(), 2u);
    EXPECT_EQ(checkpoint->data_bytes(), 2u);
  }
}

TEST(Checkpoint, ViewsSurviveAMove) {
  TempDir dir;
  dir.write("model.safetensors", bytes_file({{"a", '1'}}));
  auto opened = Checkpoint::open(dir.path());
  ASSERT_TRUE(opened);
  const TensorView* before = opened->find("a");
  const Checkpoint moved = std::move(*opened);
  EXPECT_EQ(moved.find("a"), before);
  EXPECT_EQ(before->name, "a");
  EXPECT_EQ(value_of(moved, "a"), '1');
}

TEST(Checkpoint, JoinsShards) {
  TempDir dir;
  dir.write("one.safetensors", bytes_file({{"a", '1'}, {"extra", 'x'}}));
  dir.write("two.safetensors", bytes_file({{"b", '2'}, {"a", 'z'}}));
  dir.write("model.safetensors.index.json",
            R"({"metadata":{"total_size":2},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ(value_of(*checkpoint, "a"), '1');  // the index says which of the two
  EXPECT_EQ(value_of(*checkpoint, "b"), '2');
  EXPECT_EQ(checkpoint->find("extra"), nullptr);
  EXPECT_EQ(checkpoint->tensors().size(), 2u);
}

TEST(Checkpoint, NamesWhatIsWrongWithAnIndex) {
  TempDir dir;
  dir.write("one.safetensors", bytes_file({{"a", '1'}}));
  auto error_with = [&](std::string_view index) {
    dir.write("model.safetensors.index.json", index);
    auto checkpoint = Checkpoint::open(dir.path());
    return checkpoint ? std::string() : checkpoint.error().message;
  };
  EXPECT_THAT(error_with("[1]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_with("{}"), HasSubstr("weight_map"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":3}})"), HasSubstr("\"a\" is not a file name"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"../one.safetensors"}})"), HasSubstr("not a plain file name"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"/etc/passwd"}})"), HasSubstr("not a plain file name"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"one.safetensors","q":"one.safetensors"}})"),
              HasSubstr("lists tensor \"q\" in one.safetensors, which does not hold it"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"gone.safetensors"}})"),
              AllOf(HasSubstr("gone.safetensors"), HasSubstr("index.json")));
  EXPECT_EQ(error_with(R"({"weight_map":{"a":"one.safetensors"}})"), "");
}

TEST(Checkpoint, SaysWhenThereAreNoWeights) {
  TempDir dir;
  dir.write("pytorch_model.bin", "x");
  auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().kind, core::ErrorKind::not_found);
  EXPECT_THAT(checkpoint.error().message, HasSubstr("model.safetensors"));
  dir.write("empty.safetensors", "");
  EXPECT_EQ(Checkpoint::open(dir.path() / "empty.safetensors").error().kind, core::ErrorKind::invalid_value);
}

TEST(Checkpoint, RequireChecksPresenceAndShape) {
  TempDir dir;
  dir.write("model.safetensors", bytes_file({{"a", '1'}}));
  auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint);
  const std::int64_t good[] = {1};
  const std::int64_t wrong[] = {1, 2};
  EXPECT_TRUE(checkpoint->require("a", good));
  EXPECT_THAT(checkpoint->require("a", wrong).error().message, HasSubstr("has shape [1], config.json implies [1, 2]"));
  EXPECT_THAT(checkpoint->require("nope", good).error().message, HasSubstr("\"nope\""));
}

TEST(Checkpoint, DroppedPagesReadTheSame) {
  TempDir dir;
  const std::string data(1 << 20, 'k');
  dir.write("model.safetensors",
            safetensors(R"({"big":{"dtype":"U8","shape":[1048576],"data_offsets":[0,1048576]}})", data));
  auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint);
  const TensorView* big = checkpoint->find("big");
  ASSERT_NE(big, nullptr);
  auto all_k = [&] { return std::ranges::all_of(big->data, [](std::byte b) { return b == std::byte{'k'}; }); };
  EXPECT_TRUE(all_k());
  checkpoint->drop_pages(*big);
  EXPECT_TRUE(all_k());
}

}  // namespace
}  // namespace ganglion::local
