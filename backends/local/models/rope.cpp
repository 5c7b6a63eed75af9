// Frequencies in double, kept in float; the llama3 rule is Meta's: long wavelengths are stretched by `factor`, short
// ones kept, those between blended.

#include "backends/local/models/rope.hpp"

#include <cmath>
#include <numbers>

namespace ganglion::local {
namespace {

double llama3_scaled(const RopeConfig& rope, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double original = static_cast<double>(rope.original_max_position);
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  if (wavelength < original / rope.high_freq_factor) return frequency;
  const double smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * frequency / rope.factor + smooth * frequency;
}

}  // namespace

std::vector<float> rope_frequencies(const RopeConfig& rope, std::int64_t dims, bool long_positions) {
  std::vector<float> out;
  for (std::int64_t i = 0; i < dims; i += 2) {
    double frequency = 1.0 / std::pow(rope.theta, static_cast<double>(i) / static_cast<double>(dims));
    if (rope.type == RopeType::longrope) {
      frequency /= (long_positions ? rope.long_factor : rope.short_factor)[static_cast<std::size_t>(i / 2)];
    }
    if (rope.type == RopeType::linear) frequency /= rope.factor;
    if (rope.type == RopeType::llama3) frequency = llama3_scaled(rope, frequency);
    // dynamic: scales only past the length the model was made for, where Decoder::context_max stops.
    out.push_back(static_cast<float>(frequency));
  }
  return out;
}

void rope_angles(const std::vector<float>& frequencies, std::int64_t position, float* cos, float* sin,
                 float magnitude) {
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    cos[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * magnitude;
    sin[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * magnitude;
  }
}

}  // namespace ganglion::local
