// See work_share.hpp.

#include "backends/local/engine/work_share.hpp"

#include <algorithm>

namespace ganglion::local {

WorkShare::WorkShare(const ModelConfig& c, const Machine& machine) : machine_(machine) {
  const auto number = [](std::int64_t n) { return static_cast<double>(n); };
  const double query = number(c.heads * c.head_dim), kv = number(c.kv_heads * c.head_dim);
  const double matrices = (c.gated ? 3 : 2) * std::max(number(c.experts_used), 1.0);
  const double layer = number(c.hidden_size) * (2 * query + 2 * kv + matrices * number(c.intermediate_size));
  operations_token_ = 2 * (number(c.layers) * layer + number(c.vocab_size) * number(c.embedding_width()));
  operations_pair_ = 4 * query * number(c.layers);
}

std::span<const double> WorkShare::of(std::span<const Part> parts) {
  double tokens = 0;
  for (const Part& part : parts) tokens += part.tokens;
  const double per_token =
      std::max(operations_token_, machine_.operations_byte * machine_.weight_bytes / std::max(tokens, 1.0));
  shares_.clear();
  double total = 0;
  for (const Part& part : parts) {
    const double count = part.tokens, keys = part.position + count;
    const double pairs = count * part.position + count * (count + 1) / 2;
    const double attention =
        std::max(operations_pair_ * pairs, machine_.operations_byte * machine_.kv_token_bytes * keys);
    shares_.push_back(per_token * count + attention);
    total += shares_.back();
  }
  for (double& share : shares_) share /= total;
  return shares_;
}

}  // namespace ganglion::local
