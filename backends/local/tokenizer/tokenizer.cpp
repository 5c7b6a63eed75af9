// The public face: loading, and the calls that only look things up.

#include "backends/local/tokenizer/tokenizer.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/gpt2_files.hpp"
#include "backends/local/tokenizer/pipeline.hpp"

namespace ganglion::local {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using Json = nlohmann::json;

constexpr std::uintmax_t kFileBytesMax = 256 << 20;
constexpr int kDepthMax = 64;

core::Result<std::string> read_file(const fs::path& path) {
  std::error_code ec;
  if (!fs::is_regular_file(path, ec)) return core::fail(ErrorKind::not_found, path.string() + ": no such file");
  if (fs::file_size(path, ec) > kFileBytesMax) {
    return core::fail(ErrorKind::invalid_value, path.string() + ": over 256 MiB");
  }
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return core::fail(ErrorKind::internal, path.string() + ": cannot be read");
  return text;
}

core::Result<Json> parse_json(std::string_view text, std::string_view origin) {
  bool too_deep = false;
  const auto watch = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kDepthMax;
    return !too_deep;
  };
  Json json = Json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (too_deep || json.is_discarded() || !json.is_object()) {
    return core::fail(ErrorKind::invalid_value,
                      std::string(origin) + (too_deep ? ": is nested too deeply" : ": not a JSON object"));
  }
  return json;
}

// "bos_token": "<s>" or {"content": "<s>", ...}.
std::optional<std::int32_t> named_id(const Json& config, const char* key, const tok::Pipeline& pipeline) {
  const auto it = config.find(key);
  if (it == config.end()) return std::nullopt;
  const Json* name = it->is_object() && it->contains("content") ? &(*it)["content"] : &*it;
  if (!name->is_string()) return std::nullopt;
  const std::string& content = name->get_ref<const std::string&>();
  if (const tok::AddedToken* token = pipeline.added.by_content(content)) return token->id;
  const std::int32_t id = pipeline.model->vocab().find(content);
  return id >= 0 ? std::optional(id) : std::nullopt;
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<tok::Pipeline> pipeline) : p_(std::move(pipeline)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

core::Result<Tokenizer> Tokenizer::parse(std::string_view text, std::string_view origin) {
  auto json = parse_json(text, origin);
  if (!json) return std::unexpected(json.error());
  try {
    return Tokenizer(std::make_unique<tok::Pipeline>(tok::Spec(*json, std::string(origin))));
  } catch (const tok::LoadError& error) {
    return core::fail(error.kind, error.message);
  }
}

core::Result<Tokenizer> Tokenizer::load(const fs::path& path) {
  std::error_code ec;
  const bool directory = fs::is_directory(path, ec);
  const fs::path file = directory ? path / "tokenizer.json" : path;
  const bool older = directory && !fs::exists(file, ec) && tok::has_gpt2_files(path);
  auto text = older ? tok::read_gpt2_files(path) : read_file(file);
  if (!text) return std::unexpected(text.error());
  auto tokenizer = parse(*text, file.string());
  const fs::path config_file = path / "tokenizer_config.json";
  if (!tokenizer || !directory || !fs::exists(config_file, ec)) return tokenizer;
  auto config_text = read_file(config_file);
  if (!config_text) return std::unexpected(config_text.error());
  auto config = parse_json(*config_text, config_file.string());
  if (!config) return std::unexpected(config.error());
  tok::Pipeline& p = *tokenizer->p_;
  p.bos_id = named_id(*config, "bos_token", p);
  p.eos_id = named_id(*config, "eos_token", p);
  p.pad_id = named_id(*config, "pad_token", p);
  return tokenizer;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  const tok::PostProcessor& post = p_->post_processor;
  if (add_special_tokens) ids = post.before();
  p_->encode(text, false, ids);
  if (add_special_tokens) ids.insert(ids.end(), post.after().begin(), post.after().end());
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_ordinary(std::string_view text) const {
  std::vector<std::int32_t> ids;
  p_->encode(text, true, ids);
  return ids;
}

std::size_t Tokenizer::count(std::string_view text) const {
  return encode(text, false).size();
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  tok::DecodeChain chain(p_->decoder, /*prompt=*/false);
  for (const std::int32_t id : ids) {
    const std::string_view token = p_->shown(id);
    if (token.empty() || (skip_special && is_special(id))) continue;
    chain.token(token);
  }
  chain.finish();
  return chain.take();
}

std::int32_t Tokenizer::vocab_size() const {
  return p_->end_id;
}

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const {
  if (const tok::AddedToken* added = p_->added.by_content(token)) return added->id;
  const std::int32_t id = p_->model->vocab().find(token);
  return id >= 0 ? std::optional(id) : std::nullopt;
}

std::string_view Tokenizer::id_to_token(std::int32_t id) const {
  return p_->token(id);
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
  if (const tok::AddedToken* added = p_->added.by_id(id)) return added->content;
  return p_->decoder.token_bytes(p_->token(id));
}

bool Tokenizer::is_special(std::int32_t id) const {
  return p_->is_special(id);
}

bool Tokenizer::is_added(std::int32_t id) const {
  return p_->added.by_id(id) != nullptr;
}

std::span<const std::int32_t> Tokenizer::special_ids() const {
  return p_->special_ids;
}

std::optional<std::int32_t> Tokenizer::bos_id() const {
  return p_->bos_id;
}
std::optional<std::int32_t> Tokenizer::eos_id() const {
  return p_->eos_id;
}
std::optional<std::int32_t> Tokenizer::pad_id() const {
  return p_->pad_id;
}

}  // namespace ganglion::local
