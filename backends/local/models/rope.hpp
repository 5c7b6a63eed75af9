#pragma once
// Rotary position angles: frequencies once per model, cosines and sines once per row of a step.

#include <vector>

#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

// One frequency per pair of the `dims` rotated elements of a head, scaled as the config says. In float, as the
// reference models compute them, so that long positions agree. `long_positions`: longrope's for sequences that are
// longer than original_max_position.
std::vector<float> rope_frequencies(const RopeConfig& rope, std::int64_t dims, bool long_positions = false);

// Writes cos and sin of position * frequency, times `magnitude`.
void rope_angles(const std::vector<float>& frequencies, std::int64_t position, float* cos, float* sin,
                 float magnitude = 1.0f);

}  // namespace ganglion::local
