// See placement.hpp.

#include "backends/local/engine/placement.hpp"

#include <algorithm>
#include <string>

#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {
namespace {

constexpr int kGpusMax = 8;
constexpr std::uint64_t kLibraries = std::uint64_t{768} << 20;  // contexts, cuBLASLt, captured graphs
constexpr int kPagesLeast = 64;                                 // or one sequence of full length, if that is less

double weight_bytes(Quantize quantize, PackedScheme packed) {
  if (quantize == Quantize::none && packed != PackedScheme::none) {
    const bool bytes = packed == PackedScheme::fp8 || packed == PackedScheme::int8;
    return bytes ? 1 : 0.5 + 4.0 / 128;  // int4 with zero points
  }
  switch (quantize) {
    case Quantize::int8:
    case Quantize::w8a8:
    case Quantize::fp8:
      return 1;
    case Quantize::int4:
      return 0.5 + 2.0 / 64;
    case Quantize::none:
      break;
  }
  return 2;
}

// Whose layers the parts of a cut model can compute (CudaDecoder's own conditions are stricter by little).
bool can_be_cut(const ModelConfig& c, const EngineOptions& options) {
  const auto families = {ModelFamily::llama, ModelFamily::mistral, ModelFamily::qwen2, ModelFamily::qwen3};
  return std::ranges::find(families, c.family) != families.end() && options.adapters.empty() &&
         (c.packed.scheme == PackedScheme::none || options.quantize != Quantize::none);
}

std::string gib(std::uint64_t bytes) {
  const std::uint64_t tenths = (bytes * 10 + (std::uint64_t{1} << 29)) >> 30;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GiB";
}

}  // namespace

std::uint64_t GpuNeed::on_each(int gpus) const {
  return declared > 0 ? declared : cut / static_cast<std::uint64_t>(gpus) + first + each;
}

GpuNeed need_of(const ModelConfig& c, const EngineOptions& options) {
  const auto query = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
  const std::int64_t inner = (c.gated ? 3 : 2) * c.intermediate_size * std::max<std::int64_t>(c.experts, 1);
  const double layer = static_cast<double>(c.hidden_size * (2 * query + 2 * keys + inner));
  const std::int64_t context =
      options.context_max > 0 ? std::min<std::int64_t>(options.context_max, c.max_position) : c.max_position;
  const std::int64_t pages = std::min<std::int64_t>(kPagesLeast, context / kPageTokens + 1);
  const std::int64_t rows = std::max(options.step_tokens_max, kGpuStepTokens);
  const bool narrow = options.kv_type == KvType::f8 || options.kv_type == KvType::i8;
  const std::int64_t scales = options.kv_type == KvType::i8 ? 4 * c.kv_heads : 0;
  const std::int64_t page_value = keys * (narrow ? 1 : 2) + scales;
  const auto size = [](double bytes) { return static_cast<std::uint64_t>(std::max(bytes, 0.0)); };
  GpuNeed need;
  need.cut = size(layer * static_cast<double>(c.layers) * weight_bytes(options.quantize, c.packed.scheme)) +
             static_cast<std::uint64_t>(pages * kPageTokens * 2 * c.layers * page_value);
  const double vocabulary = static_cast<double>(c.vocab_size * c.hidden_size);
  need.first = size(vocabulary * (options.quantize == Quantize::none ? (c.tie_embeddings ? 0 : 2) : 1)) +
               static_cast<std::uint64_t>(options.batch_max * c.vocab_size * 4);  // and a step's logits
  need.each = size(vocabulary * 2) + kLibraries +
              static_cast<std::uint64_t>(rows * (c.hidden_size * 10 + query * 8 + keys * 8 + c.intermediate_size * 7));
  need.declared = options.gpu_bytes;
  for (int ways = 1; ways <= kGpusMax; ways *= 2) {
    if (ways > 1 && !can_be_cut(c, options)) break;
    if (c.heads % ways == 0 && c.kv_heads % ways == 0 && c.intermediate_size % ways == 0) need.ways.push_back(ways);
  }
  return need;
}

GpuNeed with_draft(GpuNeed model, const GpuNeed& draft) {
  model.first += draft.on_each(1) - kLibraries;  // which the model has counted
  return model;
}

core::Result<std::vector<int>> place(std::span<const GpuRoom> gpus, const GpuNeed& need) {
  std::vector<GpuRoom> sorted(gpus.begin(), gpus.end());
  std::ranges::sort(sorted, [](const GpuRoom& a, const GpuRoom& b) {
    return a.free_bytes != b.free_bytes ? a.free_bytes > b.free_bytes : a.index < b.index;
  });
  std::string tried;
  for (const int ways : need.ways) {
    const auto count = static_cast<std::size_t>(ways);
    if (count > sorted.size()) break;
    const std::uint64_t wanted = need.on_each(ways);
    if (sorted[count - 1].free_bytes >= wanted) {
      std::vector<int> out;
      for (std::size_t i = 0; i < count; ++i) out.push_back(sorted[i].index);
      return out;
    }
    tried += (tried.empty() ? "" : "; ") + gib(wanted) + " on each of " + std::to_string(ways);
  }
  std::string there;
  for (const GpuRoom& gpu : sorted) there += (there.empty() ? "" : ", ") + gib(gpu.free_bytes);
  return core::fail(core::ErrorKind::unsupported, "the model fits on no GPU here: it needs " + tried + ", free are " +
                                                      (there.empty() ? "none" : there));
}

}  // namespace ganglion::local
