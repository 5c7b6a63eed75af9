// As AutoGPTQ, GPTQModel, AutoAWQ, compressed-tensors and transformers write it.

#include "backends/local/weights/packed_config.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "backends/local/weights/config_fields.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;

constexpr std::int64_t kGroupMax = 1 << 20;

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::int64_t group_of(ConfigFields& f, const char* key) {
  const std::int64_t group = f.integer_or(key, 128, -1, kGroupMax);
  if (group == 0 || (group > 0 && group % 8 != 0)) {
    f.fail(ErrorKind::unsupported, key, "must be -1 or a multiple of 8");
  }
  return std::max<std::int64_t>(group, 0);
}

PackedConfig read_gptq(ConfigFields& f) {
  PackedConfig out{.scheme = PackedScheme::gptq};
  if (f.integer_or("bits", 4, 1, 16) != 4) f.fail(ErrorKind::unsupported, "bits", "other than 4 is not implemented");
  out.group = group_of(f, "group_size");
  const std::string format = lower(f.string("checkpoint_format").value_or("gptq"));
  if (format == "gptq") {
    out.zero_add = 1;
  } else if (format != "gptq_v2") {
    f.fail(ErrorKind::unsupported, "checkpoint_format", "\"" + format + "\" is not implemented (gptq and gptq_v2 are)");
  }
  return out;
}

PackedConfig read_awq(ConfigFields& f) {
  PackedConfig out{.scheme = PackedScheme::awq};
  const char* bits = f.has("w_bit") ? "w_bit" : "bits";
  if (f.integer_or(bits, 4, 1, 16) != 4) f.fail(ErrorKind::unsupported, bits, "other than 4 is not implemented");
  out.group = group_of(f, f.has("q_group_size") ? "q_group_size" : "group_size");
  const std::string version = lower(f.string("version").value_or("gemm"));
  if (version != "gemm") {
    f.fail(ErrorKind::unsupported, "version", "\"" + version + "\" is not implemented (gemm is)");
  }
  return out;
}

void read_block(ConfigFields& f, const char* key, PackedConfig& out) {
  const auto block = f.integers(key, 1, kGroupMax);
  if (block.empty()) return;
  if (block.size() != 2) {
    f.fail(ErrorKind::invalid_value, key, "is not [rows, columns]");
    return;
  }
  out.block_rows = block[0], out.block_cols = block[1];
}

PackedConfig read_fp8(ConfigFields& f) {
  PackedConfig out{.scheme = PackedScheme::fp8};
  const std::string format = lower(f.string("fmt").value_or("e4m3"));
  if (format != "e4m3") f.fail(ErrorKind::unsupported, "fmt", "\"" + format + "\" is not implemented (e4m3 is)");
  read_block(f, "weight_block_size", out);
  return out;
}

// One group's weights in compressed-tensors. How activations were quantised is not looked at: where they become eight
// bits, their scales are measured.
void read_float_weights(ConfigFields& w, PackedConfig& out) {
  const std::string type = w.string("type").value_or("int"), strategy = w.string("strategy").value_or("tensor");
  if (type != "float" || w.integer_or("num_bits", 8, 1, 64) != 8) {
    w.fail(ErrorKind::unsupported, "type", "other than 8-bit float is not implemented in this format");
  }
  if (strategy == "block") {
    read_block(w, "block_structure", out);
  } else if (strategy != "tensor" && strategy != "channel") {
    w.fail(ErrorKind::unsupported, "strategy",
           "\"" + strategy + "\" is not implemented (tensor, channel and block are)");
  }
}

void read_int_weights(ConfigFields& w, PackedConfig& out) {
  const std::string type = w.string("type").value_or("int"), strategy = w.string("strategy").value_or("tensor");
  if (type != "int" || w.integer_or("num_bits", 8, 1, 64) != 4) {
    w.fail(ErrorKind::unsupported, "type", "other than 4-bit int is not implemented in this format");
  }
  if (!w.boolean_or("symmetric", true)) w.fail(ErrorKind::unsupported, "symmetric", "false is not implemented");
  if (strategy == "group") {
    out.group = group_of(w, "group_size");
  } else if (strategy != "channel") {
    w.fail(ErrorKind::unsupported, "strategy", "\"" + strategy + "\" is not implemented (group and channel are)");
  }
}

void read_int8_weights(ConfigFields& w) {
  const std::string type = w.string("type").value_or("int"), strategy = w.string("strategy").value_or("tensor");
  if (type != "int" || w.integer_or("num_bits", 8, 1, 64) != 8) {
    w.fail(ErrorKind::unsupported, "type", "other than 8-bit int is not implemented in this format");
  }
  if (!w.boolean_or("symmetric", true)) w.fail(ErrorKind::unsupported, "symmetric", "false is not implemented");
  if (strategy != "channel" && strategy != "tensor") {
    w.fail(ErrorKind::unsupported, "strategy", "\"" + strategy + "\" is not implemented (channel and tensor are)");
  }
}

PackedConfig read_compressed(ConfigFields& f) {
  const std::string format = lower(f.string("format").value_or("unnamed"));
  PackedConfig out;
  if (format == "pack-quantized") {
    out.scheme = PackedScheme::rows;
  } else if (format == "int-quantized") {
    out.scheme = PackedScheme::int8;
  } else if (format == "float-quantized" || format == "naive-quantized") {
    out.scheme = PackedScheme::fp8;
  } else {
    f.fail(ErrorKind::unsupported, "format",
           "\"" + format + "\" is not implemented (float-quantized, int-quantized and pack-quantized are)");
    return out;
  }
  auto groups = f.object("config_groups");
  if (!groups) {
    f.fail(ErrorKind::invalid_value, "config_groups", "is missing");
    return out;
  }
  for (const auto& item : groups->json().items()) {
    auto group = groups->object(item.key());
    auto weights = group ? group->object("weights") : std::nullopt;
    if (!weights) continue;
    if (out.scheme == PackedScheme::rows) {
      read_int_weights(*weights, out);
    } else if (out.scheme == PackedScheme::int8) {
      read_int8_weights(*weights);
    } else {
      read_float_weights(*weights, out);
    }
    groups->absorb(*weights);
  }
  f.absorb(*groups);
  return out;
}

}  // namespace

PackedConfig read_packed_config(ConfigFields& f) {
  const std::string method = f.string("quant_method").value_or("unnamed");
  if (method == "gptq") return read_gptq(f);
  if (method == "awq") return read_awq(f);
  if (method == "fp8" || method == "fbgemm_fp8") return read_fp8(f);
  if (method == "compressed-tensors") return read_compressed(f);
  f.fail(ErrorKind::unsupported, "quant_method",
         "\"" + method + "\" is not implemented (gptq, awq, fp8 and compressed-tensors are)");
  return {};
}

}  // namespace ganglion::local
