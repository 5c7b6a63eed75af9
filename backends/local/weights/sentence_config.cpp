// Reads modules.json and what it points to. A module that changes the vectors and is not implemented is an error:
// leaving it out would give wrong embeddings that look right.

#include "backends/local/weights/sentence_config.hpp"

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backends/local/weights/config_fields.hpp"

namespace ganglion::local {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using Json = nlohmann::json;

struct Mode {
  const char* flag;  // the older spelling: one boolean per mode
  const char* name;  // the newer spelling: "pooling_mode": name
  std::optional<Pooling> pooling;
};

constexpr std::array kModes = {
    Mode{"pooling_mode_cls_token", "cls", Pooling::cls},
    Mode{"pooling_mode_mean_tokens", "mean", Pooling::mean},
    Mode{"pooling_mode_max_tokens", "max", Pooling::max},
    Mode{"pooling_mode_lasttoken", "lasttoken", Pooling::last_token},
    Mode{"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", std::nullopt},
    Mode{"pooling_mode_weightedmean_tokens", "weightedmean", std::nullopt},
};

core::Result<Pooling> read_pooling(const fs::path& file) {
  auto fields = ConfigFields::read(file);
  if (!fields) return std::unexpected(fields.error());
  std::optional<Pooling> pooling;
  int modes = 0;
  auto choose = [&](const Mode& mode) {
    ++modes;
    pooling = mode.pooling;
    if (!pooling) fields->fail(ErrorKind::unsupported, mode.flag, "is a pooling that is not implemented");
  };
  if (fields->has("pooling_mode")) {
    const Json& value = fields->json()["pooling_mode"];
    const std::string name = value.is_string() ? value.get<std::string>() : value.dump();
    for (const Mode& mode : kModes) {
      if (name == mode.name) choose(mode);
    }
    if (modes == 0) fields->fail(ErrorKind::unsupported, "pooling_mode", name + " is not implemented");
  } else {
    for (const Mode& mode : kModes) {
      if (fields->boolean_or(mode.flag, false)) choose(mode);
    }
    if (modes == 0) fields->fail(ErrorKind::invalid_value, "pooling_mode", "is chosen by no field");
  }
  if (modes > 1) fields->fail(ErrorKind::unsupported, "pooling_mode", "combines several poolings");
  if (auto ok = fields->result(); !ok) return std::unexpected(ok.error());
  return *pooling;
}

core::Result<Json> read_modules(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  bool good = json.is_array();
  for (const Json& module : good ? json : Json::array()) {
    good = good && module.is_object() && module.contains("type") && module["type"].is_string() &&
           (!module.contains("path") || module["path"].is_string());
  }
  if (!good) return core::fail(ErrorKind::invalid_value, file.string() + ": not a list of {type, path} modules");
  return json;
}

}  // namespace

core::Result<void> read_sentence_config(const fs::path& dir, ModelConfig& config) {
  config.max_seq_length = config.max_position;
  auto sentence = ConfigFields::read_if_present(dir / "sentence_bert_config.json");
  if (!sentence) return std::unexpected(sentence.error());
  const std::int64_t stated = sentence->integer_or("max_seq_length", config.max_position, 1, INT32_MAX);
  config.max_seq_length = std::min(stated, config.max_position);
  if (auto ok = sentence->result(); !ok) return ok;

  const fs::path modules_file = dir / "modules.json";
  std::error_code ec;
  if (!fs::exists(modules_file, ec)) return {};
  auto modules = read_modules(modules_file);
  if (!modules) return std::unexpected(modules.error());
  for (const Json& module : *modules) {
    // The package of the class has moved between versions; its own name has not.
    const std::string& type = module["type"].get_ref<const std::string&>();
    const std::string name = type.substr(type.rfind('.') + 1);
    if (name == "Transformer") continue;
    if (name == "Normalize") {
      config.normalize = true;
    } else if (name == "Pooling") {
      const fs::path path = module.value("path", "");
      if (path.is_absolute() || path.string().find("..") != std::string::npos) {
        return core::fail(ErrorKind::invalid_value, modules_file.string() + ": path of Pooling leaves the directory");
      }
      auto pooling = read_pooling(dir / path / "config.json");
      if (!pooling) return std::unexpected(pooling.error());
      config.pooling = *pooling;
    } else {
      return core::fail(ErrorKind::unsupported,
                        modules_file.string() + ": module type " + type + " is not implemented");
    }
  }
  return {};
}

}  // namespace ganglion::local
