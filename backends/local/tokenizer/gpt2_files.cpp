// Builds the JSON in memory; tokenizer.cpp parses it as it would a file.

#include "backends/local/tokenizer/gpt2_files.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

namespace ganglion::local::tok {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using core::Result;
using Json = nlohmann::json;

constexpr std::uintmax_t kFileBytesMax = 64 << 20;

core::Result<Json> read_object(const fs::path& file) {
  std::error_code ec;
  if (fs::file_size(file, ec) > kFileBytesMax || ec) {
    return core::fail(ErrorKind::invalid_value, file.string() + ": cannot be read or is over 64 MiB");
  }
  std::ifstream in(file, std::ios::binary);
  Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return core::fail(ErrorKind::invalid_value, file.string() + ": not a JSON object");
  }
  return json;
}

Result<Json> read_merges(const fs::path& file) {
  std::error_code ec;
  if (fs::file_size(file, ec) > kFileBytesMax || ec) {
    return core::fail(ErrorKind::invalid_value, file.string() + ": cannot be read or is over 64 MiB");
  }
  std::ifstream in(file, std::ios::binary);
  Json merges = Json::array();
  std::string line;
  for (bool first = true; std::getline(in, line); first = false) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || (first && line.starts_with("#version"))) continue;
    merges.push_back(line);
  }
  return merges;
}

// "bos_token": "<s>" or {"content": "<s>", ...}; "" where there is none.
std::string content_of(const Json& config, const char* key) {
  const auto it = config.find(key);
  if (it == config.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  return it->is_object() ? it->value("content", "") : std::string();
}

}  // namespace

bool has_gpt2_files(const fs::path& dir) {
  std::error_code ec;
  return fs::is_regular_file(dir / "vocab.json", ec) && fs::is_regular_file(dir / "merges.txt", ec);
}

Result<std::string> read_gpt2_files(const fs::path& dir) {
  auto vocab = read_object(dir / "vocab.json");
  if (!vocab) return std::unexpected(vocab.error());
  auto merges = read_merges(dir / "merges.txt");
  if (!merges) return std::unexpected(merges.error());
  Json config = Json::object();
  std::error_code ec;
  if (fs::exists(dir / "tokenizer_config.json", ec)) {
    auto read = read_object(dir / "tokenizer_config.json");
    if (!read) return std::unexpected(read.error());
    config = std::move(*read);
  }
  Json added = Json::array();
  std::set<std::string> seen;
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const std::string content = content_of(config, key);
    const auto id = vocab->find(content);
    if (content.empty() || id == vocab->end() || !seen.insert(content).second) continue;
    added.push_back({{"id", *id},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const bool prefix_space = config.contains("add_prefix_space") && config["add_prefix_space"] == true;
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", true}};
  Json doc = {{"added_tokens", added},
              {"normalizer", nullptr},
              {"pre_tokenizer", byte_level},
              {"post_processor", nullptr},
              {"decoder", byte_level},
              {"model", {{"type", "BPE"}, {"vocab", std::move(*vocab)}, {"merges", std::move(*merges)}}}};
  const std::string bos = content_of(config, "bos_token");
  const auto& words = doc["model"]["vocab"];
  if (config.contains("add_bos_token") && config["add_bos_token"] == true && words.contains(bos)) {
    const Json first = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
    const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    doc["post_processor"] = {{"type", "TemplateProcessing"},
                             {"single", {first, text}},
                             {"pair", {first, text}},
                             {"special_tokens", {{bos, {{"id", bos}, {"ids", {words[bos]}}, {"tokens", {bos}}}}}}};
  }
  return doc.dump();
}

}  // namespace ganglion::local::tok
