#pragma once
// A model's weights on disk: one model.safetensors, or the shards that model.safetensors.index.json lists, mapped
// read-only. Opening reads and checks headers only; pages of tensor data come in when touched. Immutable after open,
// so any thread may read.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/local/weights/mapped_file.hpp"
#include "backends/local/weights/tensor_view.hpp"
#include "core/error.hpp"

namespace ganglion::local {

class Checkpoint {
 public:
  // `path` is a model directory or one .safetensors file. Errors name the file and, where there is one, the tensor:
  // not_found (no weights there), invalid_value (malformed: header, bounds, holes, overlap, duplicates, an index that
  // disagrees with its shards), unsupported (an element type that the format does not name).
  static core::Result<Checkpoint> open(const std::filesystem::path& path);

  // nullptr when absent. The pointer lives as long as the checkpoint (also after it is moved).
  const TensorView* find(std::string_view name) const;

  // find() plus a check of the shape; the error says what was expected and what is there.
  core::Result<const TensorView*> require(std::string_view name, std::span<const std::int64_t> shape) const;

  // In file order, shard by shard.
  std::span<const TensorView> tensors() const { return tensors_; }
  std::uint64_t data_bytes() const { return data_bytes_; }

  // Tells the kernel that a tensor's pages are no longer needed (after a copy or quantisation at load), so that the
  // resident size of a model does not double. Advice only; the data stays readable.
  void drop_pages(const TensorView& tensor) const;

 private:
  Checkpoint() = default;
  core::Result<void> add_file(const std::filesystem::path& file);
  core::Result<void> open_sharded(const std::filesystem::path& index);

  std::vector<MappedFile> files_;
  std::vector<std::unique_ptr<std::string>> names_;  // stable storage behind TensorView::name
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
  std::uint64_t data_bytes_ = 0;
};

}  // namespace ganglion::local
