#pragma once
// Rotary position angles: frequencies once per model, cosines and sines once per row of a step.

#include <vector>

#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

// One frequency per pair of a head's dimensions, scaled as the config says. In float, as the reference models compute
// them, so that long positions agree.
std::vector<float> rope_frequencies(const RopeConfig& rope, std::int64_t head_dim);

// Writes cos and sin of position * frequency.
void rope_angles(const std::vector<float>& frequencies, std::int64_t position, float* cos, float* sin);

}  // namespace ganglion::local
