#pragma once
// The part of config.json that describes a decoder: sizes, norms, positions, windows. For model_config.cpp.

#include "backends/local/weights/config_fields.hpp"
#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

inline constexpr std::int64_t kModelSizeMax = 1 << 24;  // of a hidden size, vocabulary or position count
inline constexpr std::int64_t kModelLayersMax = 4096;

// Fills in everything of a decoder but ids and generation defaults; family is known. Mistakes are left in `f`.
void read_decoder_config(ConfigFields& f, ModelConfig& c);
// "silu" and its like; a name that is not implemented is a mistake.
void read_activation(ConfigFields& f, std::string_view key, std::string_view fallback, ModelConfig& c);

}  // namespace ganglion::local
