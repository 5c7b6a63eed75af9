// Finds a model's weight files, maps them and joins their headers into one table of tensors.

#include "backends/local/weights/checkpoint.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "backends/local/weights/safetensors.hpp"

namespace ganglion::local {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using Json = nlohmann::json;

constexpr std::uintmax_t kIndexBytesMax = 100'000'000;
constexpr std::size_t kShardsMax = 4096;

// tensor name -> shard file name, as model.safetensors.index.json says.
core::Result<std::map<std::string, std::string>> read_index(const fs::path& path) {
  auto bad = [&](const std::string& what) { return core::fail(ErrorKind::invalid_value, path.string() + ": " + what); };
  std::error_code ec;
  if (fs::file_size(path, ec) > kIndexBytesMax || ec) return bad("cannot be read or is over 100 MB");
  std::ifstream in(path, std::ios::binary);
  const Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) return bad("not a JSON object");
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) return bad("has no weight_map object");
  std::map<std::string, std::string> shard_of;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string()) return bad("weight_map value of \"" + name + "\" is not a file name");
    const std::string& shard = file.get_ref<const std::string&>();
    // Shards lie beside the index: a path could lead anywhere on the disk.
    if (shard.empty() || shard.front() == '.' || shard.find('/') != std::string::npos) {
      return bad("weight_map names the file \"" + shard + "\", which is not a plain file name");
    }
    shard_of.emplace(name, shard);
  }
  return shard_of;
}

}  // namespace

core::Result<void> Checkpoint::add_file(const fs::path& file) {
  auto mapped = MappedFile::open(file);
  if (!mapped) return std::unexpected(mapped.error());
  auto header = parse_safetensors(mapped->bytes(), file.string());
  if (!header) return std::unexpected(header.error());
  files_.push_back(std::move(*mapped));
  for (auto& name : header->names) names_.push_back(std::move(name));
  for (TensorView& view : header->tensors) tensors_.push_back(std::move(view));
  return {};
}

core::Result<void> Checkpoint::open_sharded(const fs::path& index) {
  auto shard_of = read_index(index);
  if (!shard_of) return std::unexpected(shard_of.error());
  std::set<std::string> shards;
  for (const auto& [name, shard] : *shard_of) shards.insert(shard);
  if (shards.size() > kShardsMax) {
    return core::fail(ErrorKind::invalid_value, index.string() + ": lists more than 4096 shards");
  }
  std::size_t listed = 0;
  for (const std::string& shard : shards) {
    const std::size_t before = tensors_.size();
    if (auto ok = add_file(index.parent_path() / shard); !ok) {
      ok.error().message += " (listed in " + index.filename().string() + ")";
      return ok;
    }
    // The index decides: a tensor that it places elsewhere, or does not list, is no part of the model.
    auto foreign = [&](const TensorView& view) {
      const auto it = shard_of->find(std::string(view.name));
      return it == shard_of->end() || it->second != shard;
    };
    tensors_.erase(std::remove_if(tensors_.begin() + static_cast<std::ptrdiff_t>(before), tensors_.end(), foreign),
                   tensors_.end());
    listed += tensors_.size() - before;
  }
  if (listed == shard_of->size()) return {};
  std::set<std::string_view> have;
  for (const TensorView& view : tensors_) have.insert(view.name);
  for (const auto& [name, shard] : *shard_of) {
    if (have.contains(name)) continue;
    return core::fail(ErrorKind::invalid_value,
                      index.string() + ": lists tensor \"" + name + "\" in " + shard + ", which does not hold it");
  }
  return {};
}

core::Result<Checkpoint> Checkpoint::open(const fs::path& path) {
  Checkpoint checkpoint;
  core::Result<void> opened;
  std::error_code ec;
  if (!fs::is_directory(path, ec)) {
    opened = checkpoint.add_file(path);
  } else if (fs::exists(path / "model.safetensors", ec)) {
    opened = checkpoint.add_file(path / "model.safetensors");
  } else if (fs::exists(path / "model.safetensors.index.json", ec)) {
    opened = checkpoint.open_sharded(path / "model.safetensors.index.json");
  } else {
    return core::fail(ErrorKind::not_found, path.string() +
                                                ": has neither model.safetensors nor model.safetensors.index.json "
                                                "(other weight formats are not read)");
  }
  if (!opened) return std::unexpected(opened.error());
  checkpoint.by_name_.reserve(checkpoint.tensors_.size());
  for (std::size_t i = 0; i < checkpoint.tensors_.size(); ++i) {
    checkpoint.by_name_.emplace(checkpoint.tensors_[i].name, i);
    checkpoint.data_bytes_ += checkpoint.tensors_[i].data.size();
  }
  return checkpoint;
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

core::Result<const TensorView*> Checkpoint::require(std::string_view name, std::span<const std::int64_t> shape) const {
  const TensorView* view = find(name);
  if (view == nullptr) {
    return core::fail(ErrorKind::invalid_value, "the weights hold no tensor \"" + std::string(name) + "\"");
  }
  if (!std::ranges::equal(view->shape, shape)) {
    return core::fail(ErrorKind::invalid_value, "tensor \"" + std::string(name) + "\" has shape " +
                                                    shape_text(view->shape) + ", config.json implies " +
                                                    shape_text(shape));
  }
  return view;
}

void Checkpoint::drop_pages(const TensorView& tensor) const {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data.data());
  // Whole pages only: the edges may belong to a neighbour that is still to be read.
  const std::uintptr_t first = (begin + page - 1) / page * page;
  const std::uintptr_t last = (begin + tensor.data.size()) / page * page;
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace ganglion::local
